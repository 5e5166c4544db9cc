"""Live tables of items through the command line: what is put is there, also after kill -9; searches against NumPy; every complaint."""
import json
import os
import resource
import signal
import subprocess
import time

import numpy as np

from support import EVECTION, ROOT, Home, main

D = 8
FLAT = ("--kind", "flat", "--form", "f32")


def films(n, seed=1):
    """n items with vectors and features, some of which are missing."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, D)).astype(np.float32)
    items = []
    for i in range(n):
        item = {"id": f"f{i}", "vector": [float(f"{x:.6g}") for x in vectors[i]], "title": f"Film {i}"}
        if i % 5:
            item["genre"] = [f"g{i % 3}", f"g{i % 7}"]
        if i % 4:
            item["year"] = 1950 + i % 70
        items.append(item)
    return items


def lines(items):
    return "".join(json.dumps(item) + "\n" for item in items)


def put(home, name, items, *more):
    return home.json("items", "put", name, home.file(f"{name}.jsonl", lines(items)), *more)


def got(home, name, ids):
    return home.json("items", "get", name, *ids)


def complaint(home, *args, code=2):
    done = home.run(*args, code=code)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("evection: "), (args, done.stdout, done.stderr)
    return done.stderr


def rank(items, q, metric="dot", may=lambda item: True):
    """Ids by score, best first, with their scores: the plain way."""
    items = [item for item in items if may(item)]
    x, q = np.array([item["vector"] for item in items], dtype=np.float64).reshape(-1, len(q)), np.array(q, dtype=np.float64)
    if metric == "dot":
        scores = x @ q
    elif metric == "cosine":
        scores = (x @ q) / np.linalg.norm(x, axis=1) / np.linalg.norm(q)
    else:
        scores = -((x - q) ** 2).sum(axis=1)
    order = np.argsort(-scores, kind="stable")
    return [items[i]["id"] for i in order], scores[order]


def test_what_is_put_is_got_back():
    with Home() as home:
        items = films(2500)
        said = put(home, "films", items, *FLAT)
        assert (said["put"], said["items"], said["vectors"]) == (2500, 2500, 2500)
        assert got(home, "films", [item["id"] for item in items]) == items
        text = home.run("items", "get", "films", "--all").stdout
        assert [json.loads(line) for line in text.splitlines()] == items == home.json("items", "get", "films", "--all")
        home.run("items", "put", "copy", home.file("all.jsonl", text))
        assert home.run("items", "get", "copy", "--all").stdout == text
        text = home.run("items", "get", "films", "f7", "f0", "--no-vectors").stdout
        assert [json.loads(line) for line in text.splitlines()] == [{k: v for k, v in items[i].items() if k != "vector"} for i in (7, 0)]
        assert home.json("items", "list") == ["copy", "films"]
        stats = home.json("items", "stats", "films")
        assert (stats["items"], stats["vectors"], stats["index"]["dims"], stats["index"]["kind"]) == (2500, 2500, D, "flat")
        assert {c["name"]: (c["type"], c["tokens"]) for c in stats["columns"]} == {
            "title": ("token", 2500), "genre": ("token list", 7), "year": ("float", 0)}
        text = home.run("items", "stats", "films").stdout
        assert "2500 items, 2500 with a vector" in text and "flat, dot, f32" in text and "genre" in text
        assert "sound" in home.run("items", "verify", "films").stdout


def test_values_of_every_kind():
    with Home() as home:
        given = [{"id": 7, "vector": [1, 2.5], "n": 0.1, "t": "", "yes": True, "no": False, "nothing": None, "list": ["a", 3, "a"], "none": []},
                 {"id": "grüße \"x\" 🙂", "vector": None, "t": "tab\tnewline\n"}, {"id": "bare"}]
        put(home, "t", given)
        one, two, three = got(home, "t", ["7", given[1]["id"], "bare"])
        assert one == {"id": "7", "vector": [1, 2.5], "n": 0.1, "t": "", "yes": "true", "no": "false", "list": ["a", "3", "a"]}
        assert two == {"id": given[1]["id"], "t": "tab\tnewline\n"} and three == {"id": "bare"}
        put(home, "t", [{"id": "bare", "x": 1}, {"id": "bare", "y": 2}])
        assert got(home, "t", ["bare"]) == [{"id": "bare", "y": 2}], "the later line replaces the earlier as a whole"
        home.run("items", "put", "plain", home.file("p.jsonl", '\n{"id": "a", "x": 1}\r\n\n{"id": "b"}'))
        assert got(home, "plain", ["a", "b"]) == [{"id": "a", "x": 1}, {"id": "b"}]
        assert home.json("items", "stats", "plain")["index"] is None


def test_standard_input_is_read_where_no_file_is_named():
    with Home() as home:
        def feed(text, *args, code=0):
            done = subprocess.run([EVECTION, "items", *args], input=text, capture_output=True, text=True, timeout=60, env=dict(os.environ, EVECTION_HOME=home.path))
            assert done.returncode == code, (args, done)
            return done
        items = films(30)
        feed(lines(items[:10]), "put", "t")
        feed(lines(items[10:20]), "put", "t", "-")
        feed(lines(items[20:25]), "put", "t", home.file("rest.jsonl", lines(items[25:])), "-")
        assert len(feed("f3\nf4\n\nf29\n", "get", "t", "f1", "-").stdout.splitlines()) == 4
        feed("f3\r\nf4\n", "delete", "t", "f0", "-")
        assert home.json("items", "stats", "t")["items"] == 27
        assert "standard input:2:" in feed('{"id": "z"}\n{"id": 0.5}\n', "put", "t", code=2).stderr
        assert home.json("items", "get", "t", "z") == [{"id": "z"}]


def test_deleting_is_all_or_none():
    with Home() as home:
        items = films(40)
        put(home, "t", items, *FLAT)
        assert home.json("items", "delete", "t", "f1", "f2")["items"] == 38
        assert "'f2'" in complaint(home, "items", "delete", "t", "f3", "f2")
        assert "'f1'" in complaint(home, "items", "get", "t", "f3", "f1")
        assert "twice" in complaint(home, "items", "delete", "t", "f3", "f3")
        assert home.json("items", "stats", "t")["items"] == 38
        left = [item for item in items if item["id"] not in ("f1", "f2")]
        assert [h["id"] for h in home.json("items", "search", "t", "--vector", json.dumps([1] * D), "--k", "50")["hits"]] == rank(left, [1] * D)[0]


def check_search(home, name, items, metric, q, where=None, may=lambda item: True, *more):
    args = ["items", "search", name, "--vector", json.dumps([float(x) for x in q]), "--k", "12", *more]
    found = home.json(*args, *(["--where", where] if where else []))
    ids, scores = rank(items, q, metric, may)
    assert [h["id"] for h in found["hits"]] == ids[:12], (metric, where)
    assert np.allclose([h["score"] for h in found["hits"]], scores[:12], rtol=1e-4, atol=1e-4)
    assert [h["rank"] for h in found["hits"]] == list(range(1, len(found["hits"]) + 1))


def test_a_search_finds_what_numpy_finds():
    conditions = [
        (None, lambda i: True), ("year >= 2000", lambda i: i.get("year", 0) >= 2000), ("not year >= 2000", lambda i: i.get("year", 9999) < 2000),
        ('genre in {"g1", "g4"} and year ~= 1999', lambda i: bool({"g1", "g4"} & set(i.get("genre", []))) and i.get("year", 1999) != 1999),
        ("year == nil or genre == 'g6'", lambda i: "year" not in i or "g6" in i.get("genre", [])),
        ('title == "Film 77"', lambda i: i["title"] == "Film 77"), ("year in {}", lambda i: False)]
    with Home() as home:
        items = films(1200)
        rng = np.random.default_rng(3)
        for kind in ("flat", "hnsw", "ivf"):
            for metric in ("dot", "cosine", "l2"):
                name = f"{kind}_{metric}"
                put(home, name, items, "--kind", kind, "--metric", metric, "--form", "f32")
                for where, may in conditions:
                    check_search(home, name, items, metric, rng.normal(size=D), where, may, "--effort", "1200")
        put(home, "i8", items)
        check_search(home, "i8", items, "dot", rng.normal(size=D), None, lambda i: True, "--effort", "1200")
        home.run("items", "compact", "hnsw_dot")
        check_search(home, "hnsw_dot", items, "dot", rng.normal(size=D), "year >= 2000", lambda i: i.get("year", 0) >= 2000, "--effort", "1200")


def test_a_search_like_an_item_leaves_it_out_and_shows_what_it_is_asked_to():
    with Home() as home:
        items = films(300)
        put(home, "t", items, *FLAT)
        found = home.json("items", "search", "t", "--like", "f9", "--exclude", "f3", "--exclude", "f4", "--exclude", "nobody", "--show", "year", "--show", "genre")
        wanted = rank([i for i in items if i["id"] not in ("f9", "f3", "f4")], items[9]["vector"])[0][:10]
        assert [h["id"] for h in found["hits"]] == wanted
        for h in found["hits"]:
            item = items[int(h["id"][1:])]
            assert h["year"] == item.get("year") and h["genre"] == item.get("genre")
        text = home.run("items", "search", "t", "--like", "f9", "--k", "3").stdout.splitlines()
        assert text[0].split() == ["rank", "id", "score", "title"] and len(text) == 4
        assert text[1].split()[0] == "1" and "Film " in text[1]


BAD = [
    ('{"id": "x"', "JSON"), ("[1]", "not an object"), ('{"vector": [1]}', "no id"), ('{"id": ""}', "no id"), ('{"id": 1.5}', "no id"),
    ('{"id": "%s"}' % ("x" * 256), "no id"), ('{"id": "x", "id": "y"}', "JSON"), ('{"id": "x", "vector": 3}', "list of numbers"),
    ('{"id": "x", "vector": []}', "list of numbers"), ('{"id": "x", "vector": [1, 2, 3]}', "3 numbers"), ('{"id": "x", "vector": [1, 2, 3, 4, 5, 6, 7, "8"]}', "number 8"),
    ('{"id": "x", "vector": [1, 2, 3, 4, 5, 6, 7, NaN]}', "JSON"), ('{"id": "x", "vector": [1e39, 2, 3, 4, 5, 6, 7, 8]}', "1e+39"),
    ('{"id": "x", "year": 1e39}', "1e+39"), ('{"id": "x", "year": {"a": 1}}', "'year'"), ('{"id": "x", "year": "1990"}', "year"), ('{"id": "x", "genre": "g1"}', "genre"),
    ('{"id": "x", "title": 3}', "title"), ('{"id": "x", "genre": [["a"]]}', "'genre'"), ('{"id": "x", "": 1}', "''"), ('{"id": "x", "%s": 1}' % ("n" * 48), "nnn"),
    ('{"id": "a\\u0000b"}', "JSON"), ('{"id": "x", "t\\u0000": 1}', "JSON"), ("\xff", "JSON"), ("null", "JSON"),
]


def test_a_bad_line_is_named_and_nothing_before_it_is_lost():
    with Home() as home:
        items = films(10)
        put(home, "t", items[:4], *FLAT)
        for n, (bad, word) in enumerate(BAD):
            path = home.file(f"bad{n}.jsonl", "")
            with open(path, "w", encoding="latin-1" if bad == "\xff" else "utf-8") as f:
                f.write(lines(items[4:7]) + bad + "\n" + lines(items[7:]))
            said = complaint(home, "items", "put", "t", path)
            assert f"{path}:4: " in said and word in said and "(3 items were put before it)" in said, said
            assert got(home, "t", [f"f{i}" for i in range(7)]) == items[:7]
            assert "'f7'" in complaint(home, "items", "get", "t", "f7"), "what came behind it is not there"
            home.run("items", "delete", "t", "f4", "f5", "f6")
        two = home.file("two.jsonl", lines(items[4:6]) + '{"id": "x", "year": "1990"}\n{"id": 0.5}\n')
        said = complaint(home, "items", "put", "t", two)
        assert f"{two}:3: " in said, "of two bad lines in a batch the first is named: " + said
        assert "absent.jsonl" in complaint(home, "items", "put", "t", two, "absent.jsonl")
        assert "folder" in complaint(home, "items", "put", "t", home.path)


def test_a_wrong_command_line_is_named():
    with Home() as home:
        put(home, "t", films(5), *FLAT)
        put(home, "bare", [{"id": "a"}])
        q = json.dumps([1] * D)
        for args, word in (
                (["put", "t", "--kind", "hnsw"], "--kind"), (["put", "t", "--metric", "l2"], "--metric"), (["put", "t", "--form", "i8"], "--form"),
                (["put", "t", "--dims", "3"], "--dims"), (["put", "t", "--seed", "5"], "--seed"), (["put", "bare", "--dims", "3"], "--dims"),
                (["put", "n", "--kind", "tree", home.file("x.jsonl", '{"id": "a", "vector": [1]}')], "tree"), (["put", "n", "--dims", "70000"], "--dims"),
                (["put", "n", "--links", "1"], "--links"), (["put", "n", "--batch", "0"], "--batch"), (["put", "n"], "no items"), (["put", "a/b"], "'a/b'"),
                (["get", "none", "a"], "'none'"), (["get", "t"], "--all"), (["get", "t", "f1", "--all"], "--all"), (["get", "t", "nobody"], "'nobody'"), (["delete", "none", "a"], "'none'"), (["stats", "none"], "'none'"),
                (["compact", "none"], "'none'"), (["verify", "none"], "'none'"), (["search", "none", "--like", "a"], "'none'"), (["search", "t"], "--vector"),
                (["search", "t", "--vector", q, "--like", "f1"], "--vector"), (["search", "t", "--vector", "[1]"], "1 numbers"), (["search", "t", "--vector", "1"], "JSON"),
                (["search", "t", "--vector", "[1,"], "JSON"), (["search", "t", "--vector", json.dumps(["x"] * D)], "number 1"), (["search", "t", "--like", "nobody"], "'nobody'"),
                (["search", "bare", "--like", "a"], "without vectors"), (["search", "t", "--vector", q, "--k", "0"], "--k"), (["search", "t", "--vector", q, "--effort", "-1"], "--effort"),
                (["search", "t", "--vector", q, "--where", "yaer > 3"], "did you mean 'year'"), (["search", "t", "--vector", q, "--where", "year > "], "column 8"),
                (["search", "t", "--vector", q, "--show", "x"], "'x'")):
            assert word in complaint(home, "items", *args), args
        assert sorted(home.json("items", "list")) == ["bare", "t"], "nothing is made by a wrong command"
        done = home.run("items", "list", "--home", os.path.join(home.path, "elsewhere"))
        assert done.stdout == "" and "items put" in done.stderr


def test_a_data_set_and_a_models_factors_make_a_table():
    with Home() as home:
        home.run("data", "generate", "--as", "world", "--users", "200", "--items", "150", "--sessions", "10")
        said = home.json("items", "put", "films", "--data", "world", "--factors", "agent:ials", *FLAT)
        assert said["put"] == said["items"] == 150 and 100 < said["vectors"] <= 150
        stats = home.json("items", "stats", "films")
        shown = home.json("data", "show", "world")
        assert {(c["name"], c["type"]) for c in stats["columns"]} == {(c["name"], c["type"]) for c in shown["columns"] if c["of"] == "item"}
        artifact = home.json("fit", "agent:ials", "--data", "world")["nodes"][0]
        assert artifact["cached"], "the factors are those that fit makes"
        home.json("items", "put", "again", "--data", "world", "--factors", os.path.join(home.path, artifact["artifact"]), *FLAT)
        search = ["--vector", json.dumps([1] * stats["index"]["dims"]), "--k", "20"]
        assert home.json("items", "search", "films", *search)["hits"] == home.json("items", "search", "again", *search)["hits"]
        home.json("items", "put", "bare", "--data", "world")
        assert home.json("items", "stats", "bare")["index"] is None
        for args, word in ((["--factors", "agent:ials"], "--data"), (["--data", "none"], "'none'"), (["--data", "world", "--factors", "agent:ease"], "agent:ease"),
                           (["--data", "world", "x.jsonl"], "x.jsonl"), (["--data", "world", "--factors", "none.evm"], "none.evm")):
            assert word in complaint(home, "items", "put", "films", *args), args
        assert "150 items" in home.run("items", "stats", "films").stdout


def test_compacting_keeps_what_is_there_and_drops_what_is_not():
    with Home() as home:
        items = films(600)
        put(home, "t", items, *FLAT)
        put(home, "t", [dict(item, title="again") for item in items[:300]])
        home.run("items", "delete", "t", *[f"f{i}" for i in range(100, 200)])
        before = home.json("items", "stats", "t")
        said = home.json("items", "compact", "t")
        after = home.json("items", "stats", "t")
        assert after["items"] == before["items"] == 500 and said["bytes"] == after["snapshot_bytes"] + after["log_bytes"]
        assert after["log_bytes"] < before["log_bytes"] and after["generation"] > before["generation"]
        left = [dict(item, title="again") if i < 300 else item for i, item in enumerate(items) if not 100 <= i < 200]
        assert got(home, "t", [item["id"] for item in left]) == left
        check_search(home, "t", left, "dot", np.ones(D), 'title == "again"', lambda i: i["title"] == "again")
        assert home.json("items", "verify", "t")["ok"]


def files_of(folder):
    return sorted(f for f in os.listdir(folder) if os.path.getsize(os.path.join(folder, f)) > 0)


def test_a_damaged_file_is_named_and_not_touched():
    with Home() as home:
        put(home, "t", films(500), *FLAT)
        home.run("items", "compact", "t")
        put(home, "t", films(60, seed=2), "--batch", "20")
        folder = os.path.join(home.path, "items", "t")
        assert [name.split(".")[0] for name in files_of(folder)] == ["log", "snapshot"]
        for name in files_of(folder):
            path = os.path.join(folder, name)
            with open(path, "rb") as f:
                whole = f.read()
            damaged = bytearray(whole)
            damaged[len(damaged) // 2] ^= 0x40
            with open(path, "wb") as f:
                f.write(damaged)
            said = complaint(home, "items", "verify", "t")
            assert name in said, said
            with open(path, "rb") as f:
                assert f.read() == bytes(damaged)
            with open(path, "wb") as f:
                f.write(whole)
        assert home.json("items", "verify", "t") == {"table": "t", "ok": True, "items": 500, "cut_bytes": 0}


WRITER = """
local items = require "evection.items"
local t = items.open("t", { create = true, n_dims = 8, kind = "flat" })
io.write("open\\n")
io.flush()
for i = 1, 1e9 do
  t:put { { id = "a" .. i, vector = { i, 1, 2, 3, 4, 5, 6, 7 }, n = i }, { id = "b" .. i, n = i } }
  if i > 20 then t:delete("b" .. i - 20) end
  io.write(i, "\\n")
  io.flush()
end
"""


def start(home, *args, **kw):
    return subprocess.Popen([EVECTION, *args], env=dict(os.environ, EVECTION_HOME=home.path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)


def test_one_writes_at_a_time_and_others_read():
    with Home() as home:
        p = start(home, "run", home.file("writer.lua", WRITER), stdin=subprocess.DEVNULL)
        try:
            assert p.stdout.readline() == "open\n"
            while p.stdout.readline() != "5\n":
                pass
            done = home.run("items", "put", "t", home.file("x.jsonl", '{"id": "x"}'), code=2)
            assert "items/t" in done.stderr, done.stderr
            home.run("items", "compact", "t", code=2)
            assert home.json("items", "stats", "t")["items"] >= 10
            assert home.json("items", "get", "t", "a5")[0]["n"] == 5
        finally:
            p.kill()
            p.communicate()
        home.run("items", "put", "t", home.file("x.jsonl", '{"id": "x"}'))


def test_what_was_acknowledged_survives_kill_9():
    with Home() as home:
        script, rng = home.file("writer.lua", WRITER), np.random.default_rng(5)
        for _ in range(8):
            p = start(home, "run", script, stdin=subprocess.DEVNULL)
            assert p.stdout.readline() == "open\n", p.communicate()
            time.sleep(float(rng.uniform(0.01, 0.2)))
            p.kill()
            said = p.communicate()[0].split("\n")[:-1]  # a line is written after put has returned
            last = int(said[-1]) if said else 0
            if last == 0:
                continue
            wanted = [f"a{i}" for i in range(1, last + 1)] + [f"b{i}" for i in range(max(1, last - 18), last + 1)]
            found = {item["id"]: item["n"] for item in got(home, "t", wanted)}
            assert found == {id: int(id[1:]) for id in wanted}
            there = home.json("items", "stats", "t")
            assert there["items"] >= len(wanted)
            home.run("items", "verify", "t")


def test_a_put_that_is_killed_leaves_whole_batches_of_the_input():
    with Home() as home:
        items = films(60000)
        path = home.file("many.jsonl", lines(items))
        for after in (0.05, 0.15, 0.3):
            p = start(home, "items", "put", f"t{after}", path, "--batch", "100", *FLAT)
            time.sleep(after)
            p.kill()
            p.communicate()
            if f"t{after}" not in home.json("items", "list"):
                continue
            n = home.json("items", "stats", f"t{after}")["items"]
            assert n % 100 == 0 or n == len(items)
            if n > 0:
                assert got(home, f"t{after}", [f"f{i}" for i in (0, n // 2, n - 1)]) == [items[i] for i in (0, n // 2, n - 1)]
            if n < len(items):
                complaint(home, "items", "get", f"t{after}", f"f{n}")


def test_an_interrupted_put_leaves_what_was_acknowledged():
    with Home() as home:
        items = films(2000)
        p = start(home, "items", "put", "t", "--batch", "500", *FLAT, stdin=subprocess.PIPE)
        p.stdin.write(lines(items[:1700]))
        p.stdin.flush()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            done = home.run("items", "stats", "t", "--json", code=None)
            if done.returncode == 0 and json.loads(done.stdout)["items"] == 1500:
                break
            time.sleep(0.05)
        p.send_signal(signal.SIGINT)
        code = p.wait(timeout=60)
        said = p.stderr.read()
        p.stdin.close()
        p.stdout.close()
        assert code == 130 and said == "evection: 1500 items are in table 't'\nevection: interrupted\n", (code, said)
        assert home.json("items", "stats", "t")["items"] == 1500


def test_a_full_disk_is_an_error_and_loses_nothing():
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    with Home() as home:
        items = films(8000)
        path = home.file("many.jsonl", lines(items))
        done = subprocess.run([EVECTION, "items", "put", "t", path, "--batch", "50", *FLAT], env=dict(os.environ, EVECTION_HOME=home.path), capture_output=True, text=True,
                              preexec_fn=limit, restore_signals=False, timeout=60)
        assert done.returncode == 1 and "File too large" in done.stderr, done
        n = home.json("items", "stats", "t")["items"]
        assert 0 < n < 8000 and f"({n} items were put before it)" in done.stderr, (n, done.stderr)
        assert got(home, "t", [f"f{i}" for i in range(n)]) == items[:n]
        put(home, "t", items[n:])
        assert home.json("items", "stats", "t")["items"] == 8000


def test_a_folder_that_cannot_be_written_is_read_all_the_same():
    with Home() as home:
        put(home, "t", films(20), *FLAT)
        home.run("items", "compact", "t")
        put(home, "t", films(5, seed=2))
        folder = os.path.join(home.path, "items", "t")
        for path in (home.path, os.path.dirname(folder), folder):
            os.chmod(path, 0o555)
        for name in os.listdir(folder):
            os.chmod(os.path.join(folder, name), 0o444)
        path = home.file("x.jsonl", '{"id": "x"}\n') if os.geteuid() == 0 else "/dev/null"
        who = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}

        def run(*args):
            return subprocess.run([EVECTION, "items", *args], env=dict(os.environ, EVECTION_HOME=home.path), capture_output=True, text=True, timeout=60, **who)
        try:
            if run("list").returncode != 0:
                return  # the checkout itself is nobody's to read
        except PermissionError:
            return
        assert json.loads(run("stats", "t", "--json").stdout)["items"] == 20
        assert run("search", "t", "--like", "f3").returncode == 0
        for args in (("put", "t", path), ("delete", "t", "f1"), ("compact", "t"), ("put", "new", path)):
            done = run(*args)
            assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1, (args, done)
        for path in (home.path, os.path.dirname(folder), folder):
            os.chmod(path, 0o755)
        assert home.json("items", "stats", "t")["items"] == 20


if __name__ == "__main__":
    main(globals())
