"""The processes that run scripts, seen from outside: what the kernel says of their filters, what they hold open, and that what agents
learn still reaches the disk. Where nobody may set a filter (as in many a container) the service serves and says so."""
import ctypes
import glob
import json
import os
import sys
import time
import urllib.request

from support import ROOT, Home, main

sys.path.insert(0, os.path.join(ROOT, "tests"))
from serving import Service, until  # noqa: E402

EPERM, ALLOW, ERRNO = 1, 0x7FFF0000, 0x00050000


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def limits_of(pid):
    with open(f"/proc/{pid}/limits", encoding="ascii") as f:
        return {line[:25].strip(): line[25:].split()[0] for line in list(f)[1:]}


def open_files(pid):
    found = {}
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            found[int(os.path.basename(path))] = os.readlink(path)
        except OSError:
            continue
    return found


def prepare(home):
    home.run("data", "generate", "--users", "200", "--items", "150", "--sessions", "10")
    return home.file("c.yaml", "nodes:\n  likely: { agent: popular, n: 50 }\n  order: { agent: thompson, from: [likely] }\noutput: order\n")


def test_what_runs_scripts_is_under_filters_and_holds_nothing_open():
    with Home() as home:
        with Service(home.path, prepare(home)) as s:
            workers = until(lambda: len(s.pids("ev-worker")) == 2 and s.pids("ev-worker"), "two workers")
            until(lambda: s.count("evection_workers_confined") == 2, "both confined")
            assert s.count("evection_workers") == 2 and s.version()["confined"] is True
            for pid in workers:
                status, limits, files = status_of(pid), limits_of(pid), open_files(pid)
                assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1", status
                assert int(status["Seccomp_filters"]) == 2, "its own, and its team's"
                assert limits["Max open files"] == "0" and limits["Max core file size"] == "0" and limits["Max processes"] == "0", limits
                with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as f:
                    assert int(f.read()) == 500, "it goes before the front does"
                assert files[0] == files[1] == "/dev/null" and 2 in files, files
                assert all(path == "anon_inode:[eventfd]" for fd, path in files.items() if fd > 2) and len(files) == 3 + 16, files
            team = status_of(s.pids("ev-team")[0])
            assert team["Seccomp"] == "2" and team["NoNewPrivs"] == "1", team
            for name in ("ev-front", "ev-scribe"):
                assert status_of(s.pids(name)[0])["Seccomp"] == "0", "these run no script"
            # One that is replaced is confined, too.
            os.kill(workers[0], 9)
            until(lambda: workers[0] not in s.pids("ev-worker") and len(s.pids("ev-worker")) == 2, "the next one")
            until(lambda: s.count("evection_workers_confined") == 2, "that it is confined")
            assert all(status_of(pid)["Seccomp"] == "2" for pid in s.pids("ev-worker"))
            # And one of a version that was staged and published while serving.
            status, said = s.publish("agent:popular")
            assert status == 200, said
            until(lambda: s.count("evection_workers_confined") == s.count("evection_workers") >= 2, "all of both versions")
        assert "not confined" not in s.said(), s.said()[-2000:]


def test_what_agents_learn_reaches_the_disk_without_the_workers_opening_a_file():
    with Home() as home:
        with Service(home.path, prepare(home), "--snapshot-s", "1") as s:
            def learn(n):
                for i in range(n):
                    items = s.ask("GET", "/recommend/u1?n=5")[1]["items"]
                    status, said = s.ask("POST", "/events", {"user": f"v{i}", "item": items[i % 5]["id"]})
                    assert status == 200, said
            assert not glob.glob(os.path.join(home.path, "state", "*", "*.snapshot"))
            learn(5)
            first = until(lambda: glob.glob(os.path.join(home.path, "state", "*", "thompson*.snapshot")), "a snapshot")[0]
            before = os.stat(first).st_mtime_ns
            until(lambda: not s.pids("ev-keeper"), "its writer's end")
            time.sleep(1.5)
            quiet = os.stat(first).st_mtime_ns
            time.sleep(1.5)
            assert os.stat(first).st_mtime_ns == quiet, "nothing was learnt: nothing is written"
            learn(5)
            until(lambda: os.stat(first).st_mtime_ns > max(before, quiet), "the next one")
            assert s.count("evection_worker_deaths_total") == 0 and s.count("evection_unlearned_total") == 0
        assert not glob.glob(os.path.join(home.path, "state", "*", "*.tmp.*"))


def test_what_was_learnt_until_the_end_is_kept():
    with Home() as home:
        with Service(home.path, prepare(home)) as s:  # a minute between snapshots
            items = s.ask("GET", "/recommend/u1?n=5")[1]["items"]
            assert s.ask("POST", "/events", {"user": "v", "item": items[0]["id"]})[0] == 200
            time.sleep(0.3)
            assert not glob.glob(os.path.join(home.path, "state", "*", "*.snapshot"))
        assert glob.glob(os.path.join(home.path, "state", "*", "thompson*.snapshot")), s.said()[-1000:]


def test_where_no_filter_can_be_set_it_serves_and_says_so_once():
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p

    class Compare(ctypes.Structure):
        _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]

    def forbid():
        filters = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ALLOW)))
        number = library.seccomp_syscall_resolve_name
        assert library.seccomp_rule_add_array(filters, ctypes.c_uint32(ERRNO | EPERM), number(b"seccomp"), 0, None) == 0
        set_seccomp = Compare(0, 4, 22, 0)  # prctl's first argument equals PR_SET_SECCOMP
        assert library.seccomp_rule_add_array(filters, ctypes.c_uint32(ERRNO | EPERM), number(b"prctl"), 1, ctypes.byref(set_seccomp)) == 0
        assert library.seccomp_load(filters) == 0

    with Home() as home:
        composition = prepare(home)
        pid = os.fork()  # a filter is for life: in a process of its own
        if pid == 0:
            code = 1
            try:
                forbid()
                with Service(home.path, composition, own_port=True) as s:
                    until(lambda: len(s.pids("ev-worker")) == 2, "two workers")
                    with urllib.request.urlopen(f"http://127.0.0.1:{s.port}/recommend/u1?n=5") as answer:
                        assert len(json.load(answer)["items"]) == 5
                    assert s.version()["confined"] is False and s.count("evection_workers_confined") == 0 and s.count("evection_workers") == 2
                    worker = s.pids("ev-worker")[0]
                    assert limits_of(worker)["Max open files"] == "0", "limits hold all the same"
                    assert s.said().count("not confined") == 1, s.said()
                code = 0
            except BaseException as e:  # noqa: BLE001
                print("in the child:", repr(e), flush=True)
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    main(globals())
