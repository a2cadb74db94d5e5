"""Whether all datapaths of the tree have the same table: every case that one passes passes for all, but for what a
plugin does not offer. What it is known to miss (shortfalls.txt) is printed.

usage: same_table.py RESULT.xml...   the kit's JUnit files, each of one datapath
"""

import sys
import xml.etree.ElementTree as ElementTree


def outcomes(path):
    """case -> "passed", "failed" or the reason of its skip."""
    out = {}
    for case in ElementTree.parse(path).iter("testcase"):
        skipped = case.find("skipped")
        out[case.get("name")] = ("failed" if case.find("failure") is not None else
                                 "passed" if skipped is None else skipped.get("message"))
    return out


def main():
    tables = {path: outcomes(path) for path in sys.argv[1:]}
    bad = short = 0
    for name in sorted({n for table in tables.values() for n in table}):
        seen = {path: table.get(name, "not run") for path, table in tables.items()}
        for path, o in seen.items():
            if o.startswith("known shortfall"):
                short += 1
                print(f"{name}: {path}: {o}")
        counted = {o for o in seen.values() if not o.startswith(("not offered", "known shortfall"))}
        if len(counted) > 1:
            bad += 1
            print(f"{name}: " + ", ".join(f"{path}: {o}" for path, o in seen.items()))
    print(f"{len(tables)} tables, {max(map(len, tables.values()))} cases, {bad} differ, {short} known to fall short")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
