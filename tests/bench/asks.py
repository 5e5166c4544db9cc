"""Requests a second of a core's time (its own, whatever else runs): random users with their whole histories, for 20 items, asked and answered in one process as a
script worker does it; the median of three. What a
deadline with answers in between, a capped Lua heap (256 MB) and an explanation cost is said by rows of their own, against the plain
path. With COMPOSITION and DATA (a data set under EVECTION_HOME) that composition alone is measured."""
import json
import os
import subprocess
import sys
import tempfile

from support import DATA, ROOT, evection, median, need, row, write

BINARY = os.path.join(os.path.dirname(os.environ.get("EVECTION", os.path.join(ROOT, "build", "evection"))), "bench", "asks")
SECONDS = float(os.environ.get("BENCH_SECONDS", "1"))
RUNS = [("agent:popular", "movielens"), ("agent:popular", "gowalla"), ("policies/compositions/hand_written.yaml", "movielens")]


def ask(home, composition, data):
    """→ name of the way → requests/s"""
    seen = {}
    for _ in range(3):
        done = subprocess.run([BINARY, composition, data, str(SECONDS)], capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
                              env=dict(os.environ, EVECTION_HOME=home, OPENBLAS_NUM_THREADS="1"))
        if done.returncode != 0:
            sys.exit(done.stderr)
        for r in json.loads(done.stdout):
            seen.setdefault(r["name"], []).append(r["value"])
    return {name: median(values) for name, values in seen.items()}


def rows_of(composition, data, at):
    what, plain = f"{composition}, {data}", at["plain"]
    rows = [row(what, plain, "requests/s", None, None, None)]
    for name in ("with a deadline and interim answers", "under a heap cap", "explained"):
        rows.append(row(f"{what}, {name}", at[name], "requests/s", "plain", plain, at[name] / plain))
    return rows


def main():
    if os.environ.get("COMPOSITION"):
        home, data = os.environ.get("EVECTION_HOME", os.path.join(ROOT, "var")), os.environ.get("DATA", "")
        for r in rows_of(os.environ["COMPOSITION"], data, ask(home, os.environ["COMPOSITION"], data)):
            print(f"{r['value']:.4g} {r['unit']}  {r['name']}" + (f"  ({r['peer']}: {r['peer_value']:.4g})" if r["peer"] else ""))
        return
    folder, rows = need("ml-100k"), []
    with tempfile.TemporaryDirectory() as home:
        evection(home, "data", "import", *(os.path.join(folder, "ml-100k" + end) for end in (".inter", ".item", ".user")), "--as", "movielens", "--quiet")
        gowalla = os.path.join(DATA, "gowalla")
        if os.path.isdir(gowalla):
            evection(home, "data", "import", "--train", os.path.join(gowalla, "train.txt"), "--test", os.path.join(gowalla, "test.txt"), "--as", "gowalla", "--quiet")
        for composition, data in RUNS:
            if data == "movielens" or os.path.isdir(gowalla):
                rows += rows_of(composition, data, ask(home, composition, data))
    write("asks", rows)


main()
