"""Canaries in the simulated feed, through the service's own code: how often they are wrong, and what it takes until they are right.

Users are sticky: each is in one arm for good. Some like to click and some do not, and their activity has heavy tails; a slate is worth
its clicks, a user the mean of his first five slates within a day of his first. Same: both arms are the champion, 500 runs of 16,000
users over 2.5 days, each watched until its end; a roll-back or a promotion is false. Beside it the same test fed slate by slate, as if slates
were independent. Worse: the challenger shows a random slate now and then, so that its mean user clicks 5 % less a slate (measured
in runs that nobody stops), 500 runs of 50,000 users over 1.6 days; what is wanted is that all are rolled back. All options are the defaults but
settle_ms (10 minutes), window_ms (a day), high (3 clicks) and the share. "Measured" users have entered the test; "seen" ones have
come, many of whom are still in their day. Shares of runs have Clopper-Pearson intervals. "Foretold" is what status says first of
how many users it needs. Costs: calls about users in no order; whoever had a slate gets his place in the caches again. BENCH_RUNS.
"""
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys

from scipy.stats import beta

from support import ROOT, THREADS, row, write

BINARY = os.path.join(os.path.dirname(os.environ.get("EVECTION", os.path.join(ROOT, "build", "evection"))), "bench", "canary")
RUNS = int(os.environ.get("BENCH_RUNS", 500))
CHUNK = 10
PROMOTED, ROLLED_BACK = 1, 2


def call(*args):
    done = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def runs(pool, mode, n, users, days):
    parts = [pool.submit(call, mode, first, min(first + CHUNK - 1, n), users, days) for first in range(1, n + 1, CHUNK)]
    return [r for part in parts for r in part.result()]


def share_row(name, hits, n, allowed=None):
    low = beta.ppf(0.025, hits, n - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1.0
    p = 100 * hits / n
    r = row(name, p, "% of runs", None, None, None) if allowed is None else row(name, p, "% of runs", "allowed", allowed, allowed / max(p, 100 / n))
    return dict(r, low=100 * low, high=100 * high, **({"aim": 1.0} if allowed is not None and not name.startswith("by slates") else {}))


def quantile(values, p):
    return sorted(values)[min(len(values) - 1, int(p * len(values)))]


def plain(name, value, unit):
    return row(name, value, unit, None, None, None)


def main():
    rows = []
    with concurrent.futures.ThreadPoolExecutor(min(2, THREADS)) as pool:
        same = runs(pool, "same", RUNS, 16000, 2.5)
        for share in (0.1, 0.5):
            those = [r for r in same if abs(r["share"] - share) < 1e-9]
            n = len(those)
            rows.append(share_row(f"same, share {share}: rolled back", sum(r["verdict"] == ROLLED_BACK for r in those), n, 5))
            rows.append(share_row(f"same, share {share}: promoted", sum(r["verdict"] == PROMOTED for r in those), n, 5))
            rows.append(share_row(f"same, share {share}: something foretold", sum("predicted" in r for r in those), n))
            rows.append(share_row(f"by slates, share {share}: rolled back", sum(r["naive"] == ROLLED_BACK for r in those), n, 5))
            rows.append(share_row(f"by slates, share {share}: promoted", sum(r["naive"] == PROMOTED for r in those), n, 5))
        unstopped = runs(pool, "truth", max(10, RUNS // 5), 16000, 2.5)
        truth = [100 * (r["outer"]["challenger"] / r["outer"]["champion"] - 1) for r in unstopped]
        error = 1.96 * statistics.stdev(truth) / len(truth) ** 0.5
        rows.append(dict(plain("worse: planted difference", statistics.mean(truth), "% of a slate"), low=statistics.mean(truth) - error, high=statistics.mean(truth) + error))
        rows.append(plain("a user's clicks a slate: mean", statistics.mean(r["mean"] for r in unstopped), "clicks"))
        rows.append(plain("a user's clicks a slate: deviation", statistics.mean(r["deviation"] for r in unstopped), "clicks"))
        for share in (0.1, 0.5):
            those = runs(pool, f"worse{round(100 * share)}", RUNS, 50000, 1.6)
            back = [r for r in those if r["verdict"] == ROLLED_BACK]
            rows.append(share_row(f"worse, share {share}: rolled back", len(back), len(those)))
            rows.append(share_row(f"worse, share {share}: promoted", sum(r["verdict"] == PROMOTED for r in those), len(those), 5))
            # A run that was not rolled back took longer than all that were.
            late = len(those) - len(back)
            for key, what, unit in (("units", "users measured", "users"), ("users", "users seen", "users"), ("sessions", "slates", "slates")):
                values = [r[key] for r in back] + [float("inf")] * late
                for p, word in ((0.5, "median"), (0.9, "90 % of runs")):
                    if quantile(values, p) < float("inf"):
                        rows.append(plain(f"worse, share {share}: {what} until rolled back, {word}", quantile(values, p), unit))
            told = [r["units"] / r["predicted"] for r in back if r.get("predicted")]
            if len(told) >= 10:
                rows.append(plain(f"worse, share {share}: users it took over users foretold, median", quantile(told, 0.5), ""))
                rows.append(plain(f"worse, share {share}: the same, 10 % of runs below", quantile(told, 0.1), ""))
                rows.append(plain(f"worse, share {share}: the same, 10 % of runs above", quantile(told, 0.9), ""))
    for cost in call("cost"):
        what = cost.pop("what")
        rows += [plain(f"{what}: {key.rsplit('_', 1)[0]}", value, key.rsplit("_", 1)[1] if "_" in key else key) for key, value in cost.items()]
    write("canary", rows)


main()
