"""Trouble that is not the agent's own, as people and programs learn of it: a stranger with an egress IP, a gateway that drops
the tunnel, a probe that asks too early; and logs for a collector."""

import json

from conftest import EIP4, GATEWAY, events, http, placed, policy, problems, sources, until, wait_source
from lab import net
from test_api import condition

DROP_TUNNEL = """
table inet stranger {
    chain input { type filter hook input priority 0; iifname "egress.vxlan" drop; }
    chain forward { type filter hook forward priority 0; iifname "egress.vxlan" drop; }
}
"""


def conflicts(cluster, node):
    line = next(x for x in http(cluster, node, "5811/metrics")[1].splitlines() if x.startswith("egw_eip_conflicts_total"))
    return float(line.rsplit(" ", 1)[1])


def test_a_stranger_with_an_egress_ip_is_named_and_the_owner_goes_on(shop):
    owner = shop.owner("egw", EIP4)
    traffic = shop.traffic("pod1")
    assert conflicts(shop, owner) == 0 and not condition(shop.get("egt", owner), "EipConflict")
    shop.attach("stranger", "10.6.0.200", "fd00::200", make=True)
    mac = net.run("ip", "-n", shop.ns("stranger"), "-br", "link", "show", "eth0").split()[2]
    net.batch(shop.ns("stranger"), f"addr add {EIP4}/16 dev eth0")
    # As a machine does that uses the address: it asks for the server's MAC on its behalf.
    net.enter(shop.ns("stranger"), "/usr/bin/python3", "-c",
              f"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('{EIP4}', 0)); "
              "s.sendto(b'?', ('10.6.0.100', 9))")
    said, _ = shop.wait("egt", owner, lambda t: condition(t, "EipConflict").get("status") == "True", 5)
    message = condition(said, "EipConflict")["message"]
    assert EIP4 in message and mac in message and said["status"]["phase"] == "Ready"
    assert mac in until(lambda: events(shop, "EipConflict"))[0]["note"]
    assert conflicts(shop, owner) >= 1
    log = shop.agent(owner).log_text()
    assert log.count("EipConflict: another machine claims an EIP of this node") == 1 and mac in log
    assert any("EipConflict" in p["reason"] for p in problems(shop))
    wait_source(shop, "pod1", EIP4)
    assert shop.owner("egw", EIP4) == owner and sources(traffic.stop()) == [EIP4]


def test_a_gateway_that_drops_the_tunnel_gives_its_egress_ips_away(make_cluster):
    """It is healthy itself: its clients say so, and the next one gets them. Nothing moves back."""
    cluster = make_cluster(nodes=4, gateways=2)
    for node in ("n1", "n2"):
        cluster.add_pod("on-" + node, node, {"app": "shop"})
    cluster.apply(GATEWAY, policy())
    placed(cluster)
    old = cluster.owner("egw", EIP4)
    for node in ("n1", "n2"):
        wait_source(cluster, "on-" + node, EIP4)
        cluster.wait("egt", node, lambda t: condition(t, "TunnelReachable").get("status") == "True")
    net.enter(cluster.ns(old), "nft", "-f", "-", stdin=DROP_TUNNEL)
    for node in ("n1", "n2"):
        said, _ = cluster.wait("egt", node, lambda t: condition(t, "TunnelReachable").get("status") == "False")
        assert old in condition(said, "TunnelReachable")["message"] and said["status"]["unreachable"] == [old]
    cluster.wait("egw", "egw", lambda g: any(n["name"] != old and n.get("eips") for n in g["status"]["nodeList"]))
    for node in ("n1", "n2"):
        wait_source(cluster, "on-" + node, EIP4)
    assert cluster.get("egt", old)["status"]["phase"] == "Ready"
    net.enter(cluster.ns(old), "nft", "delete", "table", "inet", "stranger")
    for node in ("n1", "n2"):
        cluster.wait("egt", node, lambda t: condition(t, "TunnelReachable").get("status") == "True")
    assert cluster.owner("egw", EIP4) != old


def test_probes_and_logs_for_a_collector(make_cluster):
    """/readyz tells apart what lives and what works; with log.format json every line is an object."""
    cluster = make_cluster(up=False, nodes=1, gateways=1, controllers=1, settings={"log": {"format": "json"}})
    cluster.up(start=False)
    agent, controller = cluster.agent("n1").start(), cluster.controller(0)
    assert until(lambda: http(cluster, "n1", "5810/healthz"), lambda answer: answer[0])[0] == 200
    status, reason = http(cluster, "n1", "5810/readyz")
    assert status == 503 and reason, "there is no controller yet that gives the node its tunnel address"
    controller.start()
    for who, port in (("n1", 5810), ("ctl0", 5820)):
        until(lambda w=who, p=port: http(cluster, w, f"{p}/readyz"), lambda answer: answer[0] == 200)
    for daemon in (agent, controller):
        daemon.stop()
        lines = [json.loads(line) for line in daemon.log_text().splitlines()]
        assert lines and all({"time", "level", "msg"} <= set(line) for line in lines), lines
