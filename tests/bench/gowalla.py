"""Accuracy on Gowalla's given split, test fold, all unseen items ranked, fitted on train and validation; the knobs were chosen on validation.

Peers are published figures of the same protocol (Recall@20, NDCG@20).
"""
import os
import tempfile

from support import ROOT, evaluate, evection, need, row, write

RUNS = [
    ("ease, plain (λ = 200)", "agent:ease", "EASE^R, published", 0.1765, 0.1467),
    ("ease, degree weighted", "policies/compositions/gowalla_ease.yaml", "EASE^R, published", 0.1765, 0.1467),
    ("ials, 128 dimensions", "policies/compositions/gowalla_ials.yaml", "LightGCN, published", 0.1830, 0.1554),
]


def main():
    folder = need("gowalla")
    rows = []
    with tempfile.TemporaryDirectory() as home:
        evection(home, "data", "import", "--train", os.path.join(folder, "train.txt"), "--test", os.path.join(folder, "test.txt"), "--as", "gowalla", "--quiet")
        for name, composition, peer, recall, ndcg in RUNS:
            if not composition.startswith("agent:"):
                assert os.path.exists(os.path.join(ROOT, composition))
            metrics = evaluate(home, composition, "--data", "gowalla", "--fold", "test", "--refit", "--cutoffs", "20")["metrics"]
            for metric, published in (("recall@20", recall), ("ndcg@20", ndcg)):
                m = metrics[metric]
                rows.append(dict(row(f"{name}, {metric}", m["value"], "", peer, published, m["value"] / published), low=m["low"], high=m["high"]))
            rows[-1]["command"] = f"evection eval {composition} --data gowalla --fold test --refit"
            for file in os.listdir(os.path.join(home, "artifacts")):
                os.remove(os.path.join(home, "artifacts", file))
    write("gowalla", rows)


main()
