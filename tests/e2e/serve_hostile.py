"""Clients that mean harm, or cannot speak HTTP: a clean 4xx or a hung-up connection, everybody else is served meanwhile, and no process
is larger or has more open afterwards."""
import json
import os
import resource
import socket
import struct
import sys
import threading
import time

from support import ROOT, Home, main

sys.path.insert(0, os.path.join(ROOT, "tests"))
from serving import Load, Service, all_good, lines, until  # noqa: E402

PATIENCE_S = 30  # a request that is not complete by then is nobody's whom the service has to wait for
MB = 1 << 20


def read_answers(c, most=100):
    """What comes until the connection is closed, nothing comes for a while, or `most` answers are in → [(status, headers, body)], closed"""
    data, answers, closed = b"", [], False
    while len(answers) < most:
        head, found, rest = data.partition(b"\r\n\r\n")
        if found:
            lines_ = head.split(b"\r\n")
            headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(b":") for line in lines_[1:])}
            n = int(headers.get(b"content-length", b"0"))
            status = int(lines_[0].split()[1])
            if len(rest) >= n:
                if status != 100:
                    answers.append((status, headers, rest[:n]))
                data = rest[n:]
                continue
        try:
            part = c.recv(65536)
        except TimeoutError:
            break
        except OSError:
            closed = True
            break
        if not part:
            closed = True
            break
        data += part
    return answers, closed


def speak(s, data, timeout=5, shut=False, most=1):
    with socket.create_connection(("127.0.0.1", s.port), timeout=timeout) as c:
        try:
            c.sendall(data)
            if shut:
                c.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it hung up before it heard all: what it said is still there to read
        return read_answers(c, most)


def get(path, headers=b""):
    path = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    return b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"


def post(path, body, headers=b""):
    body = body if isinstance(body, bytes) else body.encode()
    return b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body) + headers + b"\r\n" + body


def chunked(path, *chunks):
    return b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


# What no client should say: any 4xx (or 501, 505), or the end of the connection.
REFUSED = {
    "noise": b"\x01\x02\xff noise\r\n\r\n",
    "a TLS client": bytes.fromhex("160301020001000001fc0303") + b"\x55" * 600,
    "an HTTP/2 client": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "version 9.9": b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
    "a method of its own": b"BREW /recommend/u1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in small letters": b"get /recommend/u1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "TRACE": b"TRACE /recommend/u1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a line without end": b"G" * 200000,
    "a path without end": get("/" + "a" * 200000),
    "headers without end": get("/healthz", b"X: y\r\n" * 50000),
    "one header without end": get("/healthz", b"X: " + b"y" * 200000 + b"\r\n"),
    "NUL in the path": get("/recommend/a%00b"),
    "bad UTF-8 in the path": get("/recommend/%ff%fe"),
    "an overlong slash": get("/recommend/%c0%af"),
    "half a surrogate in the path": get("/recommend/%ed%a0%80"),
    "a user without end": get("/recommend/" + "x" * 5000),
    "n that is none": get("/recommend/u1?n=many"),
    "n too large": get("/recommend/u1?n=999999999999999999999"),
    "n below": get("/recommend/u1?n=-1"),
    "n nought": get("/recommend/u1?n=0"),
    "n as a power": get("/recommend/u1?n=1e1"),
    "n in another base": get("/recommend/u1?n=0x10"),
    "n with a NUL": get("/recommend/u1?n=10%00"),
    "a condition that is none": get("/recommend/u1?where=((("),
    "a condition of brackets": get("/recommend/u1?where=" + "(" * 20000),
    "a condition of nots": get("/recommend/u1?where=" + "not%20" * 5000 + "x"),
    "too many that are left out": get("/recommend/u1?exclude=" + ",".join(f"i{k % 150}" for k in range(3000))),
    "up and away": get("/../../../etc/passwd"),
    "up and away, in code": get("/%2e%2e/%2e%2e/etc/passwd"),
    "no such place": get("/versions/../../etc"),
    "twice the length, and not the same": b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n[]GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a length and chunks": b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a length below nought": b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n[]",
    "a length beyond counting": b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n[]",
    "a length in letters": b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: two\r\n\r\n[]",
    "chunks of no size": chunked("/events", b"zz\r\n[]\r\n0\r\n\r\n"),
    "chunks below nought": chunked("/events", b"-2\r\n[]\r\n0\r\n\r\n"),
    "a chunk beyond counting": chunked("/events", b"ffffffffffffffffff\r\n[]\r\n0\r\n\r\n"),
    "an encoding nobody knows": b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: rot13\r\nContent-Length: 2\r\n\r\n[]",
    "no JSON": post("/events", "{"),
    "bad UTF-8": post("/events", b'{"user":"\xff\xfe","item":"i1"}'),
    "NUL in JSON": post("/events", b'{"user":"a\x00","item":"i1"}'),
    "NUL in a string": post("/events", '{"user":"a\\u0000b","item":"i1"}'),
    "half a surrogate": post("/events", '{"user":"\\ud800","item":"i1"}'),
    "deep lists": post("/events", "[" * 200000),
    "deep lists that end": post("/events", "[" * 100000 + "]" * 100000),
    "deep objects": post("/recommend", '{"a":' * 100000 + "1" + "}" * 100000),
    "a number that is none": post("/events", '{"user":"a","item":"i1","value":1e999}'),
    "a number without end": post("/events", '{"user":"a","item":"i1","value":' + "9" * 100000 + "}"),
    "a key twice": post("/events", '{"user":"a","item":"i1","user":"b"}'),
    "a body too large": post("/events", "[" + " " * (9 * MB) + "]"),
    "a session of no list": post("/recommend", '{"recent":{"a":1}}'),
    "a session without end": post("/recommend", json.dumps({"recent": ["i1"] * 100000})),
    "a body where there is none": b"DELETE /events HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
}

# Odd but right, or harmless: an answer below 500.
ANSWERED = {
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "a full URL": (b"GET http://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", None),
    "n twice": (get("/recommend/u1?n=3&n=4"), None),
    "a broken escape": (get("/recommend/u%zz?n=3"), None),
    "a user that is a path": (get("/recommend/..%2f..%2fetc%2fpasswd?n=3"), None),
    "a user that is markup": (get("/recommend/%3Cscript%3E%22%5C?n=3"), 200),
    "chunks": (chunked("/events", b'1\r\n[\r\n1\r\n]\r\n0\r\n\r\n'), 200),
    "asked before": (post("/events", "[]", b"Expect: 100-continue\r\n"), 200),
    "two hosts": (get("/healthz", b"Host: y\r\n"), None),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", None),
    "a NUL byte": (get(b"/recommend/a\x00b"), None),  # the library ends the path there
    "an empty line first": (b"\r\n" + get("/healthz"), None),
}


def check(s):
    for name, data in REFUSED.items():
        answers, closed = speak(s, data, timeout=PATIENCE_S, shut=name in ("a line without end", "a TLS client"))
        assert answers or closed, f"{name}: neither an answer nor an end"
        for status, _, body in answers:
            assert 400 <= status < 500 or status in (501, 505), f"{name}: {status} {body[:200]}"
            assert b"root:" not in body and len(body) < 10000, f"{name}: {body[:200]}"
    for name, (data, status) in ANSWERED.items():
        answers, _ = speak(s, data)
        assert answers and answers[0][0] < 500 and (status is None or answers[0][0] == status), f"{name}: {answers}"
        assert b"root:" not in answers[0][2], name
        if answers[0][1].get(b"content-type", b"").startswith(b"application/json"):
            json.loads(answers[0][2])


def smuggle(s):
    """Of two lengths, or of a length and chunks, one cannot be right: whatever is made of it, the rest is no request."""
    for name in ("twice the length, and not the same", "a length and chunks"):
        answers, _ = speak(s, REFUSED[name], timeout=1, most=3)
        assert all(b"alive" not in body for _, _, body in answers), f"{name}: a request was smuggled: {answers}"


def pipeline(s):
    """Several requests at once are answered in their order."""
    users = [f"p{k}" for k in range(20)]
    data = b"".join(get(f"/recommend/{u}?n=2") if k % 3 else get("/healthz") for k, u in enumerate(users))
    with socket.create_connection(("127.0.0.1", s.port), timeout=10) as c:
        c.sendall(data)
        answers, _ = read_answers(c, len(users))
    assert len(answers) == len(users) and all(status == 200 for status, *_ in answers), [a[0] for a in answers]
    for k, (_, _, body) in enumerate(answers):
        d = json.loads(body)
        assert (d["user"] == users[k]) if k % 3 else d.get("alive"), (k, d)


def rude(s):
    """Clients that go away in the middle, in every way."""
    for k in range(40):
        c = socket.create_connection(("127.0.0.1", s.port), timeout=5)
        if k % 4 == 0:
            c.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"user\":")
        elif k % 4 == 1:
            c.sendall(get("/recommend/u1?n=150") * 20)  # and reads nothing
        elif k % 4 == 2:
            c.sendall(b"GET /recommend/u1 HT")
        else:
            c.sendall(get("/recommend/u1?n=150"))
        if k % 2:
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        c.close()


def giant(s):
    """64 MiB, which nobody keeps: announced, or in chunks without end."""
    for head in (b"Content-Length: %d" % (64 * MB), b"Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", s.port), timeout=10) as c:
            block = b" " * MB if b"chunk" not in head else b"100000\r\n" + b" " * MB + b"\r\n"
            try:
                c.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
                for _ in range(64):
                    c.sendall(block)
                if b"chunk" in head:
                    c.sendall(b"0\r\n\r\n")
            except OSError:
                pass
            answers, closed = read_answers(c, 1)
        assert (answers and answers[0][0] == 413) or (not answers and closed), (head, answers, closed)


class Drip(threading.Thread):
    """One byte every now and then, so that the connection is never idle: how long is it listened to?"""

    def __init__(self, s, head, drop):
        super().__init__(daemon=True)
        self.c = socket.create_connection(("127.0.0.1", s.port), timeout=1)
        self.head, self.drop, self.took, self.answer = head, drop, None, b""
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            self.c.sendall(self.head)
            while time.monotonic() - began < PATIENCE_S + 15:
                self.c.settimeout(0.5)
                try:
                    self.answer = self.c.recv(1000)
                    break  # an answer, or the end
                except TimeoutError:
                    if self.drop:
                        self.c.sendall(self.drop)
        except OSError:
            pass
        self.took = time.monotonic() - began
        self.c.close()


def test_hostile_clients_get_a_clean_no_and_leave_nothing_behind():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    with Home() as home:
        home.run("data", "generate", "--users", "200", "--items", "150", "--sessions", "10")
        users = lines(os.path.join(home.path, "users"), [f"u{i}" for i in range(200)])
        with Service(home.path, "agent:popular", "--deadline-ms", "2000") as s:
            assert s.slate("u1")["items"]
            time.sleep(0.2)
            open_at_rest = s.descriptors()
            traffic = Load(s, users=users, path="/recommend/%s?n=10", expect=10, connections=2, rate=50, seconds=0)
            drips = [Drip(s, b"GET /recommend/u1 HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n"), Drip(s, b"GET /recommend/u1 HTTP/1.1\r\nHost: x\r\nX: ", b"y"),
                     Drip(s, b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n[", b" "),
                     Drip(s, get("/recommend/u1?n=3&" + "&".join(f"a{k}=b" for k in range(2000))), b"")]  # more than a connection's memory holds
            sizes = []
            for _ in range(4):  # the first two warm what is kept for the next request
                check(s)
                smuggle(s)
                pipeline(s)
                rude(s)
                giant(s)
                idle = [socket.create_connection(("127.0.0.1", s.port), timeout=10) for _ in range(2000)]
                assert s.slate("u1")["items"], "with two thousand idle connections the next one is served"
                for c in idle:
                    c.close()
                time.sleep(2.5)  # who has gone is noticed within a second or two
                sizes.append((s.memory("Pss_Anon"), s.descriptors(), sorted(name for _, name, _ in s.tree())))
            for d in drips:
                d.join()
                assert d.took < PATIENCE_S + 10 and (d.answer == b"" or d.answer.split()[1][:1] == b"4"), (d.head[-20:], d.took, d.answer)
            result = all_good(traffic.end(stop=True), 50)
            assert result["degraded"] == 0 and result["ms"]["p99"] < 1000, result["ms"]
            assert s.count("evection_worker_deaths_total") == 0 and s.count("evection_fallbacks_total") == 0
            (before, _, names), (after, _, names_after) = sizes[1], sizes[-1]
            assert names == names_after, (names, names_after)
            for name, size in after.items():
                assert size < before[name] + 4 * MB, f"{name} grew from {before[name] / MB:.1f} to {size / MB:.1f} MiB"
            until(lambda: all(n <= open_at_rest.get(name, 0) for name, n in s.descriptors().items()),
                  lambda: f"descriptors as at rest, {open_at_rest}, not {s.descriptors()}", PATIENCE_S)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


if __name__ == "__main__":
    main(globals())
