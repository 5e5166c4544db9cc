"""Versions behind a running service: staged, refused, promoted, rolled back; edits; learning state that is carried, dropped by word, migrated."""
import json
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve import Service, agent, prepare, replace, until
from support import Home, main

BANDIT = """
return require "evection.agent" {
  name = "bandit", role = "explore", about = "Counts what is clicked.",
  state = { arms = { kind = "counts", n = SIZE } },
  act = function(_, request, slate, ctx)
    if ctx.state then ctx.state.arms:choose(slate, { rule = "greedy", epsilon = 1, k = request.n, user = request.user, draws = 0 }) end
  end,
  learn = function(state, events)
    for _, e in ipairs(events) do state.arms:update(e.item, 1) end
  end,
  migrate = MIGRATE,
}
"""


def bandit(size='"items"', migrate="nil"):
    return BANDIT.replace("SIZE", size).replace("MIGRATE", migrate)


def of(home, sign):
    """A composition of an agent of its own, popularity times sign."""
    home.file(f"own{sign}.lua", agent(sign).replace('"mine"', f'"own{"a" if sign == "1" else "b"}"'))
    return home.file(f"own{sign}.yaml", f"nodes:\n  mine: {{ agent: own{sign}.lua }}\noutput: mine\n")


class Load:
    """Asks for slates without a pause from some threads; each must be whole, of one version, and no fallback."""

    def __init__(self, service, threads=2):
        self.s, self.versions, self.wrong, self.n, self.stop = service, set(), [], 0, False
        self.threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(threads)]

    def ask(self):
        while not self.stop:
            try:
                status, d = self.s.ask("GET", "/recommend/nobody?n=5")
                if status != 200 or d["degraded"] or len(d["items"]) != 5:
                    self.wrong.append((status, d))
                self.versions.add(d["version"])
                self.n += 1
            except Exception as e:
                self.wrong.append(repr(e))

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop = True
        for t in self.threads:
            t.join(20)


def versions(home):
    return {v["version"]: v for v in home.json("versions")["versions"]}


def test_a_version_is_staged_promoted_and_rolled_back_in_under_a_second_without_a_failed_request():
    with Home() as home:
        path = prepare(home)
        with Service(home, path) as s:
            first = s.version()["version"]
            top = s.items("nobody", 5)
            with Load(s) as load:
                staged = home.json("stage", of(home, "-1"))
                second = staged["version"]
                assert second != first and staged["gate"]["probes"] == 34 and s.version()["version"] == first, staged
                assert os.path.exists(os.path.join(home.path, "versions", second, "composition.yaml"))
                home.run("promote", second[:12])
                until(lambda: s.version()["version"] == second, "the promotion")
                assert s.items("nobody", 5) != top
                said = home.run("rollback").stdout
                assert said.startswith(f"{first[:12]} is live, {second[:12]} was (0."), said
                assert s.version()["version"] == first and s.items("nobody", 5) == top
                start = time.monotonic()
                home.run("rollback", second[:12])
                assert time.monotonic() - start < 1.5
                assert s.version()["version"] == second
            assert not load.wrong and load.n > 20 and load.versions == {first, second}, (load.wrong[:3], load.n, load.versions)
            kept = versions(home)
            assert kept[second]["state"] == "champion" and kept[second]["parent"] == first and kept[second]["source"] == os.path.realpath(os.path.join(home.path, "own-1.yaml"))


def test_an_edit_becomes_a_version_and_one_that_is_wrong_does_not():
    with Home() as home:
        path = prepare(home)
        with Service(home, path) as s:
            first = s.version()["version"]
            replace(home, "mine.lua", agent("-1"))
            second = until(lambda: (lambda v: v if v != first else None)(s.version()["version"]), "the edit")
            assert {first, second} <= set(versions(home))
            for text, words in ((agent("1").replace("return agent", "return agnt"), "global 'agnt'"), (agent("1", 'error "x"').replace("request.n == 77", "true"), "the gate"),
                                (agent("1").replace("model:recall(request, slate)", ""), "an empty slate")):
                before = s.version()["error"]
                replace(home, "mine.lua", text)
                error = until(lambda: (lambda e: e if e and e != before else None)(s.version()["error"]), words)
                assert words in error and s.version()["version"] == second, error
                assert s.items("nobody")
            replace(home, "mine.lua", agent("1"))
            until(lambda: s.version()["version"] == first and s.version()["error"] == "", "the cure")


def test_a_stage_is_refused_with_its_reason():
    with Home() as home:
        path = prepare(home)
        with Service(home, path) as s:
            live = s.version()["version"]
            for source, more, words in ((home.file("w.yaml", "nodes:\n  a: { agent: populer }\noutput: a\n"), [], "w.yaml:2"), ("agent:nobody", [], "no agent 'nobody'"),
                                        ("abcdefabcdef", [], "no version 'abcdefabcdef'"), (of(home, "-1"), ["--gate-metric", "ndcg@20", "--gate-users", "1"], "ndcg@20 is ")):
                done = home.run("stage", source, "--then", "publish", *more, code=None)
                assert done.returncode in (1, 2) and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
                assert s.version()["version"] == live
            home.run("stage", of(home, "-1"), "--then", "publish")
            assert s.version()["version"] != live


def test_a_canary_is_started_told_of_and_stopped():
    with Home() as home:
        path = prepare(home)
        with Service(home, path) as s:
            first = s.version()["version"]
            second = home.json("stage", of(home, "-1"), "--then", "canary", "--share", "0.5", "--settle-s", "0.1")["version"]
            status = home.json("canary", "status")
            assert status["champion"] == first and status["challenger"] == second and status["share"] == 0.5 and status["options"]["settle_ms"] == 100, status
            served = {u: s.slate(u)["version"] for u in map(str, range(60))}
            assert set(served.values()) == {first, second} and {u: s.slate(u)["version"] for u in served} == served, "a user's version is his own"
            assert home.run("canary", "stop").stdout.startswith(f"the canary of {second[:12]} is stopped")
            assert {s.slate(u)["version"] for u in served} == {first}
            home.run("canary", "start", second[:8], "--share", "1")
            until(lambda: s.slate("nobody")["version"] == second, "the challenger")
            home.run("promote", second)
            assert s.version()["version"] == second and home.run("canary", "stop", code=1).stderr.count("\n") == 1


def test_who_may_not_is_told_so():
    with Home() as home:
        path = prepare(home)
        with Service(home, path) as s:
            for method, route in (("POST", "/versions"), ("POST", "/rollback"), ("POST", "/reload"), ("POST", "/canary/stop"), ("POST", "/versions/0123abcd/promote")):
                status, d = s.ask(method, route, json.dumps({"source": "agent:ease"}))
                assert status in (401, 403) and d["error"], (route, status, d)
            assert s.ask("GET", "/versions")[0] == 200
            done = home.run("rollback", code=None)  # there was none before
            assert done.returncode != 0 and done.stderr.count("\n") == 1
            assert home.run("promote", "0" * 12, code=2).stderr.count("\n") == 1


def test_learning_state_is_carried_dropped_by_word_alone_and_migrated():
    with Home() as home:
        prepare(home)
        home.file("bandit.lua", bandit())
        path = home.file("b.yaml", "nodes:\n  p: { agent: popular, n: 50 }\n  b: { agent: bandit.lua, from: p }\noutput: b\n")
        with Service(home, path) as s:
            first = s.version()["version"]
            items = s.items("nobody")
            s.post([{"id": f"e{i}", "user": "nobody", "item": item} for i, item in enumerate(items)])
            home.file("bandit.lua", bandit() + "-- edited\n")
            until(lambda: s.version()["version"] != first, "an edit that keeps the state")
            second = s.version()["version"]
            home.file("bandit.lua", bandit("7"))
            error = until(lambda: s.version()["error"], "the refusal")
            assert "would drop the learning state of bandit.arms" in error and "drop_state" in error and s.version()["version"] == second, error
            home.file("bandit.lua", bandit("151", "function(_, state) for a = 0, #state.arms.old - 1 do state.arms.new:write(a, state.arms.old:read(a)) end end"))
            third = until(lambda: (lambda v: v if v != second else None)(s.version()["version"]), "the migration")
            assert s.version()["error"] == ""
            show = """local native = require "evection.native"
              local a = native.arms(arg[1], { kind = "counts", n = 151 })
              local n = 0
              for arm = 0, 150 do n = n + a:read(arm)[1] end
              io.write(n)"""
            folder = os.path.join(home.path, "state")
            states = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name.startswith("bandit.arms.counts.151") and name.endswith(".arms")]
            assert len(states) == 1, states
            assert home.run("run", home.file("show.lua", show), states[0]).stdout == "10"
            done = home.run("stage", "agent:popular", "--then", "publish", code=1)
            assert "the agent is not in it" in done.stderr and s.version()["version"] == third
            assert home.json("stage", "agent:popular", "--then", "publish", "--drop-state")["drops"][0]["agent"] == "bandit"
            home.run("rollback")
            assert s.version()["version"] == third


if __name__ == "__main__":
    main(globals())
