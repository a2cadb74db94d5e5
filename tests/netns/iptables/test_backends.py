"""Both backends: packets, others' rules, adoption, drift, purge, and which backend is chosen."""

import time

import pytest
from rig import EIP4, EIP6, net

OTHERS = ("{t} -w -t nat -N KUBE-SERVICES; {t} -w -t nat -A PREROUTING -j KUBE-SERVICES; "
          "{t} -w -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE; "
          "{t} -w -t mangle -A PREROUTING -p tcp --dport 9 -j MARK --set-mark 0x10000/0x10000; "
          "{t} -w -t raw -A PREROUTING -p tcp --dport 9 -j ACCEPT; {t} -w -A FORWARD -p tcp --dport 9 -j DROP")


def tools(backend):
    return [f"iptables-{backend}", f"ip6tables-{backend}"]


def saved(rig, node, backend, ours):
    """The rules that are ours, or those that are not, of both families."""
    lines = [line for t in tools(backend) for line in rig.sh(node, f"{t}-save").splitlines()
             if line.startswith(("-A", ":")) and " ACCEPT [" not in line]
    return [line.split(" [")[0] for line in lines if ("EGW-" in line) == ours]


def sources(pod):
    return [pod.source(4), pod.source(6)]


def test_others_are_left_alone_and_nothing_stays(rig, backend):
    bare = {n: rig.sh(n, "ip rule; ip -6 rule; ip route show table all; ipset list -n; ip -o link | wc -l") for n in rig.nodes}
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
    after = {n: rig.sh(n, "ip rule; ip -6 rule; ip route show table all; ipset list -n; ip -o link | wc -l") for n in rig.nodes}
    assert after == bare


def test_a_restarted_process_adopts(rig, pod, backend):
    before = {n: saved(rig, n, backend, ours=True) for n in rig.nodes}
    counts = rig.sh("n1", f"iptables-{backend}-save -c | grep -- '-g EGW-JUDGE'")
    assert sources(pod) == [EIP4, EIP6]
    counted = rig.sh("n1", f"iptables-{backend}-save -c | grep -- '-g EGW-JUDGE'")
    assert counted != counts
    for node in rig.nodes:
        rig.drivers.pop(node).stop(kill=True)
    assert all(a["repaired"] == {} for a in rig.apply().values())
    assert {n: saved(rig, n, backend, ours=True) for n in rig.nodes} == before
    # A chain that is written again counts from zero.
    assert rig.sh("n1", f"iptables-{backend}-save -c | grep -- '-g EGW-JUDGE'") == counted


DRIFT = {
    "chain flushed": "{t} -w -t mangle -F EGW-JUDGE",
    "rule added": "{t} -w -t mangle -I EGW-PRE 1 -j RETURN",
    "jump removed": "{t} -w -t mangle -F PREROUTING",
    "jump not first": "{t} -w -t nat -I POSTROUTING 1 -j MASQUERADE",
    "jump not last": "{t} -w -t nat -A PREROUTING -p tcp --dport 9 -j ACCEPT",
    "set flushed": "ipset flush EGW4-pods",
    "element removed": "ipset del EGW4-pods {pod}",
    "element added": "ipset add EGW4-pods 10.244.1.99 skbmark 0x09000007/0xff003fff",
    "next hop": "ip neigh change 169.254.64.7 lladdr 02:00:00:00:00:99 dev egress.vxlan nud permanent",
    "leaf of the tree": "ip rule del pref $(ip rule | grep 0x9000007 | cut -d: -f1)",
}


@pytest.mark.parametrize("what", DRIFT)
def test_drift_is_noticed_and_repaired(rig, pod, backend, what):
    driver = rig.driver("n1")
    time.sleep(1.1)  # the first look of the watch
    while driver.ask("drift", timeoutMs=0)["ok"]:
        pass
    rig.sh("n1", DRIFT[what].format(t=f"iptables-{backend}", pod=pod.ipv4))
    assert driver.ask("drift", timeoutMs=5000)["ok"]
    answer = rig.apply("n1")["n1"]
    assert sum(answer["repaired"].values()) >= 1, answer
    assert sources(pod) == [EIP4, EIP6]
    assert rig.apply("n1")["n1"]["repaired"] == {}


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


def test_another_backend_takes_over(rig, pod, backend):
    other = {"legacy": "nft", "nft": "legacy"}[backend]
    rig.datapaths = [("iptables", {"backendMode": other})] * 2
    driver = rig.restart("n1")
    assert driver.must("apply", change=rig.change("n1"))["ok"]
    assert saved(rig, "n1", backend, ours=True) == []
    assert saved(rig, "n1", other, ours=True) != []
    assert sources(pod) == [EIP4, EIP6]
