"""Staging in a process that may be killed at any moment: versions are there whole or not at all, migrated learning state too; a slate that never
comes ends by the watchdog."""
import json
import os
import random
import signal
import subprocess
import time

from support import EVECTION, ROOT, Home, main

STAGE = """
local native, stage = require "evection.native", require "evection.stage"
io.write(native.json_encode(stage.run(native.json_decode(arg[1]))))
"""

VERIFY = """
local native, compose = require "evection.native", require "evection.compose"
local whole = native.array {}
for _, name in ipairs(native.list(native.home .. "/versions")) do
  local is = compose.open(("%s/versions/%s/composition.yaml"):format(native.home, name)).hash == name
  assert(is and native.json_decode(native.read_file(("%s/versions/%s/version.json"):format(native.home, name))).version == name, name)
  whole[#whole + 1] = name
end
io.write(native.json_encode(whole))
"""

AGENT = """
return require "evection.agent" {
  name = "mine", role = "explore", about = "x", state = { STATE },
  act = function() ACT end, learn = function() end, migrate = MIGRATE,
}
"""

FILL = """
local native, runner, world, compose = require "evection.native", require "evection.runner", require "evection.world", require "evection.compose"
local w = world.open "world"
local states = runner.states(w, compose.open(arg[1]).nodes, 1)
if arg[2] == "fill" then native.mkdirs(runner.state_folder(w)) end
local found = {}
for _, s in ipairs(states) do
  if s.agent == "mine" and (arg[2] == "fill" or native.exists(s.path)) then
    local state = runner.open_one(s, s.path)
    if arg[2] == "fill" then for i = 0, #state - 1 do state:write(i, { i + 1, 1, 1, 1 }) end end
    local sum = 0
    for i = 0, #state - 1 do sum = sum + state:read(i)[1] end
    found[s.file] = sum
  end
end
io.write(native.json_encode(found))
"""


def stage(home, args, **kw):
    return subprocess.Popen([EVECTION, "run", home.file("stage.lua", STAGE), json.dumps({"data": "world", "seed": 1, **args})], cwd=ROOT, stdin=subprocess.DEVNULL,
                            env=dict(os.environ, EVECTION_HOME=home.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)


def done(process, code=0):
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, (process.returncode, err)
    return json.loads(out) if code == 0 else err


def prepare(home, state='a = { kind = "counts", n = 40 }, b = { kind = "counts", n = 50 }', migrate="nil", act=""):
    home.file("mine.lua", AGENT.replace("STATE", state).replace("MIGRATE", migrate).replace("ACT", act))
    return home.file("c.yaml", "nodes:\n  p: { agent: popular, n: 20 }\n  m: { agent: mine.lua, from: p }\noutput: m\n")


def script(home, text, *args):
    return json.loads(home.run("run", home.file("script.lua", text), *args).stdout)


def test_a_slate_that_never_comes_ends_by_the_watchdog():
    with Home() as home:
        home.run("data", "generate", "--users", "100", "--items", "80", "--sessions", "5")
        path = prepare(home, act="while true do end")
        start = time.monotonic()
        p = stage(home, {"composition": path, "watchdog_ms": 300})
        p.communicate(timeout=60)
        assert p.returncode == -signal.SIGALRM and time.monotonic() - start < 10, p.returncode
        done(stage(home, {"composition": prepare(home), "watchdog_ms": 30000}))


def test_versions_are_whole_whenever_a_stage_is_killed():
    with Home() as home:
        home.run("data", "generate", "--users", "100", "--items", "80", "--sessions", "5")
        rng, killed, whole = random.Random(1), 0, 0
        for i in range(25):
            path = prepare(home, act=f"local _ = {i}")
            p = stage(home, {"composition": path, "gate": {"probes": 4}})
            time.sleep(rng.uniform(0, 0.06))
            p.kill()
            p.communicate()
            killed += p.returncode == -signal.SIGKILL
            names = [n for n in os.listdir(os.path.join(home.path, "versions")) if "draft" not in n] if os.path.isdir(os.path.join(home.path, "versions")) else []
            whole = len(names)
        assert killed > 5, killed
        done(stage(home, {"composition": prepare(home)}))  # sweeps up
        assert len(script(home, VERIFY)) >= whole + 1 - (whole > 24)


def test_learning_state_is_migrated_wholly_or_not_at_all():
    with Home() as home:
        home.run("data", "generate", "--users", "100", "--items", "80", "--sessions", "5")
        champion = done(stage(home, {"composition": prepare(home)}))["version"]
        old = script(home, FILL, os.path.join(home.path, "versions", champion, "composition.yaml"), "fill")
        sums = sorted(old.values())
        assert sums == [sum(range(1, 41)), sum(range(1, 51))], old
        migrate = """function(_, state)
          for _, name in ipairs { "a", "b" } do
            for i = 0, #state[name].old - 1 do state[name].new:write(i, state[name].old:read(i)) end
          end
        end"""
        rng, before, after = random.Random(2), 0, 0
        for n in range(60, 80):
            path = prepare(home, f'a = {{ kind = "counts", n = {n} }}, b = {{ kind = "counts", n = {n + 40} }}', migrate)
            p = stage(home, {"composition": path, "champion": champion, "gate": {"probes": 1}})
            time.sleep(rng.uniform(0.01, 0.05))
            p.kill()
            p.communicate()
            r = done(stage(home, {"composition": path, "champion": champion, "gate": {"probes": 1}}))
            before, after = before + (r["migrated"] == ["mine"]), after + (r["migrated"] == [])
            new = script(home, FILL, path, "read")
            assert sorted(new.values()) == sums and not set(new) & set(old), (n, new, r)
            assert script(home, FILL, os.path.join(home.path, "versions", champion, "composition.yaml"), "read") == old
        left = [f for at, _, files in os.walk(os.path.join(home.path, "state")) for f in files if ".draft" in f]
        assert before > 0, (before, after)
        assert not left, left


if __name__ == "__main__":
    main(globals())
