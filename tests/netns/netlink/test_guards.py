"""netlink's guards: what it counts, the chains that only gateways have, and each of its parts removed under traffic."""

import time

import pytest
import sockets
from guard import PORT, forged_udp, leaked
from rig import EIP4, EIP6, SERVER4, net


def dropped(rig, node, reason):
    """The plugin's counters of that reason, IPv4 and IPv6."""
    counters = rig.driver(node).must("counters")["counters"]
    return [counters[f"dropped_packets_total{{table={t},reason={reason}}}"] for t in ("ip", "ip6")]


def test_drops_are_counted_by_reason(rig, pod):
    """What a peer sends without an id, what a pod sends to the tunnel port, what somebody sends to an EIP."""
    peer = sockets.udp(rig.ns("n1"), bind=(rig.address("n1"), 0), to=(rig.address("n2"), PORT))
    assert leaked(rig, lambda: peer.send(forged_udp(7, rig.mac("n1"), rig.mac("n2"), pod.ipv4, flag=False))) == {}
    other = rig.pod("n2")
    forging = sockets.udp(other.ns, to=(rig.address("n1"), PORT))
    forging.send(b"x")
    for eip in (EIP4, EIP6):
        s = sockets.udp(rig.ns("srv"), to=(eip, 7000))
        assert sockets.ask(s, timeout=0.2) is None
        s.close()
    assert dropped(rig, "n2", "without_id")[0] == 1
    assert dropped(rig, "n2", "forged")[0] >= 1
    assert min(dropped(rig, "n2", "to_eip")) >= 1
    for s in (peer, forging):
        s.close()


@pytest.mark.parametrize("intact", [True, False], ids=["intact", "without ingress"])
def test_a_client_guards_the_tunnel_port(rig, pod, intact):
    """What its pods send to the tunnel port, of this node and of others, whether the chains at the ingress are there or
    not; also what goes to the port of another address by way of this node."""
    assert pod.source(4) == EIP4
    if not intact:
        net.enter(rig.ns("n1"), "nft", "flush table netdev egw")
    bystander = rig.pod("n1")
    server = sockets.udp(rig.ns("srv"), bind=(SERVER4, PORT))
    frame = forged_udp(7, rig.mac("n1"), rig.mac("n2"), pod.ipv4)
    for sender in (pod, bystander):
        for to in (rig.address("n1"), rig.address("n2"), SERVER4):
            before = dropped(rig, "n1", "forged")[0]
            s = sockets.udp(sender.ns, to=(to, PORT))
            assert leaked(rig, lambda sock=s: sock.send(frame)) == {}
            s.close()
            assert dropped(rig, "n1", "forged")[0] == before + 1, (sender.name, to)
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):
        server.recv(100)
    server.close()


def answered(rig, pod, size):
    """The size of the answer that a pod gets from outside, None without."""
    server = sockets.udp(rig.ns("srv"), bind=(SERVER4, 7100))
    client = sockets.udp(pod.ns, to=(SERVER4, 7100))
    try:
        client.settimeout(1)
        server.settimeout(1)
        client.send(b"x")
        server.sendto(b"y" * size, server.recvfrom(10)[1])
        return len(client.recv(2000))
    except TimeoutError:
        return None
    finally:
        client.close()
        server.close()


def test_a_client_takes_an_outer_packet_in_fragments(rig, pod):
    assert pod.source(4) == EIP4
    net.batch(rig.ns("n2"), f"route add {rig.address('n1')} dev eth0 mtu 1000")
    assert answered(rig, pod, 1380) == 1380
    fragments = net.enter(rig.ns("n2"), "nstat", "-asz", "IpFragCreates").split()[-2]
    assert int(fragments) >= 2


def test_a_client_takes_answers_without_the_ingress(rig, pod):
    """Somebody writes over the mark between the ingress and our judgement; then the chains there are empty."""
    others = ("add table ip others; add chain ip others pre { type filter hook prerouting priority -200; }; "
              "add rule ip others pre iifname egress.vxlan meta mark set 0x05000000")
    net.enter(rig.ns("n1"), "nft", others)
    assert answered(rig, pod, 100) == 100
    net.enter(rig.ns("n1"), "nft", "delete table ip others; flush chain netdev egw from_wire; flush chain netdev egw unwrap")
    assert answered(rig, pod, 100) == 100


def test_nothing_leaves_untranslated_when_the_tunnel_device_is_in_no_group(rig, pod):
    """The rules know the device by its group: on a gateway it is a guard that finds it by its name, on a client what goes
    into the tunnel is dropped."""
    for node in ("n2", "n1"):
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6
        net.enter(rig.ns(node), "ip", "link", "set", "egress.vxlan", "group", "default")
        before = [n for reason in ("forged", "not_by_tunnel") for n in dropped(rig, node, reason)]
        assert pod.source(4, timeout=0.3) is None and pod.source(6, timeout=0.3) is None
        assert sum(n for reason in ("forged", "not_by_tunnel") for n in dropped(rig, node, reason)) >= sum(before) + 2
        rig.apply(node)


GATEWAYS_ONLY = {f"{t} {chain}" for t in ("ip", "ip6") for chain in ("errors", "raw_in", "unwrap")}
CLIENTS_ONLY = {"ip unwrap_late", "ip6 unwrap_late", "netdev from_wire", "netdev unwrap"}


def chains(rig, node):
    return {word for t in ("ip", "ip6", "netdev") for line in net.enter(rig.ns(node), "nft", "-t", "list", "table", t, "egw").splitlines()
            if line.strip().startswith("chain") for word in (f"{t} {line.split()[1]}",)}


def test_a_node_becomes_a_gateway_and_ceases_to_be_one_by_a_step(rig, pod):
    """Only a gateway has the guard of the EIPs and the chain for ICMP errors, and a hook for all packets before their
    connection is known; all come with the first id that the node may serve, and go with the last."""
    assert chains(rig, "n2") - chains(rig, "n1") == GATEWAYS_ONLY
    assert chains(rig, "n1") - chains(rig, "n2") == CLIENTS_ONLY
    eips = {"ipv4": "10.6.1.99", "ipv6": "fd00::99"}
    assert rig.delta("n1", egresses=[{"id": 9, "owner": "self", "mayServe": True, **eips}])["ok"]
    assert chains(rig, "n1") == chains(rig, "n2")
    for eip in eips.values():
        rig.answering("n1", eip)
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
    assert chains(rig, "n2") - chains(rig, "n1") == GATEWAYS_ONLY
    assert chains(rig, "n1") - chains(rig, "n2") == CLIENTS_ONLY
    assert rig.apply("n1")["n1"]["repaired"] == {}
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6


# What is removed on the client node, and how it comes back: nothing may leave with another source.
BREAKAGES = {
    "device": "ip link del egress.vxlan",
    "link down": "ip link set egress.vxlan down",
    "rules": "ip rule del pref 4; ip -6 rule del pref 4",
    "all rules": "for p in 2 3 4 5; do ip rule del pref $p; ip -6 rule del pref $p; done",
    "goto": "ip rule del pref 2; ip -6 rule del pref 2",
    "landing place": "ip rule del pref 5; ip -6 rule del pref 5",
    "route": "ip route flush proto 119 table 6645623; ip -6 route flush proto 119 table 6645623",
    "default route": "ip route del default dev egress.vxlan table 6645623; "
                     "ip -6 route del default dev egress.vxlan table 6645623",
    "FDB": "bridge fdb del 02:ee:0a:06:00:0c dev egress.vxlan dst 10.6.0.12 self",
    "neighbours": "ip neigh flush nud permanent dev egress.vxlan; ip -6 neigh flush nud permanent dev egress.vxlan",
    "owner map": "nft flush map netdev egw owner",
    "egress chain": "nft flush chain netdev egw into_tunnel",
    "netdev table": "nft delete table netdev egw",
    "ingress chains": "nft flush chain netdev egw from_wire; nft flush chain netdev egw unwrap",
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
