"""Off-policy evaluation: every figure against NumPy's, policies in files, logs in two formats, refusals, exit codes."""
import json
import os
import sys

import numpy as np

from support import DATA, ROOT, Home, main

sys.path.insert(0, os.path.join(ROOT, "tests", "reference"))
import ope as reference  # noqa: E402

np.seterr(over="ignore")  # 64-bit arithmetic that wraps is how the generator works


def near(ours, theirs, what, tolerance=1e-9):
    if theirs is not None and np.isinf(theirs):
        assert ours == "inf", f"{what}: {ours}, not infinite"
        return
    assert abs(ours - theirs) <= tolerance * max(1, abs(theirs)), f"{what}: {ours!r}, NumPy has {theirs!r}"


def compare(result, expected, weights, edges=1e-9):
    assert set(result["metrics"]) == set(expected), (set(result["metrics"]), set(expected))
    for kind, e in expected.items():
        for field, x in e.items():
            near(result["metrics"][kind][field], float(x), f"{kind}.{field}", edges if field.startswith("bernstein") else 1e-9)
    for field, x in weights.items():
        near(result["weights"][field], float(x), f"weights.{field}")


def obd(home):
    folder, logs = os.path.join(DATA, "obd"), {}
    for name in ("random", "bts"):
        home.run("ope", "import", f"{folder}/{name}/men.csv", f"{folder}/{name}/men_item_context.csv", "--as", name)
        logs[name] = reference.Obd(f"{folder}/{name}")
    return logs


def test_open_bandit_dataset_both_ways_as_numpy_has_it():
    if not os.path.isdir(os.path.join(DATA, "obd")):
        return "skipped"
    with Home() as home:
        logs = obd(home)
        for log, policy, model, resamples in (("random", "bts", "logistic", 0), ("bts", "random", "ridge", 40)):
            x, pi = logs[log], logs[policy].shares()[logs[log].position]
            q = reference.cross_fit(x, logistic=model == "logistic")
            mrdr = reference.cross_fit(x, reference.mrdr_weights(x, pi))
            expected = reference.estimates(x, pi, q, mrdr, resamples=resamples, moves=reference.Moves(x, logistic=model == "logistic"))
            result = home.json("ope", log, "--policy", policy, "--model", model, "--bootstrap", str(resamples))
            compare(result, expected, reference.weights(x, pi))
            assert ("bernstein_low" in result["metrics"]["dr"]) and "bernstein_low" not in result["metrics"]["dm"]
            assert result["on_policy"]["value"] == logs[policy].reward.mean()
            for kind, e in result["metrics"].items():
                near(e["relative_error"], abs(expected[kind]["value"] / logs[policy].reward.mean() - 1), kind)


def test_the_same_bits_for_any_number_of_threads_and_another_seed_another_answer():
    if not os.path.isdir(os.path.join(DATA, "obd")):
        return "skipped"
    with Home() as home:
        obd(home)
        results = [home.json("ope", "random", "--policy", "bts", "--bootstrap", "30", "--threads", t, "--seed", seed)["metrics"] for t, seed in (("1", "3"), ("3", "3"), ("1", "4"))]
        assert results[0] == results[1]
        assert results[0]["dr"] != results[2]["dr"]


ARMS = ["a", "b", "c", "d", "é"]

SLATE_POLICY = """
-- Arms that are not above, in proportion to what the context says of them; the place alone: every arm alike.
return function(context, row)
  local list, sum, alone, taken = {}, 0, {}, {}
  for _, name in ipairs(row.above) do taken[name] = true end
  for a, name in ipairs(row.arms) do
    list[a] = taken[name] and 0 or 1 + a * (context.mood + 2) / 4
    sum, alone[a] = sum + list[a], 1 / row.n_arms
  end
  for a = 1, row.n_arms do list[a] = list[a] / sum end
  return list, alone
end
"""


def shares(above, mood, slope):
    raw = np.array([0 if a in above else 1 + (a + 1) * (mood + 2) / slope for a in range(len(ARMS))])
    return raw / raw.sum()


def make_slates(n, seed):
    """A log whose clicks depend on the arm, the arm above and the context; its lines, and the columns for NumPy."""
    rng, length = np.random.default_rng(seed), 3
    arm, reward, propensity = np.full((n, length), -1), np.zeros((n, length)), np.zeros((n, length))
    policy, context, lines = np.zeros((n, length, len(ARMS))), np.zeros((n, 2)), [json.dumps({"arms": ARMS, "reward_range": [0, 2]}, ensure_ascii=False)]
    for i in range(n):
        context[i] = mood, other = round(rng.random(), 3), round(rng.normal(), 3)
        for place in range(length if rng.random() < 0.8 else 2):
            above = list(arm[i, :place])
            logging = shares(above, mood, -40)
            policy[i, place] = shares(above, mood, 4)
            a = arm[i, place] = rng.choice(len(ARMS), p=logging)
            propensity[i, place] = logging[a]
            reward[i, place] = round(rng.random() * (1 + (a == 2) * mood), 3) * (rng.random() < 0.6)
        k = (arm[i] >= 0).sum()
        lines.append(json.dumps({"context": {"mood": mood, "other": other}, "slate": [ARMS[a] for a in arm[i, :k]], "rewards": list(reward[i, :k]), "propensities": list(propensity[i, :k]),
                                 "marginals": [0.2] * int(k), "user": f"u{i % 97}", "time": 1574553663.5 + i, "_mine": {"anything": 1}}, ensure_ascii=False))
    there = arm >= 0
    return "\n".join(lines) + "\n", reference.Slates(arm=arm, reward=reward, propensity=propensity, marginal=np.where(there, 0.2, 0), policy=policy,
                                                     policy_marginal=np.where(there, 1 / len(ARMS), 0), context=context)


def test_slates_as_numpy_has_them():
    with Home() as home:
        text, s = make_slates(400, 11)
        log, policy = home.file("slates.jsonl", text), home.file("policy.lua", SLATE_POLICY)
        q, v = reference.slate_model(s)
        expected, weights = reference.slate_estimates(s, q, v, np.arange(s.n) % 97)
        result = home.json("ope", log, "--policy", policy, "--bootstrap", "200")
        assert set(result["metrics"]) == set(expected)
        for kind, (value, error) in expected.items():
            e = result["metrics"][kind]
            near(e["value"], value, kind)
            near(e["standard_error"], error, kind)
            assert e["low"] < value < e["high"], kind
            width = (e["high"] - e["low"]) / (2 * 1.96 * error)
            assert 0.75 < width < 1.25, f"{kind}: the bootstrap's interval is {width} times the normal one"
        for field, name in (("weights", "whole"), ("prefix_weights", "prefix"), ("place_weights", "place")):
            w = weights[name]
            near(result[field]["ess"], w.sum() ** 2 / (w ** 2).sum(), field)
            near(result[field]["max"], w.max(), field)
        home.run("ope", "import", log, "--as", "feed")
        again = home.json("ope", "feed", "--policy", policy, "--bootstrap", "200")
        assert again["metrics"] == result["metrics"], "an imported log says what its file says"
        none = home.json("ope", "feed", "--policy", policy, "--model", "none")
        assert set(none["metrics"]) == set(expected) - {"cascade_dr"}


class Log:
    """A plain log for NumPy, and its lines."""

    def __init__(self, n, seed, arms=4):
        rng = np.random.default_rng(seed)
        self.n, self.arms, self.position, self.pair, self.arm_features = n, arms, None, None, None
        self.context = np.round(rng.normal(size=(n, 3)), 3)
        logits = self.context @ rng.normal(size=(3, arms))
        self.logged = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        self.policy = np.roll(self.logged, 1, axis=1)
        self.arm = np.array([rng.choice(arms, p=p) for p in self.logged])
        self.propensity = self.logged[np.arange(n), self.arm]
        self.user = rng.integers(0, 60, n)
        self.reward = np.round(rng.normal(size=60)[self.user] + self.context[:, 0] * (self.arm == 1) + rng.normal(size=n) - 0.5, 3)

    def lines(self, users=False):
        for i in range(self.n):
            yield {**({"user": f"u{self.user[i]}"} if users else {}), "context": list(self.context[i]), "arm": int(self.arm[i]), "reward": self.reward[i], "propensity": self.propensity[i],
                   "probabilities": {str(a): p for a, p in enumerate(self.logged[i])}, "evaluated": {str(a): p for a, p in enumerate(self.policy[i])}}

    def text(self, users=False):
        return "".join(json.dumps(x) + "\n" for x in [{"arms": list(range(self.arms))}, *self.lines(users)])


def test_a_policy_that_comes_with_the_log_real_rewards_and_a_crossed_model():
    with Home() as home:
        x = Log(500, 3)
        log = home.file("log.jsonl", x.text())
        q = reference.cross_fit(x, crossed=True, penalty=2.0, folds=3, seed=9)
        mrdr = reference.cross_fit(x, reference.mrdr_weights(x, x.policy), crossed=True, penalty=2.0, folds=3, seed=9)
        expected = reference.estimates(x, x.policy, q, mrdr, resamples=50, seed=9, confidence=0.9, reward=(-6, 6), moves=reference.Moves(x, crossed=True, penalty=2.0, folds=3, seed=9))
        result = home.json("ope", log, "--policy", "evaluated", "--crossed", "--penalty", "2", "--folds", "3", "--seed", "9", "--bootstrap", "50", "--confidence", "0.9", "--reward-range", "-6,6")
        assert result["model"] == "ridge"
        compare(result, expected, reference.weights(x, x.policy))
        own = home.json("ope", log, "--policy", "logged", "--model", "none")["metrics"]
        near(own["ips"]["value"], x.reward.mean(), "the logging policy's own value")


def test_rows_of_one_user_are_resampled_and_counted_together():
    with Home() as home:
        x = Log(400, 4)
        alone, together = (home.json("ope", home.file("log.jsonl", x.text(users)), "--policy", "evaluated", "--model", "none", "--bootstrap", "200", "--reward-range", "-9,9")["metrics"] for users in (False, True))
        order = {u: k for k, u in enumerate(dict.fromkeys(x.user))}  # numbered as they come
        expected = reference.estimates(x, x.policy, resamples=200, reward=(-9, 9), cluster=np.array([order[u] for u in x.user]))
        for kind, e in expected.items():
            for field, value in e.items():
                near(together[kind][field], float(value), f"{kind}.{field}")
        assert together["snips"]["standard_error"] > 1.1 * alone["snips"]["standard_error"], "users who differ make rows that are alike"
        assert together["ips"]["value"] == alone["ips"]["value"]


def test_policies_in_files_are_what_they_say():
    with Home() as home:
        x = Log(300, 5)
        log = home.file("log.jsonl", x.text())
        table = home.file("p.yaml", "probabilities: { '0': 0.5, '2': 0.3, '3': 0.2 }\n")
        same = home.file("p.lua", "return function(context, row) return { ['0'] = 0.5, ['2'] = 0.3, ['3'] = 0.2 } end\n")
        mixed = home.file("m.yaml", f"mix:\n  - {{ policy: uniform, share: 0.25 }}\n  - {{ policy: {same}, share: 0.75 }}\n")
        pi = np.tile([0.5, 0, 0.3, 0.2], (x.n, 1))
        for policy, p in ((table, pi), (same, pi), (mixed, 0.25 * 0.25 + 0.75 * pi), ("uniform", np.full((x.n, 4), 0.25))):
            ips = home.json("ope", log, "--policy", policy, "--model", "none", "--bootstrap", "0")["metrics"]["ips"]["value"]
            near(ips, (p[np.arange(x.n), x.arm] / x.propensity * x.reward).mean(), policy)


def refused(home, text, *words, name="bad.jsonl", args=(), code=2):
    path = home.file(name, text)
    done = home.run("ope", "import", path, *args, "--as", "bad", code=code)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("evection: "), done.stderr
    for word in words:
        assert word in lines[0], f"no '{word}' in: {lines[0]}"
    assert not os.path.exists(os.path.join(home.path, "logs", "bad.evb")), "nothing is left behind"


def test_what_is_wrong_in_a_log_is_named_by_file_line_and_value():
    good = {"context": [0.5, 1], "arm": "x", "reward": 1, "propensity": 0.5}
    with Home() as home:
        def bad(*words, **change):
            row = {**good, **change}
            text = json.dumps(good) + "\n\n" + json.dumps({k: v for k, v in row.items() if v is not ...}) + "\n"
            refused(home, text, "bad.jsonl:3:", *words)
        bad("propensity", " 0,", propensity=0)
        bad("propensity", "1.25", propensity=1.25)
        bad("propensity", "-0.1", propensity=-0.1)
        bad("propensity", "missing", propensity=...)
        bad("propensity", "'half'", propensity="half")
        bad("reward", "missing", reward=...)
        bad("reward", "a list", reward=[1])
        bad("arm", "1.5", arm=1.5)
        bad("an arm or a slate", arm=...)
        bad("context", "3 numbers", context=[1, 2, 3])
        bad("context", "null", context=[1, None])
        bad("propensty", propensty=1)
        bad("user", user="u")
        bad("probabilities", "first row", probabilities={"x": 1})
        both = {**good, "probabilities": {"x": 0.5, "y": 0.5}, "time": 5}
        def worse(*words, **change):
            refused(home, json.dumps(both) + "\n" + json.dumps({**both, **change}) + "\n", "bad.jsonl:2:", *words)
        worse("add up to 0.9", probabilities={"x": 0.5, "y": 0.4})
        worse("0.6", "0.5", probabilities={"x": 0.6, "y": 0.4})
        worse("the time", "'yesterday'", time="yesterday")
        for text, word in (("NaN", "not JSON"), ("1e999", "not JSON"), ("{}", "an object")):
            refused(home, json.dumps(good) + "\n" + json.dumps({**good, "propensity": "P"}).replace('"P"', text) + "\n", "bad.jsonl:2:", word)
        refused(home, json.dumps({**good, "reward": 7}) + "\n", "bad.jsonl:1:", "reward", "7", "between 0 and 5", args=("--reward-range", "0,5"))
        refused(home, "", "empty")
        refused(home, '{"arms": ["x", "x"]}\n', "bad.jsonl:1:", "twice")
        refused(home, '{"arms": ["x"]}\n' + json.dumps({**good, "arm": "y"}) + "\n", "bad.jsonl:2:", "'y'")
        header = "timestamp,item_id,position,click,propensity_score,user_feature_0\n"
        for row, *words in (("2019-11-24 00:00:01+00:00,1,1,0,0,u", "propensity_score", "'0'"), ("2019-11-24 00:00:01+00:00,1,1,0,nan,u", "propensity_score", "'nan'"),
                            ("2019-11-24 00:00:01+00:00,1,1,0,1.01,u", "propensity_score", "'1.01'"), ("2019-11-24 00:00:01+00:00,1,1,0,,u", "propensity_score", "missing"),
                            ("2019-11-24 00:00:01+00:00,1,1,2,0.5,u", "click", "'2'", "between 0 and 1"), ("2019-11-24 00:00:01+00:00,1,0,1,0.5,u", "position", "'0'"),
                            ("2019-11-24 00:00:01+00:00,x,1,1,0.5,u", "item_id", "'x'"), ("24.11.2019,1,1,1,0.5,u", "timestamp", "'24.11.2019'"), ("1,2,3", "3 fields", "6")):
            refused(home, header + "2019-11-24 00:00:00.5+00:00,0,1,0,0.5,u\n" + row + "\n", "bad.csv:3:", *words, name="bad.csv")


def test_no_estimate_without_support_and_none_from_a_policy_that_is_no_distribution():
    with Home() as home:
        x = Log(200, 8)
        rows = [r for r in x.lines() if r["arm"] != 3]
        log = home.file("log.jsonl", "".join(json.dumps(r) + "\n" for r in [{"arms": [0, 1, 2, 3]}, *rows]))
        def says(policy, *words, code=2, args=()):
            done = home.run("ope", log, "--policy", policy, "--model", "none", *args, code=code)
            assert all(w in done.stderr for w in words) and len(done.stderr.strip().splitlines()) == (1 if code else 0), done.stderr
        says("uniform", "no support", "0.25", "arm 3")
        says("uniform", code=0, args=("--max-unsupported", "0.3"))
        says(home.file("only.yaml", "probabilities: { '3': 1 }\n"), "no support", args=("--max-unsupported", "1"))
        says(home.file("sum.lua", "return function(c, row) return { 0.5, 0.2, 0.1, 0.1 } end"), "sum.lua", "row 1", "add up to 0.9")
        says(home.file("low.lua", "return function(c, row) return { 1.5, -0.5, 0, 0 } end"), "low.lua", "arm '0'", "1.5")
        says(home.file("name.lua", "return function(c, row) return { z = 1 } end"), "no arm 'z'")
        says(home.file("io.lua", "return function(c, row) return io.open('/etc/passwd') end"), "io.lua")
        says(home.file("loads.lua", "return require 'ffi'"), "loads.lua")
        says(home.file("bad.yaml", "probabilties: { '0': 1 }\n"), "bad.yaml:1", "probabilties")
        says("nosuch", "no bandit log 'nosuch'")
        for option, value in (("folds", "0"), ("penalty", "0"), ("clip", "0"), ("switch", "-1"), ("shrink", "-1"), ("max-weight", "0"), ("confidence", "1"), ("bootstrap", "-1"),
                              ("max-unsupported", "2"), ("seed", "-1"), ("model", "magic"), ("reward-range", "1,0"), ("reward-range", "nan,1")):
            done = home.run("ope", log, "--policy", "uniform", f"--{option}={value}", code=2)
            assert option in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        done = home.run("ope", log, "--policy", home.file("loop.lua", "return function() while true do end end"), "--timeout", "0.5", code=3)
        assert "--timeout" in done.stderr, done.stderr
        wrong = "".join(json.dumps({"arm": i % 4, "reward": i % 3, "propensity": 0.1}) + "\n" for i in range(400))  # it was 0.25
        beware = home.run("ope", home.file("wrong.jsonl", wrong), "--policy", home.file("two.yaml", "probabilities: { '0': 0.5, '1': 0.3, '2': 0.2 }\n"), "--model", "none")
        assert "beware: weights should have mean 1" in beware.stdout, beware.stdout


main(globals())
