"""A policy in Lua against its twin in plain C: 500 candidates, 16 columns, the same numbers (the sums of both are compared).

The policy is `agents/rank/linear_policy.lua` as it serves: eleven columns of the items are looked up, five are worked out of the
request, and all are weighed. The twin (`tests/bench/policy.c`) does that by loops over arrays, compiled for this very processor,
from the same model file. Beside it the weighing alone, of columns that are there: by one call (`slate:weigh`), and column by column
(`slate.score:add(slate.popular, w)`). CPU time of one thread; the least of five runs.
"""
import json
import os
import subprocess
import tempfile

from support import ROOT, evection, row, write


def main():
    twin = os.path.join(ROOT, os.environ.get("BENCH_TWIN", "build/bench/policy_twin"))
    with tempfile.TemporaryDirectory() as home:
        evection(home, "data", "generate", "--users", "4000", "--items", "40000", "--sessions", "12", "--as", "policy", "--quiet")
        lua, plain = {}, {}
        for _ in range(2):  # in turn; the better of each
            for said, kept in ((evection(home, "run", "--threads", "1", os.path.join(ROOT, "tests", "bench", "policy.lua"), home), lua),
                               (subprocess.run([twin, home], check=True, capture_output=True, text=True).stdout, plain)):
                for name, value in json.loads(said).items():
                    kept[name] = value if name == "checksum" else min(value, kept.get(name, value))
    assert abs(lua["checksum"] - plain["checksum"]) < 1e-4 * abs(plain["checksum"]), ("the twin scores otherwise", lua, plain)
    rows = [dict(row("policy, 500 × 16, from candidates to scores", lua["whole"], "µs", "plain C", plain["whole"], plain["whole"] / lua["whole"]), aim=1 / 1.5),
            row("weighing alone, slate:weigh", lua["weigh"], "µs", "plain C", plain["weigh"], plain["weigh"] / lua["weigh"]),
            row("weighing alone, column by column", lua["columns"], "µs", "plain C", plain["weigh"], plain["weigh"] / lua["columns"])]
    write("policy", rows)


main()
