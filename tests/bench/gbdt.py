"""Boosted trees against XGBoost: the same columns, trees, bins and threads; accuracy on MovieLens 100K, time on a million rows.

Both grow 100 trees of at most 31 leaves and depth 6, best leaf first, η 0.1, λ 1, 256 bins. Accuracy: validation fold of the cuts
that `make bench-clicks` explains; XGBoost has the columns that our trees make for themselves (ages and years as numbers, tokens
one-hot, for user and item the mean label and the number of rows as the other folds have them). Time: from rows to trees, of
700 000 training rows with 20 numbers each.
"""
import os
import sys
import tempfile
import time

import numpy as np

from rows import Rows, auc, log_loss
from support import THREADS, evaluate, evection, median, need, row, write

TREES = {"n_trees": 100, "n_leaves": 31, "max_depth": 6, "learning_rate": 0.1, "l2": 1, "min_child_weight": 1}
USERS, ITEMS, EACH, NUMBERS, FOLDS, SMOOTHING = 20000, 5000, 50, 10, 5, 10


def ours(home, data, *args):
    chosen = [part for name, value in TREES.items() for part in ("--set", f"gbdt.{name}={value}")]
    return evaluate(home, "agent:gbdt", "--data", data, "--task", "clicks", *chosen, *args)


def xgboost_fit(xgb, x, y):
    """→ booster, seconds."""
    start = time.perf_counter()
    matrix = xgb.QuantileDMatrix(x, y, max_bin=256, nthread=THREADS)
    booster = xgb.train({"objective": "binary:logistic", "tree_method": "hist", "grow_policy": "lossguide", "max_leaves": TREES["n_leaves"],
                         "max_depth": TREES["max_depth"], "eta": TREES["learning_rate"], "lambda": TREES["l2"], "max_bin": 256,
                         "min_child_weight": TREES["min_child_weight"], "nthread": THREADS, "base_score": float(y.mean())}, matrix, TREES["n_trees"])
    return booster, time.perf_counter() - start


def told(ids, n, label, train, rng):
    """Mean label and log count of each row's id: of training rows as the other folds have them; unknown: the prior, missing."""
    prior, at = label[train].mean(), np.flatnonzero(train)
    fold = np.full(len(ids), -1)
    fold[at] = rng.integers(0, FOLDS, len(at))
    mean, count = np.empty(len(ids)), np.empty(len(ids))
    for f in range(-1, FOLDS):
        known, asked = train & (fold != f), fold == f
        clicks, rows = np.bincount(ids[known], label[known], n)[ids[asked]], np.bincount(ids[known], minlength=n)[ids[asked]]
        mean[asked] = (clicks + SMOOTHING * prior) / (rows + SMOOTHING)
        count[asked] = np.where(rows > 0, np.log1p(rows * (1 if f < 0 else FOLDS / (FOLDS - 1))), np.nan)
    return [mean, count]


def movielens(home, xgb, folder, cut):
    files = [os.path.join(folder, "ml-100k" + end) for end in (".inter", ".item", ".user")]
    evection(home, "data", "import", *files, "--as", cut, "--split", cut, "--quiet")
    mine = ours(home, cut)["metrics"]
    data, rng = Rows(home, cut, folder), np.random.default_rng(1)
    train, held = data.fold == 0, data.fold == 1
    columns = []
    for name, values in data.tokens.items():
        words = sorted(set(values))
        codes = np.array([words.index(v) for v in values])[data.item if name == "year" else data.user]
        if name in ("age", "year"):
            columns.append(np.array([float(w) if w.strip().isdigit() else np.nan for w in words])[codes])
        if len(words) <= 64:
            columns += [(codes == k).astype(float) for k in range(len(words))]
    columns += list(data.genre_matrix()[data.item].T)
    columns += told(data.user, data.n_users, data.label, train, rng) + told(data.item, data.n_items, data.label, train, rng)
    x = np.column_stack(columns)
    booster, _ = xgboost_fit(xgb, x[train], data.label[train])
    score = booster.predict(xgb.DMatrix(x[held]), output_margin=True)
    theirs = {"auc": auc(data.label[held], score), "log_loss": log_loss(data.label[held], score)}
    return [dict(row(f"MovieLens 100K, {cut}, validation, {name}", mine[name]["value"], "", "XGBoost", theirs[name],
                     mine[name]["value"] / theirs[name] if name == "auc" else theirs[name] / mine[name]["value"]), low=mine[name]["low"], high=mine[name]["high"])
            for name in ("auc", "log_loss")]


def million(home, xgb):
    rng = np.random.default_rng(7)
    users, items = rng.normal(size=(USERS, NUMBERS)).astype(np.float32), rng.normal(size=(ITEMS, NUMBERS)).astype(np.float32)
    user = np.repeat(np.arange(USERS), EACH)
    item = np.concatenate([rng.choice(ITEMS, EACH, replace=False) for _ in range(USERS)])
    u, i = users[user], items[item]
    y = np.sin(2 * u[:, 0]) + u[:, 1] * i[:, 1] + (i[:, 2] > 0.5) * u[:, 2] + 0.5 * np.abs(i[:, 3]) - 0.5
    label = (rng.random(len(y)) < 1 / (1 + np.exp(-y))).astype(float)
    paths = [os.path.join(home, "m" + end) for end in (".csv", ".user", ".item")]
    with open(paths[0], "w", encoding="ascii") as f:
        f.write("user,item,rating\n" + "".join(f"u{a},i{b},{1 + 4 * c:.0f}\n" for a, b, c in zip(user, item, label)))
    for path, name, table in ((paths[1], "u", users), (paths[2], "i", items)):
        with open(path, "w", encoding="ascii") as f:
            f.write("\t".join([("user" if name == "u" else "item") + "_id:token"] + [f"{name}{k}:float" for k in range(NUMBERS)]) + "\n")
            for k, numbers in enumerate(table):
                f.write("\t".join([f"{name}{k}"] + [f"{x:.9g}" for x in numbers]) + "\n")
    evection(home, "data", "import", *paths, "--as", "million", "--split", "ratio", "--quiet")
    held = rng.random(len(y)) < 0.1  # their own choice of rows: as many
    train = ~held & (rng.random(len(y)) < 0.7 / 0.9)
    x = np.hstack([u, i])
    mine, theirs = [], []
    for turn in range(3):
        result = ours(home, "million", "--set", "gbdt.use_ids=never")
        mine.append(result["fit_seconds"])
        for file in os.listdir(os.path.join(home, "artifacts")):
            os.remove(os.path.join(home, "artifacts", file))
        booster, seconds = xgboost_fit(xgb, x[train], label[train])
        theirs.append(seconds)
    score = booster.predict(xgb.DMatrix(x[held]), output_margin=True)
    return [row("a million rows, training time", median(mine), "s", "XGBoost", median(theirs), median(theirs) / median(mine)),
            row("a million rows, validation, auc", result["metrics"]["auc"]["value"], "", "XGBoost", auc(label[held], score),
                result["metrics"]["auc"]["value"] / auc(label[held], score)),
            row("a million rows, validation, log_loss", result["metrics"]["log_loss"]["value"], "", "XGBoost", log_loss(label[held], score),
                log_loss(label[held], score) / result["metrics"]["log_loss"]["value"])]


def main():
    try:
        import xgboost as xgb
    except ImportError:
        print("skipped: no xgboost for Python here; make deps-bench installs it")
        sys.exit(0)
    folder = need("ml-100k")
    with tempfile.TemporaryDirectory() as home:
        rows = movielens(home, xgb, folder, "last") + movielens(home, xgb, folder, "time") + million(home, xgb)
    write("gbdt", rows)


main()
