"""SCTP through the gateway. Kernels without SCTP sockets forward and translate it all the same: the packets are
crafted. What needs the kernel's own SCTP or ipvs is skipped, and counted, where it is missing."""

import os
import shutil
import socket
import struct
import time

import sockets
from rig import ALL, EIP4, EIP6, PATIENCE, SERVER4, SERVER6, net
from suite import FAMILIES, NODES, case, skip

SCTP = socket.IPPROTO_SCTP
INIT, INIT_ACK, COOKIE_ECHO, COOKIE_ACK, DATA = 1, 2, 10, 11, 0


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def sctp(source, destination, tag, chunk, body, flags=0):
    """RFC 9260: common header with its checksum, one chunk."""
    body += b"\0" * (-len(body) % 4)
    packet = struct.pack("!HHII", source, destination, tag, 0) + struct.pack("!BBH", chunk, flags, 4 + len(body)) + body
    return packet[:8] + struct.pack("<I", crc32c(packet)) + packet[12:]


def init(tag):
    return struct.pack("!IIHHI", tag, 65535, 1, 1, 1)


class Wire:
    """One end of the association: a packet socket that sends and sees SCTP of one address."""

    def __init__(self, ns, own, gateway_mac):
        self.own, self.v6 = own, ":" in own
        self.mac = net.run("ip", "-n", ns, "-br", "link", "show", "eth0").split()[2]
        self.gateway_mac, self.socket = gateway_mac, sockets.packets(ns, "eth0")

    def send(self, to, payload):
        packet = (sockets.ip6 if self.v6 else sockets.ip4)(self.own, to, SCTP, payload)
        self.socket.send(sockets.frame(self.mac, self.gateway_mac, packet))

    def receive(self, timeout=1.0):
        """(source, destination, SCTP packet) of the next one that comes in, None in silence."""
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data, address = self.socket.recvfrom(65535)
            except TimeoutError:
                return None
            kind, offset = (b"\x86\xdd", 54) if self.v6 else (b"\x08\x00", 34)
            if address[2] == 4 or data[12:14] != kind or data[20 if self.v6 else 23] != SCTP:
                continue
            ends = data[22:54] if self.v6 else data[26:34]
            half, family = len(ends) // 2, socket.AF_INET6 if self.v6 else socket.AF_INET
            return socket.inet_ntop(family, ends[:half]), socket.inet_ntop(family, ends[half:]), data[offset:]
        return None


def link_mac(ns, device):
    return net.run("ip", "-n", ns, "-br", "link", "show", device).split()[2].split("@")[0]


@case("sctp-association", "An SCTP association passes both ways with good checksums",
      node=NODES, family=FAMILIES)
def an_association_through_the_gateway(rig, node, family):
    """The four packets of the handshake and one of data each way: the server sees the EIP and one port, the pod its
    own address; checksums stay good."""
    pod = rig.pod(node)
    rig.steer(pod, ALL)
    rig.apply()
    own, server, eip = (pod.ipv4, SERVER4, EIP4) if family == 4 else (pod.ipv6, SERVER6, EIP6)
    inside = Wire(pod.ns, own, link_mac(rig.ns(node), pod.host))
    outside = Wire(rig.ns("srv"), server, link_mac(rig.ns("n2"), "eth0"))
    port = None
    for sender, chunk, tag, body in (("pod", INIT, 0, init(0x1111)), ("server", INIT_ACK, 0x1111, init(0x2222)),
                                     ("pod", COOKIE_ECHO, 0x2222, b"cookie!!"), ("server", COOKIE_ACK, 0x1111, b""),
                                     ("pod", DATA, 0x2222, struct.pack("!IHHI", 1, 0, 0, 0) + b"hello..."),
                                     ("server", DATA, 0x1111, struct.pack("!IHHI", 1, 0, 0, 0) + b"back....")):
        flags = 3 if chunk == DATA else 0
        if sender == "pod":
            inside.send(server, sctp(5000, 5001, tag, chunk, body, flags))
            got = outside.receive()
            assert got is not None, f"chunk {chunk} did not arrive"
            assert got[:2] == (eip, server)
            port = port or struct.unpack("!H", got[2][:2])[0]
            assert struct.unpack("!H", got[2][:2])[0] == port
        else:
            outside.send(eip, sctp(5001, port, tag, chunk, body, flags))
            got = inside.receive()
            assert got is not None, f"the answer {chunk} did not arrive"
            assert got[:2] == (server, own)
            assert struct.unpack("!HH", got[2][:4]) == (5001, 5000)
        packet = got[2]
        assert packet[12] == chunk
        length = 12 + (struct.unpack("!H", packet[14:16])[0] + 3) // 4 * 4
        assert struct.unpack("<I", packet[8:12])[0] == crc32c(packet[:8] + b"\0" * 4 + packet[12:length])
    for wire in (inside, outside):
        wire.socket.close()


@case("sctp-sockets", "The kernel's own SCTP sockets pass")
def sctp_sockets(rig, pod):
    """The kernel's own SCTP."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP).close()
    except OSError:
        skip("not on this kernel: SCTP sockets")
    listener = sockets.inside(rig.ns("srv"), lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP))
    listener.bind((SERVER4, 5001))
    listener.listen()
    listener.settimeout(2)
    client = sockets.inside(pod.ns, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP))
    client.settimeout(2)
    client.connect((SERVER4, 5001))
    peer, address = listener.accept()
    client.send(b"hello")
    assert peer.recv(10) == b"hello" and address[0] == EIP4
    for s in (client, peer, listener):
        s.close()


@case("sctp-ipvs", "A service of kube-proxy in ipvs mode is not steered")
def ipvs_services_are_not_steered(rig, pod):
    """kube-proxy in ipvs mode: the service's address is the host's own, the kernel forwards to a pod."""
    if not os.path.exists("/proc/net/ip_vs"):
        skip("not on this kernel: ipvs")
    if shutil.which("ipvsadm") is None:
        skip("not on this kernel: ipvs (ipvsadm is not installed)")
    backend = rig.pod("n1")
    net.batch(rig.ns("n1"), "addr add 203.0.113.60/32 dev lo")
    net.enter(rig.ns("n1"), "sh", "-ec", "sysctl -qw net.ipv4.vs.conntrack=1; ipvsadm -A -u 203.0.113.60:80; "
              f"ipvsadm -a -u 203.0.113.60:80 -r {backend.ipv4}:8080 -m")
    server = sockets.udp(backend.ns, bind=(backend.ipv4, 8080))
    client = sockets.udp(pod.ns, to=("203.0.113.60", 80))
    client.send(b"hello")
    server.settimeout(PATIENCE)
    data, peer = server.recvfrom(100)
    assert data == b"hello" and peer[0] == pod.ipv4
    server.sendto(b"back", peer)
    client.settimeout(PATIENCE)
    assert client.recv(100) == b"back"
    client.close()
    server.close()
