"""Whether datapaths of the tree, alone or in pairs of client and gateway, have the same table: every case passes for
all of them, but for what a plugin does not offer, what the kernel lacks, and what is known to be missed (shortfalls.txt),
which is printed.

usage: same_table.py RESULT.xml...   the kit's JUnit files, each of one datapath or of one pair
"""

import os
import re
import sys
import xml.etree.ElementTree as ElementTree

import kit
import suite


def read(path):
    """(whether it is a pair's, {case: "passed", "failed" or the reason of its skip})."""
    root, out = ElementTree.parse(path).getroot(), {}
    for case in root.iter("testcase"):
        skipped = case.find("skipped")
        out[case.get("name")] = ("failed" if case.find("failure") is not None else
                                 "passed" if skipped is None else skipped.get("message"))
    return "-" in root.get("name"), out


def seen(tables):
    """{case: {table: outcome}}; a pair owes no case that is of one plugin alone."""
    out = {}
    for case in sorted({c for _, outcomes in tables.values() for c in outcomes}):
        solo = suite.CASES[case.partition("[")[0]].solo
        out[case] = {table: outcomes.get(case, "not run") for table, (pair, outcomes) in tables.items() if not (pair and solo)}
    return out


def excuse(outcome):
    """What excuses an outcome, without what was seen; None for all others."""
    found = re.match(r"not offered.*|known shortfall \(.*?\)", outcome)
    return found[0] if found else None


def by_outcome(row):
    """"outcome: tables; ..." of {table: outcome}."""
    return "; ".join(f"{o}: {', '.join(t for t in row if row[t] == o)}" for o in dict.fromkeys(row.values()))


def require(paths):
    """Exits, naming the runs of the kit that have left no result yet."""
    missing = [os.path.basename(p).removesuffix(".xml") for p in paths if not os.path.exists(p)]
    if missing:
        results = os.path.dirname(os.path.abspath(paths[0]))
        sys.exit(f"same_table.py: no results of {', '.join(missing)} in {results}; run them first: "
                 f"ctest --test-dir {os.path.dirname(results)} -R '^({'|'.join(missing)})$'")


def main():
    kit.load_cases()
    require(sys.argv[1:])
    tables = {os.path.basename(path).removesuffix(".xml"): read(path) for path in sys.argv[1:]}
    counts = dict.fromkeys(("pass", "not on this kernel", "differ or fail"), 0)
    excuses = 0
    for case, row in seen(tables).items():
        excused = {t: excuse(o) for t, o in row.items() if excuse(o)}
        others = {t: o for t, o in row.items() if t not in excused}
        excuses += len(excused)
        if excused:
            print(f"{case}: {by_outcome(excused)}")
        outcomes = set(others.values())
        if outcomes <= {"passed"}:
            counts["pass"] += 1
        elif len(outcomes) == 1 and outcomes.pop().startswith("not on this kernel"):
            counts["not on this kernel"] += 1
        else:
            counts["differ or fail"] += 1
            print(f"{case} DIFFERS OR FAILS: {by_outcome(others)}")
    print(f"{len(tables)} tables, {sum(counts.values())} cases: " + ", ".join(f"{n} {what}" for what, n in counts.items()) +
          f"; {excuses} times excused as not offered or a known shortfall")
    sys.exit(1 if counts["differ or fail"] else 0)


if __name__ == "__main__":
    main()
