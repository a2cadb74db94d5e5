"""What tests/support/results.py makes of result files, of missing ones and of suites that break off."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results.py")


class Builds:
    """A folder of builds, with one part of one build in it."""

    def __init__(self, folder):
        self.folder, self.tests, self.cases = folder, [], {"": "", ".again": ""}
        for name in ("ctest", "results"):
            (folder / "release" / name).mkdir(parents=True)
        (folder / "steps").write_text("90 release build\n30 release tests\n")

    def suite(self, name, status, report=None, again=None, output=""):
        """report: the content of its own file; "" when it should have left one and has not."""
        path = self.folder / "release" / "results" / f"{name}.xml"
        command = ["prog", f"--gtest_output=xml:{path}"] if report is not None else ["prog"]
        self.tests.append({"name": name, "command": command})
        if report:
            path.write_text(report)
        for part, s in (("", status), (".again", again)):
            if s:
                self.cases[part] += (f'<testcase name="{name}" time="1.5" status="{s}"><system-out>{output}</system-out>'
                                     "</testcase>")

    def results(self, what="counts", ok=True):
        if self.tests:
            part = self.folder / "release" / "ctest" / "1-tests"
            part.with_suffix(".json").write_text(json.dumps({"tests": self.tests}))
            for suffix, cases in self.cases.items():
                if cases:
                    (part.parent / f"1-tests{suffix}.xml").write_text(f"<testsuite>{cases}</testsuite>")
        done = subprocess.run([sys.executable, SCRIPT, what, str(self.folder)], capture_output=True, text=True,
                              check=False)
        assert (done.returncode == 0) == ok, done.stderr
        return done.stdout.splitlines()


@pytest.fixture(name="builds")
def fixture_builds(tmp_path):
    return Builds(tmp_path)


GOOD = "<testsuite><testcase name='a'/><testcase name='b'/><testcase name='c'><skipped/></testcase></testsuite>"
BAD = "<testsuite><testcase name='a'/><testcase name='b'><failure/></testcase></testsuite>"


def test_cases_of_suites_and_suites_without_cases_are_summed(builds):
    builds.suite("unit_x", "run", GOOD)
    builds.suite("static_y", "run")
    assert builds.results() == ["3 passed, 0 failed, 1 skipped"]


def test_failed_cases_count_each(builds):
    builds.suite("unit_x", "fail", BAD)
    builds.suite("static_y", "fail")
    assert builds.results()[-1] == "1 passed, 2 failed, 0 skipped"


def test_a_suite_without_its_result_file_has_failed(builds):
    builds.suite("unit_x", "run", "")
    assert builds.results() == ["   failed: unit_x of build/release: 1 failed, first: left no result file",
                                "0 passed, 1 failed, 0 skipped"]


def test_a_suite_that_ctest_has_no_result_for_has_failed(builds):
    builds.suite("static_y", None)
    assert builds.results()[-1] == "0 passed, 1 failed, 0 skipped"


def test_a_suite_that_fails_after_its_cases_has_failed(builds):
    builds.suite("unit_x", "fail", GOOD)  # a leak found at exit
    assert builds.results() == ["   failed: unit_x of build/release: 1 failed, first: failed outside its cases",
                                "2 passed, 1 failed, 1 skipped"]


def test_a_second_run_counts_and_is_named(builds):
    builds.suite("unit_x", "fail", GOOD, again="run")
    assert builds.results() == ["   passed only when run once more: unit_x of build/release",
                                "2 passed, 0 failed, 1 skipped"]


def test_the_table_has_counts_steps_figures_and_suites(builds):
    lines = [json.dumps({"test": "gap", "run": i, "v4_ms": ms, "limit_ms": 4500})
             for i, ms in enumerate((3100.5, 3900))]
    builds.suite("bench_z", "run", output="\n".join(f"figure {line}" for line in lines))
    out = builds.results("table")
    assert out[4].startswith("**1 passed, 0 failed, 0 skipped** · commit ") and out[4].endswith(" · 2 min")
    assert "| release build | 1.5 |" in out
    assert "| gap | 2 | v4_ms 3100.5 to 3900 | limit_ms 4500 |" in out
    assert "| release | bench_z | 1 | 0 | 0 | 1.5 |  |" in out


def test_without_results_there_is_no_table(builds):
    assert builds.results("table", ok=False) == []
