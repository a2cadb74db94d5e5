"""Watch storms: thousands of policies and pods, written as fast as the API server takes them, on the one-machine
cluster. Who keeps up, how soon he is done, and what everybody costs then and at rest."""

import json
import os
import subprocess
import sys
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from lab import net  # noqa: E402  (the path must be set first)
from lab.api import connect_inside  # noqa: E402
from lab.cluster import Cluster  # noqa: E402
from lab.quickstart import keep_logs, settle  # noqa: E402
from test_lab import audit, node_of, resident_mb, result_line, writes  # noqa: E402

POLICIES, PODS, GATEWAYS, THREADS = 10_000, 20_000, 4, 32
NODES = 200  # that the pods are spread over; four of them run agents
CAUGHT_UP_S, AGENT_MB, CONTROLLER_MB = 2, 45, 200
METRICS = 5811  # of agents, the default
PERIOD = 5  # tunnelUpdatePeriod, the default
GROUP = "/apis/egressgateway.spidernet.io/v1beta1"
LAST = "last"
EIPS = "10.7.0.0/16"


@pytest.fixture(scope="module")
def cluster():
    made = Cluster.claim("storm", nodes=4, gateways=3, controllers=1, store="kube", timeouts=(5, PERIOD, 15))
    try:
        made.up()
        settle(made, 60)
        # The EIPs are in no network of the nodes: the outside finds them on the wire all the same.
        net.run("ip", "-n", made.ns("srv"), "route", "add", EIPS, "dev", "eth0")
        yield made
    finally:
        keep_logs(made)
        made.down()


def storm(cluster):
    nodes = cluster.nodes + [f"far{i}" for i in range(NODES - len(cluster.nodes))]
    plan = {"namespaces": 20, "gateways": GATEWAYS, "policies": POLICIES, "pods": PODS, "nodes": nodes, "threads": THREADS}
    program = os.path.join(cluster.bin, "kube_storm")
    done = subprocess.run(net.inside(cluster.store.ns, program, cluster.store.kubeconfig, json.dumps(plan)), text=True,
                          stdout=subprocess.PIPE, check=False, timeout=600)
    assert done.returncode == 0
    return json.loads(done.stdout)


def metric(cluster, node, name):
    """A number that the agent of the node gives to a scrape."""
    with connect_inside(cluster.ns(node), ("127.0.0.1", METRICS), 5) as probe:
        probe.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        lines = probe.makefile("rb").read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.split(" ")[0] == name))


def running_seconds(daemon):
    """CPU time of all threads, finer than the clock ticks of /proc/PID/stat."""
    folder = f"/proc/{daemon.process.pid}/task"
    total = 0
    for thread in os.listdir(folder):
        with open(f"{folder}/{thread}/schedstat", encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total / 1e9


def last_policy():
    return {"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressPolicy",
            "metadata": {"name": LAST, "namespace": "default"},
            "spec": {"egressGatewayName": "storm-0", "egressIP": {"ipv4": "10.7.0.200"},
                     "appliedTo": {"podSelector": {"matchLabels": {"app": LAST}}}}}


def test_everybody_keeps_up_with_a_storm(cluster):
    cluster.add_pod(LAST, "n1", {"app": LAST})
    took = storm(cluster)
    api = cluster.store.client()
    api.request("POST", f"{GROUP}/namespaces/default/egresspolicies", last_policy())
    begin = time.monotonic()
    while cluster.source(LAST, timeout=0.2) != "10.7.0.200":
        assert time.monotonic() - begin < 60, "the last policy is not in force"
    caught_up = time.monotonic() - begin
    gateways = api.request("GET", f"{GROUP}/egressgateways")["items"]
    placed = sum(len(eip["policies"]) for g in gateways for node in g["status"]["nodeList"] for eip in node.get("eips", []))
    newest = max(int(g["metadata"]["resourceVersion"]) for g in gateways)
    for node in cluster.nodes:
        cluster.wait("egt", node, lambda t: t["status"]["realised"]["revision"] >= newest, 10)
        assert metric(cluster, node, "egw_endpoints") >= PODS // NODES
    memory = [resident_mb(cluster.agent(n)) for n in cluster.nodes], resident_mb(cluster.controller(0))
    result_line("kube_storm", policies_s=round(took["policies_s"], 1), pods_s=round(took["pods_s"], 1),
                caught_up_s=round(caught_up, 2), agent_rss_mb=max(memory[0]), controller_rss_mb=memory[1])
    assert placed == POLICIES + 1
    assert caught_up <= CAUGHT_UP_S, caught_up
    assert max(memory[0]) <= AGENT_MB and memory[1] <= CONTROLLER_MB, memory


def quiet(cluster):
    """Waits until the controller has nothing more to tell people: each policy has its status, which says that all nodes
    have it in force, and its slice. It writes them one after the other, behind everything else."""
    api = cluster.store.client()
    end = time.monotonic() + 600
    while True:
        policies = api.request("GET", f"{GROUP}/egresspolicies?resourceVersion=0")["items"]
        told = sum(1 for p in policies if any(c["type"] == "Realised" and c["status"] == "True"
                                              for c in p.get("status", {}).get("conditions", [])))
        slices = len(api.request("GET", f"{GROUP}/egressendpointslices?resourceVersion=0")["items"])
        if told == len(policies) and slices == POLICIES + 1:
            return
        assert time.monotonic() < end, f"{told} of {len(policies)} policies are told to be in force, {slices} slices"
        time.sleep(2)


def test_at_rest_an_agent_costs_one_write_a_period(cluster):
    quiet(cluster)
    time.sleep(2 * PERIOD)  # what the last of them brings
    agents = [cluster.agent(n) for n in cluster.nodes]
    before = sum(1 for _ in audit(cluster, "agent"))
    begin, cpu = time.monotonic(), [running_seconds(d) for d in agents]
    time.sleep(6 * PERIOD)  # of rest
    seconds = time.monotonic() - begin
    cpu = [(running_seconds(d) - was) / seconds * 100 for d, was in zip(agents, cpu)]
    entries = list(audit(cluster, "agent"))[before:]
    result_line("kube_rest", agent_cpu_percent=round(max(cpu), 3), writes=len(writes(entries)))
    assert [e["requestURI"] for e in entries if e["verb"] in ("get", "list")] == []
    for node in cluster.nodes:
        assert 1 <= len(writes(e for e in entries if node_of(e) == node)) <= seconds / PERIOD + 1
    for e in audit(cluster, "agent"):
        if e.get("objectRef", {}).get("resource") == "egresstunnels" and e["verb"] in ("get", "list", "watch"):
            assert e["objectRef"].get("name", node_of(e)) == node_of(e)
            assert e["verb"] == "get" or f"metadata.name%3D{node_of(e)}" in e["requestURI"]
    assert max(cpu) <= 0.2, cpu
