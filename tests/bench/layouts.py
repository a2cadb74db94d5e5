"""The network layouts that are compared, each in a rig of its own (tests/conformance/rig.py): plain routing, the bare
tunnel, the tunnel with conntrack and NAT, one rule per policy, and the datapaths. Used by performance.py and peers.py.

A function takes a rig of two nodes and returns its pod, whose packets to SERVER4 are measured.
"""

import ipaddress
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conformance"))

from rig import ALL, BUILD, EIP4, EIP6, SERVER4, Rig  # noqa: E402  (the path must be set first)

from lab import net  # noqa: E402

# Names of this bench -> plugin and configuration.
DATAPATHS = {"netlink": ("netlink", {}), "iptables": ("iptables", {}), "ebpf": ("ebpf", {}),
             "ebpf-fast": ("ebpf", {"fastPath": True})}
ENDPOINTS = 10  # of a policy


def addresses(count, base="10.128.0.0"):
    first = int(ipaddress.ip_address(base))
    return [str(ipaddress.ip_address(first + i)) for i in range(count)]


def datapath_rig(name, nodes=2):
    plugin, config = DATAPATHS[name]
    return Rig(nodes=nodes, datapath=plugin, config=config)


def policies(change, count, egress_of=lambda policy: 7, first=1):
    """`count` policies of ten endpoints each are added to a node's change; each sends everything but a prefix of its own
    to the egress id egress_of(policy)."""
    for p in range(count):
        change["classes"].append({"id": first + p, "rules": [
            *({"destination": d, "action": "egress", "egressID": egress_of(p)} for d, _ in ALL),
            {"destination": f"198.{p >> 8}.{p & 255}.0/24", "action": "bypass"}]})
    change["endpoints"] += [{"address": a, "class": first + i // ENDPOINTS}
                            for i, a in enumerate(addresses(count * ENDPOINTS))]
    return change


def datapath(rig, count):
    """Returns the pod, of the last of `count` policies, and one of no policy on the same node."""
    pod, bystander = rig.pod("n1"), rig.pod("n1")
    rig.egress(7, EIP4, EIP6, owner="n2")
    change = policies(rig.change("n1"), count)
    change["endpoints"][-1] = {"address": pod.ipv4, "class": count}
    rig.apply_file("n1", change)
    rig.driver("n1").must("sysctls")
    rig.apply("n2")
    return pod, bystander


def plain(rig):
    return rig.pod("n1")


def tracked(rig):
    """Plain routing on a node as kube-proxy or a usual CNI leaves it: connection tracking, a NAT chain, an `ip rule`. What a
    pod without policy pays there before egw comes."""
    pod = rig.pod("n1")
    net.enter(rig.ns("n1"), "nft", "-f", "-", stdin="table ip t {\nchain f {\ntype filter hook forward priority 0\n"
                                                    "ct state established accept\n}\nchain p {\n"
                                                    "type nat hook postrouting priority 100\nip daddr 192.0.2.255 masquerade\n}\n}\n")
    net.batch(rig.ns("n1"), "rule add pref 90 fwmark 0x1000000/0xff000000 lookup main")
    return pod


def tunnel_ends(rig):
    """A VXLAN device with fixed entries on both nodes."""
    for node, other, tip in (("n1", "n2", 1), ("n2", "n1", 2)):
        ns, mac = rig.ns(node), f"02:aa:00:00:00:0{tip}"
        peer_mac = f"02:aa:00:00:00:0{3 - tip}"
        net.batch(ns, f"link add vx type vxlan id 77 dstport 7799 local {rig.address(node)} nolearning dev eth0",
                  f"link set vx address {mac} up", f"addr add 172.30.0.{tip}/24 dev vx",
                  f"neigh add 172.30.0.{3 - tip} lladdr {peer_mac} dev vx nud permanent")
        net.enter(ns, "bridge", "fdb", "append", peer_mac, "dev", "vx", "dst", rig.address(other))


def translated(rig):
    """What else than nftables' rules egw puts into a packet's way, at both ends of the tunnel: connection tracking, NAT (on
    the client of a connection to itself), the `ip rule`s of plugins/common/nftables/datapath.cpp."""
    for node, rule in (("n1", "oifname vx snat to ip saddr"), ("n2", f"oifname eth0 snat to {EIP4}")):
        ns = rig.ns(node)
        net.enter(ns, "nft", "-f", "-", stdin=f"table ip t {{\nchain p {{\ntype nat hook postrouting priority 90\n{rule}\n}}\n}}\n")
        net.batch(ns, "rule add pref 5 iif vx nop", "rule add pref 2 iif vx goto 5",
                  "rule add pref 3 fwmark 0x4000000/0x4000000 lookup main", "rule add pref 4 fwmark 0x8000000/0x8000000 lookup 77")
    rig.answering("n2", EIP4)


def tunnel(rig, nat=False):
    """The bare tunnel, the pod's default route through it; with `nat` all that egw has but its rules in nftables."""
    pod = rig.pod("n1")
    tunnel_ends(rig)
    for node in ("n1", "n2"):
        net.enter(rig.ns(node), "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.vx.rp_filter=0")
    if nat:
        translated(rig)
    net.batch(rig.ns("n1"), "route add default via 172.30.0.2 dev vx table 77", f"rule add pref 6 from {pod.ipv4} lookup 77")
    net.batch(rig.ns("n2"), f"route add {pod.ipv4}/32 via 172.30.0.1 dev vx")
    net.batch(rig.ns("srv"), f"route replace {pod.ipv4}/32 via {rig.address('n2')}")
    return pod


def rule_per_policy(rig, count):
    """One iptables rule with two ipsets per policy, as a rule-per-policy egress gateway does it; the pod is the last
    policy's."""
    pod = tunnel(rig, nat=True)
    sets, rules = [], ["*mangle"]
    for i in range(count):
        sets += [f"create s{i} hash:net", f"create d{i} hash:net", f"add d{i} 10.6.0.0/16"]
        sets += [f"add s{i} {a}" for a in addresses(ENDPOINTS, f"10.{128 + (i >> 8)}.{i & 255}.0")]
        rules.append(f"-A PREROUTING -m set --match-set s{i} src -m set --match-set d{i} dst "
                     "-m conntrack --ctdir ORIGINAL -j MARK --set-xmark 0x20000001/0xffffffff")
    sets.append(f"add s{count - 1} {pod.ipv4}")
    net.enter(rig.ns("n1"), "ipset", "restore", stdin="\n".join(sets) + "\n", timeout=300)
    net.enter(rig.ns("n1"), "iptables-legacy-restore", "--noflush", stdin="\n".join(rules + ["COMMIT", ""]), timeout=300)
    return pod


def require_walk(rig):
    """That the rule-per-policy layout's packets have walked all its rules: the last one, and no other, has matched."""
    lines = net.enter(rig.ns("n1"), "iptables-legacy", "-t", "mangle", "-L", "PREROUTING", "-v", "-x", "-n").splitlines()
    matched = [int(line.split()[0]) for line in lines[2:]]
    if not matched[-1] or any(matched[:-1]):
        raise RuntimeError(f"the rule-per-policy layout does not walk its rules: the last one matched {matched[-1]} of "
                           f"{sum(matched)} packets")
