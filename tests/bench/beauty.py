"""Accuracy on Amazon Beauty, leave one out: each user's last item, all items that he has not had ranked; fitted without the validation items, on
which the knobs were chosen.

Peers are published figures of the same protocol (Recall@10, NDCG@10).
"""
import os
import tempfile

from support import evaluate, evection, measured, need, write

RUNS = [
    ("sasrec", "policies/compositions/beauty_sasrec.yaml", "SASRec, published", 0.0605, 0.0318),
    ("sasrec and markov", "policies/compositions/beauty_blend.yaml", "TIGER, published", 0.0648, 0.0384),
]


def main():
    folder = need("sequences")
    rows = []
    with tempfile.TemporaryDirectory() as home:
        evection(home, "data", "import", os.path.join(folder, "Beauty.txt"), "--format", "lists", "--split", "leave-one-out", "--as", "beauty", "--quiet")
        for name, composition, peer, recall, ndcg in RUNS:
            result = evaluate(home, composition, "--data", "beauty", "--fold", "test", "--cutoffs", "10")
            metrics = result["metrics"]
            rows += [measured(f"{name}, {metric}", metrics[metric], peer, published) for metric, published in (("recall@10", recall), ("ndcg@10", ndcg))]
            rows[-1]["command"] = f"evection eval {composition} --data beauty --fold test"
    write("beauty", rows)


main()
