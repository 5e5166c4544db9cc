#!/usr/bin/env python3
"""Prints the manual page, made of what the binary says about itself: manual.py BINARY."""
import re
import subprocess
import sys


def help_of(*verb):
    return subprocess.run([sys.argv[1], *verb, "--help"], check=True, capture_output=True, text=True).stdout


def quoted(text):
    return text.replace("\\", "\\e").replace("-", "\\-")


def main():
    front = help_of()
    title = front.split("\n", 1)[0]
    version, about = re.match(r"evection (\S+) - (.*)", title).groups()
    print(f'.TH EVECTION 1 "" "evection {version}" "Evection"')
    print(f".SH NAME\nevection \\- {quoted(about)}")
    print(".SH SYNOPSIS\n.B evection\n.I verb\n[arguments] [options]")
    print(".SH VERBS")
    for line in front.splitlines():
        found = re.match(r"  (\S+(?: \S+)?)  +(\S.*)", line)
        if not found:
            continue
        verb = found.group(1).strip()
        text = help_of(*verb.split())
        usage, summary, rest = text.split("\n\n", 2)
        print(f".SS {quoted(verb)}\n{quoted(summary)}\n.PP\n.B {quoted(usage.removeprefix('usage: '))}")
        options, example = rest.split("\nexample:\n")
        for option in options.splitlines()[1:]:
            parts = re.match(r"  (\S+(?: \S+)?)\s+(\S.*)", option)
            if parts:
                print(f".TP\n.B {quoted(parts.group(1))}\n{quoted(parts.group(2))}")
        print(".PP\nExample:\n.nf")
        print("\n".join("    " + quoted(line.strip()) for line in example.strip().splitlines()))
        print(".fi")
    print(".SH ENVIRONMENT\n.TP\n.B EVECTION_HOME\nWhere data, artifacts, the ledger and champions live; ./var when unset.")
    print(".SH EXIT STATUS\n0 done; 1 the work failed; 2 the command line or a file is wrong; 3 a limit or budget ended it; 130 interrupted.")


main()
