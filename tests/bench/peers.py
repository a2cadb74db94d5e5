"""Packets per second of the netlink datapath with 300 and 3,000 peers against the figure with 3 (decision 11).

usage: peers.py [--rounds N] [--burst MS]
Client and gateway know as many peers; two of them exist. Prints "figure" lines; exit 1 when a bar is missed, as in
packets.py.
"""

import argparse
import json
import subprocess
import sys

from packets import PPS, EIP4, EIP6, SERVER4, Rig, median, ratio

BAR = 0.95
COUNTS = (3, 300, 3000)


def prepared(rig, peers):
    rig.crowd(peers)
    pod = rig.pod("n1")
    rig.egress(7, EIP4, EIP6, owner="n2")
    rig.steer(pod, [("0.0.0.0/0", 7), ("::/0", 7)])
    rig.apply()
    return pod


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--burst", type=int, default=300)
    args = parser.parse_args()
    rigs, layouts, missed = [], [], 0
    try:
        for peers in COUNTS:
            rigs.append(Rig(nodes=2).__enter__())
            pod = prepared(rigs[-1], peers)
            rigs[-1].quiet()
            layouts.append(f"peers-{peers},{pod.ns},{rigs[-1].ns('srv')},{SERVER4}")
        done = subprocess.run([PPS, str(args.rounds), str(args.burst), *layouts], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr)
        results = json.loads(done.stdout)
        for peers in COUNTS:
            print("figure", json.dumps({"test": f"pps with {peers} peers",
                                        "kpps": round(median(results[f"peers-{peers}"]["pps"]) / 1000, 1)}))
        for peers in COUNTS[1:]:
            mid, low, high = ratio(results, f"peers-{peers}", "peers-3")
            missed += high < BAR
            print("figure", json.dumps({"test": f"{peers} peers / 3 peers", "ratio": round(mid, 3), "low": round(low, 3),
                                        "high": round(high, 3), "bar": BAR, "ok": high >= BAR}))
    finally:
        for rig in rigs:
            rig.__exit__()
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
