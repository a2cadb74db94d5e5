"""What a run of tests/run has found, from the result files of its builds.

usage: results.py counts BUILDS    prints `N passed, N failed, N skipped` and what failed or was run twice
       results.py table BUILDS     prints docs/test-results.md

Below each BUILDS/<build>, for each call of ctest: ctest/<part>.json, what was to run (--show-only=json-v1);
ctest/<part>.xml, what came of it (JUnit); ctest/<part>.again.xml if failed suites were run once more. A suite
that has cases of its own leaves them in results/<suite>.xml, a google-benchmark program its times in
results/<suite>.json; both names stand in the suite's command. BUILDS/steps: a line `seconds step` each.
A suite counts as one failed case if the file that its command names is missing, if ctest has no result for
it, or if it failed although none of its cases did (a crash at the end, a leak, a time-out).
"""

import dataclasses
import glob
import json
import os
import platform
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REPORTED = re.compile(r"--(?:gtest_output=xml:|junitxml=|benchmark_out=)(.+)")


@dataclasses.dataclass
class Suite:
    build: str
    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    runs: int = 1
    why: str = ""  # one line about a failure
    figures: list = dataclasses.field(default_factory=list)


def figures(text):
    """The `figure {"test": name, key: value...}` lines of a suite's output."""
    return [json.loads(line[7:]) for line in (text or "").splitlines() if line.startswith("figure {")]


def benchmark_figures(path):
    with open(path, encoding="utf-8") as f:
        return [{"test": b["name"], f"time_{b['time_unit']}": round(b["real_time"], 3)}
                for b in json.load(f)["benchmarks"] if not b.get("error_occurred")]


def read_cases(suite, path):
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            suite.failed += 1
            suite.why = suite.why or f"case {case.get('name')}"
        elif case.find("skipped") is not None:
            suite.skipped += 1
        else:
            suite.passed += 1
        for output in case.iter("system-out"):
            suite.figures += figures(output.text)


def read_suite(build, test, result, runs):
    """test: what ctest was to run; result: ctest's <testcase>, or None."""
    suite = Suite(build, test["name"], runs=runs, seconds=float(result.get("time") or 0) if result is not None else 0.0)
    report = next((m[1] for a in test.get("command", []) if (m := REPORTED.fullmatch(a))), None)
    good = result is not None and result.get("status") == "run"
    if report and not os.path.exists(report):
        suite.failed, suite.why = 1, "left no result file"
    elif report and report.endswith(".xml"):
        read_cases(suite, report)
    else:
        suite.passed = int(good)
        said = result.findtext("system-out") if result is not None else None  # figures that miss a bar are figures, too
        suite.figures = benchmark_figures(report) if report else figures(said)
    if not good and not suite.failed:
        suite.failed, suite.why = 1, "failed outside its cases" if suite.passed and report else "failed"
    return suite


def read_results(path):
    if not os.path.exists(path):
        return {}
    return {case.get("name"): case for case in ElementTree.parse(path).iter("testcase")}


def suites(builds):
    """Every suite that was to run, in the order of builds, parts and names."""
    for plan in sorted(glob.glob(os.path.join(builds, "*", "ctest", "*.json"))):
        build = os.path.basename(os.path.dirname(os.path.dirname(plan)))
        with open(plan, encoding="utf-8") as f:
            tests = json.load(f)["tests"]
        first, again = read_results(plan[:-5] + ".xml"), read_results(plan[:-5] + ".again.xml")
        for test in sorted(tests, key=lambda t: t["name"]):
            name = test["name"]
            yield read_suite(build, test, again.get(name, first.get(name)), 2 if name in again else 1)


def total(found):
    return tuple(sum(getattr(s, kind) for s in found) for kind in ("passed", "failed", "skipped"))


def counts(builds):
    found = list(suites(builds))
    for s in found:
        if s.failed:
            print(f"   failed: {s.name} of build/{s.build}: {s.failed} failed, first: {s.why}")
        elif s.runs > 1:
            print(f"   passed only when run once more: {s.name} of build/{s.build}")
    print("{} passed, {} failed, {} skipped".format(*total(found)))


def spread(values):
    """One value, or the smallest and the largest of several runs."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return f"{min(values):g}" if min(values) == max(values) else f"{min(values):g} to {max(values):g}"
    return ", ".join(sorted({str(v) for v in values}))


def figure_rows(found):
    """(figure, runs, values, bar) by name; figures of one name are runs of one measurement."""
    by_name = {}
    for suite in found:
        for figure in suite.figures:
            by_name.setdefault(figure["test"], []).append({k: v for k, v in figure.items() if k not in ("test", "run")})
    for name, runs in sorted(by_name.items()):
        values = {k: spread([r[k] for r in runs if k in r]) for k in runs[0]}
        bars = [f"{k} {v}" for k, v in values.items() if k.startswith(("limit", "bar"))]
        measured = [f"{k} {v}" for k, v in values.items() if not k.startswith(("limit", "bar"))]
        yield name, len(runs), ", ".join(measured), ", ".join(bars)


def commit():
    def git(*args):
        return subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True, check=False).stdout.strip()
    changed = " with local changes" if git("status", "--short") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + changed


def machine():
    with open("/proc/meminfo", encoding="ascii") as f:
        memory = int(re.search(r"MemTotal:\s+(\d+)", f.read())[1]) / 2**20
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


def row(*cells):
    return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"


def table(builds):
    found = list(suites(builds))
    if not found:
        sys.exit(f"results.py: no result files below {builds}: docs/test-results.md stays as it is")
    with open(os.path.join(builds, "steps"), encoding="utf-8") as f:
        steps = [line.rstrip("\n").split(" ", 1) for line in f]
    passed, failed, skipped = total(found)
    print("# Results of the last full run\n\nWritten by `tests/run --full`; figures are those of the release build. "
          "Values of several runs: the smallest to the largest.\n")
    print(f"**{passed} passed, {failed} failed, {skipped} skipped** · commit {commit()} · "
          f"{time.strftime('%Y-%m-%d', time.gmtime())} · {machine()} · {sum(int(s) for s, _ in steps) / 60:.0f} min\n")
    print("\n".join([row("step", "minutes"), row("---", "---:")] + [row(n, f"{int(s) / 60:.1f}") for s, n in steps]))
    print("\n## Figures\n")
    print("\n".join([row("figure", "runs", "measured", "bar"), row("---", "---:", "---", "---")]
                    + [row(*r) for r in figure_rows(s for s in found if s.build == "release")]))
    print("\n## Suites\n")
    print("\n".join([row("build", "suite", "passed", "failed", "skipped", "seconds", "remark"),
                     row("---", "---", "---:", "---:", "---:", "---:", "---")]
                    + [row(s.build, s.name, s.passed, s.failed, s.skipped, f"{s.seconds:.1f}",
                           s.why or ("passed when run once more" if s.runs > 1 else "")) for s in found]))


if __name__ == "__main__":
    {"counts": counts, "table": table}[sys.argv[1]](sys.argv[2])
