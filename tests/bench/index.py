"""Candidate storage side by side with faiss 1.7.3, hnswlib 0.6.2 and usearch: exact and approximate search, filters, writes while searching, growth.

Vectors, queries and exact answers (by NumPy) are made in `tests/bench/index_data.py`, which says what they are; `clustered` is
its mixture in 128 dimensions. Each library runs in a process that stays up, and they take turns: medians over the turns. All
graphs have 16 links (32 on the ground level) and 200 candidates while building. Queries per second at a recall lie between
the two measured points around it (logarithm of the rate, along recall); where the fastest point is better already, it is taken.
Batches: one call with all queries, but for hnswlib, which has none and gets a call a query from as many threads. hnswlib is
compiled for this machine; so are faiss's two distance functions, which Debian's library has without vector instructions
(BENCH_FAISS_AS_PACKAGED=1 leaves them); SQ8 is as packaged, over the links that faiss made of exact distances. usearch is its npm
package: typed arrays in and out of one call, threads of its own; in f16, its faster form (BENCH_USEARCH=f32,f16: both); its i8
scales each vector to length 1, so neither l2 nor inner products survive it, and it is left out. The peers' malloc asks for huge pages, as our regions do (BENCH_SMALL_PAGES=1: not).

`far` conditions hold for the rows furthest along one direction, wherever the query is. Post-filtering searches the same index
without the condition for more, and keeps what passes; hnswlib 0.6.2 and usearch's npm package have no filters. Writes go on while
one reader searches: each result is held against what was written, and one that is neither the old nor the new state ends the run.

BENCH_PARTS (flat,hnsw,gowalla,filter,live,scale; the rows of other parts stay as they were measured before), BENCH_FORMS (i8,f32),
BENCH_PEERS (hnswlib,faiss,faiss_sq8,usearch), BENCH_N (1000000), BENCH_BUILD_N (50000), BENCH_LIVE_N (100000), BENCH_SCALE
(10000,100000,1000000,4000000), BENCH_QUERIES (1000), BENCH_REPS (3), BENCH_LIVE_SECONDS (5), BENCH_THREADS. Data, exact answers
and peers' graphs are kept in build/bench/index: a first run takes about an hour on two cores, a later one about half.
"""
import json
import os
import shutil
import sys
import time

import index_data as data
import index_plot
from index_engines import FORMS, K, RECALLS, REPS, THREAD_COUNTS, Table, engines_for, print_sweep, said, start_ours, start_peers, start_usearch, sweep, tell
from support import ROOT, THREADS, median, row, write

ALL_PARTS = ("flat", "hnsw", "gowalla", "filter", "live", "scale")
PARTS = os.environ.get("BENCH_PARTS", ",".join(ALL_PARTS)).split(",")
N = int(os.environ.get("BENCH_N", "1000000"))
BUILD_N = int(os.environ.get("BENCH_BUILD_N", str(min(N, 50000))))
LIVE_N = int(os.environ.get("BENCH_LIVE_N", str(min(N, 100000))))
SCALE = [int(n) for n in os.environ.get("BENCH_SCALE", "10000,100000,1000000,4000000").split(",")]
M = int(os.environ.get("BENCH_QUERIES", "1000"))
LIVE_SECONDS = int(os.environ.get("BENCH_LIVE_SECONDS", "5"))
D, FLAT_K = data.DIMS, 100


def count(n):
    return f"{n // 1000000}M" if n % 1000000 == 0 else f"{n // 1000}k" if n >= 1000 else str(n)


def turns(reps, things):
    """Each thing done `reps` times, one after the other; the median of what each returns."""
    got = {name: [] for name in things}
    for _ in range(reps):
        for name, thing in things.items():
            got[name].append(thing())
    return {name: median(values) for name, values in got.items()}


class Bench:
    def __init__(self):
        self.ours, self.peers, self.usearch, self.rows, self.part = start_ours("index_ours"), start_peers(), start_usearch(), [], None
        print("instruction set of ours:", self.ours.ask("threads", n=1)["simd"], flush=True)

    def more(self, name, value, unit, peer=None, peer_value=None, aim=None):
        """A row where more is better."""
        self.add(name, value, unit, peer, peer_value, None if peer is None else value / peer_value, aim)

    def less(self, name, value, unit, peer=None, peer_value=None, aim=None):
        self.add(name, value, unit, peer, peer_value, None if peer is None else peer_value / value, aim)

    def add(self, name, value, unit, peer, peer_value, ratio, aim):
        r = dict(row(name, value, unit, peer, peer_value, ratio), part=self.part)
        self.rows.append(r if aim is None else dict(r, aim=aim))


def part_flat(bench):
    base, query, few = data.generated(N), data.queries(M), min(M, 30)
    out, theirs_out, ours, peers = data.path("found.u32"), data.path("found-peer.u32"), bench.ours, bench.peers
    for form in ("f32", "i8"):
        ours.use(THREADS)
        ours.ask("build", name="flat-" + form, kind="flat", metric="dot", form=form, base=base, n=N, d=D)
    if peers:
        peers.ask("build", name="flat", engine="flat", metric="dot", base=base, n=N, d=D)

    def mine(verb, form, threads, m, out=None):
        ours.use(threads)
        return ours.ask(verb, name="flat-" + form, q=query, m=m, k=FLAT_K, out=out)["seconds" if verb == "search" else "p50"]

    def faiss(verb, threads, m, out=None):
        peers.use(threads)
        return peers.ask(verb, name="flat", q=query, m=m, k=FLAT_K, out=out)["seconds" if verb == "search" else "p50"]

    def sgemm(threads, rows):
        peers.use(threads)
        return peers.ask("sgemm", base=base, q=query, n=N, m=M, d=D, block=rows)["seconds"]

    def read(threads):
        return ours.ask("bandwidth", bytes=N * D * 4, threads=threads)["seconds"]

    mine("search", "f32", THREADS, M, out)
    exact = data.found(out, M, FLAT_K)
    mine("search", "i8", THREADS, M, out)
    bench.more(f"flat, {count(N)}, i8 with rescore, recall@{FLAT_K} against f32", data.recall(data.found(out, M, FLAT_K), exact), "")
    if peers:
        faiss("search", THREADS, M, theirs_out)
        agree = data.recall(data.found(theirs_out, M, FLAT_K), exact)
        if agree < 0.9999:
            sys.exit(f"flat: only {agree} of faiss's ids are ours")
        block = min((1024, 4096, 16384), key=lambda rows: sgemm(THREADS, rows))
    for t in THREAD_COUNTS:
        things = {form: lambda form=form: mine("search", form, t, M) for form in ("f32", "i8")}
        if peers:
            things.update(sgemm=lambda: sgemm(t, block), faiss=lambda: faiss("search", t, M))
        got = turns(REPS, things)
        title = f"flat, {count(N)}, k = {FLAT_K}, {M} queries a batch, {said(t)}, "
        if peers:
            bench.less(title + "f32", got["f32"], "s", f"bare sgemm, {block} rows a block", got["sgemm"], 1 / 1.3)
            bench.less(title + "f32", got["f32"], "s", "faiss IndexFlatIP", got["faiss"], 1.0)
        bench.less(title + "i8", got["i8"], "s", "ours, f32", got["f32"], 3.0)
        things = {form: lambda form=form: mine("single", form, t, few) for form in ("f32", "i8")}
        things["read"] = lambda: read(t)
        if peers:
            things["faiss"] = lambda: faiss("single", t, few)
        got = turns(2 * REPS + 1, things)
        title, giga = f"flat, {count(N)}, k = {FLAT_K}, one query, {said(t)}, ", N * D * 4 / 1e9
        bench.more(title + "f32", giga / got["f32"], "GB/s", "reading and adding up the same bytes", giga / got["read"], 0.8)
        bench.more(title + "i8", N / got["i8"], "rows/s", "ours, f32", N / got["f32"], 3.0)
        if peers:
            bench.less(title + "f32", got["f32"] * 1e3, "ms", "faiss IndexFlatIP", got["faiss"] * 1e3)
    ours.ask("bandwidth", bytes=4096, threads=1, free=1)
    for form in ("f32", "i8"):
        ours.ask("drop", name="flat-" + form)
    if peers:
        peers.ask("drop", name="flat")


def builds(bench, base):
    """Build time at a smaller size, where one thread can be afforded; nothing is kept."""
    for threads in THREAD_COUNTS:
        took = {}
        for e in engines_for(bench, "build", base, BUILD_N, "l2", kept=False):
            if e.engine != "faiss_sq8":
                took[e.label] = e.build(threads)["seconds"]
                e.drop()
                tell(f"{e.label:12} {count(BUILD_N)} built in {took[e.label]:8.2f} s, {said(threads)}")
        for label, theirs in took.items():
            for form in () if label.startswith("ours") else FORMS if label == "hnswlib" else FORMS[:1]:
                aim = 0.91 if label in ("hnswlib", "faiss") else None
                bench.less(f"hnsw, build of {count(BUILD_N)} clustered, {said(threads)}, {form}", took["ours " + form], "s", label, theirs, aim)


def graphs(bench, title, where, base, n, query, metric):
    """Build, sweep and rows of one set of vectors. The engines stay in memory."""
    truth = data.exact(where, base, n, query, M, metric)
    engines = engines_for(bench, where, base, n, metric)
    for e in engines:
        e.cost = e.build(THREADS)
        earlier = ", by an earlier run" if e.cost.get("earlier") else ""
        tell(f"{e.label:12} built in {e.cost['seconds']:8.2f} s, {e.cost['bytes'] / n:7.1f} bytes an item{earlier}")
    sweep(engines, query, M, truth)
    mine, peers = engines[:len(FORMS)], engines[len(FORMS):]
    for e in mine:
        for threads in THREAD_COUNTS:
            for recall in RECALLS:
                rate_rows(bench, title, e, [p for p in peers if e is mine[0] or p.label == "hnswlib"], recall, threads)
    for p in peers:
        if p.engine == "faiss_sq8":
            continue  # its links are those of the graph over float32
        peer, aim = p.label + (", an earlier run" if p.cost.get("earlier") else ""), 0.91 if p.label in ("hnswlib", "faiss") else None
        bench.less(f"{title}, build, {said(THREADS)}, {FORMS[0]}", mine[0].cost["seconds"], "s", peer, p.cost["seconds"], aim)
        bench.less(f"{title}, memory, {FORMS[-1]}", mine[-1].cost["bytes"] / n, "bytes/item", peer, p.cost["bytes"] / n)
    for e in mine[:-1]:
        bench.less(f"{title}, memory, {e.label[5:]} with the f32 vectors beside", e.cost["bytes"] / n, "bytes/item")
    print_sweep(title, engines)
    return engines


def rate_rows(bench, title, e, peers, recall, threads):
    name, mine = f"{title}, recall@{K} {recall:.2f}, {said(threads)}, {e.label[5:]}", e.rate(recall, threads)
    if mine is None:
        bench.more(f"{name}: {e.points[-1][0]:.3f} at most", e.points[-1][1][threads], "queries/s")
        return
    if not peers:
        bench.more(name, mine, "queries/s")
    for p in peers:
        theirs = p.rate(recall, threads)
        if theirs is None:
            bench.more(name, mine, "queries/s", f"{p.label}: recall {p.points[-1][0]:.3f} at most", p.points[-1][1][threads])
        else:
            bench.more(name, mine, "queries/s", p.label, theirs, 1.0 if p.label in ("hnswlib", "faiss") else None)


def part_hnsw(bench):
    base = data.generated(max(N, BUILD_N))
    builds(bench, base)
    return graphs(bench, f"hnsw, {count(N)} clustered, l2", "mixture", base, N, data.queries(M), "l2")


def part_gowalla(bench):
    got = data.gowalla(bench.ours.ask, M)
    if got is None:
        print("skipped: no gowalla at EVECTION_DATA or ../shared/data")
        return
    items, query, n = got
    for e in graphs(bench, f"hnsw, Gowalla's {count(n)} iALS factors, dot", "gowalla", items, n, query, "dot"):
        e.drop()


def part_filter(bench, engines):
    """Conditions applied during the search; post-filtering of the same index; faiss's selector. One thread."""
    base, query, out = data.generated(N), data.queries(M), data.path("found.u32")
    if not engines:
        engines += [e for e in engines_for(bench, "mixture", base, N, "l2") if e.label in ("ours i8", "faiss")]
        for e in engines:
            e.build(THREADS)
    ours, faiss = engines[0], next((e for e in engines if e.label == "faiss"), None)

    def reach(e, allowed, truth):
        """The first effort with recall 0.95, or else the best: effort, recall, queries per second. None: not supported."""
        best = (0, -1)
        for effort in (32, 64, 128, 256, 512, 1024):
            if "error" in e.search(1, query, M, effort, out, allowed):
                return None
            best = max(best, (effort, data.recall(data.found(out, M, K), truth)), key=lambda b: b[1])
            if best[1] >= 0.95:
                break
        return *best, M / median([e.search(1, query, M, best[0], None, allowed)["seconds"] for _ in range(REPS)])

    def post(effort, fetch, allowed, truth):
        bench.ours.use(1)
        ask = {"name": ours.name, "q": query, "m": M, "k": K, "fetch": fetch, "ef": max(effort, fetch), "allowed": allowed, "out": out}
        seconds = median([bench.ours.ask("post", **ask)["seconds"] for _ in range(REPS)])
        return data.recall(data.found(out, M, K), truth), M / seconds

    for kind in ("random", "far"):
        for share in (0.5, 0.1, 0.01, 0.001):
            allowed, holds = data.condition(kind, share, base, N)
            truth = data.exact(f"{kind}-{share}", base, N, query, M, "l2", allowed=holds)
            effort, recall, rate = reach(ours, allowed, truth)
            title = f"filter, {count(N)}, {100 * share:g} % {kind}, 1 thread"
            tell(f"{title}: effort {effort}, recall {recall:.3f}, {rate:.0f}/s")
            for fetch in (10 * K, round(2 * K / share)):
                if fetch > min(2000, N):
                    continue
                theirs, their_rate = post(effort, fetch, allowed, truth)
                tell(f"  post-filtering of {fetch}: recall {theirs:.3f}, {their_rate:.0f}/s")
                if fetch == 10 * K:
                    name = f"{title}, recall@{K} at effort {effort}"
                    bench.add(name, recall, "", f"post-filtering of {fetch}", theirs, recall / max(theirs, 0.001), None)
                bench.more(title, rate, "queries/s", f"post-filtering of {fetch}, recall {theirs:.2f}", their_rate)
            got = faiss and reach(faiss, allowed, truth)
            if got:
                tell(f"  faiss, IDSelector: effort {got[0]}, recall {got[1]:.3f}, {got[2]:.0f}/s")
                bench.more(title, rate, "queries/s", f"faiss HNSW with IDSelector, recall {got[1]:.2f}", got[2])


def fill(folder, base, n):
    shutil.rmtree(folder, ignore_errors=True)
    items = start_ours("index_items")
    items.use(THREADS)
    return items, items.ask("fill", folder=folder, base=base, n=n, d=D)


def part_live(bench):
    base, query, folder = data.generated(LIVE_N), data.queries(M), data.path("live-table")
    for batch, threads in ((1, 1), (100, 1), (100, THREADS)):
        items, _ = fill(folder, base, LIVE_N)
        items.use(threads)
        got = items.ask("live", base=base, n=LIVE_N, d=D, q=query, m=M, k=K, batch=batch, seconds=LIVE_SECONDS)
        items.ask("close")
        items.close()
        shutil.rmtree(folder)
        idle, busy, title = got["idle"], got["writes"], f"live, {count(LIVE_N)} items, one reader, a writer of {batch} a call ({said(threads)})"
        bench.more(title + ", searches while writing", busy["qps"], "queries/s", "idle", idle["qps"])
        bench.more(title + ", durable upserts", got["upserts"] / got["write_seconds"], "items/s")
        for p, aim in (("p50", None), ("p99", 0.5)):
            bench.less(f"{title}, {p} of a search while writing", busy[p] * 1e3, "ms", "idle", idle[p] * 1e3, aim)
        bench.less(f"{title}, results that are neither old nor new", 0, f"of {busy['checked']} looked at")
        tell(title, str(got))


def part_scale(bench):
    base, query, folder, measured = data.generated(max(SCALE)), data.queries(M), data.path("scale-table"), []
    for n in SCALE:
        truth = data.exact("mixture", base, n, query, M, "l2")
        items, filled = fill(folder, base, n)
        bytes_ = filled["bytes"] / n
        tell(f"{count(n)}: filled in {filled['seconds']:.1f} s, compacted in {filled['compact_seconds']:.1f} s, {bytes_:.0f} bytes an item")
        table = Table(items)
        sweep([table], query, M, truth)
        items.ask("close")
        items.close()
        opened = []
        for _ in range(5):
            items = start_ours("index_items")
            opened.append(items.ask("open", folder=folder)["ms"])
            items.ask("search", q=query, m=1, k=K)
            items.ask("close")
            items.close()
        shutil.rmtree(folder)
        title, rates = f"scale, {count(n)} items", {t: table.rate(0.95, t) for t in THREAD_COUNTS}
        bench.more(f"{title}, durable inserts of 10000 a call, {said(THREADS)}", n / filled["seconds"], "items/s")
        if None in rates.values():
            sys.exit(f"{title}: recall 0.95 never reached")
        for t in THREAD_COUNTS:
            bench.more(f"{title}, recall@{K} 0.95, {said(t)}", rates[t], "queries/s")
        measured.append((n, n / filled["seconds"], rates[1], median(opened), bytes_))
        bench.less(f"{title}, opening", median(opened), "ms")
        bench.less(f"{title}, memory", bytes_, "bytes/item")
    titles = (f"Durable inserts a second, {said(THREADS)}", f"Queries a second at recall@{K} 0.95, 1 thread", "Opening, ms", "Memory, bytes an item")
    index_plot.write(os.path.join(ROOT, "docs", "index_scale.svg"), [(t, [(m[0], m[i + 1]) for m in measured]) for i, t in enumerate(titles)])


def keep(bench, part):
    """What a part measured takes the place of what it did before; the rows of other parts stay."""
    path = os.path.join(ROOT, "build", "bench", "index.json")
    before = json.load(open(path, encoding="utf-8")) if os.path.exists(path) else []
    rows = [r for r in before if r.get("part") != part] + [r for r in bench.rows if r["part"] == part]
    if rows:
        write("index", sorted(rows, key=lambda r: ALL_PARTS.index(r["part"])))


def main():
    start, bench, engines = time.monotonic(), Bench(), []
    for part in PARTS:
        bench.part = part
        print(f"{part}, {time.monotonic() - start:.0f} s after the start:", flush=True)
        if part == "hnsw":
            engines += part_hnsw(bench)
        elif part == "filter":
            part_filter(bench, engines)
        elif part in ("live", "scale"):
            while engines:
                engines.pop().drop()
            (part_live if part == "live" else part_scale)(bench)
        elif part in ("flat", "gowalla"):
            (part_flat if part == "flat" else part_gowalla)(bench)
        else:
            sys.exit(f"BENCH_PARTS: no part {part}")
        keep(bench, part)
    for program in (bench.ours, bench.peers, bench.usearch):
        if program:
            program.close()


main()
