"""Who may send into the tunnel, and what happens when a part is missing (decisions 1 and 2)."""

import time

import pytest
import sockets
from conftest import EIP4, EIP6
from rig import SERVER4, net

PORT = 7789


def forged_udp(group, source_mac, destination_mac, inner_source, flag=True):
    """A UDP datagram with a VXLAN-GBP frame in it: an echo request of inner_source to the server."""
    inner = sockets.frame(source_mac, destination_mac,
                          sockets.ip4(inner_source, SERVER4, 17, sockets.udp_segment(5555, 7000, b"forged")))
    return sockets.vxlan(100, group, inner, flag)


def leaked(rig, act, pause=0.25):
    """Sources seen by the server on the probe's port while act() runs and shortly after."""
    capture = sockets.Capture(rig.ns("srv"))
    act()
    time.sleep(pause)  # silence is what is measured
    capture.stop()
    return capture.received_sources(7000)


def test_a_pod_cannot_forge_a_frame(rig, pod):
    other = rig.pod("n1")
    rig.apply()
    frame = forged_udp(7, rig.mac("n1"), rig.mac("n2"), other.ipv4)
    for target in (rig.address("n2"), rig.address("n1"), rig.address("n3")):
        s = sockets.udp(other.ns, to=(target, PORT))
        assert leaked(rig, lambda s=s: s.send(frame)) == {}
        s.close()
    assert pod.source(4) == EIP4


def test_a_pod_with_a_peers_address_cannot_forge(rig, pod):
    """The pod forges the outer source as well; its node has reverse path filters off."""
    other = rig.pod("n2")
    rig.apply()
    rig.sysctl("n2", {"net/ipv4/conf/all/rp_filter": 0, f"net/ipv4/conf/{other.host}/rp_filter": 0})
    payload = forged_udp(7, rig.mac("n1"), rig.mac("n2"), other.ipv4)
    packet = sockets.ip4(rig.address("n1"), rig.address("n2"), 17, sockets.udp_segment(40000, PORT, payload))
    links = net.run("ip", "-n", rig.ns("n2"), "-br", "link", "show", other.host).split()
    raw = sockets.packets(other.ns, "eth0")
    own = net.run("ip", "-n", other.ns, "-br", "link", "show", "eth0").split()[2]
    assert leaked(rig, lambda: raw.send(sockets.frame(own, links[2], packet))) == {}
    raw.close()
    before = rig.driver("n2").must("counters")["counters"]
    assert before["dropped_packets_total{table=ip,reason=forged}"] >= 1
    assert pod.source(4) == EIP4


@pytest.mark.parametrize("flag", [True, False], ids=["G", "without-G"])
def test_a_stranger_on_the_underlay_cannot_send(rig, pod, flag):
    payload = forged_udp(7, rig.mac("n1"), rig.mac("n2"), pod.ipv4, flag)
    s = sockets.udp(rig.ns("srv"), to=(rig.address("n2"), PORT), mark=7)
    assert leaked(rig, lambda: s.send(payload)) == {}
    s.close()


def test_without_the_g_flag_no_id_counts(rig, pod):
    """A frame of a true peer, with the outer mark set as an id would be: the outer mark must not survive."""
    net.enter(rig.ns("n2"), "nft", "add table ip foreign; add chain ip foreign pre { type filter hook prerouting "
              "priority -400; }; add rule ip foreign pre udp dport 7789 meta mark set 7")
    payload = forged_udp(7, rig.mac("n1"), rig.mac("n2"), pod.ipv4, flag=False)
    s = sockets.udp(rig.ns("n1"), bind=(rig.address("n1"), 0), to=(rig.address("n2"), PORT))
    assert leaked(rig, lambda: s.send(payload)) == {}
    s.close()
    counters = rig.driver("n2").must("counters")["counters"]
    assert counters["dropped_packets_total{table=ip,reason=without_id}"] == 1


def test_the_inner_mac_must_belong_to_the_outer_source(rig, pod):
    s = sockets.udp(rig.ns("n1"), bind=(rig.address("n1"), 0), to=(rig.address("n2"), PORT))
    false = forged_udp(7, rig.mac("n3"), rig.mac("n2"), pod.ipv4)
    assert leaked(rig, lambda: s.send(false)) == {}
    true = forged_udp(7, rig.mac("n1"), rig.mac("n2"), pod.ipv4)
    assert leaked(rig, lambda: s.send(true)) == {EIP4: 1}  # the counter-proof: the frame is a good one
    s.close()


def test_an_unknown_id_is_dropped(rig, pod):
    s = sockets.udp(rig.ns("n1"), bind=(rig.address("n1"), 0), to=(rig.address("n2"), PORT))
    for group in (0, 8, 16383, 16384, 0xffff):
        payload = forged_udp(group, rig.mac("n1"), rig.mac("n2"), pod.ipv4)
        assert leaked(rig, lambda p=payload: s.send(p), 0.1) == {}, group
    s.close()


def test_the_tunnel_does_not_lead_to_the_host(rig, pod):
    """Through the tunnel nobody reaches a service of the gateway host."""
    listener = sockets.udp(rig.ns("n2"), bind=("0.0.0.0", 9999))
    s = sockets.udp(rig.ns("n1"), bind=(rig.address("n1"), 0), to=(rig.address("n2"), PORT))
    for target in (rig.address("n2"), "172.31.0.2"):
        for group in (0, 7):
            inner = sockets.frame(rig.mac("n1"), rig.mac("n2"),
                                  sockets.ip4(pod.ipv4, target, 17, sockets.udp_segment(5, 9999, b"x")))
            s.send(sockets.vxlan(100, group, inner))
    listener.settimeout(0.2)
    with pytest.raises(TimeoutError):
        listener.recv(100)
    s.close()
    listener.close()


def test_a_pod_does_not_reach_tunnel_addresses(rig, pod):
    listener = sockets.udp(rig.ns("n2"), bind=("0.0.0.0", 9999))
    other = rig.pod("n1")
    for p in (pod, other):
        s = sockets.udp(p.ns, to=("172.31.0.2", 9999))
        s.send(b"x")
        s.close()
    listener.settimeout(0.2)
    with pytest.raises(TimeoutError):
        listener.recv(100)
    listener.close()


def test_nodes_reach_each_other_by_ping_through_the_tunnel(rig, pod):
    """What decisions 15 wants to measure."""
    del pod
    for source, target in (("172.31.0.1", "172.31.0.2"), ("fd11::1", "fd11::3")):
        assert rig.ping("n1", target, source), target


def test_new_packets_to_an_eip_are_dropped(rig, pod):
    assert pod.source(4) == EIP4
    for target in (EIP4, EIP6):
        s = sockets.udp(rig.ns("srv"), to=(target, 7000))
        assert sockets.ask(s, timeout=0.2) is None
        s.close()
    counters = rig.driver("n2").must("counters")["counters"]
    assert counters["dropped_packets_total{table=ip,reason=to_eip}"] >= 1
    assert counters["dropped_packets_total{table=ip6,reason=to_eip}"] >= 1


def chains(rig, node):
    return {word for t in ("ip", "ip6") for line in net.enter(rig.ns(node), "nft", "-t", "list", "table", t, "egw").splitlines()
            if line.strip().startswith("chain") for word in (f"{t} {line.split()[1]}",)}


def test_a_node_becomes_a_gateway_and_ceases_to_be_one_by_a_step(rig, pod):
    """Only a gateway has the guard of the EIPs and the chain for ICMP errors; both come with the first id that the
    node may serve, and go with the last."""
    assert chains(rig, "n2") - chains(rig, "n1") == {"ip errors", "ip6 errors"}
    eips = {"ipv4": "10.6.1.99", "ipv6": "fd00::99"}
    assert rig.delta("n1", egresses=[{"id": 9, "owner": "self", "mayServe": True, **eips}])["ok"]
    assert chains(rig, "n1") == chains(rig, "n2")
    for eip in eips.values():
        rig.answering(eip, "n1")
        s = sockets.udp(rig.ns("srv"), to=(eip, 7000))
        assert sockets.ask(s, timeout=0.2) is None
        s.close()
    counters = rig.driver("n1").must("counters")["counters"]
    assert counters["dropped_packets_total{table=ip,reason=to_eip}"] >= 1
    assert counters["dropped_packets_total{table=ip6,reason=to_eip}"] >= 1
    # A pod of this node does not reach an EIP either, whatever its policy says.
    s = sockets.udp(pod.ns, to=(eips["ipv4"], 7000))
    assert sockets.ask(s, timeout=0.2) is None
    s.close()
    after = rig.driver("n1").must("counters")["counters"]
    assert (after["dropped_packets_total{table=ip,reason=to_eip}"] >
            counters["dropped_packets_total{table=ip,reason=to_eip}"])
    assert rig.delta("n1", deleted={"egresses": [9]})["ok"]
    assert chains(rig, "n2") - chains(rig, "n1") == {"ip errors", "ip6 errors"}
    assert rig.apply("n1")["n1"]["repaired"] == {}
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6


# What is removed on the client node, and how it comes back: nothing may leave with another source.
BREAKAGES = {
    "device": "ip link del egress.vxlan",
    "link down": "ip link set egress.vxlan down",
    "rules": "ip rule del pref 4; ip -6 rule del pref 4",
    "all rules": "for p in 1 2 3 4 5; do ip rule del pref $p; ip -6 rule del pref $p; done",
    "goto": "ip rule del pref 1; ip -6 rule del pref 1",
    "route": "ip route flush proto 119 table 6645623; ip -6 route flush proto 119 table 6645623",
    "default route": "ip route del default dev egress.vxlan table 6645623; "
                     "ip -6 route del default dev egress.vxlan table 6645623",
    "FDB": "bridge fdb del 02:ee:0a:06:00:0c dev egress.vxlan dst 10.6.0.12 self",
    "neighbours": "ip neigh flush nud permanent dev egress.vxlan; ip -6 neigh flush nud permanent dev egress.vxlan",
    "owner map": "nft flush map netdev egw owner",
    "egress chain": "nft flush chain netdev egw into_tunnel",
    "netdev table": "nft delete table netdev egw",
    "translation": "nft flush chain ip egw translate; nft flush chain ip6 egw translate",
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_fails_closed_and_is_repaired(rig, pod, what):
    traffic = [rig.traffic(pod, family) for family in (4, 6)]
    capture = sockets.Capture(rig.ns("srv"))
    time.sleep(0.1)  # traffic runs before, during and after
    net.enter(rig.ns("n1"), "sh", "-c", BREAKAGES[what])
    time.sleep(0.3)
    new4, new6 = pod.source(4, 0.2), pod.source(6, 0.2)  # a new connection meanwhile
    capture.stop()
    assert set(capture.received_sources(7000)) == {EIP4, EIP6}
    assert {new4, new6} <= {EIP4, EIP6, None}
    answer = rig.apply("n1")["n1"]
    assert sum(answer["repaired"].values()) >= 1, answer
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6
    for t in traffic:
        rig.report(t)


def test_the_gateway_fails_closed(rig, pod):
    """Translation gone on the gateway: dropped there, also for a new connection."""
    for chain in ("translate", "translate_inner"):
        net.enter(rig.ns("n2"), "nft", f"flush chain ip egw {chain}")
        assert leaked(rig, lambda: pod.source(4, 0.2)) == {}
        rig.apply("n2")
        assert pod.source(4) == EIP4


@pytest.mark.parametrize("chain", ["translate", "translate_own"])
def test_the_owner_fails_closed_for_its_own_pods(rig, chain):
    """The same for a pod on the owner, which no tunnel stands between."""
    local = rig.pod("n2")
    rig.steer(local, [("0.0.0.0/0", 7), ("::/0", 7)])
    rig.apply()
    for family, nft in ((4, "ip"), (6, "ip6")):
        net.enter(rig.ns("n2"), "nft", f"flush chain {nft} egw {chain}")
        assert leaked(rig, lambda f=family: local.source(f, 0.2)) == {}
    rig.apply("n2")
    assert local.source(4) == EIP4 and local.source(6) == EIP6
