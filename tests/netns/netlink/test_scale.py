"""Sizes: 5,000 policies with 50,000 endpoints, 5,000 egress IPs, 3,000 peers; bounds on time and memory of the
plugin. The times are the plugin's own, as the host measures them; run alone (ctest lock "timing")."""

import ipaddress
import json
import os
import statistics

import pytest
from rig import ALL, EIP4, Rig

POLICIES, PODS = 5000, 50000
COLD, ONE_MORE, FLIP, CLASS = 500, 1.0, 20, 10  # ms
SHAPES = [(24,), (24, 28), (16, 24, 32), (20, 22, 27), (8, 17, 30), (12, 13, 14), (25, 26), (21, 23, 29)]


def memory_kb(driver):
    """RSS and peak of the driver's process: host, plugin, libraries."""
    pid = driver.process.pid
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        fields = dict(line.split(":", 1) for line in f if ":" in line)
    return tuple(int(fields[k].split()[0]) for k in ("VmRSS", "VmHWM"))


def egress(i, owner="n2", serve=False):
    """Egress i, owned by the peer `owner` or by "self"."""
    out = {"id": i, "kind": "address", "ipv4": f"10.7.{i // 250}.{i % 250 + 1}", "ipv6": f"fd00:7::{i:x}",
           "mayServe": serve, "owner": "self" if owner == "self" else "peer"}
    return out if owner == "self" else {**out, "ownerPeer": owner}


def table(c, prefixes, egress_id):
    """Rules of class c: everything, or `prefixes` of each family that no other class has. With "mixed" the lengths
    differ from class to class."""
    if not prefixes:
        return [{"destination": d, "action": "egress", "egressID": egress_id} for d in ("0.0.0.0/0", "::/0")]
    rules = []
    lengths = SHAPES[c % len(SHAPES)] if prefixes == "mixed" else (24, 26, 28)[:prefixes]
    for k, length in enumerate(lengths):
        v4 = (11 + 40 * k << 24) + c * 256
        v4 &= 0xffffffff << 32 - length
        rules.append((".".join(str(v4 >> s & 255) for s in (24, 16, 8, 0)) + f"/{length}", f"2001:{c:x}:{k:x}::/{length + 32}"))
    return [{"destination": d, "action": "egress", "egressID": egress_id} for pair in rules for d in pair]


def normal(rule):
    """IPv6 prefixes without host bits."""
    return {**rule, "destination": str(ipaddress.ip_network(rule["destination"], strict=False))}


def big_change(rig, node, ids, prefixes=0, owner="n2", serve=False):
    """5,000 classes over `ids` egresses; the pods are spread over the classes."""
    change = rig.change(node)
    change["egresses"] = [egress(i, owner, serve) for i in range(1, ids + 1)]
    change["classes"] = [{"id": c, "rules": [normal(r) for r in table(c, prefixes, c % ids + 1)]}
                         for c in range(1, POLICIES + 1)]
    change["endpoints"] = [{"address": f"10.{128 + k // 65536}.{k // 256 % 256}.{k % 256}", "class": k % POLICIES + 1}
                           for k in range(PODS)]
    return change


def apply_file(rig, driver, change):
    """Full apply; milliseconds."""
    path = os.path.join(rig.state, "change.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(change, f)
    answer = driver.ask("apply", file=path)
    assert answer["ok"] and not answer["failures"], answer
    return answer["tookUs"] / 1000


def step(rig, node, **fields):
    answer = rig.delta(node, **fields)
    assert answer["ok"] and not answer["needFull"] and not answer["failures"], answer
    return answer["tookUs"] / 1000


def figure(test, **values):
    print("figure", json.dumps({"test": test, **{k: round(v, 3) for k, v in values.items()}}))


@pytest.mark.parametrize("ids,prefixes,serve", [(250, 0, False), (5000, 0, False), (5000, 0, True), (5000, 3, True),
                                                (5000, "mixed", False)],
                         ids=["250-ids", "5000-ids", "5000-ids-gateway", "3-prefixes-gateway", "many-lengths"])
def test_five_thousand_policies(request, ids, prefixes, serve):
    with Rig(nodes=3) as rig:
        driver = rig.driver("n1")
        apply_file(rig, driver, rig.change("n1"))
        change = big_change(rig, "n1", ids, prefixes, serve=serve)
        cold = apply_file(rig, driver, change)
        rss, peak = memory_kb(driver)
        more = [step(rig, "n1", endpoints=[{"address": f"10.200.0.{k}", "class": k + 1}]) for k in range(30)]
        classes = [step(rig, "n1", classes=[{"id": c, "rules": [normal(r) for r in table(c + 5000, 3, 1)]}])
                   for c in range(1, 6)]
        flips, taken, one = [], [], []
        for owner in ("n3", "n2", "n3", "self", "n2"):
            if owner == "self" and not serve:
                continue
            took = step(rig, "n1", egresses=[egress(i, owner, serve) for i in range(1, min(ids, 1000) + 1)])
            # Taking over and giving away also looks for connections of this node's 50,000 pods.
            (taken if serve and len(flips) == 3 else flips).append(took)
            one.append(step(rig, "n1", egresses=[egress(ids, owner, serve)]))
        rig.generation += 1
        change["generation"] = rig.generation
        again = apply_file(rig, driver, change)
        figure(f"netlink {request.node.callspec.id}", cold_ms=cold, one_endpoint_ms=statistics.median(more),
               one_class_ms=statistics.median(classes), flip_ms=statistics.median(flips), take_over_ms=max(taken, default=0),
               one_egress_ms=statistics.median(one), again_ms=again, rss_mb=rss / 1024, peak_mb=peak / 1024)
        assert cold <= COLD
        assert statistics.median(more) <= ONE_MORE
        assert statistics.median(classes) <= CLASS
        assert statistics.median(flips) <= FLIP
        assert rss <= 90 * 1024


def test_three_thousand_peers():
    """Each with its number; the last one's pods get their answers."""
    with Rig(nodes=2) as rig:
        pod = rig.pod("n1")
        rig.egress(7, EIP4, "fd00::56", owner="n2")
        rig.steer(pod, ALL)
        rig.apply()
        change = rig.change("n2")
        change["peers"] = [{"name": f"a{i}", "underlay": f"10.6.{8 + i // 250}.{i % 250 + 1}",
                            "tunnelIPv4": f"172.31.{8 + i // 250}.{i % 250 + 1}", "tunnelIPv6": f"fd11::1:{i:x}",
                            "mac": f"02:aa:00:00:{i // 256:02x}:{i % 256:02x}"} for i in range(3000)] + change["peers"]
        driver = rig.driver("n2")
        driver.stop(kill=True)
        rig.drivers.pop("n2")
        cold = apply_file(rig, rig.driver("n2"), change)
        more = [step(rig, "n2", peers=[{"name": f"b{k}", "underlay": f"10.6.7.{k + 1}", "tunnelIPv4": f"172.31.7.{k + 1}",
                                        "mac": f"02:ab:00:00:00:{k:02x}"}]) for k in range(5)]
        figure("netlink 3000 peers", cold_ms=cold, one_peer_ms=statistics.median(more))
        assert pod.source(4) == EIP4 and pod.source(6) == "fd00::56"
        assert cold <= COLD
