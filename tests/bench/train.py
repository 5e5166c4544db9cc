"""Training steps a second against PyTorch on the CPU: the same model, batch and optimiser, one thread and all of them.

tests/bench/train.lua and train_torch.py say what the models are. mf and light_gcn learn Gowalla, sasrec Amazon Beauty. Ours draws its
batches in every step, PyTorch's are drawn beforehand. PyTorch pads sequences to 50 places; ours lie one after the other,
and no place is computed that holds nothing: on Beauty, where a sequence is nine items long, that is most of the difference.
The two take turns, three times; medians. BENCH_MODELS (mf,light_gcn,sasrec), BENCH_STEPS.
"""
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

from support import DATA, EVECTION, ROOT, THREADS, evection, median, need, peer_environment, row, write

STEPS = {"mf": 60, "light_gcn": 8, "sasrec": 40}


def run(command, **environment):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=dict(peer_environment(), **environment)).stdout


def main():
    if importlib.util.find_spec("torch") is None:
        print("skipped: no PyTorch (make deps-bench)")
        sys.exit(0)
    gowalla, beauty = need("gowalla"), need("sequences")
    models = os.environ.get("BENCH_MODELS", "mf,light_gcn,sasrec").split(",")
    here = os.path.dirname(os.path.abspath(__file__))
    rows = []
    with tempfile.TemporaryDirectory() as home:
        evection(home, "data", "import", "--train", os.path.join(gowalla, "train.txt"), "--test", os.path.join(gowalla, "test.txt"), "--as", "gowalla", "--quiet")
        evection(home, "data", "import", os.path.join(beauty, "Beauty.txt"), "--as", "beauty", "--ordered", "--split", "leave-one-out", "--quiet")
        for threads in sorted({1, THREADS}):
            for name in models:
                steps = int(os.environ.get("BENCH_STEPS", STEPS[name]))
                ours, theirs = [], []
                for _ in range(3):
                    data = "beauty" if name == "sasrec" else "gowalla"
                    ours.append(float(run([EVECTION, "run", "--threads", str(threads), os.path.join(here, "train.lua"), name, str(steps), data], EVECTION_HOME=home)))
                    theirs.append(json.loads(run([sys.executable, os.path.join(here, "train_torch.py"), name, str(threads), str(steps), DATA],
                                                 OPENBLAS_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads)))["steps_per_second"])
                title = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
                rows.append(dict(row(title, median(ours), "steps/s", "PyTorch", median(theirs), median(ours) / median(theirs)), aim=1.5))
    write("train", rows)


main()
