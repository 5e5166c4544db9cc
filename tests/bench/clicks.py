"""Rankers by themselves: which of the held ratings of MovieLens 100K are 4 or more, told from ids and features.

Two cuts: `last`, each user's own last fifth, and `time`, one moment for everybody, after which nearly all users are new. Knobs
are chosen, for each cut, by the mean log loss over two folds that are made the way the test fold is, within train and validation:
what these two folds have is cut once more at its last fifth, and what comes before that again. Every setting in the grids of
`tests/bench/clicks.py` is tried; then each ranker is fitted on train and validation and measured on the test fold, once. The
grids were drawn up on those two folds as well. This test fold had been measured before, for other knobs of the same agents, and
that the nets were no better than fm there is why they were worked on; none of what was chosen since was chosen by it.
Differences are over the same users drawn again. The peer is scikit-learn's logistic regression on the same one-hot rows, its C
chosen likewise.
"""
import itertools
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from rows import Rows, auc, log_loss, write_folds
from support import ROOT, THREADS, evaluate, evection, need, row, write

METRICS = ("auc", "log_loss", "gauc")
WINDOWS = 2  # validation folds a cut


def grid(**knobs):
    return [dict(zip(knobs, values)) for values in itertools.product(*knobs.values())]


def net():
    """What is tried of a net: 16 settings, as of logistic and gbdt (fm: 36)."""
    return grid(n_dims=(32, 64), field_dropout=(0, 0.1), l2=(0.06, 0.08), epochs=(12, 20))


GRIDS = {
    "logistic": grid(learning_rate=(0.05, 0.1, 0.3), epochs=(10, 30), regularization=(0.001, 0.03), frequency_power=(1,))
    + grid(learning_rate=(0.1, 0.3), epochs=(30,), regularization=(1, 3), frequency_power=(0,)),
    "fm": grid(n_dims=(16, 32, 64), learning_rate=(0.1,), epochs=(10, 15), regularization=(0.05, 0.06, 0.07, 0.1))
    + grid(n_dims=(16, 32, 64), learning_rate=(0.05,), epochs=(20,), regularization=(0.05, 0.06, 0.07, 0.1)),
    "gbdt": grid(n_trees=(100, 300), learning_rate=(0.05, 0.1), n_leaves=(8, 31), min_child_weight=(1, 20)),
    "deep_fm": net(),
    "dcn_v2": net(),
}
AGAINST = {"fm": ("logistic",), "gbdt": ("logistic",), "deep_fm": ("logistic", "fm"), "dcn_v2": ("logistic", "fm")}


def sets(agent, knobs):
    return [part for name, value in knobs.items() for part in ("--set", f"{agent}.{name}={value}")]


def choose(home, windows, agent):
    """The knobs of the least mean log loss over the validation folds of those data sets."""
    def loss(knobs):
        said = [evaluate(home, f"agent:{agent}", "--data", w, "--task", "clicks", *sets(agent, knobs), threads=1) for w in windows]
        return sum(s["metrics"]["log_loss"]["value"] for s in said) / len(said)
    with ThreadPoolExecutor(THREADS) as pool:
        losses = list(pool.map(loss, GRIDS[agent]))
    best = min(range(len(losses)), key=losses.__getitem__)
    print(f"{agent} on {', '.join(windows)}: log loss {losses[best]:.4f} with {GRIDS[agent][best]}", file=sys.stderr)
    return GRIDS[agent][best]


def import_windows(home, cut, files, folder):
    """Data sets within train and validation of `cut`, each cut at its last fifth like it, the first the latest. → their names"""
    names, earlier, below = [], cut, 2
    for k in range(WINDOWS):
        kept, name = os.path.join(home, f"{cut}{k + 1}.inter"), f"{cut}{k + 1}"
        write_folds(home, earlier, folder, below, kept)
        evection(home, "data", "import", kept, *files[1:], "--as", name, "--split", cut, "--valid-share", "0.2", "--test-share", "0", "--quiet")
        names.append(name)
        earlier, below = name, 1
    return names


def scikit(home, cut, windows, folder):
    """Test metrics of scikit-learn's logistic regression, or None."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        print("no scikit-learn here (make deps-bench): its rows are left out", file=sys.stderr)
        return None

    def fitted(rows, c, known, held):
        x, y = rows.one_hot(), rows.label
        model = LogisticRegression(C=c, max_iter=5000).fit(x[known], y[known])
        return y[held], model.decision_function(x[held])
    inner = [Rows(home, w, folder) for w in windows]
    losses = {c: sum(log_loss(*fitted(r, c, r.fold == 0, r.fold == 1)) for r in inner) for c in (0.1, 0.3, 1, 3)}
    rows = Rows(home, cut, folder)
    label, score = fitted(rows, min(losses, key=losses.get), rows.fold < 2, rows.fold == 2)
    return {"auc": auc(label, score), "log_loss": log_loss(label, score)}


def main():
    folder, out = need("ml-100k"), []
    files = [os.path.join(folder, "ml-100k" + end) for end in (".inter", ".item", ".user")]
    agents = [a for a in GRIDS if os.path.exists(os.path.join(ROOT, "agents", "rank", a + ".lua"))]
    with tempfile.TemporaryDirectory() as home:
        for cut in ("last", "time"):
            evection(home, "data", "import", *files, "--as", cut, "--split", cut, "--quiet")
            windows = import_windows(home, cut, files, folder)
            peer, chosen = scikit(home, cut, windows, folder), {}
            for agent in agents:
                knobs = chosen[agent] = choose(home, windows, agent)
                command = [f"agent:{agent}", "--data", cut, "--fold", "test", "--refit", "--task", "clicks", *sets(agent, knobs)]
                others = [a for a in AGAINST.get(agent, ()) if a in chosen]
                results = [evaluate(home, *command, "--against", f"agent:{other}", *sets(other, chosen[other])) for other in others] or [evaluate(home, *command)]
                for name in METRICS:
                    m, theirs = results[0]["metrics"][name], (peer or {}).get(name) if agent == "logistic" else None
                    ratio = None if theirs is None else theirs / m["value"] if name == "log_loss" else m["value"] / theirs
                    out.append(dict(row(f"{cut}: {agent}, {name}", m["value"], "", None if theirs is None else "scikit-learn", theirs, ratio), low=m["low"], high=m["high"]))
                for other, result in zip(others, results):
                    for name in METRICS:
                        d = result["against"]["difference"][name]
                        out.append(dict(row(f"{cut}: {agent} − {other}, {name}, p = {d['p']:.4f}", d["value"], "", None, None, None), low=d["low"], high=d["high"]))
                out[-1]["command"] = " ".join(["evection", "eval", *command])
    write("clicks", out)


main()
