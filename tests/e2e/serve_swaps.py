"""New versions under load: no request fails, each answer is of one version, and however an editor writes a file, it is seen once."""
import json
import os
import random
import sys
import threading
import time

from support import ROOT, Home, main

sys.path.insert(0, os.path.join(ROOT, "tests"))
from serving import Load, Service, all_good, lines, replace, until  # noqa: E402

AGENT = """
local agent = require "evection.agent"

return agent {
  name = "mine", role = "recall",
  about = "SIGN times popularity.",
  fit = function(_, data) return data:item_scores(data:item_counts() * SIGN) end,
}
"""


def agent(sign):
    return AGENT.replace("SIGN", str(sign))


def prepare(home):
    home.run("data", "generate", "--users", "200", "--items", "150", "--sessions", "10")
    home.file("mine.lua", agent(1))
    return home.file("c.yaml", "nodes:\n  mine: { agent: mine.lua }\noutput: mine\n"), lines(os.path.join(home.path, "users"), [f"u{i}" for i in range(200)])


class Explained(threading.Thread):
    """Slates with explain=1, one after the other: what made a slate is of the version that the slate names."""

    def __init__(self, s):
        super().__init__(daemon=True)
        self.s, self.stop, self.n, self.made_by, self.wrong = s, False, 0, {}, []

    def run(self):
        while not self.stop:
            try:
                d = self.s.slate(f"u{self.n % 200}", "n=5&explain=1")
                agents = json.dumps([(node["node"], node["agent_hash"]) for node in d["explain"]["nodes"]])
                if self.made_by.setdefault(d["version"], agents) != agents:
                    self.wrong.append((d["version"], agents, self.made_by[d["version"]]))
                best = [i["score"] for i in d["items"]]
                if best != sorted(best, reverse=True):
                    self.wrong.append((d["version"], best))
                self.n += 1
            except Exception as e:  # whatever goes wrong is a failed request
                self.wrong.append(repr(e))
            time.sleep(0.005)

    def end(self):
        self.stop = True
        self.join(10)


def test_a_hundred_swaps_by_file_and_by_name_fail_no_request_and_mix_no_version():
    with Home() as home:
        composition, users = prepare(home)
        mine = os.path.join(home.path, "mine.lua")
        with Service(home.path, composition, "--deadline-ms", "2000") as s:
            traffic = Load(s, users=users, path="/recommend/%s?n=10", expect=10, connections=4, seconds=120)
            explained = Explained(s)
            explained.start()
            seen = [s.version()["version"]]
            for k in range(50):
                replace(mine, agent(k % 5 + 2))
                until(lambda: s.version()["version"] != seen[-1], "the edited agent")
                seen.append(s.version()["version"])
                other = home.file(f"other{k % 3}.yaml", f"nodes:\n  mine: {{ agent: mine.lua, n: {11 + k % 3} }}\noutput: mine\n")
                status, d = s.publish(other)
                assert status == 200 and d["version"] != seen[-1] and d["state"] == "champion", (status, d)
                seen.append(d["version"])
                assert s.slate("u1")["version"] == d["version"], "a version is in service when its publishing is answered"
                status, d = s.publish(composition)  # back to the file that is edited
                assert status == 200, (status, d)
                seen.append(d["version"])
            explained.end()
            result = all_good(traffic.end(stop=True), 200)
            assert result["degraded"] == 0 and result["fallback"] == 0, (result["degraded"], result["fallback"])
            assert set(result["versions"]) <= set(s.versions()), "every answer names a version that there was"
            assert explained.wrong == [] and explained.n > 50, (explained.wrong[:3], explained.n)
            assert s.count("evection_reloads_total") >= 100 and s.count("evection_worker_deaths_total") == 0
            until(lambda: len(s.pids("ev-team")) <= 2, "the end of the versions that are out of service")


def test_a_storm_of_edits_ends_with_the_last_one():
    with Home() as home:
        composition, users = prepare(home)
        mine = os.path.join(home.path, "mine.lua")
        with Service(home.path, composition, "--deadline-ms", "2000") as s:
            traffic = Load(s, users=users, path="/recommend/%s?n=10", expect=10, connections=2, seconds=60)
            rng = random.Random(7)
            for k in range(300):
                text = agent(k + 2) if rng.random() < 0.7 else agent(k + 2)[:rng.randrange(200)]
                if rng.random() < 0.5:
                    replace(mine, text)
                else:
                    with open(mine, "w", encoding="utf-8") as f:
                        f.write(text)
                time.sleep(rng.uniform(0, 0.01))
            replace(mine, agent(-1))
            common = [i["id"] for i in s.slate("stranger")["items"]]
            until(lambda: s.version()["error"] == "" and not set(common) & {i["id"] for i in s.slate("stranger")["items"]}, "the last edit", 20)
            result = all_good(traffic.end(stop=True), 50)
            assert result["fallback"] == 0, result["fallback"]
            until(lambda: len(s.pids("ev-team")) <= 2, "no version is left over")


def vim(path, text):
    """Moves the file away, writes a new one, removes the backup (backupcopy=no)."""
    os.rename(path, path + "~")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.remove(path + "~")


def vim_in_place(path, text):
    """Copies to a backup, truncates, writes (backupcopy=yes), with a swap file and its test file 4913 beside."""
    folder = os.path.dirname(path)
    with open(os.path.join(folder, ".mine.lua.swp"), "w", encoding="utf-8") as f:
        f.write("b0VIM")
    with open(os.path.join(folder, "4913"), "w", encoding="utf-8"):
        pass
    os.remove(os.path.join(folder, "4913"))
    with open(path, encoding="utf-8") as f, open(path + "~", "w", encoding="utf-8") as g:
        g.write(f.read())
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.remove(path + "~")
    os.remove(os.path.join(folder, ".mine.lua.swp"))


def emacs(path, text):
    """A lock that is a dangling link, an autosave, a backup by renaming, then the new file."""
    folder, name = os.path.split(path)
    lock = os.path.join(folder, ".#" + name)
    os.symlink("someone@somewhere.1:1", lock)
    with open(os.path.join(folder, f"#{name}#"), "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(path, path + "~")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.remove(os.path.join(folder, f"#{name}#"))
    os.remove(lock)


def truncating(path, text):
    """Empties the file, and takes its time to write it, in pieces."""
    with open(path, "w", encoding="utf-8") as f:
        for k in range(0, len(text), 40):
            f.write(text[k:k + 40])
            f.flush()
            time.sleep(0.01)


def linked(path, text):
    """As configuration managers do: the name is a link that is swapped."""
    target = f"{path}.{len(text)}-{time.monotonic_ns()}"
    with open(target, "w", encoding="utf-8") as f:
        f.write(text)
    os.symlink(target, path + ".link")
    os.rename(path + ".link", path)


def test_every_editors_way_of_writing_is_seen():
    with Home() as home:
        composition, _ = prepare(home)
        folder = os.path.join(home.path, "edited")
        os.mkdir(folder)
        mine = os.path.join(folder, "mine.lua")
        replace(mine, agent(1))
        composition = home.file("edited/c.yaml", "nodes:\n  mine: { agent: mine.lua }\noutput: mine\n")
        with Service(home.path, composition, "--deadline-ms", "2000") as s:
            common = {i["id"] for i in s.slate("stranger")["items"]}
            sign = 1
            for write in (replace, vim, vim_in_place, emacs, truncating, linked, vim, replace):
                for _ in range(2):
                    sign, before = -sign, s.version()["version"]
                    write(mine, agent(sign))
                    until(lambda: s.version()["version"] != before and s.version()["error"] == "", f"an edit by {write.__name__}")
                    got = {i["id"] for i in s.slate("stranger")["items"]}
                    assert (got == common) == (sign == 1), (write.__name__, sign)
            time.sleep(0.4)
            reloads = s.count("evection_reloads_total")
            with open(os.path.join(folder, "notes.txt"), "w", encoding="utf-8") as f:
                f.write("a file that nothing is made of")
            os.utime(mine)
            time.sleep(0.4)
            assert s.count("evection_reloads_total") == reloads, "what changes nothing is no new version"


if __name__ == "__main__":
    main(globals())
