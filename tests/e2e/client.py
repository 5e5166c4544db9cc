"""The verbs that ask a running service: what they send, what they print, how they fail. The service stands in here, on a Unix socket and on TCP."""
import json
import os
import pty
import select
import signal
import socketserver
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler

from support import EVECTION, ROOT, Home, main

V, W = "3f2a9c81d04e" + "0" * 52, "77aa00bb11cc" + "1" * 52


class Handler(BaseHTTPRequestHandler):
    def handle_it(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        s = self.server
        s.seen.append((self.command, self.path, json.loads(body) if body else None, dict(self.headers)))
        time.sleep(s.wait)
        code, answer = s.answer
        if self.path == "/version" and s.before:
            code, answer = 200, {"version": s.before}
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        try:
            self.wfile.write(text)
        except BrokenPipeError:
            pass  # it was interrupted

    do_GET = do_POST = handle_it

    def log_message(self, *_):
        pass

    def address_string(self):
        return "client"


class Service:
    """Answers every request with `answer`, on the home's socket or (tcp) on a port."""

    def __init__(self, home, tcp=False):
        if tcp:
            self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
            self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        else:
            self.server = socketserver.ThreadingUnixStreamServer(os.path.join(home.path, "control.sock"), Handler)
        self.server.daemon_threads = True
        self.server.seen, self.server.answer, self.server.wait, self.server.before = [], (200, {}), 0, None

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def says(self, code, answer, wait=0):
        self.server.answer, self.server.wait = (code, answer), wait

    def last(self):
        return self.server.seen[-1][:3]


def test_each_verb_asks_for_what_it_is_told():
    with Home() as home, Service(home) as s:
        path = home.file("c.yaml", "x")
        for args, expected in (
            (["versions"], ("GET", "/versions", None)),
            (["promote", V], ("POST", f"/versions/{V}/promote", None)),
            (["rollback"], ("POST", "/rollback", None)),
            (["rollback", "3f2a"], ("POST", "/rollback", {"version": "3f2a"})),
            (["canary", "status"], ("GET", "/canary", None)),
            (["canary", "stop"], ("POST", "/canary/stop", None)),
            (["canary", "start", "3f2a"], ("POST", "/versions/3f2a/canary", {"share": 0.1})),
            (["canary", "start", "3f2a", "--share", "0.25", "--harm", "0.01", "--slates-per-user", "3", "--settle-s", "0.5", "--late-ms", "40", "--manual"],
             ("POST", "/versions/3f2a/canary", {"share": 0.25, "options": {"harm": 0.01, "slates_per_user": 3, "settle_s": 0.5, "late_ms": 40, "automatic": False}})),
            (["stage", "agent:ease"], ("POST", "/versions", {"source": "agent:ease", "then": "nothing"})),
            (["stage", path, "--then", "publish", "--drop-state", "--no-gate"],
             ("POST", "/versions", {"source": os.path.realpath(path), "then": "publish", "drop_state": True, "gate": False})),
            (["stage", path, "--then", "canary", "--gate-metric", "ndcg@20", "--gate-probes", "8", "--margin", "0.5"],
             ("POST", "/versions", {"source": os.path.realpath(path), "then": "canary", "share": 0.1, "options": {"margin": 0.5}, "gate": {"metric": "ndcg@20", "probes": 8}})),
        ):
            home.run(*args)
            assert s.last() == expected, (args, s.last(), expected)
        home.run("stage", "c.yaml", cwd=home.path)  # the service has a folder of its own
        assert s.last()[2]["source"] == os.path.realpath(path)


def test_what_is_answered_is_printed_for_people_and_for_machines():
    with Home() as home, Service(home) as s:
        versions = {"versions": [{"version": V, "state": "live", "since_ms": 1700000000000, "source": "/a/c.yaml", "parent": W, "reward": {"impressions": 12345678, "events": 17, "value": 0.25}},
                                 {"version": W, "state": "reserve", "made_ms": 1600000000000, "source": "agent:ease"}]}
        s.says(200, versions)
        lines = home.run("versions").stdout.splitlines()
        assert lines[0].split() == ["version", "state", "since", "parent", "slates", "events", "reward", "source"]
        assert lines[1].startswith(V[:12]) and "live" in lines[1] and W[:12] in lines[1] and "0.25" in lines[1] and lines[1].endswith("/a/c.yaml"), lines
        assert lines[1].split()[5:8] == ["12345678", "17", "0.25"] and lines[2].split()[-4:-1] == ["-", "-", "-"], lines
        assert lines[2].startswith(W[:12]) and lines[2].endswith("agent:ease") and "2020-09-1" in lines[2], lines
        assert home.json("versions") == versions
        s.says(200, {"version": V})
        assert home.run("rollback").stdout.startswith(f"{V[:12]} is live (0."), "it was live before, too"
        s.server.before = W
        for verb in (["rollback"], ["promote", V]):
            said = home.run(*verb).stdout
            assert said.startswith(f"{V[:12]} is live, {W[:12]} was (0.") and said.endswith(" s)\n"), said
            document = home.json(*verb)
            assert document["version"] == V and document["was"] == W and 0 < document["took_s"] < 5
        s.server.before = None
        staged = {"version": V, "seconds": 1.5, "gate": {"probes": 34, "median_ms": 0.2, "worst_ms": 0.7, "metric": {
            "metric": "ndcg@20", "champion": 0.2, "challenger": 0.21, "difference": {"value": 0.01, "low": -0.002, "high": 0.03}}},
            "warnings": ["careful"], "migrated": ["mine"], "drops": [{"agent": "yours", "state": "arms"}]}
        s.says(200, staged)
        said = home.run("stage", "agent:ease", "--then", "publish").stdout
        for part in (f"{V[:12]} is live (made in 1.50 s)", "34 slates, median 0.20 ms, worst 0.70 ms", "ndcg@20 0.2100, the champion's 0.2000: +0.0100 [-0.0020, +0.0300]",
                     "warning: careful", "migrated: the learning state of mine", "dropped: the learning state yours.arms"):
            assert part in said, (part, said)
        assert home.json("stage", "agent:ease") == staged
        s.says(200, {"version": V})
        assert "on trial on 20 % of the users" in home.run("canary", "start", V, "--share", "0.2").stdout
        assert home.run("canary", "stop").stdout == f"the canary of {V[:12]} is stopped; all users get the champion\n"
        status = {"running": False}
        s.says(200, status)
        assert home.json("canary", "status") == status
        assert home.run("canary", "status").stdout.strip()


def test_failures_are_one_line_and_have_their_exit_code():
    with Home() as home:
        done = home.run("versions", code=1)
        assert done.stderr == f"evection: no service: there is no {home.path}/control.sock; start `evection serve` with this home, or say --url\n"
        done = home.run("rollback", "--url", "http://127.0.0.1:1", code=1)
        assert done.stderr == "evection: no service answers at http://127.0.0.1:1\n"
        with Service(home) as s:
            for status, answer, code, said in ((400, {"error": "c.yaml:3: wrong"}, 2, "c.yaml:3: wrong"), (404, {"error": "no version '3f2a'"}, 2, "no version '3f2a'"),
                                               (409, {"error": "the gate: too slow"}, 1, "the gate: too slow"), (422, {"error": "c.yaml:2: no"}, 2, "c.yaml:2: no"), (401, b"", 1, "not allowed (401)"), (500, b"<html>", 1, "answered 500"),
                                               (200, b"not JSON", 1, "no JSON")):
                s.says(status, answer)
                done = home.run("stage", "agent:ease", code=code)
                assert said in done.stderr and done.stderr.count("\n") == 1 and done.stdout == "", (status, done.stderr)
        done = home.run("versions", code=1)  # its socket is there, nobody listens
        assert "no service answers at" in done.stderr
        for args in (["promote", "zz"], ["promote", V + "0"], ["rollback", "../x"], ["canary", "start", "3F2A"], ["stage", "a", "--then", "fly"], ["stage", "a", "--share", "0.1"],
                     ["stage", "a", "--then", "publish", "--manual"], ["versions", "--url", "ftp://x"], ["versions", "--url", "http://x", "--token", "a\nb"], ["canary"], ["promote"]):
            done = home.run(*args, code=2)
            assert done.stderr.count("\n") == 1 and done.stderr.startswith("evection: "), (args, done.stderr)
        deep = os.path.join(home.path, "x" * 120)
        os.mkdir(deep)
        assert "longer than a socket's path" in home.run("versions", "--home", deep, code=2).stderr


def test_a_token_goes_along_and_a_proxy_is_not_asked():
    with Home() as home, Service(home, tcp=True) as s:
        os.environ.update(EVECTION_TOKEN="from the environment", http_proxy="http://127.0.0.1:1")
        try:
            home.run("versions", "--url", s.url + "/")
            assert s.last() == ("GET", "/versions", None)
            headers = s.server.seen[-1][3]
            assert headers["Authorization"] == "Bearer from the environment" and headers["X-API-Key"] == "from the environment"
            home.run("versions", "--url", s.url, "--token", "mine")
            assert s.server.seen[-1][3]["Authorization"] == "Bearer mine"
        finally:
            del os.environ["EVECTION_TOKEN"], os.environ["http_proxy"]


def test_a_long_stage_says_so_and_can_be_left():
    with Home() as home, Service(home) as s:
        s.says(200, {"version": V}, wait=3)
        mine, theirs = pty.openpty()
        p = subprocess.Popen([EVECTION, "stage", "agent:ease"], env=dict(os.environ, EVECTION_HOME=home.path), cwd=ROOT, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        said, end = b"", time.monotonic() + 10
        while b"staging agent:ease: " not in said and time.monotonic() < end:
            if select.select([mine], [], [], 0.1)[0]:
                said += os.read(mine, 1000)
        assert b"staging agent:ease: " in said and p.poll() is None, said
        start = time.monotonic()
        p.send_signal(signal.SIGINT)
        assert p.wait(10) == 130 and time.monotonic() - start < 2
        p.stdout.close()
        os.close(mine)


if __name__ == "__main__":
    main(globals())
