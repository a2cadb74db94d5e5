"""Measures the datapaths against the bare tunnel, plain routing and a rule per policy, and judges them.

usage: performance.py [--quick] [--rounds N] [--datapaths A,B] [--sizes N,N] [--measures packets,latency,flows,stream,program]
                      [--write FILE]
Every layout and size stands in a rig of its own, all at once; the rounds of a measure are interleaved over all of them
(egw-rates). Prints one "figure" line per result and per bar. Exit 1 when a bar is missed: the 90 % interval of the
median of its rounds lies wholly on the wrong side.
--quick: three short rounds, to look at; --write: writes the tables into FILE (docs/performance.md) between its marks.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

import layouts
import programming
import tables
from judge import judge_flows, judge_packets, judge_programming, one_figure

RATES = os.path.join(layouts.BUILD, "bin", "egw-rates")
MEASURES = {"packets": 300, "latency": 100, "flows": 200, "stream": 300}  # ms of a round that each layout gets
SIZES = (1, 100, 1000, 5000)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--datapaths", default=",".join(layouts.DATAPATHS))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--measures", default=",".join([*MEASURES, "program"]))
    parser.add_argument("--write")
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 9)
    args.datapaths, args.measures = args.datapaths.split(","), args.measures.split(",")
    args.sizes = [int(s) for s in args.sizes.split(",")]
    for given, known in ((args.datapaths, layouts.DATAPATHS), (args.measures, [*MEASURES, "program"])):
        unknown = [g for g in given if g not in known]
        if unknown:
            parser.error(f"{', '.join(unknown)}: not known; known are {', '.join(known)}")
    if args.write and not os.path.exists(args.write):
        parser.error(f"--write {args.write}: no such file")
    if not os.path.exists(RATES):
        parser.error(f"{RATES} is missing; build it: cmake --preset bench && ninja -C build/release egw-rates")
    if len(os.sched_getaffinity(0) & {0, 1}) < 2 or os.geteuid() != 0:
        parser.error("needs CPU 0, which sends and forwards, CPU 1, which receives, and root for its network namespaces")
    return args


def build(stack, datapaths, sizes):
    """All layouts, programmed: ({(layout, policies or None): (rig, pod)}, the rule-per-policy rigs)."""
    out, walkers = {}, []

    def rig(name="netlink"):
        return stack.enter_context(layouts.datapath_rig(name))
    for name, make in (("plain", layouts.plain), ("tracked", layouts.tracked), ("tunnel", layouts.tunnel),
                       ("tunnel with NAT", lambda r: layouts.tunnel(r, nat=True))):
        r = rig()
        out[name, None] = r, make(r)
    for count in sizes:
        r = rig()
        out["rule per policy", count] = r, layouts.rule_per_policy(r, count)
        walkers.append(r)
        for d in datapaths:
            r = rig(d)
            pod, bystander = layouts.datapath(r, count)
            out[d, count] = r, pod
            if count in (min(sizes), max(sizes)):  # what such a pod pays hardly depends on it
                out[f"{d}, no policy", count] = r, bystander
    for r in {id(r): r for r, _ in out.values()}.values():
        r.quiet()
    return out, walkers


def rates(measure, rounds, burst, built):
    """{(layout, policies): {figure: rounds}}"""
    names = {f"l{i}": key for i, key in enumerate(built)}
    pairs = [f"{n},{built[key][1].ns},{built[key][0].ns('srv')},{layouts.SERVER4}" for n, key in names.items()]
    done = subprocess.run([RATES, measure, str(rounds), str(burst), *pairs], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{measure}: {done.stderr.strip()} (" + ", ".join(f"{n} is {k}" for n, k in names.items()) + ")")
    found = json.loads(done.stdout)
    return {key: found[n] for n, key in names.items()}


def measured(args):
    """{measure: {(layout, policies): {figure: rounds}}}"""
    results, factor = {}, 0.3 if args.quick else 1
    if "program" in args.measures:
        results["program"] = programming.measure([d for d in args.datapaths if d != "ebpf-fast"], args.sizes, args.rounds)
    wanted = [m for m in MEASURES if m in args.measures]
    if wanted:
        with contextlib.ExitStack() as stack:
            built, walkers = build(stack, args.datapaths, args.sizes)
            for m in wanted:
                results[m] = rates(m, args.rounds, round(MEASURES[m] * factor), built)
            for rig in walkers:
                layouts.require_walk(rig)
    return results


def main():
    args, begin = arguments(), time.monotonic()
    results = measured(args)
    verdicts = judge_packets({k: f["pps"] for k, f in results.get("packets", {}).items()}) + \
        judge_flows(results.get("flows", {})) + judge_programming(results.get("program", {}))
    for measure, found in results.items():
        for key, figures in found.items():
            print("figure", json.dumps({"test": f"{measure}: {tables.name(key)}",
                                        **{f: float(f"{one_figure(f, v):.4g}") for f, v in figures.items()}}))
    for v in verdicts:
        print("figure", json.dumps({"test": v.what, "measured": float(f"{v.value:.3g}"), "bar": v.bar, "verdict": v.word}))
    print(f"{len(results)} measures, {args.rounds} rounds, in {time.monotonic() - begin:.0f} s; "
          f"{sum(not v.met for v in verdicts)} of {len(verdicts)} bars missed")
    if args.write:
        tables.write(args.write, results, verdicts, args.rounds, time.monotonic() - begin)
    sys.exit(0 if all(v.met for v in verdicts) else 1)


if __name__ == "__main__":
    main()
