#!/usr/bin/env python3
"""Makes docs/results.md of what the benchmarks wrote to build/bench/*.json."""
import ast
import glob
import json
import os
import platform

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HEAD = """# Measured results

Made by `make bench` from what the benchmarks in `tests/bench/` wrote; each section names the command that makes it
again. The peer ran in the same run, on the same machine, with the same number of threads and, where both use BLAS, the
same kernels. A ratio above 1 is in Evection's favour; an absolute time holds for one machine on one day. Intervals
are 95 % bootstrap intervals over users.
"""


def number(x):
    return f"{x:.4f}" if abs(x) < 1 else f"{x:.4g}" if abs(x) < 1000 else f"{x:.0f}"


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"Machine: {model}, {len(os.sched_getaffinity(0))} cores, {platform.machine()}."


def section(name, rows):
    with open(os.path.join(ROOT, "tests", "bench", name + ".py"), encoding="utf-8") as f:
        about = ast.get_docstring(ast.parse(f.read()))
    aims = any("aim" in r or "aim_most" in r for r in rows)
    lines = [f"## {name}", "", about, "", f"`make bench-{name}`", ""]
    for picture in sorted(glob.glob(os.path.join(ROOT, "docs", name + "_*.svg"))):
        lines += [f"![{name}]({os.path.basename(picture)})", ""]
    lines += ["| what | value | unit | peer | peer's value | ratio |" + (" aim |" if aims else ""), "| --- | ---: | --- | --- | ---: | ---: |" + (" ---: |" if aims else "")]
    for r in rows:
        value = number(r["value"]) + (f" [{number(r['low'])}, {number(r['high'])}]" if "low" in r else "")
        peer = ("", "", "") if r["peer"] is None else (r["peer"], number(r["peer_value"]), f"{r['ratio']:.2f}")
        aim = "" if not aims else f" ≥ {r['aim']:.2f} |" if "aim" in r else f" ≤ {r['aim_most']:g} |" if "aim_most" in r else " |"
        lines.append(f"| {r['name']} | {value} | {r['unit']} | {peer[0]} | {peer[1]} | {peer[2]} |{aim}")
        if r.get("command"):
            lines.append(f"| `{r['command']}` | | | | | |" + (" |" if aims else ""))
    return "\n".join(lines) + "\n"


def main():
    folder = os.path.join(ROOT, "build", "bench")
    parts = [HEAD, machine() + "\n"]
    for file in sorted(os.listdir(folder)):
        if file.endswith(".json"):
            with open(os.path.join(folder, file), encoding="utf-8") as f:
                parts.append(section(file[:-5], json.load(f)))
    with open(os.path.join(ROOT, "docs", "results.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(parts))
    print("docs/results.md")


main()
