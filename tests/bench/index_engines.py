"""The programs that index.py measures, the graphs they hold, and the sweep over efforts in which they take turns."""
import json
import math
import os
import shutil
import subprocess
import sys

import index_data as data
from support import ROOT, THREADS, median, peer_environment

PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(os.environ.get("EVECTION", os.path.join(ROOT, "build", "evection")))), "bench")
REPS = int(os.environ.get("BENCH_REPS", "3"))
USEARCH, USEARCH_FORMS = "2.25.3", os.environ.get("BENCH_USEARCH", "f16").split(",")
FORMS = os.environ.get("BENCH_FORMS", "i8,f32").split(",")
PEERS = os.environ.get("BENCH_PEERS", "hnswlib,faiss,faiss_sq8,usearch").split(",")
K, RECALLS = 10, (0.90, 0.95, 0.99)
EFFORTS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896)
THREAD_COUNTS = sorted({1, THREADS})


def said(threads):
    return "1 thread" if threads == 1 else f"{threads} threads"


def tell(*words):
    print("  " + "  ".join(words), flush=True)


class Program:
    """A process that answers a line of JSON to each command."""

    def __init__(self, *command, **environment):
        environment = dict(peer_environment(), **environment)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.threads = None

    def ask(self, verb, **values):
        self.process.stdin.write(" ".join([verb, *(f"{k}={v}" for k, v in values.items() if v is not None)]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            sys.exit(f"{verb}: the program ended with status {self.process.wait()}")
        return json.loads(line)

    def use(self, threads):
        if self.threads != threads:
            self.ask("threads", n=threads)
            self.threads = threads

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def start_ours(name):
    return Program(os.path.join(PROGRAMS, name), OPENBLAS_NUM_THREADS="1")  # as the evection binary does: the threads are ours


def peer_pages():
    return {} if os.environ.get("BENCH_SMALL_PAGES") else {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def start_peers():
    binary = os.path.join(PROGRAMS, "index_peers")
    if os.path.exists(binary):
        return Program(binary, **peer_pages())
    print("skipped: faiss and hnswlib (libfaiss-dev, libhnswlib-dev and g++: make deps-bench)")
    return None


def start_usearch():
    """usearch through node, put under build/bench by npm; None, and said, where that cannot be."""
    folder = os.path.join(ROOT, "build", "bench", "usearch")
    package = os.path.join(folder, "node_modules", "usearch")
    if not shutil.which("node") or not (os.path.isdir(package) or shutil.which("npm")):
        print("skipped: usearch (no node, or no npm to install it)")
        return None
    if not os.path.isdir(package):
        os.makedirs(folder, exist_ok=True)
        install = ["npm", "install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", f"usearch@{USEARCH}"]
        if subprocess.run(install, capture_output=True).returncode != 0:
            print("skipped: usearch (npm install failed)")
            return None
    if subprocess.run(["node", "-e", f"require({json.dumps(package)})"], capture_output=True).returncode != 0:
        print("skipped: usearch (its binary does not load here)")
        return None
    return Program("node", "--expose-gc", os.path.join(ROOT, "tests", "bench", "index_usearch.js"), package, **peer_pages())


class Searched:
    """Something that is swept: `points` are (recall, queries per second by thread count), rising in recall."""

    def __init__(self, label):
        self.label, self.points = label, []

    def rate(self, recall, threads):
        """Queries per second at a recall; None where the sweep never reached it."""
        before = None
        for at, rates in self.points:
            if at >= recall:
                if before is None:
                    return rates[threads]
                share = (recall - before[0]) / (at - before[0])
                return math.exp((1 - share) * math.log(before[1][threads]) + share * math.log(rates[threads]))
            before = (at, rates)
        return None


class Engine(Searched):
    """A graph of one library: how it is built, and how it is searched at an effort."""

    def __init__(self, bench, label, where, base, n, metric, kept=True, **how):
        super().__init__(label)
        self.how, self.engine = how, how["engine"]
        self.program = {"ours": bench.ours, "usearch": bench.usearch}.get(self.engine, bench.peers)
        self.name = f"{label}-{where}-{n}-{metric}".replace(" ", "_")
        self.at = {"name": self.name, "base": base, "n": n, "d": data.DIMS, "metric": metric}
        self.file, self.kept, self.opened, self.cost = data.path(self.name), kept and self.engine in ("hnswlib", "faiss", "usearch"), None, None

    def build(self, threads):
        """Seconds and bytes; of a graph kept from an earlier run, those of then."""
        self.program.use(threads)
        if self.kept and os.path.exists(self.file + ".json"):
            if self.engine != "usearch":
                self.program.ask("build", engine=self.engine, load=self.file, **self.at)
            with open(self.file + ".json", encoding="utf-8") as f:
                return dict(json.load(f), earlier=True)
        if self.engine == "ours":
            return self.program.ask("build", kind="hnsw", form=self.how["form"], **self.at)
        save = self.file if self.kept or self.engine == "usearch" else None
        got = self.program.ask("build", save=save, **self.how, **self.at)
        if self.kept:
            with open(self.file + ".json", "w", encoding="utf-8") as f:
                json.dump(got, f)
        return got

    def search(self, threads, query, m, effort, out=None, allowed=None):
        self.program.use(threads)
        if self.engine == "usearch" and self.opened != effort:
            self.program.ask("drop", name=self.name)
            self.program.ask("open", form=self.how["form"], ef=effort, load=self.file, **self.at)
            self.opened = effort
        return self.program.ask("search", name=self.name, q=query, m=m, k=K, ef=effort, out=out, allowed=allowed)

    def drop(self):
        self.program.ask("drop", name=self.name)
        self.opened = None
        if self.engine == "usearch" and not self.kept:
            os.remove(self.file)


class Table(Searched):
    """The live table that a program of its own has open."""

    def __init__(self, program):
        super().__init__("items")
        self.program = program

    def search(self, threads, query, m, effort, out=None):
        self.program.use(threads)
        return self.program.ask("search", q=query, m=m, k=K, ef=effort, out=out)


def engines_for(bench, where, base, n, metric, kept=True):
    """Ours first, the default form before float32; then the peers that are here and asked for."""
    made = [Engine(bench, "ours " + form, where, base, n, metric, engine="ours", form=form) for form in FORMS]
    graphs = [Engine(bench, engine, where, base, n, metric, kept, engine=engine) for engine in ("hnswlib", "faiss") if bench.peers and engine in PEERS]
    made += graphs
    if bench.peers and "faiss" in PEERS and "faiss_sq8" in PEERS:
        made.append(Engine(bench, "faiss SQ8", where, base, n, metric, engine="faiss_sq8", graph=graphs[-1].name))
    if bench.usearch and "usearch" in PEERS:
        made += [Engine(bench, "usearch " + form, where, base, n, metric, kept, engine="usearch", form=form) for form in USEARCH_FORMS]
    return made


def sweep(engines, query, m, truth):
    """Each engine at rising effort until its recall is past all that is asked for; at each effort they take turns."""
    out = data.path("found.u32")
    for effort in EFFORTS:
        left = [e for e in engines if not e.points or e.points[-1][0] < RECALLS[-1] + 0.003]
        recalls, first, times = {}, [1], {(e, t): [] for e in left for t in THREAD_COUNTS}
        for e in left:
            first.append(e.search(THREADS, query, m, effort, out)["seconds"])
            recalls[e] = data.recall(data.found(out, m, K), truth)
        for _ in range(REPS if min(first) > 0.05 else 3 * REPS):
            for threads in THREAD_COUNTS:
                for e in left:
                    times[e, threads].append(e.search(threads, query, m, effort)["seconds"])
        for e in left:
            rates = {t: m / median(times[e, t]) for t in THREAD_COUNTS}
            if not e.points or recalls[e] > e.points[-1][0]:
                e.points.append((recalls[e], rates))
            tell(f"{e.label:12} effort {effort:4}  recall {recalls[e]:.4f}", *(f"{rates[t]:9.0f}/s {said(t)}" for t in THREAD_COUNTS))


def print_sweep(title, engines):
    print(f"\n{title}: queries per second at recall@{K}, {', then '.join(map(said, THREAD_COUNTS))}")
    print(" " * 12 + "".join(f"{r:>10.2f}" for _ in THREAD_COUNTS for r in RECALLS))
    for e in engines:
        rates = [e.rate(r, t) for t in THREAD_COUNTS for r in RECALLS]
        print(f"{e.label:12}" + "".join("         –" if r is None else f"{r:10.0f}" for r in rates))
    print(flush=True)
