"""Restart and adoption, drift, purge, partial failure: the kernel is left alone when it is right, put right when it is
not, and left empty at the end."""

import re
import time

import sockets
from kernel import difference, held, snapshot
from removals import firewall_removals, one_of_each, removals
from rig import ALL, EIP4, EIP6, SECOND4, SECOND6, SERVER4, SERVER6, net
from suite import case


WITH_PREFIXES = ALL + [("10.9.0.0/16", "drop"), ("10.10.0.0/16", "bypass")]


CNI = "; ".join(f"nft add table {t} cni; nft add chain {t} cni post '{{ type nat hook postrouting priority 100; }}'; "
                f"nft add rule {t} cni post {t} saddr {pods} {t} daddr != {pods} masquerade"
                for t, pods in (("ip", "10.244.0.0/16"), ("ip6", "fd00:244::/32")))


def quiet(driver):
    while driver.ask("drift", timeoutMs=50)["ok"]:
        pass  # words about what came before do not count


@case("repair-restart", "A restart under traffic changes nothing in the kernel and loses no packet", alone=True,
      kill={"closed": False, "killed": True})
def a_restart_changes_nothing(rig, kill):
    pods = rig.everywhere(WITH_PREFIXES)
    yield
    traffic = [rig.traffic(p, family, streams=1) for p in pods for family in (4, 6)]
    time.sleep(0.1)
    for node in rig.nodes:
        before = snapshot(rig, node)
        rig.restart(node, kill)
        for _turn in range(2):
            assert rig.apply(node)[node]["repaired"] == {}
        assert difference(before, snapshot(rig, node)) == {}
    reports = [rig.report(t) for t in traffic]
    assert [(r["lost"], r["tcp_resets"]) for r in reports] == [(0, 0)] * 6


@case("repair-renumbered", "After a restart the same classes under other ids change nothing in the kernel", solo=True)
def renumbered_classes_change_nothing(rig):
    rig.everywhere(WITH_PREFIXES)
    before = {n: snapshot(rig, n) for n in rig.nodes}
    rig.classes = {c + 100: rules for c, rules in rig.classes.items()}
    rig.endpoints = {address: (node, c + 100) for address, (node, c) in rig.endpoints.items()}
    for node in rig.nodes:
        rig.restart(node, kill=True)
        assert rig.apply(node)[node]["repaired"] == {}
        assert difference(before[node], snapshot(rig, node)) == {}, node


@case("repair-changed-meanwhile", "What has changed while no process ran is put into force by the next one")
def what_changed_meanwhile(rig):
    gone, dropped, moved = [rig.pod("n1") for _ in range(3)]
    for pod in (gone, dropped, moved):
        rig.steer(pod, ALL)
    rig.egress(8, SECOND4, SECOND6, owner="n3")
    rig.apply()
    assert [p.source(4) for p in (gone, dropped, moved)] == [EIP4] * 3
    for address in (gone.ipv4, gone.ipv6):
        del rig.endpoints[address]
    rig.steer(dropped, [("0.0.0.0/0", "drop"), ("::/0", "drop")])
    rig.steer(moved, [("0.0.0.0/0", 8), ("::/0", 8)])
    rig.restart("n1", kill=True)
    rig.apply("n1")
    assert [gone.source(4), gone.source(6)] == [gone.ipv4, gone.ipv6]
    assert [dropped.source(4, 0.2), dropped.source(6, 0.2)] == [None, None]
    assert [moved.source(4), moved.source(6)] == [SECOND4, SECOND6]


@case("repair-flows-meanwhile", "A running connection whose pod has lost its policy, or whose family was switched off, while no process "
      "ran has the node's address", node={"client": "n1", "owner": "n2"}, lost={"policy": 4, "family": 6})
def flows_follow_what_changed_meanwhile(rig, node, lost):
    pod = rig.pod(node)
    rig.steer(pod, ALL)
    rig.apply()
    rig.sh(node, CNI)
    client = sockets.udp(pod.ns, to=(SERVER4 if lost == 4 else SERVER6, 7000))
    assert sockets.ask(client, b"\0" * 16) is not None
    if lost == 4:
        rig.endpoints.clear()
    else:
        rig.node_extra = {"enableIPv6": False}
    rig.restart(node, kill=True)
    rig.apply(node)
    seen, end = {}, time.monotonic() + 2
    while set(seen) != {rig.address(node, lost)} and time.monotonic() < end:
        capture = sockets.Capture(rig.ns("srv"))
        sockets.ask(client, b"\0" * 16, 0.1)
        capture.stop()
        seen = capture.received_sources(7000)
    client.close()
    assert set(seen) == {rig.address(node, lost)}


@case("repair-repeat", "The same full change again changes nothing", solo=True)
def the_same_again(rig):
    rig.everywhere(WITH_PREFIXES)
    for node in rig.nodes:
        before = snapshot(rig, node)
        for _turn in range(3):
            assert rig.apply(node)[node]["repaired"] == {}
        assert difference(before, snapshot(rig, node)) == {}


@case("repair-prune", "What is no longer in the full change goes from the kernel, and its pods are left alone")
def what_is_gone_is_pruned(rig):
    pod = rig.pod("n1")
    rig.apply()
    bare = {n: snapshot(rig, n) for n in rig.nodes}
    rig.steer(pod, ALL)
    rig.egress(9, "10.6.1.90", "fd00::90", owner="n3")
    rig.apply()
    assert pod.source(4) == EIP4
    rig.endpoints.clear()
    rig.classes.clear()
    del rig.egresses[9]
    rig.apply()
    assert [pod.source(4), pod.source(6)] == [pod.ipv4, pod.ipv6]
    assert {n: difference(bare[n], snapshot(rig, n)) for n in rig.nodes} == {n: {} for n in rig.nodes}


@case("repair-step-deletes", "An endpoint that a step deletes is left alone at once")
def a_deleted_endpoint_is_left_alone(rig, pod):
    assert pod.source(4) == EIP4
    assert rig.delta("n1", deleted={"endpoints": [pod.ipv4, pod.ipv6]})["ok"]
    assert [pod.source(4), pod.source(6)] == [pod.ipv4, pod.ipv6]


@case("repair-drift-told", "A device, rule, route, FDB entry or neighbour that somebody removes, and a device that is renamed, is told as "
      "drift, repaired and counted; afterwards nothing is left to repair", solo=True,
      long=True)
def removed_objects_are_told(rig):
    pods = [rig.pod("n1")]
    before = snapshot(rig, "n1")
    rig.steer(pods[0], ALL)
    rig.apply()
    driver, whole = rig.driver("n1"), snapshot(rig, "n1")
    renamed = {"device's name": "ip link set egress.vxlan down; ip link set egress.vxlan name other; ip link set other up"}
    for what, command in {**removals(rig, "n1", before, whole), **renamed}.items():
        quiet(driver)
        rig.sh("n1", command)
        assert driver.ask("drift", timeoutMs=2000)["ok"], f"nothing was said: {what}"
        assert sum(rig.apply("n1")["n1"]["repaired"].values()) >= 1, what
        assert rig.apply("n1")["n1"]["repaired"] == {}, what
        assert difference(whole, snapshot(rig, "n1")) == {}, what
        assert [pods[0].source(4), pods[0].source(6)] == [EIP4, EIP6], what


@case("repair-firewall", "Tables, chains, sets and programs that somebody empties or removes are repaired by the next full "
      "change and counted", solo=True, long=True, node={"client": "n1", "owner": "n2"})
def emptied_tables_are_repaired(rig, node):
    pod, before = rig.pod("n1"), snapshot(rig, node)
    rig.steer(pod, ALL)
    rig.apply()
    whole = snapshot(rig, node)
    what_came = firewall_removals(before, whole)
    judged = 0
    for what, command in what_came.items():
        rig.sh(node, command)
        if what.startswith("ipset") and difference(whole, snapshot(rig, node)) == {}:
            continue  # it was empty before
        judged += 1
        assert sum(rig.apply(node)[node]["repaired"].values()) >= 1, what
    assert judged > 0
    assert rig.apply(node)[node]["repaired"] == {}
    assert difference(whole, snapshot(rig, node)) == {}
    assert [pod.source(4), pod.source(6)] == [EIP4, EIP6]


@case("repair-firewall-told", "Of tables, chains, rules, set elements, programs and pins, one of each kind that somebody removes is "
      "told as drift within 2 s, repaired and counted", solo=True, long=True, node={"client": "n1", "owner": "n2"})
def removed_firewall_objects_are_told(rig, node):
    pod, before = rig.pod("n1"), snapshot(rig, node)
    rig.steer(pod, ALL)
    rig.apply()
    driver, whole = rig.driver(node), snapshot(rig, node)
    what_came = one_of_each(rig, node, before, whole, turn=rig.index(node))
    assert what_came != {}
    for what, command in what_came.items():
        quiet(driver)
        rig.sh(node, command)
        assert driver.ask("drift", timeoutMs=2000)["ok"], f"nothing was said: {what}"
        assert sum(rig.apply(node)[node]["repaired"].values()) >= 1, what
        assert [pod.source(4), pod.source(6)] == [EIP4, EIP6], what
    assert rig.apply(node)[node]["repaired"] == {}
    assert difference(whole, snapshot(rig, node)) == {}


@case("repair-quiet", "The plugin's own changes are no drift", solo=True)
def own_changes_are_no_drift(rig, pod):
    driver = rig.driver("n1")
    quiet(driver)
    more = rig.pod("n1")
    rig.steer(more, [("10.9.0.0/16", 7)])
    rig.apply("n1")
    rig.delta("n1", deleted={"endpoints": [more.ipv4]})
    rig.egress(7, EIP4, EIP6, owner="n3")
    rig.apply()
    rig.delta("n1", peers=[{"name": "n9", "underlay": "10.6.0.99", "tunnelIPv4": "172.31.0.99", "mac": "02:ee:00:00:00:99"}])
    rig.delta("n1", deleted={"peers": ["n9"]})
    rig.delta("n1", egresses=[{"id": 5, "owner": "self", "mayServe": True, "ipv4": "10.6.1.70"}])
    rig.delta("n1", deleted={"egresses": [5]})
    rig.apply("n1")
    assert not driver.ask("drift", timeoutMs=200)["ok"]
    assert pod.source(4) == EIP4


@case("repair-purge", "purge leaves the kernel as it was before, others' objects included, whoever programmed it, and no BPF program "
      "loaded", solo=True, long=True,
      another={"same-instance": False, "another-instance": True})
def purge_leaves_what_was_there(rig, another):
    pods = [rig.pod(n) for n in rig.nodes]
    for node in rig.nodes:
        rig.sh(node, "nft add table ip others; nft add chain ip others c; nft add rule ip others c ip saddr 192.0.2.1 drop; "
                     "nft add table inet egw2; nft add chain inet egw2 c; nft add rule inet egw2 c accept; "
                     "iptables-nft -w -t mangle -A FORWARD -s 192.0.2.2 -j ACCEPT; "
                     "iptables-legacy -w -t filter -A FORWARD -s 192.0.2.3 -j DROP; ipset create others hash:ip; "
                     "ipset create EGW-others hash:ip; ipset create EGW hash:net; "
                     "ip rule add pref 500 fwmark 0x10 lookup 500; ip route add blackhole 10.99.0.0/16 table 500")
    before = {n: snapshot(rig, n) for n in rig.nodes}
    for pod in pods:
        rig.steer(pod, ALL)
    rig.apply()
    assert pods[0].source(4) == EIP4
    for node in rig.nodes:
        assert difference(before[node], snapshot(rig, node)) != {}
        if another:
            rig.restart(node, kill=True)
        for _turn in range(2):  # the second time there is nothing to do, which is no error
            rig.driver(node).must("purge")
            assert difference(before[node], snapshot(rig, node)) == {}, node
            assert held(rig.driver(node).process.pid) == {}, node
    for pod in pods:
        assert [pod.source(4), pod.source(6)] == [pod.ipv4, pod.ipv6]
    rig.apply()
    assert pods[0].source(4) == EIP4


@case("repair-purge-flows", "After purge no running connection keeps an egress IP, nor the lack of a CNI's translation",
      solo=True)
def purge_forgets_the_connections(rig):
    pods = rig.everywhere(WITH_PREFIXES)
    for node in rig.nodes:
        rig.sh(node, CNI)
    asks = [sockets.udp(p.ns, bind=(p.ipv4, 40000), to=(SERVER4, 7000)) for p in pods]
    for s in asks:
        assert sockets.ask(s, b"\0" * 16) is not None
    for node in rig.nodes:
        rig.restart(node, kill=True).must("purge")
    capture = sockets.Capture(rig.ns("srv"))
    for s in asks:
        assert sockets.ask(s, b"\0" * 16) is not None
        s.close()
    capture.stop()
    assert set(capture.received_sources(7000)) == {rig.address(n) for n in rig.nodes}


@case("repair-purge-bystander", "purge of a node whose own address is an egress IP (kind node) leaves others' connections alone",
      solo=True)
def purge_leaves_bystanders(rig):
    rig.egress(9, None, None, owner="n2", kind="node")
    rig.steer(rig.pod("n2"), [("0.0.0.0/0", 9), ("::/0", 9)])
    rig.sh("n2", CNI)
    rig.apply()
    bystander = rig.pod("n2")
    client = sockets.udp(bystander.ns, bind=(bystander.ipv4, 40000), to=(SERVER4, 7000))
    assert sockets.ask(client, b"\0" * 16) is not None

    def connections():
        return re.findall(r" id=\d+", rig.sh("n2", f"conntrack -L -o id -s {bystander.ipv4} 2>/dev/null"))

    before = connections()
    assert len(before) == 1
    rig.driver("n2").must("purge")
    assert connections() == before, "it was forgotten, and another one made"
    assert sockets.ask(client, b"\0" * 16) is not None
    client.close()


@case("repair-foreign-device", "A device of somebody else with the tunnel's name is refused by name and not touched", solo=True)
def a_device_of_somebody_else(rig):
    net.batch(rig.ns("n1"), "link add egress.vxlan type veth peer name other")
    answer = rig.driver("n1").ask("apply", change=rig.change("n1"))
    assert not answer["ok"] and "egress.vxlan" in answer["error"]
    assert "veth" in net.run("ip", "-n", rig.ns("n1"), "-d", "link", "show", "egress.vxlan")


@case("repair-old-device", "A tunnel device with other fixed attributes is replaced", solo=True)
def an_old_device_is_replaced(rig):
    net.batch(rig.ns("n1"), "link add egress.vxlan type vxlan id 100 dstport 4789 local 10.6.0.11")
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    assert pod.source(4) == EIP4


@case("repair-parent-mtu", "The tunnel's MTU follows the uplink's", solo=True)
def the_mtu_follows(rig, pod):
    for n in rig.nodes:
        net.batch(rig.ns(n), "link set eth0 mtu 1400")
    rig.apply()
    for n in rig.nodes:
        assert " mtu 1350 " in net.run("ip", "-n", rig.ns(n), "link", "show", "egress.vxlan")
    assert pod.source(4) == EIP4


@case("repair-health", "health says whether the kernel holds what was programmed, also for the process before", solo=True)
def health_is_true(rig, pod):
    assert pod.source(4) == EIP4
    assert rig.driver("n1").ask("health")["ok"]
    assert rig.restart("n1", kill=True).ask("health")["ok"], "what the process before has programmed is there"
    net.batch(rig.ns("n1"), "link set egress.vxlan down")
    rig.apply("n2")
    assert not rig.driver("n1").ask("health")["ok"], "the tunnel device is down"
    rig.apply("n1")
    assert rig.driver("n1").ask("health")["ok"]
    rig.driver("n1").must("purge")
    assert not rig.restart("n1").ask("health")["ok"], "nothing is programmed"


@case("repair-partial", "One bad peer, egress, class or endpoint fails alone, by its key; what refers to it is dropped")
def one_bad_object_fails_alone(rig):
    good, lost = rig.pod("n1"), rig.pod("n1")
    rig.steer(good, ALL)
    rig.steer(lost, ALL)
    change = rig.change("n1")
    change["peers"] += [{"name": "bad", "underlay": "10.6.0.77", "mac": "01:00:00:00:00:01"},
                        {"name": "twin", "underlay": "10.6.0.78", "mac": rig.mac("n2")},
                        {"name": "six", "underlay": "fd00::78", "mac": "02:00:00:00:00:05"}]
    change["egresses"].append({"id": 30, "kind": "address", "ipv4": SECOND4, "mayServe": False, "owner": "peer",
                               "ownerPeer": "nobody"})
    change["classes"].append({"id": 77, "rules": [{"destination": "0.0.0.0/0", "action": "egress", "egressID": 99}]})
    for e in change["endpoints"]:
        e["class"] = {lost.ipv4: 4711, lost.ipv6: 77}.get(e["address"], e["class"])
    answer = rig.driver("n1").must("apply", change=change, partly=True)
    rig.apply("n2", "n3")
    assert {f["object"] for f in answer["failures"]} == {"peer bad", "peer twin", "peer six", "egress 30", "class 77",
                                                          f"endpoint {lost.ipv4}"}
    assert all(f["message"] for f in answer["failures"])
    assert [good.source(4), good.source(6)] == [EIP4, EIP6]
    assert lost.source(4, 0.2) is None
