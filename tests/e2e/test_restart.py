"""A restart of an agent or of every controller loses no packet and changes nothing in the kernel; a node
whose kernel is empty is not Ready before it is programmed."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time

import pytest
from conftest import EIP4, EIP6, GATEWAY, events, policy, ready, result_line, sources, wait_source
from lab import net


class Monitor:
    """`nft monitor` and `ip monitor` of a node; text() is what they saw of changes to configuration."""

    def __init__(self, cluster, node):
        ns = cluster.ns(node)
        self.running = [
            subprocess.Popen(net.inside(ns, *args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for args in (["nft", "monitor"], ["ip", "monitor", "link", "address", "route", "rule"])]

    def text(self):
        out = ""
        for p in self.running:
            p.terminate()
            out += p.communicate(timeout=10)[0]
        return out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("who", ["client", "owner"])
def test_agent_restart(shop, number, who):
    node = "n1" if who == "client" else shop.owner("egw", EIP4)
    before = shop.get("egt", node)["status"]["lastHeartbeatTime"]
    programmed = shop.agent(node).log_text().count("node programmed")
    monitor = Monitor(shop, node)
    t4, t6 = shop.traffic("pod1", 4, streams=4), shop.traffic("pod1", 6)
    shop.agent(node).stop(number)
    shop.agent(node).start()
    shop.wait("egt", node, lambda t: t["status"]["phase"] == "Ready"
              and t["status"]["lastHeartbeatTime"] != before)
    programmed_again(shop, node, programmed)
    r4, r6 = t4.stop(), t6.stop()
    assert monitor.text() == ""
    assert (r4["lost"], r6["lost"], r4["tcp_resets"]) == (0, 0, 0)
    assert (sources(r4), sources(r6)) == ([EIP4], [EIP6])
    assert not gave_up_ready(shop, node)


def programmed_again(cluster, node, before):
    """Waits for the agent's first apply after `before` of them: what it would change it has changed then."""
    deadline = time.monotonic() + 10
    while cluster.agent(node).log_text().count("node programmed") <= before:
        assert time.monotonic() < deadline, "not programmed"
        time.sleep(0.02)


def gave_up_ready(cluster, node):
    """The agent's own word, as an event, that its node is no longer Ready."""
    return [e for e in events(cluster, "Init")
            if e["regarding"]["name"] == node and "phase Ready to Init" in e["note"]]


def tunnel_devices(cluster, node):
    listed = json.loads(net.enter(cluster.ns(node), "ip", "-j", "link", "show", "type", "vxlan"))
    return [d["ifname"] for d in listed if d]


@pytest.mark.parametrize("datapath", ["netlink", "iptables", "ebpf"])
def test_restart_with_another_name_of_the_tunnel_device(make_cluster, datapath):
    """The device of the former name has the id and the port that the new one needs: it goes, and no packet leaks."""
    cluster = make_cluster(nodes=2, gateways=1, settings={"plugins": {"datapath": {"name": datapath}}})
    cluster.add_pod("pod1", "n1", {"app": "shop"})
    cluster.apply(GATEWAY, policy())
    wait_source(cluster, "pod1", EIP4)
    cluster.server_stop()
    cluster.server_start()
    cluster.settings["feature"] = {"vxlan": {"name": "other.vxlan"}}
    traffic = cluster.traffic("pod1", 4)
    for node in cluster.nodes:
        cluster.agent(node).stop()
        cluster.agent(node).start()
        deadline = time.monotonic() + 10
        while tunnel_devices(cluster, node) != ["other.vxlan"]:
            assert time.monotonic() < deadline, tunnel_devices(cluster, node)
        wait_source(cluster, "pod1", EIP4)
    traffic.stop()
    assert set(cluster.server_stop()["sources"]) == {EIP4}


@pytest.mark.parametrize("datapath", ["netlink", "iptables", "ebpf"])
def test_an_owner_that_has_booted_leaks_nothing(make_cluster, datapath):
    """It is back before its EIPs have moved: what comes in by the tunnel before its rules are there goes nowhere."""
    cluster = make_cluster(nodes=2, gateways=1, settings={"plugins": {"datapath": {"name": datapath}}})
    cluster.add_pod("pod1", "n1", {"app": "shop"})
    cluster.apply(GATEWAY, policy())
    for family, eip in ((4, EIP4), (6, EIP6)):
        wait_source(cluster, "pod1", eip, family=family)
    for _ in range(3):
        cluster.agent("n2").stop(signal.SIGKILL)
        net.enter(cluster.ns("n2"), os.path.join(cluster.bin, "egw"), "--config", cluster.config("agent", "n2"), "purge")
        cluster.server_stop()
        cluster.server_start()
        running = [cluster.traffic("pod1", family, interval_us=200) for family in (4, 6)]
        cluster.agent("n2").start()
        for family, eip in ((4, EIP4), (6, EIP6)):
            wait_source(cluster, "pod1", eip, family=family)
        for traffic in running:
            traffic.stop()
        assert set(cluster.server_stop()["sources"]) == {EIP4, EIP6}
        cluster.server_start()


def test_agent_restart_after_a_history(shop):
    """The running agent numbers its classes in the order in which they came, a new one afresh."""
    other = {"app": "other"}
    shop.add_pod("other", "n1", other)
    shop.apply(policy("other", labels=other, dest=["10.6.0.0/16", "fd00::/64"]))
    wait_source(shop, "other", EIP4)
    shop.egw("delete", "pod", "pod1", "-n", "default")
    wait_source(shop, "pod1", shop.pods["pod1"]["ipv4"])
    shop.apply(shop.pod_manifest("pod1"))
    wait_source(shop, "pod1", EIP4)
    before = shop.get("egt", "n1")["status"]["lastHeartbeatTime"]
    monitor = Monitor(shop, "n1")
    shop.agent("n1").stop(signal.SIGKILL)
    shop.agent("n1").start()
    shop.wait("egt", "n1", lambda t: t["status"]["lastHeartbeatTime"] != before)
    programmed_again(shop, "n1", 1)
    assert shop.agent("n1").log_text().count("node programmed") == 2
    assert monitor.text() == ""


def test_a_reboot_in_time_is_not_taken_for_a_restart(shop):
    """The store still says Ready when the agent comes back, and the kernel holds nothing."""
    node = shop.owner("egw", EIP4)
    shop.agent(node).stop(signal.SIGKILL)
    for command in (["nft", "flush", "ruleset"], ["ip", "link", "delete", "egress.vxlan"]):
        subprocess.run(net.inside(shop.ns(node), *command), check=True)
    assert shop.get("egt", node)["status"]["phase"] == "Ready"
    shop.agent(node).start()
    shop.wait("egw", "egw", lambda g: any(n["name"] != node and n.get("eips") for n in g["status"]["nodeList"]), 2.5)
    ready(shop)
    deadline = time.monotonic() + 5  # events follow the statuses that they tell of
    while not gave_up_ready(shop, node) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gave_up_ready(shop, node)
    assert shop.owner("egw", EIP4) != node
    wait_source(shop, "pod1", EIP4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_every_controller_restarts(shop, number):
    owner = shop.owner("egw", EIP4)
    epoch = [e["epoch"] for n in shop.get("egw", "egw")["status"]["nodeList"] for e in n.get("eips", [])]
    term = shop.get("egw", "egw")["status"]["term"]
    running = [shop.traffic("pod1", 4, streams=4), shop.traffic("pod1", 6)]
    monitors = [Monitor(shop, n) for n in shop.nodes]
    for i in range(shop.controllers):
        shop.controller(i).stop(number)
    for i in range(shop.controllers):
        shop.controller(i).start()
    shop.wait("egw", "egw", lambda g: g["status"]["term"] > term)
    ready(shop)
    time.sleep(5)  # a leader that counted heartbeats from its own start would have moved EIPs by now
    results = [traffic.stop() for traffic in running]
    assert [m.text() for m in monitors] == [""] * len(shop.nodes)
    assert [(r["lost"], r["tcp_resets"]) for r in results] == [(0, 0)] * 2
    assert [sources(r) for r in results] == [[EIP4], [EIP6]]
    assert shop.owner("egw", EIP4) == owner
    assert epoch == [e["epoch"] for n in shop.get("egw", "egw")["status"]["nodeList"] for e in n.get("eips", [])]
    result_line("controllers restarted", lost=sum(r["lost"] for r in results))


def remove_store(cluster):
    for name in os.listdir(cluster.dir):
        if name.startswith("egw.db"):
            os.unlink(os.path.join(cluster.dir, name))


def test_removed_store_is_no_order_to_remove_everything(shop):
    """First a verb looks while all run, then every process is ended and an empty store is made: traffic goes on."""
    copy = os.path.join(shop.dir, "backup.db")
    with contextlib.closing(sqlite3.connect(os.path.join(shop.dir, "egw.db"))) as store, \
            contextlib.closing(sqlite3.connect(copy)) as to:
        store.backup(to)
    processes = [shop.controller(i) for i in range(shop.controllers)] + [shop.agent(n) for n in shop.nodes]
    traffic = shop.traffic("pod1")
    remove_store(shop)
    for verb in (["get", "egw"], ["apply", "-f", "-"], ["status"], ["get", "egw", "-w"]):
        done = shop.egw(*verb, stdin=json.dumps(GATEWAY), check=False)
        assert done.returncode != 0 and "egw.db" in done.stderr, (verb, done)
    assert not os.path.exists(os.path.join(shop.dir, "egw.db"))
    for process in processes:
        process.stop(signal.SIGKILL)
    shop.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.244.1.0/24"]}})
    for process in processes:
        process.start()
    told = shop.wait("egt", "n1", lambda t: [c for c in t.get("status", {}).get("conditions", [])
                                             if c["type"] == "StoreReplaced" and c["status"] == "True"])[0]
    assert told["status"]["phase"] == "Failed"
    status = shop.egw("status", check=False)
    assert status.returncode == 1 and "StoreReplaced" in status.stdout, status
    # Who forgets an EIP finds it again.
    net.batch(shop.ns("srv"), "neigh flush dev eth0")
    wait_source(shop, "pod1", EIP4, timeout=3)
    wait_source(shop, "pod1", EIP6, timeout=3, family=6)
    os.replace(copy, os.path.join(shop.dir, "egw.db"))
    ready(shop)
    shop.add_pod("later", "n1", {"app": "shop"})
    wait_source(shop, "later", EIP4)
    report = traffic.stop()
    assert sources(report) == [EIP4], report
