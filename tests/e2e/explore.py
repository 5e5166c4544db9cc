"""Learning in action spaces against NumPy and SciPy, and explorers behind the service: what they learn outlives workers and versions."""
import glob
import json
import math
import os
import signal
import sqlite3
import sys
import time

import numpy as np
import scipy.integrate
import scipy.optimize
import scipy.stats

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve import Service, until
from support import Home, main


def lua(home, text):
    done = home.run("run", home.file("script.lua", 'local native = require "evection.native"\n' + text))
    return json.loads(done.stdout)


def out(expression):
    return f"io.write(native.json_encode({expression}))"


def vector(x):
    return "native.vector { " + ", ".join(repr(float(v)) for v in np.ravel(x)) + " }"


def best_probability(dists):
    """P(each is the largest) by adaptive quadrature."""
    def one(j):
        f = lambda x: dists[j].pdf(x) * np.prod([d.cdf(x) for i, d in enumerate(dists) if i != j])
        points = sorted({d.mean() + k * d.std() for d in dists for k in (-4, -1, 0, 1, 4)})
        low, high = max(d.ppf(1e-13) for d in dists), max(d.ppf(1 - 1e-13) for d in dists)
        cuts = [low, *[p for p in points if low < p < high], high]
        return sum(scipy.integrate.quad(f, a, b, epsabs=1e-12, limit=200)[0] for a, b in zip(cuts, cuts[1:]))
    return np.array([one(j) for j in range(len(dists))])


def test_posteriors_and_thompsons_probabilities_are_scipys():
    rng = np.random.default_rng(1)
    n, k = rng.integers(1, 60, 5), 5
    s = [rng.binomial(m, p) for m, p in zip(n, (0.1, 0.4, 0.5, 0.6, 0.55))]
    with Home() as home:
        for gaussian in (False, True):
            got = lua(home, f"""
              local a = native.arms(nil, {{ kind = "counts", n = 5 }})
              for arm, c in ipairs {{ {", ".join(f"{{{m}, {r}}}" for m, r in zip(n, s))} }} do for i = 1, c[1] do a:update(arm - 1, i <= c[2] and 1 or 0) end end
              local options = {{ rule = "thompson", gaussian = {str(gaussian).lower()}, prior_a = 2, prior_b = 3, noise = 0.7 }}
              local mean, deviation = a:beliefs(5, options)
              local counts, p = {{ 0, 0, 0, 0, 0 }}, {{ 0, 0, 0, 0, 0 }}
              for _ = 1, 4000 do
                local arm, q = a:pick(5, options)
                counts[arm], p[arm] = counts[arm] + 1, q
              end
              {out("{ mean = mean, deviation = deviation, counts = counts, p = p }")}""")
            if gaussian:
                dists = [scipy.stats.norm((2 * 3 + r) / (3 + m), 0.7 / np.sqrt(3 + m)) for m, r in zip(n, s)]
            else:
                dists = [scipy.stats.beta(2 + r, 3 + m - r) for m, r in zip(n, s)]
            assert np.allclose(got["mean"], [d.mean() for d in dists], rtol=0, atol=1e-12)
            assert np.allclose(got["deviation"], [d.std() for d in dists], rtol=0, atol=1e-12)
            want, counts = best_probability(dists), np.array(got["counts"])
            told = counts > 0
            assert np.allclose(np.array(got["p"])[told], want[told], rtol=0, atol=1e-6), (got["p"], want)
            often = want * 4000 >= 5
            chi = ((counts - 4000 * want)[often] ** 2 / (4000 * want[often])).sum()
            assert chi < scipy.stats.chi2.ppf(1 - 1e-5, often.sum() - 1), (counts, want)


def test_a_linear_model_is_numpys_ridge_regression():
    rng = np.random.default_rng(2)
    d, n, ridge = 12, 400, 0.3
    x, theta = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=d)
    r = (x @ theta + rng.normal(size=n)).astype(np.float32)
    with Home() as home:
        slot = np.array(lua(home, f"""
          local a = native.arms(nil, {{ kind = "linear", n_dims = {d}, ridge = {ridge} }})
          a:update_many({vector(x)}, {vector(r)})
          {out("a:read(0)")}"""))
        x, r = x.astype(float), r.astype(float)
        gram = x.T @ x + ridge * np.eye(d)
        assert np.abs(slot[4:4 + d] - np.linalg.solve(gram, x.T @ r)).max() < 1e-10
        assert np.abs(slot[4 + 2 * d:].reshape(d, d) - np.linalg.inv(gram)).max() < 1e-12
        # LinUCB and linear Thompson over candidates of that model
        c = rng.normal(size=(4, d)).astype(np.float32)
        got = lua(home, f"""
          local a = native.arms(nil, {{ kind = "linear", n_dims = {d}, ridge = {ridge} }})
          a:update_many({vector(x)}, {vector(r)})
          local x, ucb = {vector(c)}, {{}}
          ucb = a:beliefs(4, {{ rule = "ucb", alpha = 1.3 }}, x)
          local counts = {{ 0, 0, 0, 0 }}
          for _ = 1, 4000 do
            local arm = a:pick(4, {{ rule = "thompson", alpha = 20, draws = 0 }}, x)
            counts[arm] = counts[arm] + 1
          end
          {out("{ ucb = ucb, counts = counts }")}""")
        c, inverse = c.astype(float), np.linalg.inv(gram)
        theta = inverse @ x.T @ r
        assert np.allclose(got["ucb"], c @ theta + 1.3 * np.sqrt(np.einsum("ij,jk,ik->i", c, inverse, c)), rtol=0, atol=1e-9)
        draws = rng.multivariate_normal(theta, 400 * inverse, size=200000) @ c.T
        want, counts = np.bincount(draws.argmax(1), minlength=4) / 200000, np.array(got["counts"])
        often = want * 4000 >= 5
        assert often.sum() >= 3, want
        chi = ((counts - 4000 * want)[often] ** 2 / (4000 * want[often] * (1 + 4000 / 200000))).sum()
        assert chi < scipy.stats.chi2.ppf(1 - 1e-5, max(1, often.sum() - 1)), (counts, want)


def test_logistic_steps_are_scipys_minima():
    rng = np.random.default_rng(3)
    d, n, ridge = 4, 25, 0.5
    x, y = rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, 2, n)
    with Home() as home:
        slot = np.array(lua(home, f"""
          local a = native.arms(nil, {{ kind = "logistic", n_dims = {d}, ridge = {ridge} }})
          a:update_many({vector(x)}, {vector(y)})
          {out("a:read(0)")}"""))
    mode, precision = np.zeros(d), ridge * np.eye(d)
    for v, label in zip(x.astype(float), y):
        sign = 2 * label - 1
        f = lambda w: 0.5 * (w - mode) @ precision @ (w - mode) + np.logaddexp(0, -sign * (v @ w))
        g = lambda w: precision @ (w - mode) - sign * v / (1 + np.exp(sign * (v @ w)))
        mode = scipy.optimize.minimize(f, mode, jac=g, method="BFGS", options={"gtol": 1e-12}).x
        s = 1 / (1 + np.exp(-v @ mode))
        precision = precision + s * (1 - s) * np.outer(v, v)
    assert np.abs(slot[4:4 + d] - mode).max() < 1e-6, (slot[4:4 + d], mode)
    assert np.abs(slot[4 + 2 * d:].reshape(d, d) - np.linalg.inv(precision)).max() < 1e-6


def test_exp4_is_its_paper():
    rng = np.random.default_rng(4)
    rounds, experts, arms, gamma = 60, 3, 4, 0.25
    advice = rng.dirichlet(np.ones(arms), size=(rounds, experts)).astype(np.float32)  # (rounds, experts, arms)
    rewards = rng.random((rounds, arms)).round(3)
    with Home() as home:
        got = lua(home, f"""
          local a, log = native.arms(nil, {{ kind = "weights", n = {experts}, n_dims = {experts}, rate = {gamma} }}), {{}}
          local rewards = {{ {", ".join("{" + ", ".join(map(repr, map(float, row))) + "}" for row in rewards)} }}
          for t, x in ipairs {{ {", ".join(vector(a.T) for a in advice)} }} do
            local arm, p, _, keep = a:pick({arms}, {{}}, x)
            a:update(0, rewards[t][arm], keep, p)
            log[t] = {{ arm, p }}
          end
          {out("{ log = log, slot = a:read(0) }")}""")
    w = np.ones(experts)
    for t, (arm, p) in enumerate(got["log"]):
        a, xi = int(arm) - 1, advice[t].astype(float)
        want = (1 - gamma) * (w / w.sum()) @ xi + gamma / arms
        assert abs(want[a] - p) < 1e-6
        w = w * np.exp(gamma * xi[:, a] * rewards[t, a] / p / arms)
    shares = np.exp(np.array(got["slot"][4:]))
    assert np.allclose(shares / shares.sum(), w / w.sum(), rtol=0, atol=1e-6)


def test_a_policy_from_logs_is_scipys_optimum():
    rng = np.random.default_rng(5)
    n, k, d, l2 = 600, 3, 3, 0.01
    x = rng.normal(size=(n, k, d)).astype(np.float32)
    chosen, p = rng.integers(0, k, n), np.full(n, 1 / k, np.float32)
    r = (rng.random(n) < 1 / (1 + np.exp(-2 * x[np.arange(n), chosen, 1]))).astype(np.float32)
    q = (0.5 + 0.1 * x[:, :, 1]).astype(np.float32)
    xd, pd, qd = x.astype(float), p.astype(float), q.astype(float)
    with Home() as home:
        for with_q in (False, True):
            got = lua(home, f"""
              local a, n, chosen = native.arms(nil, {{ kind = "policy", n_dims = {d} }}), {{}}, {{ {", ".join(str(c + 1) for c in chosen)} }}
              for i = 1, {n} do n[i] = {k} end
              local value = a:learn_logged({{ n = n, chosen = chosen, x = {vector(x)}, reward = {vector(r)}, propensity = {vector(p)}{", q = " + vector(q) if with_q else ""} }},
                {{ l2 = {l2}, clip = 100, steps = 800, rate = 0.02 }})
              {out("{ value = value, slot = a:read(0) }")}""")

            def objective(theta):
                z = xd @ theta
                pi = np.exp(z - z.max(1, keepdims=True))
                pi /= pi.sum(1, keepdims=True)
                base = qd if with_q else np.zeros((n, k))
                weight = pi[np.arange(n), chosen] / pd
                return np.mean((pi * base).sum(1) + np.minimum(weight, 100) * (r - base[np.arange(n), chosen])) - 0.5 * l2 * theta @ theta

            best = scipy.optimize.minimize(lambda t: -objective(t), np.zeros(d), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 5000})
            theta = np.array(got["slot"][4:])
            assert abs(objective(theta) - got["value"]) < 1e-9
            assert got["value"] > -best.fun - 1e-5 and np.abs(theta - best.x).max() < 0.02, (theta, best.x)


AGENT = """
local agent = require "evection.agent"
return agent {
  name = "tries", role = "explore", about = "Thompson sampling that learns soon. VERSION",
  state = { arms = { kind = "counts", n = "items", window = 20 } },
  act = function(_, request, slate, ctx)
    if ctx.state then ctx.state.arms:choose(slate, { rule = "thompson", k = request.n, user = request.user, draws = 64 }) end
  end,
  learn = function(state, events)
    for _, e in ipairs(events) do state.arms:reward(e.user, e.item, e.value) end
  end,
}
"""
STATE = 'for _, f in ipairs(native.list(native.home .. "/state")) do for _, g in ipairs(native.list(native.home .. "/state/" .. f)) do ' \
        'if g:match "%.arms$" then local a = native.arms(native.home .. "/state/" .. f .. "/" .. g, { kind = "counts", n = 60, window = 20 }) a:settle() ' \
        "local n, s = 0, 0 for i = 0, 59 do n, s = n + a:read(i)[1], s + a:read(i)[2] end " + out("{ n, s, a:stats().rewarded }") + " end end end"


def test_what_an_explorer_learns_outlives_workers_and_versions():
    with Home() as home:
        home.run("data", "generate", "--users", "80", "--items", "60", "--sessions", "8", "--as", "world")
        home.file("tries.lua", AGENT)
        path = home.file("c.yaml", "nodes:\n  all: { agent: popular, n: 60 }\n  x: { agent: tries.lua, from: all }\noutput: x\n")
        shown, clicked, logged = 0, 0, {}
        with Service(home, path) as s:
            def round_(user):
                nonlocal shown, clicked
                d = until(lambda: (lambda d: d if not d["degraded"] else None)(s.slate(user, 5)), "a slate")
                items = d["items"]
                assert all(0 < i["propensity"] <= 1 for i in items), items
                assert abs(d["propensity"] / math.prod(i["propensity"] for i in items) - 1) < 1e-7, d
                logged[d["impression"]] = d
                shown += 5
                s.post([{"user": user, "item": items[0]["id"], "type": "click", "value": 1}])
                clicked += 1
                return d["version"]

            for k in range(12):
                first = round_(f"user{k}")
            os.kill(s.workers()[0], signal.SIGKILL)
            until(lambda: len(s.workers()) == 2, "a worker in its place")
            for k in range(12):
                round_(f"user{k}")
            os.rename(home.file("tries.new", AGENT.replace("VERSION", "two")), os.path.join(home.path, "tries.lua"))
            until(lambda: s.version()["version"] != first, "the new version")
            for k in range(12):
                assert round_(f"user{k}") != first
            time.sleep(0.3)  # events are learnt behind their answers
        with sqlite3.connect(home.path + "/ledger.db") as ledger:
            rows = dict(ledger.execute("SELECT id, propensity FROM impression_log WHERE version <> 'fallback'"))
            places = ledger.execute("SELECT i.id, position, s.propensity FROM shown s JOIN impressions i ON i.number = impression").fetchall()
            places = [p for p in places if p[0] in rows]
        told = lambda a, b: abs(a / b - 1) < 1e-7  # answers are printed with 9 digits
        assert rows.keys() == logged.keys() and all(told(rows[name], d["propensity"]) for name, d in logged.items()), rows
        assert all(told(p, logged[name]["items"][k - 1]["propensity"]) for name, k, p in places) and len(places) == shown
        home.run("ledger", "export", "decisions", "--out", os.path.join(home.path, "decisions.jsonl"))
        estimate = home.json("ope", os.path.join(home.path, "decisions.jsonl"), "--policy", "uniform", "--max-unsupported", "1", "--model", "none")
        assert estimate["rows"] == shown, estimate
        n, total, rewarded = lua(home, STATE)
        assert n == shown, (n, shown, "each place that was shown was learnt once")
        assert 0.9 * clicked <= rewarded <= clicked and 0.9 * clicked <= total <= clicked, (total, rewarded, clicked)
        assert len(glob.glob(os.path.join(home.path, "state", "*", "tries.arms.counts.60.0.20.arms"))) == 1


if __name__ == "__main__":
    main(globals())
