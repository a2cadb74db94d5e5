"""The kit is able to fail: every deliberately wrong datapath of caught.txt is caught by the case meant for it, and with
that case's words.

usage: wrong_test.py FOLDER --junitxml=FILE [NAME]...
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
KIT = os.path.join(os.path.dirname(HERE), "kit.py")


def lines():
    with open(os.path.join(HERE, "caught.txt"), encoding="utf-8") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                yield [part.strip() for part in line.split("|")]


def caught(folder, name, case):
    """(problem or "", what the kit has seen)."""
    library = os.path.join(folder, f"egw-datapath-wrong-{name}.so")
    with tempfile.TemporaryDirectory() as temporary:
        out = os.path.join(temporary, "result.json")
        done = subprocess.run(["/usr/bin/python3", KIT, library, "--only", case, "--jobs", "1", "--json", out],
                              capture_output=True, text=True, check=False)
        if done.returncode != 1:
            return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-1000:]}", ""
        with open(out, encoding="utf-8") as f:
            result, = json.load(f)["requirements"]
    if result["id"] != case or result["result"] != "fail":
        return f"{case} did not fail", ""
    seen = result["seen"]
    # It has to fail by what it judges, not because the rig or the driver broke down.
    return ("" if any(word in seen for word in (" saw ", ": apply: {", "did not come back within")) else f"failed otherwise: {seen}"), seen


def main():
    folder = sys.argv[1]
    report = sys.argv[2].split("=", 1)[1]
    wanted = [entry for entry in lines() if not sys.argv[3:] or entry[0] in sys.argv[3:]]
    root = ElementTree.Element("testsuite", name=os.path.splitext(os.path.basename(report))[0])

    def run(entry):
        begin = time.monotonic()
        return entry, caught(folder, entry[0], entry[1]), time.monotonic() - begin
    with ThreadPoolExecutor(2 * os.cpu_count()) as pool:  # the kit waits more than it works
        results = list(pool.map(run, wanted))
    for (name, case, what), (problem, seen), seconds in results:
        print(f"{name:<26} {'NOT caught' if problem else 'caught'} by {case:<24} {what}\n{'':<27}{(problem or seen)[:300]}")
        element = ElementTree.SubElement(root, "testcase", name=f"{name} is caught by {case}", time=f"{seconds:.3f}")
        if problem:
            ElementTree.SubElement(element, "failure", message=problem)
    ElementTree.ElementTree(root).write(report)
    sys.exit(any(problem for _, (problem, _), _ in results))


if __name__ == "__main__":
    main()
