"""Full-ranking evaluation of a 64-dimensional factor model on Gowalla, against the bare sgemm of the same product.

Ours is everything after the fit: scores, seen items left out, the 20 best, metrics, intervals, latency probes.
"""
import os
import tempfile

from support import evaluate, evection, median, need, peer, row, write

SGEMM = """
import json, sys, time
import numpy as np
n_users, n_items, d = map(int, sys.argv[1:])
rng = np.random.default_rng(1)
users = rng.normal(size=(n_users, d)).astype(np.float32)
items = rng.normal(size=(n_items, d)).astype(np.float32)
block = 2048
out = np.empty((block, n_items), np.float32)
times = []
for _ in range(3):
    start = time.perf_counter()
    for first in range(0, n_users, block):
        rows = users[first:first + block]
        np.dot(rows, items.T, out=out[:len(rows)])
    times.append(time.perf_counter() - start)
print(json.dumps({"seconds": min(times)}))
"""


def main():
    folder = need("gowalla")
    with tempfile.TemporaryDirectory() as home:
        evection(home, "data", "import", "--train", os.path.join(folder, "train.txt"), "--test", os.path.join(folder, "test.txt"), "--as", "gowalla", "--quiet")
        model = ["agent:ials", "--data", "gowalla", "--fold", "test", "--set", "ials.n_dims=64", "--set", "ials.epochs=1", "--cutoffs", "20"]
        evaluate(home, *model)
        ours, bare = [], []
        for _ in range(3):
            result = evaluate(home, *model)
            ours.append(result["seconds"] - result["fit_seconds"])
            bare.append(peer(SGEMM, result["n_users"], 40981, 64)["seconds"])
    write("eval", [row("full ranking, Gowalla, 64 dimensions", median(ours), "s", "bare sgemm of the same product", median(bare), median(bare) / median(ours))])


main()
