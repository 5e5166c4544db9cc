"""MovieLens 100K: the hand-written pipeline against the champion that evolution chose on validation, on the sealed test fold.

The last row is the mean difference over users with its paired bootstrap interval.
"""
import json
import os
import tempfile

from support import THREADS, evection, need, row, write


def main():
    folder = need("ml-100k")
    with tempfile.TemporaryDirectory() as home:
        files = [os.path.join(folder, "ml-100k" + end) for end in (".inter", ".item", ".user")]
        evection(home, "data", "import", *files, "--as", "movielens", "--split", "ratio", "--quiet")
        said = json.loads(evection(home, "evolve", "policies/plans/movielens.yaml", "--workers", str(THREADS), "--json", "--quiet"))
    report, rows = said["report"], []
    for metric in ("ndcg@20", "recall@20"):
        ours, given = report["champion"][metric], report["given"][metric]
        rows.append(dict(row(f"evolved champion, {metric}", ours["value"], "", "hand-written pipeline", given["value"], ours["value"] / given["value"]),
                         low=ours["low"], high=ours["high"]))
    d = report["test"]
    rows.append(dict(row(f"{report['metric']}, champion − hand-written, p = {d['p']:.4f}", d["value"], "", None, None, None), low=d["low"], high=d["high"],
                     command="evection evolve policies/plans/movielens.yaml --data movielens"))
    write("movielens", rows)


main()
