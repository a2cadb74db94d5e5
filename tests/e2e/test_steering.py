"""Pods and policies that come, change and go are steered and unsteered at once."""

import time

from conftest import EIP4, policy, result_line, wait_source

NEW = {"app": "new"}


def first_change(cluster, pod, action, want):
    """Seconds from the end of `action` (the object is stored) to the first datagram seen as `want`."""
    traffic = cluster.traffic(pod)
    action()
    stored = time.monotonic()
    try:
        wait_source(cluster, pod, want, 2)
        took = time.monotonic() - stored
    finally:
        traffic.stop()
    return took


def test_a_pod_that_appears_is_steered_within_50_ms(shop):
    shop.add_pod("late", "n1", {"app": "shop"}, store=False)
    took = first_change(shop, "late", lambda: shop.apply(shop.pod_manifest("late")), EIP4)
    result_line("pod steered", ms=round(took * 1000, 1))
    assert took <= 0.05

    address = shop.pods["late"]["ipv4"]
    took = first_change(shop, "late", lambda: shop.egw("delete", "pod", "late", "-n", "default"), address)
    result_line("pod unsteered", ms=round(took * 1000, 1))
    assert took <= 0.05


def test_a_policy_that_changes_takes_effect_within_50_ms(shop):
    shop.add_pod("other", "n1", NEW)
    assert shop.source("other") == shop.pods["other"]["ipv4"]
    took = first_change(shop, "other", lambda: shop.apply(policy("new", labels=NEW)), EIP4)
    result_line("policy added", ms=round(took * 1000, 1))
    assert took <= 0.05
    took = first_change(shop, "other", lambda: shop.apply(policy("new", labels=NEW, dest=["203.0.113.0/24"])),
                        shop.pods["other"]["ipv4"])
    assert took <= 0.05
    took = first_change(shop, "other", lambda: shop.apply(policy("new", labels=NEW)), EIP4)
    assert took <= 0.05
    took = first_change(shop, "other", lambda: shop.egw("delete", "egp", "new", "-n", "default"),
                        shop.pods["other"]["ipv4"])
    assert took <= 0.05
