"""Rules on the text of the tree: size of files, links between documents, shell syntax, systemd units, leftover words.

usage: text.py ROOT
"""

import os
import re
import subprocess
import sys

LONGEST = 600  # lines; the style asks for about 500


def tracked(root):
    out = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard"], capture_output=True,
                         text=True, check=True).stdout
    return [f for f in out.splitlines() if os.path.isfile(os.path.join(root, f))]


def check(root, name, text):
    lines = text.splitlines()
    if name.endswith((".cpp", ".hpp", ".h", ".c", ".py")) and len(lines) > LONGEST:
        yield f"{len(lines)} lines; split it"
    for i, line in enumerate(lines, 1):
        if not name.startswith("tests/static/") and re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield f"line {i}: a leftover: {line.strip()}"
    if name.endswith(".md"):
        for target in re.findall(r"\]\(([^)#]+)", text):
            if "://" not in target and not os.path.exists(os.path.join(root, os.path.dirname(name), target)):
                yield f"link to {target}, which does not exist"
    if name.endswith(".service") and "StartLimitIntervalSec=0" not in lines:
        yield "systemd gives up after five starts in ten seconds; StartLimitIntervalSec=0"
    if lines and lines[0].startswith("#!") and "bash" in lines[0]:
        done = subprocess.run(["bash", "-n", os.path.join(root, name)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            yield done.stderr.strip()


def main():
    root, bad = sys.argv[1], 0
    for name in tracked(root):
        try:
            with open(os.path.join(root, name), encoding="utf-8") as f:
                text = f.read()
        except UnicodeDecodeError:
            continue
        for words in check(root, name, text):
            print(f"{name}: {words}")
            bad += 1
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
