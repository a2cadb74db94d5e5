"""The end of an installation, on the one-machine cluster: `helm uninstall` with live gateways, with an agent that is
dead, taken back, twice, and an installation after it; what is in the kernel of the nodes, seen with ip, nft and sysctl."""

import signal
import subprocess

import pytest
from helm_chart import CHART, NAMESPACE, RELEASE
from kube_support import wait_for
from lab import net
from lab.cluster import Cluster
from lab.quickstart import EIP4, keep_logs, serve_shop, settle, wait_eip

JOB = "egressgateway-controller-cleanup"


@pytest.fixture(scope="module")
def cluster():
    made = Cluster.claim("gone", nodes=3, gateways=2, controllers=2, store="kube",
                         settings={"cleanup": {"timeoutSeconds": 5}})
    try:
        made.up()
        settle(made, 30)
        serve_shop(made)
        yield made
    finally:
        keep_logs(made)
        made.down()


def left(cluster, node):
    """What egw has in the kernel of a node."""
    def seen(*words):
        return net.enter(cluster.ns(node), *words).splitlines()

    found = [line for line in seen("ip", "-br", "link") if "egress" in line]
    found += [line for f in ("-4", "-6") for line in seen("ip", f, "rule") if not line.startswith(("0:", "32766:", "32767:"))]
    found += [line for f in ("-4", "-6") for line in seen("ip", f, "route", "show", "table", "all") if "egress" in line]
    found += seen("nft", "list", "tables")
    return found + [s for s in seen("sysctl", "net.netfilter.nf_conntrack_tcp_be_liberal") if not s.endswith("= 0")]


def uninstall(cluster):
    """`helm uninstall` beside a cluster that runs its Job; (helm's end, the Job's exit code, its words)."""
    helm = subprocess.Popen(cluster.store.helm_command("uninstall", RELEASE, "--timeout", "60s"), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        code, words = cluster.store.run_job(JOB)
        said, _ = helm.communicate(timeout=60)
    finally:
        helm.kill()
    return helm.returncode, said, code, words


def finalizers(cluster):
    return [f for kind in ("egw", "egt") for o in cluster.get(kind) for f in o["metadata"].get("finalizers", [])]


def test_an_installation_is_in_the_kernel(cluster):
    for node in cluster.nodes:
        found = "\n".join(left(cluster, node))
        assert "egress.vxlan" in found and "table" in found, found
    assert finalizers(cluster)


def test_a_dead_agents_node_is_named_and_nothing_else_is_left(cluster):
    cluster.agent("n3").stop(signal.SIGKILL)
    ended, said, code, words = uninstall(cluster)
    assert ended != 0 and code == 1, said
    assert 'node "n3" is left: its agent has not answered (heard last' in words and "egw purge --datapath all" in words, words
    assert "node/n1 purged" in words and "node/n2 purged" in words, words
    assert left(cluster, "n1") == left(cluster, "n2") == []
    assert left(cluster, "n3") != [] and finalizers(cluster) == []
    assert cluster.source("pod1") == cluster.pods["pod1"]["ipv4"], "as if egw had never been there"
    assert cluster.store.run_kubectl("get", "deployments,daemonsets", "-n", NAMESPACE, "-o", "name").count("/") == 2


def test_it_can_be_taken_back(cluster):
    done = cluster.egw("uninstall", "--cancel")
    assert "cancelled" in done.stdout
    cluster.agent("n3").start()
    settle(cluster, 30)
    wait_eip(cluster, "pod1", 20)
    wait_for("finalizers", lambda: finalizers(cluster))
    assert "no uninstall has been asked for" in cluster.egw("uninstall", "--cancel").stdout


def test_with_live_gateways_everything_goes(cluster):
    ended, said, code, words = uninstall(cluster)
    assert (ended, code) == (0, 0), said + words
    assert {node: left(cluster, node) for node in cluster.nodes} == {node: [] for node in cluster.nodes}
    assert finalizers(cluster) == []
    # As a cluster does it: the pods of what is gone end.
    for node in cluster.nodes:
        cluster.agent(node).stop()
    for i in range(cluster.controllers):
        cluster.controller(i).stop()
    assert {node: left(cluster, node) for node in cluster.nodes} == {node: [] for node in cluster.nodes}
    for kind in ("serviceaccounts", "clusterroles", "clusterrolebindings", "jobs", "configmaps", "validatingadmissionpolicies",
                 "validatingwebhookconfigurations"):
        assert "egressgateway" not in cluster.store.run_kubectl("get", kind, "-n", NAMESPACE, "-o", "name"), kind


def test_a_second_time_finds_nothing_to_do(cluster):
    done = cluster.egw("uninstall", "--timeout", "2")
    assert all(f"node/{n} was purged before; its agent does not run" in done.stdout for n in cluster.nodes), done.stdout
    assert cluster.egw("uninstall", "--cancel").returncode == 0
    assert left(cluster, "n1") == []


def test_an_installation_after_it_takes_the_objects_up(cluster):
    cluster.store.helm("install", RELEASE, CHART, "-f", cluster.store.values)
    cluster.store.name_endpoints(range(cluster.controllers))
    for i in range(cluster.controllers):
        cluster.controller(i).start()
    for node in cluster.nodes:
        cluster.agent(node).start()
    wait_eip(cluster, "pod1", 40)
    assert cluster.owner("egw", EIP4)
    wait_for("finalizers", lambda: finalizers(cluster))


def test_objects_can_go_after_an_uninstall(cluster):
    ended, said, code, words = uninstall(cluster)
    assert (ended, code) == (0, 0), said + words
    cluster.store.run_kubectl("delete", "egp,egcp", "--all", "-A")
    cluster.store.run_kubectl("delete", "egw,egt,egci", "--all", "--timeout=20s")
    assert cluster.egw("uninstall").returncode == 0, "with nothing there"
