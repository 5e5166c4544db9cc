"""The service under load, on one machine that the generator shares with it (tests/bench/load.c, one thread, loopback). The composition is
policies/compositions/serve_bench.yaml on Gowalla: 500 candidates of 41 thousand items from an index, ordered by a Lua policy of sixteen
columns, cut to 20 under a cap.

"A core" is a second of processor time of all the service's processes, theirs in the kernel included: requests divided by it are requests
a second a core, whatever else the machine does. Latency under load counts from when a request was due by its schedule, not from when it could be
sent. Swaps are whole: staged, probed, loaded in processes of their own and published, from two compositions in turn; p99 with and
without them is of alternating parts of one run. After a kill the service is asked anew until it answers; a killed supervisor is started
again by the bench, which holds the listening socket, as the system's manager does. Aims are those of the project.

BENCH_PARTS (http,throughput,latency,swaps,flips,freshness,memory,kills) measures only these; the rows of the others stay. BENCH_SWAPS
(1000), BENCH_FLIPS (10000) and BENCH_SECONDS (10) make it shorter. BENCH_HOME keeps the fitted models between runs."""
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

from support import ROOT, evection, median, need, row, write

sys.path.insert(0, os.path.join(ROOT, "tests"))
from serving import LOAD, Service, all_good, lines, load, nothing_lost, until, Load  # noqa: E402

PARTS = ("http", "throughput", "latency", "swaps", "flips", "freshness", "memory", "kills")
BARE = os.path.join(os.path.dirname(LOAD), "serve_bare")
COMPOSITION = "policies/compositions/serve_bench.yaml"
SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
SWAPS = int(os.environ.get("BENCH_SWAPS", "1000"))
FLIPS = int(os.environ.get("BENCH_FLIPS", "10000"))
SLATE = "/recommend/%s?n=20"
CONNECTIONS = 8
COMPARED = 10
MB = 1 << 20
DEADLINE = ("--deadline-ms", "1000")  # a shared machine may be away for a while: what is late is seen in the latencies


def kept():
    path = os.path.join(ROOT, "build", "bench", "serve.json")
    return json.load(open(path, encoding="utf-8")) if os.path.exists(path) else []


def plain(part, name, value, unit, **more):
    return dict(row(name, value, unit, None, None, None), part=part, **more)


def against(part, name, value, unit, peer, peer_value, ratio, **more):
    return dict(row(name, value, unit, peer, peer_value, ratio), part=part, **more)


class World:
    """A home with Gowalla in it, and what to ask for."""

    def __init__(self, home):
        self.home = home
        folder = need("gowalla")
        if not os.path.exists(os.path.join(home, "data", "gowalla.evs")):
            evection(home, "data", "import", "--train", os.path.join(folder, "train.txt"), "--test", os.path.join(folder, "test.txt"), "--as", "gowalla", "--quiet")
        self.users = lines(os.path.join(home, "users"), range(29858))
        self.items = lines(os.path.join(home, "items"), range(40981))
        self.best = None

    def service(self, *more, composition=COMPOSITION):
        return Service(self.home, composition, *DEADLINE, *more, data="gowalla")

    def clean(self):
        """Without what an earlier part had written."""
        for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self.home, name))


def timed(s, seconds=SECONDS, path=SLATE, expect=20, users=None, connections=CONNECTIONS, **more):
    """A run whose slates are all good → its result, CPU seconds of the service a request"""
    before = s.cpu()
    result = all_good(load(s, seconds=seconds, path=path, users=users, connections=connections, expect=expect or None, **more))
    return result, (s.cpu() - before) / (result["slates"] + result["acknowledged"])


def bare():
    p = subprocess.Popen([BARE], stdout=subprocess.PIPE, text=True)
    return p, int(p.stdout.readline())


class Bare:
    """serve_bare, with as much of a Service as a run needs."""

    def __init__(self):
        self.p, self.port = bare()

    def cpu(self):
        with open(f"/proc/{self.p.pid}/stat", encoding="ascii") as f:
            rest = f.read().rsplit(")", 1)[1].split()
        return (int(rest[11]) + int(rest[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.p.kill()
        self.p.wait()


def http_part(w):
    """What an answer costs before anything is recommended, and what handing a request to a worker and back costs."""
    theirs, ours, nothing, alone = [], [], [], {"healthz": [], "slate": []}
    rounds = 3
    with tempfile.TemporaryDirectory(prefix="evection-bench-") as home:  # few items: an agent that has next to nothing to do
        evection(home, "data", "generate", "--users", "100", "--items", "50", "--sessions", "5", "--quiet")
        with Service(home, "agent:popular", "--no-impressions", *DEADLINE) as s:
            b = Bare()
            try:
                for _ in range(rounds):
                    theirs.append(timed(b, SECONDS / 3, "/healthz", 0, any_body=True)[1])
                    ours.append(timed(s, SECONDS / 3, "/healthz", 0, any_body=True)[1])
                    nothing.append(timed(s, SECONDS / 3, "/recommend/%s?n=1", 1, w.users)[1])
                    alone["healthz"].append(timed(s, SECONDS / 5, "/healthz", 0, None, 1, any_body=True)[0]["ms"]["p50"])
                    alone["slate"].append(timed(s, SECONDS / 5, "/recommend/%s?n=1", 1, w.users, 1)[0]["ms"]["p50"])
            finally:
                b.end()
    us = {k: 1e6 * median(v) for k, v in (("bare", theirs), ("empty", ours), ("nothing", nothing))}
    hand_over = 1000 * (median(alone["slate"]) - median(alone["healthz"]))
    return [against("http", "an empty handler (/healthz), processor time a request", us["empty"], "µs", "bare libmicrohttpd", us["bare"], us["bare"] / us["empty"]),
            plain("http", "a slate of one popular item, processor time a request", us["nothing"], "µs"),
            plain("http", "the same, waiting: one request at a time, median", 1000 * median(alone["slate"]), "µs"),
            plain("http", "of which the hand-over to a worker and back, with its work on one item", hand_over, "µs")]


def throughput_part(w):
    rows, found = [], {}
    for name, more in (("slates not logged", ["--no-impressions"]), ("slates logged", [])):
        w.clean()
        with w.service(*more) as s:
            timed(s, 2, users=w.users)
            runs = [timed(s, SECONDS, users=w.users) for _ in range(3)]
            health = [timed(s, 1, "/healthz", 0, any_body=True)[1] for _ in range(3)]
            found[name] = median([cost for _, cost in runs])
            best = median([r["rate"] for r, _ in runs])
            share = 100 * median(health) / found[name]
            rows.append(dict(plain("throughput", f"slates of 20, {name}, a core", 1 / found[name], "requests/s"), aim=4000) if "not" not in name else
                        plain("throughput", f"slates of 20, {name}, a core", 1 / found[name], "requests/s"))
            rows.append(plain("throughput", f"slates of 20, {name}, as fast as the machine and its generator go", best, "requests/s"))
            if "not" in name:
                rows.append(plain("throughput", "of a slate's processor time, the empty handler's share", share, "%"))
            else:
                w.best = best
    return rows


def fastest(w, s):
    """What the machine does today: the closed-loop rate, measured when no part before has."""
    if w.best is None:
        timed(s, 2, users=w.users)
        w.best = timed(s, SECONDS, users=w.users)[0]["rate"]
    return w.best


def latency_part(w):
    rows = []
    w.clean()
    with w.service() as s:
        rate = 0.7 * fastest(w, s)
        for arrivals in ("even", "poisson"):
            runs = [timed(s, SECONDS, users=w.users, rate=rate, arrivals=arrivals, connections=64)[0] for _ in range(3)]
            for q, name in (("p50", "50 %"), ("p99", "99 %"), ("p999", "99.9 %")):
                value = median([r["ms"][q] for r in runs])
                more = {"aim_most": 3} if q == "p99" else {}
                rows.append(plain("latency", f"at 70 % load, {'evenly spaced' if arrivals == 'even' else 'independent'} arrivals, {name} of slates within", value, "ms", **more))
            rows.append(plain("latency", f"at 70 % load, {'evenly spaced' if arrivals == 'even' else 'independent'} arrivals, rate", rate, "requests/s"))
    return rows


class Swapper(threading.Thread):
    """Publishes two compositions in turn, while it is allowed to."""

    def __init__(self, s, sources, most):
        super().__init__(daemon=True)
        self.s, self.sources, self.most, self.n, self.go, self.over, self.wrong = s, sources, most, 0, threading.Event(), False, []
        self.memory, self.marks, self.seconds = {}, (100, 1000, 10000), []
        self.start()

    def run(self):
        while not self.over and self.n < self.most:
            if not self.go.wait(0.05):
                continue
            began = time.monotonic()
            status, d = self.s.publish(self.sources[self.n % 2])
            if status != 200 or d["state"] != "champion":
                self.wrong.append((status, d))
            self.seconds.append(time.monotonic() - began)
            self.n += 1
            if self.n in self.marks:
                self.memory[self.n] = settled(self.s)


def settled(s):
    """Memory of all processes, in bytes, when no version is coming or going."""
    with contextlib.suppress(AssertionError):
        until(lambda: len(s.pids("ev-team")) <= 2, "the end of old versions", 10)
    return sum(s.memory().values())


def two_sources(w):
    with open(os.path.join(ROOT, COMPOSITION), encoding="utf-8") as f:
        text = f.read()
    assert "cap: 15" in text
    sources = []
    for cap in (15, 14):
        path = os.path.join(w.home, f"serve_{cap}.yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text.replace("cap: 15", f"cap: {cap}"))
        sources.append(path)
    return sources[::-1]


def hashes(explained):
    return json.dumps([(n["node"], n["agent_hash"]) for n in explained["nodes"]])


def swaps_part(w):
    w.clean()
    seconds = 2.0  # of a part with swaps, and of one without; after COMPARED runs of ten parts all have swaps
    with w.service() as s:
        rate = 0.7 * fastest(w, s)
        sources = two_sources(w)
        for source in sources:  # fitted, and each once in service
            assert s.publish(source)[0] == 200
        start = settled(s)
        swapper, ratios, p99, failed, asked, degraded, names, mixed, explained = Swapper(s, sources, SWAPS), [], {0: [], 1: []}, 0, 0, 0, set(), 0, 0
        made_by = {}
        while swapper.n < SWAPS:
            run = Load(s, users=w.users, path=SLATE, expect=20, connections=64, rate=rate, seconds=10 * seconds, slices=10)
            for k in range(10):
                (swapper.go.set if k % 2 or len(ratios) >= COMPARED else swapper.go.clear)()
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    d = s.slate(random.randrange(29858), "n=20&explain=1")
                    explained += 1
                    mixed += made_by.setdefault(d["version"], hashes(d["explain"])) != hashes(d["explain"])
                    time.sleep(0.02)
            swapper.go.clear()
            result = run.end()
            failed += result["failed"] + result["unanswered"]
            asked += result["asked"]
            degraded += result["degraded"]
            names |= set(result["versions"])
            if len(ratios) >= COMPARED:
                continue
            for k, part in enumerate(result["slices"]):
                p99[k % 2].append(part["ms"]["p99"])
            ratios.append(median([p["ms"]["p99"] for p in result["slices"][1::2]]) / median([p["ms"]["p99"] for p in result["slices"][0::2]]))
        swapper.join()
        assert not swapper.wrong, swapper.wrong[:3]
        mixed += len(names - set(s.versions()))
        rows = [plain("swaps", f"{swapper.n} swaps at 70 % load: failed of {asked} requests", failed, "requests", aim_most=0),
                plain("swaps", f"{swapper.n} swaps at 70 % load: answers of mixed or unknown versions, of {explained} that were explained", mixed, "answers", aim_most=0),
                plain("swaps", f"{swapper.n} swaps at 70 % load: slates that were not the version's whole work", degraded, "slates"),
                plain("swaps", "from asking for a swap to its being in service, median", 1000 * median(swapper.seconds), "ms"),
                against("swaps", "99 % of slates within, with swaps (ratio: the median of runs)", median(p99[1]), "ms", "without", median(p99[0]), 1 / median(ratios), aim=1 / 1.1),
                plain("swaps", "memory of all processes before any swap", start / MB, "MiB")]
        rows += [plain("swaps", f"memory of all processes after {n} swaps", size / MB, "MiB") for n, size in swapper.memory.items()]
        return rows


def flips_part(w):
    """Ten thousand swaps of a small composition: what a swap leaves behind is seen in what is left after many."""
    w.clean()
    with Service(w.home, "agent:popular", *DEADLINE, "--no-impressions", data="gowalla") as s:
        for name, live in (("a", 1.5), ("b", 2.5)):
            with open(os.path.join(w.home, f"flip_{name}.yaml"), "w", encoding="utf-8") as f:
                f.write(f"nodes:\n  top: {{ agent: popular, knobs: {{ live_weight: {live} }} }}\noutput: top\n")
        sources = [os.path.join(w.home, f"flip_{n}.yaml") for n in "ab"]
        for source in sources:
            assert s.publish(source)[0] == 200
        before, files = settled(s), s.descriptors()
        run = Load(s, users=w.users, path=SLATE, expect=20, connections=4, rate=200, seconds=0)
        swapper = Swapper(s, sources, FLIPS)
        swapper.go.set()
        while swapper.is_alive():
            swapper.join(5)
        result = run.end(stop=True)
        assert not swapper.wrong, swapper.wrong[:3]
        rows = [plain("flips", f"{swapper.n} swaps of a small composition: failed of {result['asked']} requests", result["failed"] + result["unanswered"], "requests", aim_most=0),
                plain("flips", "memory of all processes before them", before / MB, "MiB")]
        rows += [plain("flips", f"memory of all processes after {n} of them", size / MB, "MiB") for n, size in sorted(swapper.memory.items())]
        if swapper.n not in swapper.memory:
            rows.append(plain("flips", f"memory of all processes after {swapper.n} of them", settled(s) / MB, "MiB"))
        now = s.descriptors()
        rows.append(plain("flips", "descriptors of supervisor and front, more than before", sum(now.get(k, 0) - files.get(k, 0) for k in now if k not in ("ev-team", "ev-worker")), "descriptors", aim_most=0))
        return rows


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def freshness_part(w):
    w.clean()
    with w.service() as s:
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=20)

        def talk(method, path, body=None):
            c.request(method, path, body)
            answer = c.getresponse()
            text = answer.read()
            assert answer.status == 200, (answer.status, text[:300])
            return json.loads(text)

        whole, behind, changed = [], [], 0
        for user in random.Random(5).sample(range(29858), 1000):
            before = [i["id"] for i in talk("GET", f"/recommend/{user}?n=20")["items"]]
            body = json.dumps({"user": str(user), "item": before[0], "id": f"fresh-{user}"})
            began = time.monotonic()
            talk("POST", "/events", body)
            acknowledged = time.monotonic()
            while True:
                after = [i["id"] for i in talk("GET", f"/recommend/{user}?n=20")["items"]]
                if before[0] not in after:
                    break
                assert time.monotonic() - began < 5, "the event has no effect"
            end = time.monotonic()
            whole.append(1000 * (end - began))
            behind.append(1000 * (end - acknowledged))
            changed += after[:19] != before[1:]
        return [plain("freshness", "from sending an event to a slate that knows it, median", quantile(whole, .5), "ms"),
                plain("freshness", "from sending an event to a slate that knows it, 99 %", quantile(whole, .99), "ms", aim_most=50),
                plain("freshness", "of which after the event was acknowledged (on disk), 99 %", quantile(behind, .99), "ms"),
                plain("freshness", "users whose other items changed too", changed / 10, "%")]


def memory_part(w):
    """A million events, sent; what they take while the service runs, and when it starts again."""
    w.clean()
    n, rng = int(os.environ.get("BENCH_EVENTS", "1000000")), random.Random(6)
    with w.service() as s:
        timed(s, 2, users=w.users)
        before = sum(s.memory("Pss_Anon").values())
        began = time.monotonic()
        for k in range(0, n, 5000):
            batch = [{"id": f"m{k + i:x}", "user": str(rng.randrange(29858)), "item": str(rng.randrange(40981)), "time": 1700000000000 + k + i} for i in range(5000)]
            status, d = s.ask("POST", "/events", batch, timeout=120)
            assert status == 200 and d["new"] == 5000, (status, d)
        took = time.monotonic() - began
        timed(s, 2, users=w.users, expect=None)
        after = sum(s.memory("Pss_Anon").values())
        told = s.count("evection_live_bytes")
    with w.service() as s:
        began = time.monotonic()
        timed(s, 2, users=w.users, expect=None)
        again = sum(s.memory("Pss_Anon").values())
    w.clean()
    million = n / 1e6
    return [plain("memory", "of all processes, without events (shared memory and mapped files not counted)", before / MB, "MiB"),
            plain("memory", "more, for a million events that came while serving", (after - before) / MB / million, "MiB"),
            plain("memory", "of which the front's histories, by its own count", told / MB / million, "MiB"),
            plain("memory", "more, for a million events, after a restart", (again - before) / MB / million, "MiB"),
            plain("memory", "events taken, 5000 a request, one asker", n / took, "events/s")]


def down_for(s, kill):
    """Seconds from a kill until a new connection is answered with a slate."""
    began = time.monotonic()
    kill()
    while True:
        try:
            if s.ask("GET", "/recommend/1?n=20", timeout=10)[0] == 200:
                return time.monotonic() - began
        except OSError:
            pass
        except http.client.HTTPException:
            pass


def kills_part(w):
    rows, rounds, rng = [], int(os.environ.get("BENCH_KILLS", "10")), random.Random(8)
    for name, word in (("ev-worker", "a worker"), ("ev-scribe", "the ledger's writer"), ("ev-front", "the front"), (None, "the supervisor")):
        w.clean()
        prefix = f"k{len(rows)}x"
        acked = os.path.join(w.home, prefix)
        with w.service() as s:
            rate = 0.4 * fastest(w, s)
            run = Load(s, users=w.users, items=w.items, path=SLATE, connections=32, rate=rate, seconds=0, post_share=0.1, prefix=prefix, acked=acked,
                       retry=name in (None, "ev-front"))
            times = []
            for _ in range(rounds):
                time.sleep(rng.uniform(0.2, 0.6))
                if name is None:
                    def kill():
                        s.p.kill()
                        s.p.wait()
                        s.launch()
                    times.append(down_for(s, kill))
                    s.wait_for_line()
                else:
                    pids = until(lambda: s.pids(name), name)
                    times.append(down_for(s, lambda pid=rng.choice(pids): os.kill(pid, signal.SIGKILL)))
            result = run.end(stop=True)
            takeover = s.count("evection_takeover_ms_max")
        n = nothing_lost(w.home, acked, prefix)
        rows.append(plain("kills", f"kill -9 of {word}, {rounds} times under load: failed of {result['asked']} requests", result["failed"] + result["unanswered"], "requests", aim_most=0))
        rows.append(plain("kills", f"kill -9 of {word}: of {n} acknowledged events lost or doubled", 0, "events", aim_most=0))
        rows.append(plain("kills", f"kill -9 of {word}: until a slate is answered again, the longest", max(times), "s", aim_most=1))
        if name == "ev-worker":
            rows.append(plain("kills", "from a worker's death to the next one's start, the longest", takeover, "ms", aim_most=10))
    return rows


def main():
    wanted = os.environ.get("BENCH_PARTS", ",".join(PARTS)).split(",")
    rows = []
    with contextlib.ExitStack() as stack:
        home = os.environ.get("BENCH_HOME") or stack.enter_context(tempfile.TemporaryDirectory(prefix="evection-bench-"))
        os.makedirs(home, exist_ok=True)
        world = World(home)
        for part in PARTS:
            if part in wanted:
                rows += globals()[part + "_part"](world)
            else:
                rows += [r for r in kept() if r.get("part") == part]
    write("serve", rows)


main()
