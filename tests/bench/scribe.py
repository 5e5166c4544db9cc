"""Slates of 20 items into the ledger through the service's writer, a process that is fed by a ring of shared memory, against the same
slates written straight by `ev_ledger_put`, 400 in a transaction (the writer's commits have up to 8192 rows, about as many), in the same
run, in turns; the medians of five. Ids are in order, as the service makes them. CPU is of a slate: the producer's is what answering a
request pays for logging its slate. A post is one slate into a ring with room. Paced: 1000 slates a second, so that commits are small."""
import json
import os
import subprocess
import sys
import tempfile

from support import ROOT, median, row, write

BINARY = os.path.join(os.path.dirname(os.environ.get("EVECTION", os.path.join(ROOT, "build", "evection"))), "bench", "scribe_feed")
SLATES = int(os.environ.get("BENCH_SLATES", "40000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def run(how, slates, rate):
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        done = subprocess.run([BINARY, how, os.path.join(folder, "ledger.db"), str(slates), "400", str(rate)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(done.stderr or "the slates are not all there")
    return json.loads(done.stdout)


def main():
    seen = {"scribe": [], "put": [], "paced": []}
    for _ in range(ROUNDS):
        seen["scribe"].append(run("scribe", SLATES, 0))
        seen["put"].append(run("put", SLATES, 0))
        seen["paced"].append(run("scribe", SLATES // 10, 1000))
    value = {how: {key: median([r[key] for r in runs]) for key in runs[0]} for how, runs in seen.items()}
    ours, put, paced = value["scribe"], value["put"], value["paced"]
    peer = "ev_ledger_put in this process"
    both = ours["producer_us"] + ours["writer_us"]
    write("scribe", [
        row("slates of 20, as fast as they go", ours["slates_s"], "slates/s", peer, put["slates_s"], ours["slates_s"] / put["slates_s"]),
        row("CPU of a slate, producer and writer", both, "µs", peer, put["producer_us"], put["producer_us"] / both),
        row("CPU of a slate, producer", ours["producer_us"], "µs", peer, put["producer_us"], put["producer_us"] / ours["producer_us"]),
        row("a post, median", ours["post_us"], "µs", None, None, None),
        row("CPU of a slate, writer, 1000 slates a second", paced["writer_us"], "µs", None, None, None),
    ])


main()
