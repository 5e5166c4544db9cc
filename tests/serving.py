"""What the tests and benchmarks of the service share: it is started as systemd would (the listening socket is ours, so that
connections queue while it is down), looked at from outside (/proc), loaded by build/bench/load, and killed."""
import glob
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EVECTION = os.path.abspath(os.environ.get("EVECTION", os.path.join(ROOT, "build", "evection")))
LOAD = os.path.join(os.path.dirname(EVECTION), "bench", "load")
TICK = os.sysconf("SC_CLK_TCK")

# bash (dash knows no descriptor above 9) takes the number of the process before it becomes the service: LISTEN_PID must be its own.
HAND_OVER = 'fd=$1; shift; [ "$fd" = 3 ] || exec 3<&"$fd"; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'


def until(test, what, seconds=10, pause=0.01):
    end = time.monotonic() + seconds
    while True:
        result = test()
        if result:
            return result
        assert time.monotonic() < end, f"waited in vain for {what() if callable(what) else what}"
        time.sleep(pause)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def process(pid):
    """→ name, parent, CPU seconds (with those of children that are gone), or None"""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            text = f.read()
    except OSError:
        return None
    rest = text[text.rindex(")") + 2:].split()
    return text[text.index("(") + 1:text.rindex(")")], int(rest[1]), sum(int(x) for x in rest[11:15]) / TICK, rest[0]


class Service:
    """`evection serve` and all its processes; listens on a socket of ours unless `own_port`."""

    def __init__(self, home, composition, *more, data="world", own_port=False, environment=None):
        self.home, self.composition, self.more, self.data = home, composition, list(more), data
        self.environment = dict(os.environ, EVECTION_HOME=home, OPENBLAS_NUM_THREADS="1", **(environment or {}))
        self.listener = None
        self.p = None
        self.log_path = os.path.join(home, "service.log")
        self.port = 0
        if not own_port:
            self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", 0))
            self.listener.listen(1024)
            self.port = self.listener.getsockname()[1]

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        try:
            self.stop(check=kind is None)
        finally:
            if self.listener is not None:
                self.listener.close()

    def launch(self):
        """Starts it and does not wait."""
        command = [EVECTION, "serve", self.composition, "--data", self.data, "--port", "0", *self.more]
        with open(self.log_path, "a", encoding="utf-8") as log:
            if self.listener is None:
                self.p = subprocess.Popen(command, env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
            else:
                fd = self.listener.fileno()
                self.p = subprocess.Popen(["/bin/bash", "-c", HAND_OVER, "bash", str(fd), *command], env=self.environment, cwd=ROOT, pass_fds=(fd,),
                                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        return self

    def wait_for_line(self):
        first = self.p.stdout.readline()
        assert first.startswith("serving "), (first, self.said()[-3000:])
        if self.listener is None:
            self.port = int(first.strip().rsplit(":", 1)[1])
        threading.Thread(target=self.p.stdout.read, daemon=True).start()
        return self

    def start(self):
        return self.launch().wait_for_line()

    def stop(self, check=True):
        if self.p is None or self.p.poll() is not None:
            return
        pids = [pid for pid, *_ in self.tree()]
        self.p.send_signal(signal.SIGTERM)
        try:
            code = self.p.wait(20)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
            code = "none within twenty seconds"
        if check:
            assert code == 0, f"SIGTERM: exit code {code}\n{self.said()[-3000:]}"
            until(lambda: not any(process(pid) and process(pid)[3] != "Z" for pid in pids), "the end of all its processes", 5)

    def said(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    # ---- Its processes --------------------------------------------------------------------------------------
    def tree(self):
        """→ [(pid, name, CPU seconds)] of the supervisor and all below it"""
        known = {int(os.path.basename(d)): process(os.path.basename(d)) for d in glob.glob("/proc/[0-9]*")}
        found, new = [], [self.p.pid]
        while new:
            found += new
            new = [pid for pid, p in known.items() if p and p[1] in new and pid not in found]
        return [(pid, known[pid][0], known[pid][2]) for pid in found if known.get(pid) and known[pid][3] != "Z"]

    def pids(self, name):
        return [pid for pid, comm, _ in self.tree() if comm == name]

    def cpu(self):
        return sum(seconds for *_, seconds in self.tree())

    def memory(self, kind="Pss"):
        """→ bytes of memory by process name; pages that several share count in parts. "Pss_Anon": without the shared memory between the
        processes, which has a size of its own and is touched bit by bit"""
        sizes = {}
        for pid, name, _ in self.tree():
            try:
                with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
                    kb = next(int(line.split()[1]) for line in f if line.startswith(kind + ":"))
            except (OSError, StopIteration):
                continue
            sizes[name] = sizes.get(name, 0) + kb * 1024
        return sizes

    def descriptors(self):
        """→ the most that a process of each name has open"""
        most = {}
        for pid, name, _ in self.tree():
            try:
                most[name] = max(most.get(name, 0), len(os.listdir(f"/proc/{pid}/fd")))
            except OSError:
                continue
        return most

    # ---- Asking ---------------------------------------------------------------------------------------------
    def talk(self, connection, method, path, body, headers):
        try:
            connection.request(method, path, json.dumps(body) if isinstance(body, (dict, list)) else body, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            kind = (answer.getheader("Content-Type") or "").split(";")[0]
            return answer.status, json.loads(text) if kind == "application/json" and text else text.decode(errors="replace")
        finally:
            connection.close()

    def ask(self, method, path, body=None, headers=None, timeout=20):
        """→ status, document"""
        return self.talk(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout), method, path, body, headers)

    def admin(self, method, path, body=None, timeout=120):
        """The same over the Unix socket."""
        return self.talk(UnixConnection(os.path.join(self.home, "control.sock"), timeout), method, path, body, None)

    def count(self, name):
        """A sample of /metrics by its name, with labels as they are printed."""
        text = self.ask("GET", "/metrics")[1]
        return next(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.rsplit(" ", 1)[0] == name)

    def version(self):
        return self.ask("GET", "/version")[1]

    def versions(self):
        """→ {version: state}"""
        status, document = self.admin("GET", "/versions")
        assert status == 200, (status, document)
        return {v["version"]: v["state"] for v in document["versions"]}

    def publish(self, source, then="publish", **more):
        return self.admin("POST", "/versions", dict(source=source, then=then, **more))

    def slate(self, user, query="n=10"):
        status, document = self.ask("GET", f"/recommend/{user}?{query}")
        assert status == 200, (status, document)
        return document


def first():
    """In the generator: it goes before those it measures, where that is allowed, so that its own waits are not counted as theirs."""
    try:
        os.nice(-10)
    except OSError:
        pass


class Load:
    """build/bench/load in the background."""

    def __init__(self, service, **options):
        self.command = [LOAD, "--url", f"127.0.0.1:{service.port}"]
        for name, value in options.items():
            if value is True:
                self.command.append("--" + name.replace("_", "-"))
            elif value is not None and value is not False:
                self.command += ["--" + name.replace("_", "-"), str(value)]
        self.p = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=first)

    def end(self, stop=False, timeout=3600):
        """→ what it says"""
        if stop:
            self.p.send_signal(signal.SIGTERM)
        out, err = self.p.communicate(timeout=timeout)
        assert self.p.returncode == 0, (self.command, err)
        return json.loads(out)


def load(service, **options):
    return Load(service, **options).end()


def all_good(result, least=1):
    """Nothing failed, nothing is missing."""
    assert result["failed"] == 0 and result["unanswered"] == 0, (result["failures"], result["statuses"], result["first_failure"], result["unanswered"])
    assert result["slates"] + result["acknowledged"] >= least, (result["slates"], result["acknowledged"])
    return result


def lines(path, values):
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(f"{v}\n" for v in values)
    return path


def replace(path, text):
    """As most editors and tools do: written beside, then renamed over."""
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(path + ".new", path)


def event_ids(home, prefix):
    """Of the ledger: id → how many rows, for ids that begin so."""
    counts = {}
    with sqlite3.connect(f"file:{home}/ledger.db?mode=ro", uri=True, timeout=20) as db:
        for (i,) in db.execute("SELECT id FROM events WHERE id >= ? AND id < ?", (prefix + "-", prefix + ".")):
            counts[i] = counts.get(i, 0) + 1
    return counts


def acknowledged(path, prefix):
    with open(path, encoding="ascii") as f:
        return [f"{prefix}-{line.strip()}" for line in f]


def nothing_lost(home, path, prefix):
    """Each acknowledged event is in the ledger, once. → how many there are"""
    rows, acked = event_ids(home, prefix), acknowledged(path, prefix)
    lost = [i for i in acked if i not in rows]
    double = [i for i, n in rows.items() if n != 1]
    assert len(set(acked)) == len(acked), "an event was acknowledged twice to one asker"
    assert not lost and not double, f"{len(lost)} of {len(acked)} acknowledged events lost, {len(double)} doubled: {lost[:5]} {double[:5]}"
    return len(acked)
