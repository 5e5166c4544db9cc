"""What the documents tell people to type works, and what they point to is there."""
import glob
import os
import re
import subprocess

from support import EVECTION, ROOT, Home, main

PAGES = ["README.md", *glob.glob("docs/**/*.md", recursive=True, root_dir=ROOT), *glob.glob("examples/**/*.md", recursive=True, root_dir=ROOT)]


def read(page):
    with open(os.path.join(ROOT, page), encoding="utf-8") as f:
        return f.read()


def test_the_example_runs_as_written():
    with Home() as home:
        os.symlink(os.path.dirname(EVECTION), os.path.join(home.path, "build"))
        for folder in ("examples", "agents", "policies"):
            os.symlink(os.path.join(ROOT, folder), os.path.join(home.path, folder))
        for block in re.findall(r"```sh\n(.*?)```", read("examples/movielens/README.md"), re.S):
            for line in block.strip().splitlines():
                done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=300, cwd=home.path,
                                      env={k: v for k, v in os.environ.items() if k != "EVECTION_HOME"}, stdin=subprocess.DEVNULL)
                assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert os.path.exists(os.path.join(home.path, "var", "champions", "with_rising.yaml"))


def test_every_block_of_the_items_page_runs():
    with Home() as home:
        os.symlink(os.path.dirname(EVECTION), os.path.join(home.path, "build"))
        for folder in ("agents", "policies"):
            os.symlink(os.path.join(ROOT, folder), os.path.join(home.path, folder))
        blocks = re.findall(r"```(sh|lua)\n(.*?)```", read("docs/reference/items.md"), re.S)
        assert [kind for kind, _ in blocks] == ["sh", "sh", "lua", "lua"]
        for kind, text in blocks:
            home.file("block.lua", text)
            command = ["sh", "-ec", text] if kind == "sh" else ["build/evection", "run", "block.lua"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=home.path, stdin=subprocess.DEVNULL,
                                  env={k: v for k, v in os.environ.items() if k != "EVECTION_HOME"})
            assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert os.path.isdir(os.path.join(home.path, "var", "items", "shelf"))


def test_the_readme_shows_the_agent_of_the_example():
    shown = re.search(r"```lua\n(.*?)```", read("README.md"), re.S).group(1)
    assert shown == read("examples/movielens/rising.lua")


def test_links_lead_somewhere():
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(page)):
            if not os.path.exists(os.path.join(ROOT, os.path.dirname(page), target)):
                broken.append(f"{page}: {target}")
    assert not broken, broken


def test_every_agent_and_verb_named_in_the_documents_exists():
    agents = {os.path.basename(path)[:-4] for path in glob.glob(os.path.join(ROOT, "agents", "*", "*.lua"))} | {"NAME"}
    verbs = set(re.findall(r"^  (\S+)", subprocess.run([EVECTION, "--help"], capture_output=True, text=True, check=True).stdout, re.M)) | {"VERB"}
    for page in PAGES:
        for name in re.findall(r"agent:(\w+)", read(page)):
            assert name in agents, f"{page}: agent:{name}"
        for name in re.findall(r"build/evection (\w+)|`evection (\w+)", read(page)):
            assert (name[0] or name[1]) in verbs, f"{page}: evection {name}"


main(globals())
