"""What the API promises, seen in packets: pools that change, tenants, nested prefixes, drains, slices."""

import copy
import json
import time

from conftest import EIP4, EIP6, GATEWAY, placed, policy, result_line, sources, wait_source
from test_semantics import OTHER4, OTHER6, cluster_policy, namespace, own, sees, stays


def pools(ipv4, ipv6):
    out = copy.deepcopy(GATEWAY)
    out["spec"]["ippools"].update(ipv4=ipv4, ipv6=ipv6)
    return out


def condition(obj, kind):
    return next((c for c in obj.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def listed(cluster, endpoints, timeout=10):
    """Waits until the slices in the store hold these endpoints and no others."""
    begin, found = time.monotonic(), None
    while found != endpoints:
        assert time.monotonic() - begin < timeout, found
        time.sleep(0.05)
        found = [e for s in cluster.get("egep") for e in s["endpoints"]]


def test_a_pool_changes_under_traffic(shop):
    """Grown and shrunk around an EIP in use, no packet of it is lost; what is in use cannot be taken out."""
    t4, t6 = shop.traffic("pod1", 4, streams=4), shop.traffic("pod1", 6)
    shop.apply(pools(["10.6.1.50-10.6.1.60"], ["fd00::50-fd00::5a"]))
    shop.wait("egw", "egw", lambda g: g["status"]["ipUsage"]["ipv4Total"] == 11)
    shop.add_pod("late", "n1", {"app": "late"})
    shop.apply(policy("late", labels={"app": "late"}, egressIP={"ipv4": "10.6.1.60"}))
    wait_source(shop, "late", "10.6.1.60")
    shop.apply(pools([EIP4, "10.6.1.60"], [EIP6, "fd00::5a"]))
    shop.wait("egw", "egw", lambda g: g["status"]["ipUsage"]["ipv4Total"] == 2)
    without = copy.deepcopy(GATEWAY)
    without["spec"]["ippools"] = {"ipv4": ["10.6.1.60"], "ipv6": ["fd00::5a"]}
    path = shop.dir + "/without.json"
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(without))
    refused = shop.egw("apply", "-f", path, check=False)
    assert refused.returncode == 1 and EIP4 in refused.stderr, refused
    r4, r6 = t4.stop(), t6.stop()
    result_line("pool changed under traffic", lost=r4["lost"] + r6["lost"], resets=r4["tcp_resets"])
    assert (r4["lost"], r6["lost"], r4["tcp_resets"]) == (0, 0, 0)
    assert sources(r4) == [EIP4] and sources(r6) == [EIP6]


def test_drain_under_traffic(shop):
    """`egw drain` hands over without loss; `egw undrain` moves nothing back."""
    old = shop.owner("egw", EIP4)
    t4, t6 = shop.traffic("pod1", 4, streams=8), shop.traffic("pod1", 6)
    # As people take a request back with kubectl.
    shop.apply({"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressTunnel",
                "metadata": {"name": old, "annotations": {"egressgateway.spidernet.io/drain": "false"}}})
    assert shop.egw("drain", old).stdout == f"node/{old} draining\n"
    shop.wait("egt", old, lambda t: condition(t, "Drained").get("status") == "True")
    new = shop.owner("egw", EIP4)
    assert new != old
    shop.egw("undrain", old)
    shop.wait("egt", old, lambda t: not condition(t, "Drained"))
    assert shop.owner("egw", EIP4) == new
    r4, r6 = t4.stop(), t6.stop()
    result_line("egw drain, pod on a client", lost=r4["lost"] + r6["lost"], resets=r4["tcp_resets"])
    assert (r4["lost"], r6["lost"], r4["tcp_resets"]) == (0, 0, 0)
    assert sources(r4) == [EIP4] and sources(r6) == [EIP6]


def test_tenants_are_kept_apart(make_cluster):
    """A gateway of some namespaces is refused to others, also to those that lose their label; podSubnet selects no
    pod of another namespace."""
    cluster = make_cluster(nodes=2, gateways=1)
    tenant = copy.deepcopy(GATEWAY)
    tenant["spec"]["allowedNamespaces"] = {"matchLabels": {"tenant": "red"}}
    cluster.apply(tenant, namespace("red", tenant="red"), namespace("blue", tenant="blue"))
    for ns in ("red", "blue"):
        cluster.add_pod(f"in-{ns}", "n1", {"app": "shop"}, namespace=ns)
    cluster.apply(policy(namespace="red"))
    sees(cluster, "in-red", EIP4, EIP6)
    path = cluster.dir + "/blue.json"
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(policy(namespace="blue")))
    refused = cluster.egw("apply", "-f", path, check=False)
    assert refused.returncode == 1 and "allowedNamespaces" in refused.stderr, refused
    stays(cluster, "in-blue")

    subnet = policy("theirs", namespace="red", priority=-1, egressIP={"ipv4": OTHER4, "ipv6": OTHER6})
    subnet["spec"]["appliedTo"] = {"podSubnet": [own(cluster, "in-blue") + "/16", own(cluster, "in-blue", 6) + "/48"]}
    cluster.apply(subnet)
    sees(cluster, "in-red", OTHER4, OTHER6)
    stays(cluster, "in-blue")
    cluster.egw("delete", "egp", "theirs", "-n", "red")
    sees(cluster, "in-red", EIP4, EIP6)

    cluster.apply(namespace("red", tenant="none"))
    found, _ = cluster.wait("egp", "shop", lambda p: condition(p, "Allocated").get("status") == "False", namespace="red")
    assert condition(found, "Allocated")["reason"] == "NamespaceNotAllowed"
    wait_source(cluster, "in-red", None)  # dropped: neither the EIP nor the pod's own address


def test_nested_prefixes(make_cluster):
    """Prefixes inside each other and inside /0, in one policy and in two."""
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(GATEWAY)
    cluster.add_pod("pod", "n1", {"app": "shop"})
    nested = ["0.0.0.0/0", "10.0.0.0/8", "10.6.0.0/16", "10.6.0.0/24", "::/0", "fd00::/16", "fd00::/64"]
    cluster.apply(policy("one", dest=nested, priority=10))
    sees(cluster, "pod", EIP4, EIP6)
    cluster.apply(cluster_policy("all", dest=["0.0.0.0/0", "::/0"], priority=5,
                                 egressIP={"ipv4": OTHER4, "ipv6": OTHER6}))
    sees(cluster, "pod", OTHER4, OTHER6)
    # What the better policy leaves out goes on to the next.
    cluster.apply(cluster_policy("all", dest=["0.0.0.0/5", "2000::/3"], priority=5,
                                 egressIP={"ipv4": OTHER4, "ipv6": OTHER6}))
    sees(cluster, "pod", EIP4, EIP6)


def test_realised_and_slices_follow(make_cluster):
    """A policy's Realised is True when its packets leave with the EIP; its pods stand in its slices."""
    cluster = make_cluster(nodes=3, gateways=2)
    cluster.apply(GATEWAY, policy())
    cluster.add_pod("pod", "n1", {"app": "shop"})
    placed(cluster)
    found, _ = cluster.wait("egp", "shop", lambda p: condition(p, "Realised").get("status") == "True",
                            namespace="default")
    assert cluster.source("pod", 4) == found["status"]["eip"]["ipv4"] == EIP4
    assert not condition(found, "Degraded")
    cluster.wait("egw", "egw", lambda g: condition(g, "Realised").get("status") == "True")

    listed(cluster, [{"pod": "pod", "ns": "default", "node": "n1", "ipv4": [own(cluster, "pod")],
                      "ipv6": [own(cluster, "pod", 6)]}])
    cluster.egw("delete", "egp", "shop", "-n", "default")
    listed(cluster, [])
    assert not cluster.get("egep")
