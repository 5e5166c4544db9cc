"""Policies that do harm, pushed live under load: nobody's request fails, the version is quarantined, the one before serves."""
import glob
import os
import sys
import time

from support import ROOT, Home, main

sys.path.insert(0, os.path.join(ROOT, "tests"))
from serving import Load, Service, all_good, lines, load, replace, until  # noqa: E402

ATTACKS = os.path.join(ROOT, "tests", "attacks")
COMPOSITION = "nodes:\n  mine: { agent: mine.lua }\noutput: mine\n"
STRIKES = 5


def text_of(name):
    with open(os.path.join(ATTACKS, name + ".lua"), encoding="utf-8") as f:
        return f.read()


def prepare(home):
    home.run("data", "generate", "--users", "200", "--items", "150", "--sessions", "10")
    home.file("mine.lua", text_of("steady"))
    return home.file("c.yaml", COMPOSITION), lines(os.path.join(home.path, "users"), [f"u{i}" for i in range(200)])


def attack(name):
    with Home() as home:
        composition, users = prepare(home)
        with Service(home.path, composition, "--deadline-ms", "100", "--strikes", str(STRIKES)) as s:
            champion = s.version()["version"]
            # 17 items: what the attack waits for, and no probe asks.
            traffic = Load(s, users=users, path="/recommend/%s?n=17", expect=17, connections=4, seconds=60)
            time.sleep(0.3)
            replace(os.path.join(home.path, "mine.lua"), text_of(name))
            until(lambda: s.count("evection_quarantined_total") == 1, f"{name}: the quarantine", 20)
            states = s.versions()
            assert states[champion] == "champion", (name, states)
            attackers = [v for v, state in states.items() if state == "quarantined"]
            assert len(attackers) == 1, (name, states)
            time.sleep(0.3)
            result = all_good(traffic.end(stop=True), 50)
            served = result["versions"]
            assert set(served) <= {champion, attackers[0], "fallback"}, (name, served)
            # Where the champion stood behind the attacker, his users got its slates.
            assert result["fallback"] + served.get("fallback", {"n": 0})["n"] <= result["slates"] / 10, (name, served)
            after = load(s, users=users, path="/recommend/%s?n=17", expect=17, connections=2, seconds=0.5)
            assert all_good(after, 20)["degraded"] == 0 and set(after["versions"]) == {champion}, (name, after["versions"])
            assert len(s.pids("ev-worker")) >= 2, s.tree()

            # The same text again is known.
            failed = s.count("evection_failed_reloads_total")
            replace(os.path.join(home.path, "mine.lua"), text_of(name) + "\n")
            replace(os.path.join(home.path, "mine.lua"), text_of(name))
            until(lambda: s.count("evection_failed_reloads_total") > failed, f"{name}: the refusal of what is in quarantine")
            assert s.versions()[champion] == "champion" and s.version()["version"] == champion
            # And a cure is taken.
            replace(os.path.join(home.path, "mine.lua"), text_of("steady").replace("The most popular items.", "Cured."))
            until(lambda: s.version()["version"] != champion, f"{name}: the cured policy")
            all_good(load(s, users=users, path="/recommend/%s?n=17", expect=17, connections=2, seconds=0.3), 10)


def make(name):
    def test():
        attack(name)
    test.__name__ = f"test_{name}_is_quarantined_and_no_request_fails"
    return test


for path in sorted(glob.glob(os.path.join(ATTACKS, "*.lua"))):
    word = os.path.basename(path)[:-4]
    if word != "steady":
        globals()[f"test_{word}"] = make(word)

if __name__ == "__main__":
    main(globals())
