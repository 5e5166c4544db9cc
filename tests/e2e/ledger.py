"""The ledger's verbs: import with its complaints, export that import reads again, retention, ranges, a disk that is full, Ctrl-C."""
import csv
import io
import json
import os
import random
import re
import resource
import signal
import sqlite3
import subprocess
import time

from support import EVECTION, ROOT, Home, main

NOW = int(time.time() * 1000)
DAY = 86400000


def impression(n, time_ms=NOW, **more):
    items = [{"item": f"i{(n + k) % 20}", "propensity": 1 / (k + 1), "agent": ("ease", "popular")[k % 2]} for k in range(3)]
    return {"kind": "impression", "id": f"s{n}", "user": f"u{n % 7}", "version": f"v{n % 2}", "propensity": 0.25, "time": time_ms, "items": items, **more}


def event(n, time_ms=NOW, **more):
    return {"kind": "event", "id": f"e{n}", "user": f"u{n % 7}", "item": f"i{n % 20}", "type": "click", "value": 1, "time": time_ms, "impression": f"s{n}", **more}


def lines(rows):
    return "".join(json.dumps(r) + "\n" for r in rows)


def ask(home, sql):
    with sqlite3.connect(f"file:{home.path}/ledger.db?mode=ro", uri=True, timeout=10) as db:
        return db.execute(sql).fetchall()


def complaint(home, *args, code=2, **kw):
    done = home.run("ledger", *args, code=code, **kw)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("evection: "), (args, done.stdout, done.stderr)
    return done.stderr


def test_import_takes_any_order_and_counts_once():
    with Home() as home:
        rows = [r for n in range(200) for r in (impression(n), event(n), event(n))]
        random.Random(1).shuffle(rows)
        path = home.file("log.jsonl", lines(rows))
        first = home.json("ledger", "import", path, "--batch", "50")
        assert (first["impressions"], first["events"], first["known"], first["conflicts"]) == (200, 200, 200, 0) and first["joined_late"] > 20, first
        again = home.json("ledger", "import", path)
        assert (again["impressions"], again["events"], again["known"]) == (0, 0, 600), again
        assert ask(home, "SELECT count(*) FROM event_log WHERE impression = 's' || substr(id, 2) AND position = 1 AND agent = 'ease' AND version IN ('v0', 'v1')") == [(200,)]
        stats = home.json("ledger", "stats")
        assert stats["totals"]["impressions"] == stats["totals"]["events"] == 200 and stats["totals"]["waiting"] == 0, stats
        assert stats["types"] == [{"type": "click", "events": 200, "value_sum": 200.0, "value_squares": 200.0, "mean": 1.0}]
        assert {c["name"]: c["count"] for c in stats["counters"]}["duplicate_events"] == 600
        assert "200 counted" in home.run("ledger", "stats").stdout


BAD_LINES = [
    ("{", "not JSON"), ("3", "not JSON"), ("[]", "not an object"), ("{}", "no kind"), ('{"kind":"slate"}', "no kind"), (json.dumps(event(1, user=None)), "no user"),
    (json.dumps(event(1, user="")), "user is empty"), (json.dumps(event(1, item=[])), "item is no text"), (json.dumps(event(1, value="1")), "value is no number"),
    (json.dumps(event(1, time=None)), "no time"), (json.dumps(event(1, time=-5)), "the time -5"), (json.dumps(event(1, colour="red")), "no field 'colour'"),
    (json.dumps(event(1))[:-1] + ', "value": 2}', "not JSON"), ('{"kind":"event","user":"u","item":"i","time":1,"value":NaN}', "not JSON"),
    (json.dumps(event(1, value=2)), "the value 2 of 'click' is not between 0 and 1"),
    (json.dumps(impression(1, propensity=0)), "propensity of the slate is 0"), (json.dumps(impression(1, propensity=1.5)), "propensity of the slate is 1.5"),
    (json.dumps(impression(1, propensity=None)), "propensity of the slate is missing"), (json.dumps(impression(1, propensity="x")), "propensity is no number"),
    (json.dumps(impression(1, items=[])), "no items"), (json.dumps(impression(1, items=None)), "items is no list"),
    (json.dumps(impression(1, items=[{"item": "a"}])), "propensity of item a is missing"), (json.dumps(impression(1, items=[{"item": "a", "propensity": 0}])), "item a is 0"),
    (json.dumps(impression(1, items=[{"item": "a", "propensity": -1}])), "item a is -1"), (json.dumps(impression(1, items=[{"item": "a", "propensity": 1, "position": 0}])), "position 0"),
    (json.dumps(impression(1, items=[{"propensity": 1}])), "no item"), (json.dumps(impression(1, version=None)), "no version"),
]


def test_a_bad_line_is_named_and_those_before_it_are_kept():
    with Home() as home:
        home.run("ledger", "range", "click", "--low", "0", "--high", "1")
        for n, (text, says) in enumerate(BAD_LINES):
            path = home.file("bad.jsonl", lines([event(1000 + n), impression(1000 + n)]) + text + "\n" + lines([event(5000)]))
            said = complaint(home, "import", path)
            assert f"{path}:3: " in said and says in said and "(2 lines before it are in the ledger)" in said, (text, said)
        assert ask(home, "SELECT count(*) FROM events") == ask(home, "SELECT count(*) FROM impressions") == [(len(BAD_LINES),)]
        assert "absent.jsonl" in complaint(home, "import", "absent.jsonl") and "a folder" in complaint(home, "import", home.path)
        done = subprocess.run([EVECTION, "ledger", "import"], input=lines([event(1)]) + "{\n", capture_output=True, text=True, env=dict(os.environ, EVECTION_HOME=home.path))
        assert done.returncode == 2 and "standard input:2: " in done.stderr


def test_what_is_exported_can_be_imported_and_read_as_csv():
    with Home() as home, Home() as other:
        rows = [r for n in range(50) for r in (impression(n, user='a "quoted", name\n' if n == 3 else f"ü{n}"), event(n, value=0.1 * n, user="x"))]
        rows += [event(90, impression="never"), {"kind": "event", "user": "u", "item": "ä", "time": 5}]
        home.run("ledger", "import", home.file("log.jsonl", lines(rows)))
        text = home.run("ledger", "export").stdout
        exported = [json.loads(line) for line in text.splitlines()]
        assert len(exported) == 102
        assert {r["id"]: r for r in exported if r["kind"] == "impression"} == {
            r["id"]: dict(r, items=[dict(item, position=k + 1) for k, item in enumerate(r["items"])]) for r in rows if r["kind"] == "impression"}
        assert {r["id"]: r["value"] for r in exported if r["id"].startswith("e")} == {r["id"]: r["value"] for r in rows if r.get("id", "").startswith("e")}
        out = os.path.join(home.path, "out.jsonl")
        assert home.json("ledger", "export", "--out", out)["rows"] == 102
        other.run("ledger", "import", out)
        assert other.run("ledger", "export").stdout == text, "export and import are each other's reverse"
        bandit = list(csv.DictReader(io.StringIO(home.run("ledger", "export", "bandit_log", "--format", "csv").stdout)))
        assert len(bandit) == 150 and sum(float(r["reward"]) for r in bandit) == sum(0.1 * n for n in range(50))
        assert bandit[9]["user"] == 'a "quoted", name\n' and float(bandit[10]["propensity"]) == 0.5 and bandit[10]["position"] == "2"
        for what in ("event_log", "impression_log", "version_totals", "events_by_item", "impressions_by_hour"):
            as_csv = list(csv.DictReader(io.StringIO(home.run("ledger", "export", what, "--format", "csv").stdout)))
            as_json = [json.loads(line) for line in home.run("ledger", "export", what).stdout.splitlines()]
            assert len(as_csv) == len(as_json) > 0 and [list(r) for r in as_csv] == [list(r) for r in as_json], what
            assert all(a[k] == ("" if b[k] is None else b[k] if isinstance(b[k], str) else a[k]) for a, b in zip(as_csv, as_json) for k in a), what
        assert "event_log" in complaint(home, "export", "sqlite_master") and "CSV" in complaint(home, "export", "--format", "csv")
        assert "'xml'" in complaint(home, "export", "--format", "xml")
        assert "no such folder" not in complaint(home, "export", "--out", "/no/such/folder/x") and not os.path.exists(out + ".tmp")


def test_retention_deletes_old_rows_and_keeps_totals():
    with Home() as home:
        old = [r for n in range(30) for r in (impression(n, NOW - 40 * DAY), event(n, NOW - 40 * DAY + 1000))]
        new = [r for n in range(30, 50) for r in (impression(n), event(n))]
        home.run("ledger", "import", home.file("log.jsonl", lines(old + new + [event(99, NOW, impression="s7")])))
        before = home.json("ledger", "stats")["types"]
        would = home.json("ledger", "prune", "--keep-days", "30", "--dry-run")
        assert (would["impressions"], would["events"], would["kept_by_later_events"]) == (29, 29, 1) and len(ask(home, "SELECT 1 FROM events")) == 51
        done = home.json("ledger", "prune", "--keep-days", "30", "--shrink")
        assert (done["impressions"], done["events"], done["kept_by_later_events"]) == (29, 29, 1)
        assert len(ask(home, "SELECT 1 FROM events")) == 22 and len(ask(home, "SELECT 1 FROM shown")) == 63
        assert home.json("ledger", "stats")["types"] == before
        again = home.json("ledger", "import", os.path.join(home.path, "log.jsonl"))
        assert (again["expired"], again["events"], again["impressions"]) == (58, 0, 0), again
        assert "--keep-days" in complaint(home, "prune") and "-1" in complaint(home, "prune", "--keep-days=-1")


def test_ranges_are_set_listed_and_removed():
    with Home() as home:
        assert "no ledger" in complaint(home, "range") and "no ledger" in complaint(home, "stats") and "no ledger" in complaint(home, "prune", "--keep-days", "1")
        assert home.json("ledger", "range", "click", "--low", "0", "--high", "1") == [{"type": "click", "low": 0.0, "high": 1.0}]
        assert len(home.json("ledger", "range", "*", "--low", "-5", "--high", "5")) == 2
        assert "click from 0 to 1" in home.run("ledger", "range").stdout
        home.run("ledger", "range", "click", "--remove")
        for args in (["--low", "1"], ["x", "--low", "1"], ["x", "--low", "2", "--high", "1"], ["x", "--remove", "--low", "1"], ["click", "--remove"]):
            complaint(home, "range", *args)


def test_what_the_page_shows_works():
    with open(os.path.join(ROOT, "docs", "reference", "ledger.md"), encoding="utf-8") as f:
        page = f.read()
    with Home() as home:
        home.run("ledger", "import", home.file("shown.jsonl", page.split("```json\n")[1].split("```")[0]))
        assert ask(home, "SELECT item, reward FROM bandit_log ORDER BY position") == [("50", 1), ("181", 0)]
        for sql in re.sub("--.*", "", page.split("```sql\n")[1].split("```")[0]).split(";")[:-1]:
            ask(home, sql)
        named = re.findall(r"^\| `([a-z_`, ]+)` \|", page, re.M)
        there = {name for name, in ask(home, "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'")}
        assert {n for names in named for n in names.replace("`", "").split(", ")} | {"folded"} == there


def test_a_full_disk_and_a_locked_ledger_are_one_line_and_lose_nothing():
    with Home() as home:
        path = home.file("log.jsonl", lines([event(n, impression=None) for n in range(20000)]))
        done = subprocess.run([EVECTION, "ledger", "import", path, "--batch", "500"], capture_output=True, text=True, cwd=ROOT, env=dict(os.environ, EVECTION_HOME=home.path),
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2500000, 2500000)))
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "cannot be written" in done.stderr, (done.returncode, done.stderr)
        kept = int(done.stderr.split("(")[-1].split()[0])
        assert 0 < kept < 20000 and ask(home, "SELECT count(*) FROM events") == [(kept,)], done.stderr
        assert home.json("ledger", "import", path) | {"seconds": 0} == {"lines": 20000, "impressions": 0, "events": 20000 - kept, "known": kept, "conflicts": 0, "waiting": 0,
                                                                         "joined_late": 0, "expired": 0, "seconds": 0}
        with sqlite3.connect(os.path.join(home.path, "ledger.db"), isolation_level=None) as db:
            db.execute("BEGIN IMMEDIATE")
            assert "locked" in complaint(home, "import", path, code=1)
            db.execute("ROLLBACK")
        assert ask(home, "PRAGMA integrity_check") == [("ok",)]


def test_an_interrupted_import_goes_on_from_where_it_stood():
    with Home() as home:
        path = home.file("log.jsonl", lines([event(n, impression=None) for n in range(150000)]))
        p = subprocess.Popen([EVECTION, "ledger", "import", path, "--batch", "100"], stderr=subprocess.PIPE, text=True, env=dict(os.environ, EVECTION_HOME=home.path))
        while not os.path.exists(os.path.join(home.path, "ledger.db-wal")) or os.path.getsize(os.path.join(home.path, "ledger.db-wal")) < 500000:
            time.sleep(0.01)
        p.send_signal(signal.SIGINT)
        said = p.communicate(timeout=20)[1]
        assert p.returncode == 130 and "lines are in the ledger" in said, (p.returncode, said)
        kept = int(said.split("evection: ")[1].split()[0])
        assert 0 < kept < 150000 and ask(home, "SELECT count(*) FROM events") == [(kept,)]
        assert home.json("ledger", "import", path)["known"] == kept


main(globals())
