"""Packets per second of datapaths against bare forwarding, the bare tunnel, the tunnel with
conntrack and NAT, and a rule-per-policy layout; and the time to program 5,000 policies.

usage: packets.py [--rounds N] [--burst MS] [--datapaths netlink,ebpf,ebpf-fast] [--no-comparator]
ebpf-fast is ebpf with fastPath. --no-comparator leaves the rule-per-policy layout out.
Every layout stands in a rig of its own, all at once; rounds are interleaved (egw-pps). Prints one
"figure" line per result and a verdict per bar; exit 1 when a bar is missed: the 90 % interval of the
per-round ratios lies wholly under it, or the ratios lie too far apart (NOISY) to tell anything.
"""

import argparse
import ipaddress
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conformance"))

from rig import BUILD, SERVER4, Rig  # noqa: E402  (the path must be set first)

from lab import net  # noqa: E402

EIP4, EIP6 = "10.6.1.56", "fd00::56"
PPS = os.path.join(BUILD, "bin", "egw-pps")


def addresses(count, base="10.128.0.0"):
    first = int(ipaddress.ip_address(base))
    return [str(ipaddress.ip_address(first + i)) for i in range(count)]


def egw(rig, policies, steered=True):
    """A client node with `policies` policies of ten endpoints each; the pod belongs to the last one (or to none).
    Returns (pod, cold apply in ms, one more endpoint in ms)."""
    pod = rig.pod("n1")
    rig.egress(7, EIP4, EIP6, owner="n2")
    change = rig.change("n1")
    for policy in range(1, policies + 1):
        change["classes"].append({"id": policy, "rules": [
            {"destination": "0.0.0.0/0", "action": "egress", "egressID": 7},
            {"destination": f"198.{policy >> 8 & 255}.{policy & 255}.0/24", "action": "bypass"}]})
    for i, address in enumerate(addresses(policies * 10 - 1)):
        change["endpoints"].append({"address": address, "class": i // 10 + 1})
    if steered:
        change["endpoints"].append({"address": pod.ipv4, "class": policies})
    path = os.path.join(rig.state, "change.json")
    with open(path, "w", encoding="ascii") as f:
        json.dump(change, f)
    cold = rig.driver("n1").must("apply", file=path)["tookUs"] / 1000
    rig.driver("n1").must("sysctls")
    rig.apply("n2")
    more = []
    for i in range(9):
        base, rig.generation = change["generation"] + i, rig.generation + 1
        step = {"version": 1, "full": False, "generation": base + 1, "base": base,
                "endpoints": [{"address": f"10.250.0.{i + 1}", "class": policies}]}
        more.append(rig.driver("n1").must("apply", change=step)["tookUs"] / 1000)
    return pod, cold, sorted(more)[4]


def tunnel(rig, nat=False):
    """The bare tunnel: a VXLAN device with fixed entries, the pod's default route through it; with `nat`
    also conntrack on both ends, SNAT on the gateway, and as many `ip rule`s as egw has."""
    pod = rig.pod("n1")
    for node, other, tip in (("n1", "n2", 1), ("n2", "n1", 2)):
        ns, mac = rig.ns(node), f"02:aa:00:00:00:0{tip}"
        peer_mac = f"02:aa:00:00:00:0{3 - tip}"
        net.batch(ns, f"link add vx type vxlan id 77 dstport 7799 local {rig.address(node)} nolearning dev eth0",
                  f"link set vx address {mac} up", f"addr add 172.30.0.{tip}/24 dev vx",
                  f"neigh add 172.30.0.{3 - tip} lladdr {peer_mac} dev vx nud permanent")
        net.enter(ns, "bridge", "fdb", "append", peer_mac, "dev", "vx", "dst", rig.address(other))
        net.enter(ns, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.vx.rp_filter=0")
    net.batch(rig.ns("n1"), "route add default via 172.30.0.2 dev vx table 77", f"rule add pref 100 from {pod.ipv4} lookup 77")
    net.batch(rig.ns("n2"), f"route add {pod.ipv4}/32 via 172.30.0.1 dev vx")
    net.batch(rig.ns("srv"), f"route replace {pod.ipv4}/32 via {rig.address('n2')}")
    if nat:
        net.enter(rig.ns("n1"), "nft", "-f", "-", stdin="table ip t {\nchain f {\ntype filter hook forward priority 0\n"
                                                        "ct state established accept\n}\n}\n")
        net.enter(rig.ns("n2"), "nft", "-f", "-",
                  stdin=f"table ip t {{\nchain p {{\ntype nat hook postrouting priority 100\noifname eth0 snat to {EIP4}\n}}\n}}\n")
        rig.answering(EIP4, "n2")
        for node in ("n1", "n2"):
            net.batch(rig.ns(node), *[f"rule add pref {90 + i} fwmark {i + 1:#x}000000/0xff000000 lookup main" for i in range(4)])
    return pod


def rule_per_policy(rig, policies):
    """One iptables rule with two ipsets per policy, as a rule-per-policy egress gateway does it."""
    pod = tunnel(rig, nat=True)
    sets, rules = [], ["*mangle"]
    for i in range(policies):
        sets += [f"create s{i} hash:net", f"create d{i} hash:net", f"add d{i} 10.6.0.0/16"]
        sets += [f"add s{i} {a}" for a in addresses(10, f"10.{128 + (i >> 8)}.{i & 255}.0")]
        rules.append(f"-A PREROUTING -m set --match-set s{i} src -m set --match-set d{i} dst "
                     "-m conntrack --ctdir ORIGINAL -j MARK --set-xmark 0x26000001/0xffffffff")
    sets.append(f"add s{policies - 1} {pod.ipv4}")
    net.enter(rig.ns("n1"), "ipset", "restore", stdin="\n".join(sets) + "\n", timeout=300)
    net.enter(rig.ns("n1"), "iptables-legacy-restore", "--noflush", stdin="\n".join(rules + ["COMMIT", ""]), timeout=300)
    return pod


def walked(rig):
    """Packets that the comparator's node saw and that its last rule matched: all walk all rules."""
    lines = net.enter(rig.ns("n1"), "iptables-legacy", "-t", "mangle", "-L", "PREROUTING", "-v", "-x", "-n").splitlines()
    seen = sum(int(line.split()[0]) for line in lines[2:])
    return seen, int(lines[-1].split()[0])


def median(values):
    return sorted(values)[len(values) // 2]


def ratio(results, a, b):
    """(median, low, high, spread): of the per-round ratios a/b, with the 90 % interval of the rounds and the distance
    of the quartiles, which one bad round does not move."""
    ratios = sorted(x / y for x, y in zip(results[a]["pps"], results[b]["pps"]))
    cut, quarter = max(0, round(len(ratios) * 0.05)), len(ratios) // 4
    return median(ratios), ratios[cut], ratios[-1 - cut], ratios[-1 - quarter] - ratios[quarter]


# Of the bare tunnel at 5,000 policies; of plain forwarding for a pod without policy.
TUNNEL = {"netlink": 0.62, "ebpf": 0.64, "ebpf-fast": 0.72, "iptables": 0.52}
BYSTANDER = {"netlink": 0.80, "ebpf": 0.85, "ebpf-fast": 0.85, "iptables": 0.75}
COMPARATOR = "rule-per-policy-1000"


def bars(datapaths, comparator):
    """(layout, layout, the least ratio of the two)."""
    out = []
    for d in datapaths:
        out += [(f"{d}-5000", "tunnel", TUNNEL[d]), (f"{d}-5000", f"{d}-1", 0.93),
                (f"{d}-bystander-5000", "plain", BYSTANDER[d])]
        if d == "netlink":
            out.append(("netlink-5000", "tunnel-nat", 0.85))
            out += [("netlink-5000", COMPARATOR, 40)] if comparator else []
    return out


NOISY = 0.15  # spread over median: the machine did something else meanwhile


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--burst", type=int, default=300)
    parser.add_argument("--datapaths", default="netlink,ebpf,ebpf-fast")
    parser.add_argument("--no-comparator", action="store_true")
    args = parser.parse_args()
    datapaths, comparator = args.datapaths.split(","), not args.no_comparator
    rigs, pods, missed = {}, {}, 0
    names = ["plain", "tunnel", "tunnel-nat"] + [COMPARATOR] * comparator
    layouts = {f"{d}-{layout}": d for d in datapaths for layout in ("1", "5000", "bystander-5000")}
    try:
        for name in names + list(layouts):
            datapath = layouts.get(name, "netlink")
            config = {"fastPath": True} if datapath == "ebpf-fast" else {}
            rig = rigs[name] = Rig(nodes=2, datapath=datapath.removesuffix("-fast"), config=config)
            rig.__enter__()
            if name in layouts:
                policies = int(name.rsplit("-", 1)[1])
                pods[name], cold, more = egw(rig, policies, steered="bystander" not in name)
                print("figure", json.dumps({"test": f"program {name}", "cold_ms": round(cold, 1), "one_more_ms": round(more, 3)}))
            elif name == COMPARATOR:
                pods[name] = rule_per_policy(rig, 1000)
            else:
                pods[name] = rig.pod("n1") if name == "plain" else tunnel(rig, nat=name == "tunnel-nat")
        names += list(layouts)
        for rig in rigs.values():
            rig.quiet()
        pairs = [f"{n},{pods[n].ns},{rigs[n].ns('srv')},{SERVER4}" for n in names]
        done = subprocess.run([PPS, str(args.rounds), str(args.burst), *pairs], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr)
        results = json.loads(done.stdout)
        for name in names:
            print("figure", json.dumps({"test": f"pps {name}", "kpps": round(median(results[name]["pps"]) / 1000, 1)}))
        if comparator:
            seen, last = walked(rigs[COMPARATOR])
            if last == 0 or seen != last:
                sys.exit(f"the comparator does not walk its rules: the last one matched {last} of {seen} packets")
            slow, fast = (median(results[n]["pps"]) for n in (COMPARATOR, "tunnel-nat"))
            print("figure", json.dumps({"test": f"{COMPARATOR}, per rule", "ns": round((1e9 / slow - 1e9 / fast) / 1000)}))
        for a, b, bar in bars(datapaths, comparator):
            mid, low, high, spread = ratio(results, a, b)
            ok = high >= bar and spread <= NOISY * mid
            missed += not ok
            print("figure", json.dumps({"test": f"{a} / {b}", "ratio": round(mid, 3), "low": round(low, 3),
                                        "high": round(high, 3), "bar": bar, "ok": ok}))
    finally:
        for rig in rigs.values():
            rig.__exit__()
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
