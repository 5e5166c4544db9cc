"""What `make install` puts down works from there, and `make uninstall` takes all of it away."""
import os
import subprocess
import tempfile

from support import EVECTION, ROOT, main

PROGRAM = """
#include <stdio.h>
#include "math/math.h"
int main(void) {
  float a[3] = {1, 2, 3};
  printf("%g", ev_dot(a, a, 3));
  return 0;
}
"""


def make(target, stage):
    subprocess.run(["make", "-C", ROOT, target, f"DESTDIR={stage}", "PREFIX=/usr", f"BUILD={os.path.dirname(EVECTION)}"], check=True, capture_output=True,
                   env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")})


def files(folder):
    return [os.path.join(path, name) for path, _, names in os.walk(folder) for name in names]


def test_an_installed_evection_works_and_can_be_taken_away():
    with tempfile.TemporaryDirectory() as stage:
        make("install", stage)
        binary = os.path.join(stage, "usr/bin/evection")
        environment = {"PATH": os.environ["PATH"], "EVECTION_HOME": os.path.join(stage, "home")}

        def run(*args):
            return subprocess.run([binary, *args], check=True, capture_output=True, text=True, cwd=stage, env=environment).stdout

        run("data", "generate", "--as", "w", "--users", "60", "--items", "60", "--sessions", "10", "--quiet")
        assert "recall" in run("eval", "agent:popular", "--data", "w", "--quiet")
        composition = os.path.join(stage, "usr/share/evection/policies/compositions/hand_written.yaml")
        assert "sound" in run("check", composition)
        with open(os.path.join(stage, "usr/share/man/man1/evection.1"), encoding="utf-8") as f:
            page = f.read()
        assert page.startswith(".TH EVECTION 1") and "data import" in page
        completion = os.path.join(stage, "usr/share/bash-completion/completions/evection")
        script = f'PATH="{os.path.dirname(binary)}:$PATH"; . {completion}; COMP_WORDS=(evection ev); COMP_CWORD=1; _evection; echo "${{COMPREPLY[@]}}"'
        offered = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True, cwd=stage).stdout.split()
        assert {"eval", "evolve"} <= set(offered), offered
        make("uninstall", stage)
        assert [path for path in files(os.path.join(stage, "usr"))] == []


def test_a_program_links_against_what_pkg_config_says():
    if "-san" in EVECTION:
        return  # its archives want the sanitizers' runtime
    with tempfile.TemporaryDirectory() as stage:
        make("install", stage)
        source = os.path.join(stage, "dot.c")
        with open(source, "w", encoding="ascii") as f:
            f.write(PROGRAM)
        environment = dict(os.environ, PKG_CONFIG_PATH=os.path.join(stage, "usr/lib/pkgconfig"))
        flags = subprocess.run(["pkg-config", "--define-prefix", "--cflags", "--libs", "evection"], check=True, capture_output=True, text=True, env=environment).stdout.split()
        flags = [f.replace("-I/usr/include/evection", f"-I{stage}/usr/include/evection").replace("-L/usr/lib ", f"-L{stage}/usr/lib ") for f in flags]
        program = os.path.join(stage, "dot")
        subprocess.run(["gcc", "-o", program, source, f"-I{stage}/usr/include/evection", f"-L{stage}/usr/lib", *flags], check=True, capture_output=True)
        assert subprocess.run([program], check=True, capture_output=True, text=True).stdout == "14"


main(globals())
