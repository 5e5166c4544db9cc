"""MovieLens 100K as rows of clicks, in Evection's folds, for peers written in Python: labels, one-hot and table forms."""
import json
import os
import tempfile

import numpy as np
import scipy.sparse as sp

from support import evection

DUMP = """
local native = require "evection.native"
local w = require "evection.world".open(arg[1])
local out = native.array {}
for number, fold in ipairs { native.TRAIN, native.VALID, native.TEST } do
  for user = 0, w.snapshot:n_users() - 1 do
    for _, item in ipairs(w:history(user, fold)) do out[#out + 1] = native.array { w:user_id(user), w:item_id(item), number - 1 } end
  end
end
io.write(native.json_encode(out))
"""


def table(path):
    """Header and rows of an atomic file."""
    with open(path, encoding="utf-8") as f:
        rows = [line.rstrip("\n").split("\t") for line in f]
    return [name.split(":")[0] for name in rows[0]], rows[1:]


def folds(home, name):
    """(user, item, fold) of each interaction of a data set; fold 0 train, 1 validation, 2 test."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as f:
        f.write(DUMP)
        f.flush()
        return [tuple(row) for row in json.loads(evection(home, "run", f.name, name))]


def write_folds(home, name, folder, below, to):
    """Writes the ratings of the folds below `below` to an atomic file of their own, to be cut anew."""
    kept = {(user, item) for user, item, fold in folds(home, name) if fold < below}
    with open(os.path.join(folder, "ml-100k.inter"), encoding="utf-8") as f, open(to, "w", encoding="utf-8") as out:
        out.write(next(f))
        out.writelines(line for line in f if tuple(line.split("\t")[:2]) in kept)


class Rows:
    """Rows of the data set `name` imported from `folder`: user, item (dense numbers), label, fold; features of both."""

    def __init__(self, home, name, folder, least=4):
        there = folds(home, name)
        _, ratings = table(os.path.join(folder, "ml-100k.inter"))
        rated = {(user, item): float(rating) for user, item, rating, _ in ratings}
        assert len({(u, i) for u, i, _ in there}) == len(there) and len(rated) == len(ratings)
        _, users = table(os.path.join(folder, "ml-100k.user"))
        _, items = table(os.path.join(folder, "ml-100k.item"))
        user_at, item_at = {u[0]: k for k, u in enumerate(users)}, {i[0]: k for k, i in enumerate(items)}
        self.user = np.array([user_at[u] for u, _, _ in there])
        self.item = np.array([item_at[i] for _, i, _ in there])
        self.fold = np.array([f for _, _, f in there])
        self.label = np.array([rated[u, i] >= least for u, i, _ in there], float)
        self.n_users, self.n_items = len(users), len(items)
        # The columns whose tokens at least four rows share, as a rule: what Evection takes too.
        self.tokens = {"age": [u[1] for u in users], "gender": [u[2] for u in users], "occupation": [u[3] for u in users], "year": [i[2] for i in items]}
        self.genres = [i[3].split() for i in items]
        self.names = sorted({g for row in self.genres for g in row})

    def known(self, fold):
        """The rows a ranker for this fold learns from when it is refitted: all earlier folds."""
        return self.fold < fold

    def genre_matrix(self):
        m = np.zeros((self.n_items, len(self.names)))
        for k, row in enumerate(self.genres):
            for g in row:
                m[k, self.names.index(g)] = 1
        return m

    def one_hot(self):
        """User, item, age, gender, occupation, year one-hot; an item of m genres has 1/m of each."""
        blocks, n = [], len(self.user)

        def block(codes, size):
            blocks.append(sp.csr_matrix((np.ones(n), (np.arange(n), codes)), (n, size)))

        block(self.user, self.n_users)
        block(self.item, self.n_items)
        for name, values in self.tokens.items():
            words = sorted(set(values))
            codes = np.array([words.index(v) for v in values])
            block(codes[self.item if name == "year" else self.user], len(words))
        genres = self.genre_matrix()
        blocks.append(sp.csr_matrix((genres / np.maximum(genres.sum(1, keepdims=True), 1))[self.item]))
        return sp.hstack(blocks).tocsr()


def auc(label, score):
    """Area under the curve; equals count one half."""
    order = np.argsort(score, kind="stable")
    _, inverse, counts = np.unique(score[order], return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = label[order] > 0
    n, m = positives.sum(), (~positives).sum()
    return float((ranks[positives].sum() - n * (n + 1) / 2) / (n * m))


def log_loss(label, score):
    """Of logits."""
    return float(np.mean(np.logaddexp(0, np.where(label > 0, -score, score))))
