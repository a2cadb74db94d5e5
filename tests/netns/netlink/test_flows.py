"""netlink's connections in conntrack: zones, bindings that are kept for answers, what a failed step leaves."""

import contextlib
import itertools
import os
import resource
import time

import pytest
import sockets
from flow import BOUND, Flow
from rig import ALL, EIP4, EIP6, SECOND4, SECOND6, SERVER4, net


def entries(rig, node):
    return net.enter(rig.ns(node), "conntrack", "-L").splitlines()


def until(condition, timeout=1.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.01)


def test_the_way_of_answers_is_kept_for_a_while_only(rig):
    pod = rig.pod("n2")
    rig.steer(pod, ALL)
    rig.apply()
    ask = sockets.udp(pod.ns, bind=(pod.ipv4, 40000), to=(SERVER4, 7000))
    assert sockets.ask(ask, b"\0" * 16) is not None
    rig.egress(7, EIP4, EIP6, owner="n3")
    rig.apply()
    parked = [e for e in entries(rig, "n2") if "zone-orig=7" in e and f"src={pod.ipv4}" in e]
    assert len(parked) == 1 and f"dst={EIP4}" in parked[0], parked
    # Its time runs out whatever answers come.
    ends = int(parked[0].split()[2])
    assert ends <= 60
    assert sockets.ask(ask, b"\0" * 16) is not None
    rig.driver("n2").must("forget", eip=EIP4)
    assert not any("zone-orig" in e for e in entries(rig, "n2"))
    assert sockets.ask(ask, b"\0" * 16) is not None
    ask.close()


def test_a_failed_change_is_swept_when_it_succeeds(rig):
    """Somebody holds what a step removes last: the step fails when everything else of it is done."""
    rig.egress(8, SECOND4, SECOND6, owner="n2")
    pod = rig.pod("n2")
    rig.steer(pod, ALL + [("10.9.0.0/16", "drop")], class_id=1)
    rig.apply()
    table = net.enter(rig.ns("n2"), "nft", "list", "table", "ip", "egw").splitlines()
    chains = [line.split()[1] for line, body in zip(table, table[1:])
              if line.strip().startswith("chain ") and " hook " not in body]
    net.enter(rig.ns("n2"), "nft", "; ".join(["add chain ip egw stranger"] +
                                             [f"add rule ip egw stranger jump {c}" for c in chains]))
    flow = Flow(rig, pod)
    flow.run(0.1)
    rules = [{"destination": d, "action": "egress", "egressID": 8} for d in ("0.0.0.0/0", "::/0")]
    answer = rig.delta("n2", classes=[{"id": 1, "rules": rules}])
    assert not answer["ok"], answer
    rig.classes[1] = rules
    rig.apply("n2")
    done = time.monotonic()
    flow.run(0.2)
    flow.stop()
    assert flow.sources(since=done + BOUND) == {SECOND4}
    assert flow.sources() == {EIP4, SECOND4}


def test_entries_of_a_gone_id_go_on_the_gateway(rig, pod):
    assert pod.source(4) == EIP4
    assert any("zone-orig=7" in e for e in entries(rig, "n2"))
    rig.endpoints.clear()
    rig.egresses.clear()
    rig.apply()
    until(lambda: not any("zone-orig" in e for e in entries(rig, "n2")))


def test_more_peers_than_numbers_are_reported(rig):
    """The mask bounds the number of peers: those without a number are named and the others work."""
    rig.crowd(300)
    rig.node_extra["ctMask"] = 0xff000000
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    for node in ("n1", "n3"):
        rig.driver(node).ask("apply", change=rig.change(node))
        rig.driver(node).must("sysctls")
    answer = rig.driver("n2").ask("apply", change=rig.change("n2"))
    assert answer["ok"] and len(answer["failures"]) == 300 - 254
    assert all(f["object"].startswith("peer ") and "marks.ctMask" in f["message"] for f in answer["failures"]), answer


@contextlib.contextmanager
def no_descriptor_left(pid):
    """The process can open nothing."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    free = next(n for n in itertools.count() if not os.path.lexists(f"/proc/{pid}/fd/{n}"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("node", ["n1", "n2"], ids=["client", "owner"])
def test_a_purge_that_fails_ends_connections_when_it_is_repeated(rig, pod, node):
    """When connections cannot be read, everything that would tell which are ours has gone already."""
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6

    def held():
        return [e for e in entries(rig, node) if f"src={pod.ipv4} " in e or f"src={pod.ipv6} " in e]
    assert len(held()) == 2
    driver = rig.driver(node)
    with no_descriptor_left(driver.process.pid):
        answer = driver.ask("purge")
    assert not answer["ok"] and "Too many open files" in answer["error"], answer
    assert "egw" not in rig.sh(node, "nft list tables") and len(held()) == 2
    driver.must("purge")
    assert held() == []
