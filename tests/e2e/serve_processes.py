"""What each process of the service has, and has not; a place of a version is there again whatever ended the one that had it; a
request's time begins when it is whole."""
import json
import os
import re
import signal
import socket
import sys
import time

from support import ROOT, Home, main

sys.path.insert(0, os.path.join(ROOT, "tests"))
from serving import Service, until  # noqa: E402


def prepare(home):
    home.run("data", "generate", "--users", "200", "--items", "150", "--sessions", "10")


def open_files(pid):
    """→ what its descriptors above 2 lead to"""
    folder = f"/proc/{pid}/fd"
    return [re.sub(r":.*", "", os.readlink(os.path.join(folder, fd))) for fd in os.listdir(folder) if int(fd) > 2]


def shared_bytes(pid):
    """→ sizes of the memory that it shares with its parents"""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        areas = [line.split() for line in f]
    return [int(a[0].split("-")[1], 16) - int(a[0].split("-")[0], 16) for a in areas if a[1][3] == "s" and len(a) > 5 and a[5] == "/dev/zero"]


def test_what_runs_scripts_has_no_socket_no_file_of_others_and_not_the_ledgers_rings():
    with Home() as home:
        prepare(home)
        with Service(home.path, "agent:popular") as s:
            workers = until(lambda: len(s.pids("ev-worker")) == 2 and s.pids("ev-worker"), "two workers")
            front, scribe, team = s.pids("ev-front")[0], s.pids("ev-scribe")[0], s.pids("ev-team")[0]
            rings = [n for n in shared_bytes(scribe) if n > 16 << 20]
            assert len(rings) == 2 and sorted(rings) == sorted(n for n in shared_bytes(front) if n > 16 << 20), "the board and the rings"
            for pid in [team, *workers]:
                assert len([n for n in shared_bytes(pid) if n > 16 << 20]) == 1, "the board alone"
            assert sorted(set(open_files(team))) == ["anon_inode", "socket"] and open_files(team).count("socket") == 1, open_files(team)
            for pid in workers:
                assert set(open_files(pid)) == {"anon_inode"}, open_files(pid)
            assert "socket" not in open_files(scribe)
            before = {pid: len(open_files(pid)) for pid in (front, s.p.pid)}
            for round in range(3):
                assert s.publish("agent:popular", drop_state=True)[0] == 200
            until(lambda: {pid: len(open_files(pid)) for pid in before} == before, "as many descriptors as before")


def test_teams_that_are_killed_leave_their_places_free():
    with Home() as home:
        prepare(home)
        with Service(home.path, "agent:popular") as s:
            for _ in range(12):  # there are eight places
                team = until(lambda: s.pids("ev-team"), "a team")[0]
                os.kill(team, signal.SIGKILL)
                until(lambda team=team: team not in s.pids("ev-team") and len(s.pids("ev-worker")) == 2 and s.ask("GET", "/readyz")[0] == 200, "the next one")
            until(lambda: not s.slate("u1")["degraded"], "a whole slate")
            assert s.publish("agent:popular")[0] == 200
            assert "champion" in s.versions().values()


def test_a_request_that_comes_slowly_is_not_late():
    with Home() as home:
        prepare(home)
        with Service(home.path, "agent:popular", "--deadline-ms", "150") as s:
            body = json.dumps({"user": "u1", "n": 5}).encode()
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", s.port), timeout=20) as c:
                    c.sendall(b"POST /recommend HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
                    time.sleep(0.4)
                    c.sendall(body)
                    text = b""
                    while True:
                        part = c.recv(65536)
                        if not part:
                            break
                        text += part
                answer = json.loads(text.split(b"\r\n\r\n", 1)[1])
                assert not answer["degraded"] and len(answer["items"]) == 5, answer
            assert s.count("evection_late_total") == 0 and s.count("evection_worker_deaths_total") == 0


if __name__ == "__main__":
    main(globals())
