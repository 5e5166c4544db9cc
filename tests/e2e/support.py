"""What the whole-program tests share: the binary, a home of their own, a count of what passed."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EVECTION = os.path.abspath(os.environ.get("EVECTION", os.path.join(ROOT, "build", "evection")))
DATA = os.environ.get("EVECTION_DATA", os.path.join(ROOT, "..", "shared", "data"))


class Home:
    """A folder that is $EVECTION_HOME, removed at the end."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="evection-e2e-")
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def file(self, name, text):
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def run(self, *args, code=0, timeout=300, cwd=ROOT):
        done = subprocess.run([EVECTION, *args], capture_output=True, text=True, timeout=timeout, cwd=cwd,
                              env=dict(os.environ, EVECTION_HOME=self.path), stdin=subprocess.DEVNULL)
        if code is not None and done.returncode != code:
            raise AssertionError(f"{' '.join(args)}: exit code {done.returncode}, {code} expected\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done

    def json(self, *args, **kw):
        return json.loads(self.run(*args, "--json", "--quiet", **kw).stdout)


def main(namespace):
    """Runs every function called test_… and closes with the count."""
    passed = failed = 0
    for name, test in list(namespace.items()):
        if not name.startswith("test_") or not callable(test):
            continue
        try:
            skipped = test()
            if isinstance(skipped, str) and skipped.startswith("skipped"):
                print(f"skipped: {name}: {skipped[9:] or 'no data at EVECTION_DATA or ../shared/data'}")
                continue
            passed += 1
        except Exception:
            failed += 1
            print(f"not ok: {name}")
            traceback.print_exc(file=sys.stdout)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
