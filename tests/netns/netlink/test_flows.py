"""netlink's connections in conntrack: zones, bindings that are kept for answers, what a failed step leaves."""

import time

import sockets
from flow import BOUND, Flow
from rig import ALL, EIP4, EIP6, SECOND4, SECOND6, SERVER4, net


def entries(rig, node):
    return net.enter(rig.ns(node), "conntrack", "-L").splitlines()


def until(condition, timeout=1.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.01)


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


def test_more_peers_than_numbers_are_reported(rig):
    """The mask bounds the number of peers: those without a number are named and the others work."""
    rig.crowd(300)
    rig.node_extra["ctMask"] = 0xff000000
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    for node in ("n1", "n3"):
        rig.driver(node).ask("apply", change=rig.change(node))
        rig.driver(node).must("sysctls")
    answer = rig.driver("n2").ask("apply", change=rig.change("n2"))
    assert answer["ok"] and len(answer["failures"]) == 300 - 254
    assert all(f["object"].startswith("peer ") and "marks.ctMask" in f["message"] for f in answer["failures"]), answer
