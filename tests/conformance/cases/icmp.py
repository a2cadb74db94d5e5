"""Path MTU, ICMP errors, fragments, MSS: pods with MTU 1500 over the tunnel."""

import socket
import struct
import time

import sockets
from rig import ALL, EIP4, EIP6, PATIENCE, SERVER4, SERVER6, net
from suite import FAMILIES, NODES, case, raises

IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU, IP_RECVERR = 10, 2, 14, 11
IPV6_MTU_DISCOVER, IPV6_MTU, IPV6_RECVERR, IPV6_UNICAST_HOPS = 23, 24, 25, 16


def steered(rig, node, mtu=1500):
    pod = rig.pod(node, mtu=mtu)
    rig.steer(pod, ALL)
    rig.apply()
    return pod


def dont_fragment(s, family):
    if family == 4:
        s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO)


def path_mtu(s, family):
    return s.getsockopt(socket.IPPROTO_IP, IP_MTU) if family == 4 else s.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)


def learn(s, family, size):
    """Sends packets of `size` bytes until the path takes them; returns the path MTU."""
    overhead = 28 if family == 4 else 48
    for _ in range(20):
        try:
            s.send(b"\0" * (min(size, path_mtu(s, family)) - overhead))
        except OSError:
            pass  # EMSGSIZE: learned
        time.sleep(0.01)
    return path_mtu(s, family)


@case("icmp-mtu-tunnel", "A pod with MTU 1500 learns what the tunnel takes", node=NODES, family=FAMILIES)
def path_mtu_of_the_tunnel(rig, node, family):
    """A pod with MTU 1500 learns what the tunnel takes, and a packet of that size is answered."""
    pod = steered(rig, node)
    s = sockets.udp(pod.ns, to=(SERVER4 if family == 4 else SERVER6, 7000))
    dont_fragment(s, family)
    expected = 1500 if node == "n2" else 1450
    assert learn(s, family, 1500) == expected
    assert sockets.ask(s, b"\0" * (expected - (28 if family == 4 else 48))) is not None
    s.close()


@case("icmp-mtu-uplink", "An ICMP error that the gateway makes behind its translation finds the pod",
      node=NODES, family=FAMILIES)
def path_mtu_of_a_narrow_uplink(rig, node, family):
    """The narrow place is behind the gateway's translation: the error it makes must find the pod."""
    pod = steered(rig, node)
    server = SERVER4 if family == 4 else SERVER6
    net.batch(rig.ns("n2"), f"route replace {server} dev eth0 mtu lock 1300" if family == 4 else
              f"route replace {server} dev eth0 mtu 1300")
    s = sockets.udp(pod.ns, to=(server, 7000))
    dont_fragment(s, family)
    assert learn(s, family, 1500) == 1300
    assert sockets.ask(s, b"\0" * (1300 - (28 if family == 4 else 48))) is not None
    s.close()


@case("icmp-tcp", "TCP carries large amounts both ways without outer fragments", node=NODES)
def tcp_with_mtu_1500(rig, node):
    """Large transfers both ways; no outer fragment on the underlay."""
    pod = steered(rig, node)
    for server in (SERVER4, SERVER6):
        listener = sockets.listen(rig.ns("srv"), server, 9001)
        wire = sockets.Capture(rig.ns(node))
        client = sockets.connect(pod.ns, server, 9001)
        peer, address = listener.accept()
        assert address[0] == (EIP4 if server == SERVER4 else EIP6)
        for sender, receiver in ((client, peer), (peer, client)):
            size, got = 400_000, 0
            sender.settimeout(5)
            receiver.settimeout(5)
            sender.setblocking(False)
            receiver.setblocking(False)
            left, end = size, time.monotonic() + 5
            while got < size and time.monotonic() < end:
                try:
                    if left:
                        left -= sender.send(b"\0" * min(left, 65536))
                except BlockingIOError:
                    pass
                try:
                    got += len(receiver.recv(1 << 20))
                except BlockingIOError:
                    time.sleep(0.001)
            assert got == size
        frames = wire.stop()
        fragments = [f for _, f, _ in frames if f[12:14] == b"\x08\x00" and
                     struct.unpack("!H", f[20:22])[0] & 0x3fff]
        assert fragments == []
        for x in (client, peer, listener):
            x.close()


@case("icmp-mss", "SYN and SYN+ACK name the MSS that fits the tunnel")
def mss_is_clamped(rig):
    """Both SYN and SYN+ACK name what fits, so that nobody has to learn."""
    pod = steered(rig, "n1")
    for server, expected in ((SERVER4, 1410), (SERVER6, 1390)):
        listener = sockets.listen(rig.ns("srv"), server, 9001)
        at_server, at_pod = sockets.Capture(rig.ns("srv")), sockets.Capture(pod.ns)
        client = sockets.connect(pod.ns, server, 9001)
        listener.accept()[0].close()
        seen = {}
        for name, capture in (("SYN", at_server), ("SYN+ACK", at_pod)):
            for _, f, kind in capture.stop():
                offset = 34 if f[12:14] == b"\x08\x00" else 54
                if kind == 4 or f[offset - 11 if offset == 34 else 20] != 6 or not f[offset + 13] & 2:
                    continue
                assert f[offset + 20:offset + 22] == b"\x02\x04"  # the MSS comes first
                seen[name] = struct.unpack("!H", f[offset + 22:offset + 24])[0]
        assert seen == {"SYN": expected, "SYN+ACK": expected}
        client.close()
        listener.close()


@case("icmp-fragments", "Fragments pass both ways", node=NODES, family=FAMILIES)
def fragments_both_ways(rig, node, family):
    """Datagrams larger than any MTU: fragments from the pod, fragments of the answer."""
    pod = steered(rig, node)
    server = SERVER4 if family == 4 else SERVER6
    echo = sockets.udp(rig.ns("srv"), bind=(server, 9002))
    s = sockets.udp(pod.ns, to=(server, 9002))
    if family == 4:
        s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
        echo.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
    s.settimeout(1)
    echo.settimeout(1)
    for attempt in range(5):  # IPv6: the first ones teach the path MTU
        try:
            s.send(bytes([attempt]) * 4000)
            data, peer = echo.recvfrom(9000)
            assert peer[0] == (EIP4 if family == 4 else EIP6) and len(data) == 4000
            echo.sendto(data, peer)
            assert len(s.recv(9000)) == 4000
            break
        except OSError:
            continue  # silence, or the error that taught the path MTU
    else:
        raise AssertionError("no large datagram got through")
    s.close()
    echo.close()


@case("icmp-traceroute", "Time exceeded comes from the client node and from the owner",
      node=NODES, family=FAMILIES)
def traceroute(rig, node, family):
    """Time exceeded: from the client node, and from the owner for a packet that it has yet to translate."""
    pod = steered(rig, node)
    server = SERVER4 if family == 4 else SERVER6
    hops = []
    for ttl in (1, 2):
        s = sockets.udp(pod.ns, to=(server, 33434))
        level, option, err = (socket.IPPROTO_IP, socket.IP_TTL, IP_RECVERR) if family == 4 else \
            (socket.IPPROTO_IPV6, IPV6_UNICAST_HOPS, IPV6_RECVERR)
        s.setsockopt(level, option, ttl)
        s.setsockopt(level, err, 1)
        s.send(b"x")
        end = time.monotonic() + 1
        hop = None
        while hop is None and time.monotonic() < end:
            try:
                ancillary = s.recvmsg(100, 512, socket.MSG_ERRQUEUE)[1]
                data = ancillary[0][2]  # sock_extended_err, then the offender's sockaddr
                kind = data[5]
                hop = socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6,
                                       data[20:24] if family == 4 else data[24:40]), kind
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:
                continue
        hops.append(hop)
        s.close()
    exceeded = 11 if family == 4 else 3
    assert hops[0] is not None and hops[0][1] == exceeded
    if node == "n2":
        assert hops[1] is not None and hops[1][1] in (3, 1)  # the server itself: port unreachable
    else:
        assert hops[1] is not None and hops[1][1] == exceeded, hops


@case("icmp-errors", "An ICMP error from outside reaches the pod", family=FAMILIES)
def errors_of_the_server_reach_the_pod(rig, family):
    """Port unreachable from outside: translated back and sent through the tunnel."""
    pod = steered(rig, "n1")
    s = sockets.udp(pod.ns, to=(SERVER4 if family == 4 else SERVER6, 9))
    s.settimeout(PATIENCE)
    s.send(b"x")
    with raises(ConnectionRefusedError):
        s.recv(10)
    s.close()


@case("icmp-ping", "Echo requests leave with the egress IP and are answered", node=NODES, family=FAMILIES)
def ping(rig, node, family):
    pod = steered(rig, node)
    v6 = family == 6
    s = sockets.inside(pod.ns, lambda: socket.socket(*((socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) if v6
                                                       else (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))))
    capture = sockets.Capture(rig.ns("srv"))
    body = struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 99, 1) + b"egw"
    body = body[:2] + struct.pack("!H", 0 if v6 else sockets.checksum(body)) + body[4:]
    s.sendto(body, (SERVER6 if v6 else SERVER4, 0))
    s.settimeout(PATIENCE)
    while True:
        data = s.recv(2000)[0 if v6 else 20:]
        if data[0] == (129 if v6 else 0):
            break
    capture.stop()
    assert (EIP6 if v6 else EIP4) in capture.received_sources()
    assert pod.ipv4 not in capture.received_sources() and pod.ipv6 not in capture.received_sources()
    s.close()


@case("icmp-invalid", "Segments of connections that nobody knows do not leak")
def invalid_packets_do_not_leak(rig, pod):
    """Segments of connections that nobody knows, also with conntrack's pick-up off: EIP or nothing."""
    for node in rig.nodes:
        net.sysctl(rig.ns(node), net__netfilter__nf_conntrack_tcp_loose=0)
    gateway = net.run("ip", "-n", rig.ns("n1"), "-br", "link", "show", pod.host).split()[2]
    own = net.run("ip", "-n", pod.ns, "-br", "link", "show", "eth0").split()[2]
    capture = sockets.Capture(rig.ns("srv"))
    raw = sockets.packets(pod.ns, "eth0")
    for flags in (0x11, 0x10, 0x18, 0x04, 0x3f, 0x00):
        segment = struct.pack("!HHIIBBHHH", 4000 + flags, 7000, 1, 1, 0x50, flags, 1000, 0, 0)
        pseudo = socket.inet_aton(pod.ipv4) + socket.inet_aton(SERVER4) + struct.pack("!HH", 6, len(segment))
        segment = segment[:16] + struct.pack("!H", sockets.checksum(pseudo + segment)) + segment[18:]
        raw.send(sockets.frame(own, gateway, sockets.ip4(pod.ipv4, SERVER4, 6, segment)))
    raw.close()
    capture.stop()
    assert set(capture.received_sources(7000)) <= {EIP4}
