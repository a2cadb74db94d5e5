"""Sizes: 5,000 policies with 50,000 endpoints, 5,000 egress IPs, 3,000 peers. The times of programming are the plugin's
own, as the host measures them; what a packet costs is judged as a ratio, within one run."""

import itertools
import json
import os
import socket
import statistics
import struct
import time

import sockets
from rig import ALL, EIP4, EIP6, PATIENCE, SERVER4, SERVER6, Rig
from suite import case

POLICIES, PODS, FLIPPED, PEERS = 5000, 50000, 1000, 3000
ROUNDS, MOST_ROUNDS = 40, 200
# ms for all of it at once, and for 1,000 egress IPs that move; others' plugins have the largest of ours.
FLAT = 1.15  # a packet with all of them, against one with a single policy
BARS = {"ebpf": (100, 5), "netlink": (500, 20), "iptables": (2000, 20)}
GATEWAY_BARS = (500, 20)  # 5,000 egress IPs are the same work of the kernel's whatever steers the pods


def bars(name, gateway):
    return GATEWAY_BARS if gateway else BARS.get(name, (2000, 20))


def egress(i, owner="n2", serve=False):
    """owner: a peer of the node that is told of it, or None: it is that node itself."""
    return {"id": i, "kind": "address", "ipv4": f"10.7.{i // 250}.{i % 250 + 1}", "ipv6": f"fd00:7::{i:x}", "mayServe": serve,
            "owner": "peer" if owner else "self", "ownerPeer": owner or ""}


def endpoint(k, both_families):
    if both_families and k % 2:
        return f"fd00:128::{k:x}"
    return f"10.{128 + k // 65536}.{k // 256 % 256}.{k % 256}"


def grown(change, egresses=POLICIES, both_families=False):
    """The change with 5,000 policies more, of ten endpoints each, and as many egress IPs if it has none of them."""
    if len(change["egresses"]) < egresses:
        change["egresses"] += [egress(i) for i in range(100, 100 + egresses)]
    change["classes"] += [
        {"id": 100 + c, "rules": [{"destination": d, "action": "egress", "egressID": 100 + c % egresses}
                                  for d in ("0.0.0.0/0", "::/0")] +
                                 [{"destination": f"198.{c >> 8}.{c & 255}.0/24", "action": "bypass"}]}
        for c in range(POLICIES)]
    change["endpoints"] += [{"address": endpoint(k, both_families), "class": 100 + k % POLICIES} for k in range(PODS)]
    return change


def served(change, peer):
    """The change of a gateway with 5,000 egress IPs more: half of them are its own, for the others it stands by."""
    change["egresses"] += [egress(i, None if i % 2 else peer, serve=True) for i in range(100, 100 + POLICIES)]
    return change


def figure(test, **values):
    print("figure", json.dumps({"test": test, **{k: round(v, 3) for k, v in values.items()}}))


def moved(rig, node, whole, egresses):
    """Milliseconds of a step with these egress IPs; of the full change after it, where the plugin asks for one."""
    answer = rig.delta(node, egresses=egresses)
    assert answer["ok"] and not answer["failures"]
    return rig.apply_file(node, whole()) if answer["needFull"] else answer["tookUs"] / 1000


@case("scale-program", "5,000 policies with 50,000 endpoints are programmed in time, on a gateway 5,000 egress IPs; 1,000 "
      "egress IPs move in time; one that moves or is new takes no longer", alone=True, solo=True,
      node={"client": "n1", "gateway": "n2"})
def five_thousand_policies(node):
    with Rig(nodes=3) as rig:
        name, gateway = rig.driver(node).must("plugin")["name"], node == "n2"
        cold_bar, flip_bar = bars(name, gateway)
        owners = [None, "n3"] if gateway else ["n2", "n3"]

        def whole():
            return served(rig.change(node), "n3") if gateway else grown(rig.change(node))

        def cold_ms():
            rig.driver(node).must("purge")
            rig.apply_file(node, rig.change(node))
            return rig.apply_file(node, whole())
        cold = min(cold_ms() for _turn in range(3))
        flips = [moved(rig, node, whole, [egress(i, owners[turn % 2], gateway) for i in range(100, 100 + FLIPPED)])
                 for turn in range(1, 9)]
        flip = max(min(flips[::2]), min(flips[1::2]))  # the slower of both directions, each at its quietest
        # One of them alone, and one that is new: an operator's failover.
        one = max(min(moved(rig, node, whole, [egress(100 + (POLICIES + turn) * new, owners[turn % 2], gateway)])
                      for turn in range(1, 7)) for new in (False, True))
        again = rig.apply_file(node, whole())
        figure(f"{name}: 5,000 {'egress IPs, gateway' if gateway else 'policies'}", cold_ms=cold, bar_cold_ms=cold_bar,
               flip_ms=flip, bar_flip_ms=flip_bar, one_ms=one, again_ms=again)
        assert cold <= cold_bar
        assert flip <= flip_bar
        assert one <= flip_bar, "a single egress IP takes longer than a thousand may"


class Running:
    """A connection of a pod that has been answered once; nobody reads what follows."""

    COUNT = 200

    def __init__(self, rig, pod, family):
        self.server = sockets.udp(rig.ns("srv"), bind=(SERVER4 if family == 4 else SERVER6, 0))
        self.socket = sockets.udp(pod.ns, to=self.server.getsockname()[:2])
        self.socket.send(b"?")
        self.server.settimeout(PATIENCE)
        self.server.sendto(b"!", self.server.recvfrom(10)[1])
        self.socket.settimeout(PATIENCE)
        assert self.socket.recv(10) == b"!"

    def packet(self):
        return b"\0" * 64


class First:
    """Packets of a pod of which each is the first one of a connection."""

    COUNT = 40

    def __init__(self, rig, pod, family):
        self.server = sockets.udp(rig.ns("srv"), bind=(SERVER4 if family == 4 else SERVER6, 0))
        address, self.to = self.server.getsockname()[:2]

        def make():
            s = socket.socket(sockets.family_of(address), socket.SOCK_RAW, socket.IPPROTO_UDP)
            if family == 6:
                s.setsockopt(socket.IPPROTO_IPV6, 7, 6)  # IPV6_CHECKSUM: the kernel's work, at this place
            s.connect((address, 0))
            return s
        self.socket, self.port = sockets.inside(pod.ns, make), itertools.count(1024)

    def packet(self):
        return struct.pack("!HHHH", next(self.port), self.to, 72, 0) + b"\0" * 64


def cost(stream):
    """Microseconds that the median packet takes: between namespaces the kernel carries it all the way, through both nodes
    to the server's socket, before send() returns."""
    took = []
    for packet in [stream.packet() for _turn in range(stream.COUNT)]:
        begin = time.perf_counter()
        stream.socket.send(packet)
        took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1e6


def prepared(rig, large, kind):
    """Streams of what a client and a gateway have to carry, in both families."""
    if large:
        rig.crowd(PEERS)
    pods = [rig.pod(n) for n in ("n1", "n1", "n2", "n2")]
    rig.egress(7, EIP4, EIP6, owner="n2")
    for pod in pods[::2]:
        rig.steer(pod, ALL)
    rig.apply()
    if large:
        rig.apply_file("n1", grown(rig.change("n1"), both_families=True))
        rig.apply_file("n2", grown(served(rig.change("n2"), "n1"), both_families=True))
    whose = ("client's pod", "client's bystander", "owner's pod", "owner's bystander")
    return {f"{who}, IPv{family}": kind(rig, pod, family) for who, pod in zip(whose, pods) for family in (4, 6)}


def judge_flat(kind, what):
    """The quietest of interleaved rounds on one processor; where a neighbour on the machine disturbs, more of them. A rule
    per policy, endpoint, egress IP or peer costs several times as much in every one."""
    with Rig(nodes=2) as one, Rig(nodes=2) as many:
        small, large = prepared(one, False, kind), prepared(many, True, kind)
        yield
        quiet = {who: [float("inf")] * 2 for who in small}
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(processors)})
        for turn in range(MOST_ROUNDS):
            for who, best in quiet.items():
                best[:] = min(best[0], cost(small[who])), min(best[1], cost(large[who]))
            ratios = {who: round(after / before, 3) for who, (before, after) in quiet.items()}
            if turn >= ROUNDS and max(ratios.values()) <= FLAT:
                break
        os.sched_setaffinity(0, processors)
        for stream in (*small.values(), *large.values()):
            stream.socket.close()
            stream.server.close()
    for who, (before, after) in quiet.items():
        figure(f"{what}, {who}", at_one_us=before, at_many_us=after, ratio=ratios[who], bar=FLAT)
    assert {who: ratio for who, ratio in ratios.items() if ratio > FLAT} == {}, ratios


@case("scale-packet", "A packet of a running connection costs with 5,000 policies and egress IPs and 3,000 peers what it costs "
      "with one, on the client and on the gateway; so does one of a pod without policy", alone=True, solo=True)
def the_cost_is_flat():
    yield from judge_flat(Running, "cost of a packet")


@case("scale-first", "The first packet of a connection, too, costs with all of them what it costs with one", alone=True,
      solo=True)
def the_first_packet_is_flat():
    yield from judge_flat(First, "cost of a first packet")
