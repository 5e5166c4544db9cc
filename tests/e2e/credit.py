"""Layered rewards: what agents earn, constraints that bind, and a champion whose agents do well while the whole does badly."""
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time

from support import EVECTION, ROOT, Home, main

COMPOSITION = """
name: planted
nodes:
  near:   { agent: ease, n: 60 }
  known:  { agent: popular, n: 60 }
  harm:   { agent: noise.lua, n: 60 }
  both:   { agent: rank_fusion, from: [near, known, harm], n: 40 }
  idle:   { agent: idle.lua, from: both, n: 20 }
output: idle
"""
BOASTED = """
name: boasted
nodes:
  near: { agent: ease, n: 40 }
  top:  { agent: boaster.lua, from: near, n: 20 }
output: top
"""
BOASTED_PLAN = """
name: boasted
composition: boasted.yaml
data: world
reward: reward.yaml
evolve: [top.share]
proposers: [random]
budget: { evaluations: 16 }
batch: 8
timeout_s: 60
seed: 3
"""

CONSTRAINED = """
name: constrained
composition: spread.yaml
data: world
reward: reward.yaml
evolve: ["slate.*", "both.*"]
proposers: [halving, tpe]
budget: { evaluations: 40 }
promotion: { metric: reward }
batch: 4
timeout_s: 60
seed: 2
"""
SPREAD = """
name: spread
nodes:
  near:  { agent: ease, n: 60 }
  known: { agent: popular, n: 60 }
  both:  { agent: rank_fusion, from: [near, known], n: 60 }
  slate: { agent: mmr, from: both, n: 20, knobs: { lambda: 1 } }
output: slate
"""


def generate(home, users="300", items="600"):
    home.run("data", "generate", "--users", users, "--items", items, "--sessions", "14", "--as", "world")


def agent(home, name):
    shutil.copy(os.path.join(ROOT, "tests", "planted", name), home.path)


def planted(home):
    agent(home, "noise.lua")
    agent(home, "idle.lua")
    return home.file("planted.yaml", COMPOSITION)


def rows(home, sql):
    db = sqlite3.connect(f"file:{home.path}/ledger.db?mode=rw", uri=True, timeout=10)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def test_a_useless_and_a_harmful_agent_are_told_from_the_others():
    with Home() as home:
        generate(home)
        path = planted(home)
        said = home.json("credit", path, "--data", "world")
        by = {a["node"]: a for a in said["agents"]}
        assert said["exact"] and said["coalitions"] == 32 and said["formula"] == "1·ndcg@20"
        for way in ("difference", "shapley"):
            m = {name: a[way] for name, a in by.items()}
            assert m["harm"]["high"] < 0, (way, m["harm"])
            assert m["near"]["low"] > 0, (way, m["near"])
            assert m["idle"]["value"] == 0 and m["idle"]["low"] == 0 == m["idle"]["high"], (way, m["idle"])
            order = sorted(("near", "known", "harm", "idle"), key=lambda n, m=m: m[n]["value"])
            assert order[:2] == ["harm", "idle"], (way, order)
        assert [by[n]["verdict"] for n in ("near", "harm", "idle")] == ["earns", "harms", "nothing shown"]
        whole = home.json("eval", path, "--data", "world")["metrics"]["ndcg@20"]["value"]
        assert abs(said["whole"] - whole) < 1e-9
        assert abs(sum(a["shapley"]["value"] for a in said["agents"]) - (said["whole"] - said["empty"])) < 1e-9
        text = home.run("credit", path, "--data", "world", "--quiet").stdout
        assert "harms" in text and "32 coalitions of 5 agents, exact" in text
        assert home.json("credit", path, "--data", "world", "--threads", "1")["agents"] == said["agents"]
        # sampled orders: within the stated error of the exact values
        sampled = home.json("credit", path, "--data", "world", "--method", "shapley", "--samples", "40")
        assert not sampled["exact"] and sampled["orders"] == 40 and "difference" not in sampled["agents"][0]
        for a in sampled["agents"]:
            s, exact = a["shapley"], by[a["node"]]["shapley"]["value"]
            assert abs(s["value"] - exact) <= 3.6 * s["error"] + 1e-12, (a["node"], s, exact)  # 99.8 % of Student's t, 19 degrees
            assert s["low"] <= exact <= s["high"], (a["node"], s, exact)
        assert any(a["shapley"]["error"] > 0 for a in sampled["agents"])


def test_a_reward_of_exposure_and_a_baseline_change_what_is_earned():
    with Home() as home:
        generate(home)
        path = planted(home)
        reward = home.file("r.yaml", "name: spread\nobjectives: [{ maximise: ndcg@20 }, { maximise: coverage@20, weight: 5 }]\n"
                           "constraints: [max_share.genre <= 0.9]\nbaselines: { harm: popular }\n")
        said = home.json("credit", path, "--data", "world", "--reward", reward, "--method", "difference")
        harm = {a["node"]: a for a in said["agents"]}["harm"]
        assert harm["baseline"] == "popular" and harm["difference"]["low"] > 0, harm  # where reach is paid, noise earns
        other = home.json("credit", path, "--data", "world", "--reward", reward, "--method", "difference", "--baseline", "harm=fresh_popular")
        assert {a["node"]: a for a in other["agents"]}["harm"]["baseline"] == "fresh_popular"
        for args, words in ((["--method", "luck"], "difference and shapley"), (["--samples", "8", "--method", "difference"], "for Shapley"),
                            (["--baseline", "x"], "node=agent"), (["--baseline", "nobody=popular"], "no node 'nobody'"),
                            (["--reward", "ndcg@7"], "'ndcg@7'"), (["--users", "2"], "--users"), (["--set", "near.lamda=3"], "no knob 'lamda'")):
            done = home.run("credit", path, "--data", "world", *args, code=2)
            assert words in done.stderr and len(done.stderr.splitlines()) == 1, (args, done.stderr)


def test_a_bad_reward_is_refused_with_all_that_is_wrong():
    with Home() as home:
        generate(home, "100", "80")
        bad = home.file("bad.yaml", "objectives:\n  - { maximise: ndgc@20, weight: 1 }\n  - { minimise: gini@20, weight: -3 }\n"
                        "constraints:\n  - max_share.genre <= 0.3\n  - gini@20 =< 0.9\npenalty: much\ncoupling: sometimes\n")
        done = home.run("check", bad, code=2)
        lines = done.stderr.splitlines()
        for n, words in ((2, "'ndgc@20' is no metric (did you mean 'ndcg@20'?)"), (3, "not '-3'"), (6, "'gini@20 =< 0.9'"), (7, "not 'much'"), (8, "'sometimes'")):
            assert any(line.startswith(f"{bad}:{n}: ") and words in line for line in lines), (n, words, lines)
        assert len(lines) == 6 and "5 errors" in lines[-1]
        for verb in ("eval", "credit"):
            assert "'ndgc@20'" in home.run(verb, "agent:popular", "--data", "world", "--reward", bad, code=2).stderr
        missing = home.file("missing.yaml", "objectives:\n  - { maximise: ndcg@20 }\nconstraints:\n  - max_share.brand <= 0.3\n  - latency_p99_ms.slow <= 3\n")
        said = home.run("eval", "agent:popular", "--data", "world", "--reward", missing, code=2).stderr
        assert f"{missing}:4: " in said and "no item column 'brand'; they have " in said and f"{missing}:5: " in said, said


def test_eval_tells_the_reward_with_its_formula_and_its_constraints():
    with Home() as home:
        generate(home, "100", "80")
        reward = home.file("r.yaml", "objectives: [{ maximise: ndcg@20, weight: 2 }, { minimise: latency_p99_ms, weight: 0.0001 }]\n"
                           "constraints: [max_share.genre@10 <= 0.05, latency_p99_ms.popular <= 1000, slate_share.genre <= 1, model_mb <= 100]\n")
        said = home.json("eval", "agent:popular", "--data", "world", "--reward", reward, "--cutoffs", "3")
        m = {name: x["value"] for name, x in said["metrics"].items()}
        expected = 2 * m["ndcg@20"] - 1e-4 * m["latency_p99_ms"] - (m["max_share.genre@10"] - 0.05)
        assert abs(said["reward"] - expected) < 1e-9 and m["max_share.genre@10"] > 0.05 and "ndcg@3" in m
        assert said["metrics"]["max_share.genre@10"]["token"] and 0 < m["model_mb"] < 100
        assert [(c["met"], c["sure"]) for c in said["constraints"]] == [(False, True), (True, True), (True, True), (True, True)]
        for c in said["constraints"]:
            assert c["low"] <= c["value"] <= c["high"]
        assert "measured of clicks" in home.run("eval", "agent:popular", "--data", "world", "--reward", "auc", code=2).stderr
        text = home.run("eval", "agent:popular", "--data", "world", "--reward", reward).stdout
        assert "= 2·ndcg@20 − 0.0001·latency_p99_ms − 1·max(0, max_share.genre@10 − 0.05)" in text and "it does not hold" in text


def constrained(home, bound):
    generate(home)
    home.file("spread.yaml", SPREAD)
    bounds = f"constraints: [max_share.genre <= {bound}]\npenalty: 0.1\n" if bound else ""
    home.file("reward.yaml", "name: shared\nobjectives: [{ maximise: ndcg@20 }, { maximise: coverage@20, weight: 0.01 }]\n" + bounds)
    return home.file("plan.yaml", CONSTRAINED)


def test_a_run_with_a_binding_constraint_ends_feasible():
    with Home() as home:
        free = home.json("evolve", constrained(home, None), "--workers", "2", "--no-report")
        champion = free["champion"]["file"]
        share_of = "objectives: [{ maximise: ndcg@20 }]\nconstraints: [max_share.genre <= 1]\n"
        given = home.json("eval", os.path.join(home.path, "spread.yaml"), "--data", "world", "--reward", home.file("s.yaml", share_of))
        best = home.json("eval", champion, "--data", "world", "--reward", os.path.join(home.path, "s.yaml"))
        shares = [x["metrics"]["max_share.genre"]["value"] for x in (given, best)]
        bound = round(min(shares) * 0.9, 3)
    with Home() as home:
        plan = constrained(home, bound)
        said = home.json("evolve", plan, "--workers", "2")
        assert said["champion"]["violation"] == 0, said["champion"]
        held = said["report"]["constraints"]["validation"][0]
        assert held["met"] and held["value"] <= bound < min(shares), (held, bound, shares)
        assert held["low"] <= held["value"] <= held["high"]
        assert said["state"]["multipliers"][f"max_share.genre <= {bound:g}"] > 0, "a constraint that binds has its price"
        assert said["state"]["hypervolume"] > 0 and said["champion"]["number"] in [p["number"] for p in said["state"]["front"]] + [said["champion"]["number"]]
        metrics = {n: json.loads(m) for n, m in rows(home, "SELECT number, metrics FROM evaluations WHERE users = 1 AND metrics IS NOT NULL")}
        feasible = {n: m["ndcg@20"] + 0.01 * m["coverage@20"] for n, m in metrics.items() if m["max_share.genre"] <= bound}
        assert feasible and said["champion"]["number"] == max(feasible, key=lambda n: (feasible[n], -n)), "the best of those that keep it"
        infeasible = [n for n in metrics if n not in feasible]
        assert 1 in infeasible and any(metrics[n]["ndcg@20"] > metrics[said["champion"]["number"]]["ndcg@20"] for n in infeasible), "it must bind"
        # the front is that of the feasible evaluations, by definition
        points = {n: (metrics[n]["ndcg@20"], metrics[n]["coverage@20"]) for n in feasible}
        front = {n for n, p in points.items()
                 if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points.values()) and not any(points[k] == p and k < n for k in points)}
        assert {p["number"] for p in said["state"]["front"]} == front
        area, height = 0.0, 0.0
        for x, y in sorted(points.values(), reverse=True):
            if y > height:
                area, height = area + x * (y - height), y
        assert abs(said["state"]["hypervolume"] - area) < 1e-12
        text = home.run("evolve", plan, "--resume", "--quiet").stdout
        assert "multipliers  max_share.genre" in text and "holds" in text and "Pareto front: " in text
        unbroken = rows(home, "SELECT * FROM reward_states ORDER BY number")
        assert unbroken[-1][1] == 40 and len(unbroken) > 8
        rows(home, "DELETE FROM reward_states")  # as if they had been lost
        home.json("evolve", plan, "--resume")
        assert rows(home, "SELECT * FROM reward_states ORDER BY number") == unbroken

    # killed and resumed: the same multipliers after each batch, the same champion
    with Home() as home:
        plan, rng, kills = constrained(home, bound), random.Random(5), 0
        while True:
            p = subprocess.Popen([EVECTION, "evolve", plan, "--workers", "2", "--quiet", "--resume", "--json"], cwd=ROOT, stdin=subprocess.DEVNULL,
                                 env=dict(os.environ, EVECTION_HOME=home.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
            if kills < 3:
                time.sleep(rng.uniform(0.1, 0.4))
            if kills < 3 and p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
                p.communicate()
                kills += 1
                continue
            out, complaint = p.communicate(timeout=120)
            assert p.returncode == 0, complaint
            break
        assert kills == 3
        assert rows(home, "SELECT * FROM reward_states ORDER BY number") == unbroken
        again = json.loads(out)
        assert again["champion"]["genome"] == said["champion"]["genome"] and again["state"] == said["state"]


def boasted(home, coupling):
    generate(home, "200", "300")
    agent(home, "boaster.lua")
    home.file("boasted.yaml", BOASTED)
    home.file("reward.yaml", f"name: layered\nobjectives: [{{ maximise: ndcg@20 }}]\ncoupling: {coupling}\n")
    return home.file("plan.yaml", BOASTED_PLAN)


def test_a_champion_that_diverges_is_not_promoted():
    with Home() as home:  # told to follow inner rewards whatever they do
        said = home.json("evolve", boasted(home, "{ by: difference, low: 1, high: 1 }"), "--workers", "2")
        report = said["report"]
        assert said["champion"]["reward"] < said["given"] and said["champion"]["sets"]["top.share"] > 0.5
        assert report["promoted"] is False
        for fold in ("validation", "test"):
            found = {n["node"]: n for n in report["divergence"][fold]["nodes"]}
            assert found["top"]["diverges"] and not found["near"]["diverges"] and found["top"]["p"] < 0.05
            assert found["top"]["inner"]["low"] > 0 and report["divergence"][fold]["outer"]["high"] < 0
            assert any(f"divergence on {fold}: the inner reward of top is up" in why for why in report["against"]), report["against"]
        assert report["divergence"]["opposed"] == ["top"]
        assert {a["node"]: a["verdict"] for a in report["credit"]["agents"]}["top"] == "harms"
        for a in report["credit"]["agents"]:
            assert abs(a["pay"] - (a["weight"] * a["inner"] + (1 - a["weight"]) * a["difference"]["value"])) < 1e-9
        text = home.run("evolve", os.path.join(home.path, "plan.yaml"), "--resume", "--quiet").stdout
        assert "not for promotion: divergence on test" in text and "went against the outer reward" in text
        with open(said["champion"]["file"], encoding="utf-8") as f:
            assert "# not for promotion: divergence" in f.read()
        assert home.run("check", said["champion"]["file"]).returncode == 0
        inner = [json.loads(m)["inner.top"] for (m,) in rows(home, "SELECT metrics FROM evaluations")]
        assert max(inner) > 0.6 and min(inner) == 0.2
    with Home() as home:  # weights that adapt leave it alone
        said = home.json("evolve", boasted(home, "{ by: difference }"), "--workers", "2")
        weights = said["state"]["weights"]
        assert weights["top"]["correlation"] < -0.6 and weights["top"]["weight"] == 0, weights
        assert said["champion"]["reward"] >= said["given"]
        assert not any(n["diverges"] for fold in ("validation", "test") for n in said["report"]["divergence"][fold]["nodes"])
    with Home() as home:  # and where nobody is coupled nothing is asked of inner rewards until the report
        said = home.json("evolve", boasted(home, "none"), "--workers", "2")
        assert "credit" not in said["report"] and "state" not in said
        assert said["report"]["divergence"]["validation"]["nodes"] and said["champion"]["reward"] >= said["given"]


if __name__ == "__main__":
    main(globals())
