"""Evolution: the same run from the same seed, killed or not; the sealed test fold; lineage; evaluations that misbehave."""
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import time

from support import EVECTION, ROOT, Home, main

COMPOSITION = """
name: small
nodes:
  near:  { agent: item_knn, n: 50 }
  known: { agent: popular, n: 50 }
  both:  { agent: rank_fusion, from: [near, known] }
output: both
"""
PLAN = """
name: small
composition: small.yaml
data: world
reward: ndcg@20
evolve: ["near.*", "both.*"]
proposers: [halving, tpe]
budget: { evaluations: 24 }
batch: 4
timeout_s: 60
seed: 5
"""

# An agent some of whose knob values are the end of the process that tries them.
WILD = """
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "wild", role = "recall",
  about = "Popular items, if at all.",
  space = { mode = space.choice { "fine", "loops", "eats", "fails", default = "fine" } },
  fit = function(knobs, data)
    if knobs.mode == "loops" then while true do end end
    if knobs.mode == "eats" then
      local t = {}
      for i = 1, math.huge do t[i] = ("x"):rep(1000000) .. i end
    end
    if knobs.mode == "fails" then error "it had to fail" end
    return data:item_scores(data:item_counts())
  end,
}
"""


def prepare(home, plan=PLAN, composition=COMPOSITION):
    home.run("data", "generate", "--users", "200", "--items", "150", "--sessions", "10")
    home.file("small.yaml", composition)
    return home.file("plan.yaml", plan)


def rows(home, sql, *args):
    db = sqlite3.connect(f"file:{home.path}/ledger.db?mode=rw", uri=True, timeout=10)
    try:
        db.row_factory = sqlite3.Row
        return [dict(r) for r in db.execute(sql, args)]
    finally:
        db.close()


def ledger(home, tables=("genomes", "runs", "evaluations", "looks")):
    """What the ledger says, the machine's own times and sizes aside: those columns' names say what they are."""
    return {
        table: [{k: v for k, v in row.items() if not re.search("_seconds$|_ms_wall$|_mb$", k)} for row in rows(home, f"SELECT * FROM {table} ORDER BY 1, 2")]
        for table in tables
    }


def unbroken(plan=PLAN):
    """The ledger and the outcome of a run that nobody disturbs."""
    with Home() as home:
        outcome = home.json("evolve", prepare(home, plan), "--workers", "2")
        return ledger(home), outcome


def start(home, plan, *more):
    return subprocess.Popen([EVECTION, "evolve", plan, "--workers", "2", "--quiet", *more], env=dict(os.environ, EVECTION_HOME=home.path), cwd=ROOT,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def alive(home):
    """Processes that still work in this home."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if f"EVECTION_HOME={home.path}".encode() in f.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:
            continue
    return found


def nobody_is_left(home):
    end = time.monotonic() + 5
    while alive(home):
        assert time.monotonic() < end, f"processes of a dead run live on: {alive(home)}"
        time.sleep(0.01)


def measured(home):
    """Number → when it ended, of the evaluations in the ledger so far."""
    try:
        return {r["number"]: r["ended_ms_wall"] for r in rows(home, "SELECT number, ended_ms_wall FROM evaluations")}
    except sqlite3.OperationalError:  # no ledger yet, or no tables in it
        return {}


def waits(p, seconds):
    """Whether the process still runs after that time."""
    try:
        p.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        return True


def same_outcome(a, b):
    keep = ("run", "evaluations", "failed", "given", "report")
    assert {k: a[k] for k in keep} == {k: b[k] for k in keep}
    assert {k: v for k, v in a["champion"].items() if k != "file"} == {k: v for k, v in b["champion"].items() if k != "file"}


def test_one_seed_makes_one_run_whatever_the_workers():
    one, outcome = unbroken()
    assert len(one["evaluations"]) == 24 and len(one["runs"]) == 1 and one["evaluations"][0]["sets"] in ("{}", "[]")
    assert {e["proposer"] for e in one["evaluations"]} == {"given", "halving", "tpe"}
    assert outcome["champion"]["reward"] > outcome["given"]
    for workers in ("1", "3", "8"):
        with Home() as home:
            other = home.json("evolve", prepare(home), "--workers", workers, "--threads", "2")
            assert ledger(home) == one, workers
            same_outcome(other, outcome)
    with Home() as home:
        home.json("evolve", prepare(home), "--seed", "6")
        assert [e["sets"] for e in ledger(home)["evaluations"]] != [e["sets"] for e in one["evaluations"]], "another seed is another run"


def test_a_run_killed_at_random_and_resumed_is_the_unbroken_run():
    whole, outcome = unbroken()
    for seed in (1, 2):
        rng = random.Random(seed)
        with Home() as home:
            plan, kills, midway, kept = prepare(home), 0, set(), {}
            while True:
                p = start(home, plan, "--resume", "--json")
                wanted, pause = len(kept) + rng.randrange(6), rng.uniform(0, 0.05)
                while kills < 12 and p.poll() is None and len(measured(home)) < wanted:
                    time.sleep(0.001)
                if kills >= 12 or p.poll() is not None or not waits(p, pause):
                    said, complaint = p.communicate(timeout=120)
                    assert p.returncode == 0, complaint
                    break
                os.killpg(p.pid, signal.SIGKILL)
                p.communicate()
                kills += 1
                nobody_is_left(home)
                known = measured(home)
                assert {n: known.get(n) for n in kept} == kept, "what was measured is not measured again"
                kept = known
                midway.add(len(known))
            assert len(midway - {0, 24}) >= 2, f"seed {seed}: killed at {sorted(midway)} evaluations only"
            assert ledger(home, ("evaluations", "genomes")) == {t: whole[t] for t in ("evaluations", "genomes")}, seed
            final = json.loads(said)
            assert final["champion"]["genome"] == outcome["champion"]["genome"] and final["champion"]["number"] == outcome["champion"]["number"]
            assert {k: v for k, v in final["report"].items() if k != "looks"} == {k: v for k, v in outcome["report"].items() if k != "looks"}
            assert len(rows(home, "SELECT * FROM looks")) >= 2, "every opening of the test fold is counted, those of killed reports too"


def test_an_interruption_exits_with_130_and_the_run_goes_on_later():
    whole, outcome = unbroken()
    with Home() as home:
        plan = prepare(home)
        p = start(home, plan)
        while len(measured(home)) < 3:
            assert p.poll() is None
            time.sleep(0.001)
        p.send_signal(signal.SIGINT)
        _, said = p.communicate(timeout=30)
        assert p.returncode == 130 and said == "evection: interrupted\n", (p.returncode, said)
        nobody_is_left(home)
        assert 3 <= len(measured(home)) < 24
        assert "--resume" in home.run("evolve", plan, code=2).stderr, "a run that is there is not begun again by accident"
        same_outcome(home.json("evolve", plan, "--resume"), outcome)
        assert ledger(home) == whole
        same_outcome(home.json("evolve", plan, "--fresh"), dict(outcome, report=dict(outcome["report"], looks=4)))


def test_the_test_fold_is_sealed_until_the_report():
    with Home() as home:
        plan = prepare(home)
        home.json("evolve", plan, "--no-report")
        assert ledger(home)["looks"] == [] and ledger(home)["runs"][0]["report"] is None
        home.json("eval", "agent:popular", "--data", "world")
        assert ledger(home)["looks"] == []
        outcome = home.json("evolve", plan, "--resume")
        looks = ledger(home)["looks"]
        assert [look["genome"] for look in looks] == [outcome["report"]["genomes"]["given"], outcome["report"]["genomes"]["champion"]]
        assert outcome["report"]["looks"] == 2 and {look["data_hash"] for look in looks} == {ledger(home)["runs"][0]["data_hash"]}
        assert home.json("evolve", plan, "--resume")["report"] == outcome["report"] and len(ledger(home)["looks"]) == 2, "the report is made once"
        assert home.json("eval", "agent:popular", "--data", "world", "--fold", "test", "--refit")["looks"] == 3
        assert "look 4" in home.run("eval", "agent:ease", "--data", "world", "--fold", "test").stdout
        assert {e["fold"] for e in ledger(home)["evaluations"]} == {"valid"}


def test_what_is_in_the_test_fold_changes_nothing_that_evolution_does():
    rng, seen = random.Random(4), []
    lists = {u: rng.sample(range(60), 14) for u in range(120)}
    for shift in (0, 7):
        with Home() as home:
            text = {"train": "".join(f"{u} {' '.join(map(str, items[:9]))}\n" for u, items in lists.items()),
                    "valid": "".join(f"{u} {items[9]} {items[10]}\n" for u, items in lists.items()),
                    "test": "".join(f"{u} {next(i for i in range(shift, 60 + shift) if i % 60 not in items[:11]) % 60}\n" for u, items in lists.items())}
            files = [part for name in text for part in (f"--{name}", home.file(name + ".txt", text[name]))]
            home.run("data", "import", *files, "--as", "world")
            home.file("small.yaml", COMPOSITION)
            home.run("evolve", home.file("plan.yaml", PLAN), "--quiet")
            seen.append((ledger(home)["evaluations"], ledger(home)["runs"][0]["report"]))
    assert seen[0][1] != seen[1][1], "the report must see the test fold, or this shows nothing"
    for a, b in zip(seen[0][0], seen[1][0], strict=True):
        assert {k: v for k, v in a.items() if k != "run"} == {k: v for k, v in b.items() if k != "run"}


def test_lineage_is_the_path_from_the_given_composition_to_the_champion():
    with Home() as home:
        plan = prepare(home)
        assert "no run" in home.run("lineage", code=2).stderr
        outcome = home.json("evolve", plan, "--no-report")
        by_number = {e["number"]: e for e in ledger(home)["evaluations"]}
        said = home.json("lineage")
        assert said["champion"] == outcome["champion"]["number"] and said["run"] == outcome["run"] and said["evaluations"] == 24
        path, number = [], said["champion"]
        while number is not None:
            path.insert(0, number)
            number = by_number[number]["parent"]
        assert [s["number"] for s in said["lineage"]] == path and path[0] == 1 and len(path) >= 2
        for step in said["lineage"][1:]:
            here, parent = by_number[step["number"]], by_number[step["parent"]]
            assert abs(step["reward"] - here["reward"]) < 1e-9
            if here["users"] == parent["users"]:
                assert abs(step["gain"] - (here["reward"] - parent["reward"])) < 1e-9
        text = home.run("lineage", outcome["run"][:8]).stdout
        assert text.count("└─ ") == len(path) - 1 and "near." in text
        tree = home.run("lineage", "--all").stdout.splitlines()[1:]
        numbers = [int(re.match(r"[ │├└─]*(\d+)  ", line)[1]) for line in tree]
        assert sorted(numbers) == sorted(by_number), "every evaluation stands in the tree once"
        depth = {int(re.match(r"[ │├└─]*(\d+)  ", line)[1]): (len(line) - len(line.lstrip(" │├└─"))) // 3 for line in tree}
        for number, e in by_number.items():
            assert depth[number] == (0 if e["parent"] is None else depth[e["parent"]] + 1), number
        assert "'ffff'" in home.run("lineage", "ffff", code=2).stderr


def test_the_champions_file_is_what_was_measured():
    with Home() as home:
        plan = prepare(home)
        outcome = home.json("evolve", plan, "--out", os.path.join(home.path, "best.yaml"))
        again = home.json("eval", os.path.join(home.path, "best.yaml"), "--data", "world", "--seed", "5")
        assert again["genome"] == outcome["champion"]["genome"]
        assert abs(again["metrics"]["ndcg@20"]["value"] - outcome["champion"]["reward"]) < 1e-9
        rewards = [e["reward"] for e in ledger(home)["evaluations"] if e["users"] == 1 and e["reward"] is not None]
        assert abs(max(rewards) - outcome["champion"]["reward"]) < 1e-9


def test_evaluations_that_loop_eat_memory_or_fail_cost_themselves_and_nothing_else():
    plan = PLAN.replace('evolve: ["near.*", "both.*"]', 'evolve: ["near.mode"]').replace("[halving, tpe]", "[random]").replace(
        "timeout_s: 60", "timeout_s: 2\nmemory_mb: 100").replace("evaluations: 24", "evaluations: 12")
    seen = []
    for workers in ("2", "4"):
        with Home() as home:
            home.file("wild.lua", WILD)
            path = prepare(home, plan, COMPOSITION.replace("agent: item_knn", "agent: wild.lua"))
            outcome = home.json("evolve", path, "--workers", workers, timeout=60)
            evaluations = ledger(home)["evaluations"]
            modes = [json.loads(e["sets"]).get("near.mode", "fine") if e["sets"] != "[]" else "fine" for e in evaluations]
            assert set(modes) == {"fine", "loops", "eats", "fails"}, "the seed must draw every mode"
            for e, mode in zip(evaluations, modes):
                assert (e["reward"] is not None) == (mode == "fine") and (e["error"] is None) == (mode == "fine"), (mode, e)
                wanted = {"fine": "", "loops": "time", "eats": "memory", "fails": "wild.lua:14: it had to fail"}[mode]
                assert wanted in (e["error"] or ""), (mode, e["error"])
            assert outcome["failed"] == sum(m != "fine" for m in modes) and outcome["evaluations"] == 12
            peak = max(r["peak_rss_mb"] for r in rows(home, "SELECT peak_rss_mb FROM evaluations"))
            assert peak < 700, peak
            assert "a sound composition" in home.run("check", outcome["champion"]["file"]).stdout, "the champion's file finds its agents"
            nobody_is_left(home)
            seen.append([(m, e["reward"]) for m, e in zip(modes, evaluations)])
    assert seen[0] == seen[1]


def test_a_run_of_which_nothing_succeeds_says_why():
    with Home() as home:
        always = WILD.replace('error "it had to fail"', "").replace("return data:item", 'error "it never works"\n    return data:item')
        home.file("wild.lua", always)
        plan = PLAN.replace('"near.*", "both.*"', '"near.mode"').replace("[halving, tpe]", "[random]").replace("evaluations: 24", "evaluations: 2").replace(
            "timeout_s: 60", "timeout_s: 2\nmemory_mb: 100")
        done = home.run("evolve", prepare(home, plan, COMPOSITION.replace("agent: item_knn", "agent: wild.lua")), "--quiet", code=1)
        assert len(done.stderr.splitlines()) == 1 and "it never works" in done.stderr
        assert ledger(home)["looks"] == []


if __name__ == "__main__":
    main(globals())
