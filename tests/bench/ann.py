"""Five hundred candidates of Gowalla's 40,981 items in 128 dimensions, through indexes of several kinds, and what an answer of
`policies/compositions/serve_bench.yaml` consists of.

A request is one user alone, with what he has seen left out. The peer is the exact scan of f32 vectors, which is what `ials` does; `of
the exact 500` is the share of its candidates that are found. `after an event`: the user has one item more than he was trained on, so
that his vector is folded in first. CPU time of one thread, the lesser of two runs over 1,000 users.
"""
import json
import os
import tempfile

from support import ROOT, evection, need, row, write


def main():
    folder = need("gowalla")
    with tempfile.TemporaryDirectory() as home:
        evection(home, "data", "import", "--train", os.path.join(folder, "train.txt"), "--test", os.path.join(folder, "test.txt"), "--as", "gowalla", "--quiet")
        said = json.loads(evection(home, "run", "--threads", "1", os.path.join(ROOT, "tests", "bench", "ann.lua"), "500"))
    flat = said["recalls"][0]["us"]
    rows = []
    for r in said["recalls"]:
        peer = (None, None, None) if r is said["recalls"][0] else ("flat, f32", flat, flat / r["us"])
        rows += [row("recall, " + r["name"], r["us"], "µs", *peer), row("… of the exact 500", r["recall"], "", None, None, None)]
    for name, key in (("recall, hnsw, i8, after an event", "folded"), ("rank: columns, policy, order", "ranked"), ("rerank: cap of a cluster", "rerank"),
                      ("the whole answer", "whole")):
        rows.append(row(name, said[key], "µs", None, None, None))
    write("ann", rows)


main()
