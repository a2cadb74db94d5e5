"""A datapath that hangs for good: Degraded after one deadline, Failed after three, and the EIPs move; heartbeat
and announcer go on all the while. Takes three deadlines of 30 s."""

import time

from conftest import EIP4, result_line
from hung import arp_answer, cluster_with_a_gate, condition


def test_degraded_then_failed_and_the_eips_move(make_cluster, tmp_path):
    cluster, hang = cluster_with_a_gate(make_cluster, tmp_path)
    answering = arp_answer(cluster, EIP4)
    hang()
    begin = time.monotonic()
    tunnel, degraded = cluster.wait("egt", "n2", lambda t: condition(t, "Degraded"), 45)
    assert condition(tunnel, "Degraded")["reason"] == "DeadlineMissed"
    assert "apply" in condition(tunnel, "Degraded")["message"] and "30 s" in condition(tunnel, "Degraded")["message"]
    assert tunnel["status"]["phase"] == "Ready" and cluster.owner("egw", EIP4) == "n2"
    heartbeats = {tunnel["status"]["lastHeartbeatTime"]}
    while time.monotonic() - begin < 80:
        now = cluster.get("egt", "n2")["status"]
        heartbeats.add(now["lastHeartbeatTime"])
        assert now["phase"] == "Ready"
        assert arp_answer(cluster, EIP4) == answering
        time.sleep(1)  # watched over time: both must go on
    assert len(heartbeats) >= 30, "the heartbeat stopped"
    cluster.wait("egt", "n2", lambda t: t["status"]["phase"] == "Failed", 30)
    failed = time.monotonic() - begin
    cluster.wait("egw", "egw", lambda g: any(n["name"] == "n3" and n.get("eips") for n in g["status"]["nodeList"]))
    moved = time.monotonic() - begin
    result_line("hung datapath", degraded_s=round(degraded, 1), failed_s=round(failed, 1), moved_s=round(moved, 1))
    assert 85 <= failed <= 100 and moved - failed <= 2
    end = time.monotonic() + 5
    while arp_answer(cluster, EIP4) in (answering, None):
        assert time.monotonic() < end, "the former owner still answers"
