"""What an agent costs: its memory idle and loaded, and the time from its start to a programmed node."""

import re
import signal
import time
from datetime import datetime

import pytest
from conftest import EIP4, GATEWAY, placed, policy, result_line, wait_source

POLICIES = 5000


def memory_mb(daemon):
    """RSS of the process, in MB."""
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as f:
        return int(re.search(r"^VmRSS:\s+(\d+) kB", f.read(), re.M)[1]) / 1024


def load(cluster, pods):
    """5,000 policies with prefixes of their own, and `pods` pods of node n1 spread over them."""
    cluster.apply(*[policy(f"p{i}", labels={"app": f"p{i}"}, dest=[f"198.{i >> 8}.{i & 255}.0/24", "192.0.2.0/25"])
                    for i in range(POLICIES - 1)], timeout=300)  # a gateway takes 5,000
    manifests = [{"apiVersion": "v1", "kind": "Pod",
                  "metadata": {"name": f"load{k}", "namespace": "default", "labels": {"app": f"p{k % (POLICIES - 1)}"}},
                  "spec": {"nodeName": "n1", "containers": []},
                  "status": {"phase": "Running", "podIP": f"10.{130 + (k >> 16)}.{k >> 8 & 255}.{k & 255}"}}
                 for k in range(pods)]
    cluster.apply(*manifests, timeout=600)


STARTED = "INFO agent started"


def programmed_ms(agent, begin, starts):
    """From `begin` on the wall clock, when the process was made, to the first 'node programmed' of that start, counted
    from 1: milliseconds."""
    deadline = time.monotonic() + 20
    lines = ""
    while "node programmed" not in lines:
        assert time.monotonic() < deadline, "not programmed"
        time.sleep(0.02)
        log = agent.log_text()
        if log.count(STARTED) >= starts:
            lines = log.rpartition(STARTED)[2]
    done = next(line for line in lines.splitlines() if "node programmed" in line).split()[0]
    return (datetime.fromisoformat(done.replace("Z", "+00:00")).timestamp() - begin) * 1000


def caught_up(cluster, timeout=60):
    """Waits until n1 has in its kernel what the store holds now."""
    revision = int(cluster.get("pod", "last", namespace="default")["metadata"]["resourceVersion"])
    cluster.wait("egt", "n1", lambda t: t["status"].get("realised", {}).get("revision", 0) >= revision, timeout)


@pytest.mark.parametrize("pods,bar", [(500, 40), (50000, 90)])
def test_memory_and_start(make_cluster, pods, bar):
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(GATEWAY)
    idle = memory_mb(cluster.agent("n1"))
    load(cluster, pods)
    cluster.add_pod("last", "n1", {"app": "p0"}, store=False)
    cluster.apply(policy("all", labels={"last": "yes"}))
    placed(cluster)
    cluster.pods["last"]["labels"]["last"] = "yes"
    cluster.apply(cluster.pod_manifest("last"))
    wait_source(cluster, "last", EIP4)
    caught_up(cluster)
    figures = {"idle_mb": round(idle, 1), "grown_mb": round(memory_mb(cluster.agent("n1")), 1)}
    for number in (signal.SIGTERM, signal.SIGKILL):
        agent = cluster.agent("n1")
        agent.stop(number)
        before = cluster.get("egt", "n1")["status"]["lastHeartbeatTime"]  # its last words count, too
        starts = agent.log_text().count(STARTED) + 1
        begin = time.time()
        agent = cluster.agent("n1").start()
        cluster.wait("egt", "n1", lambda t: t["status"]["phase"] == "Ready"
                     and t["status"]["lastHeartbeatTime"] != before, 20)
        took = programmed_ms(agent, begin, starts)
        name = signal.Signals(number).name
        figures[f"after_{name}_mb"] = round(memory_mb(agent), 1)
        figures[f"programmed_after_{name}_ms"] = round(took)
    result_line(f"agent with {POLICIES} policies, {pods} endpoints", **figures)
    assert idle <= 20
    assert all(v <= bar for k, v in figures.items() if k.endswith("mb")), figures
    assert all(v <= 500 for k, v in figures.items() if k.endswith("ms")), figures
