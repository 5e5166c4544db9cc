"""Sessions a second of the simulated feed on one core, against the 200,000 that it is built for.

A session is all of it: who comes, the slate, looks, clicks and what they change, and the policy's counts. small: 1,000 users, 200
items; plain: 10,000 and 1,000, slates of ten, 8 dimensions; large: 200,000 and 20,000, slates of twenty, 16 dimensions. random and top (the most
clicked, for everybody) cost next to nothing themselves; ranked scores every item for every user, which is the policy's work and not
the feed's. Medians of three. BENCH_SESSIONS.
"""
import os
import subprocess

from support import EVECTION, ROOT, median, row, write


def main():
    sessions = int(os.environ.get("BENCH_SESSIONS", 1000000))
    rows = []
    for name, share in (("small, random", 1), ("small, top", 1), ("plain, random", 1), ("plain, top", 1), ("plain, ranked", 0.1), ("large, random", 0.5)):
        command = [EVECTION, "run", "--threads", "1", os.path.join(ROOT, "tests", "bench", "feed.lua"), name.replace(", ", "_"), str(int(sessions * share))]
        rates = [float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout) for _ in range(3)]
        r = row(name, median(rates), "sessions/s", "built for", 200000, median(rates) / 200000)
        rows.append(dict(r, aim=1.0) if share == 1 else dict(r))
    write("feed", rows)


main()
