"""Medians, intervals, verdicts and tables of the bench, on figures that are made up."""

import judge
import pytest
import tables
from judge import Verdict

NINE = [5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0]


def test_median_of_odd_and_even_numbers():
    assert judge.median(NINE) == 5
    assert judge.median([4, 1, 2, 3]) == 2.5


@pytest.mark.parametrize("count,low,high", [(1, 1, 1), (3, 1, 3), (5, 1, 5), (8, 2, 7), (9, 2, 8), (20, 6, 15)])
def test_the_interval_holds_the_median_in_nine_cases_of_ten(count, low, high):
    """The published order statistics of the sign test at 10 %, two-sided."""
    assert judge.interval(list(range(count, 0, -1))) == (low, high)


def test_ratios_are_taken_round_by_round():
    assert judge.ratios([2, 9], [4, 3]) == [0.5, 3]
    with pytest.raises(ValueError):
        judge.ratios([1, 2], [1])


@pytest.mark.parametrize("bar,at_most,word", [
    (0.5, False, "met"), (2, False, "met"), (4, False, "within noise, median above"), (5, False, "within noise, median on it"),
    (5.1, False, "within noise, median below"), (8, False, "met"), (8.1, False, "missed"), (8.1, True, "met"), (8, True, "met"),
    (5, True, "within noise, median on it"), (4.9, True, "within noise, median above"), (2, True, "met"), (1.9, True, "missed")])
def test_a_bar_is_missed_when_the_whole_interval_lies_on_its_wrong_side(bar, at_most, word):
    """The interval of NINE is 2 to 8."""
    verdict = Verdict("x", bar, NINE, at_most)
    assert verdict.word == word
    assert verdict.met == (word != "missed")


def packets():
    out = {("plain", None): [100.0] * 9, ("tracked", None): [90.0] * 9, ("tunnel", None): [50.0] * 9, ("tunnel with NAT", None): [40.0] * 9,
           ("rule per policy", 1000): [1.0] * 9}
    for d in judge.TUNNEL:
        out |= {(d, 1): [36.0] * 9, (d, 5000): [35.0] * 9, (f"{d}, no policy", 5000): [80.0] * 9}
    return out


def test_every_bar_on_packets_is_judged():
    found = {v.what: v for v in judge.judge_packets(packets())}
    assert len(found) == 14
    assert found["ebpf-fast, 5,000 policies / bare tunnel"].word == "missed"
    assert found["ebpf, 5,000 policies / bare tunnel"].word == "met"
    assert found["iptables, pod without policy / plain routing"].bar == 0.75
    assert not found["netlink, 5,000 policies / rule per policy, 1,000"].met


def flows(lost=0):
    return {k: {"per_second": [12345.0] * 9, "lost": [0, lost, *[0] * 7], "late": [0] * 9} for k in packets()}


def test_one_lost_packet_of_a_datapath_is_one_too_many():
    assert not judge.judge_flows({k: f for k, f in flows(1).items() if k[0] in ("plain", "tunnel with NAT")})
    assert [v.word for v in judge.judge_flows(flows())] == ["met"]
    one = flows() | {("iptables, no policy", 5000): flows(1)["plain", None]}
    assert [(v.word, v.value) for v in judge.judge_flows(one)] == [("missed", 1)]
    assert judge.one_figure("lost", [0, 1, 0]) == 1 and judge.one_figure("per_second", [3, 1, 2]) == 2


def test_what_was_not_measured_is_not_judged():
    few = {k: v for k, v in packets().items() if k[0] in ("ebpf", "tunnel")}
    assert [v.what for v in judge.judge_packets(few)] == ["ebpf, 5,000 policies / bare tunnel", "ebpf, 5,000 policies / 1 policy"]


def times(ms):
    return {(d, count): {f: [ms] * 9 for f in tables.TIMES} for d in ("netlink", "ebpf") for count in (1, 5000)}


def test_times_are_limits_for_5000_policies():
    found = {v.what: v for v in judge.judge_programming(times(50))}
    assert len(found) == 8
    assert found["ebpf, 5,000 policies"].met
    assert not found["ebpf, 1,000 egress ids move, client"].met
    assert not found["netlink, 1,000 egress ids move, gateway"].met


def results():
    pps = packets()
    return {"packets": {k: {"pps": v} for k, v in pps.items()},
            "latency": {k: {"p50_us": [30.0 if k[0] == "plain" else 50.0] * 9, "p99_us": [60.0] * 9} for k in pps},
            "flows": flows() | {("tunnel", None): flows(2)["tunnel", None]},
            "stream": {k: {"gbit_per_second": [9.876] * 9} for k in pps}, "program": times(50)}


def test_the_tables_stand_between_the_marks_and_nothing_else_changes(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text(f"# Title\n\n{tables.BEGIN}\nold\n{tables.END}\n\nafter\n", encoding="utf-8")
    verdicts = judge.judge_packets(packets())
    tables.write(str(page), results(), verdicts, 9, 600)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Title\n") and text.endswith(f"{tables.END}\n\nafter\n") and "old" not in text
    assert "| ebpf, 5,000 | 0.035 [0.035, 0.035] | 0.700 [0.700, 0.700] | 20.0 [20.0, 20.0] | 0.000 [0.000, 0.000] | " \
        "12.3 [12.3, 12.3] | 9.88 [9.88, 9.88] |" in text
    assert "| bare tunnel | 0.050 [0.050, 0.050] | 1.00 [1.00, 1.00] | 20.0 [20.0, 20.0] | 0.000 [0.000, 0.000] | " \
        "12.3 [12.3, 12.3] (2 lost) | 9.88 [9.88, 9.88] |" in text
    assert "| ebpf, no policy, 5,000 | 0.080 [0.080, 0.080] | 0.800 [0.800, 0.800] |" in text
    assert "| ebpf, no policy, 5,000 | 0.800 [0.800, 0.800] | 0.889 [0.889, 0.889] |" in text
    assert "| ebpf-fast, 5,000 policies / bare tunnel | 0.700 [0.700, 0.700] | >= 0.72 | **missed** |" in text
    assert "| netlink, 5,000 | 50.0 [50.0, 50.0] |" in text
    again = text
    tables.write(str(page), results(), verdicts, 9, 600)
    assert page.read_text(encoding="utf-8") == again


def test_a_page_without_marks_is_not_touched(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="has no lines"):
        tables.write(str(page), results(), [], 9, 600)
    assert page.read_text(encoding="utf-8") == "# Title\n"


@pytest.mark.parametrize("value,text", [(0.6641, "0.664"), (14.26, "14.3"), (148.26, "148"), (12345.6, "12,346"), (0, "0.000"),
                                        (-3.333, "-3.33"), (0.0123, "0.012")])
def test_three_digits_count(value, text):
    assert tables.number(value) == text
