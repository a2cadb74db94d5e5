"""A restart of an agent or of every controller loses no packet and changes nothing in the kernel."""

import signal
import subprocess

import pytest
from conftest import EIP4, ready, result_line, sources
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
    monitor = Monitor(shop, node)
    t4, t6 = shop.traffic("pod1", 4, streams=4), shop.traffic("pod1", 6)
    shop.agent(node).stop(number)
    shop.agent(node).start()
    shop.wait("egt", node, lambda t: t["status"]["phase"] == "Ready"
              and t["status"]["lastHeartbeatTime"] != before)
    r4, r6 = t4.stop(), t6.stop()
    assert monitor.text() == ""
    assert (r4["lost"], r6["lost"], r4["tcp_resets"]) == (0, 0, 0)
    assert sources(r4) == [EIP4]


def test_every_controller_restarts(shop):
    owner = shop.owner("egw", EIP4)
    epoch = [e["epoch"] for n in shop.get("egw", "egw")["status"]["nodeList"] for e in n.get("eips", [])]
    traffic = shop.traffic("pod1", 4, streams=4)
    monitors = [Monitor(shop, n) for n in shop.nodes]
    for i in range(shop.controllers):
        shop.controller(i).stop(signal.SIGKILL)
    for i in range(shop.controllers):
        shop.controller(i).start()
    term = shop.get("egw", "egw")["status"].get("term", 0)
    shop.wait("egw", "egw", lambda g: g["status"].get("term", 0) >= term)
    ready(shop)
    result = traffic.stop()
    assert [m.text() for m in monitors] == [""] * len(shop.nodes)
    assert result["lost"] == 0 and result["tcp_resets"] == 0
    assert shop.owner("egw", EIP4) == owner
    assert epoch == [e["epoch"] for n in shop.get("egw", "egw")["status"]["nodeList"] for e in n.get("eips", [])]
    result_line("controllers restarted", lost=result["lost"])
