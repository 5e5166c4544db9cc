"""Candidate storage side by side with faiss 1.7.3, hnswlib 0.6.2 and usearch: exact and approximate search, filters, writes while searching, growth.

Vectors, queries and exact answers (by NumPy) are made in `tests/bench/index_data.py`, which says what they are; `clustered` is
its mixture in 128 dimensions. Each library runs in a process that stays up, and they take turns: medians over the turns. All
graphs have 16 links (32 on the ground level) and 200 candidates while building. Queries per second at a recall lie between
the two measured points around it (logarithm of the rate, along recall); where the fastest point is better already, it is taken.
Batches: one call with all queries, but for hnswlib, which has none and gets a call a query from as many threads. hnswlib is
compiled for this machine; so are faiss's two distance functions, which Debian's library has without vector instructions
(BENCH_FAISS_AS_PACKAGED=1 leaves them); SQ8 is as packaged, over the links that faiss made of exact distances. usearch is its npm
package: typed arrays in and out of one call, threads of its own; its i8 scales each vector to length 1, so neither l2 nor
inner products survive it, and it is left out. The peers' malloc asks for huge pages, as our regions do (BENCH_SMALL_PAGES=1: not).

BENCH_PARTS (flat,hnsw,gowalla,filter,live,scale), BENCH_N (1000000), BENCH_BUILD_N (50000), BENCH_LIVE_N (100000), BENCH_SCALE
(10000,100000,1000000,4000000), BENCH_QUERIES (1000), BENCH_REPS (3), BENCH_LIVE_SECONDS (5), BENCH_THREADS. Data, exact answers and peers'
graphs are kept in build/bench/index.
"""
import json
import math
import os
import shutil
import subprocess
import sys

import index_data as data
import index_plot
from support import ROOT, THREADS, median, peer_environment, row, write

PARTS = os.environ.get("BENCH_PARTS", "flat,hnsw,gowalla,filter,live,scale").split(",")
N = int(os.environ.get("BENCH_N", "1000000"))
BUILD_N = int(os.environ.get("BENCH_BUILD_N", str(min(N, 50000))))
LIVE_N = int(os.environ.get("BENCH_LIVE_N", str(min(N, 100000))))
SCALE = [int(n) for n in os.environ.get("BENCH_SCALE", "10000,100000,1000000,4000000").split(",")]
M = int(os.environ.get("BENCH_QUERIES", "1000"))
REPS = int(os.environ.get("BENCH_REPS", "3"))
LIVE_SECONDS = int(os.environ.get("BENCH_LIVE_SECONDS", "5"))
PROGRAMS = os.path.dirname(os.path.abspath(os.environ.get("EVECTION", os.path.join(ROOT, "build", "evection"))))
USEARCH = "2.25.3"
K, RECALLS = 10, (0.90, 0.95, 0.99)
EFFORTS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896)
THREAD_COUNTS = sorted({1, THREADS})


def said(threads):
    return "1 thread" if threads == 1 else f"{threads} threads"


def count(n):
    return f"{n // 1000000}M" if n % 1000000 == 0 else f"{n // 1000}k" if n >= 1000 else str(n)


class Program:
    """A process that answers one line of JSON to each command."""

    def __init__(self, *command, **environment):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(peer_environment(), **environment))
        self.threads = None

    def ask(self, verb, **values):
        self.process.stdin.write(" ".join([verb, *(f"{k}={v}" for k, v in values.items())]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{verb}: the program ended with status {self.process.wait()}")
        return json.loads(line)

    def use(self, threads):
        if self.threads != threads:
            self.ask("threads", n=threads)
            self.threads = threads

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def peer_pages():
    return {} if os.environ.get("BENCH_SMALL_PAGES") else {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def start_peers():
    binary = os.path.join(PROGRAMS, "bench", "index_peers")
    if os.path.exists(binary):
        return Program(binary, **peer_pages())
    print("skipped: faiss and hnswlib (libfaiss-dev, libhnswlib-dev and g++: make deps-bench)")
    return None


def start_usearch():
    """usearch through node, installed under build/bench by npm; None, and said, where that cannot be."""
    folder = os.path.join(ROOT, "build", "bench", "usearch")
    package = os.path.join(folder, "node_modules", "usearch")
    if not shutil.which("node") or not (os.path.isdir(package) or shutil.which("npm")):
        print("skipped: usearch (no node, or no npm to install it)")
        return None
    if not os.path.isdir(package):
        os.makedirs(folder, exist_ok=True)
        got = subprocess.run(["npm", "install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", f"usearch@{USEARCH}"], capture_output=True, text=True)
        if got.returncode != 0:
            print("skipped: usearch (npm install failed)")
            return None
    loads = subprocess.run(["node", "-e", f"require({json.dumps(package)})"], capture_output=True, text=True)
    if loads.returncode != 0:
        print("skipped: usearch (its binary does not load here)")
        return None
    return Program("node", "--expose-gc", os.path.join(ROOT, "tests", "bench", "index_usearch.js"), package, **peer_pages())


class Bench:
    def __init__(self):
        self.ours = Program(os.path.join(PROGRAMS, "bench", "index_ours"), OPENBLAS_NUM_THREADS="1")
        self.peers, self.usearch = start_peers(), start_usearch()
        self.rows, self.built = [], {}
        print("ours:", self.ours.ask("threads", n=1)["simd"], flush=True)

    def add(self, name, value, unit, peer=None, peer_value=None, ratio=None, aim=None):
        r = row(name, value, unit, peer, peer_value, ratio)
        self.rows.append(r if aim is None else dict(r, aim=aim))

    def turns(self, reps, **things):
        """Each thing done `reps` times, in turn; the median of what each returns."""
        got = {name: [] for name in things}
        for _ in range(reps):
            for name, thing in things.items():
                got[name].append(thing())
        return {name: median(values) for name, values in got.items()}


class Engine:
    """A graph of one library: how it is built, and how it is searched at an effort."""

    def __init__(self, bench, label, where, base, n, metric, kept=True, **how):
        self.bench, self.label, self.how = bench, label, how
        self.program = {"ours": bench.ours, "usearch": bench.usearch}.get(how["engine"], bench.peers)
        self.name = f"{label}-{where}-{n}-{metric}".replace(" ", "_").replace("+", "")
        self.at = {"name": self.name, "base": base, "n": n, "d": data.DIMS, "metric": metric}
        self.file, self.kept, self.points, self.opened = data.path(self.name), kept, [], None

    def build(self, threads):
        """Seconds and bytes; of a graph kept from an earlier run, those of then."""
        self.program.use(threads)
        if self.how["engine"] == "ours":
            return self.program.ask("build", kind="hnsw", form=self.how["form"], **self.at)
        if self.how["engine"] == "faiss_sq8":
            return self.program.ask("build", engine="faiss_sq8", graph=self.how["graph"], **self.at)
        if self.how["engine"] == "usearch":
            if not (self.kept and os.path.exists(self.file + ".json")):
                return self.keep(self.program.ask("build", form=self.how["form"], save=self.file, **self.at))
        elif self.kept and os.path.exists(self.file + ".json"):
            self.program.ask("build", engine=self.how["engine"], load=self.file, **self.at)
        else:
            return self.keep(self.program.ask("build", engine=self.how["engine"], **self.at, **({"save": self.file} if self.kept else {})))
        with open(self.file + ".json", encoding="utf-8") as f:
            return json.load(f)

    def keep(self, result):
        if self.kept:
            with open(self.file + ".json", "w", encoding="utf-8") as f:
                json.dump(dict(result, earlier=True), f)
        return dict(result, earlier=False)

    def search(self, threads, query, m, effort, out=None, **more):
        self.program.use(threads)
        if self.how["engine"] == "usearch" and self.opened != effort:
            self.program.ask("drop", name=self.name)
            self.program.ask("open", form=self.how["form"], ef=effort, load=self.file, **self.at)
            self.opened = effort
        return self.program.ask("search", name=self.name, q=query, m=m, k=K, ef=effort, **({"out": out} if out else {}), **more)

    def drop(self):
        self.program.ask("drop", name=self.name)
        self.opened = None
        if self.how["engine"] == "usearch" and not self.kept:
            os.remove(self.file)

    def rate(self, recall, threads):
        """Queries per second at a recall; None where the sweep never reached it."""
        before = None
        for at, rates in self.points:
            if at >= recall:
                if before is None or at == before[0]:
                    return rates[threads]
                share = (recall - before[0]) / (at - before[0])
                return math.exp((1 - share) * math.log(before[1][threads]) + share * math.log(rates[threads]))
            before = (at, rates)
        return None


def sweep(engines, query, m, truth):
    """Each engine at rising effort until its recall is past all that is asked for; engines take turns at each effort."""
    out = data.path("found.u32")
    for effort in EFFORTS:
        left = [e for e in engines if not e.points or e.points[-1][0] < RECALLS[-1] + 0.003]
        recalls, times = {}, {e: {t: [] for t in THREAD_COUNTS} for e in left}
        first = []
        for e in left:
            first.append(e.search(THREADS, query, m, effort, out)["seconds"])
            recalls[e] = data.recall(data.found(out, m, K), truth)
        for _ in range(REPS if min(first, default=1) > 0.05 else 3 * REPS):
            for threads in THREAD_COUNTS:
                for e in left:
                    times[e][threads].append(e.search(threads, query, m, effort)["seconds"])
        for e in left:
            if not e.points or recalls[e] > e.points[-1][0]:
                e.points.append((recalls[e], {t: m / median(times[e][t]) for t in THREAD_COUNTS}))
                print(f"  {e.label:14} effort {effort:4}  recall {recalls[e]:.4f}  " + "  ".join(f"{m / median(times[e][t]):9.0f}/s {said(t)}" for t in THREAD_COUNTS), flush=True)


def engines_for(bench, where, base, n, metric, kept=True):
    made = [Engine(bench, "ours i8", where, base, n, metric, engine="ours", form="i8"), Engine(bench, "ours f32", where, base, n, metric, engine="ours", form="f32")]
    if bench.peers:
        made += [Engine(bench, "hnswlib", where, base, n, metric, kept, engine="hnswlib"), Engine(bench, "faiss", where, base, n, metric, kept, engine="faiss")]
        made.append(Engine(bench, "faiss SQ8", where, base, n, metric, engine="faiss_sq8", graph=made[-1].name))
    if bench.usearch:
        made += [Engine(bench, f"usearch {form}", where, base, n, metric, kept, engine="usearch", form=form) for form in ("f32", "f16")]
    return made


def graphs(bench, title, where, base, n, query, m, metric):
    """Build, sweep and rows of one data set. The engines stay in memory."""
    truth = data.exact(where, base, n, query, m, metric)
    engines = engines_for(bench, where, base, n, metric)
    for e in engines:
        got = e.build(THREADS)
        e.cost = got
        print(f"  {e.label:14} built in {got['seconds']:8.2f} s, {got['bytes'] / n:7.1f} bytes an item{' (by an earlier run)' if got.get('earlier') else ''}", flush=True)
    sweep(engines, query, m, truth)
    i8, f32, peers = engines[0], engines[1], engines[2:]
    for e in (i8, f32):
        for threads in THREAD_COUNTS:
            for recall in RECALLS:
                mine = e.rate(recall, threads)
                for p in peers if e is i8 else [p for p in peers if p.label == "hnswlib"]:
                    theirs = p.rate(recall, threads)
                    name = f"{title}, recall@10 {recall:.2f}, {said(threads)}, {e.label[5:]}"
                    if mine is None:
                        sys.exit(f"{name}: never reached")
                    if theirs is None:
                        bench.add(name, mine, "queries/s", f"{p.label}: recall {p.points[-1][0]:.3f} at most", p.points[-1][1][threads], mine / p.points[-1][1][threads])
                    else:
                        bench.add(name, mine, "queries/s", p.label, theirs, mine / theirs, 1.0 if p.label in ("hnswlib", "faiss") else None)
    for p in peers:
        if p.label == "faiss SQ8":
            continue  # its links were made by the graph over float32
        earlier = " (an earlier run)" if p.cost.get("earlier") else ""
        mine = f32 if p.label != "usearch f16" else i8
        bench.add(f"{title}, build, {said(THREADS)}, i8", i8.cost["seconds"], "s", p.label + earlier, p.cost["seconds"], p.cost["seconds"] / i8.cost["seconds"], 0.91)
        bench.add(f"{title}, memory, {mine.label[5:]}", mine.cost["bytes"] / n, "bytes/item", p.label + earlier, p.cost["bytes"] / n, p.cost["bytes"] / mine.cost["bytes"])
    bench.add(f"{title}, memory, i8 with its f32 vectors", i8.cost["bytes"] / n, "bytes/item")
    print_graphs(title, engines)
    return engines


def print_graphs(title, engines):
    print(f"\n{title}: queries per second at recall@10")
    print(" " * 16 + "".join(f"{r:>12.2f}" for r in RECALLS) + "".join(f"{r:>12.2f}" for r in RECALLS if len(THREAD_COUNTS) > 1) + "     " + ", then ".join(map(said, THREAD_COUNTS)))
    for e in engines:
        print(f"{e.label:16}" + "".join("           –" if e.rate(r, t) is None else f"{e.rate(r, t):12.0f}" for t in THREAD_COUNTS for r in RECALLS))
    print(flush=True)


def part_hnsw(bench):
    base, query = data.generated(max(N, BUILD_N)), data.queries(M)
    builds(bench, base)
    return graphs(bench, f"hnsw, {count(N)} clustered, l2", "mixture", base, N, query, M, "l2")


def builds(bench, base):
    """Build time at a smaller size, where one thread can be afforded; nothing is kept."""
    for threads in THREAD_COUNTS:
        engines = [e for e in engines_for(bench, "build", base, BUILD_N, "l2", kept=False) if e.how["engine"] != "faiss_sq8"]
        took = {}
        for e in engines:
            took[e.label] = e.build(threads)["seconds"]
            e.drop()
            print(f"  {e.label:14} {count(BUILD_N)} built in {took[e.label]:8.2f} s, {said(threads)}", flush=True)
        for label, theirs in took.items():
            if not label.startswith("ours"):
                for mine in ("i8", "f32") if label == "hnswlib" else ("i8",):
                    bench.add(f"hnsw, build of {count(BUILD_N)} clustered, {said(threads)}, {mine}", took["ours " + mine], "s", label, theirs, theirs / took["ours " + mine], 0.91)


def part_gowalla(bench):
    got = data.gowalla(bench.ours.ask, M)
    if got is None:
        print("skipped: no gowalla at EVECTION_DATA or ../shared/data")
        return
    items, query, n = got
    for e in graphs(bench, f"hnsw, Gowalla's {count(n)} iALS factors, dot", "gowalla", items, n, query, M, "dot"):
        e.drop()


def part_flat(bench):
    base, query, k, few = data.generated(N), data.queries(M), 100, 30
    out, theirs_out, ours, peers = data.path("found.u32"), data.path("found-peer.u32"), bench.ours, bench.peers
    for form in ("f32", "i8"):
        ours.use(THREADS)
        ours.ask("build", name="flat-" + form, kind="flat", metric="dot", form=form, base=base, n=N, d=data.DIMS)
    if peers:
        peers.ask("build", name="flat", engine="flat", metric="dot", base=base, n=N, d=data.DIMS)

    def mine(form, threads, **more):
        ours.use(threads)
        return ours.ask("search", name="flat-" + form, q=query, m=M, k=k, **more)["seconds"]

    def single(form, threads):
        ours.use(threads)
        return ours.ask("single", name="flat-" + form, q=query, m=few, k=k)["p50"]

    def theirs(verb, threads, **more):
        peers.use(threads)
        return peers.ask(verb, q=query, d=data.DIMS, **more)

    mine("f32", THREADS, out=out)
    exact = data.found(out, M, k)
    mine("i8", THREADS, out=out)
    bench.add(f"flat, {count(N)}, k = 100, i8 with rescore, recall@100 against f32", data.recall(data.found(out, M, k), exact), "")
    block = 4096
    if peers:
        theirs("search", THREADS, name="flat", m=M, k=k, out=theirs_out)
        agree = data.recall(data.found(theirs_out, M, k), exact)
        if agree < 0.9999:
            sys.exit(f"flat: {agree} of faiss's ids are ours")
        block = min((1024, 4096, 16384), key=lambda b: theirs("sgemm", THREADS, base=base, n=N, m=M, block=b)["seconds"])
    for threads in THREAD_COUNTS:
        things = {"f32": lambda t=threads: mine("f32", t), "i8": lambda t=threads: mine("i8", t)}
        if peers:
            things["sgemm"] = lambda t=threads: theirs("sgemm", t, base=base, n=N, m=M, block=block)["seconds"]
            things["faiss"] = lambda t=threads: theirs("search", t, name="flat", m=M, k=k)["seconds"]
        got = bench.turns(REPS, **things)
        title = f"flat, {count(N)}, k = 100, {M} queries a batch, {said(threads)}"
        if peers:
            bench.add(title + ", f32", got["f32"], "s", f"bare sgemm, {block} rows a block", got["sgemm"], got["sgemm"] / got["f32"], 1 / 1.3)
            bench.add(title + ", f32", got["f32"], "s", "faiss IndexFlatIP", got["faiss"], got["faiss"] / got["f32"], 1.0)
        bench.add(title + ", i8", got["i8"], "s", "ours, f32", got["f32"], got["f32"] / got["i8"], 3.0)
        bytes_ = N * data.DIMS * 4
        things = {"f32": lambda t=threads: single("f32", t), "i8": lambda t=threads: single("i8", t),
                  "read": lambda t=threads: ours.ask("bandwidth", bytes=bytes_, threads=t)["seconds"]}
        if peers:
            things["faiss"] = lambda t=threads: theirs("single", t, name="flat", m=few, k=k)["p50"]
        got = bench.turns(2 * REPS + 1, **things)
        title = f"flat, {count(N)}, k = 100, one query, {said(threads)}"
        bench.add(title + ", f32", bytes_ / got["f32"] / 1e9, "GB/s", "reading and adding up the same bytes", bytes_ / got["read"] / 1e9, got["read"] / got["f32"], 0.8)
        bench.add(title + ", i8", N / got["i8"], "rows/s", "ours, f32", N / got["f32"], got["f32"] / got["i8"], 3.0)
        if peers:
            bench.add(title + ", f32", got["f32"] * 1e3, "ms", "faiss IndexFlatIP", got["faiss"] * 1e3, got["faiss"] / got["f32"])
    ours.ask("bandwidth", bytes=4096, threads=1, free=1)
    for form in ("f32", "i8"):
        ours.ask("drop", name="flat-" + form)
    if peers:
        peers.ask("drop", name="flat")


def part_filter(bench, engines):
    """Ours, with conditions applied during the search; post-filtering of the same index; faiss's selector."""
    base, query = data.generated(N), data.queries(M)
    if not engines:
        engines = [e for e in engines_for(bench, "mixture", base, N, "l2") if e.label in ("ours i8", "faiss")]
        for e in engines:
            e.build(THREADS)
    ours, faiss = engines[0], next((e for e in engines if e.label == "faiss"), None)
    out = data.path("found.u32")

    def at_least(e, allowed, truth):
        """The first effort with recall 0.95, or the best: effort, recall, queries per second in one thread."""
        best = None
        for effort in (32, 64, 128, 256, 512, 1024):
            said_ = e.search(1, query, M, effort, out, allowed=allowed)
            if "error" in said_:
                return None
            got = data.recall(data.found(out, M, K), truth)
            if best is None or got > best[1]:
                best = (effort, got, M / said_["seconds"])
            if got >= 0.95:
                break
        return best[0], best[1], M / median([e.search(1, query, M, best[0], allowed=allowed)["seconds"] for _ in range(REPS)])

    def post(effort, fetch, allowed, truth):
        bench.ours.use(1)
        fetch = min(fetch, N)
        seconds = median([bench.ours.ask("post", name=ours.name, q=query, m=M, k=K, fetch=fetch, ef=max(effort, fetch), allowed=allowed, out=out)["seconds"] for _ in range(REPS)])
        return data.recall(data.found(out, M, K), truth), M / seconds

    for kind in ("random", "far"):
        for share in (0.5, 0.1, 0.01, 0.001):
            allowed, holds = data.condition(kind, share, base, N)
            truth = data.exact(f"{kind}-{share}", base, N, query, M, "l2", allowed=holds)
            effort, recall, rate = at_least(ours, allowed, truth)
            title = f"filter, {count(N)}, {100 * share:g} % {kind}, 1 thread"
            fixed, fixed_rate = post(effort, 10 * K, allowed, truth)
            bench.add(f"{title}, recall@10 at effort {effort}", recall, "", f"post-filtering of {10 * K}", fixed, recall / max(fixed, 1e-3), None)
            if recall < 0.95:
                print(f"  {title}: recall {recall:.3f} at most")
            bench.add(title, rate, "queries/s", f"post-filtering of {10 * K}, recall {fixed:.2f}", fixed_rate, rate / fixed_rate)
            wide = round(2 * K / share)
            if wide <= 2000:
                wide_recall, wide_rate = post(effort, wide, allowed, truth)
                bench.add(title, rate, "queries/s", f"post-filtering of {wide}, recall {wide_recall:.2f}", wide_rate, rate / wide_rate)
            got = faiss and at_least(faiss, allowed, truth)
            if got:
                bench.add(title, rate, "queries/s", f"faiss HNSW with IDSelector, recall {got[1]:.2f}", got[2], rate / got[2])
            print("  " + f"{title}: effort {effort}, recall {recall:.3f}, {rate:.0f}/s; post-filtering {fixed:.3f}" + (f"; faiss {got[1]:.3f}, {got[2]:.0f}/s" if got else ""), flush=True)


def start_items():
    return Program(os.path.join(PROGRAMS, "bench", "index_items"), OPENBLAS_NUM_THREADS="1")


def part_live(bench):
    base, query, folder = data.generated(LIVE_N), data.queries(M), data.path("live-table")
    for batch, threads in ((1, 1), (100, 1), (100, THREADS)):
        shutil.rmtree(folder, ignore_errors=True)
        items = start_items()
        items.use(THREADS)
        items.ask("fill", folder=folder, base=base, n=LIVE_N, d=data.DIMS)
        items.use(threads)
        got = items.ask("live", base=base, n=LIVE_N, d=data.DIMS, q=query, m=M, k=K, batch=batch, seconds=LIVE_SECONDS)
        items.ask("close")
        items.close()
        shutil.rmtree(folder)
        idle, busy = got["idle"], got["writes"]
        title = f"live, {count(LIVE_N)} items, one reader, one writer of {batch} a call with {said(threads)}"
        bench.add(title + ", searches while writing", busy["qps"], "queries/s", "idle", idle["qps"], busy["qps"] / idle["qps"])
        bench.add(title + ", upserts, durable", got["upserts"] / got["write_seconds"], "items/s")
        for p, aim in (("p50", None), ("p99", 0.5)):
            bench.add(f"{title}, {p} of a search while writing", busy[p] * 1e3, "ms", "idle", idle[p] * 1e3, idle[p] / busy[p], aim)
        bench.add(title + ", results that are neither old nor new", 0, f"of {busy['checked']} looked at")


def part_scale(bench):
    query, out, measured = data.queries(M), data.path("found.u32"), []
    base = data.generated(max(SCALE))
    for n in SCALE:
        folder = data.path("scale-table")
        shutil.rmtree(folder, ignore_errors=True)
        truth = data.exact("mixture", base, n, query, M, "l2")
        items = start_items()
        items.use(THREADS)
        filled = items.ask("fill", folder=folder, base=base, n=n, d=data.DIMS)
        points = Engine(bench, "ours i8", "scale", base, n, "l2", engine="ours", form="i8")
        points.program, points.search = items, lambda threads, q, m, effort, found=None, **_: (items.use(threads), items.ask("search", q=q, m=m, k=K, ef=effort, **({"out": found} if found else {})))[1]
        print(f"  {count(n)}: filled in {filled['seconds']:.1f} s, compacted in {filled['compact_seconds']:.1f} s, {filled['bytes'] / n:.0f} bytes an item", flush=True)
        sweep([points], query, M, truth)
        items.ask("close")
        items.close()
        opened = []
        for _ in range(5):
            items = start_items()
            opened.append(items.ask("open", folder=folder)["ms"])
            items.ask("search", q=query, m=1, k=K, out=out)
            items.ask("close")
            items.close()
        shutil.rmtree(folder)
        rate = {t: points.rate(0.95, t) for t in THREAD_COUNTS}
        measured.append((n, n / filled["seconds"], rate[1], median(opened), filled["bytes"] / n))
        title = f"scale, {count(n)} items"
        bench.add(f"{title}, durable inserts of 10000 a call, {said(THREADS)}", n / filled["seconds"], "items/s")
        for t in THREAD_COUNTS:
            bench.add(f"{title}, recall@10 0.95, {said(t)}", rate[t], "queries/s")
        bench.add(f"{title}, opening", median(opened), "ms")
        bench.add(f"{title}, memory", filled["bytes"] / n, "bytes/item")
    titles = (f"Durable inserts a second, {said(THREADS)}", "Queries a second at recall@10 0.95, 1 thread", "Opening, ms", "Memory, bytes an item")
    index_plot.write(os.path.join(ROOT, "docs", "index_scale.svg"), [(t, [(m[0], m[i + 1]) for m in measured]) for i, t in enumerate(titles)])


def main():
    bench, engines = Bench(), []
    for part in PARTS:
        print(f"{part}:", flush=True)
        if part == "flat":
            part_flat(bench)
        elif part == "hnsw":
            engines = part_hnsw(bench)
        elif part == "gowalla":
            part_gowalla(bench)
        elif part == "filter":
            part_filter(bench, engines)
        elif part in ("live", "scale"):
            while engines:
                engines.pop().drop()
            (part_live if part == "live" else part_scale)(bench)
        else:
            sys.exit(f"BENCH_PARTS: no part {part}")
    for program in (bench.ours, bench.peers, bench.usearch):
        if program:
            program.close()
    write("index", bench.rows)


main()
