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
        for log, policy in (("random", "bts"), ("bts", "random")):
            x, pi = logs[log], logs[policy].shares()[logs[log].position]
            for model in ("logistic", "ridge"):
                q = reference.cross_fit(x, logistic=model == "logistic")
                mrdr = reference.cross_fit(x, reference.mrdr_weights(x, pi))
                resamples = 40 if model == "ridge" else 0
                expected = reference.estimates(x, pi, q, mrdr, resamples=resamples)
                result = home.json("ope", log, "--policy", policy, "--model", model, "--bootstrap", str(resamples))
                compare(result, expected, reference.weights(x, pi))
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


main(globals())
