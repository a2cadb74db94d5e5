"""Pods and policies that come, change and go are steered and unsteered at once."""

import json
import os
import subprocess
import time

from conftest import EIP4, policy, result_line, wait_source

NEW = {"app": "new"}


def stored_at(cluster, *args, document=None):
    """Runs a verb that writes; the monotonic time at which it said that the object is stored."""
    command = [os.path.join(cluster.bin, "egw"), "--config", os.path.join(cluster.dir, "verb.yaml"), *args]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as verb:
        if document:
            verb.stdin.write(json.dumps(document))
        verb.stdin.close()
        line = verb.stdout.readline()
        at = time.monotonic()
        assert line, "the verb was refused"
    return at


def milliseconds(cluster, pod, want, *args, document=None):
    """From the write to the first of the pod's datagrams (1 kHz) that the server sees as `want`."""
    traffic = cluster.traffic(pod)
    at = stored_at(cluster, *args, document=document)
    wait_source(cluster, pod, want, 2)
    time.sleep(0.1)  # a new flow has turned; the running one has the bound's time to follow
    first = [run["first_us"] for run in traffic.stop()["sources"] if run["source"] == want]
    assert first, "the running flow never changed its source"
    return round(first[0] / 1000 - at * 1000, 1)


def apply(cluster, pod, want, document):
    return milliseconds(cluster, pod, want, "apply", "-f", "-", document=document)


def test_a_pod_that_appears_is_steered_within_50_ms(shop):
    shop.add_pod("late", "n1", {"app": "shop"}, store=False)
    took = apply(shop, "late", EIP4, shop.pod_manifest("late"))
    result_line("pod steered", ms=took)
    assert took <= 50
    took = milliseconds(shop, "late", shop.pods["late"]["ipv4"], "delete", "pod", "late", "-n", "default")
    result_line("pod unsteered", ms=took)
    assert took <= 50


def test_a_policy_that_changes_takes_effect_within_50_ms(shop):
    shop.add_pod("other", "n1", NEW)
    own = shop.pods["other"]["ipv4"]
    wait_source(shop, "other", own)
    figures = {
        "added": apply(shop, "other", EIP4, policy("new", labels=NEW)),
        "narrowed": apply(shop, "other", own, policy("new", labels=NEW, dest=["203.0.113.0/24"])),
        "widened": apply(shop, "other", EIP4, policy("new", labels=NEW)),
        "removed": milliseconds(shop, "other", own, "delete", "egp", "new", "-n", "default"),
    }
    result_line("policy", **figures)
    assert max(figures.values()) <= 50, figures
