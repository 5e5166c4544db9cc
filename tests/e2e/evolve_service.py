"""An evolution's champion goes to the running service, by word of the command line or the plan; what could not be done is known before the run."""
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from serving import Service, until  # noqa: E402
from support import Home, main  # noqa: E402

COMPOSITION = """nodes:
  mine:  { agent: mine.lua, n: 50 }
  known: { agent: popular, n: 50 }
  both:  { agent: rank_fusion, from: [mine, known] }
output: both
"""
# The given knobs are the worst ones: whatever is found is better.
AGENT = """
local agent, space = require "evection.agent", require "evection.space"

return agent {
  name = "mine", role = "recall", about = "SIGN: from seldom to popular.",
  space = { sign = space.linear(-1, 1, -1) },
  fit = function(knobs, data) return data:item_scores(data:item_counts() * knobs.sign) end,
}
"""
PLAN = """name: small
composition: small.yaml
data: world
reward: ndcg@20
evolve: ["mine.*", "both.*"]
proposers: [random]
budget: { evaluations: 6 }
promotion: { metric: ndcg@20, confidence: 0.95THEN }
batch: 3
seed: 5
"""


def prepare(home, then=""):
    home.run("data", "generate", "--users", "150", "--items", "100", "--sessions", "6")
    home.file("mine.lua", AGENT)
    return home.file("small.yaml", COMPOSITION), home.file("plan.yaml", PLAN.replace("THEN", then))


def test_what_cannot_be_handed_over_is_said_before_the_run():
    with Home() as home:
        composition, plan = prepare(home)
        tokens = home.file("tokens", "read reader-token-1\nadmin admin-token-1\n")
        os.chmod(tokens, 0o600)
        ledger = os.path.join(home.path, "ledger.db")
        done = home.run("evolve", plan, "--then", "canary", code=1)
        assert "no service: there is no" in done.stderr and done.stderr.count("\n") == 1 and done.stdout == "", done
        assert not os.path.exists(ledger), "nothing was begun"
        for args, said in ((["--then", "fly"], "--then: 'fly' is none of stage, canary, publish"), (["--share", "0.5"], "--share wants --then canary"),
                           (["--then", "publish", "--share", "0.5"], "--share wants --then canary"), (["--then", "canary", "--share", "2"], "--share must be above 0 and at most 1")):
            done = home.run("evolve", plan, *args, code=2)
            assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr
        with Service(home.path, composition, "--tokens", tokens) as s:
            url = f"http://127.0.0.1:{s.port}"
            for token, said in ((None, "token"), ("reader-token-1", "token")):
                done = home.run("evolve", plan, "--then", "stage", "--url", url, *(["--token", token] if token else []), code=1)
                assert done.stdout == "" and said in done.stderr, done.stderr
            home.run("data", "generate", "--users", "100", "--items", "50", "--sessions", "3", "--as", "other")
            done = home.run("evolve", plan, "--data", "other", "--then", "stage", "--url", url, "--token", "admin-token-1", code=2)
            assert "the service serves the data set 'world', and the run is about 'other'" in done.stderr, done.stderr
            admin = ["--url", url, "--token", "admin-token-1"]
            version = home.json("evolve", plan, "--then", "stage", *admin)["service"]["said"]["version"]
            assert version in [v["version"] for v in home.json("versions", *admin)["versions"]]


def test_the_champion_is_staged_tried_and_published():
    with Home() as home:
        composition, plan = prepare(home)
        with Service(home.path, composition) as s:
            first = s.version()["version"]
            r = home.json("evolve", plan, "--then", "stage")
            version = r["service"]["said"]["version"]
            assert r["champion"]["number"] > 1 and r["service"]["asked"] == r["service"]["then"] == "stage" and "why" not in r["service"], r["service"]
            assert version == r["champion"]["genome"] and s.versions()[version] == "staged" and s.version()["version"] == first
            done = home.run("evolve", plan, "--resume", "--then", "canary", "--share", "0.25")  # the run is over: what it found is handed over again
            assert f"{version[:12]} is on trial" in done.stdout and "champion written to" in done.stdout, done.stdout
            status = until(lambda: (lambda d: d if d.get("challenger") else None)(s.ask("GET", "/canary")[1]), "the canary")
            assert status["challenger"] == version and status["share"] == 0.25
            assert s.admin("POST", "/canary/stop")[0] == 200
            r = home.json("evolve", plan, "--resume", "--then", "publish")
            assert r["report"]["against"] == [] and r["service"]["then"] == "publish" and s.version()["version"] == version
            assert s.slate("nobody")["version"] == version


def test_a_plan_may_say_it_and_the_command_line_otherwise():
    with Home() as home:
        composition, plan = prepare(home, ", then: canary, share: 0.4")
        assert "no service" in home.run("evolve", plan, code=1).stderr
        with Service(home.path, composition) as s:
            version = home.json("evolve", plan)["service"]["said"]["version"]
            status = until(lambda: (lambda d: d if d.get("challenger") else None)(s.ask("GET", "/canary")[1]), "the canary")
            assert status["challenger"] == version and status["share"] == 0.4
            assert s.admin("POST", "/canary/stop")[0] == 200
            assert home.json("evolve", plan, "--resume", "--then", "publish")["service"]["then"] == "publish" and s.version()["version"] == version


def test_what_is_no_better_is_not_handed_over_and_what_is_not_surely_better_not_published():
    with Home() as home:
        composition, plan = prepare(home)
        with Service(home.path, composition) as s:
            first = s.version()["version"]
            done = home.run("evolve", plan, "--evaluations", "1", "--then", "publish")
            assert "not handed to the service: nothing found is better than the composition as given" in done.stdout, done.stdout
            r = home.json("evolve", plan, "--evaluations", "1", "--resume", "--then", "stage")
            assert r["service"] == {"asked": "stage", "then": None, "why": ["nothing found is better than the composition as given"]}
            assert list(s.versions()) == [first]
            home.file("small.yaml", COMPOSITION.replace("mine.lua, n: 50", "item_knn, n: 50"))  # now there is little to gain
            doubtful = home.file("doubtful.yaml", PLAN.replace("THEN", "").replace("0.95", "0.999999").replace("evaluations: 6", "evaluations: 12"))
            r = home.json("evolve", doubtful, "--then", "publish")
            if r["champion"]["number"] == 1:
                raise AssertionError("the plan finds nothing: the test wants something slightly better")
            assert r["report"]["against"] and r["service"]["then"] == "stage" and r["service"]["why"] == r["report"]["against"], r["service"]
            assert s.versions()[r["service"]["said"]["version"]] == "staged" and s.version()["version"] != r["service"]["said"]["version"]
            said = home.run("evolve", doubtful, "--resume", "--then", "publish").stdout
            assert "staged and not published: on validation the gain's interval" in said, said


class Refuses(BaseHTTPRequestHandler):
    def answer(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        code, said = (200, {"data": "world", "version": "0" * 64}) if self.command == "GET" else (409, {"error": "the gate: too slow"}) if body else (400, {"error": "source is missing"})
        text = json.dumps(said).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def test_a_run_is_told_also_when_its_champion_is_refused():
    with Home() as home:
        _, plan = prepare(home)
        server = HTTPServer(("127.0.0.1", 0), Refuses)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            done = home.run("evolve", plan, "--json", "--quiet", "--then", "canary", "--url", f"http://127.0.0.1:{server.server_address[1]}", code=1)
        finally:
            server.shutdown()
            server.server_close()
        r = json.loads(done.stdout)
        assert r["champion"]["number"] > 1 and r["service"]["error"] == "the gate: too slow" and os.path.exists(r["champion"]["file"]), r
        assert done.stderr == f"evection: the champion was not handed over: the gate: too slow (it is in {r['champion']['file']})\n", done.stderr


if __name__ == "__main__":
    main(globals())
