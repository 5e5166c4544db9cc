"""Accuracy on Gowalla's given split, test fold, all unseen items ranked, fitted on train and validation; the knobs were chosen on validation.

Peers are published figures of the same protocol (Recall@20, NDCG@20). Plain EASE is measured by `make bench-ease`.
"""
import os
import tempfile

from support import evaluate, evection, measured, need, write

RUNS = [
    ("ease, degree weighted", "policies/compositions/gowalla_ease.yaml", "EASE^R, published", 0.1765, 0.1467),
    ("ials, 128 dimensions", "policies/compositions/gowalla_ials.yaml", "LightGCN, published", 0.1830, 0.1554),
]


def main():
    folder = need("gowalla")
    rows = []
    with tempfile.TemporaryDirectory() as home:
        evection(home, "data", "import", "--train", os.path.join(folder, "train.txt"), "--test", os.path.join(folder, "test.txt"), "--as", "gowalla", "--quiet")
        for name, composition, peer, recall, ndcg in RUNS:
            metrics = evaluate(home, composition, "--data", "gowalla", "--fold", "test", "--refit", "--cutoffs", "20")["metrics"]
            rows += [measured(f"{name}, {metric}", metrics[metric], peer, published) for metric, published in (("recall@20", recall), ("ndcg@20", ndcg))]
            rows[-1]["command"] = f"evection eval {composition} --data gowalla --fold test --refit"
            for file in os.listdir(os.path.join(home, "artifacts")):
                os.remove(os.path.join(home, "artifacts", file))
    write("gowalla", rows)


main()
