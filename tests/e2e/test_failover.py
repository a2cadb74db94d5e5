"""An EIP moves when its owner's node, agent or uplink fails, within the bound, without a leak."""

import json
import os
import signal
import time

import pytest
from conftest import EIP4, EIP6, GATEWAY, events, placed, policy, result_line, sources, wait_source

from lab import net
from lab.cluster import SERVER4

RUNS = int(os.environ.get("EGW_RUNS", "1"))
MONITOR, UPDATE, EVICT = (float(x) for x in os.environ.get("EGW_TIMEOUTS", "1/1/3").split("/"))
LIMIT = EVICT + MONITOR + 0.5


def gap_run(cluster, fault, limit, pod="pod1", streams=4):
    """Traffic through `fault(owner)`; returns what the probes measured after the EIP has moved."""
    old = cluster.owner("egw", EIP4)
    t4, t6 = cluster.traffic(pod, 4, streams=streams), cluster.traffic(pod, 6)
    time.sleep(0.3)  # traffic before the fault
    begin = time.monotonic()
    fault(old)
    gateway, _ = cluster.wait(
        "egw", "egw", lambda g: any(n["name"] != old and n.get("eips") for n in g["status"]["nodeList"]),
        limit + 5)
    moved = time.monotonic() - begin
    wait_source(cluster, pod, EIP4, limit + 5)
    wait_source(cluster, pod, EIP6, limit + 5, family=6)
    time.sleep(0.5)  # traffic after it
    r4, r6 = t4.stop(), t6.stop()
    assert sources(r4) == [EIP4] and sources(r6) == [EIP6]
    return old, moved, r4, r6


def leaks(cluster):
    """Addresses that the server saw and that are neither an EIP nor the time before the policy."""
    own = {p[f] for p in cluster.pods.values() for f in ("ipv4", "ipv6")}
    own |= {cluster.address(n, f) for n in cluster.nodes for f in (4, 6)}
    return sorted(set(cluster.server_stop()["sources"]) & own)


@pytest.fixture
def steady(make_cluster):
    """As `shop`, but the server has counted nothing before the policy was in force."""
    cluster = make_cluster(nodes=4, gateways=3, timeouts=(MONITOR, UPDATE, EVICT))
    cluster.apply(GATEWAY, policy())
    placed(cluster)
    for i, node in enumerate(cluster.nodes):
        cluster.add_pod(f"pod{i + 1}", node, {"app": "shop"})
    wait_source(cluster, "pod1", EIP4)
    wait_source(cluster, "pod1", EIP6, family=6)
    cluster.server_stop()
    cluster.server_start()
    return cluster


@pytest.mark.parametrize("run", range(RUNS))
@pytest.mark.parametrize("kind", ["power_off", "agent_killed"])
def test_gap_after_a_death(steady, kind, run):
    fault = {"power_off": steady.power_off,
             "agent_killed": lambda n: steady.agent(n).stop(signal.SIGKILL)}[kind]
    old, moved, r4, r6 = gap_run(steady, fault, LIMIT)
    result_line(f"gap {kind} {EVICT:g}/{MONITOR:g}/{UPDATE:g}", run=run, v4_ms=r4["gap_ms"], v6_ms=r6["gap_ms"],
                moved_s=round(moved, 2), limit_ms=LIMIT * 1000, resets=r4["tcp_resets"])
    assert r4["gap_ms"] <= LIMIT * 1000 and r6["gap_ms"] <= LIMIT * 1000
    assert steady.get("egt", old)["status"]["phase"] == "HeartbeatTimeout"
    assert leaks(steady) == []
    log = "".join(steady.controller(i).log_text() for i in range(steady.controllers))
    assert "update tunnel status to HeartbeatTimeout" in log
    told = " ".join(e["note"] for e in events(steady, "EipMoved"))
    assert f"{EIP4}" in told and f"moved from {old} to {steady.owner('egw', EIP4)}: HeartbeatTimeout" in told
    assert [e["regarding"]["name"] for e in events(steady, "HeartbeatTimeout")] == [old]


def test_an_agent_restarted_in_time_keeps_its_eips(steady):
    old = steady.owner("egw", EIP4)
    steady.agent(old).stop(signal.SIGKILL)
    steady.agent(old).start()
    steady.wait("egt", old, lambda t: t["status"]["phase"] == "Ready")
    time.sleep(EVICT + MONITOR)  # the time in which a wrong eviction would have come
    assert steady.owner("egw", EIP4) == old


def test_lost_uplink_is_told_by_the_agent_itself(steady):
    old, moved, r4, r6 = gap_run(steady, lambda n: steady.link(n, False), 1.0)
    result_line("gap uplink lost", v4_ms=r4["gap_ms"], v6_ms=r6["gap_ms"], moved_s=round(moved, 2), limit_ms=1000)
    assert moved <= 1.0, f"the EIP moved after {moved:.2f} s"
    assert r4["gap_ms"] <= 1000 and r6["gap_ms"] <= 1000
    assert leaks(steady) == []


def test_an_uplink_that_loses_its_address_is_told_by_the_agent_itself(steady):
    """A lease that ends, `ip addr flush`: nothing reaches the node through the tunnel any more."""
    old = steady.owner("egw", EIP4)
    mac = steady.get("egt", old)["status"]["tunnel"]["mac"]
    old, moved, r4, r6 = gap_run(steady, lambda n: net.batch(
        steady.ns(n), f"addr del {steady.address(n)}/16 dev eth0"), 1.0)
    result_line("gap uplink's address lost", v4_ms=r4["gap_ms"], v6_ms=r6["gap_ms"], moved_s=round(moved, 2),
                limit_ms=1000)
    assert moved <= 1.0, f"the EIP moved after {moved:.2f} s"
    assert r4["gap_ms"] <= 1000 and r6["gap_ms"] <= 1000
    status = steady.get("egt", old)["status"]
    down = next(c for c in status["conditions"] if c["type"] == "UplinkDown")
    assert status["phase"] == "Failed" and (down["status"], down["reason"]) == ("True", "NoAddress")
    device = net.run("ip", "-n", steady.ns(old), "-j", "link", "show", "egress.vxlan")
    assert json.loads(device)[0]["address"] == status["tunnel"]["mac"] == mac
    net.batch(steady.ns(old), f"addr add {steady.address(old)}/16 dev eth0", f"route add default via {SERVER4}")
    steady.wait("egt", old, lambda t: t["status"]["phase"] == "Ready")
    assert leaks(steady) == []


def test_gap_with_1000_policies(steady):
    """A thousand policies on the gateway make the takeover no more than 0.3 s longer."""
    steady.apply(*[policy(f"many-{i}", labels={"app": f"many-{i % 500}"}, dest=[f"198.51.{i // 250}.{i % 250}/32"])
                   for i in range(1000)])
    steady.wait("egw", "egw", lambda g: sum(len(e["policies"]) for n in g["status"]["nodeList"]
                                            for e in n.get("eips", [])) > 1000, 20)
    old, moved, r4, r6 = gap_run(steady, steady.power_off, LIMIT + 0.3)
    result_line(f"gap power_off {EVICT:g}/{MONITOR:g}/{UPDATE:g}, 1,000 policies", v4_ms=r4["gap_ms"],
                v6_ms=r6["gap_ms"], moved_s=round(moved, 2), limit_ms=LIMIT * 1000 + 300)
    assert r4["gap_ms"] <= LIMIT * 1000 + 300 and r6["gap_ms"] <= LIMIT * 1000 + 300
    assert leaks(steady) == []


@pytest.mark.parametrize("run", range(RUNS))
@pytest.mark.parametrize("where", ["client", "old-owner", "new-owner", "standby"])
def test_planned_stop_hands_over_first(steady, where, run):
    """`egw agent --drain` and SIGTERM: the EIPs have moved before the agent ends, and no running
    connection is cut, wherever the pod is."""
    old = steady.owner("egw", EIP4)
    steady.agent(old).stop(signal.SIGKILL)
    steady.agent(old, "--drain").start()
    steady.wait("egt", old, lambda t: t["status"]["phase"] == "Ready")
    # The leader takes the least loaded, then the first by name.
    new, standby = sorted(n for n in steady.gateways if n != old)
    node = {"client": steady.nodes[0], "old-owner": old, "new-owner": new, "standby": standby}[where]
    pod = next(name for name, p in steady.pods.items() if p["node"] == node)
    wait_source(steady, pod, EIP4)

    def stop(owner):
        assert steady.agent(owner).stop(signal.SIGTERM, timeout=35) < 10
        assert steady.owner("egw", EIP4) == new, "the agent ended before its EIPs had moved"

    _, _, r4, r6 = gap_run(steady, stop, 12.0, pod=pod, streams=16)
    result_line(f"planned stop, pod on {where}", run=run, v4_ms=r4["gap_ms"], v6_ms=r6["gap_ms"],
                lost=r4["lost"] + r6["lost"], resets=r4["tcp_resets"] + r6["tcp_resets"])
    assert r4["tcp_resets"] == r6["tcp_resets"] == 0
    # At 1 kHz ten answers are ten milliseconds. As a rule none is lost (docs/how-it-works.md); gap_ms also holds
    # the hiccups of sender and machine.
    assert r4["lost"] <= 10 and r6["lost"] <= 10
    assert leaks(steady) == []


def test_planned_stop_that_nobody_can_take_over_ends_at_once(make_cluster):
    cluster = make_cluster(nodes=2, gateways=1)
    cluster.apply(GATEWAY, policy())
    placed(cluster)
    gateway = cluster.gateways[0]
    cluster.agent(gateway).stop(signal.SIGKILL)
    before = cluster.get("egt", gateway)["status"]["lastHeartbeatTime"]
    agent = cluster.agent(gateway, "--drain")
    agent.start()
    cluster.wait("egt", gateway, lambda t: t["status"]["phase"] == "Ready"
                 and t["status"]["lastHeartbeatTime"] != before)
    took = agent.stop(signal.SIGTERM, timeout=35)
    result_line("planned stop without another gateway", seconds=round(took, 2))
    assert took < 3
    assert "nobody can take this node's EIPs" in agent.log_text()
    drained = [c for c in cluster.get("egt", gateway)["status"]["conditions"] if c["type"] == "Drained"]
    assert [c["reason"] for c in drained] == ["NoOtherReadyNode"]


def test_node_ip_acts_one_timeout_after_the_last_gateway(make_cluster):
    cluster = make_cluster(nodes=2, gateways=1, timeouts=(MONITOR, UPDATE, EVICT))
    cluster.add_pod("pod1", "n1", {"app": "shop"})
    cluster.apply(GATEWAY, policy(failurePolicy="NodeIP"))
    wait_source(cluster, "pod1", EIP4)
    gateway, node = cluster.gateways[0], cluster.address("n1")
    cluster.power_off(gateway)
    cluster.wait("egt", gateway, lambda t: t["status"]["phase"] == "HeartbeatTimeout", LIMIT)
    begin = time.monotonic()
    wait_source(cluster, "pod1", node, LIMIT)
    took = time.monotonic() - begin
    result_line("NodeIP after the last gateway's death", seconds=round(took, 2))
    assert EVICT - 0.2 <= took
    cluster.power_on(gateway)
    wait_source(cluster, "pod1", EIP4)
