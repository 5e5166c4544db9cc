"""What index.py searches in: generated and fitted vectors, conditions, exact answers. Kept under build/bench/index by what makes them.

The generated vectors look like learned embeddings: many overlapping clusters of unequal size, each near a surface of few
dimensions. A cluster's centre is a point of 24 dimensions, N(0, 0.35²) each, carried into the 128 by one random map; a member
leaves its centre along 16 directions (one of 64 sets of them), each a little weaker than the one before (0.95 to the power of
its number), and then in all directions a little (0.1). The r-th of 4000 clusters has a share as 1 / √r. Queries are drawn in the
same way, from other seeds.
"""
import os
import zlib

import numpy as np

from support import DATA, ROOT, evection

DIMS, SEED = 128, 1
CLUSTERS, WIDE, APART, NARROW, SETS, DECAY, NOISE = 4000, 24, 0.35, 16, 64, 0.95, 0.1
BLOCK = 65536
MADE_OF = (DIMS, SEED, CLUSTERS, WIDE, APART, NARROW, SETS, DECAY, NOISE, BLOCK)
FOLDER = os.path.join(ROOT, "build", "bench", "index", f"{zlib.crc32(repr(MADE_OF).encode()):08x}")


def path(name):
    os.makedirs(FOLDER, exist_ok=True)
    return os.path.join(FOLDER, name)


def vectors(file, dims=DIMS):
    return np.memmap(file, np.float32, "r").reshape(-1, dims)


class Mixture:
    def __init__(self):
        rng = np.random.default_rng([SEED, 0])
        spread = rng.normal(size=(WIDE, DIMS)) / np.sqrt(WIDE)
        self.centres = (APART * rng.normal(size=(CLUSTERS, WIDE)) @ spread).astype(np.float32)
        scale = DECAY ** np.arange(NARROW) / np.sqrt(NARROW)
        self.sets = (rng.normal(size=(SETS, NARROW, DIMS)) * scale[:, None]).astype(np.float32)
        share = 1 / np.sqrt(1 + np.arange(CLUSTERS))
        self.upto = np.cumsum(share / share.sum())

    def block(self, stream, number, n):
        rng = np.random.default_rng([SEED, stream, number])
        cluster = np.searchsorted(self.upto, rng.random(BLOCK)[:n]).clip(max=CLUSTERS - 1)
        out = NOISE * rng.standard_normal((BLOCK, DIMS), np.float32)[:n]
        out += self.centres[cluster]
        along = rng.standard_normal((BLOCK, NARROW), np.float32)[:n]
        for s in range(SETS):
            at = np.flatnonzero(cluster % SETS == s)
            out[at] += along[at] @ self.sets[s]
        return out


def generated(n, stream=1):
    """A file of at least n vectors; the first n are the same whatever comes after them."""
    file = path(f"mixture-{stream}.f32")
    have = os.path.getsize(file) // (4 * DIMS) if os.path.exists(file) else 0
    if have < n:
        mixture = Mixture()
        with open(file, "r+b" if have else "w+b") as f:
            for number in range(have // BLOCK, -(-n // BLOCK)):
                f.seek(number * BLOCK * DIMS * 4)
                mixture.block(stream, number, min(BLOCK, n - number * BLOCK)).tofile(f)
    return file


def queries(m):
    return generated(m, 2)


def gowalla(ask, m):
    """Item factors of iALS in 128 dimensions, and m users' as queries: two files and how many items. None without the data."""
    folder = os.path.join(DATA, "gowalla")
    items, users, chosen = path("gowalla-items.f32"), path("gowalla-users.f32"), path(f"gowalla-queries-{m}.f32")
    if not os.path.exists(items):
        if not os.path.isdir(folder):
            return None
        print("fitting iALS on Gowalla …", flush=True)
        home = path("gowalla-home")
        files = [f"--{fold}={os.path.join(folder, fold + '.txt')}" for fold in ("train", "test")]
        evection(home, "data", "import", *files, "--as", "gowalla", "--quiet")
        evection(home, "eval", "policies/compositions/gowalla_ials.yaml", "--data", "gowalla", "--fold", "valid", "--json", "--quiet")
        packs = os.path.join(home, "artifacts")
        pack = max((os.path.join(packs, f) for f in os.listdir(packs)), key=os.path.getsize)
        ask("factors", pack=pack, array="user", out=users)
        ask("factors", pack=pack, array="item", out=items)
    if not os.path.exists(chosen):
        everyone = vectors(users)
        everyone[np.random.default_rng(SEED).choice(len(everyone), m, replace=False)].tofile(chosen)
    return items, chosen, len(vectors(items))


def exact(name, base, n, query, m, metric, k=10, allowed=None):
    """The k nearest row numbers (m, k), by NumPy alone: all products in float32, then the 40 best of each again in float64."""
    file = path(f"exact-{name}-{n}-{m}-{metric}-{k}.u32")
    if os.path.exists(file):
        return np.fromfile(file, np.uint32).reshape(m, k)
    x, q = vectors(base)[:n], np.array(vectors(query)[:m])
    rows = np.arange(n) if allowed is None else np.flatnonzero(allowed)
    keep, step = max(40, k), 16384
    ids, best = np.empty((m, 0), np.int64), np.empty((m, 0), np.float32)
    for first in range(0, len(rows), step):
        some = rows[first:first + step]
        part = x[some[0]:some[-1] + 1] if allowed is None else x[some]
        scores = q @ part.T
        if metric == "l2":
            scores *= 2
            scores -= np.einsum("ij,ij->i", part, part)
        if scores.shape[1] > keep:
            top = np.argpartition(-scores, keep, axis=1)[:, :keep]
            scores, some = np.take_along_axis(scores, top, 1), some[top]
        else:
            some = np.broadcast_to(some, scores.shape)
        ids, best = np.concatenate([ids, some], 1), np.concatenate([best, scores], 1)
        if best.shape[1] > 16 * keep or first + step >= len(rows):
            top = np.argsort(-best, axis=1)[:, :keep]
            ids, best = np.take_along_axis(ids, top, 1), np.take_along_axis(best, top, 1)
    out = np.full((m, k), 0xffffffff, np.uint32)
    for i in range(m):
        near = x[ids[i]].astype(np.float64)
        score = near @ q[i] if metric == "dot" else -((near - q[i]) ** 2).sum(1)
        order = np.argsort(-score, kind="stable")[:k]
        out[i, :len(order)] = ids[i][order]
    out.tofile(file)
    return out


def condition(kind, share, base, n):
    """Where a condition holds: at `random`, or `far` along one direction, wherever the query is. A file of bits, and booleans."""
    file = path(f"allowed-{kind}-{share}-{n}.bits")
    if kind == "random":
        holds = np.random.default_rng([SEED, 3]).random(n) < share
    else:
        along = vectors(base)[:n] @ np.random.default_rng([SEED, 4]).normal(size=DIMS).astype(np.float32)
        holds = np.zeros(n, bool)
        holds[np.argsort(-along, kind="stable")[:max(1, round(share * n))]] = True
    bits = np.packbits(holds, bitorder="little")
    np.concatenate([bits, np.zeros(-len(bits) % 8, np.uint8)]).tofile(file)
    return file, holds


def recall(found, truth):
    """The mean share of the true ids that were found; rows that do not exist count in neither."""
    exists = truth != 0xffffffff
    hit = (truth[:, :, None] == found[:, None, :truth.shape[1]]).any(-1) & exists
    return hit.sum() / exists.sum()


def found(file, m, k):
    return np.fromfile(file, np.uint32).reshape(m, k)
