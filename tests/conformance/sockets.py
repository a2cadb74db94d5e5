"""Sockets of the test process that live in another network namespace, raw frames, and a capture of what
reaches an interface."""

import ctypes
import fcntl
import mmap
import os
import select
import socket
import struct
import threading
import time

NETNS = "/run/netns"
_libc = ctypes.CDLL(None, use_errno=True)


def inside(ns, action):
    """Runs action() in a thread that has entered the namespace; sockets made there stay there."""
    result = {}

    def work():
        fd = os.open(f"{NETNS}/{ns}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(fd, 0x40000000) != 0:  # CLONE_NEWNET
                raise OSError(ctypes.get_errno(), "setns")
            result["value"] = action()
        except BaseException as error:  # pylint: disable=broad-except
            result["error"] = error
        finally:
            os.close(fd)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if "error" in result:
        raise result["error"]
    return result["value"]


def write_sysctls(ns, **values):
    """As lab.net.sysctl(), without a process."""
    def write():
        for key, value in values.items():
            with open("/proc/sys/" + key.replace("__", "/"), "w", encoding="ascii") as f:
                f.write(str(value))
    inside(ns, write)


def own_mounts(ns):
    """A mount namespace for a node with this network namespace, with /sys, /sys/fs/bpf and /run of its own. It lasts as
    long as the descriptor that is returned, and what runs in it."""
    def make():
        if _libc.unshare(0x00020000) != 0:  # CLONE_NEWNS, of this thread alone
            raise OSError(ctypes.get_errno(), "unshare")
        for kind, target, flags, data in ((None, b"/", 0x44000, None),  # MS_REC | MS_PRIVATE
                                          (b"sysfs", b"/sys", 0, None), (b"bpf", b"/sys/fs/bpf", 0, None),
                                          (b"tmpfs", b"/run", 0, b"mode=0755")):
            if _libc.mount(kind, target, kind, ctypes.c_ulong(flags), data) != 0:
                raise OSError(ctypes.get_errno(), f"mount {target.decode()}")
        return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    return inside(ns, make)


def mac_of(ns, device):
    """The device's address, as `ip` writes it."""
    with inside(ns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as s:
        answer = fcntl.ioctl(s, 0x8927, struct.pack("256s", device.encode()))  # SIOCGIFHWADDR
    return answer[18:24].hex(":")


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def udp(ns, bind=None, mark=None, to=None):
    """A UDP socket in the namespace; bind and to: (address, port)."""
    def make():
        s = socket.socket(family_of((bind or to)[0]), socket.SOCK_DGRAM)
        if mark is not None:
            s.setsockopt(socket.SOL_SOCKET, 36, mark)  # SO_MARK
        if bind:
            s.bind(bind)
        if to:
            s.connect(to)
        return s
    return inside(ns, make)


def listen(ns, address, port):
    def make():
        s = socket.socket(family_of(address), socket.SOCK_STREAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, port))
        s.listen(16)
        s.settimeout(2)
        return s
    return inside(ns, make)


def connect(ns, address, port, timeout=2.0):
    """A connected TCP socket of the namespace."""
    s = inside(ns, lambda: socket.socket(family_of(address), socket.SOCK_STREAM))
    s.settimeout(timeout)
    s.connect((address, port))
    return s


def ask(s, payload=b"?", timeout=0.5):
    """Sends and returns the answer, None in silence or on an ICMP error."""
    s.settimeout(timeout)
    try:
        s.send(payload)
        return s.recv(65535)
    except OSError:
        return None


def packets(ns, device, protocol=0x0003):
    """A packet socket on a device of the namespace."""
    def make():
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
        s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        s.bind((device, protocol))
        return s
    return inside(ns, make)


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ip4(source, destination, protocol, payload, ttl=64, df=True, ident=1):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, 0x4000 if df else 0, ttl, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(destination))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ip6(source, destination, protocol, payload, hops=64):
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), protocol, hops,
                       socket.inet_pton(socket.AF_INET6, source),
                       socket.inet_pton(socket.AF_INET6, destination)) + payload


def udp_segment(source_port, destination_port, payload):
    """Without a checksum: IPv4 only."""
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def udp6_segment(source, destination, source_port, destination_port, payload):
    segment = udp_segment(source_port, destination_port, payload)
    pseudo = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination) + \
        struct.pack("!II", len(segment), 17)
    return segment[:6] + struct.pack("!H", checksum(pseudo + segment) or 0xffff) + segment[8:]


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def frame(source_mac, destination_mac, packet):
    kind = 0x86dd if packet[0] >> 4 == 6 else 0x0800
    return mac(destination_mac) + mac(source_mac) + struct.pack("!H", kind) + packet


def send_by_ring(ns, device, data):
    """Sends a frame by a PACKET_TX_RING (TPACKET_V1): all but its Ethernet header lies in pages that are not the packet's
    linear part."""
    with packets(ns, device, 0) as s:
        s.setsockopt(263, 13, struct.pack("IIII", mmap.PAGESIZE, 1, 2048, mmap.PAGESIZE // 2048))  # SOL_PACKET
        with mmap.mmap(s.fileno(), mmap.PAGESIZE) as ring:
            ring[32:32 + len(data)] = data  # behind struct tpacket_hdr
            ring[8:12] = struct.pack("I", len(data))
            ring[0:8] = struct.pack("L", 1)  # TP_STATUS_SEND_REQUEST
            s.send(b"")


def vxlan(vni, group, inner, flag=True):
    """The VXLAN-GBP header and the inner frame; flag: the G bit, which makes the group count."""
    return struct.pack("!BBHI", 0x88 if flag else 0x08, 0, group, vni << 8) + inner


class Capture:
    """Everything that reaches a device of a namespace, from construction to stop()."""

    def __init__(self, ns, device="eth0"):
        self.socket = packets(ns, device)
        self.frames = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            if not select.select([self.socket], [], [], 0.02)[0]:
                continue
            data, address = self.socket.recvfrom(65535)
            self.frames.append((time.monotonic(), data, address[2]))  # address[2]: packet type, 4 = sent

    def stop(self):
        time.sleep(0.05)  # what is on its way: there is no event for "nothing more comes"
        self._stop.set()
        self._thread.join()
        self.socket.close()
        return self.frames

    @staticmethod
    def source(data):
        """The IP source of a frame as text, None for others."""
        kind = struct.unpack("!H", data[12:14])[0]
        if kind == 0x0800:
            return socket.inet_ntoa(data[26:30])
        if kind == 0x86dd:
            return socket.inet_ntop(socket.AF_INET6, data[22:38])
        return None

    def received_sources(self, port=None):
        """Sources of IP packets that came in (TCP and UDP to `port` when given) -> count."""
        out = {}
        for _, data, kind in self.frames:
            if kind == 4:
                continue
            source = self.source(data)
            if source is None:
                continue
            if port is not None:
                offset = 14 + (20 if data[12:14] == b"\x08\x00" else 40)
                protocol = data[23] if offset == 34 else data[20]
                if protocol not in (6, 17) or struct.unpack("!H", data[offset + 2:offset + 4])[0] != port:
                    continue
            out[source] = out.get(source, 0) + 1
        return out
