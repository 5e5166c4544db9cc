"""Bandits over 100,000 rounds in worlds whose truth is known: pseudo-regret against theory and against each other; LinUCB updates a second
in 32 dimensions on one core against NumPy; evaluations of CMA-ES to 1e-10 in ten dimensions against the tutorial written in NumPy; the worth
of policies learnt from logs.

Regrets are means over BENCH_SEEDS seeds (10). Lai and Robbins: no policy that is good everywhere has asymptotically less than Σ Δ / kl per
ln t; a slope is that of regret over ln t in the last decade. Auer, Cesa-Bianchi, Fischer bound UCB1 by 8 Σ ln t / Δ + (1 + π² / 3) Σ Δ and
Auer et al. EXP3 by 2.63 √(K T ln K). LinUCB, linear Thompson and SquareCB have √T up to logarithms: log-log slopes of at most ½. In drift the
arms' payments move on each 20,000 rounds, and the same policy without forgetting is the peer; UCB1 is better off
without, its bonus being wide enough to try the old arms again. tests/bench/bandits.lua says what the worlds are. A
ratio of a regret is the peer's over ours.
"""
import json
import math
import os
import tempfile

import bandits_plot
from support import ROOT, evection, peer, row, write

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 100000))
SEEDS = int(os.environ.get("BENCH_SEEDS", 10))
MEANS = [0.1, 0.05, 0.05, 0.05, 0.02, 0.02, 0.02, 0.01, 0.01, 0.01]

NUMPY_UPDATES = """
import json, sys, time
import numpy as np
n, d = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(1)
x, r = rng.normal(size=(20000, d)), rng.random(20000)
inverse, b = np.eye(d), np.zeros(d)
best = 0
for _ in range(20):
    start = time.perf_counter()
    for i in range(n):
        v = x[i % 20000]
        u = inverse @ v
        inverse -= np.outer(u, u) / (1 + v @ u)
        b += r[i % 20000] * v
        theta = inverse @ b
    best = max(best, n / (time.perf_counter() - start))
print(json.dumps({"rate": best}))
"""

NUMPY_CMA = """
import json, sys
import numpy as np
name, n = sys.argv[1], 10
f = {"sphere": lambda x: np.sum(x ** 2), "ellipsoid": lambda x: np.sum(1e6 ** (np.arange(n) / (n - 1)) * x ** 2),
     "rosenbrock": lambda x: np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)}[name]
lam = 4 + int(3 * np.log(n)); mu = lam // 2
w = np.log((lam + 1) / 2) - np.log(np.arange(1, lam + 1))
mueff = w[:mu].sum() ** 2 / (w[:mu] ** 2).sum(); muneg = w[mu:].sum() ** 2 / (w[mu:] ** 2).sum()
cc = (4 + mueff / n) / (n + 4 + 2 * mueff / n); cs = (mueff + 2) / (n + mueff + 5)
c1 = 2 / ((n + 1.3) ** 2 + mueff); cmu = min(1 - c1, 2 * (0.25 + mueff + 1 / mueff - 2) / ((n + 2) ** 2 + mueff))
damps = 1 + 2 * max(0, np.sqrt((mueff - 1) / (n + 1)) - 1) + cs; chi = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
neg = min(1 + c1 / cmu, 1 + 2 * muneg / (mueff + 2), (1 - c1 - cmu) / (n * cmu))
w = np.where(w >= 0, w / w[w > 0].sum(), neg * w / -w[w < 0].sum())
counts = []
for seed in range(1, 11):
    rng = np.random.default_rng(seed)
    m, sigma, c, pc, ps, used, best, g = np.full(n, 0.0 if name == "rosenbrock" else 1.0), 0.5, np.eye(n), np.zeros(n), np.zeros(n), 0, np.inf, 0
    while best > 1e-10 and used < 1e5:
        d2, b = np.linalg.eigh(c); d = np.sqrt(d2)
        y = rng.normal(size=(lam, n)) * d @ b.T
        values = np.array([f(m + sigma * v) for v in y])
        best, used, y = min(best, values.min()), used + lam, y[np.argsort(values)]
        step = w[:mu] @ y[:mu]; m = m + sigma * step
        root = b / d @ b.T
        ps = (1 - cs) * ps + np.sqrt(cs * (2 - cs) * mueff) * (root @ step)
        hs = np.linalg.norm(ps) / np.sqrt(1 - (1 - cs) ** (2 * (g + 1))) < (1.4 + 2 / (n + 1)) * chi
        pc = (1 - cc) * pc + hs * np.sqrt(cc * (2 - cc) * mueff) * step
        wo = np.where(w >= 0, w, w * n / np.sum((y @ root) ** 2, axis=1))
        c = (1 + (1 - hs) * c1 * cc * (2 - cc) - c1 - cmu * w.sum()) * c + c1 * np.outer(pc, pc) + cmu * (y.T * wo) @ y
        sigma *= np.exp(cs / damps * (np.linalg.norm(ps) / chi - 1)); g += 1
    counts.append(used)
print(json.dumps({"mean": float(np.mean(counts))}))
"""


def kl(p, q):
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def run(home, *args):
    return json.loads(evection(home, "run", "--threads", "1", os.path.join(ROOT, "tests", "bench", "bandits.lua"), *map(str, args)))


def at(line, t):
    return min(line, key=lambda p: abs(math.log(p[0] / t)))


def slope(line, of):
    """Of regret over of(t), by least squares over the last decade."""
    last = [(of(t), r) for t, r, _ in line if t >= line[-1][0] / 10]
    mx, my = sum(x for x, _ in last) / len(last), sum(y for _, y in last) / len(last)
    return sum((x - mx) * (y - my) for x, y in last) / sum((x - mx) ** 2 for x, _ in last)


def power(line):
    return slope([(t, math.log(r), s) for t, r, s in line], math.log)


def main():
    rows, charts = [], []
    with tempfile.TemporaryDirectory() as home:
        worlds = {name: run(home, name, ROUNDS, seeds) for name, seeds in
                  (("bernoulli", SEEDS), ("linear", max(1, SEEDS // 2)), ("drift", SEEDS), ("curved", max(1, SEEDS // 3)), ("cascade", max(1, SEEDS // 2)), ("advice", SEEDS))}
        updates = run(home, "updates", 1000000, 32)
        decide = run(home, "decide", 1)
        cma = {name: run(home, "cma", name) for name in ("sphere", "ellipsoid", "rosenbrock")}
        logged = run(home, "logged", 20000)

    def regret(world, name, peer_name=None, peer_value=None):
        t, value, deviation = worlds[world][name][-1]
        r = row(f"{world}: {name}, regret after {t:,} rounds", value, "reward", peer_name, peer_value, None if peer_value is None else peer_value / value)
        rows.append(dict(r, low=value - 1.96 * deviation, high=value + 1.96 * deviation))

    gaps = [MEANS[0] - m for m in MEANS[1:]]
    bound = sum(g / kl(m, MEANS[0]) for g, m in zip(gaps, MEANS[1:]))
    for name, line in sorted(worlds["bernoulli"].items()):
        if name == "UCB1":
            regret("bernoulli", name, "its bound", 8 * sum(math.log(ROUNDS) / g for g in gaps) + (1 + math.pi ** 2 / 3) * sum(gaps))
        elif name == "EXP3":
            regret("bernoulli", name, "its bound", 2.63 * math.sqrt(10 * ROUNDS * math.log(10)))
        else:
            regret("bernoulli", name, "Σ Δ / kl · ln t", bound * math.log(ROUNDS))
        if name.startswith("Thompson, B") or name == "KL-UCB":
            value = slope(line, math.log)
            rows.append(row(f"bernoulli: {name}, slope over ln t", value, "reward", "Lai and Robbins", bound, bound / value))
    for name, line in sorted(worlds["linear"].items()):
        regret("linear", name)
        if "greedy" not in name:
            rows.append(row(f"linear: {name}, log-log slope", power(line), "", "theory, at most", 0.5, 0.5 / power(line)))
    steady = {"Thompson, decay 0.9995": "Thompson, Beta", "UCB1, decay 0.9995": "UCB1", "KL-UCB, decay 0.9995": "KL-UCB", "EXP3.S": "EXP3"}
    for name in sorted(worlds["drift"]):
        regret("drift", name, *((steady[name], worlds["drift"][steady[name]][-1][1]) if name in steady else ()))
    for name in sorted(worlds["curved"]):
        regret("curved", name, *(("LinUCB", worlds["curved"]["LinUCB"][-1][1]) if name != "LinUCB" else ()))
    for name in sorted(worlds["cascade"]):
        regret("cascade", name)
    for name in sorted(worlds["advice"]):
        regret("advice", name, *(("EXP4", worlds["advice"]["EXP4"][-1][1]) if name != "EXP4" else ()))

    theirs = peer(NUMPY_UPDATES, 3000, 32)["rate"]
    rows.append(dict(row("LinUCB, 32 dimensions, many at a call", updates["many"], "updates/s", "NumPy", theirs, updates["many"] / theirs), aim=1))
    rows.append(dict(row("LinUCB, 32 dimensions, one at a call", updates["single"], "updates/s", "NumPy", theirs, updates["single"] / theirs), aim=1))
    for name, us in sorted(decide.items()):
        rows.append(row(f"a slate of 20 from 50 candidates: {name}", us, "µs", None, None, None))
    for name, counts in cma.items():
        mean, other = sum(counts) / len(counts), peer(NUMPY_CMA, name)["mean"]
        rows.append(row(f"CMA-ES, {name}, to 1e-10", mean, "evaluations", "NumPy", other, other / mean))
    for name in ("ips", "dr", "reinforce"):
        rows.append(row(f"policy by {name}, 20,000 {'rounds' if name == 'reinforce' else 'logged'}", logged[name], "reward", "who logged", logged["logging"], logged[name] / logged["logging"]))
    rows.append(row("the best that is possible there", logged["best"], "reward", "who logged", logged["logging"], logged["best"] / logged["logging"]))

    def lines(world):
        return {name: [(t, max(r, 1)) for t, r, _ in line] for name, line in worlds[world].items()}

    ts = [10 ** (1 + k / 20 * (math.log10(ROUNDS) - 1)) for k in range(21)]
    best = at(worlds["linear"]["LinUCB"], 1000)
    charts = [("Ten arms that seldom pay", lines("bernoulli"), ("Lai and Robbins", [(t, bound * math.log(t)) for t in ts])),
              ("Linear, ten candidates of eight features", lines("linear"), ("√t", [(t, best[1] * math.sqrt(t / best[0])) for t in ts])),
              ("Drift: another best arm each 20,000 rounds", lines("drift"), None), ("Cascade: four of sixteen", lines("cascade"), None),
              ("Rewards that no line can follow", lines("curved"), None), ("Advice of experts, the right one changing half way", lines("advice"), None)]
    if ROUNDS >= 100000:
        bandits_plot.write(os.path.join(ROOT, "docs", "bandits_regret.svg"), charts)
    write("bandits", rows)


main()
