"""Training schemes as they are run: what learns, what is interrupted and goes on, what is wrong and says so."""
import fcntl
import glob
import hashlib
import json
import os
import re
import signal
import subprocess
import time

from support import EVECTION, ROOT, Home, main

AGENT = """local agent, space, nn = require "evection.agent", require "evection.space", require "evection.nn"
return agent {
  name = "mine", role = "recall", about = "Under test.",
  space = { n_dims = space.int(1, 256, 16), scheme = space.program "{ loss = nn.loss.bpr() }" },
  fit = function(knobs, data)
    local train, held = nn.holdout(data, { share = 0.1, users = 500 })
    local net = nn.net { data = data }
    local user = net:parameter("user", { data:n_users(), knobs.n_dims }, { init = "normal" })
    local item = net:parameter("item", { data:n_items(), knobs.n_dims }, { init = "normal" })
    local b = net:pairs(train, { size = 256, negatives = 4 })
    local u, i, j = user[b.user], item[b.item], item[b.negative]
    local loss = knobs.scheme({ nn = nn }).loss(u:dot(i), u:dot(j))
    -- HERE
    return nn.train {
      data = data, net = net, batches = b, loss = loss, optimiser = nn.adam { rate = 0.01 }, epochs = EPOCHS, held = held, known = train, patience = 1000,
      model = function() return data:vectors { user = user, item = item } end,
    }
  end,
}
"""
HERE = AGENT[:AGENT.index("-- HERE")].count("\n") + 1  # its line


def generate(home, users=300, items=150, sessions=12):
    home.run("data", "generate", "--as", "world", "--users", str(users), "--items", str(items), "--sessions", str(sessions))


def scheme(home, here="", name="mine", epochs=5):
    """A composition of one agent whose fit has this text in its middle. → its path"""
    home.file(f"{name}.lua", AGENT.replace("-- HERE", here).replace("EPOCHS", str(epochs)).replace('"mine"', f'"{name}"'))
    return home.file(f"{name}.yaml", f"nodes:\n  {name}: {{ agent: {name}.lua }}\noutput: {name}\n")


def start(home, *args):
    return subprocess.Popen([EVECTION, *args], env=dict(os.environ, EVECTION_HOME=home.path), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def artifacts(home):
    return {os.path.basename(p): hashlib.sha256(open(p, "rb").read()).hexdigest() for p in glob.glob(os.path.join(home.path, "artifacts", "*.evm"))}


def leftovers(home):
    return [p for p in os.listdir(os.path.join(home.path, "artifacts")) if not p.endswith(".evm")]


def ndcg(result):
    return result["metrics"]["ndcg@20"]["value"]


def test_agents_that_are_trained_beat_popularity():
    with Home() as home:
        generate(home, 1000, 300, 40)
        popular = ndcg(home.json("eval", "agent:popular", "--data", "world"))
        quick = {"mf": ["--set", "mf.epochs=25", "--set", "mf.size=512"], "light_gcn": ["--set", "light_gcn.epochs=25", "--set", "light_gcn.size=1024"]}
        for name, sets in quick.items():
            got = ndcg(home.json("eval", f"agent:{name}", "--data", "world", *sets))
            assert got > 1.1 * popular, (name, got, popular)  # EASE's is 1.28 times popularity's here
        assert leftovers(home) == []


def test_every_loss_and_sampler_that_a_knob_names_learns():
    with Home() as home:
        generate(home)
        start = ndcg(home.json("eval", "agent:mf", "--data", "world", "--set", "mf.epochs=1", "--set", "mf.rate=0.0001", "--set", "mf.n_dims=16", "--set", "mf.init=0.1"))
        for loss in ("bce", "bpr", "hinge", "cosine_contrastive", "sampled_softmax", "full_softmax", "in_batch_softmax"):
            for negatives in ("4", "64"):
                if negatives == "64" and loss not in ("bpr", "sampled_softmax"):
                    continue  # drawn once for the whole batch
                got = ndcg(home.json("eval", "agent:mf", "--data", "world", "--set", f"mf.loss={loss}", "--set", f"mf.negatives={negatives}",
                                     "--set", "mf.epochs=12", "--set", "mf.size=256", "--set", "mf.n_dims=16", "--set", "mf.rate=0.01", "--set", "mf.l2=0.001",
                                     "--set", "mf.init=0.1"))
                assert got > (1.3 if loss == "cosine_contrastive" else 2.1) * start, (loss, negatives, got, start)  # popularity is no part of cosines


def test_a_scheme_is_a_knob():
    with Home() as home:
        generate(home)
        text = "{ loss = nn.loss.hinge { margin = 0.5 }, sampler = nn.sampler.hard(1, nn.sampler.uniform(4)), optimiser = nn.adagrad { rate = 0.1 }, " \
               "schedule = nn.schedule.linear(), regulariser = nn.regulariser.unit(0.01) }"
        args = ["--data", "world", "--set", "mf.epochs=4", "--set", "mf.n_dims=8"]
        one = home.json("eval", "agent:mf", *args)
        two = home.json("eval", "agent:mf", *args, "--set", f"mf.scheme={text}")
        assert one["genome"] != two["genome"] and ndcg(one) != ndcg(two)
        for bad, word in (("{ loss = ", "mf.scheme"), ("{ loss = nn.loss.hing() }", "mf.scheme:1"), ("{ loss = nn.loss.bpr(), sampler = nn.sampler.uniform(0) }", "mf.scheme:1"),
                          ("{ loss = function(p, n) return p + n end }", "mf.scheme:1: add")):
            done = home.run("eval", "agent:mf", *args, "--set", f"mf.scheme={bad}", code=None)
            assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1 and word in done.stderr, (bad, done.stderr)


def test_a_training_shows_each_epoch_and_ends_when_it_no_longer_gets_better():
    with Home() as home:
        generate(home)
        done = home.run("fit", scheme(home, epochs=6), "--data", "world")
        lines = [line for line in done.stderr.splitlines() if "epoch" in line]
        assert len(lines) == 6, done.stderr
        for k, line in enumerate(lines):
            assert re.fullmatch(rf"fitting mine: epoch {k + 1}/6, loss \d+\.\d+, ndcg@20 0\.\d{{4}}(, the best| \(best 0\.\d{{4}}\)), [\d,]+ examples/s, \d+ s left", line), line
        losses = [float(re.search(r"loss ([\d.]+)", line)[1]) for line in lines]
        assert losses == sorted(losses, reverse=True), losses
        early = scheme(home, name="early", epochs=400)
        text = open(os.path.join(home.path, "early.lua"), encoding="utf-8").read().replace("patience = 1000", "patience = 2")
        home.file("early.lua", text)
        done = home.run("fit", early, "--data", "world")
        values = [float(v) for v in re.findall(r"ndcg@20 ([\d.]+)", done.stderr)]
        best = max(range(len(values)), key=lambda k: (values[k], -k))
        assert 3 <= len(values) < 400 and len(values) >= best + 3, values
        assert home.run("fit", early, "--data", "world", "--quiet").stderr == ""


SLOW = {"users": 3000, "items": 600, "sessions": 20}  # some seconds of training
SLOW_EPOCHS = 12


def test_an_interrupted_training_goes_on_to_the_same_bits():
    with Home() as whole, Home() as home:
        for h in (whole, home):
            generate(h, **SLOW)
        began = time.monotonic()
        whole.run("fit", scheme(whole, epochs=SLOW_EPOCHS), "--data", "world")
        seconds = time.monotonic() - began
        path, said, interrupted = scheme(home, epochs=SLOW_EPOCHS), "", 0
        for k in range(3):
            p = start(home, "fit", path, "--data", "world", "--threads", str(1 + k % 2))
            time.sleep(0.35 * seconds)
            p.send_signal(signal.SIGINT)
            said = p.communicate(timeout=60)[1]
            assert p.returncode in (0, 130), said
            if p.returncode == 130:
                interrupted += 1
                assert "a checkpoint is kept: the same command goes on from there" in said and said.endswith("evection: interrupted\n"), said
                assert any(".checkpoint." in f for f in leftovers(home)) and not any(".draft" in f for f in leftovers(home)), leftovers(home)
        assert interrupted >= 1, "too fast to be interrupted"
        done = home.run("fit", path, "--data", "world")
        assert p.returncode == 0 or "going on from a checkpoint in epoch" in done.stderr, done.stderr
        assert artifacts(home) == artifacts(whole) and len(artifacts(home)) == 1
        assert leftovers(home) == []


# A first training, of the same net, before the one that the agent's text has.
FIRST = "nn.train { data = data, net = net, batches = b, loss = loss, epochs = 4, model = function() return data:vectors { user = user, item = item } end }"


def test_trainings_that_are_killed_go_on_to_the_same_bits():
    with Home() as whole, Home() as home:
        for h in (whole, home):
            generate(h, **SLOW)
        began = time.monotonic()
        whole.run("fit", scheme(whole, FIRST, epochs=SLOW_EPOCHS - 4), "--data", "world")
        seconds = time.monotonic() - began
        path, killed = scheme(home, FIRST, epochs=SLOW_EPOCHS - 4), 0
        for k in range(4):
            p = start(home, "fit", path, "--data", "world", "--checkpoint", "0.05")
            time.sleep((0.2 + 0.1 * k) * seconds)
            p.kill()
            p.communicate()
            killed += p.returncode == -signal.SIGKILL
        assert killed >= 1
        done = home.run("fit", path, "--data", "world")
        assert artifacts(home) == artifacts(whole), (artifacts(home), artifacts(whole))
        assert killed < 4 or "going on from a checkpoint" in done.stderr, done.stderr
        assert leftovers(home) == []


def test_checkpoints_that_nobody_goes_on_from_are_removed_a_week_later():
    with Home() as home:
        generate(home, users=40, items=50)
        folder = os.path.join(home.path, "artifacts")
        os.makedirs(folder)

        def unfinished(letter, days):
            files = [f"{letter * 64}.checkpoint.1{end}" for end in ("", ".lock", ".7.state", ".2.best")]
            for k, name in enumerate(files):
                path = os.path.join(folder, name)
                home.file(path, "of no use")
                os.utime(path, (time.time() - 86400 * (days + k),) * 2)
            return files
        _, late, busy, _ = (unfinished(*x) for x in (("a", 8), ("b", 6), ("c", 8), ("d", 1)))
        home.file(os.path.join(folder, "d" * 64 + ".evm"), "the artifact of a fit that ended elsewhere")
        with open(os.path.join(folder, busy[1]), "w", encoding="utf-8") as lock:
            os.utime(lock.name, (0, 0))
            fcntl.flock(lock, fcntl.LOCK_EX)
            home.run("fit", "agent:popular", "--data", "world")
        assert sorted(leftovers(home)) == sorted(late + busy), leftovers(home)


def test_a_checkpoint_that_is_damaged_or_of_something_else_is_not_gone_on_from():
    with Home() as whole, Home() as home:
        for h in (whole, home):
            generate(h, **SLOW)
        whole.run("fit", scheme(whole, epochs=3), "--data", "world")
        path = scheme(home, epochs=3)
        folder = os.path.join(home.path, "artifacts")
        for damage in range(3):
            p = start(home, "fit", path, "--data", "world", "--checkpoint", "0.01")
            while p.poll() is None and not glob.glob(os.path.join(folder, "*.checkpoint.1")):
                time.sleep(0.005)
            p.kill()
            p.communicate()
            page, = glob.glob(os.path.join(folder, "*.checkpoint.1"))
            state = glob.glob(os.path.join(folder, "*.state"))[0]
            if damage == 0:
                home.file(page, "{ this is no page")
            elif damage == 1:
                with open(state, "r+b") as f:
                    f.seek(os.path.getsize(state) // 2)
                    f.write(b"\xff\xff\xff\xff")
                text = json.loads(open(page, encoding="utf-8").read())
                home.file(page, json.dumps(dict(text, state=state)))
            else:
                text = json.loads(open(page, encoding="utf-8").read())
                home.file(page, json.dumps(dict(text, steps=text["steps"] + 1)))
            done = home.run("fit", path, "--data", "world")
            assert "going on" not in done.stderr, (damage, done.stderr)
            assert artifacts(home) == artifacts(whole), damage
            assert leftovers(home) == []
            os.remove(glob.glob(os.path.join(folder, "*.evm"))[0])


# Text in the middle of fit → exit code, what the one line must say.
BAD = {
    "shape": ("local wrong = u:matmul(i)", 2, rf"bad_shape\.lua:{HERE}: matmul \(256, 16\) x \(256, 16\): "),
    "shapes": ("loss = loss + u", 2, rf"bad_shapes\.lua:{HERE}: add |bad_shapes\.lua:{HERE}: the loss is add \(256, 16\)"),
    "nan": ("loss = ((u:dot(i) * 0 - 1):log() * 2):mean()", 2, rf"bad_nan\.lua:{HERE}: the loss is no number at step 0: log \(256\)"),
    "inf": ("local big = user * 1e30\n    loss = (big * big):mean()", 2, r"the loss is no number at step 0: mul \(\d+, 16\) gave the first inf"),
    "id": ("local ids = net:ids('mine', { 1 }) ids:fill { 99999 } loss = loss + item[ids]:sum()", 2, rf"bad_id\.lua:{HERE}: gather.*99999"),
    "huge": ("local huge = net:parameter('huge', { 1e6, 25000 })", 3, rf"bad_huge\.lua:{HERE}: huge \(1000000, 25000\): 100000\.0 MB more than"),
    "operator": ("loss = loss:sofplus()", 2, rf"bad_operator\.lua:{HERE}: there is no operator 'sofplus'"),
    "lua": ("local x = nil; loss = x.y", 1, rf"bad_lua\.lua:{HERE}: "),
    "string": ("loss = loss + 'one'", 1, "add: an argument is a string"),
    "model": ("if u then return item end", 1, "no model that it made"),
    "door": ("local io = require 'io'", 1, rf"bad_door\.lua:{HERE}: .*agents may require"),
    "negative_rate": ("nn.adam = function() return { rate = -1, options = { kind = 'adam' } } end", 2, "a learning rate of -1"),
    "train": ("if u then return nn.train { data = data, net = net, batches = b, loss = loss, modle = 1, model = error } end", 1, "no option 'modle'"),
    "validation": ("if u then return nn.train { data = data, net = net, batches = b, loss = loss, epochs = 1, model = function() return user end } end", 1,
                   "model"),
}


def test_a_bad_scheme_ends_with_one_line_that_names_operator_shapes_and_place():
    with Home() as home:
        generate(home)
        good = home.json("eval", scheme(home, epochs=2), "--data", "world")
        for name, (here, code, says) in BAD.items():
            path = scheme(home, here, f"bad_{name}", epochs=1)
            done = home.run("eval", path, "--data", "world", "--quiet", code=code)
            assert done.stdout == "" and len(done.stderr.splitlines()) == 1, (name, done.stdout, done.stderr)
            assert done.stderr.startswith(f"evection: node bad_{name}: fit: ") and re.search(says, done.stderr), (name, done.stderr)
            assert leftovers(home) == [], name
        # One host, one after the other: a bad one harms none that come after it.
        script = home.file("all.lua", """
local world = require "evection.world"
local failed = 0
for i = 2, #arg do
  local ok = pcall(world.evaluate, { composition = arg[i], data = "world" })
  if not ok then failed = failed + 1 end
end
os.remove(require("evection.native").home .. "/artifacts/" .. require("evection.native").list(require("evection.native").home .. "/artifacts")[1])
local result = world.evaluate { composition = arg[1], data = "world", bootstrap = 0 }
print(failed, ("%.17g"):format(result.metrics["ndcg@20"].value))
""")
        bad = [os.path.join(home.path, f"bad_{name}.yaml") for name in BAD]
        failed, value = home.run("run", script, os.path.join(home.path, "mine.yaml"), *bad).stdout.split()
        assert int(failed) == len(bad) and abs(float(value) - ndcg(good)) < 1e-12, (failed, value, ndcg(good))


LOOP = "local x = 0 while true do x = x + 1 end"


def test_a_scheme_that_never_ends_is_ended():
    with Home() as home:
        generate(home)
        path = scheme(home, LOOP)
        began = time.monotonic()
        done = home.run("fit", path, "--data", "world", "--timeout", "0.5", code=3)
        assert time.monotonic() - began < 20
        assert done.stderr.splitlines()[-1].startswith("evection: ran out of time (--timeout)"), done.stderr
        p = start(home, "eval", path, "--data", "world")
        time.sleep(1)
        p.send_signal(signal.SIGINT)
        said = p.communicate(timeout=20)[1]
        assert p.returncode == 130 and said.splitlines()[-1].startswith("evection: interrupted"), (p.returncode, said)
        # What listens ends at once, with what it has reached.
        slow = scheme(home, name="slow", epochs=100000)
        lua = os.path.join(home.path, "slow.lua")
        with open(lua, encoding="utf-8") as f:
            text = f.read()
        with open(lua, "w", encoding="utf-8") as f:
            f.write(text.replace("patience = 1000", "patience = 100000")) # not even on a fast machine
        done = home.run("fit", slow, "--data", "world", "--timeout", "1.5", code=3)
        assert "a checkpoint is kept" in done.stderr and done.stderr.endswith("evection: ran out of time (--timeout)\n"), done.stderr
        done = home.run("fit", slow, "--data", "world", "--timeout", "1.5", code=3)
        assert "going on from a checkpoint" in done.stderr, done.stderr
        for bad in ("0", "-1"):
            assert "--timeout" in home.run("fit", path, "--data", "world", "--timeout", bad, code=2).stderr


def test_evolution_lives_with_bad_schemes():
    with Home() as home:
        generate(home)
        scheme(home, "if knobs.n_dims > 128 then while true do end end if knobs.n_dims > 64 then u:matmul(u) end", epochs=1)
        plan = home.file("p.yaml", f"composition: {home.path}/mine.yaml\ndata: world\nevolve: [\"mine.n_dims\"]\nproposers: [random]\n"
                                   "budget: { evaluations: 8 }\nbatch: 4\ntimeout_s: 4\nseed: 3\n")
        done = home.run("evolve", plan, "--no-report", "--workers", "2")
        assert "ran out of time" in done.stderr and "matmul (256, " in done.stderr, done.stderr
        assert re.search(r"8 evaluations, [1-7] failed", done.stdout), done.stdout


if __name__ == "__main__":
    main(globals())
