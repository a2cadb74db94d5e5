"""Running connections follow their policy (decisions 4 to 7), and what the actions of a class mean."""

import socket
import struct
import time

import pytest
import sockets
from conftest import ALL, EIP4, EIP6
from rig import SERVER4, SERVER6, net

SECOND4, SECOND6 = "10.6.1.57", "fd00::57"
BOUND = 0.05  # s: a running UDP flow has the new source, or is dropped


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
        return max(at for at, source in self.seen() if source not in new)

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


@pytest.mark.parametrize("second", ["n2", "n3"])
@pytest.mark.parametrize("node", ["n1", "n2", "n3"], ids=["client", "owner", "standby"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_flow_follows_its_policy(rig, node, second, family):
    rig.egress(8, SECOND4, SECOND6, owner=second)
    pod = rig.pod(node)
    rig.steer(pod, ALL, class_id=1)
    rig.apply()

    def change():
        rig.steer(pod, [("0.0.0.0/0", 8), ("::/0", 8)], class_id=2)
        rig.apply(node)
    follow(rig, pod, change, EIP4 if family == 4 else EIP6, {SECOND4 if family == 4 else SECOND6}, family)


@pytest.mark.parametrize("masquerade", [True, False])
@pytest.mark.parametrize("node", ["n1", "n2"], ids=["client", "owner"])
def test_a_flow_that_ran_before_its_policy(rig, node, masquerade):
    pod = rig.pod(node)
    rig.apply()
    old = pod.ipv4
    if masquerade:
        old = rig.address(node)
        net.enter(rig.ns(node), "iptables-nft", "-w", "-t", "nat", "-A", "POSTROUTING", "-s", "10.244.0.0/16",
                  "!", "-d", "10.244.0.0/16", "-j", "MASQUERADE")

    def add():
        rig.steer(pod, ALL)
        rig.apply(node)
    follow(rig, pod, add, old, {EIP4})

    def remove():
        rig.endpoints.clear()
        rig.apply(node)
    # Unsteered before its old connection is forgotten: for a moment it has its own address.
    took = follow(rig, pod, remove, EIP4, {old}, meanwhile={pod.ipv4})
    print(f"the last packet with another source: {took * 1000:.1f} ms after the change")


def test_a_flow_follows_the_steps(rig, pod):
    """The same by steps instead of full applies; only the class changes."""
    rig.egress(8, SECOND4, SECOND6, owner="n3")
    rig.apply()
    rules = [{"destination": d, "action": "egress", "egressID": 8} for d in ("0.0.0.0/0", "::/0")]
    follow(rig, pod, lambda: rig.delta("n1", classes=[{"id": 1, "rules": rules}]), EIP4, {SECOND4})
    follow(rig, pod, lambda: rig.delta("n1", deleted={"endpoints": [pod.ipv4, pod.ipv6]}), SECOND4, {pod.ipv4})


@pytest.mark.parametrize("node,owner", [("n1", "n3"), ("n2", "n3"), ("n3", "n3")],
                         ids=["client", "former-owner", "new-owner"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_flow_goes_on_after_a_move(rig, node, owner, family):
    """The EIP moves: the pod's flow keeps the source; for pods on the two gateways its way changes wholly."""
    pod = rig.pod(node)
    rig.steer(pod, ALL)
    rig.apply()
    eip = EIP4 if family == 4 else EIP6

    def move():
        rig.egress(7, EIP4, EIP6, owner=owner)
        rig.apply()
    flow = Flow(rig, pod, family)
    flow.run(0.05)
    move()
    moved = time.monotonic()
    flow.run(0.2)
    flow.stop()
    assert flow.sources() == {eip}
    assert flow.sources(since=moved + BOUND) == {eip}
    assert pod.source(family) == eip


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("node", ["n1", "n2", "n3"], ids=["client", "former-owner", "new-owner"])
def test_nothing_is_lost_in_a_planned_move(rig, node, family):
    """First everybody turns to the new owner, then the answers do (decisions 20); there and back."""
    pod = rig.pod(node)
    rig.steer(pod, ALL)
    rig.apply()
    traffic = rig.traffic(pod, family, streams=5)
    time.sleep(0.2)
    for owner in ("n3", "n2", "n3"):
        rig.egress(7, EIP4, EIP6, owner=owner, answer=False)
        rig.apply()
        time.sleep(0.15)
        rig.egress(7, EIP4, EIP6, owner=owner)
        time.sleep(0.15)
    report = rig.report(traffic)
    assert report["tcp_resets"] == 0 and report["lost"] == 0, report
    assert [s["source"] for s in report["sources"]] == [EIP4 if family == 4 else EIP6]


def test_the_way_of_answers_is_kept_for_a_while_only(rig):
    pod = rig.pod("n2")
    rig.steer(pod, ALL)
    rig.apply()
    ask = sockets.udp(pod.ns, bind=(pod.ipv4, 40000), to=(SERVER4, 7000))
    assert sockets.ask(ask, b"\0" * 16) is not None
    rig.egress(7, EIP4, EIP6, owner="n3")
    rig.apply()
    parked = [e for e in entries(rig, "n2") if "zone-orig=7" in e and f"src={pod.ipv4}" in e]
    assert len(parked) == 1 and f"dst={EIP4}" in parked[0], parked
    # Its time runs out whatever answers come.
    ends = int(parked[0].split()[2])
    assert ends <= 60
    assert sockets.ask(ask, b"\0" * 16) is not None
    rig.driver("n2").must("forget", eip=EIP4)
    assert not any("zone-orig" in e for e in entries(rig, "n2"))
    assert sockets.ask(ask, b"\0" * 16) is not None
    ask.close()


@pytest.mark.parametrize("forgotten", [True, False])
def test_there_and_back_with_a_reused_port(rig, forgotten):
    """Decisions 5: what a former owner still knows is in the way when the EIP comes back, unless forgotten."""
    first, second = rig.pod("n1"), rig.pod("n3")
    for pod in (first, second):
        rig.steer(pod, ALL)
    rig.apply()

    def move(owner):
        rig.egress(7, EIP4, EIP6, owner=owner, answer=False)
        rig.apply()
        rig.egress(7, EIP4, EIP6, owner=owner)
    service = sockets.listen(rig.ns("srv"), SERVER4, 8080)

    def connection(pod):
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

    one = connection(first)
    move("n3")
    for s in one:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT at the server
        s.close()
    if forgotten:
        rig.driver("n2").must("forget", eip=EIP4)
    outside, inside = connection(second)
    move("n2")
    outside.send(b"still here")
    inside.settimeout(0.7)
    try:
        arrived = inside.recv(100) == b"still here"
    except OSError:
        arrived = False
    assert arrived == forgotten
    for s in (service, outside, inside):
        s.close()


def test_a_failed_change_is_swept_when_it_succeeds(rig):
    """Somebody holds what a step removes last: the step fails when everything else of it is done."""
    rig.egress(8, SECOND4, SECOND6, owner="n2")
    pod = rig.pod("n2")
    rig.steer(pod, ALL + [("10.9.0.0/16", "drop")], class_id=1)
    rig.apply()
    table = net.enter(rig.ns("n2"), "nft", "list", "table", "ip", "egw").splitlines()
    chains = [line.split()[1] for line, body in zip(table, table[1:])
              if line.strip().startswith("chain ") and " hook " not in body]
    net.enter(rig.ns("n2"), "nft", "; ".join(["add chain ip egw stranger"] +
                                             [f"add rule ip egw stranger jump {c}" for c in chains]))
    flow = Flow(rig, pod)
    flow.run(0.1)
    rules = [{"destination": d, "action": "egress", "egressID": 8} for d in ("0.0.0.0/0", "::/0")]
    answer = rig.delta("n2", classes=[{"id": 1, "rules": rules}])
    assert not answer["ok"], answer
    rig.classes[1] = rules
    rig.apply("n2")
    done = time.monotonic()
    flow.run(0.2)
    flow.stop()
    assert flow.sources(since=done + BOUND) == {SECOND4}
    assert flow.sources() == {EIP4, SECOND4}


def entries(rig, node):
    return net.enter(rig.ns(node), "conntrack", "-L").splitlines()


def until(condition, timeout=1.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.01)


def test_entries_of_a_gone_id_go_on_the_gateway(rig, pod):
    assert pod.source(4) == EIP4
    assert any("zone-orig=7" in e for e in entries(rig, "n2"))
    rig.endpoints.clear()
    rig.egresses.clear()
    rig.apply()
    until(lambda: not any("zone-orig" in e for e in entries(rig, "n2")))


def test_forget(rig, pod):
    """Entries of an EIP go, others stay."""
    local = rig.pod("n2")
    bystander = rig.pod("n2")
    rig.steer(local, ALL)
    rig.apply("n2")
    assert {pod.source(4), pod.source(6), local.source(4)} == {EIP4, EIP6}
    assert bystander.source(4) == bystander.ipv4
    rig.driver("n2").must("forget", eip=EIP4)
    left = entries(rig, "n2")
    assert not any(EIP4 in e for e in left) and any(bystander.ipv4 in e for e in left)
    rig.driver("n2").must("forget", eip=EIP6)
    out = net.enter(rig.ns("n2"), "conntrack", "-L", "-f", "ipv6")
    assert EIP6 not in out


@pytest.mark.parametrize("node", ["n1", "n2", "n3"], ids=["client", "owner", "standby"])
def test_use_node_ip(rig, node):
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


@pytest.mark.parametrize("masquerade", [True, False])
def test_nodeip_is_not_bypass(rig, masquerade):
    """Action nodeip: this node's own address, whatever the CNI does."""
    pod = rig.pod("n1")
    if masquerade:
        net.enter(rig.ns("n1"), "nft", "add table ip cni; add chain ip cni post { type nat hook postrouting priority "
                  "100; }; add rule ip cni post ip saddr 10.244.0.0/16 snat to 10.6.0.99")
    rig.steer(pod, [("0.0.0.0/0", "nodeip"), ("::/0", "nodeip")])
    rig.apply()
    assert pod.source(4) == rig.address("n1") and pod.source(6) == rig.address("n1", 6)


def test_the_longest_prefix_decides(rig):
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


def test_cluster_prefixes_win(rig):
    pod = rig.pod("n1")
    rig.cluster_prefixes = rig.cluster_prefixes + [SERVER4 + "/32"]
    rig.steer(pod, [("0.0.0.0/0", 7), (SERVER4 + "/32", 7), ("::/0", 7)])
    rig.apply()
    assert pod.source(4) == pod.ipv4
    assert pod.source(6) == EIP6
    assert pod.source(4, to=rig.address("n3"), timeout=0.1, port=7000) is None  # steered: n3 answers nothing


def test_a_family_without_address_is_dropped(rig):
    """Decisions 8: what is selected and has no EIP does not leak."""
    rig.egress(8, SECOND4, None, owner="n2")
    pod = rig.pod("n1")
    rig.steer(pod, [("0.0.0.0/0", 8), ("::/0", 8)])
    rig.apply()
    assert pod.source(4) == SECOND4 and pod.source(6, 0.3) is None


def test_a_family_that_is_off_is_left_alone(rig):
    rig.node_extra = {"enableIPv6": False}
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    assert pod.source(4) == EIP4 and pod.source(6) == pod.ipv6


def test_two_pods_with_one_source_port(rig):
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


def test_one_bad_object_fails_alone(rig):
    """Peers, egresses, classes and endpoints that make no sense: reported, dropped, the rest works."""
    good, lost = rig.pod("n1"), rig.pod("n1")
    rig.steer(good, ALL)
    rig.steer(lost, ALL)
    change = rig.change("n1")
    change["peers"].append({"name": "bad", "underlay": "10.6.0.77", "mac": "01:00:00:00:00:01"})
    change["peers"].append({"name": "twin", "underlay": "10.6.0.78", "mac": rig.mac("n2")})
    change["peers"].append({"name": "six", "underlay": "fd00::78", "mac": "02:00:00:00:00:05"})
    change["egresses"].append({"id": 30, "kind": "address", "ipv4": SECOND4, "mayServe": False,
                               "owner": "peer", "ownerPeer": "nobody"})
    change["classes"].append({"id": 77, "rules": [{"destination": "0.0.0.0/0", "action": "egress", "egressID": 99}]})
    for e in change["endpoints"]:
        if e["address"] == lost.ipv4:
            e["class"] = 4711
        if e["address"] == lost.ipv6:
            e["class"] = 77
    answer = rig.driver("n1").ask("apply", change=change)
    rig.apply("n2", "n3")
    objects = {f["object"] for f in answer["failures"]}
    assert objects == {"peer bad", "peer twin", "peer six", "egress 30", "class 77", f"endpoint {lost.ipv4}"}, answer
    assert good.source(4) == EIP4 and good.source(6) == EIP6
    assert lost.source(4, 0.2) is None
