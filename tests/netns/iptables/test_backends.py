"""Both backends: packets, others' rules, adoption, purge, and which backend is chosen."""

import itertools
import os
import resource

import pytest
import sockets
from conftest import sources
from rig import ALL, EIP4, EIP6, SECOND4, SECOND6, SERVER4, Driver, Rig, net

OTHERS = ("{t} -w -t nat -N KUBE-SERVICES; {t} -w -t nat -A PREROUTING -j KUBE-SERVICES; "
          "{t} -w -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE; "
          "{t} -w -t mangle -A PREROUTING -p tcp --dport 9 -j MARK --set-mark 0x10000/0x10000; "
          "{t} -w -t raw -A PREROUTING -p tcp --dport 9 -j ACCEPT; {t} -w -A FORWARD -p tcp --dport 9 -j DROP")


BESIDE = pytest.mark.parametrize("beside", ["auto", "no-egress", "never"], indirect=True)
LEFT = ("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | grep -v ' metric 256 '; ipset list -n; "
        "ip -o link | wc -l; nft list tables | grep egw || true")


def tools(backend):
    return [f"iptables-{backend}", f"ip6tables-{backend}"]


def saved(rig, node, backend, ours):
    """The rules that are ours, or those that are not, of both families."""
    lines = [line for t in tools(backend) for line in rig.sh(node, f"{t}-save").splitlines()
             if line.startswith(("-A", ":")) and " ACCEPT [" not in line]
    return [line.split(" [")[0] for line in lines if ("EGW-" in line) == ours]


def tables(rig, node):
    """Our nftables tables, with the kernel's number of each rule: what is written again has another one."""
    return [line for line in rig.sh(node, "nft -a list ruleset").splitlines() if " comment \"egw:" in line]


@BESIDE
def test_others_are_left_alone_and_nothing_stays(rig, backend):
    bare = {n: rig.sh(n, LEFT) for n in rig.nodes}
    for node in rig.nodes:
        for tool in tools(backend):
            rig.sh(node, OTHERS.format(t=tool))
    before = {n: saved(rig, n, backend, ours=False) for n in rig.nodes}
    pods = [rig.pod(n) for n in rig.nodes]
    for pod in pods:
        rig.steer(pod, [("0.0.0.0/0", 7), ("::/0", 7), ("10.9.0.0/16", "drop")])
    rig.apply()
    assert [sources(p) for p in pods] == [[EIP4, EIP6]] * 3
    assert {n: saved(rig, n, backend, ours=False) for n in rig.nodes} == before
    for node in rig.nodes:
        assert rig.driver(node).must("purge")["ok"]
        assert saved(rig, node, backend, ours=True) == []
        assert saved(rig, node, backend, ours=False) == before[node]
    for pod in pods:
        net.batch(rig.ns(pod.node), f"link del {pod.host}")
    after = {n: rig.sh(n, LEFT) for n in rig.nodes}
    assert after == bare


@BESIDE
def test_a_restarted_process_adopts(rig, pod, backend):
    before = {n: saved(rig, n, backend, ours=True) + tables(rig, n) for n in rig.nodes}
    counts = rig.sh("n1", f"iptables-{backend}-save -c | grep -- '-[gj] EGW-JUDGE'")
    assert sources(pod) == [EIP4, EIP6]
    counted = rig.sh("n1", f"iptables-{backend}-save -c | grep -- '-[gj] EGW-JUDGE'")
    assert counted != counts
    for node in rig.nodes:
        rig.drivers.pop(node).stop(kill=True)
    assert all(a["repaired"] == {} for a in rig.apply().values())
    assert {n: saved(rig, n, backend, ours=True) + tables(rig, n) for n in rig.nodes} == before
    # A chain that is written again counts from zero.
    assert rig.sh("n1", f"iptables-{backend}-save -c | grep -- '-[gj] EGW-JUDGE'") == counted


def test_lists_keep_their_places_in_a_new_process(rig):
    """It finds one more that overlaps them, and comes before or behind them by its name. Two differ by their /0 only."""
    lists = [[("10.6.0.0/24", 7)], [("10.6.0.0/24", 7), ("0.0.0.0/0", "drop")],
             *([("10.6.0.0/24", 7), (f"198.51.{k}.0/24", "drop")] for k in range(8))]
    pods = [rig.pod("n1") for _ in lists]
    steered = len(lists) // 2
    for pod, rules in zip(pods[:steered], lists):
        rig.steer(pod, rules)
    rig.apply()
    server = rig.serve(port=7001)
    flows = [rig.traffic(pod, port=7001, interval_us=3000) for pod in pods[:steered]]
    for pod, rules in zip(pods[steered:], lists[steered:]):
        rig.steer(pod, rules)
        rig.restart("n1", kill=True)
        rig.apply("n1")
    assert all(rig.report(f)["sent"] > 0 for f in flows)
    assert set(rig.report(server)["sources"]) == {EIP4}


def test_a_purge_goes_on_where_a_backend_cannot_be_read(rig, pod, backend):
    """What stays is told, and goes when it can be read again."""
    programs = "$(readlink -f /usr/sbin/iptables-nft-save)"
    rig.sh("n1", "printf '#!/bin/sh\\nexit 9\\n' > /run/broken; chmod 755 /run/broken; "
                 f"mount --bind /run/broken {programs}")
    answer = rig.driver("n1").ask("purge")
    rig.sh("n1", f"umount {programs}")
    assert not answer["ok"] and "iptables-nft-save" in answer["error"], answer
    sets = rig.sh("n1", "ipset list -n")
    assert backend == "nft" or (saved(rig, "n1", backend, ours=True), sets) == ([], "")
    assert rig.driver("n1").must("purge")["ok"]
    assert (saved(rig, "n1", backend, ours=True), rig.sh("n1", "ipset list -n")) == ([], "")


def test_a_former_list_goes_with_the_next_change(rig, pod, backend):
    """With its chains and sets, and nobody takes what is left for somebody else's work."""
    driver = rig.driver("n1")

    def groups():
        return [name for name in saved(rig, "n1", backend, ours=True) if name[:6] == ":EGW-G" and name[6].isdigit()], [
            name for name in rig.sh("n1", "ipset list -n").split() if "who" in name]
    for rules in ([("10.6.0.0/16", 7)], [("10.6.0.0/16", 7), ("198.51.100.0/24", "drop")]):
        rig.steer(pod, rules, class_id=1)
        rig.apply("n1")
    assert groups() == ([":EGW-G0 -", ":EGW-G1 -"], ["EGW4-who0", "EGW4-who1"])
    assert rig.apply("n1")["n1"]["repaired"] == {}
    assert not driver.ask("drift", timeoutMs=1500)["ok"]
    assert groups() == ([":EGW-G1 -"], ["EGW4-who1"])


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_after_an_exception_of_any_kind_the_next_change_must_be_full(rig):
    """There is no memory for the stack of the thread that writes the second family's rules."""
    driver = rig.drivers["n1"] = Driver(rig.ns("n1"), [*rig.inside("n1"), "sh", "-c", 'ulimit -s 65536; exec "$@"', "sh"],
                                        os.path.join(rig.state, "n1"), *rig.datapaths[0])
    pod = rig.pod("n1")
    rig.steer(pod, ALL, class_id=1)
    rig.apply()
    rig.steer(pod, [("10.6.0.0/16", 7), ("fd00::/48", 7)], class_id=1)
    change = {"classes": [{"id": 1, "rules": rig.classes[1]}]}
    pid = driver.process.pid
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        used = int(f.read().split()[0]) * resource.getpagesize()
    before = resource.prlimit(pid, resource.RLIMIT_AS, (used + (16 << 20), resource.RLIM_INFINITY))
    answer = rig.delta("n1", **change)
    resource.prlimit(pid, resource.RLIMIT_AS, before)
    assert not answer["ok"], answer
    assert rig.delta("n1", **change)["needFull"]
    rig.apply("n1")
    assert sources(pod) == [EIP4, EIP6]


def test_auto_follows_kubernetes(rig, backend):
    """The sign that kubelet leaves decides; without it the number of others' rules."""
    rig.sh("n1", f"iptables-{backend} -w -t mangle -N KUBE-KUBELET-CANARY")
    other = {"legacy": "nft", "nft": "legacy"}[backend]
    rig.sh("n1", f"iptables-{other} -w -A FORWARD -p tcp --dport 9 -j DROP")
    rig.datapaths = [("iptables", {"backendMode": "auto"})] * 2
    driver = rig.driver("n1")
    assert driver.must("apply", change=rig.change("n1"))["ok"]
    assert saved(rig, "n1", backend, ours=True) != []
    assert saved(rig, "n1", other, ours=True) == []
    # A process that has chosen does not read all rules again for each probe.
    rig.sh("n1", f"iptables-{backend} -w -t mangle -X KUBE-KUBELET-CANARY; "
                 f"iptables-{other} -w -t mangle -N KUBE-KUBELET-CANARY")
    findings = driver.must("probe", node=rig.node_config("n1"))["findings"]
    assert [f["message"] for f in findings if f["code"] == "Iptables"] == [f"backend {backend}: in use"]


def test_another_backend_takes_over(rig, pod, backend):
    other = {"legacy": "nft", "nft": "legacy"}[backend]
    rig.datapaths = [("iptables", {"backendMode": other})] * 2
    driver = rig.restart("n1")
    assert driver.must("apply", change=rig.change("n1"))["ok"]
    assert saved(rig, "n1", backend, ours=True) == []
    assert saved(rig, "n1", other, ours=True) != []
    assert sources(pod) == [EIP4, EIP6]


def test_the_other_backend_gets_no_tables(rig, pod, backend):
    """Looked at is whether our chains are there. A program of the legacy backend that is asked for a table makes it,
    and every packet of the node then passes its hooks."""
    assert sources(pod) == [EIP4, EIP6]
    names = rig.sh("n1", "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names").split()
    # A node that may serve nothing needs no raw table.
    assert sorted(names) == ([] if backend == "nft" else sorted(2 * ["mangle", "nat"]))
    nft = rig.sh("n1", "nft list tables").split("\n")
    assert not [line for line in nft if backend == "legacy" and line.split()[-1:] in (["raw"], ["mangle"], ["nat"])]
    assert rig.driver("n1").must("purge")["ok"]
    assert backend == "legacy" or rig.sh("n1", "cat /proc/net/ip_tables_names") == ""


@BESIDE
def test_an_id_that_a_rule_of_others_has_written_over_is_written_again(rig, pod, backend, beside):
    for tool in tools(backend):
        rig.sh("n1", f"{tool} -w -t mangle -A PREROUTING -j MARK --set-xmark 0x5/0x3fff")
    assert rig.driver("n1").ask("drift", timeoutMs=5000)["ok"]
    rig.apply("n1")
    assert sources(pod) == [EIP4, EIP6]
    for tool in tools(backend):
        jumps = [line for line in rig.sh("n1", f"{tool}-save -t mangle").splitlines() if line.startswith("-A PREROUTING")]
        assert ("EGW-TUNNEL" if beside == "auto" else "EGW-PRE") in jumps[0] and "EGW-FIRST" in jumps[-1]


MASQUERADE = ("nft add table ip cni; nft add chain ip cni post '{ type nat hook postrouting priority 100; }'; "
              "nft add rule ip cni post ip saddr 10.244.0.0/16 masquerade")


def test_nftables_may_come_and_go(rig, pod, backend):
    """From one value of the key to another the chains change and the tables go, or come."""
    for beside in ("never", "no-egress", "auto", "never"):
        for node in rig.nodes:
            rig.datapaths = [("iptables", {"backendMode": backend, "nftables": beside})] * 2
            rig.drivers.pop(node).stop(kill=True)
        rig.apply()
        assert sources(pod) == [EIP4, EIP6], beside
        left = rig.sh("n1", "nft list tables")
        assert ("ip egw-iptables" in left) == (beside != "never")
        assert ("netdev egw-iptables" in left) == (beside == "auto")


@pytest.mark.parametrize("beside", ["no-egress"], indirect=True)
def test_others_translate_after_ours_without_the_tunnels_hook(rig, pod):
    local = rig.pod("n2")
    rig.steer(local, [("0.0.0.0/0", 7), ("::/0", 7)])
    rig.apply()
    for node in ("n1", "n2"):
        rig.sh(node, MASQUERADE)
    assert [pod.source(4), local.source(4)] == [EIP4, EIP4]


@BESIDE
def test_a_service_connection_carries_no_id(rig, pod):
    """Its first packet is a pod's with an id until the service has turned it elsewhere. Rules of others by low bits of
    the mark (0x80 on AWS) are not for it."""
    target = rig.pod("n1")
    rig.sh("n1", "ip rule add pref 100 fwmark 1/1 prohibit; ip -6 rule add pref 100 fwmark 1/1 prohibit")
    for f, vip, a in (("ip", "203.0.113.9", target.ipv4), ("ip6", "2001:db8::9", target.ipv6)):
        to = f"[{a}]:8080" if f == "ip6" else f"{a}:8080"
        rig.sh("n1", f"nft add table {f} kube; nft add chain {f} kube pre '{{ type nat hook prerouting priority -100; }}'; "
                     f"nft add rule {f} kube pre {f} daddr {vip} udp dport 80 dnat to {to}")
        server = sockets.udp(target.ns, bind=(a, 8080))
        client = sockets.udp(pod.ns, to=(vip, 80))
        client.send(b"hello")
        server.settimeout(1)
        assert server.recv(100) == b"hello"
        client.close()
        server.close()


def test_a_node_becomes_a_gateway_and_none_again(rig, pod, backend):
    """What comes by the wire is judged in another place then, at no moment in none."""
    flows = [rig.traffic(pod, f) for f in (4, 6)]
    for gateways, raw in ((["n1", "n2"], True), (["n2"], False)):
        rig.egress(8, "10.6.1.58", "fd00::58", owner="n2", gateways=gateways, answer=False)
        rig.apply("n1")
        chains = rig.sh("n1", f"iptables-{backend}-save -t raw; ip6tables-{backend}-save -t raw")
        assert ("EGW-" in chains) == raw
    for report in map(rig.report, flows):
        assert report["sent"] > 0 and report["lost"] == 0 and report["tcp_resets"] == 0, report


@BESIDE
def test_a_frame_with_an_id_that_is_not_served_is_dropped_as_that(rig, pod, backend, beside):
    """Before others see it: neither FORWARD nor their translation. Ids come and go by a step."""
    def unknown():
        counters = rig.driver("n2").must("counters")["counters"]
        return sum(int(n) for name, n in counters.items() if "reason=unknown_id" in name)

    ports = itertools.count(5555)  # each is a connection of its own

    def send(group):
        s = sockets.udp(rig.ns("n1"), bind=(rig.address("n1"), 0), to=(rig.address("n2"), 7789))
        s.send(sockets.vxlan(100, group, sockets.frame(rig.mac("n1"), rig.mac("n2"), sockets.ip4(
            pod.ipv4, SERVER4, 17, sockets.udp_segment(next(ports), 7000, b"?")))))
        s.close()
    second = {"id": 8, "kind": "address", "ipv4": SECOND4, "ipv6": SECOND6, "mayServe": True, "owner": "self"}
    before = unknown()
    send(8)
    assert unknown() == before + 1
    assert rig.delta("n2", egresses=[second])["failures"] == []
    send(8)
    assert unknown() == before + 1
    assert rig.delta("n2", deleted={"egresses": [8]})["failures"] == []
    send(8)
    assert unknown() == before + 2
    send(7)
    assert unknown() == before + 2
    assert rig.apply("n2")["n2"]["repaired"] == {}, "what steps have written is what a full change wants"


def test_what_nobody_has_marked_at_the_tunnel_is_judged_still(rig, pod):
    """Somebody has emptied the chain at the client's tunnel device: answers pass, and nothing that begins there."""
    assert rig.ping("n2", "172.31.0.1", "172.31.0.2")
    rig.sh("n1", "nft flush chain netdev egw-iptables unwrap")
    assert sources(pod) == [EIP4, EIP6]
    assert not rig.ping("n2", "172.31.0.1", "172.31.0.2")
    dropped = "nft list counter {} egw-iptables invalid | grep -c 'packets [1-9]'"
    assert rig.sh("n1", dropped.format("ip")).strip() == "1"
    assert rig.apply("n1")["n1"]["repaired"]
    assert rig.ping("n2", "172.31.0.1", "172.31.0.2")


def test_a_probe_makes_no_legacy_tables():
    """Every packet of the node would pass them, also when another datapath is chosen, and no purge takes them."""
    with Rig(nodes=1, datapath="iptables", config={"backendMode": "legacy"}) as rig:
        there = "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names"
        assert rig.sh("n1", there) == ""
        answer = rig.driver("n1").must("probe", node=rig.node_config("n1"))
        tried = [f for f in answer["findings"] if f["code"] == "IptablesRules"]
        assert len(tried) == 2 and all(f["ok"] and "takes our kinds of rules" in f["message"] for f in tried), tried
        assert rig.sh("n1", there) == ""
