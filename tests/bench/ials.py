"""One epoch of iALS in 64 dimensions on Gowalla, both sides solved once, against the same least squares in NumPy.

The peer gathers users of like history into batches, multiplies them with NumPy's batched matmul and solves them with its
batched LAPACK; one loop over users, which is the obvious way, takes longer. An epoch of ours is the difference between fits of
five and of one. The `implicit` package is not in Debian and cannot be measured beside it.
"""
import os
import tempfile

from support import evaluate, evection, median, need, peer, row, write

DIMS, WEIGHT, RIDGE = 64, 0.05, 0.003
PEER = """
import json, sys, time
import numpy as np
import scipy.sparse as sp
d, weight, ridge, epochs = int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), 2
users, items = [], []
for line in open(sys.argv[1]):
    u, *row = map(int, line.split())
    users += [u] * len(row)
    items += row
x = sp.csr_matrix((np.ones(len(items), np.float32), (users, items)))
xt = x.T.tocsr()
rng = np.random.default_rng(1)
item = (0.1 / np.sqrt(d) * rng.normal(size=(x.shape[1], d))).astype(np.float32)

def half(rows, other):
    out = np.zeros((rows.shape[0], d), np.float32)
    gram = np.float32(weight) * (other.T @ other)
    padded = np.vstack([other, np.zeros((1, d), np.float32)])
    lengths = np.diff(rows.indptr)
    order = np.argsort(lengths, kind="stable")
    for first in range(int(np.searchsorted(lengths[order], 1)), len(order), 256):
        some = order[first:first + 256]
        longest = lengths[some].max()
        at = rows.indptr[some][:, None] + np.arange(longest)
        index = np.where(np.arange(longest) < lengths[some][:, None], rows.indices[np.minimum(at, len(rows.indices) - 1)], len(other))
        h = padded[index]
        a = gram + np.matmul(h.transpose(0, 2, 1), h)
        a[:, np.arange(d), np.arange(d)] += np.float32(ridge) * (lengths[some] + np.float32(weight * len(other)))[:, None]
        out[some] = np.linalg.solve(a, h.sum(axis=1)[:, :, None])[:, :, 0]
    return out

times = []
for _ in range(epochs):
    start = time.perf_counter()
    user = half(x, item)
    item = half(xt, user)
    times.append(time.perf_counter() - start)
print(json.dumps({"seconds": min(times)}))
"""


def main():
    folder = need("gowalla")
    train = os.path.join(folder, "train.txt")
    with tempfile.TemporaryDirectory() as home:
        evection(home, "data", "import", "--train", train, "--test", os.path.join(folder, "test.txt"), "--as", "gowalla", "--quiet")
        fits = {1: [], 5: []}
        theirs = []
        for seed in (1, 2, 3):
            for epochs, times in fits.items():
                knobs = {"n_dims": DIMS, "epochs": epochs, "unobserved_weight": WEIGHT, "regularization": RIDGE}
                sets = [word for name, value in knobs.items() for word in ("--set", f"ials.{name}={value}")]
                times.append(evaluate(home, "agent:ials", "--data", "gowalla", "--fold", "test", "--refit", "--cutoffs", "20", "--seed", str(seed), *sets)["fit_seconds"])
            theirs.append(peer(PEER, train, DIMS, WEIGHT, RIDGE)["seconds"])
    ours = (median(fits[5]) - median(fits[1])) / 4
    write("ials", [row("iALS, Gowalla, 64 dimensions, one epoch", ours, "s", "NumPy, batched", median(theirs), median(theirs) / ours)])


main()
