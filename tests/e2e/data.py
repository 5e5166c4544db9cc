"""Data sets through the command line: every format, every complaint, the folds, the facts of the real data, the sealed future."""
import hashlib
import json
import os
from collections import Counter

import numpy as np

from support import DATA, ROOT, Home, main

DUMP = os.path.join(ROOT, "tests", "e2e", "dump.lua")
HAND_WRITTEN = os.path.join(ROOT, "policies", "compositions", "hand_written.yaml")

# FOLDS NAME → every user's items in each fold, oldest first, as JSON.
FOLDS = """
local native, world = require "evection.native", require "evection.world"
local w, users = world.open(arg[1]), {}
for user = 0, w.snapshot:n_users() - 1 do
  local folds = {}
  for name, fold in pairs { train = native.TRAIN, valid = native.VALID, test = native.TEST } do
    folds[name] = native.array {}
    for i, item in ipairs(w:history(user, fold)) do folds[name][i] = w:item_id(item) end
  end
  users[w:user_id(user)] = folds
end
io.write(native.json_encode(users))
"""


def folds(home, name):
    return json.loads(home.run("run", home.file("folds.lua", FOLDS), name).stdout)


def left_behind(home):
    folder = os.path.join(home.path, "data")
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def clicks(n=100, n_users=9, n_items=25, seed=5):
    """Distinct pairs with distinct times, in an order that is not that of time."""
    rng = np.random.default_rng(seed)
    pairs = rng.choice(n_users * n_items, size=n, replace=False)
    times = 1_000_000 + rng.permutation(n) * 10
    return [(f"u{p // n_items}", f"i{p % n_items}", int(1 + p % 5), int(t)) for p, t in zip(pairs, times)]


def table(rows, header="user,item,rating,time", separator=","):
    return "\n".join([header] + [separator.join(map(str, row)) for row in rows]) + "\n"


def cut_by_time(rows, valid=0.1, test=0.2):
    """The last fifth of all interactions is the test fold, the tenth before it the validation fold."""
    ordered = sorted(rows, key=lambda row: row[3])
    users = {row[0]: {"train": [], "valid": [], "test": []} for row in rows}
    for place, (user, item, _, _) in enumerate(ordered):
        share = place / len(rows)
        users[user]["test" if share >= 1 - test - 1e-9 else "valid" if share >= 1 - test - valid - 1e-9 else "train"].append(item)
    return users


def test_every_timed_format_gives_the_same_folds():
    rows = clicks()
    quoted = [(f'"{u}"', f'"{i}"', r, t) for u, i, r, t in rows]
    objects = "".join(json.dumps({"time": t, "item_id": i, "user_id": u, "rating": r}) + "\n" for u, i, r, t in rows)
    files = {
        "a.csv": table(rows), "b.csv": table(quoted).replace("\n", "\r\n"), "c.tsv": table(rows, "user\titem\trating\ttime", "\t"),
        "d.inter": table(rows, "user_id:token\titem_id:token\trating:float\ttimestamp:float", "\t"), "e.jsonl": objects,
        "f.csv": table(rows, "who,what,how,when"),
    }
    wanted = cut_by_time(rows)
    with Home() as home:
        for name, text in files.items():
            named = ["--user", "who", "--item", "what", "--rating", "how", "--time", "when"] if name == "f.csv" else []
            made = home.json("data", "import", home.file(name, text), "--as", name, *named)
            assert (made["users"], made["items"], made["interactions"]) == (9, len({r[1] for r in rows}), 100), made
            assert folds(home, name) == wanted, name
            shown = home.json("data", "show", name)
            assert shown["timed"] and shown["rated"], name
        assert home.json("data", "list") == sorted(files)


def test_lists_are_cut_by_their_order_or_as_given():
    text = "7 1 2 3 4 5\n8 6 7\n9 1 3 5\n"
    with Home() as home:
        path = home.file("seq.txt", text)
        home.run("data", "import", path, "--as", "seq")
        assert folds(home, "seq") == {
            "7": {"train": ["1", "2", "3"], "valid": ["4"], "test": ["5"]},
            "8": {"train": ["6", "7"], "valid": [], "test": []},
            "9": {"train": ["1"], "valid": ["3"], "test": ["5"]},
        }
        parts = [home.file(f"{name}.txt", text) for name, text in (("tr", "1 10 11\n2 12\n"), ("va", "1 12\n"), ("te", "1 13\n2 10 11\n"))]
        home.run("data", "import", "--train", parts[0], "--valid", parts[1], "--test", parts[2], "--as", "three")
        got = folds(home, "three")
        assert {u: {f: sorted(items) for f, items in parts.items()} for u, parts in got.items()} == {
            "1": {"train": ["10", "11"], "valid": ["12"], "test": ["13"]}, "2": {"train": ["12"], "valid": [], "test": ["10", "11"]}}


def test_without_a_validation_file_a_tenth_of_each_users_training_is_held_out():
    rng = np.random.default_rng(2)
    lists = {u: rng.choice(200, size=rng.integers(1, 60), replace=False) for u in range(40)}
    with Home() as home:
        train = home.file("train.txt", "".join(f"{u} {' '.join(map(str, items))}\n" for u, items in lists.items()))
        test = home.file("test.txt", "".join(f"{u} {200 + u}\n" for u in lists))
        home.run("data", "import", "--train", train, "--test", test, "--as", "two")
        for user, parts in folds(home, "two").items():
            n = len(lists[int(user)])
            assert parts["test"] == [str(200 + int(user))]
            assert len(parts["valid"]) == min(int(np.floor(0.1 * n + 0.5)), n - 1), (user, n, parts)
            assert sorted(map(int, parts["train"] + parts["valid"])) == sorted(lists[int(user)])


def test_a_core_and_a_least_rating_keep_what_brute_force_keeps():
    rows = clicks(n=140, n_users=16, n_items=20, seed=9)
    with Home() as home:
        path = home.file("rated.csv", table(rows))
        home.run("data", "import", path, "--as", "core", "--min-rating", "2", "--k-core", "5", "--split", "ratio")
        kept = [r for r in rows if r[2] >= 2]
        while True:
            users, items = Counter(r[0] for r in kept), Counter(r[1] for r in kept)
            fewer = [r for r in kept if users[r[0]] >= 5 and items[r[1]] >= 5]
            if len(fewer) == len(kept):
                break
            kept = fewer
        assert 0 < len(kept) < 112, "the world of this test must lose something to the core, and not everything"
        got = {(u, i) for u, parts in folds(home, "core").items() for items in parts.values() for i in items}
        assert got == {(r[0], r[1]) for r in kept}


def test_of_a_pair_given_twice_the_one_asked_for_is_kept():
    text = "user,item,time\na,x,10\na,y,20\na,x,30\nb,x,5\nb,y,6\n"
    with Home() as home:
        path = home.file("twice.csv", text)
        done = home.run("data", "import", path, "--as", "twice", code=2)
        assert f"{path}:4:" in done.stderr and "'a'" in done.stderr and f"{path}:2" in done.stderr, done.stderr
        for which, order in (("first", ["x", "y"]), ("last", ["y", "x"])):
            home.run("data", "import", path, "--as", which, "--duplicates", which)
            parts = folds(home, which)["a"]
            assert parts["train"] + parts["valid"] + parts["test"] == order, which


# file name, text, extra arguments, line of the complaint, what it must quote
BAD = [
    ("rating.csv", "user,item,rating\na,x,1\nb,y,good\n", [], 3, "'good'"),
    ("time.csv", "user,item,time\na,x,noon\n", [], 2, "'noon'"),
    ("ragged.csv", "user,item\na,x\nb\n", [], 3, "1 fields"),
    ("hole.csv", "user,item\na,x\n\nb,y\n", [], 3, "empty line"),
    ("nobody.csv", "user,item\na,x\n,y\n", [], 3, "user is empty"),
    ("quote.csv", 'user,item\na,"x\nb,y\n', [], 2, "quote"),
    ("header.csv", "user,item\n", [], 1, "no rows"),
    ("column.csv", "user,thing\na,x\n", [], 1, "--item"),
    ("given.csv", "user,item\na,x\n", ["--time", "when"], 1, "'when'"),
    ("twice.csv", "user,item\na,x\nb,y\na,x\n", [], 4, "'x'"),
    ("empty.csv", "", [], 1, "empty"),
    ("type.inter", "user_id:token\titem_id:number\na\tx\n", [], 1, "'number'"),
    ("float.inter", "user_id:token\titem_id:token\trating:float\na\tx\t1\nb\ty\tz9\n", [], 3, "'z9'"),
    ("broken.jsonl", '{"user":"a","item":"x"}\n{"user":"b",\n', [], 2, "not JSON"),
    ("absent.jsonl", '{"user":"a","item":"x"}\n{"user":"b"}\n', [], 2, "no item"),
    ("object.jsonl", '{"user":"a","item":"x","place":{"at":1}}\n', [], 1, "'place'"),
    ("word.txt", "1 2 3\n2 4 five 6\n", [], 2, "'five'"),
    ("bytes.csv", b"user,item\na,x\nb,\xff\xfe\n", [], 3, "0xFF"),
    ("nul.csv", b"user,item\na,x\x00y\n", [], 2, "NUL"),
]


def test_bad_input_is_one_line_that_names_file_line_and_value_and_leaves_nothing():
    with Home() as home:
        for name, text, more, line, quoted in BAD:
            path = home.file(name, "")
            with open(path, "wb") as f:
                f.write(text if isinstance(text, bytes) else text.encode())
            done = home.run("data", "import", path, "--as", "bad", *more, code=2)
            assert len(done.stderr.splitlines()) == 1 and done.stdout == "", (name, done.stderr)
            assert f"{path}:{line}:" in done.stderr and quoted in done.stderr, (name, done.stderr)
            assert "traceback" not in done.stderr.lower() and ".lua" not in done.stderr
            assert left_behind(home) == [], (name, left_behind(home))
        for more, quoted in ((["--as", "../x"], "'../x'"), (["--as", "x", "--split", "half"], "'half'"), (["--as", "x", "--format", "xml"], "'xml'"),
                             (["--as", "x", "--test-share", "0.7", "--valid-share", "0.4"], "0.7"), (["--as", "x", "--k-core", "-1"], "-1"), ([], "--as")):
            done = home.run("data", "import", home.file("good.csv", "user,item\na,x\n"), *more, code=2)
            assert len(done.stderr.splitlines()) == 1 and quoted in done.stderr, done.stderr
        done = home.run("data", "import", os.path.join(home.path, "absent.csv"), "--as", "x", code=2)
        assert "absent.csv" in done.stderr and left_behind(home) == []


def test_a_failed_import_leaves_the_data_set_that_was_there():
    with Home() as home:
        home.run("data", "import", home.file("good.csv", table(clicks())), "--as", "mine")
        before = open(os.path.join(home.path, "data", "mine.evs"), "rb").read()
        home.run("data", "import", home.file("bad.csv", "user,item\na,x\nb\n"), "--as", "mine", code=2)
        assert left_behind(home) == ["mine.evs"]
        assert open(os.path.join(home.path, "data", "mine.evs"), "rb").read() == before


def test_show_says_what_is_in_the_data():
    rows = clicks()
    with Home() as home:
        items = sorted({r[1] for r in rows})
        features = "item_id:token\tprice:float\tkinds:token_seq\n" + "".join(f"{i}\t{n}.5\tk{n % 3} k{n % 4}\n" for n, i in enumerate(items))
        home.run("data", "import", home.file("c.csv", table(rows)), home.file("c.item", features), "--as", "c")
        shown = home.json("data", "show", "c")
        assert (shown["users"], shown["items"], shown["interactions"]) == (9, len(items), 100)
        assert abs(shown["density"] - 100 / 9 / len(items)) < 1e-9
        assert {(c["of"], c["name"], c["type"], c["tokens"]) for c in shown["columns"]} == {("item", "price", "float", 0), ("item", "kinds", "token list", 4)}
        cut = cut_by_time(rows)
        for fold in ("train", "valid", "test"):
            assert shown["folds"][fold] == {"interactions": sum(len(u[fold]) for u in cut.values()), "users": sum(bool(u[fold]) for u in cut.values())}
        for title, place in (("history", 0), ("popularity", 1)):
            counts = Counter(r[place] for r in rows).values()
            for bucket in shown[title]:
                low = bucket["at_least"]
                assert bucket["count"] == sum(low <= c < max(1, 2 * low) for c in counts), (title, bucket)
        assert "9 users" in home.run("data", "show", "c").stdout


def test_a_generated_world_is_its_seed():
    with Home() as home:
        hashes = {}
        for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
            home.run("data", "generate", "--as", name, "--users", "200", "--items", "150", "--sessions", "10", "--seed", seed)
            hashes[name] = hashlib.sha256(open(os.path.join(home.path, "data", name + ".evs"), "rb").read()).hexdigest()
        assert hashes["a"] == hashes["b"] != hashes["c"]
        shown = home.json("data", "show", "a")
        assert (shown["users"], shown["items"], shown["timed"]) == (200, 150, True)
        home.run("data", "generate", "--users", "3", code=2)


def past_and_future(seed):
    """960 timed interactions, the first 672 of which train; `seed` 0 leaves the rest as it was, any other changes all that is in it."""
    rng = np.random.default_rng(11)
    known = {(u, u % 40) for u in range(60)}  # everybody and everything is known from the start: ids keep their numbers
    free = [(u, i) for u in range(60) for i in range(40) if (u, i) not in known]
    order = rng.permutation(len(free))
    past, future = [free[k] for k in order[:612]], [free[k] for k in order[612:900]]
    if seed:
        rest = order[612:]
        future = [free[k] for k in np.random.default_rng(seed).choice(rest, size=288, replace=False)]
    return [f"u{u},i{i},{1_600_000_000 + 3600 * t}" for t, (u, i) in enumerate(sorted(known) + past + future)]


def test_a_time_cut_never_lets_training_see_the_future():
    items = "item_id:token\tgenre:token_seq\n" + "".join(f"i{i}\tg{i % 4} h{i % 7}\n" for i in range(40))
    agents = ["agent:popular", "agent:fresh_popular", "agent:item_knn", "agent:ease", "agent:ials", "agent:ann", "agent:similar_content", HAND_WRITTEN]
    answers, artifacts, held = [], [], []
    for seed in (0, 1, 2):
        with Home() as home:
            path = home.file("t.csv", "user,item,time\n" + "\n".join(past_and_future(seed)) + "\n")
            home.run("data", "import", path, home.file("t.item", items), "--as", "t", "--split", "time")
            assert home.json("data", "show", "t")["folds"]["train"]["interactions"] == 672
            said = []
            for agent in agents:
                dump = json.loads(home.run("run", DUMP, "t", agent, "{}", "10").stdout)
                held.append([r["valid"] for r in dump["lists"]])
                for row in dump["lists"]:
                    del row["valid"]
                said.append(dump)
            answers.append(said)
            folder = os.path.join(home.path, "artifacts")
            artifacts.append(sorted(hashlib.sha256(open(os.path.join(folder, f), "rb").read()).hexdigest() for f in os.listdir(folder)))
    assert held[0] != held[len(agents)], "the future must have changed, or this shows nothing"
    for other in (1, 2):
        for agent, a, b in zip(agents, answers[0], answers[other]):
            assert a == b, agent
        assert artifacts[0] == artifacts[other]
    assert len(artifacts[0]) >= len(agents)


def real(*path):
    path = os.path.join(DATA, *path)
    return path if os.path.exists(path) else None


def test_gowalla_has_its_published_counts():
    train, test = real("gowalla", "train.txt"), real("gowalla", "test.txt")
    if not train or not test:
        return "skipped"
    with Home() as home:
        home.run("data", "import", "--train", train, "--test", test, "--as", "gowalla")
        shown = home.json("data", "show", "gowalla")
        assert (shown["users"], shown["items"]) == (29858, 40981)
        assert shown["folds"]["train"]["interactions"] + shown["folds"]["valid"]["interactions"] == 810128
        assert shown["folds"]["test"]["interactions"] == 217242


def test_movielens_has_its_published_counts():
    files = [real("ml-100k", "ml-100k." + tail) for tail in ("inter", "item", "user")]
    if not all(files):
        return "skipped"
    with Home() as home:
        home.run("data", "import", *files, "--as", "movielens")
        shown = home.json("data", "show", "movielens")
        assert (shown["users"], shown["items"], shown["interactions"]) == (943, 1682, 100000)
        assert shown["timed"] and shown["rated"]
        with open(files[0], encoding="utf-8") as f:
            times = sorted(int(line.split("\t")[3]) for line in f.readlines()[1:])
        test = sum(t >= times[80000] for t in times)
        assert shown["folds"]["test"]["interactions"] == test
        assert shown["folds"]["valid"]["interactions"] == sum(times[70000] <= t < times[80000] for t in times)
        columns = {c["name"]: c["type"] for c in shown["columns"]}
        assert columns["class"] == "token list" and columns["occupation"] == "token"


def test_beauty_is_cut_leave_one_out():
    path = real("sequences", "Beauty.txt")
    if not path:
        return "skipped"
    with Home() as home:
        home.run("data", "import", path, "--as", "beauty")
        shown = home.json("data", "show", "beauty")
        assert (shown["users"], shown["items"]) == (22363, 12101)
        got = folds(home, "beauty")
        with open(path, encoding="utf-8") as f:
            for line in f:
                user, *items = line.split()
                assert got[user] == {"train": items[:-2], "valid": items[-2:-1], "test": items[-1:]}, user


if __name__ == "__main__":
    main(globals())
