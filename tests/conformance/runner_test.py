"""How the kit runs cases: what one judges alone runs while nothing else does. Run by ctest with pytest."""

import os
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import runner  # noqa: E402  (the path must be set first)
import suite  # noqa: E402


@pytest.fixture(name="notes")
def fixture_notes(tmp_path, monkeypatch):
    """Cases of the test's own; note(text) is called in the workers, read() gives [(time, who, text)]."""
    monkeypatch.setattr(suite, "CASES", {})
    path = tmp_path / "notes"
    path.touch()

    class Notes:
        @staticmethod
        def note(text):
            with open(path, "a", encoding="ascii") as f:
                f.write(f"{time.monotonic()} {os.getpid()} {text}\n")

        @staticmethod
        def read():
            return sorted((float(at), who, text) for at, who, text in map(str.split, path.read_text().splitlines()))
    return Notes


def run(jobs):
    return {case: [(r["result"], r["seen"]) for r in found] for case, found in runner.run(list(suite.CASES.values()), jobs).items()}


def test_what_is_judged_alone_has_nothing_beside_it(notes):
    most = []

    @suite.case("alone-ready", "", alone=True, turn=range(7))
    def ready_first(turn):
        notes.note("ready")
        time.sleep(0.02 * (turn % 3))
        notes.note("is-ready")
        yield
        notes.note("judge")
        time.sleep(0.03)
        notes.note("end")

    @suite.case("alone-whole", "", alone=True, turn=range(2))
    def all_of_it(turn):  # pylint: disable=unused-argument
        notes.note("judge")
        time.sleep(0.03)
        notes.note("end")

    assert run(4) == {"alone-ready": [("pass", "")] * 7, "alone-whole": [("pass", "")] * 2}
    texts = [text for _, _, text in notes.read()]
    judged = [i for i, text in enumerate(texts) if text == "judge"]
    assert len(judged) == 9 and [texts[i + 1] for i in judged] == ["end"] * 9, texts  # nobody's word in between
    under_way = 0
    for text in texts:
        under_way += {"ready": 1, "is-ready": -1}.get(text, 0)
        most.append(under_way)
        assert text != "judge" or not under_way, texts
    assert max(most) > 1, "they get ready side by side"


def test_one_that_fails_or_dies_stops_no_other(notes):
    @suite.case("alone-fails-early", "", alone=True)
    def fails_early():
        assert False, "early"
        yield

    @suite.case("alone-dies", "", alone=True, judged=[False, True])
    def dies(judged):
        if not judged:
            os._exit(1)
        yield
        os._exit(1)

    @suite.case("alone-fails-late", "", alone=True)
    def fails_late():
        yield
        assert False, "late"

    @suite.case("alone-twice", "", alone=True)
    def yields_twice():
        yield
        yield

    @suite.case("alone-passes", "", alone=True, turn=range(4))
    def passes(turn):  # pylint: disable=unused-argument
        yield
        notes.note("end")

    found = run(3)
    died = ("fail", "the case's process died")
    assert found["alone-dies"] == [died, died] and found["alone-passes"] == [("pass", "")] * 4, found
    for case, word in (("alone-fails-early", "early"), ("alone-fails-late", "late"), ("alone-twice", "yields once")):
        (result, seen), = found[case]
        assert result == "fail" and word in seen, found
    assert len(notes.read()) == 4


def test_long_ones_begin_first(notes):
    @suite.case("some-short", "", turn=range(3))
    def short(turn):  # pylint: disable=unused-argument
        notes.note("short")

    @suite.case("some-long", "", long=True)
    def takes_long():
        notes.note("long")

    assert list(run(1)) == ["some-short", "some-long"], "the table is in the order of the cases"
    assert [text for _, _, text in notes.read()] == ["long", "short", "short", "short"]
