"""Training steps of three models in PyTorch: what `make bench-train` measures ours against. Prints JSON.

    train_torch.py MODEL THREADS STEPS FOLDER

The models, batches and optimisers are those of tests/bench/train.lua; batches are drawn beforehand, so only the step is timed.
Embeddings that are only gathered have sparse gradients and SparseAdam; others Adam. Sequences are padded to 50, as published
implementations have it, and attention is torch's own.
"""
import json
import os
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

DIMS, SEED = 64, 1


def read_lists(path):
    with open(path, encoding="ascii") as f:
        return [list(map(int, line.split()))[1:] for line in f]


def pairs_of(lists):
    users = np.repeat(np.arange(len(lists)), [len(row) for row in lists])
    return users, np.concatenate([np.array(row, dtype=np.int64) for row in lists if row])


class Mf:
    """BPR over user and item vectors, 4096 pairs a step, four negatives each."""

    def __init__(self, folder, steps):
        users, items = pairs_of(read_lists(os.path.join(folder, "gowalla", "train.txt")))
        self.user, self.item = (nn.Embedding(int(x.max()) + 1, DIMS, sparse=True) for x in (users, items))
        self.optimiser = torch.optim.SparseAdam(list(self.user.parameters()) + list(self.item.parameters()), lr=0.001)
        rng, n = np.random.default_rng(SEED), 4096
        self.batches = []
        for _ in range(steps):
            some = rng.integers(0, len(users), n)
            self.batches.append(tuple(torch.from_numpy(x) for x in (users[some], items[some], rng.integers(0, items.max() + 1, (n, 4)))))

    def step(self, i):
        u, p, n = self.batches[i]
        self.optimiser.zero_grad()
        user = self.user(u)
        positive, negative = (user * self.item(p)).sum(-1), (user[:, None] * self.item(n)).sum(-1)
        loss = F.softplus(negative - positive[:, None]).mean()
        loss.backward()
        self.optimiser.step()


class LightGcn:
    """Three layers of propagation over the whole graph, BPR over 2048 pairs a step, one negative each."""

    def __init__(self, folder, steps):
        users, items = pairs_of(read_lists(os.path.join(folder, "gowalla", "train.txt")))
        n_users, n_items = int(users.max()) + 1, int(items.max()) + 1
        degree_u, degree_i = np.bincount(users, minlength=n_users), np.bincount(items, minlength=n_items)
        weight = (1 / np.sqrt(degree_u[users] * degree_i[items])).astype(np.float32)
        at = torch.from_numpy(np.stack([np.concatenate([users, items + n_users]), np.concatenate([items + n_users, users])]))
        size = n_users + n_items
        graph = torch.sparse_coo_tensor(at, torch.from_numpy(np.concatenate([weight, weight])), (size, size)).coalesce()
        try:  # the compressed form is the faster one where this build has it
            compressed = graph.to_sparse_csr()
            probe = torch.zeros(size, 1, requires_grad=True)
            torch.sparse.mm(compressed, probe).sum().backward()
            graph = compressed
        except (RuntimeError, NotImplementedError):
            pass
        self.graph, self.n_users = graph, n_users
        self.table = nn.Parameter(0.1 * torch.randn(size, DIMS))
        self.optimiser = torch.optim.Adam([self.table], lr=0.001)
        rng, n = np.random.default_rng(SEED), 2048
        self.batches = []
        for _ in range(steps):
            some = rng.integers(0, len(users), n)
            self.batches.append(tuple(torch.from_numpy(x) for x in (users[some], items[some], rng.integers(0, n_items, n))))

    def step(self, i):
        u, p, n = self.batches[i]
        self.optimiser.zero_grad()
        layers = [self.table]
        for _ in range(3):
            layers.append(torch.sparse.mm(self.graph, layers[-1]))
        final = (layers[0] + layers[1] + layers[2] + layers[3]) / 4
        user, positive, negative = final[u], final[p + self.n_users], final[n + self.n_users]
        loss = F.softplus((user * negative).sum(-1) - (user * positive).sum(-1)).mean()
        loss.backward()
        self.optimiser.step()


class Sasrec:
    """Two causal blocks of one head over the last 50 items, BCE with one negative a place, 128 sequences a step."""

    LENGTH, BATCH, DROP = 50, 128, 0.2

    def __init__(self, folder, steps):
        path = os.path.join(folder, "sequences", "Beauty.txt")
        lists = [row[:-2] for row in read_lists(path)]
        n_items = max(max(row) for row in lists if row)
        torch.manual_seed(SEED)
        self.item = nn.Embedding(n_items + 1, DIMS, padding_idx=0)
        self.place = nn.Embedding(self.LENGTH, DIMS)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"norm1": nn.LayerNorm(DIMS), "attention": nn.MultiheadAttention(DIMS, 1, dropout=self.DROP, batch_first=True),
                           "norm2": nn.LayerNorm(DIMS), "up": nn.Linear(DIMS, DIMS), "down": nn.Linear(DIMS, DIMS)}) for _ in range(2))
        self.norm = nn.LayerNorm(DIMS)
        self.drop = nn.Dropout(self.DROP)
        self.model = nn.ModuleList([self.item, self.place, self.blocks, self.norm, self.drop])
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=0.001)
        self.mask = torch.triu(torch.ones(self.LENGTH, self.LENGTH, dtype=torch.bool), 1)
        rng = np.random.default_rng(SEED)
        long_enough = [row for row in lists if len(row) > 1]
        self.batches = []
        for _ in range(steps):
            x, y, z = (np.zeros((self.BATCH, self.LENGTH), np.int64) for _ in range(3))
            for r, which in enumerate(rng.integers(0, len(long_enough), self.BATCH)):
                row = long_enough[which][-self.LENGTH - 1:]
                x[r, self.LENGTH - len(row) + 1:], y[r, self.LENGTH - len(row) + 1:] = row[:-1], row[1:]
                z[r] = rng.integers(1, n_items + 1, self.LENGTH)
            self.batches.append(tuple(map(torch.from_numpy, (x, y, z))))

    def step(self, i):
        x, y, z = self.batches[i]
        self.optimiser.zero_grad()
        there = (x != 0).unsqueeze(-1)
        h = self.drop(self.item(x) * DIMS ** 0.5 + self.place.weight) * there
        for block in self.blocks:
            q = block["norm1"](h)
            h = q + block["attention"](q, h, h, attn_mask=self.mask, need_weights=False)[0]
            q = block["norm2"](h)
            h = (q + self.drop(block["down"](self.drop(F.relu(block["up"](q)))))) * there
        h = self.norm(h)
        positive, negative = (h * self.item(y)).sum(-1), (h * self.item(z)).sum(-1)
        loss = (F.softplus(-positive) + F.softplus(negative))[y != 0].mean()
        loss.backward()
        self.optimiser.step()


def main():
    name, threads, steps, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(threads)
    model = {"mf": Mf, "light_gcn": LightGcn, "sasrec": Sasrec}[name](folder, steps + 3)
    for i in range(3):
        model.step(i)
    start = time.perf_counter()
    for i in range(steps):
        model.step(3 + i)
    print(json.dumps({"steps_per_second": steps / (time.perf_counter() - start)}))


main()
