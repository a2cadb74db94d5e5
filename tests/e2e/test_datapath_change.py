"""Another datapath on a node that runs (docs/adr/0017): the new one programs the node, the former one
leaves. Between datapaths of one layout running connections of other nodes' pods and of its own go on; between others
packets are dropped meanwhile, which the log says, and none leaves with another address. And `datapath: auto`."""

import itertools
import json
import os
import pathlib
import signal
import subprocess

import pytest
from conftest import EIP4, EIP6, GATEWAY, placed, policy, ready, result_line, wait_source
from lab import net
from lab.cluster import build_dir

PLUGINS = pathlib.Path(build_dir()) / "lib" / "egw" / "plugins"
INSTALLED = [n for n in ("ebpf", "netlink", "iptables") if (PLUGINS / f"egw-datapath-{n}.so").exists()]
PAIRS = list(itertools.permutations(INSTALLED, 2))
ALONE = {"iptables"}  # has no layout in common with another


def use(cluster, node, name):
    cluster.own_settings[node] = {"plugins": {"datapath": {"name": name, "config": {}}}}


def restart(cluster, node, name):
    use(cluster, node, name)
    cluster.agent(node).stop(signal.SIGTERM)
    cluster.agent(node).start()


def record(cluster, node):
    path = pathlib.Path(cluster.dir) / "state" / node / "datapath.json"
    return json.loads(path.read_text()) if path.exists() else {}


def changed(cluster, node, name):
    """The node runs with `name` and nobody else is left on it."""
    def done(_):
        now = record(cluster, node)
        return now.get("name") == name and not now.get("former") and now.get("holds")
    cluster.wait("egt", node, done, 20)
    cluster.wait("egt", node, lambda t: t["status"]["phase"] == "Ready", 20)


def egw(cluster, node, *words):
    args = net.inside(cluster.ns(node), os.path.join(cluster.bin, "egw"), "--config",
                      os.path.join(cluster.dir, f"{node}.yaml"), *words)
    return subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(name="two")
def fixture_two(make_cluster):
    """n1 a client, n2 the owner, a pod on each."""
    def make(name):
        cluster = make_cluster(up=False, nodes=2, gateways=1)
        for node in cluster.nodes:
            use(cluster, node, name)
        cluster.up()
        ready(cluster)
        for i, node in enumerate(cluster.nodes, 1):
            cluster.add_pod(f"pod{i}", node, {"app": "shop"})
        cluster.apply(GATEWAY, policy())
        placed(cluster)
        for pod in ("pod1", "pod2"):
            wait_source(cluster, pod, EIP4)
            wait_source(cluster, pod, EIP6, family=6)
        return cluster
    return make


if PAIRS:  # more than one is built
    @pytest.mark.parametrize("old, new", PAIRS, ids=["-".join(p) for p in PAIRS])
    @pytest.mark.parametrize("node", ["n1", "n2"], ids=["client", "owner"])
    def test_a_change_under_traffic(two, node, old, new):
        cluster = two(old)
        flows = {pod: cluster.traffic(pod, streams=2) for pod in ("pod1", "pod2")}
        restart(cluster, node, new)
        changed(cluster, node, new)
        kept = not ALONE & {old, new}
        log = cluster.agent(node).log_text()
        assert ("has handed over; running connections go on" in log) is kept
        assert ("connections that had an EIP begin anew" in log) is not kept
        for pod, family in (("pod1", 4), ("pod2", 6)):
            wait_source(cluster, pod, EIP4 if family == 4 else EIP6, family=family)
        for pod, flow in flows.items():
            report = flow.stop()
            lost = report["lost"]
            result_line(f"{old} to {new} on the {'client' if node == 'n1' else 'owner'}, {pod}", sent=report["sent"], lost=lost)
            assert {s["source"] for s in report["sources"]} == {EIP4}
            if kept:
                assert report["tcp_resets"] == 0 and report["tcp_stalled"] == 0 and lost <= 200, report


def test_automatic_choice_is_told_and_survives_a_restart(two):
    cluster = two("auto")
    first = INSTALLED[0]
    said = json.loads(egw(cluster, "n1", "status", "-o", "json").stdout)
    assert {t["datapath"] for t in said["tunnels"]} == {first}
    missing = [n for n in ("ebpf", "netlink", "iptables") if n not in INSTALLED]
    for name in missing:
        assert f"{name}: is not installed" in said["tunnels"][0]["datapathNotChosen"]
    text = egw(cluster, "n1", "status").stdout
    assert "Datapaths chosen automatically:" in text and first in text
    local = json.loads(egw(cluster, "n1", "status", "--local", "-o", "json").stdout)
    assert local["agent"]["datapath"]["name"] == first
    plugins = json.loads(egw(cluster, "n1", "plugin", "list", "-o", "json").stdout)
    assert {p["name"]: p.get("inUse") for p in plugins if p["name"] == first} == {first: "yes"}
    assert "datapath chosen automatically" in cluster.agent("n1").log_text()
    traffic = cluster.traffic("pod1")
    cluster.agent("n1").stop(signal.SIGTERM)
    cluster.agent("n1").start()
    cluster.wait("egt", "n1", lambda t: t["status"]["phase"] == "Ready", 15)
    changed(cluster, "n1", first)
    report = traffic.stop()
    assert report["lost"] <= 1
    cluster.agent("n1").stop(signal.SIGTERM)
    assert egw(cluster, "n1", "purge").stdout == "node/n1 purged\n"
    assert record(cluster, "n1") == {}


def test_none_usable_ends_the_agent_with_a_sentence(make_cluster, tmp_path):
    cluster = make_cluster(up=False, nodes=1, gateways=1)
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    for name in ("statestore-local", "leaderelection-local"):
        target = plugins / f"egw-{name}.so"
        target.write_bytes((PLUGINS / f"egw-{name}.so").read_bytes())
        target.chmod(0o644)
    cluster.own_settings["n1"] = {"plugins": {"dir": str(plugins), "datapath": {"name": "auto", "config": {}}}}
    cluster.up(start=False)
    cluster.config("agent", "n1")
    done = egw(cluster, "n1", "agent")
    assert done.returncode == 2, done.stderr
    assert "auto finds no usable datapath" in done.stderr and "netlink: is not installed" in done.stderr
