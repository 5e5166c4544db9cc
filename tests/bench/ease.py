"""EASE on Gowalla: our half-stored, tiled inverse against NumPy/SciPy's in-place LAPACK inverse of the same matrix.

Both run the whole fit: XᵀX, + λ, Cholesky, inverse, division by the diagonal; time and highest resident memory; ours
writes the model to disk too. BENCH_ITEMS (default all) keeps that many items, for a quick look. BENCH_KEPT=1 takes the
peer's figures from the run before, where one side alone was disturbed.
"""
import os
import tempfile

from support import evaluate, evection, measured, need, peer, remembered, row, write

PEER = """
import json, sys, time
import numpy as np, scipy.sparse as sp
from scipy.linalg import lapack
users, items = [], []
for line in open(sys.argv[1]):
    u, *row = map(int, line.split())
    users += [u] * len(row)
    items += row
items = np.array(items)
keep = items < int(sys.argv[2])
items, users = items[keep], np.array(users)[keep]
start = time.perf_counter()
x = sp.csr_matrix((np.ones(len(items), np.float32), (users, items)))
gram = x.T @ x
p = np.zeros(gram.shape, np.float32, order="F")
gram = gram.tocoo()
p[gram.row, gram.col] = gram.data
del gram
p[np.diag_indices_from(p)] += 200
p, info = lapack.spotrf(p, lower=1, clean=0, overwrite_a=1)
assert info == 0
p, info = lapack.spotri(p, lower=1, overwrite_c=1)
assert info == 0
diagonal = p.diagonal().copy()
for j in range(len(p)):
    p[j:, j] /= -diagonal[j:]
print(json.dumps({"seconds": time.perf_counter() - start, "items": len(p)}))
"""


def main():
    folder = need("gowalla")
    n_items = int(os.environ.get("BENCH_ITEMS", "1000000"))
    with tempfile.TemporaryDirectory() as home:
        files = {}
        for name in ("train", "test"):
            files[name] = os.path.join(home, name + ".txt")
            with open(os.path.join(folder, name + ".txt"), encoding="ascii") as rows, open(files[name], "w", encoding="ascii") as out:
                for line in rows:
                    user, *items = line.split()
                    kept = [i for i in items if int(i) < n_items]
                    if kept:
                        out.write(" ".join([user, *kept]) + "\n")
        evection(home, "data", "import", "--train", files["train"], "--test", files["test"], "--as", "gowalla", "--quiet")
        theirs = remembered("ease_peer", lambda: peer(PEER, files["train"], n_items))
        result = evaluate(home, "agent:ease", "--data", "gowalla", "--fold", "test", "--refit", "--cutoffs", "20")
    write("ease", [
        row("EASE fit, Gowalla, time", result["fit_seconds"], "s", "NumPy/SciPy, LAPACK in place", theirs["seconds"], theirs["seconds"] / result["fit_seconds"]),
        row("EASE fit and evaluation, Gowalla, memory", result["max_rss_mb"], "MB", "NumPy/SciPy, LAPACK in place", theirs["max_rss_mb"],
            theirs["max_rss_mb"] / result["max_rss_mb"]),
        measured("plain EASE (λ = 200), recall@20", result["metrics"]["recall@20"], "EASE^R, published", 0.1765),
        measured("plain EASE (λ = 200), ndcg@20", result["metrics"]["ndcg@20"], "EASE^R, published", 0.1467),
    ])


main()
