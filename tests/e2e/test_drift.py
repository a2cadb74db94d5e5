"""Somebody takes kernel objects away under a running agent: put back within 2 s, and counted."""

import json
import time

from conftest import EIP4, EIP6, http, result_line, wait_source
from lab import net


def repaired(cluster, node):
    """The agent's counter of repaired objects, all types."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in http(cluster, node, "5811/metrics")[1].splitlines()
               if line.startswith("egw_repaired_total{"))


def endpoint_map(cluster, node):
    """The name of the map that holds the node's pods."""
    pod = next(p["ipv4"] for p in cluster.pods.values() if p["node"] == node)
    listed = json.loads(net.enter(cluster.ns(node), "nft", "-j", "list", "table", "ip", "egw"))
    for item in listed["nftables"]:
        if "map" in item and pod in json.dumps(item["map"].get("elem", [])):
            return item["map"]["name"], pod
    raise AssertionError(f"no map of table ip egw holds {pod}")


def delete_element(cluster, node):
    name, pod = endpoint_map(cluster, node)
    net.enter(cluster.ns(node), "nft", "delete", "element", "ip", "egw", name, f"{{ {pod} }}")


def delete_table(cluster, node):
    net.enter(cluster.ns(node), "nft", "delete", "table", "ip", "egw")


def delete_rule(cluster, node):
    rules = net.enter(cluster.ns(node), "ip", "-j", "rule", "list")
    ours = next(r for r in json.loads(rules) if r["priority"] not in (0, 32766, 32767))
    net.enter(cluster.ns(node), "ip", "rule", "del", "pref", str(ours["priority"]))


def delete_route(cluster, node):
    routes = json.loads(net.enter(cluster.ns(node), "ip", "-j", "route", "list", "table", "all"))
    ours = next(r for r in routes if r.get("dev") == "egress.vxlan" and r.get("table") not in (None, "local", "main"))
    net.enter(cluster.ns(node), "ip", "route", "del", ours["dst"], "table", str(ours["table"]))


def delete_fdb(cluster, node):
    entries = json.loads(net.enter(cluster.ns(node), "bridge", "-j", "fdb", "show", "dev", "egress.vxlan"))
    entry = next(e for e in entries if e.get("dst"))
    net.enter(cluster.ns(node), "bridge", "fdb", "del", entry["mac"], "dev", "egress.vxlan", "dst", entry["dst"])


def delete_device(cluster, node):
    net.enter(cluster.ns(node), "ip", "link", "del", "egress.vxlan")


def device_down(cluster, node):
    net.enter(cluster.ns(node), "ip", "link", "set", "egress.vxlan", "down")


def test_what_is_taken_away_is_put_back_within_2_s(shop):
    for fault in (delete_element, delete_table, delete_rule, delete_route, delete_fdb, device_down, delete_device):
        before = repaired(shop, "n1")
        begin = time.monotonic()
        fault(shop, "n1")
        while repaired(shop, "n1") == before and time.monotonic() - begin < 2.5:
            pass
        took = time.monotonic() - begin
        wait_source(shop, "pod1", EIP4, 2)
        wait_source(shop, "pod1", EIP6, 2, family=6)
        result_line(f"repaired after {fault.__name__}", s=round(took, 3))
        assert took <= 2, f"{fault.__name__}: repaired after {took:.2f} s"
