"""The units are sound, as far as systemd itself can say without running them, and what they say of the program holds."""
import os
import shutil
import subprocess
import tempfile

from support import EVECTION, ROOT, Home, main

UNITS = os.path.join(ROOT, "scripts", "systemd")


def settings(name):
    found = {}
    with open(os.path.join(UNITS, name), encoding="utf-8") as f:
        for line in f:
            key, equals, value = line.strip().partition("=")
            if equals and not line.startswith("#"):
                found.setdefault(key, []).append(value)
    return found


def test_the_units_are_sound():
    if shutil.which("systemd-analyze") is None:
        return "skipped: no systemd-analyze here"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("evection.service", "evection.socket"):
            with open(os.path.join(UNITS, name), encoding="utf-8") as f, open(os.path.join(folder, name), "w", encoding="utf-8") as g:
                g.write(f.read().replace("/usr/local/bin/evection", "/bin/true"))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *(os.path.join(folder, n) for n in sorted(os.listdir(folder)))], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "evection" not in done.stderr, done.stderr


def test_what_the_units_say_is_what_the_program_does():
    service = settings("evection.service")
    with Home() as home:
        options = home.run("serve", "--help").stdout
    command = service["ExecStart"][0].split()
    assert command[1:3] == ["serve", "${EVECTION_COMPOSITION}"]
    for word in command:
        assert not word.startswith("--") or word in options, word
    assert service["Type"] == ["notify"] and service["ExecReload"] == ["/bin/kill -HUP $MAINPID"] and service["Restart"] == ["always"]
    with open(EVECTION, "rb") as f:
        binary = f.read()
    for word in (b"NOTIFY_SOCKET", b"LISTEN_FDS", b"READY=1", b"STOPPING=1"):
        assert word in binary, f"the program does not know {word.decode()}"


if __name__ == "__main__":
    main(globals())
