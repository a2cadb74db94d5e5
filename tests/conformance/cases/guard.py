"""Who may send into the tunnel, and what happens when a part is missing."""

import time

import sockets
from rig import EIP4, EIP6, SERVER4, net
from suite import FAMILIES, case, raises

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


def over(rig, underlay):
    """The tunnel's outer packets are of that family from now on."""
    if rig.underlay != underlay:
        rig.underlay = underlay
        rig.apply()


@case("guard-pod-forges", "A pod's own VXLAN frames reach no node")
def a_pod_cannot_forge_a_frame(rig, pod):
    other = rig.pod("n1")
    rig.apply()
    frame = forged_udp(7, rig.mac("n1"), rig.mac("n2"), other.ipv4)
    for target in (rig.address("n2"), rig.address("n1"), rig.address("n3")):
        s = sockets.udp(other.ns, to=(target, PORT))
        assert leaked(rig, lambda s=s: s.send(frame)) == {}
        s.close()
    assert pod.source(4) == EIP4


@case("guard-pod-forges-peer", "Nor with a peer's address as outer source")
def a_pod_with_a_peers_address_cannot_forge(rig, pod):
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
    assert pod.source(4) == EIP4


@case("guard-stranger", "A stranger on the underlay cannot send into the tunnel",
      flag={"G": True, "without-G": False}, underlay=FAMILIES)
def a_stranger_on_the_underlay_cannot_send(rig, pod, flag, underlay):
    over(rig, underlay)
    payload = forged_udp(7, rig.mac("n1"), rig.mac("n2"), pod.ipv4, flag)
    s = sockets.udp(rig.ns("srv"), to=(rig.address("n2", underlay), PORT), mark=7)
    assert leaked(rig, lambda: s.send(payload)) == {}
    s.close()


@case("guard-without-g", "A frame without the G flag carries no id, whatever mark the outer packet has")
def without_the_g_flag_no_id_counts(rig, pod):
    """A frame of a true peer, with the outer mark set as an id would be: the outer mark must not survive."""
    net.enter(rig.ns("n2"), "nft", "add table ip foreign; add chain ip foreign pre { type filter hook prerouting "
              "priority -400; }; add rule ip foreign pre udp dport 7789 meta mark set 7")
    payload = forged_udp(7, rig.mac("n1"), rig.mac("n2"), pod.ipv4, flag=False)
    s = sockets.udp(rig.ns("n1"), bind=(rig.address("n1"), 0), to=(rig.address("n2"), PORT))
    assert leaked(rig, lambda: s.send(payload)) == {}
    s.close()


@case("guard-inner-mac", "A peer cannot send with another peer's inner MAC", underlay=FAMILIES)
def the_inner_mac_must_belong_to_the_outer_source(rig, pod, underlay):
    over(rig, underlay)
    s = sockets.udp(rig.ns("n1"), bind=(rig.address("n1", underlay), 0), to=(rig.address("n2", underlay), PORT))
    false = forged_udp(7, rig.mac("n3"), rig.mac("n2"), pod.ipv4)
    assert leaked(rig, lambda: s.send(false)) == {}
    true = forged_udp(7, rig.mac("n1"), rig.mac("n2"), pod.ipv4)
    assert leaked(rig, lambda: s.send(true)) == {EIP4: 1}  # the counter-proof: the frame is a good one
    s.close()


@case("guard-inner-mac-options", "Nor behind IPv6 options that hold the right MAC where it mostly stands")
def options_do_not_hide_the_inner_mac(rig, pod):
    over(rig, 6)
    here, there = rig.address("n1", 6), rig.address("n2", 6)
    links = [net.run("ip", "-n", rig.ns(n), "-br", "link", "show", "eth0").split()[2] for n in ("n1", "n2")]
    raw = sockets.packets(rig.ns("n1"), "eth0")

    def send(inner_mac, options):
        udp = sockets.udp6_segment(here, there, 40000, PORT, forged_udp(7, inner_mac, rig.mac("n2"), pod.ipv4))
        # Destination options of 32 bytes: one that nobody knows and everybody skips, with the MAC at byte 62 of the packet.
        head = bytes([17, 3, 0x1e, 28]) + bytes(18) + sockets.mac(rig.mac("n1")) + bytes(4) if options else b""
        raw.send(sockets.frame(*links, sockets.ip6(here, there, 60 if options else 17, head + udp)))
    assert leaked(rig, lambda: send(rig.mac("n3"), True)) == {}
    assert leaked(rig, lambda: send(rig.mac("n1"), False)) == {EIP4: 1}  # the counter-proof: the frame is a good one
    raw.close()


@case("guard-unknown-id", "A frame with an unknown id is dropped")
def an_unknown_id_is_dropped(rig, pod):
    s = sockets.udp(rig.ns("n1"), bind=(rig.address("n1"), 0), to=(rig.address("n2"), PORT))
    for group in (0, 8, 16383, 16384, 0xffff):
        payload = forged_udp(group, rig.mac("n1"), rig.mac("n2"), pod.ipv4)
        assert leaked(rig, lambda p=payload: s.send(p), 0.1) == {}, group
    s.close()


@case("guard-not-to-host", "The tunnel does not lead to services of the gateway host")
def the_tunnel_does_not_lead_to_the_host(rig, pod):
    """Through the tunnel nobody reaches a service of the gateway host."""
    listener = sockets.udp(rig.ns("n2"), bind=("0.0.0.0", 9999))
    s = sockets.udp(rig.ns("n1"), bind=(rig.address("n1"), 0), to=(rig.address("n2"), PORT))
    for target in (rig.address("n2"), "172.31.0.2"):
        for group in (0, 7):
            inner = sockets.frame(rig.mac("n1"), rig.mac("n2"),
                                  sockets.ip4(pod.ipv4, target, 17, sockets.udp_segment(5, 9999, b"x")))
            s.send(sockets.vxlan(100, group, inner))
    listener.settimeout(0.2)
    with raises(TimeoutError):
        listener.recv(100)
    s.close()
    listener.close()


@case("guard-not-to-tunnel", "A pod does not reach tunnel addresses")
def a_pod_does_not_reach_tunnel_addresses(rig, pod):
    listener = sockets.udp(rig.ns("n2"), bind=("0.0.0.0", 9999))
    other = rig.pod("n1")
    for p in (pod, other):
        s = sockets.udp(p.ns, to=("172.31.0.2", 9999))
        s.send(b"x")
        s.close()
    listener.settimeout(0.2)
    with raises(TimeoutError):
        listener.recv(100)
    listener.close()


@case("guard-tunnel-ping", "Tunnel addresses answer echo requests of other nodes")
def nodes_reach_each_other_by_ping_through_the_tunnel(rig, pod):
    """Agents see by it whether a gateway can be reached."""
    del pod
    for source, target in (("172.31.0.1", "172.31.0.2"), ("fd11::1", "fd11::3")):
        assert rig.ping("n1", target, source, timeout=2), target


@case("guard-to-eip", "Nobody opens a connection to an egress IP")
def new_packets_to_an_eip_are_dropped(rig, pod):
    assert pod.source(4) == EIP4
    for target in (EIP4, EIP6):
        s = sockets.udp(rig.ns("srv"), to=(target, 7000))
        assert sockets.ask(s, timeout=0.2) is None
        s.close()


@case("guard-not-local", "An egress IP is on no node a local address, nor is it answered for by the kernel")
def an_eip_is_no_local_address(rig, pod):
    """egw's announcer answers ARP and NDP, when it has to; the kernel must not."""
    assert pod.source(4) == EIP4
    for node in rig.nodes:
        text = rig.sh(node, "ip -o addr; ip route show table local; ip -6 route show table local")
        assert f" {EIP4}" not in text and f" {EIP6}" not in text, node


@case("guard-former-peer", "A node that is no peer any more cannot send into the tunnel", way={"step": False, "full": True})
def a_former_peer_cannot_send(rig, pod, way):
    assert pod.source(4) == EIP4
    if way:
        change = rig.change("n2")
        change["peers"] = [p for p in change["peers"] if p["name"] != "n1"]
        rig.driver("n2").must("apply", change=change)
    else:
        assert rig.delta("n2", deleted={"peers": ["n1"]})["ok"]
    true = forged_udp(7, rig.mac("n1"), rig.mac("n2"), pod.ipv4)
    s = sockets.udp(rig.ns("n1"), bind=(rig.address("n1"), 0), to=(rig.address("n2"), PORT))
    assert leaked(rig, lambda: s.send(true)) == {}
    assert [pod.source(4, 0.2), pod.source(6, 0.2)] == [None, None]
    s.close()
