"""Which pods, which destinations, which source: the fields of policies and gateways, seen by the outside server."""

import copy
import json
import os
import time

from conftest import EIP4, EIP6, GATEWAY, placed, policy, wait_source
from lab.cluster import SERVER4, SERVER6

OTHER4, OTHER6 = "10.6.1.55", "fd00::56"
# The lab's server is one address per family: prefixes around it, from wide to narrow.
WIDE, NARROW = ["10.6.0.0/16", "fd00::/64"], [SERVER4 + "/32", SERVER6 + "/128"]
ELSEWHERE = ["203.0.113.0/24", "2001:db8::/32"]


def cluster_policy(name, selector=None, **spec):
    out = policy(name, **spec)
    out["kind"] = "EgressClusterPolicy"
    del out["metadata"]["namespace"]
    out["spec"]["appliedTo"] = selector or out["spec"]["appliedTo"]
    return out


def gateway(name, ipv4, ipv6=(), default=False, **labels):
    out = copy.deepcopy(GATEWAY)
    out["metadata"]["name"] = name
    pools = {"ipv4": list(ipv4), "ipv4DefaultEIP": ipv4[0]}
    if ipv6:
        pools.update(ipv6=list(ipv6), ipv6DefaultEIP=ipv6[0])
    out["spec"] = {"clusterDefault": default, "ippools": pools,
                   "nodeSelector": {"selector": {"matchLabels": labels or {"egress": "true"}}}}
    return out


def namespace(name, **labels):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def own(cluster, pod, family=4):
    return cluster.pods[pod]["ipv4" if family == 4 else "ipv6"]


def sees(cluster, pod, v4, v6):
    wait_source(cluster, pod, v4)
    wait_source(cluster, pod, v6, family=6)


def stays(cluster, pod):
    """The pod is not selected: its own addresses, now and after everything has settled."""
    sees(cluster, pod, own(cluster, pod), own(cluster, pod, 6))


def test_who_is_selected(make_cluster):
    """podSelector within the namespace, namespaceSelector, podSubnet of both families."""
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(GATEWAY, namespace("red", team="red"), namespace("blue", team="blue"))
    for name, ns, labels in (("mine", "red", {"app": "a"}), ("theirs", "blue", {"app": "a"}),
                             ("other", "red", {"app": "b"})):
        cluster.add_pod(name, "n1", labels, namespace=ns)
    cluster.apply(policy("by-label", namespace="red", labels={"app": "a"}))
    sees(cluster, "mine", EIP4, EIP6)
    stays(cluster, "theirs")
    stays(cluster, "other")
    cluster.egw("delete", "egp", "by-label", "-n", "red")
    stays(cluster, "mine")

    cluster.apply(cluster_policy("by-namespace", {"namespaceSelector": {
        "matchExpressions": [{"key": "team", "operator": "In", "values": ["blue", "green"]}]}}))
    sees(cluster, "theirs", EIP4, EIP6)
    stays(cluster, "mine")
    cluster.apply(namespace("red", team="green"))  # relabelled
    sees(cluster, "mine", EIP4, EIP6)
    cluster.egw("delete", "egcp", "by-namespace")

    subnet = policy("by-subnet", namespace="red")
    subnet["spec"]["appliedTo"] = {"podSubnet": [own(cluster, "other") + "/32", own(cluster, "other", 6) + "/128",
                                                 own(cluster, "theirs") + "/32"]}
    cluster.apply(subnet)
    sees(cluster, "other", EIP4, EIP6)
    stays(cluster, "theirs")  # of another namespace
    stays(cluster, "mine")


def test_which_policy_wins(make_cluster):
    """Lower priority number first; a lower policy's longer prefix does not count; then the namespaced one."""
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(GATEWAY)
    cluster.add_pod("pod", "n1", {"app": "shop"})
    other = {"egressIP": {"ipv4": OTHER4, "ipv6": OTHER6}}
    cluster.apply(policy("first", dest=WIDE, priority=10))
    sees(cluster, "pod", EIP4, EIP6)
    cluster.apply(policy("longer", dest=NARROW, priority=20, **other))
    cluster.wait("egp", "longer", lambda p: p.get("status", {}).get("eip", {}).get("ipv4"), namespace="default")
    sees(cluster, "pod", EIP4, EIP6)
    cluster.apply(policy("longer", dest=NARROW, priority=5, **other))
    sees(cluster, "pod", OTHER4, OTHER6)
    cluster.apply(policy("longer", dest=ELSEWHERE, priority=5, **other))
    sees(cluster, "pod", EIP4, EIP6)
    cluster.apply(policy("first", dest=["0.0.0.0/0", "::/0"], priority=10))
    sees(cluster, "pod", EIP4, EIP6)
    cluster.apply(cluster_policy("wide", dest=NARROW, priority=10, **other))
    cluster.wait("egcp", "wide", lambda p: p.get("status", {}).get("eip", {}).get("ipv4"))
    sees(cluster, "pod", EIP4, EIP6)
    cluster.egw("delete", "egp", "first", "-n", "default")
    sees(cluster, "pod", OTHER4, OTHER6)


def test_which_address(make_cluster):
    """rr walks the pool and a policy without an address waits for one; an explicit address may be shared."""
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(GATEWAY)
    for i in (1, 2, 3):
        cluster.add_pod(f"pod{i}", "n1", {"app": f"a{i}"})
    rr = {"egressIP": {"allocatorPolicy": "rr"}}
    for i in (1, 2):
        cluster.apply(policy(f"p{i}", labels={"app": f"a{i}"}, **rr))
        cluster.wait("egp", f"p{i}", lambda p: p.get("status", {}).get("eip", {}).get("ipv4"), namespace="default")
    got = [cluster.get("egp", f"p{i}", namespace="default")["status"]["eip"] for i in (1, 2)]
    assert sorted(e["ipv4"] for e in got) == sorted([EIP4, OTHER4])
    assert sorted(e["ipv6"] for e in got) == sorted([EIP6, OTHER6])
    for i in (1, 2):
        sees(cluster, f"pod{i}", got[i - 1]["ipv4"], got[i - 1]["ipv6"])

    cluster.apply(policy("p3", labels={"app": "a3"}, **rr))
    waiting, _ = cluster.wait("egp", "p3", lambda p: any(
        c["status"] != "True" for c in p.get("status", {}).get("conditions", [])), namespace="default")
    assert not waiting["status"].get("eip", {}).get("ipv4")
    wait_source(cluster, "pod3", None)  # dropped: never with its own address
    said = cluster.egw("status", "--local", "--state-dir", os.path.join(cluster.dir, "state", "n1"), "-o", "json").stdout
    assert any("reason=no_egress" in why and packets > 0 for why, packets in json.loads(said)["agent"]["dropped"].items()), said
    cluster.egw("delete", "egp", "p1", "-n", "default")
    sees(cluster, "pod3", got[0]["ipv4"], got[0]["ipv6"])
    stays(cluster, "pod1")
    cluster.apply(policy("p1", labels={"app": "a1"}, egressIP={"ipv4": got[1]["ipv4"], "ipv6": got[1]["ipv6"]}))
    sees(cluster, "pod1", got[1]["ipv4"], got[1]["ipv6"])


def test_which_gateway(make_cluster):
    """The gateway named, else the namespace's, else the cluster's default."""
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(GATEWAY, gateway("second", ["10.6.1.70"], ["fd00::70"]), gateway("third", ["10.6.1.80"], ["fd00::80"]),
                  namespace("plain"), namespace("special", **{"spidernet.io/egressgateway-default": "second"}))
    wants = {"plain": (EIP4, EIP6), "special": ("10.6.1.70", "fd00::70")}
    for ns, (v4, v6) in wants.items():
        cluster.add_pod(f"in-{ns}", "n1", {"app": "shop"}, namespace=ns)
        cluster.apply(policy("p", namespace=ns))
        sees(cluster, f"in-{ns}", v4, v6)
    cluster.add_pod("named", "n1", {"app": "named"}, namespace="special")
    cluster.apply(policy("q", namespace="special", labels={"app": "named"}, egressGatewayName="third"))
    sees(cluster, "named", "10.6.1.80", "fd00::80")


def test_use_node_ip_moves_with_the_node(make_cluster):
    cluster = make_cluster(nodes=3, gateways=2)
    cluster.apply(GATEWAY, policy(egressIP={"useNodeIP": True}))
    cluster.add_pod("pod", "n1", {"app": "shop"})
    found, _ = cluster.wait("egp", "shop", lambda p: p.get("status", {}).get("node"), namespace="default")
    node = found["status"]["node"]
    sees(cluster, "pod", cluster.address(node), cluster.address(node, 6))
    # Connections to the gateway node itself are its own business.
    assert cluster.source("pod", 4) == cluster.address(node)
    cluster.power_off(node)
    other = next(n for n in cluster.gateways if n != node)
    sees(cluster, "pod", cluster.address(other), cluster.address(other, 6))
    cluster.wait("egp", "shop", lambda p: p.get("status", {}).get("node") == other, namespace="default")


def test_without_any_gateway(make_cluster):
    """No Ready node: Drop drops, NodeIP leaves with the node's address after one timeout; then the same EIPs again."""
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(GATEWAY)
    cluster.add_pod("drop", "n1", {"app": "drop"})
    cluster.add_pod("nodeip", "n1", {"app": "nodeip"})
    other = {"egressIP": {"ipv4": OTHER4, "ipv6": OTHER6}}
    cluster.apply(policy("drop", labels={"app": "drop"}),
                  policy("nodeip", labels={"app": "nodeip"}, failurePolicy="NodeIP", **other))
    placed(cluster)
    sees(cluster, "drop", EIP4, EIP6)
    sees(cluster, "nodeip", OTHER4, OTHER6)
    cluster.server_stop()
    cluster.server_start()
    cluster.power_off("n2")
    sees(cluster, "nodeip", cluster.address("n1"), cluster.address("n1", 6))
    wait_source(cluster, "drop", None)
    gone = cluster.get("egw", "egw")["status"]
    assert any(c["reason"] == "OwnerNotReady" or c["type"] == "OwnerNotReady" for c in gone["conditions"]), gone
    cluster.power_on("n2")
    sees(cluster, "drop", EIP4, EIP6)
    sees(cluster, "nodeip", OTHER4, OTHER6)
    seen = set(cluster.server_stop()["sources"])
    assert not seen & {own(cluster, p, f) for p in ("drop", "nodeip") for f in (4, 6)}, "a pod's address leaked"


def degraded(cluster, name):
    conditions = cluster.get("egp", name, "default").get("status", {}).get("conditions", [])
    return next((c["message"] for c in conditions if c["type"] == "Degraded"), "")


def test_without_any_selected_node(make_cluster):
    """The last gateway node is deselected: NodeIP waits for one timeout as after a failure, for an EIP never served, too."""
    cluster = make_cluster(nodes=2, gateways=1)
    timeout = cluster.timeouts[2]
    cluster.apply(GATEWAY, policy("old", labels={"app": "old"}, failurePolicy="NodeIP"))
    cluster.add_pod("old", "n1", {"app": "old"})
    cluster.add_pod("new", "n1", {"app": "new"})
    sees(cluster, "old", EIP4, EIP6)
    deselected = cluster.node_manifest("n2")
    selected = copy.deepcopy(deselected)
    deselected["metadata"]["labels"]["egress"] = "no"
    began = time.monotonic()
    cluster.apply(deselected)
    cluster.wait("egp", "old", lambda p: not p["status"].get("node"), namespace="default")
    assert "dropped until" in degraded(cluster, "old")
    sees(cluster, "old", cluster.address("n1"), cluster.address("n1", 6))
    assert time.monotonic() - began >= timeout, "the node's address came out before one eipEvictionTimeout"
    cluster.wait("egp", "old", lambda p: "leave with their node's address" in degraded(cluster, "old"), namespace="default")

    # What was never served: its time begins when the policy is made.
    began = time.monotonic()
    cluster.apply(policy("new", labels={"app": "new"}, failurePolicy="NodeIP", egressIP={"ipv4": OTHER4, "ipv6": OTHER6}))
    sees(cluster, "new", cluster.address("n1"), cluster.address("n1", 6))
    assert time.monotonic() - began >= timeout, "the node's address came out before one eipEvictionTimeout"

    cluster.apply(selected)
    sees(cluster, "old", EIP4, EIP6)
    sees(cluster, "new", OTHER4, OTHER6)
    (move,) = [c for c in cluster.get("egw", "egw")["status"]["conditions"] if c["type"] == "LastMove"]
    assert "from n2 to n2 (NodeNotSelected, unserved for " in move["message"], move
    told = {e["reason"]: e["note"] for e in cluster.get("events")}
    assert f"{EIP4}/{EIP6} leaves n2: NodeNotSelected" in told["EipUnplaced"] and "unserved for" in told["EipMoved"], told


def test_an_eip_that_a_node_turns_out_to_have(make_cluster):
    """It is not placed, and nobody announces it, until the node has another address."""
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(GATEWAY, policy())
    cluster.add_pod("pod", "n1", {"app": "shop"})
    sees(cluster, "pod", EIP4, EIP6)
    late = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "late", "labels": {}},
            "status": {"addresses": [{"type": "InternalIP", "address": EIP4}]}}
    cluster.apply(late)
    wait_source(cluster, "pod", None)
    found, _ = cluster.wait("egp", "shop", lambda p: any(
        c["type"] == "Placed" and c["reason"] == "PoolConflict" for c in p["status"]["conditions"]), namespace="default")
    told = {c["type"]: c for c in found["status"]["conditions"]}
    assert f"{EIP4} of the pool belongs to the address of node late" in told["Placed"]["message"], told
    assert told["Degraded"]["reason"] == "PoolConflict" and "dropped" in told["Degraded"]["message"], told
    status = cluster.egw("status", check=False)
    assert status.returncode == 1 and "PoolConflict" in status.stdout, status.stdout
    late["status"]["addresses"][0]["address"] = "10.6.0.99"
    cluster.apply(late)
    sees(cluster, "pod", EIP4, EIP6)
    assert any("PoolConflict" in e["reason"] and "node late" in e["note"] for e in cluster.get("events"))


def test_a_gateway_of_one_family(make_cluster):
    """A gateway without an IPv6 pool leaves IPv6 alone: it covers IPv4 only."""
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(gateway("four", ["10.6.1.90"], default=True), policy())
    cluster.add_pod("pod", "n1", {"app": "shop"})
    sees(cluster, "pod", "10.6.1.90", own(cluster, "pod", 6))
    assert "left alone: EgressGateway four has no IPv6 addresses" in cluster.egw("why", "default/pod", SERVER6).stdout
    (said,) = [c for c in cluster.get("egp", "shop", "default")["status"]["conditions"] if c["type"] == "FamilyNotCovered"]
    assert said["status"] == "True" and "EgressGateway four has no IPv6 addresses" in said["message"], said
