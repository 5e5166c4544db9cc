"""Import of 10 million rows: wall time against `sort -n` of the same file, and the highest resident memory."""
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from support import THREADS, evection, row, write

ROWS = int(os.environ.get("BENCH_ROWS", "10000000"))


def make(path):
    """A log of distinct (user, item) pairs in time order, popularity falling as a power law."""
    rng = np.random.default_rng(5)
    n_users, n_items = ROWS // 50, ROWS // 100
    pairs = np.empty(0, np.int64)
    while len(pairs) < ROWS:
        users = rng.integers(0, n_users, ROWS // 2)
        items = (n_items * rng.random(ROWS // 2) ** 2.5).astype(np.int64)
        pairs = np.unique(np.concatenate([pairs, users * n_items + items]))
    pairs = rng.permutation(pairs)[:ROWS]
    times = 1500000000 + np.sort(rng.integers(0, 10**8, ROWS))
    ratings = rng.integers(1, 6, ROWS)
    with open(path, "w", encoding="ascii") as out:
        out.write("user,item,rating,time\n")
        for first in range(0, ROWS, 1000000):
            part = slice(first, first + 1000000)
            out.write("".join(f"{p // n_items},{p % n_items},{r},{t}\n" for p, r, t in zip(pairs[part].tolist(), ratings[part].tolist(), times[part].tolist())))


def main():
    with tempfile.TemporaryDirectory() as home:
        path = os.path.join(home, "log.csv")
        make(path)
        size = os.path.getsize(path) / 1e6
        start = time.perf_counter()
        subprocess.run(["sort", "-n", f"--parallel={THREADS}", path, "-o", path + ".sorted"], check=True, env=dict(os.environ, LC_ALL="C"))
        sort = time.perf_counter() - start
        os.remove(path + ".sorted")
        start = time.perf_counter()
        said = json.loads(evection(home, "data", "import", path, "--as", "big", "--json", "--quiet"))
        seconds = time.perf_counter() - start
    if said["interactions"] != ROWS:
        sys.exit(f"{said['interactions']} interactions, {ROWS} expected")
    write("import", [
        row(f"import of {ROWS} rows ({size:.0f} MB of CSV), time", seconds, "s", "sort -n", sort, sort / seconds),
        row("import, highest resident memory", said["max_rss_mb"], "MB", "the bound of 1 GB", 1000, 1000 / said["max_rss_mb"]),
    ])


main()
