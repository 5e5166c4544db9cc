"""Clicks: a ranker by itself, on the interactions of a fold; metrics against NumPy, a fit against SciPy, comparisons, evolution."""
import json
import os

import numpy as np
from scipy.optimize import minimize

from support import Home, main

USERS, ITEMS, EACH = 120, 60, 30

# What a ranker says of every held interaction: user, item, logit.
DUMP = """
local native = require "evection.native"
local compose = require "evection.compose"
local runner = require "evection.runner"
local world = require "evection.world"
local c, w = compose.open(arg[1], native.json_decode(arg[2])), world.open "world"
local run = runner.fit_clicks(c, w, { folds = native.TRAIN, seed = 1, positive_rating = 4 })
local held, known, slate, out = w:view(native.VALID).data, w:view(native.TRAIN).data, native.slate(), native.array {}
local clicks = native.clicks(held, 4)
for user = 0, held:n_users() - 1 do
  if held:n_of_user(user) > 0 then
    clicks:fill(slate, held, user)
    run:score(native.requests(known, { user }), 1, slate)
    for i = 1, #slate do out[#out + 1] = native.array { w:user_id(user), w:item_id(slate:item(i)), slate:score_at(i) } end
  end
end
local train = native.array {}
for user = 0, known:n_users() - 1 do
  for _, item in ipairs(w:history(user, native.TRAIN)) do train[#train + 1] = native.array { w:user_id(user), w:item_id(item) } end
end
io.write(native.json_encode { held = out, train = train })
"""


def make_data(home, split="last"):
    """Ratings that depend on who, what, and on whether their sides agree. → {(user, item): rating}"""
    rng = np.random.default_rng(5)
    side, kind = rng.integers(0, 3, USERS), rng.integers(0, 3, ITEMS)
    who, what, rated, rows = rng.normal(0, 0.7, USERS), rng.normal(0, 0.7, ITEMS), {}, []
    for u in range(USERS):
        for k, i in enumerate(rng.permutation(ITEMS)[:EACH]):
            y = who[u] + what[i] + (1.5 if side[u] == kind[i] else -0.75)
            liked = rng.random() < 1 / (1 + np.exp(-y))
            rated[f"u{u}", f"i{i}"] = int(rng.integers(4, 6) if liked else rng.integers(1, 4))
            rows.append(f"u{u},i{i},{rated[f'u{u}', f'i{i}']},{1000 * u + k}")
    ratings = home.file("r.csv", "user,item,rating,time\n" + "\n".join(rows) + "\n")
    users = home.file("r.user", "user_id:token\tside:token\n" + "".join(f"u{u}\ts{side[u]}\n" for u in range(USERS)))
    items = home.file("r.item", "item_id:token\tkind:token\tsize:float\n" + "".join(f"i{i}\tk{kind[i]}\t{i % 7}\n" for i in range(ITEMS)))
    home.run("data", "import", ratings, users, items, "--as", "world", "--split", split, "--quiet")
    return rated


def dump(home, agent, sets=None):
    script = home.file("dump.lua", DUMP)
    done = home.run("run", script, f"agent:{agent}", json.dumps({f"{agent}.{k}": v for k, v in (sets or {}).items()}))
    return json.loads(done.stdout)


def area(label, score):
    above = np.subtract.outer(score[label > 0], score[label == 0])
    return np.mean((above > 0) + 0.5 * (above == 0)) if above.size else np.nan


def clicks(home, agent, *args, **kw):
    return home.json("eval", f"agent:{agent}", "--data", "world", "--task", "clicks", *args, **kw)


def test_metrics_are_those_of_the_logits():
    with Home() as home:
        rated = make_data(home)
        for agent in ("logistic", "fm", "gbdt"):
            rows = dump(home, agent)["held"]
            label = np.array([rated[u, i] >= 4 for u, i, _ in rows], float)
            logit, user = np.array([x for _, _, x in rows]), np.array([u for u, _, _ in rows])
            said = clicks(home, agent)
            assert (said["n_rows"], said["n_positive"], said["n_users"]) == (len(rows), label.sum(), USERS) and said["task"] == "clicks"
            own = [(np.sum(user == u), area(label[user == u], logit[user == u])) for u in sorted(set(user))]
            weight, areas = np.array([x for x in own if not np.isnan(x[1])]).T
            expected = {"auc": area(label, logit), "gauc": (weight * areas).sum() / weight.sum(), "log_loss": np.mean(np.logaddexp(0, np.where(label > 0, -logit, logit)))}
            for name, value in expected.items():
                m = said["metrics"][name]
                assert abs(m["value"] - value) < 1e-6, (agent, name, m, value)
                assert m["low"] < m["value"] < m["high"]
            assert set(said["metrics"]) == set(expected)
            assert expected["auc"] > 0.6, (agent, expected)


def test_logistic_regression_comes_to_the_minimum_of_its_penalised_loss():
    with Home() as home:
        rated = make_data(home)
        with open(os.path.join(home.path, "r.user"), encoding="utf-8") as f:
            side = dict(line.split() for line in f.read().splitlines()[1:])
        with open(os.path.join(home.path, "r.item"), encoding="utf-8") as f:
            items = {line.split()[0]: line.split()[1:] for line in f.read().splitlines()[1:]}
        said = dump(home, "logistic", {"frequency_power": 0, "regularization": 2, "learning_rate": 0.3, "epochs": 100})
        train = said["train"]
        sizes = np.array([float(items[i][1]) for _, i in train])

        def features(pairs):
            x = np.zeros((len(pairs), USERS + 3 + ITEMS + 3 + 2))
            for k, (u, i, *_) in enumerate(pairs):
                x[k, [int(u[1:]), USERS + int(side[u][1:]), USERS + 3 + int(i[1:]), USERS + ITEMS + 3 + int(items[i][0][1:])]] = 1
                x[k, -2] = (float(items[i][1]) - sizes.mean()) / sizes.std()
                x[k, -1] = 1
            return x

        x, y = features(train), np.array([rated[u, i] >= 4 for u, i in train], float)
        for power, penalty in ((0, np.full(x.shape[1], 2.0)), (1, 0.05 * (x != 0).sum(0))):
            penalty = np.append(penalty[:-1], 0)  # the bias is free

            def loss(w):
                z = x @ w
                return np.logaddexp(0, np.where(y > 0, -z, z)).sum() + 0.5 * (penalty * w * w).sum(), x.T @ (1 / (1 + np.exp(-z)) - y) + penalty * w

            best = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 5000})
            if power == 1:
                said = dump(home, "logistic", {"frequency_power": 1, "regularization": 0.05, "learning_rate": 0.3, "epochs": 100})
            expected, got = features(said["held"]) @ best.x, np.array([s for _, _, s in said["held"]])
            found = power, np.corrcoef(expected, got)[0, 1], np.abs(expected - got).mean()
            assert found[1] > 0.998 and found[2] < 0.04, found


def test_two_rankers_are_compared_on_the_same_rows():
    with Home() as home:
        make_data(home)
        pairs = ["--fold", "test", "--refit", "--set", "fm.learning_rate=0.1", "--set", "fm.epochs=10", "--set", "fm.regularization=0.05"]
        sums = ["--set", "logistic.epochs=20", "--set", "logistic.learning_rate=0.1"]
        said = clicks(home, "fm", *pairs, *sums, "--against", "agent:logistic")
        d, other = said["against"]["difference"], said["against"]
        for name in ("auc", "gauc", "log_loss"):
            assert abs(d[name]["value"] - (said["metrics"][name]["value"] - other["metrics"][name]["value"])) < 1e-9
            assert d[name]["low"] < d[name]["value"] < d[name]["high"]
        assert d["auc"]["low"] > 0 and d["log_loss"]["high"] < 0 and d["auc"]["p"] < 0.01, d  # sides agree or not: a pair of features
        alone = clicks(home, "logistic", *sums, *pairs[:3])
        assert other["metrics"] == alone["metrics"] and other["genome"] == alone["genome"]
        assert clicks(home, "fm", *pairs)["metrics"] == said["metrics"]
        text = home.run("eval", "agent:fm", "--data", "world", "--task", "clicks", "--against", "agent:logistic", "--quiet").stdout
        assert "against agent:logistic" in text or "against logistic" in text
        assert "log_loss" in text and "clicks (rated 4 or more)" in text


def test_nothing_depends_on_threads_or_on_what_is_cached():
    with Home() as home:
        make_data(home)
        for agent in ("fm", "gbdt"):
            one, two, four = clicks(home, agent, "--threads", "1"), clicks(home, agent), None
            with Home() as other:
                make_data(other)
                four = clicks(other, agent, "--threads", "4")
            assert one["metrics"] == two["metrics"] == four["metrics"]
        assert clicks(home, "fm", "--seed", "2")["metrics"] != clicks(home, "fm")["metrics"]
        few = clicks(home, "fm", "--users", "0.25")
        assert few["n_users"] == USERS / 4 and few["n_rows"] < USERS * EACH / 20
        strict = clicks(home, "fm", "--positive-rating", "5")
        assert strict["n_rows"] == one["n_rows"] and 0 < strict["n_positive"] < one["n_positive"]
        assert clicks(home, "fm", "--set", "fm.use_ids=never")["metrics"]["auc"]["value"] < one["metrics"]["auc"]["value"] + 0.2


def test_only_the_ranker_of_a_composition_is_asked():
    with Home() as home:
        make_data(home)
        path = home.file("c.yaml", "nodes:\n  a: { agent: ease }\n  b: { agent: logistic, from: a }\noutput: b\n")
        said = home.json("eval", path, "--data", "world", "--task", "clicks")
        assert said["metrics"] == clicks(home, "logistic")["metrics"]
        assert len(os.listdir(os.path.join(home.path, "artifacts"))) == 1, "nothing else is fitted, and nothing twice"
        own = home.file("own.lua", """local agent = require "evection.agent"
return agent { name = "own", role = "rank", about = "Likes what it saw first.", fit = function(_, data) return data:ranker { epochs = 1 } end,
  act = function(model, request, slate, ctx)
    model:rank(request, slate, ctx.data)
    slate.score:mul(2)
    slate:sort()
  end }""")
        path = home.file("own.yaml", "nodes:\n  a: { agent: popular }\n  b: { agent: own.lua, from: a }\noutput: b\n")
        assert os.path.exists(own) and home.json("eval", path, "--data", "world", "--task", "clicks")["metrics"]["auc"]["value"] > 0.5
        home.file("own.lua", """local agent = require "evection.agent"
return agent { name = "own", role = "rank", about = "Forgets.", act = function(_, _, slate) slate:truncate(1) end, fit = function(_, data) return data:ranker { epochs = 1 } end }""")
        assert "took a candidate out" in home.run("eval", path, "--data", "world", "--task", "clicks", code=1).stderr


def test_what_cannot_be_measured_is_said():
    with Home() as home:
        make_data(home)

        def complaint(*args, code=2):
            done = home.run("eval", *args, "--data", "world", "--quiet", code=None)
            assert done.returncode == code and done.stderr.count("\n") == 1, (args, done.returncode, done.stderr)
            return done.stderr

        assert "role recall" in complaint("agent:ease", "--task", "clicks")
        assert "'ctr'" in complaint("agent:fm", "--task", "ctr")
        assert "clicks" in complaint("agent:fm", "--against", "agent:logistic")
        assert "neither" in complaint("agent:fm", "--task", "clicks", "--against", "agent:logistic", "--set", "nobody.x=1")
        assert "no knob 'x'" in complaint("agent:fm", "--task", "clicks", "--against", "agent:logistic", "--set", "logistic.x=1")
        assert "nothing to tell apart" in complaint("agent:fm", "--task", "clicks", "--positive-rating", "6")
        assert "refit" in complaint("agent:fm", "--task", "clicks", "--refit")
        home.file("plain.csv", "user,item\n" + "".join(f"u{k % 20},i{k // 20}\n" for k in range(200)))
        home.run("data", "import", os.path.join(home.path, "plain.csv"), "--as", "world", "--quiet")
        assert "no ratings" in complaint("agent:fm", "--task", "clicks")


def test_looks_at_the_test_fold_are_counted_for_each_ranker():
    with Home() as home:
        make_data(home, "time")
        assert clicks(home, "fm", "--fold", "test", "--refit")["looks"] == 1
        assert clicks(home, "fm", "--fold", "test", "--refit", "--against", "agent:logistic")["looks"] == 3


def test_knobs_evolve_on_clicks():
    with Home() as home:
        make_data(home)
        home.file("c.yaml", "nodes:\n  a: { agent: popular }\n  b: { agent: fm, from: a, knobs: { epochs: 1, learning_rate: 0.001 } }\noutput: b\n")
        plan = home.file("p.yaml", "composition: c.yaml\ndata: world\ntask: clicks\nreward: log_loss\nevolve: [b.epochs, b.learning_rate]\n"
                                   "proposers: [random]\nbudget: { evaluations: 8 }\npromotion: { metric: log_loss }\nseed: 3\n")
        said = home.json("evolve", plan, "--workers", "2")
        assert said["evaluations"] == 8 and said["failed"] == 0 and said["champion"]["reward"] > said["given"], said
        report = said["report"]
        assert report["metric"] == "log_loss" and report["promoted"] and report["test"]["high"] < 0 and report["looks"] == 2, report
        assert abs(report["champion"]["log_loss"]["value"] - report["given"]["log_loss"]["value"] - report["test"]["value"]) < 1e-9
        champion = said["champion"]
        again = home.json("eval", champion["file"], "--data", "world", "--task", "clicks", "--seed", "3")
        assert abs(again["metrics"]["log_loss"]["value"] + champion["reward"]) < 1e-9
        bad = home.file("bad.yaml", "composition: c.yaml\ntask: clicks\nreward: ndcg@20\npromotion: { metric: recall@5 }\n")
        done = home.run("check", bad, code=None)
        assert done.returncode != 0 and "auc, gauc and log_loss" in done.stdout + done.stderr and "recall@5" in done.stdout + done.stderr


main(globals())
