"""A node cut from the store, from the network, or from both."""

import time

from conftest import EIP4, sources, wait_source


def test_owner_cut_from_the_store_keeps_serving_until_the_bound(shop):
    old = shop.owner("egw", EIP4)
    traffic = shop.traffic("pod1", 4, streams=4)
    shop.cut(old, store=True)
    shop.cut(old, store=True)  # twice is once
    begin = time.monotonic()
    _, _ = shop.wait("egw", "egw", lambda g: any(n["name"] != old and n.get("eips")
                                                 for n in g["status"]["nodeList"]), 8)
    assert time.monotonic() - begin >= 2, "moved before the heartbeat's bound"
    wait_source(shop, "pod1", EIP4)
    time.sleep(0.5)
    result = traffic.stop()
    assert sources(result) == [EIP4]
    assert result["tcp_resets"] == 0
    shop.restore(old)
    shop.wait("egt", old, lambda t: t["status"]["phase"] == "Ready", 10)
    assert shop.owner("egw", EIP4) != old  # no failback


def test_cut_from_both_moves_within_the_bound(shop):
    old = shop.owner("egw", EIP4)
    shop.cut(old, store=True, uplink=True)
    _, took = shop.wait("egw", "egw", lambda g: any(n["name"] != old and n.get("eips")
                                                    for n in g["status"]["nodeList"]), 8)
    assert took <= 4.5
    wait_source(shop, "pod1", EIP4)


def test_everybody_cut_from_the_store_changes_nothing(shop):
    old = shop.owner("egw", EIP4)
    traffic = shop.traffic("pod1", 4, streams=4)
    for node in shop.nodes:
        shop.cut(node, store=True)
    time.sleep(6)  # twice the eviction timeout
    result = traffic.stop()
    assert result["lost"] == 0 and result["tcp_resets"] == 0
    assert shop.owner("egw", EIP4) == old
    for node in shop.nodes:
        shop.restore(node)
    for node in shop.nodes:
        shop.wait("egt", node, lambda t: t["status"]["phase"] == "Ready", 10)
    assert shop.owner("egw", EIP4) == old
