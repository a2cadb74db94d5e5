"""Running connections follow their policy, and what the actions of a class mean."""

import json
import os
import socket
import struct
import time

import sockets
from kernel import snapshot
from removals import firewall_removals
from rig import ALL, EIP4, EIP6, PATIENCE, SECOND4, SECOND6, SERVER4, SERVER6, net
from suite import FAMILIES, NODES, case

# s: a running UDP flow has the new source, or is dropped. EGW_KIT_SLOWER: how much slower plugins built for a sanitizer are.
BOUND = 0.05 * float(os.environ.get("EGW_KIT_SLOWER", "1"))


MASQUERADE = ("iptables-nft -w -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE; "
              "ip6tables-nft -w -t nat -A POSTROUTING -s fd00:244::/32 ! -d fd00:244::/32 -j MASQUERADE")


class Flow:
    """One UDP connection of a pod that asks every 2 ms, and the sources that the server sees over time."""

    def __init__(self, rig, pod, family=4):
        self.capture = sockets.Capture(rig.ns("srv"))
        self.socket = sockets.udp(pod.ns, to=(SERVER4 if family == 4 else SERVER6, 7000))
        self.family = family

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.socket.send(b"\0" * 16)
            except OSError:
                pass  # an ICMP error of a moment without a way
            time.sleep(0.002)

    def seen(self):
        """(time, source) of the flow's packets at the server."""
        for at, data, kind in self.capture.frames:
            if kind != 4 and data[12:14] == (b"\x08\x00" if self.family == 4 else b"\x86\xdd"):
                transport = 34 if self.family == 4 else 54
                if data[transport + 2:transport + 4] == (7000).to_bytes(2, "big"):
                    yield at, self.capture.source(data)

    def sources(self, since=0.0, until=float("inf")):
        return {source for at, source in self.seen() if since <= at < until}

    def last_other(self, new):
        """When the server last saw another source than `new`."""
        return max((at for at, source in self.seen() if source not in new), default=0.0)

    def stop(self):
        self.capture.stop()
        self.socket.close()


def follow(rig, pod, change, old, new, family=4, meanwhile=frozenset()):
    """The flow has `old` before the change and only `new` from BOUND after it; nothing else ever, but for
    `meanwhile` in between."""
    flow = Flow(rig, pod, family)
    flow.run(0.1)
    change()
    changed = time.monotonic()
    flow.run(0.3)
    flow.stop()
    assert flow.sources(until=changed - 0.1) <= {old} | new
    assert old in flow.sources(until=changed)
    assert flow.sources(since=changed + BOUND) == new
    assert flow.sources() <= {old} | new | meanwhile
    return flow.last_other(new) - changed


@case("flow-follows", "A running flow whose policy changes has the new source, or is dropped, within 50 ms",
      node=NODES, second=["n2", "n3"], family=FAMILIES, alone=True)
def a_flow_follows_its_policy(rig, node, second, family):
    rig.egress(8, SECOND4, SECOND6, owner=second)
    pod = rig.pod(node)
    rig.steer(pod, ALL, class_id=1)
    rig.apply()

    def change():
        rig.steer(pod, [("0.0.0.0/0", 8), ("::/0", 8)], class_id=2)
        rig.apply(node)
    yield
    follow(rig, pod, change, EIP4 if family == 4 else EIP6, {SECOND4 if family == 4 else SECOND6}, family)


@case("flow-before-policy", "A flow that ran before its policy follows it, and follows its end",
      node={"client": "n1", "owner": "n2"}, masquerade=[True, False], alone=True)
def a_flow_that_ran_before_its_policy(rig, node, masquerade):
    pod = rig.pod(node)
    rig.apply()
    old = pod.ipv4
    if masquerade:
        old = rig.address(node)
        rig.sh(node, MASQUERADE)

    def add():
        rig.steer(pod, ALL)
        rig.apply(node)
    yield
    follow(rig, pod, add, old, {EIP4})

    def remove():
        rig.endpoints.clear()
        rig.apply(node)
    # Unsteered before its old connection is forgotten: for a moment it has its own address.
    took = follow(rig, pod, remove, EIP4, {old}, meanwhile={pod.ipv4})
    print("figure", json.dumps({"test": "last packet with another source", "ms": round(took * 1000, 1)}))


@case("flow-other-source", "A connection that has another source than its policy's is dropped for as long as it is not forgotten",
      node={"owner": "n2", "standby": "n3"}, bound={"node": "node", "former-eip": "eip"}, family=FAMILIES)
def a_connection_with_another_source(rig, node, bound, family):
    """As if it had begun before the policy: nobody looks for it, since no change has made it wrong."""
    rig.egress(8, SECOND4, SECOND6, owner="n2")
    pod = rig.pod(node)
    rig.steer(pod, ALL)
    rig.apply()
    own, eip, second, server = ((pod.ipv4, EIP4, SECOND4, SERVER4) if family == 4 else
                                (pod.ipv6, EIP6, SECOND6, SERVER6))
    assert pod.source(family) == eip
    capture = sockets.Capture(rig.ns("srv"))
    for port, source in ((7201, second if bound == "eip" else rig.address(node, family)), (7202, eip)):
        rig.sh(node, f"conntrack -I -p udp -s {own} -d {server} --sport {port} --dport 7000 "
                     f"--src-nat {source} -t 60")
        client = sockets.udp(pod.ns, bind=(own, port), to=(server, 7000))
        for _ in range(10):
            client.send(b"\0" * 16)
        client.close()
    capture.stop()
    assert capture.received_sources(7000) == {eip: 10}


@case("flow-unjudged", "A flow that began while rules of the datapath were away has its policy's source when they are back",
      node={"client": "n1", "owner": "n2"})
def a_flow_that_began_unjudged(rig, node):
    """Somebody has emptied every chain; what the flow is bound to then is of no concern."""
    pod, before = rig.pod(node), snapshot(rig, node)
    rig.steer(pod, ALL)
    rig.apply()
    came = firewall_removals(before, snapshot(rig, node))
    rig.sh(node, "\n".join(c for what, c in came.items() if what.startswith(("rules of chain", "iptables", "ip6tables"))))
    rig.sh(node, MASQUERADE)
    flow = Flow(rig, pod)
    flow.run(0.1)
    rig.apply(node)
    end = time.monotonic() + 2
    while EIP4 not in flow.sources() and time.monotonic() < end:
        flow.run(0.05)
    judged = time.monotonic()
    flow.run(0.1)
    flow.stop()
    assert flow.sources(since=judged) == {EIP4}


@case("flow-late-answer", "An answer that comes after its connection was forgotten does not keep the pod's own address",
      ends={"policy-comes": False, "policy-goes": True}, family=FAMILIES, alone=True)
def an_answer_that_comes_late(rig, ends, family):
    """For the kernel it is the first packet of a connection from outside, and what the pod sends then an answer in it.
    The policy goes on a node that masquerades; it comes on the owner, which binds the connection anew."""
    node = "n1" if ends else "n2"
    pod = rig.pod(node)
    own = pod.ipv4 if family == 4 else pod.ipv6
    new = rig.address(node, family) if ends else EIP4 if family == 4 else EIP6
    if ends:
        rig.steer(pod, ALL)
    rig.apply()
    yield
    # Outside, who answers a packet of before: to the pod's own address.
    server = sockets.udp(rig.ns("srv"), bind=(SERVER4 if family == 4 else SERVER6, 7100))
    server.settimeout(PATIENCE)
    client = sockets.udp(pod.ns, to=server.getsockname()[:2])
    client.send(b"x")
    assert server.recvfrom(10)[1][0] == ((EIP4 if family == 4 else EIP6) if ends else own)
    if ends:
        rig.sh(node, MASQUERADE)
        rig.endpoints.clear()
    else:
        rig.steer(pod, ALL)
    rig.apply(node)
    end = time.monotonic() + 2
    while f"sport={client.getsockname()[1]} dport=7100" in rig.sh(node, f"conntrack -L -f ipv{family} -s {own}"):
        assert time.monotonic() < end, "the connection is not forgotten"
    server.sendto(b"late", (own, client.getsockname()[1]))
    time.sleep(0.5)
    client.send(b"y")
    data, peer = server.recvfrom(10)
    client.close()
    server.close()
    assert (data, peer[0]) == (b"y", new)


@case("flow-follows-steps", "The same when the policy changes by steps", alone=True)
def a_flow_follows_the_steps(rig, pod):
    """The same by steps instead of full applies; only the class changes."""
    rig.egress(8, SECOND4, SECOND6, owner="n3")
    rig.apply()
    rules = [{"destination": d, "action": "egress", "egressID": 8} for d in ("0.0.0.0/0", "::/0")]
    yield
    follow(rig, pod, lambda: rig.delta("n1", classes=[{"id": 1, "rules": rules}]), EIP4, {SECOND4})
    follow(rig, pod, lambda: rig.delta("n1", deleted={"endpoints": [pod.ipv4, pod.ipv6]}), SECOND4, {pod.ipv4})


@case("flow-move", "A running flow keeps its source when its egress IP moves",
      place={"client": "n1", "former-owner": "n2", "new-owner": "n3"}, family=FAMILIES, alone=True)
def a_flow_goes_on_after_a_move(rig, place, family):
    """The EIP moves: the pod's flow keeps the source; for pods on the two gateways its way changes wholly."""
    pod = rig.pod(place)
    rig.steer(pod, ALL)
    rig.apply()
    eip = EIP4 if family == 4 else EIP6

    def move():
        rig.egress(7, EIP4, EIP6, owner="n3")
        rig.apply()
    yield
    flow = Flow(rig, pod, family)
    flow.run(0.05)
    move()
    moved = time.monotonic()
    flow.run(BOUND + 0.15)
    flow.stop()
    assert flow.sources() == {eip}
    assert flow.sources(since=moved + BOUND) == {eip}
    assert pod.source(family) == eip


@case("flow-planned-move", "A planned move, there and back, loses and resets nothing",
      place={"client": "n1", "former-owner": "n2", "new-owner": "n3"}, family=FAMILIES, alone=True)
def nothing_is_lost_in_a_planned_move(rig, place, family):
    """First everybody turns to the new owner, then the answers do; there and back (nothing that the pod
    sends is lost, its answers pause for 10 ms at most)."""
    pod, eip = rig.pod(place), EIP4 if family == 4 else EIP6
    rig.steer(pod, ALL)
    rig.apply()
    yield
    server = rig.serve(port=7001)
    streams, datagrams = rig.traffic(pod, family, streams=5), rig.traffic(pod, family, port=7001)
    time.sleep(0.2)
    for owner in ("n3", "n2", "n3"):
        rig.egress(7, EIP4, EIP6, owner=owner, answer=False)
        rig.apply()
        time.sleep(0.15)
        rig.egress(7, EIP4, EIP6, owner=owner)
        time.sleep(0.15)
    sent, tcp, seen = rig.report(datagrams), rig.report(streams), rig.report(server)["sources"]
    assert tcp["tcp_resets"] == 0 and [s["source"] for s in tcp["sources"]] == [eip], tcp
    assert {source: s["packets"] for source, s in seen.items()} == {eip: sent["sent"]}, (seen, sent)
    if place == "n1":
        assert sent["lost"] == 0, sent  # both gateways know its connections
    else:
        # Between the old binding's end and the new one's start an answer may find neither (docs/adr/0011).
        assert sent["lost"] <= 10, sent


@case("flow-to-drop", "A running flow whose policy now says drop ends within 50 ms", node=NODES, family=FAMILIES, alone=True)
def a_flow_that_is_to_be_dropped(rig, node, family):
    pod = rig.pod(node)
    rig.steer(pod, ALL, class_id=1)
    rig.apply()

    def change():
        rig.steer(pod, [("0.0.0.0/0", "drop"), ("::/0", "drop")], class_id=2)
        rig.apply(node)
    yield
    follow(rig, pod, change, EIP4 if family == 4 else EIP6, set(), family)


@case("flow-id-gone", "When a gateway no longer has the egress, its running flows end there", family=FAMILIES, alone=True)
def a_flow_whose_id_is_gone(rig, pod, family):
    """The client node still sends it."""
    def change():
        rig.egresses.clear()
        rig.apply("n2", "n3")
    yield
    follow(rig, pod, change, EIP4 if family == 4 else EIP6, set(), family)


@case("flow-undisturbed", "Changes of other policies, egresses and peers disturb no established flow", node=NODES, alone=True)
def changes_of_others(rig, node):
    pod = rig.pod(node)
    rig.steer(pod, ALL)
    rig.apply()
    yield
    traffic = [rig.traffic(pod, family, streams=3) for family in (4, 6)]
    time.sleep(0.1)
    for turn in range(3):
        other = rig.pod(node)
        rig.egress(20 + turn, f"10.6.1.{70 + turn}", f"fd00::{70 + turn}", owner=rig.nodes[1 + turn % 2])
        rig.steer(other, [("0.0.0.0/0", 20 + turn), ("10.9.0.0/16", "drop"), ("::/0", 20 + turn)])
        rig.apply()
        rig.delta(node, peers=[{"name": "n9", "underlay": "10.6.0.99", "tunnelIPv4": "172.31.0.99",
                                "mac": "02:ee:00:00:00:99"}])
        rig.delta(node, deleted={"peers": ["n9"], "endpoints": [other.ipv4]})
    reports = [rig.report(t) for t in traffic]
    assert [(r["lost"], r["tcp_resets"]) for r in reports] == [(0, 0)] * 2
    assert [[s["source"] for s in r["sources"]] for r in reports] == [[EIP4], [EIP6]]


def connection(pod, service):
    """A TCP connection from port 40000 of the pod: its two ends."""
    def make():
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        s.bind((pod.ipv4, 40000))
        s.settimeout(2)
        s.connect((SERVER4, 8080))
        return s
    outside = sockets.inside(pod.ns, make)
    inside, peer = service.accept()
    assert peer == (EIP4, 40000)
    return outside, inside


@case("flow-former-owner", "What a former owner has forgotten is not in the way when the egress IP comes back")
def there_and_back_with_a_reused_port(rig):
    """Another pod takes the same source port while the EIP is elsewhere."""
    first, second = rig.pod("n1"), rig.pod("n3")
    for pod in (first, second):
        rig.steer(pod, ALL)
    rig.apply()

    def move(owner):
        rig.egress(7, EIP4, EIP6, owner=owner, answer=False)
        rig.apply()
        rig.egress(7, EIP4, EIP6, owner=owner)
    service = sockets.listen(rig.ns("srv"), SERVER4, 8080)
    one = connection(first, service)
    move("n3")
    for s in one:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT at the server
        s.close()
    rig.driver("n2").must("forget", eip=EIP4)
    outside, inside = connection(second, service)
    move("n2")
    outside.send(b"still here")
    inside.settimeout(PATIENCE)
    assert inside.recv(100) == b"still here"
    for s in (service, outside, inside):
        s.close()


def ask_from(pod, own, target):
    """A UDP socket of the pod that the target has heard once: (socket, the address that the target saw)."""
    server, port = target
    s = sockets.udp(pod.ns, bind=(own, 0), to=(server.getsockname()[0], port))
    s.send(b"?")
    server.settimeout(PATIENCE)
    return s, server.recvfrom(10)[1]


@case("flow-forget", "forget ends the connections of that egress IP alone", family=FAMILIES)
def forget(rig, family):
    """What the server sends on a forgotten connection no longer reaches the pod; other connections go on."""
    rig.egress(8, SECOND4, SECOND6, owner="n2")
    eips, address = ((EIP4, SECOND4), SERVER4) if family == 4 else ((EIP6, SECOND6), SERVER6)
    pods = [rig.pod("n1"), rig.pod("n2")]
    others = [rig.pod("n1"), rig.pod("n2")]
    for pod in pods:
        rig.steer(pod, ALL, class_id=1)
    for pod in others:
        rig.steer(pod, [("0.0.0.0/0", 8), ("::/0", 8)], class_id=2)
    rig.apply()
    server = sockets.udp(rig.ns("srv"), bind=(address, 9000))
    open_, seen = zip(*(ask_from(p, p.ipv4 if family == 4 else p.ipv6, (server, 9000)) for p in pods + others))
    assert [s[0] for s in seen] == [eips[0], eips[0], eips[1], eips[1]]
    rig.driver("n2").must("forget", eip=eips[0])
    got = []
    for s, peer in zip(open_, seen):
        server.sendto(b"!", peer[:2])
        s.settimeout(0.3)
        try:
            got.append(s.recv(10))
        except OSError:
            got.append(None)
        s.close()
    server.close()
    assert got == [None, None, b"!", b"!"]


@case("flow-node-kind", "An egress of kind node gives the owner's own address, which stays usable for the owner",
      node=NODES)
def use_node_ip(rig, node):
    """An egress of kind node: the owner's own address, which stays usable for the owner itself."""
    rig.egress(9, None, None, owner="n2", kind="node")
    pod = rig.pod(node)
    rig.steer(pod, [("0.0.0.0/0", 9), ("::/0", 9)])
    rig.apply()
    assert pod.source(4) == rig.address("n2") and pod.source(6) == rig.address("n2", 6)
    # Connections to and from the gateway node itself go on.
    service = sockets.listen(rig.ns("n2"), rig.address("n2"), 8080)
    outside = sockets.connect(rig.ns("srv"), rig.address("n2"), 8080)
    inside, _ = service.accept()
    outside.send(b"x")
    assert inside.recv(1) == b"x"
    assert sockets.ask(sockets.udp(rig.ns("n2"), to=(SERVER4, 7000)), b"\0" * 16) is not None
    for s in (service, outside, inside):
        s.close()


@case("flow-nodeip", "Action nodeip gives the node's own address whatever the CNI does",
      masquerade=[True, False])
def nodeip_is_not_bypass(rig, masquerade):
    """Action nodeip: this node's own address, whatever the CNI does."""
    pod = rig.pod("n1")
    if masquerade:
        net.enter(rig.ns("n1"), "nft", "add table ip cni; add chain ip cni post { type nat hook postrouting priority "
                  "100; }; add rule ip cni post ip saddr 10.244.0.0/16 snat to 10.6.0.99")
    rig.steer(pod, [("0.0.0.0/0", "nodeip"), ("::/0", "nodeip")])
    rig.apply()
    assert pod.source(4) == rig.address("n1") and pod.source(6) == rig.address("n1", 6)


@case("flow-longest-prefix", "Of nested prefixes the longest decides, for all four actions")
def the_longest_prefix_decides(rig):
    """One class with nested prefixes and all four actions; nothing covers the rest."""
    pod = rig.pod("n1")
    targets = {"10.6.2.1": EIP4, "10.6.2.129": None, "10.6.2.193": "node", "10.6.2.241": "pod", "10.6.2.249": EIP4,
               "10.6.3.1": "pod"}
    for t in targets:
        net.batch(rig.ns("srv"), f"addr add {t}/16 dev eth0")
    rig.steer(pod, [("10.6.2.0/24", 7), ("10.6.2.128/25", "drop"), ("10.6.2.192/26", "nodeip"),
                    ("10.6.2.240/28", "bypass"), ("10.6.2.248/29", 7)])
    rig.apply()
    for target, expected in targets.items():
        expected = {"node": rig.address("n1"), "pod": pod.ipv4}.get(expected, expected)
        capture = sockets.Capture(rig.ns("srv"))
        pod.source(4, 0.1, to=target)  # the probe answers from its first address: only the way there counts
        capture.stop()
        assert set(capture.received_sources(7000)) == ({expected} if expected else set()), target
    assert pod.source(6) == pod.ipv6  # no rule of that family: left alone


@case("flow-cluster-prefixes", "cluster_prefixes win over every class")
def cluster_prefixes_win(rig):
    pod = rig.pod("n1")
    rig.cluster_prefixes = rig.cluster_prefixes + [SERVER4 + "/32"]
    rig.steer(pod, [("0.0.0.0/0", 7), (SERVER4 + "/32", 7), ("::/0", 7)])
    rig.apply()
    assert pod.source(4) == pod.ipv4
    assert pod.source(6) == EIP6
    assert pod.source(4, to=rig.address("n3"), timeout=0.1, port=7000) is None  # steered: n3 answers nothing


@case("flow-family-without-address", "A family for which the egress has no address is dropped")
def a_family_without_address_is_dropped(rig):
    """What is selected and has no EIP does not leak."""
    rig.egress(8, SECOND4, None, owner="n2")
    pod = rig.pod("n1")
    rig.steer(pod, [("0.0.0.0/0", 8), ("::/0", 8)])
    rig.apply()
    assert pod.source(4) == SECOND4 and pod.source(6, 0.3) is None


@case("flow-family-off", "A family that is switched off is left alone")
def a_family_that_is_off_is_left_alone(rig):
    rig.node_extra = {"enableIPv6": False}
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    assert pod.source(4) == EIP4 and pod.source(6) == pod.ipv6


@case("flow-port-collision", "Pods with one source port behind one egress IP all get their answers")
def two_pods_with_one_source_port(rig):
    """Two pods of different nodes, one egress IP, one source port, one destination."""
    pods = [rig.pod("n1"), rig.pod("n1"), rig.pod("n3"), rig.pod("n2")]
    for pod in pods:
        rig.steer(pod, ALL)
    rig.apply()
    open_sockets = []
    for pod in pods:
        s = sockets.udp(pod.ns, bind=(pod.ipv4, 40000), to=(SERVER4, 7000))
        open_sockets.append(s)
    for _ in range(3):
        for s in open_sockets:
            assert sockets.ask(s, b"\0" * 16) is not None
    for s in open_sockets:
        s.close()
