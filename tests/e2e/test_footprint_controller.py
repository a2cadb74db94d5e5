"""What a leader's memory costs: no time is judged, so that others may run beside it."""

import copy
import time

import pytest
from conftest import GATEWAY, policy, result_line
from test_footprint import POLICIES, memory_mb


@pytest.mark.parametrize("slices,bar", [(True, 150), (False, 80)])
def test_controller_memory(make_cluster, slices, bar):
    """The leader with 10,000 policies and 100,000 pods of nodes that are not there, slices on and off."""
    cluster = make_cluster(nodes=2, gateways=1, controllers=1, settings={"feature": {"endpointSlices": slices}})
    second = copy.deepcopy(GATEWAY)
    second["metadata"]["name"] = "second"
    second["spec"] = {**second["spec"], "clusterDefault": False, "ippools": {"ipv4": ["10.6.1.70"]}}
    cluster.apply(GATEWAY, second, timeout=60)
    cluster.apply(*[policy(f"p{i}", labels={"app": f"p{i}"}, dest=["203.0.113.0/24"],
                           egressGatewayName=("egw", "second")[i % 2]) for i in range(2 * POLICIES)], timeout=300)
    cluster.apply(*[{"apiVersion": "v1", "kind": "Pod",
                     "metadata": {"name": f"app-{k % (2 * POLICIES)}-7d4b9c8f6-{k:05x}", "namespace": "default",
                                  "labels": {"app": f"p{k % (2 * POLICIES)}", "pod-template-hash": "7d4b9c8f6",
                                             "app.kubernetes.io/instance": f"release-{k % 100}"}},
                     "spec": {"nodeName": f"far{k % 50}", "containers": []},
                     "status": {"phase": "Running", "podIP": f"10.{130 + (k >> 16)}.{k >> 8 & 255}.{k & 255}"}}
                    for k in range(100_000)], timeout=600)
    cluster.wait("egp", f"p{2 * POLICIES - 1}", lambda p: p.get("status", {}).get("eip"), 120, namespace="default")
    deadline = time.monotonic() + 300
    while slices and len(cluster.get("egep")) < 2 * POLICIES:
        assert time.monotonic() < deadline, "the slices are not written"
        time.sleep(2)
    grown = memory_mb(cluster.controller(0))
    daemon = cluster.controller(0)
    term = cluster.get("egw", "egw")["status"]["term"]
    daemon.stop()
    daemon.start()
    cluster.add_pod("last", "n1", {"app": "p0"})
    cluster.wait("egw", "egw", lambda g: g["status"]["term"] > term, 60)
    while slices and not any(e["pod"] == "last" for s in cluster.get("egep") for e in s["endpoints"]):
        assert time.monotonic() < deadline, "a new leader does not follow the pods"
        time.sleep(2)
    figures = {"grown_mb": round(grown, 1), "after_restart_mb": round(memory_mb(daemon), 1)}
    result_line(f"controller with {2 * POLICIES} policies, 100000 pods, slices {'on' if slices else 'off'}", **figures)
    assert max(figures.values()) <= bar, figures
