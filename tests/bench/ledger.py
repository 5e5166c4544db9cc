"""Rows into the ledger, against a minimal C loop of prepared INSERTs over the same tables, with the same journal,
synchronous setting, page cache and rows a transaction, in the same run, in turns; the medians of seven. Ours checks every
row, counts ids that are known once, joins each event with its slate, and keeps totals by version, item, agent, type and
hour; the raw loop knows all of that beforehand and only inserts. Each caller waits until his batch is on disk. Live rows
are half slates of ten items, half events about slates of late. Ids have 16 hexadecimal digits in no order, as clients
make them, which touches pages all over the index, or in order."""
import json
import os
import subprocess
import sys
import tempfile

from support import ROOT, median, row, write

BINARY = os.path.join(os.path.dirname(os.environ.get("EVECTION", os.path.join(ROOT, "build", "evection"))), "bench", "ledger_ingest")
ROWS = int(os.environ.get("BENCH_ROWS", "300000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))

# what, rows a batch, order of ids, share of the rows, callers
RUNS = [("live", 1000, "random", 1, (1, 4)), ("events", 1000, "random", 1, (1, 4)), ("slates", 1000, "random", 1, (1, 4)),
        ("events", 1000, "order", 1, (1, 4)), ("live", 100, "random", 0.2, (1, 16))]
NAMES = {"live": "slates and events about them", "events": "events of no slate", "slates": "slates of ten"}


def run(how, what, batch, callers, order, rows):
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        done = subprocess.run([BINARY, how, what, os.path.join(folder, "ledger.db"), str(rows), str(batch), str(callers), order],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)["rows_s"]


def main():
    rows = []
    for what, batch, order, share, callers in RUNS:
        ways = [("raw", 1)] + [("ours", n) for n in callers]
        seen = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way in ways:
                seen[way].append(run(way[0], what, batch, way[1], order, int(ROWS * share)))
        peer = median(seen["raw", 1])
        for way in ways[1:]:
            ours = median(seen[way])
            who = "one caller" if way[1] == 1 else f"{way[1]} callers"
            ids = "ids in order" if order == "order" else "ids in no order"
            rows.append(dict(row(f"{NAMES[what]}, {batch} rows a batch, {ids}, {who}", ours, "rows/s", "raw SQLite inserts", peer, ours / peer), aim=0.7))
    write("ledger", rows)


main()
