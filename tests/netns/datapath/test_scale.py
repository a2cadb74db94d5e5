"""Sizes: 5,000 policies with 50,000 endpoints, 3,000 peers; bounds on time and memory of the plugin. The times
are the plugin's own, as the host measures them; run alone (ctest lock "timing")."""

import json
import os
import statistics

import pytest
from rig import Rig

POLICIES, PODS = 5000, 50000


def memory_kb(driver):
    """RSS and peak of the driver's process: host, plugin, libraries."""
    pid = driver.process.pid
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        fields = dict(line.split(":", 1) for line in f if ":" in line)
    return tuple(int(fields[k].split()[0]) for k in ("VmRSS", "VmHWM"))


def big_change(rig, node, policies, pods, ids, prefixes=0):
    """`policies` classes over `ids` egresses; the pods are spread over the classes."""
    change = rig.change(node)
    change["egresses"] = [{"id": i, "kind": "address", "ipv4": f"10.7.{i // 250}.{i % 250 + 1}",
                           "ipv6": f"fd00:7::{i:x}", "owner": "peer", "ownerPeer": "n2", "mayServe": False}
                          for i in range(1, ids + 1)]
    classes = []
    for c in range(1, policies + 1):
        egress = c % ids + 1
        destinations = [f"198.{18 + c % 2}.{c // 2 % 250}.{16 * k}/28" for k in range(prefixes)] or ["0.0.0.0/0", "::/0"]
        classes.append({"id": c, "rules": [{"destination": d, "action": "egress", "egressID": egress}
                                           for d in destinations]})
    change["classes"] = classes
    change["endpoints"] = [{"address": f"10.{128 + k // 65536}.{k // 256 % 256}.{k % 256}", "class": k % policies + 1}
                           for k in range(pods)]
    return change


def apply_file(rig, driver, change):
    path = os.path.join(rig.state, "change.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(change, f)
    answer = driver.ask("apply", file=path)
    assert answer["ok"] and not answer["failures"], answer
    return answer["tookUs"]


@pytest.mark.parametrize("ids,prefixes", [(250, 0), (5000, 0), (250, 3)], ids=["250-ids", "5000-ids", "3-prefixes"])
def test_five_thousand_policies(ids, prefixes):
    with Rig(nodes=2) as rig:
        driver = rig.driver("n1")
        apply_file(rig, driver, rig.change("n1"))
        change = big_change(rig, "n1", POLICIES, PODS, ids, prefixes)
        cold = apply_file(rig, driver, change)
        after = memory_kb(driver)
        more = []
        for k in range(30):
            answer = rig.delta("n1", endpoints=[{"address": f"10.200.0.{k}", "class": k + 1}])
            assert answer["ok"] and not answer["needFull"], answer
            more.append(answer["tookUs"])
        moves = []
        for k in range(5):
            answer = rig.delta("n1", egresses=[{"id": k + 1, "kind": "address", "ipv4": "10.7.0.1", "owner": "none"}])
            moves.append(answer["tookUs"])
        change["endpoints"] += [{"address": f"10.200.0.{k}", "class": k + 1} for k in range(30)]
        rig.generation += 1
        change["generation"] = rig.generation
        again = apply_file(rig, driver, change)
        print(f"\nids {ids} prefixes {prefixes}: cold {cold / 1000:.1f} ms; one endpoint more: median "
              f"{statistics.median(more)} us, max {max(more)} us; one egress: {statistics.median(moves) / 1000:.1f} ms; "
              f"full again {again / 1000:.1f} ms; RSS {after[0] // 1024} MB, peak {after[1] // 1024} MB")
        if prefixes == 0:
            assert cold <= 500_000
        assert statistics.median(more) <= 1000
        assert after[0] <= 90 * 1024
