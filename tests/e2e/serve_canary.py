"""A canary in a running service: what a slate earns is credited, in each arm, to the agents that proposed the item."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from serving import Service, until  # noqa: E402
from support import Home, main  # noqa: E402

AGENT = """
local agent = require "evection.agent"

return agent {
  name = "NAME", role = "recall",
  about = "SIGN times popularity.",
  fit = function(_, data) return data:item_scores(data:item_counts() * SIGN) end,
  act = function(model, request, slate)
    if request.n == 77 then error "planted" end
    model:recall(request, slate)
  end,
}
"""
CHAMPION = """nodes:
  common: { agent: common.lua, n: 5 }
  seldom: { agent: seldom.lua, n: 5 }
  both:   { agent: rank_fusion, from: [common, seldom] }
output: both
"""
CHALLENGER = "nodes:\n  seldom: { agent: seldom.lua }\noutput: seldom\n"
OPTIONS = {"slates_per_user": 1, "settle_s": 0.1, "window_s": 60, "automatic": False, "late_ms": 5000}


def prepare(home):
    home.run("data", "generate", "--users", "150", "--items", "100", "--sessions", "4")
    for name, sign in (("common", "1"), ("seldom", "-1")):
        home.file(f"{name}.lua", AGENT.replace("NAME", name).replace("SIGN", sign))
    return home.file("champion.yaml", CHAMPION), home.file("challenger.yaml", CHALLENGER)


def begin(s, challenger):
    status, staged = s.admin("POST", "/versions", {"source": challenger, "then": "canary", "share": 0.5, "options": OPTIONS})
    assert status == 200, staged
    until(lambda: s.ask("GET", "/canary")[1].get("challenger"), "the canary")
    return staged["version"]


def status_after(home, n):
    def measured():
        d = home.json("canary", "status")
        return d if d["units"]["champion"] + d["units"]["challenger"] >= n else None

    return until(measured, "all users to be measured", 20, 0.1)


def test_an_event_is_credited_to_those_who_proposed_its_item_in_its_slate():
    with Home() as home:
        champion, challenger = prepare(home)
        with Service(home.path, champion) as s:
            before = s.slate("early")["impression"]  # a slate of before the canary is nobody's
            second = begin(s, challenger)
            earned, slates, known = {}, {}, {}
            for k in range(120):
                d = s.slate(f"user-{k}", "n=6")
                arm = "challenger" if d["version"] == second else "champion"
                assert not d["degraded"] and {i["sources"][0] for i in d["items"]} <= {"common", "seldom"}, d
                item = d["items"][k % 6]
                kind = k % 4  # of the events, some do not say which slate they are about
                about = {0: d["impression"], 1: d["impression"], 2: None, 3: before}[kind]
                event = {"user": d["user"], "item": item["id"], "value": 0.5}
                assert s.ask("POST", "/events", dict(event, impression=about) if about else event)[0] == 200
                slates[arm] = slates.get(arm, []) + [k]
                for agent in item["sources"] if kind < 2 else []:
                    earned.setdefault((agent, arm), []).append(k)
                    known.setdefault(agent, k)
            assert min(len(v) for v in slates.values()) > 40, slates
            d = status_after(home, 120)
            for arm in ("champion", "challenger"):
                assert abs(d["outer"][arm] - 0.5) < 1e-9, d["outer"]  # every user had one event, whatever it said of slates
            assert sorted(a["agent"] for a in d["inner"]) == ["common", "seldom"], d["inner"]
            for a in d["inner"]:
                for arm in ("champion", "challenger"):
                    later = [k for k in slates[arm] if k > known[a["agent"]]]  # an agent is measured from its first event on
                    want = 0.5 * len([k for k in earned.get((a["agent"], arm), []) if k in later]) / len(later)
                    assert abs(a[arm]["value"] - want) < 1e-6, (a, arm, want)
                    assert want == 0 if (a["agent"], arm) == ("common", "challenger") else want > 0, (a["agent"], arm, want)
            said = home.run("canary", "status").stdout
            assert "by seldom" in said
            for what, counts in (("slates shown", d["slates"]), ("events counted", d["events"])):
                assert [counts[arm] for arm in ("champion", "challenger")] == [len(slates[arm]) for arm in ("champion", "challenger")], d
                assert any(line.split() == [*what.split(), *(str(len(slates[arm])) for arm in ("champion", "challenger"))] for line in said.splitlines()), said
            # and of each version what the ledger has: an event is of the version whose slate it names
            of = {"champion": d["champion"], "challenger": d["challenger"]}

            def all_there():
                found = {v["version"]: v["reward"] for v in s.ask("GET", "/versions")[1]["versions"]}
                return found if found[of["champion"]]["impressions"] + found[of["challenger"]]["impressions"] == 121 else None

            found = until(all_there, "the last slates in the ledger")
            rows = {line.split()[0]: line.split() for line in home.run("versions").stdout.splitlines()}
            for arm, more_slates, more_events in (("champion", 1, 30), ("challenger", 0, 0)):
                n, events = len(slates[arm]) + more_slates, len([k for k in slates[arm] if k % 4 < 2]) + more_events
                r = found[of[arm]]
                assert (r["impressions"], r["events"]) == (n, events) and abs(r["value"] - 0.5 * events / n) < 1e-9, (r, n, events)
                assert rows[of[arm][:12]][5:8] == [str(n), str(events), f"{0.5 * events / n:.4g}"], rows


def test_without_impressions_the_arms_are_measured_all_the_same():
    with Home() as home:
        champion, challenger = prepare(home)
        with Service(home.path, champion, "--no-impressions") as s:
            begin(s, challenger)
            for k in range(40):
                d = s.slate(f"user-{k}", "n=5")
                assert "impression" not in d
                assert s.ask("POST", "/events", {"user": d["user"], "item": d["items"][0]["id"]})[0] == 200
            d = status_after(home, 40)
            assert d["outer"]["champion"] == 1 and d["outer"]["challenger"] == 1 and d.get("inner", []) == [], d
            assert [v["reward"] for v in s.ask("GET", "/versions")[1]["versions"]] == [{"impressions": 0, "events": 0}] * 2


def test_what_nobody_chose_is_a_degraded_slate_of_the_users_arm_and_what_it_earns_the_fallbacks():
    with Home() as home:
        prepare(home)
        for name in ("common", "seldom"):
            home.file(f"{name}.yaml", f"nodes:\n  {name}: {{ agent: {name}.lua }}\noutput: {name}\n")
        with Service(home.path, os.path.join(home.path, "common.yaml")) as s:
            begin(s, os.path.join(home.path, "seldom.yaml"))
            d = s.slate("first", "n=77")
            assert d["degraded"] and d["version"] == "fallback" and {t for i in d["items"] for t in i["sources"]} == {"fallback"}, d
            for k in range(40):
                if k > 0:
                    d = s.slate(f"user-{k}")
                assert s.ask("POST", "/events", {"user": d["user"], "item": d["items"][0]["id"], "impression": d["impression"]})[0] == 200
            d = status_after(home, 40)
            assert sorted(a["agent"] for a in d["inner"]) == ["common", "fallback", "seldom"], d["inner"]
            degraded = [d["guardrails"]["errors"][arm]["value"] for arm in ("champion", "challenger")]
            assert sorted(x > 0 for x in degraded) == [False, True], d["guardrails"]


if __name__ == "__main__":
    main(globals())
