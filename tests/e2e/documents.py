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


def checkout(home):
    """The home as a checkout would look from its top: the program, the agents, the examples."""
    os.symlink(os.path.dirname(EVECTION), os.path.join(home.path, "build"))
    for folder in ("examples", "agents", "policies"):
        os.symlink(os.path.join(ROOT, folder), os.path.join(home.path, folder))


def shell(home, line):
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=300, cwd=home.path, stdin=subprocess.DEVNULL,
                          env={k: v for k, v in os.environ.items() if k != "EVECTION_HOME"})
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done


def test_the_example_feed_decides_and_tells_the_truth():
    with Home() as home:
        checkout(home)
        line, evolve = re.findall(r"```sh\n(.*?)```", read("examples/feed/README.md"), re.S)
        out = shell(home, line).stdout
        assert out == shell(home, line).stdout, "the same seed, another run"
        assert out.strip() in read("examples/feed/README.md"), out
        champion, challenger = map(float, re.search(r"the truth now, clicks a session: ([\d.]+) and ([\d.]+)", out).groups())
        assert out.startswith("promote after") and challenger > champion, out
        report = shell(home, evolve).stdout
        reward, given = map(float, re.search(r"0 failed; champion is evaluation \d+, reward ([\d.]+) \(given: ([\d.]+)\)", report).groups())
        assert reward > given and "not for promotion" in report, report
        path = home.file("wrong.yaml", "users: 10\nplace: 3\n")
        done = subprocess.run([EVECTION, "run", os.path.join(ROOT, "examples", "feed", "loop.lua"), path], capture_output=True, text=True, cwd=home.path, check=False)
        assert done.returncode == 2 and f"{path}:2: a feed has no 'place' (did you mean 'places'?)" in done.stderr, done


def test_the_example_scheme_runs_as_written_and_as_its_page_changes_it():
    with Home() as home:
        checkout(home)
        page = read("examples/scheme/README.md")
        shown = {}
        for block in re.findall(r"```sh\n(.*?)```", page, re.S):
            for line in block.strip().splitlines():
                shown[line] = shell(home, line).stdout
        # Each change of the page takes the place of the lines it is about.
        text = read("examples/scheme/scheme.lua")
        blocks = re.findall(r"```lua\n(.*?)```", page, re.S)
        assert len(blocks) == 3

        def lines(block):
            return [line for line in block.strip().splitlines() if line.startswith("local")]
        old = {"loss": "    local loss = nn.loss.bpr()(u:dot(i), u:dot(j))", "batch": re.search(r"    local batch = .*", text).group(0)}
        softmax, squared = lines(blocks[0])
        draws, hard = lines(blocks[1])
        tower, deep = lines(blocks[2])
        changed = {
            "softmax": text.replace(old["loss"], "    " + softmax),
            "squared": text.replace(old["loss"], "    " + squared.split(" --")[0]),
            "hard": text.replace(old["batch"], "    " + draws).replace(old["loss"], "    " + hard),
            "deep": text.replace("    local u, i, j = user[batch.user], ", f"    {tower}\n    {deep}\n    local i, j = ").replace(
                "user = user, item", "user = user + tower(user), item"),
        }
        for name, new in changed.items():
            assert new != text
            home.file("mine/scheme.lua", new)
            home.file("mine/scheme.yaml", read("examples/scheme/scheme.yaml"))
            out = shell(home, "build/evection eval mine/scheme.yaml --data movielens --quiet").stdout
            assert "ndcg" in out and out not in shown.values(), name


def test_every_block_of_the_pages_on_schemes_and_exploring_prints_what_it_says():
    with Home() as home:
        checkout(home)
        blocks = re.findall(r"```lua\n(.*?)```", read("docs/reference/nn.md"), re.S)
        assert len(blocks) >= 6
        tries, *more = re.findall(r"```lua\n(.*?)```", read("docs/reference/explore.md"), re.S)
        home.file("tries.lua", tries)
        assert "sound" in shell(home, "build/evection check tries.lua").stdout and len(more) == 2
        for text in blocks + more:
            home.file("block.lua", text)
            out = shell(home, "build/evection run block.lua").stdout.splitlines()
            said = re.findall(r"--> (.*)", text)
            assert len(said) > 0 and [line for line in out if line in said] == said, (text, out)


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
