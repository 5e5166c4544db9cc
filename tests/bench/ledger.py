"""Rows into the ledger, against a minimal C loop of prepared INSERTs over the same tables, with the same journal,
synchronous setting, page cache and rows a transaction, in the same run, in turns; the medians of seven. Ours checks every
row, counts ids that are known once, joins each event with its slate, and keeps totals by version, item, agent, type and
hour; the raw loop knows all of that beforehand and only inserts. A batch has 1000 rows, or 100; each caller waits until
his is on disk. Ids have 16 hexadecimal digits: in order, or in none, as clients make them, which touches pages all over
the index."""
import json
import os
import subprocess
import sys
import tempfile

from support import ROOT, median, row, write

BINARY = os.path.join(os.path.dirname(os.environ.get("EVECTION", os.path.join(ROOT, "build", "evection"))), "bench", "ledger_ingest")
IMPRESSIONS = int(os.environ.get("BENCH_IMPRESSIONS", "20000"))
EVENTS = int(os.environ.get("BENCH_EVENTS", "200000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))


def run(how, batch, callers, order, impressions, events):
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        done = subprocess.run([BINARY, how, os.path.join(folder, "ledger.db"), str(impressions), str(events), str(batch), str(callers), order],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main():
    rows = []
    for batch, order, share in ((1000, "order", 1), (1000, "random", 1), (100, "random", 0.2)):
        ways = [("raw", 1), ("ours", 1), ("ours", 4), ("ours", 16)][: 4 if batch == 100 else 3]
        seen = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way in ways:
                seen[way].append(run(way[0], batch, way[1], order, int(IMPRESSIONS * share), int(EVENTS * share)))
        for what, key in (("slates of ten", "impression_rows_s"), ("events", "event_rows_s")):
            peer = median([x[key] for x in seen["raw", 1]])
            for way in ways[1:]:
                ours = median([x[key] for x in seen[way]])
                callers = "one caller" if way[1] == 1 else f"{way[1]} callers"
                ids = "ids in order" if order == "order" else "ids in no order"
                rows.append(dict(row(f"{what}, {batch} rows a batch, {ids}, {callers}", ours, "rows/s", "raw SQLite inserts", peer, ours / peer), aim=0.7))
    write("ledger", rows)


main()
