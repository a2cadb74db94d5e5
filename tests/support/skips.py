"""Counts the skipped tests of a build and compares them with the checked-in lists.

usage: skips.py BUILD_DIR...   reads every results/*.xml (JUnit) below the folders
A test that is skipped without standing in tests/skips.txt or tests/conformance/skips.txt fails; so does a line there
whose test ran, unless its reason is "not on this kernel", "not offered" (by that datapath) or "not with a sanitizer". A line:
`<test name> | <reason>`.
"""

import os
import sys
import xml.etree.ElementTree as ElementTree

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OF_ITS_PLACE = ("not on this kernel", "not offered", "not with a sanitizer")
LISTS = [os.path.join(TESTS, "skips.txt"), os.path.join(TESTS, "conformance", "skips.txt")]


def cases(folders):
    """(name, skip reason or None) of every test case found."""
    for folder in folders:
        for where, _, files in os.walk(folder):
            for name in sorted(files):
                if os.path.basename(where) == "results" and name.endswith(".xml"):
                    for case in ElementTree.parse(os.path.join(where, name)).iter("testcase"):
                        skipped = case.find("skipped")
                        reason = None if skipped is None else (skipped.get("message") or "").splitlines()[0:1]
                        yield case.get("name"), None if reason is None else "".join(reason)


def allowed():
    lines = []
    for path in LISTS:
        with open(path, encoding="utf-8") as f:
            lines += [line.strip() for line in f if line.strip() and not line.startswith("#")]
    return dict((part.strip() for part in line.split("|", 1)) for line in lines)


def main():
    seen = list(cases(sys.argv[1:]))
    # What a datapath is known to miss, the kit itself compares with its list (conformance/shortfalls.txt).
    short = sorted({(name, reason) for name, reason in seen if reason and reason.startswith("known shortfall")})
    seen = [case for case in seen if case not in short]
    skipped = {name: reason for name, reason in seen if reason is not None}
    expected = allowed()
    unknown = sorted(set(skipped) - set(expected))
    ran = {name for name, reason in seen if reason is None}
    stale = sorted(name for name in set(expected) & ran if not expected[name].startswith(OF_ITS_PLACE))
    for name in unknown:
        print(f"skipped without standing in a skips.txt: {name}: {skipped[name]}")
    for name in stale:
        print(f"stands in a skips.txt but ran: {name}")
    print(f"== {len(ran)} cases in result files ran, {len(skipped)} skipped"
          + "".join(f"\n   {name}: {reason}" for name, reason in sorted(skipped.items()))
          + "".join(f"\n   {name}: {reason}" for name, reason in short))
    sys.exit(1 if unknown or stale else 0)


if __name__ == "__main__":
    main()
