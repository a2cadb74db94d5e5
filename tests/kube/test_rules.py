"""What admission refuses by the object alone is refused without a webhook, too: one table, asked of the rules in the CRDs and
of the webhook. docs/adr/0026-rules-in-the-crds.md says which rules the CRDs have."""

import copy
import json

import pytest
import yaml
from kube_support import wait_for
from test_egw import Cluster
from test_webhook import HEALTH, PORTS, WebhookCluster, ready

API = "egressgateway.spidernet.io/v1beta1"


def gateway(text="", **pools):
    spec = {"nodeSelector": {"selector": {"matchLabels": {"egress": "true"}}}, **(yaml.safe_load(text) or {})}
    return "EgressGateway", {**spec, **({"ippools": pools} if pools else {})}


def policy(text="", kind="EgressPolicy"):
    return kind, {"egressGatewayName": "web", "appliedTo": {"podSelector": {}}, **(yaml.safe_load(text) or {})}


def cluster_policy(text=""):
    return policy(text, "EgressClusterPolicy")


def info(text):
    return "EgressClusterInfo", yaml.safe_load(text)


def pool(entry, family=4):
    return gateway(**{f"ipv{family}": [entry]})


def eip(text):
    return policy(f"egressIP: {text}")


NO_SOURCE = "and cannot be a source; want "
# name: what is created, the field that is refused and words of the refusal; neither: it is taken
CREATED = {
    "gateway": (gateway(ipv4=["10.7.0.1", "10.7.0.3-10.7.0.9", "10.7.1.0/28", "10.7.2.0/31"]),),
    "gateway of both families": (gateway(ipv4=["10.7.0.1-10.7.0.16", "10.7.1.0/32"], ipv6=["fd07::10-fd07::1f", "FD07::0020"]),),
    "gateway without addresses": (gateway(),),
    "no spec of a gateway": (("EgressGateway", None), "spec.nodeSelector.selector", "empty; want the labels of the gateway nodes"),
    "no selector": (gateway("nodeSelector: null"), "spec.nodeSelector.selector", "empty; want the labels of the gateway nodes"),
    "empty selector": (gateway("nodeSelector: {selector: {matchLabels: {}}}"), "spec.nodeSelector.selector", "empty; want"),
    "selector by expression": (gateway("nodeSelector: {selector: {matchExpressions: [{key: a, operator: Exists}]}}"),),
    "In without values": (gateway("nodeSelector: {selector: {matchExpressions: [{key: a, operator: In}]}}"),
                          "matchExpressions[0].values", "want at least one value for In and NotIn"),
    "Exists with values": (gateway("nodeSelector: {selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}"),
                           "matchExpressions[0].values", "no values for Exists and DoesNotExist"),
    "label key": (gateway("nodeSelector: {selector: {matchLabels: {'a b': c}}}"), "selector.matchLabels", "label key"),
    "label value": (gateway("allowedNamespaces: {matchLabels: {a: 'b c'}}"), "spec.allowedNamespaces.matchLabels.a", "b c"),
    "key of an expression": (gateway("nodeSelector: {selector: {matchExpressions: [{key: a/b/c, operator: Exists}]}}"),
                             "matchExpressions[0].key", "a/b/c"),
    "no address": (pool("10.7.0.300"), "spec.ippools.ipv4[0]", '"10.7.0.300" is not an IP address (like'),
    "leading zeros": (pool("10.7.0.01"), "spec.ippools.ipv4[0]", "is not an IP address (like"),
    "IPv4 as IPv6": (pool("::ffff:10.7.0.1", 6), "spec.ippools.ipv6[0]", "is not an IP address (like"),
    "zone": (pool("fd07::1%eth0", 6), "spec.ippools.ipv6[0]", "is not an IP address (like"),
    "half a range": (pool("10.7.0.1-"), "spec.ippools.ipv4[0]", '"10.7.0.1-" is not a range'),
    "reversed range": (pool("10.7.0.20-10.7.0.10"), "spec.ippools.ipv4[0]", "is a reversed range; write 10.7.0.10-10.7.0.20"),
    "reversed by the first number": (pool("11.7.0.1-10.8.0.2"), "spec.ippools.ipv4[0]", "is a reversed range; write 10.8.0.2-11.7.0.1"),
    "reversed IPv6 range": (pool("fd07::10-fd07::9", 6), "spec.ippools.ipv6[0]", "is a reversed range; write fd07::9-fd07::10"),
    "range of one": (pool("fd07::a-fd07::a", 6),),
    "IPv6 ranges in order": (gateway(ipv6=["fd07::9-fd07::10", "fd07:0::99-fd07:0::100", "fd07::1:1-fd07::2:0", "fd08::-fd08::1"]),),
    "bad length": (pool("10.7.0.0/33"), "spec.ippools.ipv4[0]", '"10.7.0.0/33" is not a prefix'),
    "host bits": (pool("10.7.0.5/28"),),
    "IPv6 among IPv4": (pool("fd07::1"), "spec.ippools.ipv4[0]", '"fd07::1" is not IPv4; write it under the other family'),
    "IPv4 among IPv6": (pool("10.7.0.0/24", 6), "spec.ippools.ipv6[0]", '"10.7.0.0/24" is not IPv6; write it under the other'),
    **{f"source {entry}": (pool(entry), "spec.ippools.ipv4[0]", NO_SOURCE + "unicast addresses") for entry in (
        "0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.9.9", "224.0.0.1", "240.0.0.1", "255.255.255.255", "0.0.0.0/0", "126.0.0.0/7",
        "223.0.0.1-224.0.0.1", "126.0.0.1-128.0.0.1", "169.253.255.255-169.255.0.0", "169.254.1.0/24")},
    **{f"source {entry}": (pool(entry, 6), "spec.ippools.ipv6[0]", NO_SOURCE + "unicast addresses") for entry in (
        "::", "::1", "::7:7", "fe80::1", "fec0::1", "ff02::1", "fe00::/7", "fd07::1-ff02::1", "::/0")},
    "beside what is no source": (gateway(ipv4=["1.0.0.1", "126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.1", "223.255.255.1",
                                               "100.64.0.1-100.64.0.9", "192.0.2.0/29"]),),
    "default EIP": (gateway(ipv4=["10.7.0.1-10.7.0.9"], ipv4DefaultEIP="10.7.0.9"),),
    "default EIP of a prefix": (gateway(ipv4=["10.7.0.0/30"], ipv4DefaultEIP="10.7.0.2"),),
    "default EIP of a short prefix": (gateway(ipv4=["10.7.0.0/31"], ipv4DefaultEIP="10.7.0.0"),),
    "default EIP in another spelling": (gateway(ipv6=["fd07::1", "fd07::a-fd07::f"], ipv6DefaultEIP="fd07:0::000C"),),
    "default EIP no address": (gateway(ipv4=["10.7.0.1"], ipv4DefaultEIP="first"), "spec.ippools.ipv4DefaultEIP", "is not an IP address"),
    "default EIP outside": (gateway(ipv4=["10.7.0.1", "10.7.0.4-10.7.0.9"], ipv4DefaultEIP="10.7.0.3"), "spec.ippools.ipv4DefaultEIP",
                            "10.7.0.3 is not in spec.ippools.ipv4; want an address of the pool"),
    "default EIP first of a prefix": (gateway(ipv4=["10.7.0.4/30"], ipv4DefaultEIP="10.7.0.4"), "spec.ippools.ipv4DefaultEIP", "is not in"),
    "default EIP last of a prefix": (gateway(ipv4=["10.7.0.4/30"], ipv4DefaultEIP="10.7.0.7"), "spec.ippools.ipv4DefaultEIP", "is not in"),
    "default EIP outside IPv6": (gateway(ipv6=["fd07::1", "fd07::a-fd07::f"], ipv6DefaultEIP="fd07::10"), "spec.ippools.ipv6DefaultEIP",
                                 "fd07::10 is not in spec.ippools.ipv6"),
    "default EIP of the other family": (gateway(ipv4=["10.7.0.1"], ipv4DefaultEIP="fd07::1"), "spec.ippools.ipv4DefaultEIP", "is not in"),
    "default EIP of no pool": (gateway(ipv4=["10.7.0.1"], ipv6DefaultEIP="fd07::1"), "spec.ippools.ipv6DefaultEIP", "is not in"),
    "half a default": (gateway(ipv4=["10.7.0.1"], ipv6=["fd07::1"], ipv4DefaultEIP="10.7.0.1"), "spec.ippools.ipv6DefaultEIP",
                       "empty, while the other family's default is given; want both"),
    "other half": (gateway(ipv4=["10.7.0.1"], ipv6=["fd07::1"], ipv6DefaultEIP="fd07::1"), "spec.ippools.ipv4DefaultEIP", "want both"),
    "both defaults": (gateway(ipv4=["10.7.0.1"], ipv6=["fd07::1"], ipv4DefaultEIP="10.7.0.1", ipv6DefaultEIP="fd07::1"),),
    "unequal counts": (gateway(ipv4=["10.7.0.1", "10.7.0.2"], ipv6=["fd07::1"]), "spec.ippools", "EIPs come in pairs: want as many of each"),
    "one twice": (gateway(ipv4=["10.7.0.1", "10.7.0.1"], ipv6=["fd07::1"]),),
    "one twice in other words": (gateway(ipv4=["10.7.0.1"], ipv6=["fd07::1", "fd07:0::1"]),),

    "policy": (policy("destSubnet: [0.0.0.0/0, '::/0', 1.1.1.1, 198.51.100.7/24]"),),
    "no spec of a policy": (("EgressPolicy", None), "spec.appliedTo", "neither podSelector nor podSubnet; want one of them"),
    "no spec of a cluster policy": (("EgressClusterPolicy", None), "spec.appliedTo", "neither podSelector, podSubnet nor namespaceSelector"),
    "no appliedTo": (policy("appliedTo: null"), "spec.appliedTo", "neither podSelector nor podSubnet; want one of them"),
    "empty appliedTo": (policy("appliedTo: {podSubnet: []}"), "spec.appliedTo", "neither podSelector nor podSubnet"),
    "both": (policy("appliedTo: {podSelector: {}, podSubnet: [10.244.0.0/16]}"), "spec.appliedTo", "want one of the two"),
    "by subnet": (policy("appliedTo: {podSubnet: [10.244.0.0/16, 'fd01::/48', 10.245.0.1]}"),),
    "by namespace": (cluster_policy("appliedTo: {namespaceSelector: {}}"),),
    "cluster policy of nobody": (cluster_policy("appliedTo: {}"), "spec.appliedTo", "neither podSelector, podSubnet nor namespaceSelector"),
    "cluster policy of both": (cluster_policy("appliedTo: {podSelector: {}, podSubnet: [10.244.0.0/16]}"), "spec.appliedTo", "want one of the two"),
    "bad podSubnet": (policy("appliedTo: {podSubnet: [10.244.0.0/16, pods]}"), "spec.appliedTo.podSubnet[1]", '"pods" is not a prefix'),
    "bad destSubnet": (policy("destSubnet: [1.1.1.1, 10.0.0.0/99]"), "spec.destSubnet[1]", '"10.0.0.0/99" is not a prefix'),
    "bad podSelector": (policy("appliedTo: {podSelector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}}"),
                        "podSelector.matchExpressions[0].values", "want at least one value for In and NotIn"),
    "EIP": (eip("{ipv4: 10.9.0.11}"),),
    "pair": (eip("{ipv4: 10.9.0.10, ipv6: 'FD09::0010'}"),),
    "no EIP": (eip("{ipv4: '', ipv6: ''}"),),
    "node": (eip("{useNodeIP: true}"),),
    "node and EIP": (eip("{useNodeIP: true, ipv4: 10.9.0.11}"), "spec.egressIP", "want the node's address (leave ipv4 and ipv6 out) or an EIP"),
    "EIP no address": (eip("{ipv4: 999.1.1.1}"), "spec.egressIP.ipv4", '"999.1.1.1" is not an IP address (like 10.6.1.55 or fd00::55)'),
    "EIP of the other family": (eip("{ipv6: 10.9.0.11}"), "spec.egressIP.ipv6", "10.9.0.11 is not IPv6; want an address of that family"),
    "IPv6 EIP as IPv4": (eip("{ipv4: 'fd09::11'}"), "spec.egressIP.ipv4", "fd09::11 is not IPv4; want an address of that family"),
    "EIP no source": (eip("{ipv4: 127.0.0.1}"), "spec.egressIP.ipv4", NO_SOURCE + "an address of the gateway's pool"),
    "IPv6 EIP no source": (eip("{ipv6: 'fe80::1'}"), "spec.egressIP.ipv6", NO_SOURCE + "an address of the gateway's pool"),

    "another info": (info("{}"), "metadata", "there is one EgressClusterInfo for people, named default"),
}
# name: what is stored, what it is changed to, and as above
CHANGED = {
    "priority": (policy(), policy("priority: 5")),
    "gateway": (policy(), policy("egressGatewayName: other"), "spec.egressGatewayName", '"other": cannot be changed, it is "web"'),
    "cluster policy's gateway": (cluster_policy(), cluster_policy("egressGatewayName: other"), "spec.egressGatewayName", "cannot be changed"),
    "to the node": (policy(), eip("{useNodeIP: true}"), "spec.egressIP.useNodeIP", '"true": cannot be changed, it is "false"; delete the policy'),
    "EIP": (eip("{ipv4: 10.9.0.11}"), eip("{ipv4: 10.9.0.12}"), "spec.egressIP.ipv4", '"10.9.0.12": cannot be changed, it is "10.9.0.11"'),
    "an EIP to none": (policy(), eip("{ipv4: 10.9.0.12}"), "spec.egressIP.ipv4", '"10.9.0.12": cannot be changed, it is ""'),
    "IPv6 EIP": (eip("{ipv6: 'fd09::11'}"), eip("{ipv6: 'fd09::12'}"), "spec.egressIP.ipv6", "cannot be changed"),
    "its spelling": (eip("{ipv6: 'fd09::11'}"), eip("{ipv6: 'FD09:0::0011'}")),
    "allocator": (policy(), eip("{allocatorPolicy: rr}"), "spec.egressIP.allocatorPolicy", '"rr": cannot be changed, it is "default"'),
    "allocator of one with rr": (eip("{allocatorPolicy: rr}"), eip("{allocatorPolicy: default}"), "spec.egressIP.allocatorPolicy",
                                 "cannot be changed"),
    "pods": (policy(), policy("appliedTo: {podSubnet: [10.244.0.0/16]}")),
    "to nobody": (policy(), policy("appliedTo: {}"), "spec.appliedTo", "neither"),
    "a family more": (gateway(ipv4=["10.7.0.1"], ipv4DefaultEIP="10.7.0.1"),
                      gateway(ipv4=["10.7.0.1"], ipv4DefaultEIP="10.7.0.1", ipv6=["fd07::1"], ipv6DefaultEIP="fd07::1"),
                      "spec.ippools.ipv6", "the stored gateway has no IPv6 addresses, and a family cannot be added"),
    "a pool for one without": (gateway(), gateway(ipv4=["10.7.0.1"], ipv4DefaultEIP="10.7.0.1"), "spec.ippools.ipv4",
                               "the stored gateway has no IPv4 addresses, and a family cannot be added"),
    "more addresses": (gateway(ipv4=["10.7.0.1"], ipv4DefaultEIP="10.7.0.1"),
                       gateway(ipv4=["10.7.0.1", "10.7.0.2"], ipv4DefaultEIP="10.7.0.2")),
    "default EIP left behind": (gateway(ipv4=["10.7.0.1"], ipv4DefaultEIP="10.7.0.1"),
                                gateway(ipv4=["10.7.0.1"], ipv4DefaultEIP="10.7.0.2"), "spec.ippools.ipv4DefaultEIP", "is not in"),
    "empty selector": (gateway(), gateway("nodeSelector: {selector: {}}"), "spec.nodeSelector.selector", "empty; want"),
    "extraCidr": (info("extraCidr: [10.1.0.0/16]"), info("extraCidr: [10.1.0.0/16, 'fd01::/64']")),
    "bad extraCidr": (info("{}"), info("extraCidr: [10.1.0.0/99]"), "spec.extraCidr[0]", '"10.1.0.0/99" is not a prefix'),
}


def document(what, name):
    kind, spec = what
    out = {"apiVersion": API, "kind": kind, "metadata": {"name": name}}
    if kind == "EgressPolicy":
        out["metadata"]["namespace"] = "default"
    return out if spec is None else {**out, "spec": spec}


class Alone(Cluster):
    """No webhook, no controller."""

    attempt = WebhookCluster.attempt


class Asked(WebhookCluster):
    """One controller, which has both families."""

    def __init__(self):
        PORTS.update(c1=25832, c2=25832)
        HEALTH.update(c1=25830)
        super().__init__()
        self.serve("c1")
        wait_for("c1 to be ready", lambda: ready("c1"))
        wait_for("its info", lambda: self.attempt("get", "egci", "default").returncode == 0)

    def command(self, kubeconfig, *arguments):
        return super().command(kubeconfig, "--set", "feature.enableIPv6=true", *arguments)


@pytest.fixture(scope="module", params=[Alone, Asked])
def cluster(request):
    c = request.param()
    try:
        put(c, document(gateway(ipv4=["10.9.0.10-10.9.0.20"], ipv6=["fd09::10-fd09::1a"], ipv4DefaultEIP="10.9.0.10",
                                ipv6DefaultEIP="fd09::10"), "web"))
        yield c
    finally:
        c.close()


def put(c, doc, verb="create", *options):
    def asked():
        done = c.attempt(verb, *options, "-f", "-", stdin=json.dumps(doc))
        return None if "failed calling webhook" in done.stderr else done  # the API server hears of the authority a moment later

    done = wait_for("the webhook to be asked", asked)
    if not options:
        assert done.returncode == 0, done.stderr
    return done


def judge(done, where="", words=""):
    said = " ".join(done.stderr.split())
    if where:
        assert done.returncode != 0 and where in said and words in said, said or "it was taken"
        assert "evaluating rule" not in said, "a rule that fails says nothing to its reader"
    else:
        assert done.returncode == 0, said


@pytest.mark.parametrize("name", CREATED)
def test_created(cluster, name):
    what, *refused = CREATED[name]
    done = put(cluster, document(what, "sample"), "create", "--dry-run=server", "--validate=strict")
    judge(done, *refused)
    if refused:
        assert ("denied the request" in done.stderr) == isinstance(cluster, Asked), done.stderr


@pytest.mark.parametrize("name", CHANGED)
def test_changed(cluster, name):
    before, after, *refused = CHANGED[name]
    of_info = before[0] == "EgressClusterInfo"
    called = "default" if of_info else "stored"
    first = document(before, called)
    put(cluster, first, "apply" if of_info else "create")
    try:
        changed = cluster.get(first["kind"], called)
        del changed["metadata"]["resourceVersion"]  # the leader may write its status in between
        changed["spec"] = copy.deepcopy(after[1])
        judge(put(cluster, changed, "replace", "--dry-run=server"), *refused)
    finally:
        if not of_info:
            cluster.kubectl("patch", first["kind"], called, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
            cluster.kubectl("delete", first["kind"], called, "--wait")


def test_the_largest_gateway_is_taken(cluster):
    """What is right does not cost too much: 10,000 ranges of each family, in the longest spelling that fits the server's limit."""
    four = [f"110.{100 + i // 100}.{100 + i % 100}.100-110.{100 + i // 100}.{100 + i % 100}.200" for i in range(10000)]
    six = [f"2001:db8:1111:2222:3333:4444:{i:x}:1000-2001:db8:1111:2222:3333:4444:{i:x}:1064" for i in range(10000)]
    done = put(cluster, document(gateway(ipv4=four, ipv6=six, ipv4DefaultEIP="110.100.100.100",
                                         ipv6DefaultEIP="2001:db8:1111:2222:3333:4444:0:1000"), "large"), "create", "--dry-run=server")
    judge(done)


@pytest.mark.parametrize("cluster", [Alone], indirect=True)
def test_what_was_stored_before_the_rules_can_be_kept(cluster):
    """A status, a finalizer, a label: whoever writes these is not asked about a spec that is older than the rules."""
    kinds = {"EgressGateway": "egressgateways", "EgressPolicy": "egresspolicies", "EgressClusterInfo": "egressclusterinfos"}
    rules = {}
    for kind, plural in kinds.items():
        rules[kind] = cluster.get("crd", f"{plural}.egressgateway.spidernet.io")["spec"]["versions"][0]["schema"]
        without = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        set_schema(cluster, plural, without)
    bad = [document(("EgressGateway", {"ippools": {"ipv4": ["nonsense"], "ipv4DefaultEIP": "1.1.1.1"}}), "old"),
           document(("EgressGateway", None), "bare"), document(("EgressPolicy", None), "bare"),
           document(("EgressPolicy", {"destSubnet": ["nonsense"], "egressIP": {"useNodeIP": True, "ipv4": "999.1.1.1"}}), "old"),
           document(("EgressClusterInfo", {"extraCidr": ["nonsense"]}), "old")]
    try:
        for doc in bad:
            wait_for("no rules", lambda doc=doc: cluster.attempt("apply", "-f", "-", stdin=json.dumps(doc)).returncode == 0)
    finally:
        for kind, plural in kinds.items():
            set_schema(cluster, plural, rules[kind])
    for kind in kinds:
        wait_for("rules", lambda kind=kind: cluster.attempt("create", "--dry-run=server", "-f", "-", stdin=json.dumps(
            document((kind, {"extraCidr": ["nonsense"]}), "other"))).returncode != 0)
    for doc in bad:
        kind, name = doc["kind"], doc["metadata"]["name"]
        cluster.kubectl("patch", kind, name, "--type=merge", "-p", '{"metadata": {"labels": {"a": "b"}, "finalizers": ["example.org/f"]}}')
        cluster.kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p",
                        '{"status": {"conditions": [{"type": "Accepted", "status": "False"}]}}')
        cluster.kubectl("patch", kind, name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    worse = cluster.attempt("patch", "egp", "old", "--type=merge", "-p", '{"spec": {"destSubnet": ["nonsense", "more"]}}')
    judge(worse, "spec.destSubnet[1]", '"more" is not a prefix')


def set_schema(cluster, plural, schema):
    cluster.kubectl("patch", "crd", f"{plural}.egressgateway.spidernet.io", "--type=json", "-p",
                    json.dumps([{"op": "replace", "path": "/spec/versions/0/schema", "value": schema}]))
