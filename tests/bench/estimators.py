"""How often intervals hold the truth, how far estimates are off, how often a canary is wrong: in a simulated feed, where the truth is known.

Shares are of 1,000 replications, with their 95 % Monte-Carlo interval (Wilson). Off-policy estimates: 500 users, 20 items, softmax
policies of the same noisy scores, the evaluated one far sharper than the logged one; the reward model is a logistic regression on that score, fitted on
the log itself. "At all times" is at every one of the events at once; "normal" is the textbook interval of a fixed number of events,
looked at from the 100th on. A/A: two arms with the same slates, a canary and the textbook test of two proportions (one-sided, 5 %)
looked at after every event; A/B: the challenger shows items of more appeal. BENCH_REPLICATIONS.
"""
import json
import os
import subprocess

import estimators_plot
from support import EVECTION, ROOT, row, write

R = int(os.environ.get("BENCH_REPLICATIONS", 1000))
Z = 1.959964


def study(*args):
    command = [EVECTION, "run", "--quiet", os.path.join(ROOT, "tests", "bench", "estimators.lua"), *map(str, args)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


def share(name, k, n, nominal, what="nominal"):
    p, z = k / n, Z * Z / n
    middle, half = (p + z / 2) / (1 + z), Z * (p * (1 - p) / n + z / 4 / n) ** 0.5 / (1 + z)
    return dict(row(name, p, "", what, nominal, p / nominal), low=middle - half, high=middle + half)


def covered(n):
    held = study("intervals", 1, R, n, 1000)["held"]
    order = sorted(held, key=lambda name: (name.split(", ")[1], name))
    return [dict(share(f"{name}, {n} events, mean width {held[name]['width']:.3f}", held[name]["n"], R, 0.95)) for name in order]


def errors():
    lines, rows = {}, []
    for n, times in ((100, 400), (300, 400), (1000, 400), (3000, 200), (10000, 100), (30000, 40)):
        times = max(10, times * R // 1000)
        result = study("errors", 1, times, n)
        for name, e in result["errors"].items():
            lines.setdefault(name, []).append((n, e["squares"] ** 0.5 / result["truth"]))
            if n in (1000, 30000):
                rows.append(row(f"{name}, {n} events, {times} times", e["squares"] ** 0.5 / result["truth"], "relative error (root mean square)", None, None, None))
    estimators_plot.write(os.path.join(ROOT, "docs", "estimators_error.svg"), "Off-policy estimates: error against sample size", "events", "root mean square error / value", lines)
    return sorted(rows, key=lambda r: int(r["name"].split(", ")[1].split()[0]))


def curve(when, n, times):
    """Share of the replications that had decided by each of 60 numbers of events."""
    points = [round(100 * (n / 100) ** (i / 59)) for i in range(60)]
    return [(at, sum(w <= at for w in when) / times) for at in points]


def canaries():
    rows, n = [], 5000
    for part in (0.5, 0.1):
        r = study("aa", 1, R, n, part, 0)
        title = f"A/A, {part:.0%} to the challenger, {n} events: "
        rows += [share(title + "promoted", r["promoted"], R, 0.05, "at most"), share(title + "rolled back", r["rolled_back"], R, 0.05, "at most"),
                 share(title + "interval of the difference held at all times", R - r["missed"], R, 0.95),
                 share(title + "promoted by the textbook test looked at", r["naive"], R, 0.05)]
        if part == 0.5:
            lines = {"textbook test": curve(r["naive_when"], n, R), "canary": curve(r["when"], n, R)}
            estimators_plot.write(os.path.join(ROOT, "docs", "estimators_peeking.svg"), "A/A: promoted although nothing is better, looked at after every event", "events",
                                  "share promoted so far", lines, log_y=False, marks=[(0.05, "5 %")])
    r = study("aa", 2, max(10, R // 5), 20000, 0.5, 0.15)
    rows.append(share(f"A/B, 50% to the challenger, 20000 events: promoted (after {r['mean_events']:.0f} in the mean)", r["promoted"], max(10, R // 5), 1, "wanted"))
    return rows


def at_all_times():
    n = 10000
    held = study("sequences", 1, R, n)["held"]
    return [share(f"{name}, at all of {n} events, mean width {held[name]['width']:.4f} at the end", held[name]["n"], R, 0.95) for name in sorted(held)]


def main():
    write("estimators", at_all_times() + canaries() + covered(1000) + errors())


main()
