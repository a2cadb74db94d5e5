"""Controller replicas: one leads, another takes over, and nothing moves needlessly."""

import json
import signal
import time

from conftest import EIP4


def leader(cluster):
    return json.loads(cluster.egw("status", "-o", "json", check=False).stdout)["leader"]


def replica(cluster, holder):
    return next(i for i in range(cluster.controllers) if f"ctl{i}" in holder)


def next_leader(cluster, before, timeout):
    begin = time.monotonic()
    while time.monotonic() - begin < timeout:
        now = leader(cluster)
        if now["holder"] and now["holder"] != before["holder"]:
            return now, time.monotonic() - begin
    raise AssertionError(f"no other leader than {before['holder']} within {timeout} s")


def test_killed_leader_is_replaced_and_nothing_moves(shop):
    owner, before = shop.owner("egw", EIP4), leader(shop)
    shop.controller(replica(shop, before["holder"])).stop(signal.SIGKILL)
    after, _ = next_leader(shop, before, 5)
    assert after["term"] > before["term"]
    time.sleep(5)  # more than an eviction timeout: the time in which a wrong move would come
    assert shop.owner("egw", EIP4) == owner
    assert shop.source("pod1") == EIP4


def test_status_says_that_no_controller_lives(shop):
    """The row and the ClusterInfo name the last leader for ever; failover is off all the same."""
    end = time.monotonic() + 10
    while shop.egw("status", check=False).returncode != 0:  # until the pods are known to be steered everywhere
        assert time.monotonic() < end, shop.egw("status", check=False).stdout
    last = replica(shop, leader(shop)["holder"])
    others = [i for i in range(shop.controllers) if i != last]
    for i, number in [(i, signal.SIGTERM) for i in others] + [(last, signal.SIGKILL)]:
        shop.controller(i).stop(number)
    begin = time.monotonic()
    done = shop.egw("status", "-o", "json", check=False)
    assert time.monotonic() - begin < 3 and done.returncode == 1
    status = json.loads(done.stdout)
    assert [p["reason"] for p in status["problems"]] == ["NoLeader"] and status["leader"]["holder"] == ""
    shop.controller(last).start()
    next_leader(shop, {"holder": ""}, 10)
    shop.controller(last).stop(signal.SIGTERM)
    begin = time.monotonic()
    assert shop.egw("status", check=False).returncode == 1 and time.monotonic() - begin < 3


def test_stopped_leader_loses_its_office_and_cannot_write(shop):
    before = leader(shop)
    stopped = shop.controller(replica(shop, before["holder"]))
    stopped.process.signal(signal.SIGSTOP)
    try:
        after, _ = next_leader(shop, before, 20)
    finally:
        stopped.process.signal(signal.SIGCONT)
    assert after["term"] > before["term"]
    gateway = shop.get("egw", "egw")
    time.sleep(1)
    assert leader(shop)["holder"] == after["holder"]
    assert shop.get("egw", "egw")["status"]["nodeList"] == gateway["status"]["nodeList"]
