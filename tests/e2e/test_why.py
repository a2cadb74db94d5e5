"""`egw why`: the answer is what the outside server sees."""

import json

from conftest import EIP4, EIP6, GATEWAY, policy, wait_source
from lab.cluster import SERVER4, SERVER6


def why(cluster, *args):
    done = cluster.egw("why", *args, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_says_what_happens(shop):
    owner = shop.owner("egw", EIP4)
    shop.apply(policy("later", priority=5, dest=[SERVER4 + "/32"]),
               policy("elsewhere", priority=-5, dest=["203.0.113.0/24"], egressIP={"ipv4": "10.6.1.55", "ipv6": "fd00::56"}))
    shop.wait("egp", "elsewhere", lambda p: p.get("status", {}).get("node"), namespace="default")
    shop.wait("egp", "later", lambda p: p.get("status", {}).get("node"), namespace="default")
    revision = int(shop.get("egw", "egw")["metadata"]["resourceVersion"])
    for node in shop.nodes:
        shop.wait("egt", node, lambda t: t["status"]["realised"]["revision"] >= revision)
    answer = json.loads(why(shop, "default/pod1", SERVER4, "-o", "json"))
    assert [(p["policy"], p["verdict"]) for p in answer["policies"]] == [
        ("egresspolicy/default/elsewhere", "does not cover the destination"),
        ("egresspolicy/default/shop", "decides"),
        ("egresspolicy/default/later", "comes after the one that decides")]
    (rule,) = answer["rules"]
    assert (rule["source"], rule["node"], rule["gateway"], rule["nodeStatus"]) == (EIP4, owner, "egw", "Ready")
    assert rule["programmed"] == {"on": sorted(shop.nodes), "notYet": []}
    wait_source(shop, "pod1", rule["source"])
    text = why(shop, "pod1", SERVER6)
    assert f"leaves with {EIP6} from node {owner}, Ready" in text and "programmed on: n1, n2, n3, n4" in text
    wait_source(shop, "pod1", EIP6, family=6)

    assert "is in 10.244.1.0/24, which is the cluster's own" in why(shop, "pod1", "10.244.1.77")
    text = why(shop, "pod1")
    assert "203.0.113.0/24: leaves with 10.6.1.55 " in text and f"0.0.0.0/0: leaves with {EIP4} " in text


def test_says_why_nothing_applies(shop):
    shop.add_pod("bare", "n1", {"app": "none"})
    assert "No policy selects it." in why(shop, "bare")
    assert "left alone: no policy selects the pod" in why(shop, "bare", SERVER4)
    pod = shop.pod_manifest("bare")
    pod["spec"]["hostNetwork"] = True
    shop.egw("delete", "pod", "bare", "-n", "default")
    shop.apply(pod)
    assert "No policy applies: it has hostNetwork" in why(shop, "bare")
    missing = shop.egw("why", "default/nobody", check=False)
    assert missing.returncode == 1 and 'pods "nobody" not found in namespace "default"' in missing.stderr
    assert shop.egw("why", "pod1", "10.6.0", check=False).returncode == 2


def test_says_that_another_pod_has_the_address(shop):
    """The kernel, `egw why` and the slices agree on an address that two pods claim."""
    for name, app, created in (("a-dup", "shop", "2026-01-01T00:00:00Z"), ("b-dup", "none", "2026-01-01T00:00:01Z")):
        pod = shop.pod_manifest("pod1")
        pod["metadata"] = {"name": name, "namespace": "default", "labels": {"app": app}, "creationTimestamp": created}
        pod["status"]["podIPs"] = [{"ip": "10.244.1.99"}]
        pod["status"]["podIP"] = "10.244.1.99"
        shop.apply(pod)
    said = "No policy applies: another pod (default/b-dup) has this address: 10.244.1.99."
    for more in ((), (SERVER4,)):
        assert said in why(shop, "a-dup", *more)
    assert "No policy selects it." in why(shop, "b-dup")
    shop.egw("delete", "pod", "b-dup", "-n", "default")
    assert f"leaves with {EIP4} " in why(shop, "a-dup", SERVER4)
    shop.egw("delete", "pod", "a-dup", "-n", "default")


def test_says_why_a_policy_does_not_steer(shop):
    shop.add_pod("waits", "n1", {"app": "waits"})
    shop.apply(policy("typo", labels={"app": "waits"}, egressGatewayName="egww"))
    shop.wait("egp", "typo", lambda p: p.get("status", {}).get("conditions"), namespace="default")
    (degraded,) = [c for c in shop.get("egp", "typo", "default")["status"]["conditions"] if c["type"] == "Degraded"]
    assert degraded["reason"] == "GatewayNotFound" and "dropped" in degraded["message"], degraded
    wait_source(shop, "waits", None)
    for text in (why(shop, "waits", SERVER4), why(shop, "waits")):
        assert "dropped: egresspolicy/default/typo (EgressGateway egww, no EIP): GatewayNotFound" in text, text
    (rule,) = json.loads(why(shop, "waits", SERVER4, "-o", "json"))["rules"]
    assert (rule["action"], rule["gateway"], rule["reason"]) == ("drop", "egww", "GatewayNotFound")
    shop.egw("delete", "egp", "typo", "-n", "default")


def test_says_that_the_owner_is_gone(make_cluster):
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(GATEWAY, policy())
    cluster.add_pod("pod", "n1", {"app": "shop"})
    wait_source(cluster, "pod", EIP4)
    cluster.power_off("n2")
    cluster.wait("egw", "egw", lambda g: g["status"]["nodeList"][0]["status"] == "HeartbeatTimeout")
    text = why(cluster, "pod", SERVER4)
    assert f"leaves with {EIP4} from node n2, HeartbeatTimeout" in text, text
