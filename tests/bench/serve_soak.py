"""A long run of everything at once: slates, events, swaps by edited files and by name, kills of workers, teams, the writer and (twice)
the front and the supervisor. Asserted at the end: no request failed but those whose connection a kill took (they are asked again), no
acknowledged event lost or doubled, memory and descriptors flat, latency of the last third as that of the first.

SOAK_SECONDS (1800). `make soak-serve`."""
import os
import random
import signal
import statistics
import sys
import tempfile
import time

from support import ROOT, evection

sys.path.insert(0, os.path.join(ROOT, "tests"))
from serving import Load, Service, lines, nothing_lost, replace, until  # noqa: E402

SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
RATE = float(os.environ.get("SOAK_RATE", "400"))
SLICES = 30
MB = 1 << 20
AGENT = """
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "Popular, in edition NUMBER.",
  state = { clicks = "items" },
  fit = function(_, data) return data:item_scores(data:item_counts() * NUMBER) end,
  act = function(model, request, slate, ctx)
    if not ctx.state then return model:recall(request, slate) end
    request:top(model:item_scores():add(ctx.state.clicks:vector(), 1e-6), slate)
  end,
  learn = function(state, events)
    for _, event in ipairs(events) do state.clicks:add(event.item, event.value) end
  end,
}
"""


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def quiet(s):
    """The processes at rest: two versions, everybody there."""
    until(lambda: len(s.pids("ev-team")) <= 2 and s.pids("ev-front") and s.pids("ev-scribe") and len(s.pids("ev-worker")) >= 2, "rest", 30)
    time.sleep(1)


def kill(s, name, rng):
    pids = s.pids(name)
    if pids:
        os.kill(rng.choice(pids), signal.SIGKILL)


def main():
    rng = random.Random(int(os.environ.get("SOAK_SEED", "1")))
    with tempfile.TemporaryDirectory(prefix="evection-soak-") as home:
        evection(home, "data", "generate", "--users", "2000", "--items", "1500", "--sessions", "10", "--quiet")
        mine = os.path.join(home, "mine.lua")
        replace(mine, AGENT.replace("NUMBER", "1"))
        compositions = []
        for n in (100, 101):
            compositions.append(os.path.join(home, f"c{n}.yaml"))
            with open(compositions[-1], "w", encoding="utf-8") as f:
                f.write(f"nodes:\n  mine: {{ agent: mine.lua, n: {n} }}\noutput: mine\n")
        users = lines(os.path.join(home, "users"), [f"u{k}" for k in range(100000)])
        with Service(home, compositions[0], "--deadline-ms", "1000") as s:
            items = lines(os.path.join(home, "items"), [i["id"] for i in s.ask("GET", "/items?n=1000")[1]["items"]])
            quiet(s)
            load = Load(s, users=users, items=items, path="/recommend/%s?n=10", connections=16, rate=RATE, seconds=SECONDS, slices=SLICES, post_share=0.1,
                        prefix="soak", acked=os.path.join(home, "acked"), retry=True, timeout_ms=20000)
            began, samples, swaps, edits, kills = time.monotonic(), [], 0, 0, 0
            front_kills, supervisor_kills = [SECONDS * x for x in (0.4, 0.6)], [SECONDS * x for x in (0.45, 0.55)]
            next_sample = SECONDS / 60
            while (now := time.monotonic() - began) < SECONDS - 5:
                what = rng.random()
                if what < 0.4:
                    status, d = s.publish(rng.choice(compositions))
                    assert status == 200, (status, d)
                    swaps += 1
                elif what < 0.6:
                    edits += 1
                    replace(mine, AGENT.replace("NUMBER", str(1 + edits % 7)))
                elif what < 0.75:
                    kill(s, "ev-worker", rng)
                    kills += 1
                elif what < 0.8:
                    kill(s, rng.choice(("ev-scribe", "ev-team")), rng)
                    kills += 1
                    quiet(s)
                if front_kills and now > front_kills[0]:
                    front_kills.pop(0)
                    kill(s, "ev-front", rng)
                    kills += 1
                    quiet(s)
                if supervisor_kills and now > supervisor_kills[0]:
                    supervisor_kills.pop(0)
                    s.p.kill()
                    s.p.wait()
                    s.start()
                    kills += 1
                if now > next_sample:
                    next_sample += SECONDS / 20
                    quiet(s)
                    memory, files = s.memory("Pss_Anon"), s.descriptors()
                    samples.append((now, memory, files))
                    say(f"{now:.0f} s: {swaps} swaps, {edits} edits, {kills} kills; MiB {({k: round(v / MB, 1) for k, v in memory.items()})}; descriptors {files}")
                time.sleep(rng.uniform(0.1, min(2, SECONDS / 60)))
            result = load.end()
            quiet(s)
            metrics = s.ask("GET", "/metrics")[1]
        n = nothing_lost(home, os.path.join(home, "acked"), "soak")
        third = SLICES // 3
        p99 = [part["ms"]["p99"] for part in result["slices"]]
        p50 = [part["ms"]["p50"] for part in result["slices"]]
        first, last = (statistics.median(p50[:third]), statistics.median(p99[:third])), (statistics.median(p50[-third:]), statistics.median(p99[-third:]))
        say(f"{result['slates']} slates, {n} events, {swaps} swaps, {edits} edits, {kills} kills, {result['retried']} asked again, {result['degraded']} degraded")
        say(f"median {first[0]:.3f} → {last[0]:.3f} ms, 99 % {first[1]:.3f} → {last[1]:.3f} ms, first and last third")
        assert result["failed"] == 0 and result["unanswered"] == 0, (result["failures"], result["first_failure"])
        assert n == result["acknowledged"] > 0
        assert "evection_quarantined_total 0" in metrics, "kills and edits are nobody's fault"
        assert last[1] < 1.5 * first[1] + 1, "latency has grown"
        # The front keeps what users had: that grows with the events, by what it says itself; the rest is flat.
        halves = samples[len(samples) // 2:]
        for name in ("ev-front", "ev-scribe"):
            early = statistics.median([m[name] for _, m, _ in halves[:3]])
            late = statistics.median([m[name] for _, m, _ in halves[-3:]])
            say(f"{name}: {early / MB:.1f} → {late / MB:.1f} MiB over the last half")
            # Histories, by the event; and the ledger's page cache, which fills up to 64 MiB.
            allowed = 6 * MB + (400 * n / 2 if name == "ev-front" else 64 * MB)
            assert late < early + allowed, f"{name} has grown from {early / MB:.1f} to {late / MB:.1f} MiB"
            most = max(f[name] for _, _, f in samples[:3]) + 16  # connections of the generator
            assert samples[-1][2][name] <= most, f"{name} has {samples[-1][2][name]} descriptors, {most} at most at the start"
        supervisors = [(m, f) for _, m, f in samples if "ev-front" in m]
        others = [sum(v for k, v in m.items() if not k.startswith("ev-")) for m, _ in supervisors]
        assert others[-1] < others[len(others) // 2] + 2 * MB, f"the supervisor has grown: {[round(o / MB, 1) for o in others]}"
        assert max(f[k] for _, _, f in samples[-2:] for k in f if not k.startswith("ev-")) <= max(f[k] for _, _, f in samples[:2] for k in f if not k.startswith("ev-")) + 4
        say("flat")


main()
