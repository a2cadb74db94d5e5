"""Fail closed: parts of the way are taken away one at a time under traffic, and nothing leaves with another source."""

import time

import sockets
from kernel import snapshot
from removals import removals
from rig import ALL, EIP4, EIP6, SECOND4, SECOND6, SERVER4, SERVER6
from suite import FAMILIES, NODES, case

ROLES = {"client": ("n1", "n1"), "gateway": ("n2", "n1"), "owner": ("n2", "n2")}  # what is hurt, where the pod is


class Sources:
    """The sources that the server sees on the probe's port from here to the end of the block."""

    def __init__(self, rig):
        self.rig, self.seen = rig, {}

    def __enter__(self):
        self.capture = sockets.Capture(self.rig.ns("srv"))
        return self

    def __exit__(self, *_):
        self.capture.stop()
        self.seen = self.capture.received_sources(7000)


@case("closed-removal", "Device, link state, ip rule, route, FDB entry, neighbour, removed one at a time under traffic: no "
      "packet has another source, and the next full apply repairs and counts it", long=True, role=ROLES)
def removed_one_at_a_time(rig, role):
    hurt, home = role
    pod, before = rig.pod(home), snapshot(rig, hurt)
    rig.steer(pod, ALL)
    rig.apply()
    running = [sockets.udp(pod.ns, to=(server, 7000)) for server in (SERVER4, SERVER6)]
    what_came = removals(rig, hurt, before, snapshot(rig, hurt))
    assert len(what_came) > 2
    for what, command in what_came.items():
        with Sources(rig) as sources:
            for s in running:
                assert sockets.ask(s, b"\0" * 16) is not None, f"before: {what}"
            rig.sh(hurt, command)
            for turn in range(20):
                for s in running:
                    try:
                        s.send(b"\0" * 16)
                    except OSError:
                        pass  # an ICMP error: also a way to be dropped
                time.sleep(0.002)
                if turn == 10:  # new connections meanwhile
                    for family in (4, 6):
                        pod.source(family, 0.05)
        assert set(sources.seen) <= {EIP4, EIP6}, what
        answer = rig.apply(hurt)[hurt]
        assert sum(answer["repaired"].values()) >= 1, what
        assert [pod.source(family) for family in (4, 6)] == [EIP4, EIP6], what
    for s in running:
        s.close()


@case("closed-drop", "Action drop drops, on every node", node=NODES, family=FAMILIES)
def drop_drops(rig, node, family):
    pod = rig.pod(node)
    rig.steer(pod, [("0.0.0.0/0", "drop"), ("::/0", "drop")])
    rig.apply()
    with Sources(rig) as sources:
        assert pod.source(family, 0.2) is None
    assert sources.seen == {}


@case("closed-owner-unknown", "An egress that loses its owner drops, also what was running", node=NODES)
def an_egress_that_loses_its_owner(rig, node):
    pod = rig.pod(node)
    rig.steer(pod, ALL)
    rig.apply()
    running = [sockets.udp(pod.ns, to=(server, 7000)) for server in (SERVER4, SERVER6)]
    for s in running:
        assert sockets.ask(s, b"\0" * 16) is not None
    rig.egress(7, EIP4, EIP6, owner=None, answer=False)
    rig.apply()
    with Sources(rig) as sources:
        answers = [sockets.ask(s, b"\0" * 16, 0.2) for s in running] + [pod.source(4, 0.2), pod.source(6, 0.2)]
    assert (answers, sources.seen) == ([None] * 4, {})
    for s in running:
        s.close()


@case("closed-egress-gone", "What refers to an egress that is not there is dropped")
def an_egress_that_is_not_there(rig):
    pod = rig.pod("n1")
    rig.steer(pod, [("0.0.0.0/0", 4711), ("::/0", 4711)])
    rig.driver("n1").ask("apply", change=rig.change("n1"))
    rig.apply("n2", "n3")
    with Sources(rig) as sources:
        assert [pod.source(family, 0.2) for family in (4, 6)] == [None, None]
    assert sources.seen == {}


LISTS = {"by-prefix": ([("10.6.0.0/16", 7)], [("10.6.0.0/16", 7), ("198.51.100.0/24", 8)]),
         "by-default": ([("10.6.0.0/16", 7)], [("198.51.100.0/24", "bypass"), ("0.0.0.0/0", 7)])}


@case("closed-lists", "While a policy's list of destinations changes, by steps or as a whole, no packet has another source",
      node={"client": "n1", "owner": "n2"}, lists=LISTS)
def lists_of_destinations_change(rig, node, lists):
    """Both lists give what the flow goes to one egress. A datapath may keep them in different places, and its pods get from one
    to the other."""
    rig.egress(8, SECOND4, SECOND6, owner="n3")
    pod = rig.pod(node)
    rig.steer(pod, lists[0], class_id=1)
    rig.apply()
    with Sources(rig) as sources:
        traffic = rig.traffic(pod)
        for turn in range(1, 13):
            rig.steer(pod, lists[turn % 2], class_id=1)
            stepped = turn <= 6 and not rig.delta(node, classes=[{"id": 1, "rules": rig.classes[1]}])["needFull"]
            if not stepped:
                rig.apply(node)
        rig.report(traffic)
    assert set(sources.seen) == {EIP4}, sources.seen


def tagged(data, tags):
    return data[:12] + b"\x81\x00\x00\x00" * tags + data[12:]


FRAMES = {"priority-tag": lambda ns, data: send(ns, tagged(data, 1)), "priority-tags": lambda ns, data: send(ns, tagged(data, 2)),
          "packet-ring": lambda ns, data: sockets.send_by_ring(ns, "eth0", data)}


def send(ns, data):
    with sockets.packets(ns, "eth0") as s:
        s.send(data)


@case("closed-frames", "Frames that a pod makes by itself, with priority tags (802.1Q, id 0) or from a packet ring, are judged as "
      "all others", node=NODES, frame=FRAMES)
def frames_of_a_pods_own(rig, node, frame):
    steered, shut = rig.pod(node), rig.pod(node)
    rig.steer(steered, ALL)
    rig.steer(shut, [("0.0.0.0/0", "drop"), ("::/0", "drop")])
    rig.apply()
    with Sources(rig) as sources:
        for pod in (steered, shut):
            macs = sockets.mac_of(pod.ns, "eth0"), sockets.mac_of(rig.ns(node), pod.host)
            four = sockets.ip4(pod.ipv4, SERVER4, 17, sockets.udp_segment(40000, 7000, b"\0" * 16))
            six = sockets.ip6(pod.ipv6, SERVER6, 17, sockets.udp6_segment(pod.ipv6, SERVER6, 40000, 7000, b"\0" * 16))
            for packet in (four, six):
                frame(pod.ns, sockets.frame(*macs, packet))
        assert steered.source(4) == EIP4  # later than those
    assert set(sources.seen) == {EIP4, EIP6}, sources.seen
    assert sources.seen[EIP6] == 1
