"""The layout of the ABI against the checked-in ones (docs/abi.md), and the proof that the check can fail."""

import os
import pathlib
import re
import shutil
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import layout  # noqa: E402  (the path must be set first)

HEADERS = pathlib.Path(os.environ["EGW_BUILD_DIR"]) / "include"
BASELINES = sorted((HERE / "layout").glob("*.txt"))

if shutil.which("abidw") is None:
    pytest.skip("no abidw here (package abigail-tools)", allow_module_level=True)


def changed(tmp_path, *edits):
    """A copy of the headers with (file, pattern, replacement) applied."""
    shutil.copytree(HEADERS / "egw" / "abi", tmp_path / "egw" / "abi")
    for name, pattern, replacement in edits:
        file = tmp_path / "egw" / "abi" / name
        text, count = re.subn(pattern, replacement, file.read_text(), count=1, flags=re.S)
        assert count == 1, pattern
        file.write_text(text)
    return layout.check(str(tmp_path), BASELINES)


def minor(by):
    return ("types.h", r"EGW_ABI_MINOR (\d+)", lambda m: f"EGW_ABI_MINOR {int(m.group(1)) + by}")


APPEND = ("datapath.h", r"(  uint32_t class_id;\n  egw_addr address;\n)", r"\1  uint32_t fresh;\n")


def test_the_headers_are_as_checked_in():
    assert layout.check(str(HEADERS), BASELINES) == []


def test_the_first_header_is_the_first_layout():
    """tests/abi/v1_0 is what plugins of 1.0 were built with; it is never changed."""
    version, first = layout.dump(str(HERE / "v1_0"))
    assert version == (1, 0) and layout.written(HERE / "layout" / "1.0.txt") == ((1, 0), first)


def test_a_field_appended_with_a_minor_passes_once_it_is_checked_in(tmp_path):
    wrong = changed(tmp_path, APPEND, minor(1))
    assert len(wrong) == 1 and "no checked-in layout of ABI" in wrong[0]
    (major, least), now = layout.dump(str(tmp_path))
    fresh = tmp_path / f"{major}.{least}.txt"
    fresh.write_text("".join(f"{k}: {v}\n" for k, v in now.items()))
    assert layout.check(str(tmp_path), [*BASELINES, fresh]) == []


def test_a_field_appended_without_a_minor_fails(tmp_path):
    wrong = changed(tmp_path, APPEND)
    assert len(wrong) == 1 and "raise EGW_ABI_MINOR" in wrong[0]


RESERVED = r"(typedef struct egw_datapath_host \{\n  uint32_t struct_size;\n  uint32_t )reserved"


@pytest.mark.parametrize("name, passes", [("fresh", True), ("fresh[1]", False)], ids=["same type", "other type"])
def test_a_reserved_field_may_get_a_name_with_a_minor(tmp_path, name, passes):
    edit = ("datapath.h", RESERVED, rf"\g<1>{name}")
    wrong = changed(tmp_path, edit, minor(1))
    assert (len(wrong) == 1 and "no checked-in layout of ABI" in wrong[0]) == passes, wrong
    if passes:
        shutil.rmtree(tmp_path / "egw")
        assert "raise EGW_ABI_MINOR" in changed(tmp_path, edit)[0]


@pytest.mark.parametrize("edits, says", [
    ([("datapath.h", r"(  uint32_t class_id;\n)(  egw_addr address;\n)", r"\2\1")], "struct egw_endpoint.class_id was"),
    ([("datapath.h", r"  egw_str name;\n  egw_addr underlay;", "  egw_addr underlay;")], "struct egw_peer.name is gone"),
    ([("datapath.h", r"  uint64_t generation;\n", "  uint64_t generation;\n  uint64_t fresh;\n")],
     "struct egw_change.fresh is new and stands at 16, inside"),
    ([("datapath.h", r"(\* what, uint64_t count)|(egw_str what, uint64_t count)", "egw_str what, uint32_t count")],
     "struct egw_apply_report.repaired was"),
    ([("types.h", r"EGW_PARTIAL = 9", "EGW_PARTIAL = 19")], "enum egw_status.EGW_PARTIAL was"),
    ([("plugin.h", r"EGW_CAP_DELTA \(1ull << 1\)", "EGW_CAP_DELTA (1ull << 2)")], "define EGW_CAP_DELTA was"),
    ([("types.h", r"(  uint8_t bytes\[16\];\n)", r"\1  uint32_t scope;\n")], "egw_addr has no struct_size"),
    ([("types.h", r"(int32_t level, egw_str message\);\n)", r"\1  void* fresh;\n")], "struct egw_datapath_host.drifted was"),
], ids=["moved", "removed", "inserted", "type", "status", "capability", "value struct grows", "embedded struct grows"])
def test_what_breaks_a_plugin_that_exists_fails(tmp_path, edits, says):
    wrong = changed(tmp_path, *edits, minor(1))
    assert [w for w in wrong if says in w and w.startswith("since 1.0")], wrong


def test_a_new_major_may_change_everything(tmp_path):
    moved = ("datapath.h", r"(  uint32_t class_id;\n)(  egw_addr address;\n)", r"\2\1")
    wrong = changed(tmp_path, moved, ("types.h", r"EGW_ABI_MAJOR 1", "EGW_ABI_MAJOR 2"),
                    ("types.h", r"EGW_ABI_MINOR \d+", "EGW_ABI_MINOR 0"))
    assert wrong == ["there is no checked-in layout of ABI 2.0"]
