"""The table of a full run, as Markdown, from the result files of the builds.

usage: results.py BUILD_DIR_ROOT     reads */results/*.xml (JUnit) and */results/*.figures below it
"""

import json
import os
import sys
import xml.etree.ElementTree as ElementTree


def suites(root):
    """(build, suite, tests, failed, skipped, seconds, figures) of every result file."""
    for build in sorted(os.listdir(root)):
        folder = os.path.join(root, build, "results")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            if name.endswith(".figures"):
                with open(path, encoding="utf-8") as f:
                    yield build, name[:-8], None, figures(f.read())
            elif name.endswith(".xml"):
                tree = ElementTree.parse(path)
                cases = list(tree.iter("testcase"))
                counts = (len(cases), sum(c.find("failure") is not None or c.find("error") is not None for c in cases),
                          sum(c.find("skipped") is not None for c in cases),
                          sum(float(c.get("time") or 0) for c in cases))
                words = "\n".join(e.text or "" for e in tree.iter("system-out"))
                yield build, name[:-4], counts, figures(words)


def figures(text):
    return [json.loads(line[7:]) for line in text.splitlines() if line.startswith("figure {")]


def main():
    rows = list(suites(sys.argv[1]))
    print("# Results of the last full run\n\nMade by `tests/run --full`.\n")
    print("| build | suite | tests | failed | skipped | seconds |\n|---|---|---|---|---|---|")
    for build, suite, counts, _ in rows:
        if counts:
            print(f"| {build} | {suite} | {counts[0]} | {counts[1]} | {counts[2]} | {counts[3]:.1f} |")
    print("\n| build | figure | values |\n|---|---|---|")
    for build, _, _, found in rows:
        for figure in found:
            name = figure.pop("test")
            print(f"| {build} | {name} | " + ", ".join(f"{k} {v}" for k, v in figure.items()) + " |")


if __name__ == "__main__":
    main()
