"""Whole-system tests: the real binary, the real store, real packets, in the one-machine cluster."""

import json
import os
import signal
import sys
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from lab import net  # noqa: E402  (the path must be set first)
from lab.cluster import Cluster  # noqa: E402

EIP4, EIP6 = "10.6.1.56", "fd00::55"
GATEWAY = {
    "apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressGateway",
    "metadata": {"name": "egw"},
    "spec": {"clusterDefault": True,
             "ippools": {"ipv4": ["10.6.1.55", "10.6.1.56"], "ipv4DefaultEIP": EIP4,
                         "ipv6": ["fd00::55", "fd00::56"], "ipv6DefaultEIP": EIP6},
             "nodeSelector": {"selector": {"matchLabels": {"egress": "true"}}}}}


def policy(name="shop", namespace="default", labels=None, dest=(), **spec):
    return {"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"appliedTo": {"podSelector": {"matchLabels": labels or {"app": "shop"}}},
                     "destSubnet": list(dest), **spec}}


def ready(cluster, timeout=15):
    for node in cluster.nodes:
        cluster.wait("egt", node, lambda t: t.get("status", {}).get("phase") == "Ready", timeout)


def wait_source(cluster, pod, want, timeout=10, family=4):
    """Asks until the server sees `want` as the pod's source; returns the seconds it took."""
    begin, seen = time.monotonic(), None
    while time.monotonic() - begin < timeout:
        seen = cluster.source(pod, family, 0.2)
        if seen == want:
            return time.monotonic() - begin
    raise AssertionError(f"{pod}: the server sees {seen}, not {want}, after {timeout} s")


def until(ask, holds=bool, timeout=10):
    """What ask() gives, as soon as holds() is true of it."""
    end = time.monotonic() + timeout
    while not holds(found := ask()):
        assert time.monotonic() < end, f"after {timeout} s: {found}"
        time.sleep(0.02)
    return found


def problems(cluster):
    """Those of `egw status`, whose exit code tells whether there are any."""
    said = cluster.egw("status", "-o", "json", check=False)
    found = json.loads(said.stdout)["problems"]
    assert said.returncode == (1 if found else 0)
    return found


ASK = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen("http://127.0.0.1:" + sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    answer = error
except urllib.error.URLError:
    print(0)
    sys.exit()
print(answer.status, answer.read().decode())
"""


def http(cluster, who, where):
    """Status and body of http://127.0.0.1:`where` inside `who`; 0: nobody listens."""
    status, _, body = net.enter(cluster.ns(who), "/usr/bin/python3", "-c", ASK, where).partition(" ")
    return int(status), body


def interrupted(process, timeout=10):
    """ctrl-C for a verb that waits, as soon as it listens to it; what it says then on stderr."""
    begin = time.monotonic()
    while process.poll() is None and time.monotonic() - begin < timeout:
        with open(f"/proc/{process.pid}/status", encoding="ascii") as f:
            caught = next(int(line.split()[1], 16) for line in f if line.startswith("SigCgt:"))
        if caught & 1 << signal.SIGINT - 1:
            break
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=timeout)[1]


def placed(cluster):
    cluster.wait("egw", "egw", lambda g: any(n.get("eips") for n in g.get("status", {}).get("nodeList", [])))


def sources(result):
    return sorted({s["source"] for s in result["sources"]})


@pytest.fixture
def make_cluster(request):
    """make_cluster(...): a cluster with the gateway of the documentation; removed after the test."""
    made = []

    def make(up=True, **kwargs):
        cluster = Cluster.claim("e2e", **kwargs)
        made.append(cluster)
        if up:
            cluster.up()
            ready(cluster)
        return cluster

    yield make
    failed = getattr(request.node, "failed", False)
    for cluster in made:
        if failed:
            for name in sorted(os.listdir(cluster.dir)):
                if name.endswith(".log"):
                    with open(os.path.join(cluster.dir, name), encoding="utf-8", errors="replace") as f:
                        print(f"--- {cluster.name} {name}\n" + "".join(f.readlines()[-40:]))
        cluster.down()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if outcome.get_result().failed:
        item.failed = True


@pytest.fixture
def shop(make_cluster):
    """Four nodes, three gateways, one pod app=shop on each node, gateway and policy in place."""
    cluster = make_cluster(nodes=4, gateways=3)
    for i, node in enumerate(cluster.nodes):
        cluster.add_pod(f"pod{i + 1}", node, {"app": "shop"})
    cluster.apply(GATEWAY, policy())
    placed(cluster)
    wait_source(cluster, "pod1", EIP4)
    wait_source(cluster, "pod1", EIP6, family=6)
    return cluster


def events(cluster, reason):
    return [e for e in cluster.get("events") if e["reason"] == reason]


def result_line(name, **figures):
    """A machine-readable figure for docs/test-results.md."""
    print("figure " + json.dumps({"test": name, **figures}))
