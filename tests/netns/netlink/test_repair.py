"""Restart, adoption, drift and purge: the kernel is left alone when it is right and put right when it is not."""

import os
import subprocess
import time

import pytest
from rig import ALL, EIP4, EIP6, net


class Watch:
    """`nft monitor` and `ip monitor` on a node; stop() returns their lines."""

    def __init__(self, rig, node):
        self.node = node
        self.files = {}
        self.processes = []
        for name, command in (("nft", ["nft", "monitor"]),
                              ("ip", ["ip", "monitor", "link", "address", "route", "rule", "neigh"])):
            path = os.path.join(rig.state, f"{node}-{name}.txt")
            self.files[name] = path
            with open(path, "w", encoding="utf-8") as out:
                self.processes.append(subprocess.Popen(net.inside(rig.ns(node), *command), stdout=out,
                                                       stderr=subprocess.STDOUT))
        # Both are listening when a change that nobody minds has been written down.
        mark = 0
        while not all(os.path.getsize(p) for p in self.files.values()):
            mark += 1
            net.enter(rig.ns(node), "sh", "-c", f"ip rule add pref {20000 + mark} lookup main; "
                      f"ip rule del pref {20000 + mark}; nft add table arp mark{mark}; nft delete table arp mark{mark}")
            time.sleep(0.02)
        time.sleep(0.1)
        self.start = {n: os.path.getsize(p) for n, p in self.files.items()}

    def stop(self):
        time.sleep(0.1)  # what is under way: nothing tells that no line follows
        for p in self.processes:
            p.terminate()
            p.wait()
        lines = []
        for name, path in self.files.items():
            with open(path, encoding="utf-8") as f:
                f.seek(self.start[name])
                # Dynamic neighbours on other devices come and go by themselves.
                lines += [line.strip() for line in f if line.strip() and "pod" not in line and " eth0 " not in line]
        return lines


@pytest.mark.parametrize("kill", [False, True], ids=["closed", "killed"])
def test_a_restart_changes_nothing(rig, pod, kill):
    """Under traffic through every node: no packet lost, monitors silent, peer numbers kept."""
    local, standby = rig.pod("n2"), rig.pod("n3")
    for p in (local, standby):
        rig.steer(p, ALL + [("10.9.0.0/16", "drop")])
    rig.apply()
    assert local.source(4) == EIP4
    watches = [Watch(rig, n) for n in rig.nodes]
    traffic = [rig.traffic(p, family, streams=1) for p in (pod, local, standby) for family in (4, 6)]
    time.sleep(0.1)
    for node in rig.nodes:
        rig.driver(node).stop(kill)
        time.sleep(0.05)
        rig.drivers.pop(node)
        answer = rig.apply(node)[node]
        assert answer["repaired"] == {}
        again = rig.apply(node)[node]
        assert again["repaired"] == {}
    time.sleep(0.1)
    reports = [rig.report(t) for t in traffic]
    assert [w.stop() for w in watches] == [[], [], []]
    for r in reports:
        assert r["lost"] == 0 and r["tcp_resets"] == 0, r


# What somebody does to the node, and what the report calls it.
DRIFT = {
    "element of endpoints": ("n1", "nft delete element ip egw endpoints '{{ {pod4} }}'", "nftables element"),
    "element of endpoints, IPv6": ("n1", "nft delete element ip6 egw endpoints '{{ {pod6} }}'", "nftables element"),
    "element changed": ("n1", "nft 'delete element ip egw endpoints {{ {pod4} }}; add element ip egw endpoints {{ {pod4} : "
                              "4000:0 }}'", "nftables element"),
    "element added": ("n1", "nft add element ip egw endpoints '{{ 10.244.1.99 : 4000:0 }}'", "nftables element"),
    "owner": ("n1", "nft flush map netdev egw owner", "nftables element"),
    "cluster prefix": ("n1", "nft delete element ip egw cluster '{{ 10.244.0.0/16 }}'", "nftables element"),
    "class map": ("n1", "nft flush map ip egw m16", "nftables element"),
    "shape": ("n1", "nft flush map ip egw shapes", "nftables element"),
    "steered": ("n1", "nft flush set ip6 egw steered", "nftables element"),
    "rule without words": ("n1", "nft flush chain ip egw steer", "nftables rule"),
    "rule without words replaced": ("n2", "nft flush chain ip egw note_peer; nft add rule ip egw note_peer accept",
                                    "nftables rule"),
    "zone on the gateway": ("n2", "nft flush map ip egw zone", "nftables element"),
    "rule removed": ("n1", "nft flush chain ip egw from_wire", "nftables rule"),
    "rule added": ("n1", "nft insert rule ip egw classify accept", "nftables rule"),
    "rule replaced": ("n1", "nft replace rule ip egw leave_alone handle {handle} drop comment '\"{comment}\"'",
                      "nftables rule"),
    "chain removed": ("n1", "nft delete chain ip egw leave", "nftables chain"),
    "chain added": ("n1", "nft add chain ip egw stranger", "nftables chain"),
    "base chain moved": ("n2", "nft 'delete chain ip egw errors; add chain ip egw errors {{ type route hook output "
                               "priority 7; }}'", "nftables chain"),
    "table removed": ("n1", "nft delete table ip egw", "nftables table"),
    "everything flushed": ("n1", "nft flush ruleset", "nftables table"),
    "route removed": ("n1", "ip route flush table 6645623", "route"),
    "route changed": ("n1", "ip route replace blackhole default metric 1024 table 6645623", "route"),
    "route added": ("n1", "ip route add 10.0.0.0/8 via 172.31.0.2 table 6645623 proto 119", "route"),
    "rule of ip removed": ("n1", "ip rule del pref 4", "rule"),
    "rule of ip added": ("n1", "ip -6 rule add pref 77 fwmark 1 lookup 99 proto 119", "rule"),
    "FDB removed": ("n1", "bridge fdb del 02:ee:0a:06:00:0c dev egress.vxlan dst 10.6.0.12 self", "FDB entry"),
    "FDB changed": ("n1", "bridge fdb replace 02:ee:0a:06:00:0c dev egress.vxlan dst 10.6.0.13 self permanent",
                    "FDB entry"),
    "neighbour removed": ("n1", "ip neigh del 172.31.0.2 dev egress.vxlan", "neighbour"),
    "neighbour changed": ("n1", "ip neigh replace 169.254.119.1 lladdr 02:00:00:00:00:09 dev egress.vxlan", "neighbour"),
    "device removed": ("n1", "ip link del egress.vxlan", "tunnel device"),
    "device in no group": ("n1", "ip link set egress.vxlan group default", "tunnel device"),
    "device in no group, on the gateway": ("n2", "ip link set egress.vxlan group default", "tunnel device"),
    "device's MTU": ("n1", "ip link set egress.vxlan mtu 1300", "tunnel device"),
    "device's MTU, on the gateway": ("n2", "ip link set egress.vxlan mtu 1300", "tunnel device"),
    "device renamed": ("n1", "ip link set egress.vxlan name other", "tunnel device"),
    "device renamed, on the gateway": ("n2", "ip link set egress.vxlan down; ip link set egress.vxlan name other; ip link set other "
                                             "up", "tunnel device"),
    "device down": ("n1", "ip link set egress.vxlan down", "tunnel device"),
    "device with another id": ("n1", "ip link del egress.vxlan; ip link add egress.vxlan type vxlan id 7 dstport 7789 "
                                     "local 10.6.0.11 nolearning gbp", "tunnel device"),
    "address removed": ("n1", "ip addr flush dev egress.vxlan", "tunnel address"),
}


@pytest.mark.parametrize("what", DRIFT)
def test_drift_is_noticed_and_repaired(rig, pod, what):
    node, command, name = DRIFT[what]
    rig.steer(pod, ALL + [("10.9.0.0/16", "drop"), ("10.10.0.0/16", "bypass")])
    rig.apply()
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6
    driver = rig.driver(node)
    while driver.ask("drift", timeoutMs=0)["ok"]:
        pass  # words about our own device, if any, do not count
    listing = net.enter(rig.ns(node), "nft", "-a", "list", "table", "ip", "egw")
    handle = comment = ""
    lines = listing.splitlines()
    for i, line in enumerate(lines):
        if line.strip().startswith("chain leave_alone"):
            handle, comment = lines[i + 1].split("# handle ")[1], lines[i + 1].split('comment "')[1].split('"')[0]
    net.enter(rig.ns(node), "sh", "-ec", command.format(pod4=pod.ipv4, pod6=pod.ipv6, handle=handle,
                                                        comment=comment))
    word = driver.ask("drift", timeoutMs=2000)
    assert word["ok"], "the monitor did not notice"
    answer = rig.apply(node)[node]
    assert answer["repaired"].get(name, 0) >= 1, (answer, word)
    assert rig.apply(node)[node]["repaired"] == {}
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6
    rig.apply()


@pytest.mark.parametrize("what", [None, "element of endpoints", "element added", "owner", "cluster prefix", "class map",
                                  "rule removed", "chain added", "table removed", "everything flushed"])
def test_what_was_read_before_a_change_is_not_believed(rig, pod, what):
    """A plugin that is asked how a node is reads the tables ahead: who changes them between that and the first apply
    is seen all the same."""
    rig.steer(pod, ALL + [("10.9.0.0/16", "drop")])
    rig.apply()
    driver = rig.restart("n1")
    driver.must("plugin")  # it is open
    tasks = f"/proc/{driver.process.pid}/task"
    threads = len(os.listdir(tasks))
    watch = Watch(rig, "n1")
    assert driver.ask("health")["ok"]
    deadline = time.monotonic() + 10
    while len(os.listdir(tasks)) > threads:  # the one that reads
        assert time.monotonic() < deadline
    if what:
        net.enter(rig.ns("n1"), "sh", "-ec", DRIFT[what][1].format(pod4=pod.ipv4))
    rig.apply("n1")
    lines = watch.stop()
    assert what or lines == []
    assert rig.apply("n1")["n1"]["repaired"] == {}
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6
    listing = net.enter(rig.ns("n1"), "nft", "list", "table", "ip", "egw")
    assert "10.244.1.99" not in listing and "stranger" not in listing


# What an earlier version kept in our tables: a chain per egress IP, per table of a class and per peer.
EARLIER = """table ip egw {
  chain e7 { meta priority set 0 meta mark set 0x09000007 accept; }
  chain p1 { ct mark set 0x01000000 accept; }
  map d0123456789abcd { type ipv4_addr : verdict; flags interval; elements = { 10.9.0.0/16 : goto e7 } }
  chain c0123456789abcd { ip daddr vmap @d0123456789abcd; }
  map chains { type classid : verdict; elements = { 0:7 : goto e7, 8123:4567 : goto c0123456789abcd } }
  map src { type ipv4_addr : classid; elements = { 10.244.1.10 : 0:7 } }
  map peer { type ether_addr : verdict; elements = { 02:ee:0a:06:00:0b : goto p1 } }
  set cluster { type ipv4_addr; flags interval; elements = { 10.1.0.0/16 } }
  chain judge { meta priority vmap @chains; drop; }
  chain classify { type filter hook prerouting priority -90; meta priority set ip saddr map @src goto judge; }
}
"""


def test_tables_of_an_earlier_version_are_replaced(rig):
    pod = rig.pod("n1")
    rig.steer(pod, ALL + [("10.9.0.0/16", "drop")])
    net.enter(rig.ns("n1"), "nft", "-f", "-", stdin=EARLIER)
    rig.apply()
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6
    listing = net.enter(rig.ns("n1"), "nft", "list", "table", "ip", "egw")
    for word in ("e7", "p1", "d0123456789abcd", "c0123456789abcd", "chains", "src", "peer"):
        assert f"chain {word} " not in listing and f"map {word} " not in listing
    assert rig.apply("n1")["n1"]["repaired"] == {}


def test_parent_mtu_is_followed(rig, pod):
    for n in rig.nodes:
        net.batch(rig.ns(n), "link set eth0 mtu 1400")
    rig.apply()
    for n in rig.nodes:
        assert " mtu 1350 " in net.run("ip", "-n", rig.ns(n), "link", "show", "egress.vxlan")
    listing = net.enter(rig.ns("n1"), "nft", "list", "table", "netdev", "egw")
    assert "size set 1310" in listing and "size set 1290" in listing
    assert pod.source(4) == EIP4


def test_observe_and_health(rig, pod):
    seen = rig.driver("n1").must("observe")["observed"]
    assert seen["endpoints"] == {pod.ipv4: "e7", pod.ipv6: "e7"}
    assert seen["egresses"]["7"]["ownerMac"] == rig.mac("n2")
    assert seen["tunnel"]["up"] and seen["tunnel"]["mtu"] == 1450
    assert rig.driver("n2").must("observe")["observed"]["egresses"]["7"] == {"v4": EIP4, "v6": EIP6}
    assert rig.driver("n1").ask("health")["ok"]
    net.batch(rig.ns("n1"), "link set egress.vxlan down")
    assert not rig.driver("n1").ask("health")["ok"]


def test_who_has_the_tunnels_port_is_named(rig, pod):
    """A VXLAN device without GBP, as other overlays make it; when it has gone, the next pass makes ours."""
    node = rig.ns("n1")
    net.batch(node, "link del egress.vxlan", "link add other type vxlan id 5 dstport 7789", "link set other up")
    answer = rig.driver("n1").ask("apply", change=rig.change("n1"))
    assert not answer["ok"]
    for word in ("egress.vxlan", "the VXLAN device other has id 5 and UDP port 7789", "feature.vxlan.port"):
        assert word in answer["error"], answer
    net.batch(node, "link del other")
    rig.steer(pod, ALL)
    rig.apply()
    assert pod.source(4) == EIP4
