#!/usr/bin/env python3
"""Runs the test programs named on the command line and closes with one line: N passed, N failed.

Understands cmocka's, busted's and the project's own closing lines. A program that ends badly without a count of
failures counts as one failure; so does one that ran nothing.
"""
import os
import re
import subprocess
import sys
import time


def counts(text):
    passed = failed = 0
    for kind, n in re.findall(r"\[  (PASSED|FAILED)  \] [^\n]*?(\d+) test", text):
        if kind == "PASSED":
            passed += int(n)
        else:
            failed += int(n)
    for ok, bad, err in re.findall(r"(\d+) success(?:es)? / (\d+) failures? / (\d+) errors?", text):
        passed += int(ok)
        failed += int(bad) + int(err)
    for ok, bad in re.findall(r"^(\d+) passed, (\d+) failed", text, re.M):
        passed += int(ok)
        failed += int(bad)
    return passed, failed


def command(path):
    if path.endswith(".py"):
        return [sys.executable, path]
    if path.endswith(".lua"):
        return [os.environ.get("EVECTION", "build/evection"), "run", path]
    return [path]


def main():
    total_passed = total_failed = 0
    environment = dict(os.environ, OPENBLAS_NUM_THREADS="1")
    for path in sys.argv[1:]:
        start = time.monotonic()
        done = subprocess.run(command(path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment,
                              stdin=subprocess.DEVNULL)
        passed, failed = counts(done.stdout)
        if (done.returncode != 0 and failed == 0) or passed + failed == 0:
            failed += 1
        total_passed += passed
        total_failed += failed
        print(f"{'FAIL' if failed else 'ok  '} {path}: {passed} passed, {failed} failed ({time.monotonic() - start:.1f} s)", flush=True)
        for line in done.stdout.splitlines():
            if failed or line.startswith("skipped"):
                print("     " + line)
    print(f"{total_passed} passed, {total_failed} failed")
    return 1 if total_failed or not total_passed else 0


if __name__ == "__main__":
    sys.exit(main())
