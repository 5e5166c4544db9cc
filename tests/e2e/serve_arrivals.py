"""New items while serving: what was put is in slates at once, for whom it suits, and gone when it is deleted."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from serving import Service, until  # noqa: E402
from support import Home, main  # noqa: E402

COMPOSITION = """nodes:
  known: { agent: popular, n: 50 }
  alike: { agent: item_knn, n: 50 }
  fused: { agent: rank_fusion, from: [known, alike] }
  order: { agent: logistic, from: fused }
  new:   { agent: arrivals, n: 10, knobs: { half_life_hours: 2 } }
  out:   { agent: rank_fusion, from: [new, order], knobs: { w2: 0.99 } }
output: out
"""


def prepare(home):
    home.run("data", "generate", "--users", "100", "--items", "80", "--sessions", "6")
    return home.file("c.yaml", COMPOSITION)


def ids(d):
    return [i["id"] for i in d["items"]]


def put(s, item, **entry):
    assert s.admin("PUT", f"/items/{item}", entry) == (200, {"accepted": 1})


def test_an_item_is_in_slates_as_soon_as_it_was_put_and_never_after_it_was_deleted():
    with Home() as home, Service(home.path, prepare(home)) as s:
        before = s.slate("u1")
        assert "new" not in {t for i in before["items"] for t in i["sources"]} and len(before["items"]) == 10
        late = []
        for k in range(1, 6):
            put(s, f"new{k}", title=f"The new one {k}", categories=["fresh"])
            start = time.monotonic()
            d = s.slate("u1")
            late.append(time.monotonic() - start)
            assert ids(d)[0] == f"new{k}" and not d["degraded"], d
            first = d["items"][0]
            assert first["title"] == f"The new one {k}" and first["sources"] == ["new"], first
        assert min(late) < 0.05, late
        for user in ("u1", "u2", "somebody"):  # newest first, among the others
            assert [i for i in ids(s.slate(user)) if i.startswith("new")] == [f"new{k}" for k in (5, 4, 3, 2, 1)]
        d = s.slate("u1", "n=10&explain=1")
        assert d["explain"]["items"][0]["id"] == "new5" and d["explain"]["items"][0]["from"][0]["node"] == "new", d["explain"]["items"][0]
        assert s.admin("DELETE", "/items/new3")[0] == 200
        for user in ("u1", "u2", "nobody") * 10:
            assert "new3" not in ids(s.slate(user))
        assert s.admin("PATCH", "/items/new4", {"hidden": True})[0] == 200
        assert ids(s.slate("u1"))[0] == "new5" and "new4" not in ids(s.slate("u1"))
        assert s.admin("PATCH", "/items/new4", {"hidden": False})[0] == 200
        # conditions, exclusion, what was seen
        assert ids(s.slate("u1", 'n=10&where=categories%20in%20{"fresh"}')) == ["new5", "new4", "new2", "new1"]
        assert not [i for i in ids(s.slate("u1", 'n=10&where=not%20(categories%20in%20{"fresh"})')) if i.startswith("new")]
        assert "new5" not in ids(s.slate("u1", "n=10&exclude=new5")) and "new5" in ids(s.slate("u1"))
        assert s.ask("POST", "/events", {"user": "u1", "item": "new5", "impression": d["impression"]}) == (200, {"accepted": 1, "new": 1})
        assert "new5" not in ids(s.slate("u1")) and "new5" in ids(s.slate("u2")) and "new5" in ids(s.slate("u1", "n=10&seen=1"))
        status, session = s.ask("POST", "/recommend", {"recent": ["new2"], "n": 10})
        assert status == 200 and "new2" not in ids(session) and "new4" in ids(session)


def test_new_items_outlive_a_restart_of_the_service_and_the_death_of_its_processes():
    with Home() as home:
        path = prepare(home)
        with Service(home.path, path) as s:
            for k in (1, 2):
                put(s, f"new{k}", title=f"New {k}")
                time.sleep(0.01)
            assert s.ask("POST", "/events", {"user": "u1", "item": "new2"})[0] == 200
        with Service(home.path, path) as s:
            assert set(ids(s.slate("u2"))[:4]) >= {"new1", "new2"}
            assert "new2" not in ids(s.slate("u1")) and "new1" in ids(s.slate("u1"))
            old = s.pids("ev-front")
            os.kill(old[0], 9)
            until(lambda: s.pids("ev-front") not in ([], old), "another front")

            def answers():
                try:
                    return not s.slate("u2")["degraded"]
                except Exception:
                    return False

            until(answers, "slates", 20)
            assert "new1" in ids(s.slate("u2")) and "new2" not in ids(s.slate("u1"))
            put(s, "new3", title="New 3")
            assert "new3" in ids(s.slate("u1"))


def test_an_item_that_feedback_alone_has_named_is_not_proposed():
    with Home() as home, Service(home.path, prepare(home)) as s:
        status, d = s.admin("PUT", "/api/feedback", [{"FeedbackType": "read", "UserId": "u1", "ItemId": "rumour", "Timestamp": "2026-01-01T00:00:00Z"}])
        assert status == 200, d
        assert "rumour" not in ids(s.slate("u2"))
        put(s, "rumour", title="True")
        assert "rumour" in ids(s.slate("u2")) and "rumour" not in ids(s.slate("u1"))


def test_an_evaluation_of_such_a_composition_is_that_of_the_rest():
    with Home() as home:
        path = prepare(home)
        rest = home.file("rest.yaml", COMPOSITION.replace("  new:   { agent: arrivals, n: 10, knobs: { half_life_hours: 2 } }\n", "").replace("[new, order], knobs: { w2: 0.99 }", "[order]"))
        a, b = (home.json("eval", p, "--data", "world", "--users", "0.5") for p in (path, rest))
        assert a["metrics"]["ndcg@20"]["value"] == b["metrics"]["ndcg@20"]["value"] > 0


if __name__ == "__main__":
    main(globals())
