"""The service: slates, events, live edits, agents that hang, workers that die, an orderly end."""
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from urllib.parse import quote

from support import EVECTION, ROOT, Home, main

sys.path.insert(0, os.path.join(ROOT, "tests"))
import serving  # noqa: E402
from serving import until  # noqa: E402

SHOW = """
local native, world = require "evection.native", require "evection.world"
local w, users = world.open(arg[1]), {}
for user = 0, w.snapshot:n_users() - 1 do
  local items = native.array {}
  for i, item in ipairs(w:history(user, native.TRAIN + native.VALID + native.TEST)) do items[i] = w:item_id(item) end
  users[w:user_id(user)] = items
end
io.write(native.json_encode(users))
"""

# What its act does when asked for 77 items stands in BODY.
AGENT = """
local agent = require "evection.agent"

return agent {
  name = "mine",
  role = "recall",
  about = "SIGN times popularity.",
  fit = function(_, data) return data:item_scores(data:item_counts() * SIGN) end,
  act = function(model, request, slate)
    if request.n == 77 then BODY end
    model:recall(request, slate)
  end,
}
"""


def agent(sign="1", body="local _ = 1"):
    return AGENT.replace("SIGN", sign).replace("BODY", body)


class Service(serving.Service):
    """`evection serve` on a free port, ended and checked at the end."""

    def __init__(self, home, composition, *more):
        super().__init__(home.path, composition, *more, own_port=True)

    def slate(self, user, n=10):
        status, document = self.ask("GET", f"/recommend/{quote(user, safe='')}?n={n}")
        assert status == 200 and document["user"] == user, (status, document)
        return document

    def items(self, user, n=10):
        """A slate that the composition made, not the fallback."""
        document = until(lambda: (lambda d: d if not d["degraded"] else None)(self.slate(user, n)), "a slate that is not the fallback")
        return [i["id"] for i in document["items"]]

    def post(self, events):
        return self.ask("POST", "/events", events if isinstance(events, (str, bytes)) else json.dumps(events))

    def count(self, name):
        return int(super().count(f"evection_{name}_total"))

    def workers(self):
        return self.pids("ev-worker")


def prepare(home, text=None):
    """A world, an agent of one's own and a composition of it; nothing of the installed files is touched."""
    home.run("data", "generate", "--users", "200", "--items", "150", "--sessions", "10")
    home.file("mine.lua", text or agent())
    return home.file("c.yaml", "nodes:\n  mine: { agent: mine.lua }\noutput: mine\n")


def histories(home):
    return json.loads(home.run("run", home.file("show.lua", SHOW), "world").stdout)


def replace(home, name, text):
    """As editors do: written beside, then renamed over."""
    os.rename(home.file(name + ".new", text), os.path.join(home.path, name))


def kept(home):
    with sqlite3.connect(f"file:{home.path}/ledger.db?mode=ro", uri=True, timeout=10) as db:
        return db.execute("SELECT id, user, item, type, value, time_ms FROM events ORDER BY number").fetchall()


def by_popularity(seen_by, seen):
    """The items in the order of `popular`, without those seen; equals in any order: the counts are what is compared."""
    counts = Counter(i for items in seen_by.values() for i in items)
    return sorted((c for i, c in counts.items() if i not in seen), reverse=True), counts


def test_slates_hold_the_best_unseen_items():
    with Home() as home:
        prepare(home)
        seen_by = histories(home)
        with Service(home, "agent:popular") as s:
            for user in [*random.Random(1).sample(sorted(seen_by), 20), "nobody", "näm/e with space", "x" * 256]:
                seen = set(seen_by.get(user, []))
                best, counts = by_popularity(seen_by, seen)
                for n in (1, 10, 40):
                    d = s.slate(user, n)
                    got = [i["id"] for i in d["items"]]
                    assert not d["degraded"] and len(got) == len(set(got)) == n and not seen & set(got), (user, d)
                    assert [counts[i] for i in got] == best[:n], user
                    assert [i["score"] for i in d["items"]] == best[:n] and all(i["sources"] == ["popular"] and i["title"] for i in d["items"])
            assert len(s.slate("nobody", 500)["items"]) <= 150
            assert len(s.ask("GET", "/recommend/nobody")[1]["items"]) == 10
            version = s.version()
            assert version["version"] == s.slate("nobody")["version"] == home.json("fit", "agent:popular", "--data", "world")["genome"]
            assert version["error"] == "" and version["data"] == "world" and s.ask("GET", "/readyz")[0] == s.ask("GET", "/healthz")[0] == 200


def raw(s, data, answer=True):
    """Bytes on a socket → the status line, or b"" when the service only hangs up."""
    with socket.create_connection(("127.0.0.1", s.port), timeout=10) as c:
        try:
            c.sendall(data)
            if answer:
                c.shutdown(socket.SHUT_WR)
            return c.recv(4096).split(b"\r\n")[0] if answer else b""
        except TimeoutError:
            raise
        except OSError:  # it hung up before it heard all
            return b""


def test_wrong_requests_are_told_so_and_harm_nobody():
    with Home() as home:
        prepare(home)
        with Service(home, "agent:popular") as s:
            for n in ("0", "-1", "501", "x", "1.5", "", "9" * 40):
                status, d = s.ask("GET", f"/recommend/nobody?n={n}")
                assert status == 400 and "1 to 500" in d["error"], (n, status, d)
            for method, path, status in (("GET", "/", 404), ("GET", "/recommend", 405), ("GET", "/recommend/", 400), ("GET", "/recommend/" + "x" * 257, 400),
                                         ("GET", "/recommend/%ff%fe", 400), ("POST", "/recommend/nobody", 405), ("DELETE", "/recommend/nobody", 405),
                                         ("GET", "/events", 405), ("PUT", "/events", 405), ("POST", "/version", 405), ("GET", "/../etc/passwd", 404)):
                got, d = s.ask(method, path, "{}" if method != "GET" else None)
                assert got == status and d["error"], (method, path, got, d)
            assert s.ask("POST", "/events", b"[" + b" " * (1 << 20) + b"]")[0] == 413
            for data in (b"\x01\x02\xff garbage\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 100000,
                         b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\n\r\n",
                         b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50000 + b"\r\n", b"POST /events HTTP/1.1\r\nContent-Length: -5\r\n\r\n{}",
                         b"POST /events HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n{}"):
                line = raw(s, data)
                assert line == b"" or line.split()[1][:1] in (b"4", b"5"), (data[:40], line)
            raw(s, b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"user\":", answer=False)  # hangs up in the middle
            raw(s, b"\x00\xff\r\n\r\n", answer=False)
            raw(s, b"GET /recommend/nobody HTTP/1.1\r\nHost: x\r\n\r\n", answer=False)
            idle = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(50)]
            assert len(s.items("nobody")) == 10 and s.count("worker_deaths") == 0 and kept(home) == []
            for c in idle:
                c.close()


BAD_EVENTS = [
    ("", "JSON"), ("{", "JSON"), ("3", "JSON"), ("[1]", "event 0: not an object"), ("{}", "user"), ('{"user":"a"}', "item"),
    ('{"user":3,"item":"ITEM"}', "user must be text"), ('{"user":"","item":"ITEM"}', "user"), ('{"user":"a","item":"ITEM","when":1}', "'when'"),
    ('{"user":"a","item":"ITEM","time":"now"}', "time must be a number"), ('{"user":"a","item":"ITEM","value":1e400}', ""),
    ('{"user":"a","item":"ITEM","user":"b"}', "JSON"), ('{"user":"a\\u0000b","item":"ITEM"}', ""), ('{"user":"' + "x" * 300 + '","item":"ITEM"}', "user"),
    ('[{"user":"a","item":"ITEM"},{"user":"a"}]', "event 1"), (b'{"user":"\xff","item":"ITEM"}', "JSON"), ("[" * 100000, "JSON"),
]


def test_events_are_kept_whole_or_not_at_all_and_count_once():
    with Home() as home:
        path = prepare(home)
        with Service(home, path) as s:
            top = s.items("fresh")
            for body, word in BAD_EVENTS:
                body = body.replace(b"ITEM", top[0].encode()) if isinstance(body, bytes) else body.replace("ITEM", top[0])
                status, d = s.post(body)
                assert status == 400 and word in d["error"], (body[:60], status, d)
            status, d = s.post([{"user": "a", "item": top[0]}, {"user": "a", "item": "no such thing"}])
            assert status == 404 and "event 1" in d["error"] and "no such thing" in d["error"]
            assert kept(home) == [], "of a batch with an error nothing is kept"
            assert s.items("fresh") == s.items("a") == top

            assert s.post({"id": "e1", "user": "fresh", "item": top[0], "type": "buy", "value": 2.5, "time": 1700000000123}) == (200, {"accepted": 1, "new": 1})
            assert kept(home) == [("e1", "fresh", top[0], "buy", 2.5, 1700000000123)]
            assert top[0] not in s.items("fresh", 100) and s.items("fresh", 9) == top[1:], "what was seen is gone from the next slate"
            assert s.items("other") == top, "and from nobody else's"
            batch = [{"id": f"e{i}", "user": "fresh", "item": item, "time": 1700000000200 + i} for i, item in enumerate(top[:5], 1)]
            assert s.post(batch)[1] == {"accepted": 5, "new": 4}, "e1 is known"
            assert s.post(batch)[1] == {"accepted": 5, "new": 0}
            same = {"user": "fresh", "item": top[5], "time": 1700000001000}
            assert s.post(same)[1]["new"] == 1 and s.post(same)[1]["new"] == 0, "equal events without an id are one event"
            assert s.post([]) == (200, {"accepted": 0, "new": 0})
            assert s.items("fresh", 4) == top[6:] and len(kept(home)) == 6
        before = kept(home)
        with Service(home, path) as s:
            assert s.items("fresh", 4) == top[6:], "a restart forgets nothing"
            assert s.post(batch)[1]["new"] == 0
        assert kept(home) == before


def test_slates_are_logged_and_events_join_them():
    with Home() as home:
        path = prepare(home)
        with Service(home, path) as s:
            s.items("u")  # a worker is ready
            slate = s.slate("u", 5)
            early = {"id": "early", "user": "u", "item": slate["items"][2]["id"], "impression": slate["impression"]}
            assert s.post(early) == (200, {"accepted": 1, "new": 1})
            slates = [s.slate(f"v{n}", 3) for n in range(20)]
            assert len({d["impression"] for d in slates}) == 20
            s.post([{"id": f"e{n}", "user": f"v{n}", "item": d["items"][1]["id"], "impression": d["impression"], "type": "buy", "value": n} for n, d in enumerate(slates)])
            home.run("ledger", "range", "buy", "--low", "0", "--high", "100")
            status, d = s.post({"user": "u", "item": slate["items"][0]["id"], "type": "buy", "value": 101})
            assert status == 400 and "101" in d["error"], "a range that is set while serving"
            threads = [threading.Thread(target=lambda n=n: [s.post({"id": f"{n}.{k}", "user": "u", "item": slate["items"][n % 5]["id"]}) for k in range(20)]) for n in range(8)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            version = s.version()["version"]
        with sqlite3.connect(f"file:{home.path}/ledger.db?mode=ro", uri=True) as db:
            rows = db.execute("SELECT item, position, propensity, agent, version, events, user FROM bandit_log WHERE impression = ? ORDER BY position", (slate["impression"],)).fetchall()
            assert rows == [(i["id"], k + 1, 1, "mine", version, int(k == 2), "u") for k, i in enumerate(slate["items"])], rows
            assert db.execute("SELECT count(*), sum(value) FROM event_log WHERE type = 'buy' AND position = 2 AND agent = 'mine' AND version = ?", (version,)).fetchone() == (20, 190)
            assert db.execute("SELECT count(*) FROM events WHERE waits_for IS NOT NULL").fetchone() == (0,)
            assert db.execute("SELECT count(*) FROM events WHERE type = 'click'").fetchone() == (161,), "eight clients at once"
            n = db.execute("SELECT count(*) FROM impressions").fetchone()[0]
        with Service(home, path, "--no-impressions") as s:
            assert "impression" not in s.slate("u", 5)
        assert json.loads(home.run("ledger", "stats", "--json").stdout)["totals"]["impressions"] == n


def test_a_locked_ledger_is_an_error_for_events_and_none_for_slates():
    with Home() as home:
        path = prepare(home)
        with Service(home, path) as s:
            item = s.items("u")[0]
            with sqlite3.connect(os.path.join(home.path, "ledger.db"), isolation_level=None) as db:
                db.execute("BEGIN IMMEDIATE")
                later = []
                t = threading.Thread(target=lambda: later.append(s.post({"id": "x", "user": "u", "item": item})))
                t.start()
                for n in range(20):  # nobody waits behind it
                    assert len(s.slate(f"v{n}")["items"]) == 10
                t.join()
                db.execute("ROLLBACK")
            assert later[0][0] == 503 and "locked" in later[0][1]["error"]
            assert s.post({"id": "x", "user": "u", "item": item})[1]["new"] == 1
        assert [e[0] for e in kept(home)] == ["x"]
        assert home.json("ledger", "stats")["totals"]["impressions"] >= 21, "slates that were served meanwhile"


def test_agents_learn_from_events_at_once_and_share_what_they_learn():
    with Home() as home:
        prepare(home)
        seen_by = histories(home)
        _, counts = by_popularity(seen_by, set())
        rare = min(counts, key=lambda i: (counts[i], i))
        with Service(home, "agent:popular", "--workers", "3") as s:
            assert rare not in s.items("stranger", 20)
            s.post([{"user": f"fan{i}", "item": rare, "time": 1700000000000 + i} for i in range(1000)])
            for _ in range(12):  # whichever worker answers
                until(lambda: s.items("stranger", 1) == [rare], "the item of a thousand clicks at the top")
        with Service(home, "agent:popular") as s:
            assert s.items("stranger", 1) == [rare], "what was learned outlives the service"


def test_a_flood_of_events_costs_no_worker():
    with Home() as home:
        path = prepare(home)
        with Service(home, path, "--deadline-ms", "5000") as s:
            items = s.items("busy", 100)
            for part in range(3):
                status, d = s.post([{"id": f"{part}.{i}", "user": "busy", "item": items[i % 90]} for i in range(9000)])
                assert (status, d["new"]) == (200, 9000), d
            assert s.items("busy", 5) == items[90:95]
            assert s.post([{"user": "a", "item": items[0], "time": i} for i in range(10001)])[0] == 413
            assert len(s.workers()) == 2 and s.count("worker_deaths") == 0 and s.count("late") == 0


class Traffic(threading.Thread):
    """Requests one after the other on a kept connection, until told to stop; remembers what went wrong."""

    def __init__(self, s):
        super().__init__(daemon=True)
        self.s, self.wrong, self.done, self.degraded, self.stop = s, [], 0, 0, False

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.s.port, timeout=10)
        while not self.stop:
            try:
                connection.request("GET", f"/recommend/stranger{self.done % 7}?n=10")
                answer = connection.getresponse()
                document = json.loads(answer.read())
                if answer.status != 200 or len(document["items"]) != 10:
                    self.wrong.append((answer.status, document))
                self.degraded += document.get("degraded", False)
                self.done += 1
            except Exception as e:  # whatever goes wrong is a failed request
                self.wrong.append(e)
                connection.close()

    def end(self):
        self.stop = True
        self.join(15)


def test_edits_go_live_under_traffic_and_broken_ones_do_not():
    with Home() as home:
        path = prepare(home)
        with Service(home, path, "--deadline-ms", "2000") as s:
            common, first = s.items("stranger"), s.version()["version"]
            traffic = [Traffic(s) for _ in range(2)]
            for t in traffic:
                t.start()
            replace(home, "mine.lua", agent("-1"))
            until(lambda: s.version()["version"] != first, "the edited agent")
            rare, second = s.items("stranger"), s.version()["version"]
            assert not set(rare) & set(common)

            for name, text, words in (
                    ("mine.lua", agent("-1").replace("role", "rule"), ("mine.lua:6:", "'rule'")),
                    ("mine.lua", "return agent {", ("mine.lua:1:",)),
                    ("mine.lua", agent("-1").replace("if request.n == 77 then", "do").replace("local _ = 1", "error 'it cannot'"),
                     ("mine.lua:10:", "it cannot")),
                    ("c.yaml", "nodes:\n  mine: { agent: other.lua }\noutput: mine\n", ("c.yaml:2:", "other.lua"))):
                replace(home, name, text)
                until(lambda: all(w in s.version()["error"] for w in words), f"the reason why the edit was not taken: {words}")
                assert s.version()["version"] == second and s.items("stranger") == rare
                assert all(w in s.said() for w in words), "the log says it too"
                if name == "mine.lua":
                    replace(home, name, agent("-1"))
                    until(lambda: s.version()["error"] == "", "the error's end")
            home.file("other.lua", agent("1").replace('"mine"', '"other"'))  # what the composition was waiting for; written in place
            until(lambda: s.version()["version"] != second and s.version()["error"] == "", "the composition whose agent came late")
            assert s.items("stranger") == common
            home.file("c.yaml", "nodes:\n  mine: { agent: other.lua, n: 10 }\n  slate: { agent: mmr, from: mine, knobs: { lambda: 0.3 } }\noutput: slate\n")
            third = s.version()["version"]
            until(lambda: s.version()["version"] != third, "the edited composition")
            assert sorted(s.items("stranger")) == sorted(common) and s.items("stranger") != common
            for t in traffic:
                t.end()
                assert t.wrong == [] and t.degraded == 0 and t.done > 50, (t.wrong[:3], t.degraded, t.done)
            assert s.count("reloads") == 3 and s.count("failed_reloads") >= 4 and s.count("worker_deaths") <= s.count("failed_reloads")
            assert len(s.workers()) == 4, "two of the version that is live, two of the one before, which stays warm"
            replace(home, "c.yaml", "# a remark changes nothing\n" + open(path, encoding="utf-8").read())
            time.sleep(0.4)
            assert s.count("reloads") == 3


def test_an_act_that_never_ends_gets_the_fallback_within_the_deadline():
    with Home() as home:
        path = prepare(home, agent("-1", "while true do end"))
        seen_by = histories(home)
        user = sorted(seen_by)[3]
        best, counts = by_popularity(seen_by, set(seen_by[user]))
        with Service(home, path, "--deadline-ms", "150") as s:
            assert not s.slate(user)["degraded"]
            start = time.monotonic()
            d = s.slate(user, 77)
            assert d["degraded"] and 0.14 < time.monotonic() - start < 1.5, time.monotonic() - start
            assert [counts[i["id"]] for i in d["items"]] == best[:77] and d["items"][0]["sources"] == ["fallback"]
            answers = []
            many = [threading.Thread(target=lambda: answers.append(s.slate(user, 77))) for _ in range(12)]
            start = time.monotonic()
            for t in many:
                t.start()
            for t in many:
                t.join(10)
            assert len(answers) == 12 and all(a["degraded"] for a in answers) and time.monotonic() - start < 3
            assert s.ask("GET", "/healthz")[0] == 200 and s.items(user, 10) and s.count("late") == 13
            until(lambda: len(s.workers()) == 2, "the workers in place of those that hung")


def test_an_edit_that_never_makes_a_slate_is_not_taken():
    with Home() as home:
        path = prepare(home)
        with Service(home, path, "--deadline-ms", "60") as s:
            version, common = s.version()["version"], s.items("stranger")
            replace(home, "mine.lua", agent().replace("request.n == 77", "true").replace("local _ = 1", "while true do end"))
            until(lambda: "no slate" in s.version()["error"], "the reason")
            assert s.version()["version"] == version and s.items("stranger") == common
        with Service(home, path, "--deadline-ms", "60") as s:
            assert s.version()["version"] == version and "no slate" in s.version()["error"], "a start with it serves what was live before"
            assert s.items("stranger") == common
        os.unlink(os.path.join(home.path, "versions", "world.champion"))
        done = home.run("serve", path, "--data", "world", "--port", "0", "--deadline-ms", "60", code=2)
        assert "no slate" in done.stderr


def test_killed_workers_are_replaced():
    with Home() as home:
        path = prepare(home)
        with Service(home, path, "--deadline-ms", "2000") as s:
            top, rng = s.items("stranger"), random.Random(3)
            until(lambda: len(s.workers()) == 2, "two workers")
            for round in range(12):
                here = s.workers()
                for pid in rng.sample(here, min(len(here), rng.randrange(1, 3))):
                    os.kill(pid, signal.SIGKILL)
                if round % 3 == 0:
                    assert len(s.slate("stranger")["items"]) == 10
                time.sleep(rng.uniform(0, 0.03))  # some die while they load
            assert s.items("stranger") == top
            until(lambda: len(s.workers()) == 2, "two workers again")
            assert s.items("stranger") == top and s.count("worker_deaths") >= 12


def test_the_end_is_orderly():
    with Home() as home:
        path = prepare(home, agent("1", "local x = 0 for i = 1, 30000000 do x = x + math.sin(i) end"))
        for sig in (signal.SIGTERM, signal.SIGINT):
            with Service(home, path, "--deadline-ms", "5000") as s:
                workers = until(lambda: len(s.workers()) == 2 and s.workers(), "two workers")
                top = s.items("stranger")
                s.post({"id": f"last {sig}", "user": f"leaver {sig}", "item": top[0]})
                answers = []
                waiting = threading.Thread(target=lambda: answers.append(s.slate("stranger", 77)))
                waiting.start()
                time.sleep(0.1)
                s.p.send_signal(sig)
                assert s.p.wait(10) == 0
                waiting.join(10)
                assert answers and not answers[0]["degraded"] and len(answers[0]["items"]) == 77, "who waited is answered before the end"
                assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
                assert (f"last {sig}", f"leaver {sig}", top[0]) in [e[:3] for e in kept(home)]
        with Service(home, path) as s:
            workers = until(lambda: len(s.workers()) == 2 and s.workers(), "two workers")
            s.p.kill()
            s.p.wait()
            until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), "the workers' end after their parent's")


def test_a_service_that_cannot_start_says_why():
    with Home() as home:
        path = prepare(home)
        with Service(home, path) as s:
            done = home.run("serve", path, "--data", "world", "--port", str(s.port), code=1)
            assert len(done.stderr.splitlines()) == 1 and str(s.port) in done.stderr
        os.unlink(os.path.join(home.path, "versions", "world.champion"))  # else that one would be served
        home.file("mine.lua", "return 3\n")
        done = home.run("serve", path, "--data", "world", "--port", "0", code=2)
        assert "mine.lua:1:" in done.stderr.splitlines()[-1]
        p = subprocess.Popen([EVECTION, "serve", "agent:popular", "--data", "world", "--port", "0", "--json"], cwd=ROOT, text=True,
                             env=dict(os.environ, EVECTION_HOME=home.path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        text = ""
        while "}" not in text:
            text += p.stdout.readline()
        p.send_signal(signal.SIGTERM)
        rest, _ = p.communicate(timeout=10)
        assert json.loads(text + rest)["port"] > 0 and p.returncode == 0


if __name__ == "__main__":
    main(globals())
