"""Off-policy evaluation on the Open Bandit Dataset (small version, campaign "men"): the uniformly random policy's log says what
Bernoulli Thompson sampling (bts) would have earned, and the other way round.

Thompson sampling is taken as what its log shows at each position: an item's share from the propensities it was shown with, the week
through, though it learnt on during that week. The peer is NumPy with the same formulas, written down independently
(`tests/reference/ope.py`, the regressions included), so a ratio of 1 says that they agree; the largest difference over
all values, standard errors, parameters and intervals is a row of its own. The relative error is to the mean reward of the other
policy's own log, which is uncertain itself: 46 clicks under random, 69 under bts. Intervals are 95 % bootstrap intervals over
rows of a log. What is shown for SLOPE's choices (clipped_ips, switch_dr, dros) is what SLOPE chose, not the best in hindsight.
"""
import json
import os
import sys
import tempfile

import numpy as np

from support import ROOT, THREADS, evection, need, row, write

sys.path.insert(0, os.path.join(ROOT, "tests", "reference"))
import ope as reference  # noqa: E402

RESAMPLES = 200  # of NumPy's too: its generator is slow in Python


def differences(ours, theirs):
    """|ours − theirs| of every figure of every estimator."""
    for kind, e in theirs.items():
        for field, x in e.items():
            y = ours[kind].get(field)
            if np.isinf(x) or y == "inf":
                yield 0.0 if (y == "inf") == np.isinf(x) else np.inf
            else:
                yield abs(y - x)


def main():
    folder, out, worst = need("obd"), [], 0.0
    np.seterr(over="ignore")
    logs = {name: reference.Obd(f"{folder}/{name}") for name in ("random", "bts")}
    with tempfile.TemporaryDirectory() as home:
        for name in logs:
            evection(home, "ope", "import", f"{folder}/{name}/men.csv", f"{folder}/{name}/men_item_context.csv", "--as", name, "--quiet")
        for log, policy in (("random", "bts"), ("bts", "random")):
            x, pi = logs[log], logs[policy].shares()[logs[log].position]
            q, mrdr = reference.cross_fit(x, logistic=True), reference.cross_fit(x, reference.mrdr_weights(x, pi))
            theirs = reference.estimates(x, pi, q, mrdr, resamples=RESAMPLES, moves=reference.Moves(x, logistic=True))
            command = ["ope", log, "--policy", policy, "--bootstrap", str(RESAMPLES)]
            result = json.loads(evection(home, *command, "--json", "--quiet", "--threads", str(THREADS)))
            worst = max(worst, *differences(result["metrics"], theirs))
            known, case = result["on_policy"], f"log {log}, policy {policy}"
            half = 1.96 * known["standard_error"]
            out.append(dict(row(f"{policy}'s own log: mean reward", 1000 * known["value"], "clicks of 1,000", None, None, None),
                            low=1000 * (known["value"] - half), high=1000 * (known["value"] + half)))
            w = result["weights"]
            out.append(row(f"{case}: effective sample size", w["ess"], f"of {result['rows']} rows", None, None, None))
            out.append(row(f"{case}: largest weight", w["max"], "", None, None, None))
            for kind in result["order"]:
                e, peer = result["metrics"][kind], theirs[kind]["value"]
                chosen = "" if "parameter" not in e else f" (parameter {e['parameter'] if e['parameter'] == 'inf' else round(e['parameter'], 4)})"
                out.append(dict(row(f"{case}: {kind}{chosen}", 1000 * e["value"], "clicks of 1,000", "NumPy", 1000 * peer, e["value"] / peer), low=1000 * e["low"], high=1000 * e["high"]))
                out.append(row(f"{case}: {kind}, relative error", 100 * e["relative_error"], "%", None, None, None))
            out[-1]["command"] = " ".join(["evection", *command])
    out.append(row("largest difference from NumPy in any figure", worst * 1e12, "1e-12", None, None, None))
    write("ope", out)
    if worst > 1e-9:
        sys.exit(f"NumPy disagrees by {worst}")


main()
