"""The command line: help, complaints, JSON, files that are wrong, an agent of one's own, interruption."""
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter

from support import EVECTION, ROOT, Home, main

DUMP = os.path.join(ROOT, "tests", "e2e", "dump.lua")
HAND_WRITTEN = os.path.join(ROOT, "policies", "compositions", "hand_written.yaml")

# What each verb wants on its command line to get as far as its options.
ARGUMENTS = {
    "data import": ["x.csv"], "data generate": [], "data show": ["x"], "data list": [], "agents": [], "check": ["x.lua"], "fit": ["agent:popular"],
    "eval": ["agent:popular"], "evolve": ["x.yaml"], "lineage": [], "credit": ["agent:popular"], "serve": ["agent:popular"], "run": None,
    "items put": ["x", "x.jsonl"], "items get": ["x", "a"], "items delete": ["x", "a"], "items search": ["x"], "items stats": ["x"], "items list": [],
    "items compact": ["x"], "items verify": ["x"], "ope": ["x"], "ope import": ["x"],
    "ledger stats": [], "ledger import": ["x.jsonl"], "ledger export": [], "ledger prune": [], "ledger range": [],
    "versions": [], "stage": ["x"], "promote": ["0123abcd"], "rollback": [], "canary start": ["0123abcd"], "canary status": [], "canary stop": [],
}

# Scores by rarity; the count stands in the knob `sign`.
OWN_AGENT = """
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "rare", role = "recall",
  about = "The least interacted-with items.",
  space = { sign = space.linear(-1, 1, -1) },
  fit_knobs = { "sign" },
  fit = function(knobs, data)
    return data:item_scores(data:item_counts() * knobs.sign)
  end,
}
"""

SLOW_AGENT = OWN_AGENT.replace('"rare"', '"slow"').replace("  fit_knobs", """  act = function(model, request, slate)
    local x = 0
    for i = 1, 200000 do x = x + math.sin(i) end
    model:recall(request, slate)
  end,
  fit_knobs""")


def generate(home, name="world", users=200, items=150, sessions=10):
    home.run("data", "generate", "--as", name, "--users", str(users), "--items", str(items), "--sessions", str(sessions))


def verbs(home):
    return re.findall(r"^  ((?:data |items |ledger |ope |canary )?[a-z]+)  +\S", home.run("--help").stdout, re.M)


def options(help_text):
    """(name, metavar) of every option a help text lists; a flag's metavar is empty."""
    return re.findall(r"^  --([a-z-]+)(?: (\S+))?  ", help_text, re.M)


def complaint(home, *args, **kw):
    """The one line that a wrong command line gets; there must be nothing else."""
    done = home.run(*args, code=2, **kw)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1, (args, done.stdout, done.stderr)
    assert done.stderr.startswith("evection: ") and "traceback" not in done.stderr, done.stderr
    return done.stderr


def test_every_verb_explains_itself():
    with Home() as home:
        names = verbs(home)
        assert sorted(names) == sorted(ARGUMENTS), names
        for name in names:
            done = home.run(*name.split(), "--help")
            assert done.stdout.startswith(f"usage: evection {name} ") and done.stderr == "", name
            assert "example:\n  evection " + name in done.stdout
            assert {"json", "quiet", "home", "threads"} <= {o for o, _ in options(done.stdout)}, name
        assert home.run("--version").stdout.startswith("evection ")
        assert os.listdir(home.path) == [], "help makes no files"


def test_a_wrong_command_line_is_one_line_and_exit_code_2():
    with Home() as home:
        assert "'frobnicate'" in complaint(home, "frobnicate")
        assert "'eval'" in complaint(home, "evla") and "'data import'" in complaint(home, "data", "imprt")
        assert "second word" in complaint(home, "data")
        for name, args in ARGUMENTS.items():
            if args is None:
                continue
            words, text = name.split(), home.run(*name.split(), "--help").stdout
            assert "--nonsense" in complaint(home, *words, *args, "--nonsense"), name
            assert "'-x'" in complaint(home, *words, *args, "-x"), name
            for option, metavar in options(text):
                if not metavar:
                    assert "takes no value" in complaint(home, *words, *args, f"--{option}=1"), (name, option)
                    continue
                assert "wants a value" in complaint(home, *words, *args, f"--{option}"), (name, option)
                if metavar in ("N", "X", "K", "SHARE"):
                    for bad in ("1x", "", "--", "99999999999999999999" if metavar != "X" and metavar != "SHARE" else "nan"):
                        said = complaint(home, *words, *args, f"--{option}={bad}")
                        assert f"--{option}" in said and f"'{bad}'" in said, said
                    assert "twice" in complaint(home, *words, *args, f"--{option}=1", f"--{option}=1"), (name, option)
        for name in ("check", "fit", "eval", "evolve", "serve", "run", "data show", "items put", "items delete", "items search", "items stats"):
            assert "is missing" in complaint(home, *name.split()), name
        for name in ("fit", "eval", "evolve", "serve", "data show", "agents", "lineage", "data list", "data generate", "items search", "items list"):
            assert "'b2'" in complaint(home, *name.split(), *(["a"] if name not in ("data list", "data generate", "items list") else []), "b2"), name


def test_values_out_of_range_are_refused():
    with Home() as home:
        generate(home)
        ask = ["eval", "agent:popular", "--data", "world"]
        for more, quoted in (
                (["--users", "2"], "users"), (["--users", "0"], "users"), (["--seed", "-1"], "seed"), (["--cutoffs", "0"], "'0'"),
                (["--cutoffs", "5,x"], "'x'"), (["--fold", "train"], "'train'"), (["--threads", "1000"], "1000"), (["--refit"], "refit"),
                (["--set", "popular"], "popular"), (["--set", "popular.x=1"], "'x'"), (["--set", "popula.live_weight=1"], "'popular'"),
                (["--set", "popular.live_weight=0"], "live_weight"), (["--set", "popular.live_weight=much"], "much")):
            assert quoted in complaint(home, *ask, *more), more
        assert "'nope'" in complaint(home, "eval", "agent:popular", "--data", "nope")
        assert "--data" in complaint(home, "eval", "agent:popular")
        assert "'popular'" in complaint(home, "eval", "agent:popula", "--data", "world")
        assert "'nope'" in complaint(home, "data", "show", "nope") and "nope" in complaint(home, "agents", "nope")
        assert "absent.lua" in complaint(home, "run", "absent.lua")
        for more in (["--port", "70000"], ["--workers", "0"], ["--deadline-ms", "0"], ["--host", "nowhere"]):
            complaint(home, "serve", "agent:popular", "--data", "world", *(more if more[0] == "--port" else ["--port", "0", *more]))


def test_json_is_one_document_on_standard_output():
    with Home() as home:
        clicks = home.file("c.csv", "user,item\n" + "".join(f"u{n % 12},i{n // 12}\n" for n in range(240)))
        plan = home.file("p.yaml", "composition: agent:item_knn\ndata: world\nproposers: [random]\nbudget: { evaluations: 2 }\n")
        for args, field in (
                (["data", "import", clicks, "--as", "c", "--split", "ratio"], "interactions"),
                (["data", "generate", "--users", "200", "--items", "150", "--sessions", "10"], "items"),
                (["data", "show", "world"], "folds"), (["data", "list"], None), (["agents"], None), (["agents", "ease"], "knobs"),
                (["check", HAND_WRITTEN], "files"), (["fit", "agent:ease", "--data", "world"], "nodes"), (["eval", "agent:ease", "--data", "world"], "metrics"),
                (["evolve", plan], "champion"), (["lineage"], "lineage")):
            done = home.run(*args, "--json")
            document = json.loads(done.stdout)  # anything beside one document would not parse
            assert (field in document) if field else isinstance(document, list) and document, (args, document)
            assert home.run(*args, "--json", "--quiet", *(["--fresh"] if args[0] == "evolve" else [])).stderr == "", args


def test_eval_gives_every_metric_its_interval_and_says_what_was_measured():
    with Home() as home:
        generate(home)
        r = home.json("eval", "agent:item_knn", "--data", "world", "--seed", "3", "--cutoffs", "7,20")
        assert {"data", "fold", "genome", "seed", "seconds", "max_rss_mb", "metrics", "n_users"} <= set(r)
        assert (r["data"], r["fold"], r["seed"]) == ("world", "valid", 3) and re.fullmatch("[0-9a-f]{64}", r["genome"])
        assert 0 < r["seconds"] < 60 and 1 < r["max_rss_mb"] < 4000
        names = ["recall", "ndcg", "hit", "precision", "mrr", "map", "coverage", "gini", "novelty", "diversity"]
        assert {f"{n}@{k}" for n in names for k in (7, 20)} | {"latency_p50_ms", "latency_p99_ms"} == set(r["metrics"])
        for name, m in r["metrics"].items():
            assert set(m) == {"value", "low", "high"} and m["low"] <= m["high"], name
            if name.split("@")[0] in ("recall", "ndcg", "hit", "precision", "mrr", "map"):
                assert 0 < m["low"] <= m["value"] <= m["high"] < 1, (name, m)
        assert r["n_users"] == home.json("data", "show", "world")["folds"]["valid"]["users"]

        def steady(result):
            return {n: m for n, m in result["metrics"].items() if not n.startswith("latency")}
        again = home.json("eval", "agent:item_knn", "--data", "world", "--seed", "3", "--cutoffs", "20,7", "--threads", "1")
        assert steady(again) == steady(r)
        few = home.json("eval", "agent:item_knn", "--data", "world", "--users", "0.25")
        assert few["n_users"] == -(-r["n_users"] // 4)


def test_an_agent_alone_with_a_knob_set_is_the_composition_that_says_the_same():
    with Home() as home:
        generate(home)
        path = home.file("c.yaml", "name: c\nnodes:\n  item_knn: { agent: item_knn, knobs: { shrink: 50, alpha: 0.3 } }\noutput: item_knn\n")
        one = home.json("eval", "agent:item_knn", "--data", "world", "--set", "item_knn.shrink=50", "--set", "item_knn.alpha=0.3")
        two = home.json("eval", path, "--data", "world")
        plain = home.json("eval", "agent:item_knn", "--data", "world")
        assert one["genome"] == two["genome"] != plain["genome"]
        assert one["metrics"]["ndcg@20"] == two["metrics"]["ndcg@20"] != plain["metrics"]["ndcg@20"]
        fit = home.json("fit", path, "--data", "world")
        assert fit["genome"] == one["genome"] and fit["nodes"][0]["cached"], "an artifact is made once"
        assert os.path.exists(os.path.join(home.path, fit["nodes"][0]["artifact"]))


BROKEN = {
    "agent.lua": ("""local agent = require "evection.agent"
return agent {
  name = "Two Words",
  role = "recal",
  knobs = {},
  fit = 3,
}
""", {1: "about", 3: "Two Words", 4: "recal", 5: "knobs", 6: "fit"}),
    "syntax.lua": ("return agent {\n  name = 'x' role = 'y'\n}\n", {2: "role"}),
    "raises.lua": ("local x = nil\n\nreturn x.y\n", {3: "x"}),
    "escapes.lua": ("\nlocal f = io.open('/etc/passwd')\nreturn f\n", {2: "io"}),
    "composition.yaml": ("""name: broken
nodes:
  a: { agent: popular, n: 0 }
  b: { agent: itemknn }
  c: { agent: item_knn, knobs: { shrimp: 3, alpha: 7 } }
  d: { agent: rank_fusion, from: [a, zed] }
  e: { agent: mmr, from: f }
  f: { agent: mmr, from: e }
  g: { agent: mmr }
""", {1: "output", 3: "n must", 4: "'item_knn'", 5: "'shrink'", 6: "'zed'", 7: "cycle", 9: "one input"}),
    "reward.yaml": ("""name: r
objectives:
  - { maximise: ndcg@20, weight: -1 }
  - 3
constraints: [ "gini < 3" ]
penalty: -1
extra: 2
""", {3: "'-1'", 4: "objective 2", 5: "gini < 3", 6: "penalty", 7: "'extra'"}),
    "plan.yaml": ("""name: a/b
composition: agent:popular
evolve: ["nothing.*"]
proposers: [halving, hill]
budget: { evaluations: 0, minutes: 3 }
promotion: { confidence: 2, metric: gini@20 }
batch: 1.5
timeout_s: -1
reward: likes@20
""", {1: "a/b", 3: "nothing", 4: "'hill'", 5: "'minutes'", 6: "gini@20", 7: "'1.5'", 8: "timeout_s", 9: "likes@20"}),
    "fields.yaml": ("composition: agent:popular\nevolvee: 3\nbatch: x\n", {2: "'evolve'", 3: "batch"}),
    "yaml.yaml": ("a: [1\nb: 2\n", {2: ""}),
    "other.yaml": ("hello: 1\n", {1: "neither"}),
}


def test_check_tells_every_error_of_every_file_at_once_each_with_its_line():
    with Home() as home:
        paths = {name: home.file(name, text) for name, (text, _) in BROKEN.items()}
        together = home.run("check", *paths.values(), code=2)
        assert together.stdout == ""
        for name, (_, wanted) in BROKEN.items():
            alone = home.run("check", paths[name], code=2)
            for text in (alone.stderr, together.stderr):
                lines = [line for line in text.splitlines() if line.startswith(paths[name])]
                found = Counter()
                for line in lines:
                    number = re.match(re.escape(paths[name]) + r":(\d+): ", line)
                    assert number, line
                    found[int(number[1])] += 1
                assert set(found) == set(wanted), (name, text)
                for number, word in wanted.items():
                    assert any(f":{number}: " in line and word in line for line in lines), (name, number, word, text)
            assert len(alone.stderr.splitlines()) == len(lines) + 1, "the errors, and how many they are"
        done = home.run("check", HAND_WRITTEN, paths["plan.yaml"], "--json", code=2)
        document = json.loads(done.stdout)
        assert not document["ok"] and [f["ok"] for f in document["files"]] == [True, False]
        assert len(document["files"][1]["errors"]) >= len(BROKEN["plan.yaml"][1])
        shipped = [os.path.join(d, f) for top in ("agents", "policies") for d, _, files in os.walk(os.path.join(ROOT, top)) for f in files]
        assert home.run("check", *shipped).stdout.count(": a sound ") == len(shipped)


def test_an_agent_of_ones_own_is_a_file_beside_the_composition():
    with Home() as home:
        generate(home)
        home.file("mine/rare.lua", OWN_AGENT)
        path = home.file("mine/c.yaml", "nodes:\n  r: { agent: rare.lua }\noutput: r\n")
        assert home.json("eval", path, "--data", "world")["metrics"]["recall@20"]["value"] < 0.2
        dump = json.loads(home.run("run", DUMP, "world", path, "{}", "10").stdout)
        counts = Counter(i for row in dump["lists"] for i in row["train"])
        for row in dump["lists"]:
            got = [counts[i] for i in row["items"]]
            assert got == sorted(got) and not set(row["items"]) & set(row["train"]), row["user"]
            missed = [counts[i] for i in counts if i not in row["items"] and i not in row["train"]]
            assert got[-1] <= min(missed, default=10**9)
        common = home.json("eval", path, "--data", "world", "--set", "r.sign=1")
        popular = home.json("eval", "agent:popular", "--data", "world")
        assert common["metrics"]["recall@20"] == popular["metrics"]["recall@20"], "rarity the other way round is popularity"


def test_an_error_inside_an_agent_names_its_node_file_and_line():
    with Home() as home:
        generate(home)
        bodies = {"io": "io.open('x')", "os": "os.execute('true')", "ffi": "require 'ffi'", "nothing": "error 'nothing'"}
        for word, body in bodies.items():
            home.file("bad.lua", OWN_AGENT.replace("    return data:item_scores", f"    {body}\n    return data:item_scores"))
            path = home.file("c.yaml", "nodes:\n  mine: { agent: bad.lua }\noutput: mine\n")
            done = home.run("eval", path, "--data", "world", code=1)
            assert len(done.stderr.splitlines()) == 1 and "node mine: fit:" in done.stderr, done.stderr
            assert "bad.lua:10:" in done.stderr and word in done.stderr, done.stderr


def test_damaged_files_are_named_not_read():
    with Home() as home:
        generate(home)
        home.run("fit", "agent:ease", "--data", "world")
        artifact = os.path.join(home.path, "artifacts", os.listdir(os.path.join(home.path, "artifacts"))[0])
        for path, args in ((artifact, ["eval", "agent:ease"]), (os.path.join(home.path, "data", "world.evs"), ["eval", "agent:popular"])):
            with open(path, "r+b") as f:
                f.seek(os.path.getsize(path) * 3 // 4)
                byte = f.read(1)
                f.seek(-1, 1)
                f.write(bytes([byte[0] ^ 0x40]))
            assert os.path.basename(path) in home.run(*args, "--data", "world", code=2).stderr
        home.file("ledger.db", "this is no ledger, however one looks at it\n" * 50)
        assert "ledger.db" in complaint(home, "lineage")


def interrupt(home, args, after, times=1):
    """SIGINT once the program listens and `after` seconds have gone. → exit code, standard error"""
    p = subprocess.Popen([EVECTION, *args], env=dict(os.environ, EVECTION_HOME=home.path), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE, text=True)
    try:
        caught = 0
        while not caught & (1 << (signal.SIGINT - 1)) and p.poll() is None:
            time.sleep(0.002)
            with open(f"/proc/{p.pid}/status", encoding="ascii") as f:
                caught = int(next((line.split()[1] for line in f if line.startswith("SigCgt")), "0"), 16)
        time.sleep(after)
        for _ in range(times):
            p.send_signal(signal.SIGINT)
            time.sleep(0.05)
        _, said = p.communicate(timeout=60)
        return p.returncode, said
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()


def files_of(home):
    return sorted(os.path.join(d, f) for d, _, files in os.walk(home.path) for f in files)


def test_an_interrupted_program_exits_with_130_and_leaves_no_half_file():
    with Home() as home:
        generate(home, "big", 3000, 3000, 60)
        lines = "".join(f"u{n % 50021},i{n % 49999}\n" for n in range(1_500_000))
        clicks = home.file("big.csv", "user,item\n" + lines)
        home.file("slow.lua", SLOW_AGENT)
        slow = home.file("slow.yaml", "nodes:\n  s: { agent: slow.lua }\noutput: s\n")
        before, codes = files_of(home), {}
        cases = {
            "import": ["data", "import", clicks, "--as", "new", "--split", "ratio", "--duplicates", "first"],
            "generate": ["data", "generate", "--as", "new", "--users", "40000", "--items", "20000", "--sessions", "40"],
            "fit": ["fit", "agent:ials", "--data", "big", "--set", "ials.n_dims=64", "--threads", "2"],
            "fit ease": ["fit", "agent:ease", "--data", "big", "--threads", "2"],
            "eval": ["eval", slow, "--data", "big", "--quiet"],
        }
        for name, args in cases.items():
            codes[name] = []
            for after in (0.0, 0.05, 0.15):
                code, said = interrupt(home, args, after)
                codes[name].append(code)
                assert code in (0, 130), (name, after, code, said)
                if code == 130:
                    assert said == "evection: interrupted\n", (name, said)
                for path in set(files_of(home)) - set(before):
                    whole = path.endswith((".evs", ".evm")) and (code == 0 or name == "eval")
                    assert whole, (name, after, path)
                    os.remove(path)
            assert 130 in codes[name], (name, codes)


def test_a_program_that_cannot_hear_an_interruption_ends_at_the_third():
    with Home() as home:
        generate(home)
        home.file("loop.lua", OWN_AGENT.replace("    return data", "    while true do end\n    return data"))
        path = home.file("c.yaml", "nodes:\n  r: { agent: loop.lua }\noutput: r\n")
        code, _ = interrupt(home, ["eval", path, "--data", "world"], 0.2, times=3)
        assert code == -signal.SIGINT


if __name__ == "__main__":
    main(globals())
