"""What the benchmarks share: the data, the peer's environment, the rows they write to build/bench/NAME.json.

A row: name, value, unit, peer, peer_value, ratio; a ratio above 1 is in our favour. Ours and the peer's run in turn in
one process tree on one machine, with the same number of threads and the same BLAS kernels.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EVECTION = os.path.abspath(os.environ.get("EVECTION", os.path.join(ROOT, "build", "evection")))
DATA = os.environ.get("EVECTION_DATA", os.path.join(ROOT, "..", "shared", "data"))
THREADS = int(os.environ.get("BENCH_THREADS", len(os.sched_getaffinity(0))))


def need(folder):
    """The folder of a data set, or the end of the benchmark."""
    path = os.path.join(DATA, folder)
    if not os.path.isdir(path):
        print(f"skipped: no {folder} at EVECTION_DATA or ../shared/data")
        sys.exit(0)
    return path


def evection(home, *args):
    return subprocess.run([EVECTION, *args], check=True, capture_output=True, text=True, cwd=ROOT,
                          env=dict(os.environ, EVECTION_HOME=home), stdin=subprocess.DEVNULL).stdout


def evaluate(home, *args, threads=THREADS):
    return json.loads(evection(home, "eval", *args, "--json", "--quiet", "--threads", str(threads)))


def peer_environment():
    """The kernels that our binary makes OpenBLAS use, for the peer too."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as f:
        f.write('io.write(os.getenv "OPENBLAS_CORETYPE" or "")')
        f.flush()
        core = evection(tempfile.gettempdir(), "run", f.name)
    environment = dict(os.environ, OPENBLAS_NUM_THREADS=str(THREADS))
    if core:
        environment["OPENBLAS_CORETYPE"] = core
    return environment


def peer(program, *args):
    """Runs Python code with NumPy at hand in a process of its own; what it prints is JSON."""
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, args)], stdout=subprocess.PIPE, text=True, env=peer_environment())
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"the peer ended with status {status}")
    return dict(json.loads(text), max_rss_mb=usage.ru_maxrss / 1024)


def remembered(name, measure):
    """What `measure` returns; with BENCH_KEPT=1 what it returned the last time, if there was one."""
    path = os.path.join(ROOT, "build", "bench", "kept", name + ".json")
    if os.environ.get("BENCH_KEPT") == "1" and os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    result = measure()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(result, f)
    return result


def row(name, value, unit, peer_name, peer_value, ratio):
    return {"name": name, "value": value, "unit": unit, "peer": peer_name, "peer_value": peer_value, "ratio": ratio}


def measured(name, metric, peer_name, peer_value):
    """A row of a metric with its interval against a published figure."""
    return dict(row(name, metric["value"], "", peer_name, peer_value, metric["value"] / peer_value), low=metric["low"], high=metric["high"])


def median(values):
    return statistics.median(values)


def write(name, rows):
    folder = os.path.join(ROOT, "build", "bench")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as f:
        json.dump(rows, f, indent=1)
        f.write("\n")
    width = max(len(r["name"]) for r in rows)
    for r in rows:
        against = "" if r["peer"] is None else f"  {r['peer']}: {r['peer_value']:.4g} {r['unit']}, ratio {r['ratio']:.2f}"
        print(f"{r['name']:<{width}}  {r['value']:.4g} {r['unit']}{against}")
