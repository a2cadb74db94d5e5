"""Packets per second of the netlink datapath with 300 and 3,000 peers against the figure with 3.

usage: peers.py [--rounds N] [--burst MS]
Client and gateway know as many peers; two of them exist. Prints "figure" lines; exit 1 when a bar is missed, as in
performance.py.
"""

import argparse
import contextlib
import json
import sys

from judge import Verdict, interval, median, ratios
from layouts import ALL, EIP4, EIP6, datapath_rig
from performance import MEASURES, rates

BAR = 0.95
COUNTS = (3, 300, 3000)


def prepared(rig, peers):
    rig.crowd(peers)
    pod = rig.pod("n1")
    rig.egress(7, EIP4, EIP6, owner="n2")
    rig.steer(pod, ALL)
    rig.apply()
    rig.quiet()
    return rig, pod


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--burst", type=int, default=MEASURES["packets"])
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        built = {peers: prepared(stack.enter_context(datapath_rig("netlink")), peers) for peers in COUNTS}
        pps = {peers: figures["pps"] for peers, figures in rates("packets", args.rounds, args.burst, built).items()}
    for peers in COUNTS:
        print("figure", json.dumps({"test": f"pps with {peers} peers", "kpps": round(median(pps[peers]) / 1000, 1)}))
    verdicts = [Verdict(f"{peers} peers / 3 peers", BAR, ratios(pps[peers], pps[3])) for peers in COUNTS[1:]]
    for v in verdicts:
        low, high = interval(v.rounds)
        print("figure", json.dumps({"test": v.what, "ratio": round(v.value, 3), "low": round(low, 3),
                                    "high": round(high, 3), "bar": v.bar, "verdict": v.word}))
    sys.exit(0 if all(v.met for v in verdicts) else 1)


if __name__ == "__main__":
    main()
