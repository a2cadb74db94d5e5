"""`egw vip move`: by hand, under traffic, and refused with a reason."""

import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import EIP4, EIP6, interrupted, result_line, sources, wait_source


def moved(cluster, *args):
    return cluster.egw("vip", "move", "egw", *args, check=False)


def test_moves_under_traffic_and_stays(shop):
    old = shop.owner("egw", EIP4)
    new = next(n for n in shop.gateways if n != old)
    t4, t6 = shop.traffic("pod1", 4, streams=8), shop.traffic("pod1", 6)
    done = moved(shop, EIP4, "--to", new)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"egressgateway/egw: {EIP4}/{EIP6} moved from {old} to {new} in ")
    assert shop.owner("egw", EIP4) == shop.owner("egw", EIP6) == new
    time.sleep(0.3)  # traffic after it
    r4, r6 = t4.stop(), t6.stop()
    result_line("vip move, pod on a client", lost=r4["lost"] + r6["lost"], resets=r4["tcp_resets"])
    assert (r4["lost"], r6["lost"], r4["tcp_resets"]) == (0, 0, 0)
    assert sources(r4) == [EIP4] and sources(r6) == [EIP6]
    wait_source(shop, "pod1", EIP4)
    # By the IPv6 address, back; asked again, it is there already.
    assert moved(shop, EIP6, "--to", old).returncode == 0
    again = moved(shop, EIP6, "--to", old)
    assert again.returncode == 0 and again.stdout == f"egressgateway/egw: {EIP4}/{EIP6} is on {old} already\n"


@pytest.mark.parametrize("late", ["client", "old-owner", "new-owner", "standby"])
def test_a_late_node_is_waited_for(shop, late):
    """The new owner announces when every node has turned to it: an agent that stands still for a part
    of the half second that is waited at most costs its pods nothing."""
    old = shop.owner("egw", EIP4)
    new, standby = [n for n in shop.gateways if n != old]
    node = {"client": "n1", "old-owner": old, "new-owner": new, "standby": standby}[late]
    pod = next(name for name, p in shop.pods.items() if p["node"] == node)
    wait_source(shop, pod, EIP4)
    t4, t6 = shop.traffic(pod, 4, streams=8), shop.traffic(pod, 6)
    agent = shop.agent(node).process
    agent.signal(signal.SIGSTOP)
    with ThreadPoolExecutor() as beside:
        move = beside.submit(moved, shop, EIP4, "--to", new)
        time.sleep(0.2)  # how late it is
        assert not move.done(), move.result()
        agent.signal(signal.SIGCONT)
        done = move.result()
    assert done.returncode == 0, done.stderr
    wait_source(shop, pod, EIP4)
    wait_source(shop, pod, EIP6, family=6)
    r4, r6 = t4.stop(), t6.stop()
    result_line(f"vip move, late agent and pod on {late}", lost=r4["lost"] + r6["lost"], resets=r4["tcp_resets"])
    # As in a planned stop: an answer may find a gateway's own connection between two bindings.
    assert r4["lost"] <= 10 and r6["lost"] <= 10 and r4["tcp_resets"] == 0
    assert sources(r4) == [EIP4] and sources(r6) == [EIP6]


def test_dry_run_and_refusals(shop):
    old = shop.owner("egw", EIP4)
    new, third = [n for n in shop.gateways if n != old][:2]
    dry = moved(shop, EIP4, "--to", new, "--dry-run")
    assert dry.returncode == 0
    assert dry.stdout == f"egressgateway/egw: {EIP4}/{EIP6} would move from {old} to {new} (dry run)\n"
    assert "annotations" not in shop.get("egw", "egw")["metadata"]
    shop.egw("drain", third)
    shop.wait("egt", third, lambda t: any(c["type"] == "Drained" and c["status"] == "True"
                                          for c in t["status"].get("conditions", [])))
    for args, words in (((EIP4, "--to", "n1"), "nodeSelector"),
                        (("10.6.1.99", "--to", new), "10.6.1.99 is not an EIP of this gateway now"),
                        ((EIP4, "--to", third), "is being drained")):
        for dry_run in ((), ("--dry-run",)):
            done = moved(shop, *args, *dry_run)
            assert done.returncode == 1 and words in done.stderr and not done.stdout, (args, done)
            assert len(done.stderr.splitlines()) == 1
    assert shop.owner("egw", EIP4) == old
    shop.power_off(new)
    shop.wait("egt", new, lambda t: t["status"]["phase"] == "HeartbeatTimeout")
    dead = moved(shop, EIP4, "--to", new)
    assert dead.returncode == 1 and f"node {new} is HeartbeatTimeout, not Ready" in dead.stderr
    assert shop.owner("egw", EIP4) == old
    assert shop.egw("vip", "move", "none", EIP4, "--to", new, check=False).returncode == 1
    for wrong in (("10.6.1", "--to", new), (EIP4,), (EIP4, "--to", new, "--timeout", "0")):
        assert moved(shop, *wrong).returncode == 2


def test_without_a_leader_the_request_stays(shop):
    old = shop.owner("egw", EIP4)
    new = next(n for n in shop.gateways if n != old)
    for i in range(shop.controllers):
        shop.controller(i).stop()
    done = moved(shop, EIP4, "--to", new, "--timeout", "1")
    assert done.returncode == 1 and "no leader has answered within 1 s" in done.stderr
    shop.controller(0).start()
    shop.wait("egw", "egw", lambda g: any(n["name"] == new and n.get("eips") for n in g["status"]["nodeList"]))


def test_a_move_that_is_interrupted_says_what_stays(shop):
    """While a node stands still, the move waits for it."""
    wait_source(shop, "pod1", EIP4)
    old = shop.owner("egw", EIP4)
    new = next(n for n in shop.gateways if n != old)
    agent = shop.agent("n1").process
    agent.signal(signal.SIGSTOP)
    move = subprocess.Popen(shop.store.verb("vip", "move", "egw", EIP4, "--to", new), stderr=subprocess.PIPE, text=True)
    shop.wait("egw", "egw", lambda g: any(e.get("movingFrom") for n in g["status"]["nodeList"] for e in n.get("eips", [])))
    said = interrupted(move)  # it may not have seen yet what is in the store
    assert move.returncode == 1 and f"is on {new} now, but {old} had not handed over when this was interrupted" in said, said
    again = moved(shop, EIP4, "--to", new)
    agent.signal(signal.SIGCONT)
    assert again.returncode == 0 and (f" moved from {old} to {new} in " in again.stdout or "already" in again.stdout), again
    for i in range(shop.controllers):
        shop.controller(i).stop()
    move = subprocess.Popen(shop.store.verb("vip", "move", "egw", EIP4, "--to", old), stderr=subprocess.PIPE, text=True)
    shop.wait("egw", "egw", lambda g: "egressgateway.spidernet.io/move" in g["metadata"].get("annotations", {}))
    said = interrupted(move)
    assert move.returncode == 1 and "interrupted; the request stays" in said, said


def test_deleted_tunnels_move_nothing(shop):
    """They are made anew with what they had (ADR 34): what the kernels hold fits."""
    owner = shop.owner("egw", EIP4)
    names = ("n1", *shop.gateways)
    before = {name: shop.get("egt", name) for name in names}
    t4, t6 = shop.traffic("pod1", 4, streams=8), shop.traffic("pod1", 6)
    for _ in range(3):
        uids = {name: shop.get("egt", name)["metadata"]["uid"] for name in names}
        shop.egw("delete", "egt", *names)
        for name in names:
            shop.wait("egt", name, lambda t, uid=uids[name]: t["metadata"]["uid"] != uid
                      and t.get("status", {}).get("phase") == "Ready")
    time.sleep(0.3)  # traffic after it
    r4, r6 = t4.stop(), t6.stop()
    result_line("tunnels deleted", lost=r4["lost"] + r6["lost"], resets=r4["tcp_resets"])
    assert (r4["lost"], r6["lost"], r4["tcp_resets"]) == (0, 0, 0)
    assert sources(r4) == [EIP4] and sources(r6) == [EIP6]
    assert shop.owner("egw", EIP4) == shop.owner("egw", EIP6) == owner
    for name in names:
        after = shop.get("egt", name)["status"]
        assert all(after[key] == before[name]["status"][key] for key in ("tunnel", "mark"))
