"""`scripts/demo.sh` tells the whole story on a world of its own, and leaves no server behind."""
import os
import re
import subprocess

from support import EVECTION, ROOT, Home, main


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def test_the_demo_goes_from_data_to_a_slate():
    with Home() as home:
        os.makedirs(os.path.join(home.path, "checkout"))
        for name in ("scripts", "agents", "policies", "lua"):
            os.symlink(os.path.join(ROOT, name), os.path.join(home.path, "checkout", name))
        script = os.path.join(home.path, "checkout", "scripts", "demo.sh")
        environment = dict(os.environ, EVECTION=EVECTION, EVECTION_HOME=os.path.join(home.path, "var"), EVECTION_DATA=os.path.join(home.path, "none"))
        done = subprocess.run(["sh", script], capture_output=True, text=True, timeout=600, env=environment, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        for part in ("feature columns", "ndcg", "96 evaluations, 0 failed", "sealed test fold", "champion − given", "paired bootstrap", "place  item"):
            assert part in done.stdout, part
        low, high = map(float, re.search(r"\[([-+.\d]+), ([-+.\d]+)\] at 95 %", done.stdout).groups())
        assert low <= high
        assert len(re.findall(r"^ +\d+  i\d+ ", done.stdout, re.M)) == 10, "a slate of the pipeline, and one of the champion"
        assert re.search(r"^(\w{12}) is live, \w{12} was", done.stdout, re.M), "rolled back"
        assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and home.path in command_line(pid)], "the server is still there"


main(globals())
