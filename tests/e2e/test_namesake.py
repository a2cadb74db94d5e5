"""Two agents with one node name (docs/adr/0033): the second one stands aside and both say so, nothing moves; a restarted
one takes its place at once; two in one network namespace are refused."""

import json
import signal
import subprocess

import pytest
from conftest import EIP4, GATEWAY, placed, policy, problems, until, wait_source
from lab import net


def condition(tunnel, kind):
    return next((c for c in tunnel["status"]["conditions"] if c["type"] == kind), {"status": "False", "message": ""})


@pytest.fixture(name="cluster")
def fixture_cluster(make_cluster):
    """n2 owns the EIP, n3 could; n4 is a machine whose agent has not been started."""
    cluster = make_cluster(up=False, nodes=4, gateways=3)
    cluster.up(start=False)
    cluster.controller(0).start()
    for node in ("n1", "n2"):
        cluster.agent(node).start()
        cluster.wait("egt", node, lambda t: t.get("status", {}).get("phase") == "Ready", 15)
    cluster.add_pod("pod1", "n1", {"app": "shop"})
    cluster.apply(GATEWAY, policy())
    placed(cluster)
    wait_source(cluster, "pod1", EIP4)
    cluster.agent("n3").start()
    cluster.wait("egt", "n3", lambda t: t.get("status", {}).get("phase") == "Ready", 15)
    assert cluster.owner("egw", EIP4) == "n2"
    return cluster


def test_the_second_one_stands_aside_and_both_say_so(cluster):
    traffic = cluster.traffic("pod1")
    cluster.own_settings["n4"] = {"nodeName": "n2"}
    second = cluster.agent("n4").start()
    told, _ = cluster.wait("egt", "n2", lambda t: condition(t, "DuplicateAgent")["status"] == "True", 10)
    first_one, second_one = condition(told, "ReportedBy")["message"], condition(told, "DuplicateAgent")["message"]
    assert first_one.split(" on ")[0] not in second_one and "--node-name" in second_one
    seen = []
    cluster.wait("egt", "n2", lambda t: seen.append(t) or len(seen) > 12, 15)  # heartbeats and words of both
    assert {t["status"]["phase"] for t in seen} == {"Ready"}
    assert {condition(t, "ReportedBy")["message"] for t in seen} == {first_one}
    assert "DuplicateAgent: another agent reports for this node" in second.log_text() and first_one in second.log_text()
    assert cluster.agent("n2").log_text().count("DuplicateAgent: another agent has this node's name") == 1
    until(lambda: problems(cluster), lambda found: any(
        p["object"] == "egresstunnel/n2" and p["reason"].startswith("DuplicateAgent") for p in found), 5)

    # The first one is the node's, also when it is restarted, at once.
    cluster.agent("n2").stop(signal.SIGKILL)
    cluster.agent("n2").start()
    seen.clear()
    cluster.wait("egt", "n2", lambda t: seen.append(t) or len(seen) > 8, 15)
    assert {condition(t, "ReportedBy")["message"] for t in seen} == {first_one}
    assert {t["status"]["phase"] for t in seen} == {"Ready"} and cluster.owner("egw", EIP4) == "n2"

    # A planned stop of the second one is no drain of the first.
    second.stop(signal.SIGTERM)
    second.start("--drain")
    cluster.wait("egt", "n2", lambda t: condition(t, "DuplicateAgent")["status"] == "True", 10)
    assert second.stop(signal.SIGTERM) < 5
    cluster.wait("egt", "n2", lambda t: condition(t, "DuplicateAgent")["status"] == "False", 15)
    assert cluster.owner("egw", EIP4) == "n2"
    report = traffic.stop()
    assert report["lost"] == 0 and {s["source"] for s in report["sources"]} == {EIP4}, report


def test_a_node_that_comes_back_as_another_machine_is_taken_for_what_it_is(cluster):
    """n2 is gone for good; a new machine gets its name."""
    cluster.power_off("n2")
    cluster.wait("egt", "n2", lambda t: t["status"]["phase"] == "HeartbeatTimeout", 15)
    cluster.own_settings["n4"] = {"nodeName": "n2"}
    cluster.agent("n4").start()
    back, _ = cluster.wait("egt", "n2", lambda t: t["status"]["phase"] == "Ready", 10)
    assert back["status"]["tunnel"]["parent"]["ipv4"] == cluster.address("n4")


def test_two_in_one_network_namespace_are_refused(cluster, tmp_path):
    words = [*cluster.store.command("agent", "n2", ())]
    at = words.index("agent")
    words[at:at] = ["--set", f"stateDir={tmp_path}/other", "--node-name", "n4"]
    done = subprocess.run(net.inside(cluster.ns("n2"), *words), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1, done.stderr
    pid = cluster.agent("n2").process.pid
    assert f"another agent runs here (process {pid})" in done.stderr + done.stdout
    # Not when it has been killed, and not on account of a stranger who holds the name.
    cluster.agent("n2").stop(signal.SIGKILL)
    cluster.agent("n2").start()
    cluster.wait("egt", "n2", lambda t: t["status"]["phase"] == "Ready", 10)
    cluster.agent("n2").stop(signal.SIGTERM)
    held = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind('\0egw-agent'); s.listen(); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(net.inside(cluster.ns("n2"), "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                                     "/usr/bin/python3", "-c", held.replace("\0", "\\0")),
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout.readline() == "1\n"
        cluster.agent("n2").start()
        seen = []
        cluster.wait("egt", "n2", lambda t: seen.append(t) or len(seen) > 3, 10)
        assert "somebody holds @egw-agent" in cluster.agent("n2").log_text()
        stranger.stdin.close()
