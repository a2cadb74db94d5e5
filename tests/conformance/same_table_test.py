"""same_table.py on result files that are made up: what makes tables differ, and what is excused."""

import os
import subprocess
import sys

import pytest

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "same_table.py")
FAILED, NOT_OFFERED, SHORT, KERNEL = ('<failure message="x"/>', '<skipped message="not offered: POST_DNAT"/>',
                                      '<skipped message="known shortfall (README): x"/>',
                                      '<skipped message="not on this kernel: ipvs"/>')


def judged(folder, **tables):
    """tables: suite name (with _ for -) -> {case: element or ""}."""
    paths = []
    for name, cases in tables.items():
        name = name.replace("_", "-")
        paths.append(folder / f"kit_{name}.xml")
        inner = "".join(f'<testcase name="{c}">{element}</testcase>' for c, element in cases.items())
        paths[-1].write_text(f'<testsuite name="{name}">{inner}</testsuite>', encoding="utf-8")
    done = subprocess.run([sys.executable, PROGRAM, *map(str, paths)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_same_table_of_plugins_and_of_a_pair(tmp_path):
    whole = {"path-source[n1]": "", "sctp-ipvs": KERNEL, "scale-program": ""}  # scale-program is of one plugin alone
    pair = {"path-source[n1]": "", "sctp-ipvs": KERNEL}
    code, said = judged(tmp_path, one=whole, two=whole, one_two=pair)
    assert code == 0, said
    assert "3 tables, 3 cases: 2 pass, 1 not on this kernel, 0 differ or fail; 0 times excused" in said


@pytest.mark.parametrize("element", [NOT_OFFERED, SHORT])
def test_what_is_not_offered_or_known_is_excused_and_printed(tmp_path, element):
    code, said = judged(tmp_path, one={"path-source": ""}, two={"path-source": element})
    assert code == 0, said
    assert said.startswith("path-source: ") and ": kit_two\n" in said and "1 times excused" in said


@pytest.mark.parametrize("other", [{"path-source": FAILED}, {"path-source": KERNEL}, {}])
def test_a_case_that_fails_is_skipped_or_missing_in_one_table_differs(tmp_path, other):
    code, said = judged(tmp_path, one={"path-source": ""}, one_two=other)
    assert code == 1, said
    assert "1 differ or fail" in said


def test_a_case_that_fails_in_all_tables_does_not_pass(tmp_path):
    code, said = judged(tmp_path, one={"path-source": FAILED}, two={"path-source": FAILED})
    assert code == 1, said


def test_runs_of_the_kit_without_a_result_are_named(tmp_path):
    done = subprocess.run([sys.executable, PROGRAM, *(str(tmp_path / "results" / f"kit_{n}.xml") for n in ("one", "two"))],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no results of kit_one, kit_two" in done.stderr and "Traceback" not in done.stderr
    assert f"ctest --test-dir {tmp_path} -R '^(kit_one|kit_two)$'" in done.stderr
