"""docs/openapi.yaml against the running service: every path and method answers, with the statuses and the shapes that are written there,
and nothing answers that is not written there."""
import json
import os
import sys
import urllib.parse

import jsonschema
import yaml

from support import ROOT, Home, main

sys.path.insert(0, os.path.join(ROOT, "tests"))
from serving import Service, until  # noqa: E402

METHODS = ("get", "put", "post", "delete", "patch")
with open(os.path.join(ROOT, "docs", "openapi.yaml"), encoding="utf-8") as source:
    API = yaml.safe_load(source)


def resolve(node):
    """References replaced by what they refer to, and OpenAPI's `nullable` and exclusive bounds by JSON Schema's."""
    if isinstance(node, list):
        return [resolve(n) for n in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = API
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return resolve(target)
    out = {k: resolve(v) for k, v in node.items()}
    if out.pop("nullable", False) and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    if out.get("exclusiveMinimum") is True:
        out["exclusiveMinimum"] = out.pop("minimum")
    return out


def operations():
    for path, item in API["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, resolve(item[method])


def schema_of(operation, status, kind="application/json"):
    answer = operation["responses"].get(str(status))
    assert answer, f"status {status} is not written down"
    assert kind in answer["content"], f"{kind} is not written down for status {status}"
    return answer["content"][kind]["schema"]


def sorts(value, schema):
    jsonschema.Draft7Validator(schema).validate(value)


class Caller:
    """Asks by the description: method and path must be there, and so must be what comes back."""

    def __init__(self, s):
        self.s, self.seen = s, {}
        self.operations = {(path, method): operation for path, method, operation in operations()}

    def __call__(self, method, path, status, query=None, body=None, raw=None, **parts):
        operation = self.operations[path, method]
        url = path
        for name, value in parts.items():
            assert "{" + name + "}" in url, (path, name)
            url = url.replace("{" + name + "}", urllib.parse.quote(value, safe=""))
        if query:
            known = {p["name"] for p in operation.get("parameters", []) if p["in"] == "query"}
            assert set(query) <= known, f"{method} {path}: {set(query) - known} is not written down"
            url += "?" + urllib.parse.urlencode(query)
        if body is not None and status < 300:  # what we send is described, too
            sorts(body, operation["requestBody"]["content"]["application/json"]["schema"])
        ask = self.s.admin if operation.get("x-role") == "admin" else self.s.ask
        got, document = ask(method.upper(), url, raw if raw is not None else body)
        assert got == status, f"{method} {url} {str(body)[:300]}: {got} {str(document)[:600]}, {status} expected"
        kind = "application/json" if not isinstance(document, str) else "text/plain"
        try:
            sorts(document, schema_of(operation, got, kind))
        except (AssertionError, jsonschema.ValidationError) as e:
            raise AssertionError(f"{method} {url} → {got} {json.dumps(document)[:600]}\n{e}") from e
        self.seen.setdefault((path, method), set()).add(got)
        return document


AGENT = """
local agent = require "evection.agent"
return agent {
  name = "mine", role = "recall", about = "SIGN times popularity.",
  fit = function(_, data) return data:item_scores(data:item_counts() * SIGN) end,
}
"""


def recommending(ask, items):
    for query in (None, {"n": 3}, {"n": 5, "explain": "1", "seen": "1"}, {"exclude": ",".join(items[:3]), "n": 500}):
        d = ask("get", "/recommend/{user}", 200, query, user="u1")
        assert not query or len(d["items"]) <= int(query["n"])
        assert not query or "exclude" not in query or not {i["id"] for i in d["items"]} & set(items[:3])
    ask("get", "/recommend/{user}", 200, {"where": "time > 5"}, user="nobody / at all?")
    ask("get", "/recommend/{user}", 400, {"n": 0}, user="u1")
    ask("get", "/recommend/{user}", 400, {"where": "((("}, user="u1")
    d = ask("post", "/recommend", 200, body={"recent": items[:4], "n": 6, "exclude": items[4:6], "explain": True})
    assert d["user"] == "" and not {i["id"] for i in d["items"]} & set(items[:6])
    assert ask("post", "/recommend", 200, body={"user": "u2", "seen": True})["user"] == "u2"
    ask("post", "/recommend", 400, body={"recents": []})
    ask("post", "/recommend", 400, raw="[")
    ask("post", "/recommend", 413, raw=" " * (2 << 20))
    d = ask("get", "/similar/{item}", 200, {"n": 4, "explain": "1"}, item=items[0])
    assert items[0] not in [i["id"] for i in d["items"]]
    ask("get", "/similar/{item}", 404, item="no such thing")
    ask("get", "/similar/{item}", 400, {"n": "x"}, item=items[0])


def events(ask, items):
    assert ask("post", "/events", 200, body={"user": "e", "item": items[0], "id": "e1"}) == {"accepted": 1, "new": 1}
    batch = [{"user": "e", "item": i, "type": "view", "value": 0.5, "time": 1700000000000 + k} for k, i in enumerate(items[:5])]
    assert ask("post", "/events", 200, body=batch)["accepted"] == 5
    assert ask("post", "/events", 202, {"ack": "queued"}, body={"user": "e", "item": items[1]}) == {"queued": 1}
    ask("post", "/events", 400, body={"user": "e"})
    ask("post", "/events", 404, body={"user": "e", "item": "no such thing"})
    ask("post", "/events", 413, body=[{"user": "a", "item": items[0]}] * 10001)


def entries(ask, items):
    assert ask("put", "/items/{item}", 200, body={"price": 3, "tags": ["a", "b"], "title": "New"}, item="new") == {"accepted": 1}
    assert ask("get", "/items/{item}", 200, item="new")["price"] == 3
    ask("patch", "/items/{item}", 200, body={"price": None, "hidden": True}, item="new")
    assert "price" not in ask("get", "/items/{item}", 200, item="new")
    ask("patch", "/items/{item}", 404, body={"price": 1}, item="no such thing")
    ask("put", "/items/{item}", 400, body={"vector": [1]}, item="new")
    ask("patch", "/items/{item}", 400, raw="[]", item="new")
    ask("post", "/items", 200, body=[{"id": "n1"}, {"id": "n2", "hidden": True}])
    ask("post", "/items", 400, body=[{"hidden": True}])
    ask("post", "/items", 413, body=[{"id": "n1"}] * 10001)
    page = ask("get", "/items", 200, {"n": 7})
    assert len(page["items"]) == 7
    assert ask("get", "/items", 200, {"n": 7, "after": page["next"]})["items"][0] != page["items"][0]
    ask("get", "/items", 400, {"n": 0})
    assert ask("delete", "/items/{item}", 200, item="n1") == {"deleted": 1}
    ask("delete", "/items/{item}", 404, item="n1")
    ask("get", "/items/{item}", 404, item="n1")
    ask("put", "/users/{user}", 200, body={"labels": ["x"], "age": 30}, user="u1")
    assert ask("get", "/users/{user}", 200, user="u1")["age"] == 30
    ask("patch", "/users/{user}", 200, body={"age": 31}, user="u1")
    ask("patch", "/users/{user}", 404, body={"age": 31}, user="no such body")
    ask("put", "/users/{user}", 400, raw="3", user="u1")
    ask("patch", "/users/{user}", 400, body={"id": "another"}, user="u1")
    ask("post", "/users", 200, body={"id": "new one"})
    ask("post", "/users", 400, body=[{}])
    assert ask("get", "/users", 200, {"n": 3})["users"]
    ask("get", "/users", 400, {"n": "many"})
    ask("delete", "/users/{user}", 200, user="new one")
    ask("delete", "/users/{user}", 404, user="new one")
    ask("get", "/users/{user}", 404, user="new one")


def versions(ask, home, composition):
    first = ask("get", "/version", 200)
    ask("get", "/canary", 200)
    ask("post", "/canary/stop", 409)
    ask("post", "/rollback", 409)
    other = home.file("other.yaml", "nodes:\n  mine: { agent: other.lua }\noutput: mine\n")
    home.file("other.lua", AGENT.replace("SIGN", "-1").replace('"mine"', '"other"'))
    staged = ask("post", "/versions", 200, body={"source": other, "gate": {"probes": 5}})
    assert staged["state"] == "staged" and staged["version"] != first["version"], staged
    ask("post", "/versions", 400, body={"source": other, "then": "hope"})
    ask("post", "/versions", 400, body={"from": other})
    ask("post", "/versions", 404, body={"source": "0123456789"})
    ask("post", "/versions", 422, body={"source": "nothing/like/that.yaml"})
    home.file("broken.lua", "return 3\n")
    ask("post", "/versions", 422, body={"source": home.file("broken.yaml", "nodes:\n  mine: { agent: broken.lua }\noutput: mine\n")})
    trial = ask("post", "/versions/{version}/canary", 200, body={"share": 0.5, "options": {"automatic": False}}, version=staged["version"])
    assert trial["state"] == "challenger", trial
    until(lambda: ask("get", "/canary", 200).get("running", True), "the canary")
    arms = {ask("get", "/recommend/{user}", 200, user=f"u{k}")["version"] for k in range(60)}
    assert arms == {first["version"], staged["version"]}, "half of the users get the challenger"
    ask("post", "/versions/{version}/canary", 400, body={"share": 2}, version=staged["version"])
    ask("post", "/versions/{version}/canary", 404, version="0123456789")
    ask("post", "/versions/{version}/canary", 409, version=first["version"])
    ask("post", "/canary/stop", 200)
    assert {ask("get", "/recommend/{user}", 200, user=f"u{k}")["version"] for k in range(20)} == {first["version"]}
    assert ask("post", "/versions/{version}/promote", 200, version=staged["version"][:12])["state"] == "champion"
    assert ask("get", "/recommend/{user}", 200, user="u1")["version"] == staged["version"]
    ask("post", "/versions/{version}/promote", 400, version="NOT-A-VERSION")
    ask("post", "/versions/{version}/promote", 404, version="0123456789")
    assert ask("post", "/rollback", 200)["version"] == first["version"]
    assert ask("post", "/rollback", 200, body={"version": staged["version"][:16]})["version"] == staged["version"]
    ask("post", "/rollback", 400, body={"version": "?"})
    ask("post", "/rollback", 404, body={"version": "0123456789"})
    assert ask("post", "/versions", 200, body={"source": composition, "then": "publish"})["version"] == first["version"]
    ask("post", "/reload", 200)
    ask("post", "/reload", 400, body={"now": True})
    ask("post", "/canary/stop", 400, body={"now": True})
    states = {v["version"]: v["state"] for v in ask("get", "/versions", 200)["versions"]}
    assert states[first["version"]] == "champion", states


def gorse(ask, items):
    feedback = [{"FeedbackType": "read", "UserId": "g", "ItemId": i, "Timestamp": "2026-01-02T03:04:05Z"} for i in items[:3]]
    assert ask("post", "/api/feedback", 200, body=feedback) == {"RowAffected": 3}
    ask("put", "/api/feedback", 200, body=feedback[:1])
    for method in ("post", "put"):
        ask(method, "/api/feedback", 400, body=[{"FeedbackType": "read"}])
        ask(method, "/api/feedback", 413, body=feedback[:1] * 10001)
    got = ask("get", "/api/recommend/{user}", 200, {"n": 4, "offset": 1}, user="g")
    assert len(got) == 4 and not set(got) & set(items[:3])
    ask("get", "/api/recommend/{user}", 400, {"n": "x"}, user="g")
    ask("post", "/api/item", 200, body={"ItemId": "gi", "IsHidden": False, "Categories": ["c"], "Timestamp": "2026-01-02", "Labels": {"a": ["x"]}, "Comment": "none"})
    ask("post", "/api/item", 400, body={"IsHidden": False})
    ask("get", "/api/recommend/{user}/{category}", 200, {"n": 3}, user="g", category="c")
    ask("get", "/api/recommend/{user}/{category}", 400, {"n": "x"}, user="g", category="c")
    ask("post", "/api/session/recommend", 200, {"n": 3}, body=feedback)
    ask("post", "/api/session/recommend", 400, raw="{}")
    ask("post", "/api/session/recommend", 400, body=feedback[:1] * 10001)
    ask("post", "/api/session/recommend/{category}", 200, body=feedback, category="c")
    ask("post", "/api/session/recommend/{category}", 400, raw="{}", category="c")
    ask("get", "/api/item/{item}/neighbors", 200, {"n": 3}, item=items[0])
    ask("get", "/api/item/{item}/neighbors", 400, {"n": -1}, item=items[0])
    ask("get", "/api/item/{item}/neighbors/{category}", 200, item=items[0], category="c")
    ask("get", "/api/item/{item}/neighbors/{category}", 400, {"offset": "x"}, item=items[0], category="c")
    ask("get", "/api/item/{item}", 200, item="gi")
    ask("get", "/api/item/{item}", 404, item="no such thing")
    ask("patch", "/api/item/{item}", 200, body={"IsHidden": True}, item="gi")
    ask("patch", "/api/item/{item}", 404, body={"IsHidden": True}, item="no such thing")
    ask("patch", "/api/item/{item}", 400, raw="3", item="gi")
    ask("put", "/api/item/{item}/category/{category}", 200, item="gi", category="d")
    assert set(ask("get", "/api/item/{item}", 200, item="gi")["Categories"]) == {"c", "d"}
    ask("put", "/api/item/{item}/category/{category}", 404, item="no such thing", category="d")
    ask("delete", "/api/item/{item}/category/{category}", 200, item="gi", category="d")
    ask("delete", "/api/item/{item}/category/{category}", 404, item="no such thing", category="d")
    ask("post", "/api/items", 200, body=[{"ItemId": "gj"}])
    ask("post", "/api/items", 400, raw="{}")
    ask("get", "/api/items", 200, {"n": 2})
    ask("get", "/api/items", 400, {"n": "x"})
    ask("delete", "/api/item/{item}", 200, item="gi")
    ask("post", "/api/user", 200, body={"UserId": "gu", "Labels": ["x"], "Subscribe": ["y"], "Comment": "c"})
    ask("post", "/api/user", 400, body={})
    ask("post", "/api/users", 200, body=[{"UserId": "gv"}])
    ask("post", "/api/users", 400, raw="{}")
    ask("get", "/api/users", 200, {"n": 2})
    ask("get", "/api/users", 400, {"n": "x"})
    ask("get", "/api/user/{user}", 200, user="gu")
    ask("get", "/api/user/{user}", 404, user="no such body")
    ask("patch", "/api/user/{user}", 200, body={"Comment": "d"}, user="gu")
    ask("patch", "/api/user/{user}", 404, body={"Comment": "d"}, user="no such body")
    ask("patch", "/api/user/{user}", 400, raw="3", user="gu")
    ask("delete", "/api/user/{user}", 200, user="gu")


def nothing_else(s):
    """Paths that look like routes and are none, and methods that a path has not."""
    wild = {path.replace("{user}", "u1").replace("{item}", "i1").replace("{version}", "012345").replace("{category}", "c"): item for path, item in API["paths"].items()}
    for path, item in wild.items():
        for method in ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "BREW"):
            if method.lower() in item:
                continue
            status, d = s.admin(method, path, "{}" if method in ("PUT", "POST", "PATCH") else None)
            assert status in (404, 405) and d["error"], (method, path, status, d)
    # Deeper than any route, beside it, and what other services have.
    for path in (*[p + "/more/and/more" for p in wild if not p.startswith("/recommend")], "/", "/v1/recommend/u1", "/api", "/api/", "/api/popular", "/api/latest",
                 "/admin", "/debug/pprof", "/swagger", "/openapi.yaml", "/status", "/config", "/tokens", "/api/health/live", "/api/config", "/Versions", "//version"):
        status, d = s.admin("GET", path)
        assert status in (404, 405) and d["error"], (path, status, d)
    assert s.ask("GET", "/api/feedback")[0] == 404


def test_the_service_and_its_description_say_the_same():
    with Home() as home:
        home.run("data", "generate", "--users", "200", "--items", "150", "--sessions", "10")
        home.file("mine.lua", AGENT.replace("SIGN", "1"))
        composition = home.file("c.yaml", "nodes:\n  mine: { agent: mine.lua }\noutput: mine\n")
        with Service(home.path, composition, "--deadline-ms", "2000") as s:
            ask = Caller(s)
            ask("get", "/healthz", 200)
            ask("get", "/readyz", 200)
            assert "evection_slates_total" in ask("get", "/metrics", 200)
            items = [i["id"] for i in ask("get", "/items", 200, {"n": 20})["items"]]
            wrong = []
            for part in (lambda: recommending(ask, items), lambda: events(ask, items), lambda: entries(ask, items), lambda: versions(ask, home, composition),
                         lambda: gorse(ask, items), lambda: nothing_else(s)):
                try:
                    part()
                except AssertionError as e:  # the others are looked at, too
                    wrong.append(str(e))
            assert not wrong, "\n\n".join(wrong)
            missing = set(ask.operations) - set(ask.seen)
            assert not missing, f"never asked for: {sorted(missing)}"
            # Statuses that a test of its own shows, or that need a broken machine.
            apart = {413, 503, 409, 422}
            never = {key: sorted({int(code) for code in operation["responses"]} - ask.seen[key] - apart) for key, operation in ask.operations.items()}
            assert not any(never.values()), f"statuses that never came: { {k: v for k, v in never.items() if v} }"


def test_roles_are_as_written():
    with Home() as home:
        home.run("data", "generate", "--users", "50", "--items", "50", "--sessions", "5")
        tokens = home.file("tokens", "read reading-token-1\nfeedback feedback-token-1\nadmin admin-token-1234\n")
        os.chmod(tokens, 0o600)
        order = ["read", "feedback", "admin"]
        with Service(home.path, "agent:popular", "--deadline-ms", "2000", "--tokens", tokens) as s:
            for path, method, operation in operations():
                url = path.replace("{user}", "u1").replace("{item}", "no-such-thing").replace("{version}", "?").replace("{category}", "c")
                role, body = operation.get("x-role"), "3" if method in ("put", "post", "patch") else None  # so that nothing is done
                got = {}
                for token in (None, "reading-token-1", "feedback-token-1", "admin-token-1234", "another-token-1"):
                    got[token] = s.ask(method.upper(), url, body, {"X-API-Key": token} if token else None)[0]
                if role is None:
                    assert set(got.values()) == {200}, (method, url, got)
                    continue
                assert got[None] == 401 and got["another-token-1"] == 401, (method, url, got)
                for k, token in enumerate(("reading-token-1", "feedback-token-1", "admin-token-1234")):
                    assert (got[token] == 403) == (k < order.index(role)), (method, url, role, got)
            assert s.ask("GET", "/version", headers={"Authorization": "Bearer reading-token-1"})[0] == 200


if __name__ == "__main__":
    main(globals())
