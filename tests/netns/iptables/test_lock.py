"""Somebody else holds the lock of iptables' legacy programs: pods are elements of sets, for which no lock is needed. Nothing
leaves a pod with its own address meanwhile, and what the rules do not know yet is dropped and told."""

import contextlib
import subprocess

import pytest
from rig import ALL, EIP4, EIP6, SECOND4, SECOND6, Rig

# By one of its prefixes only, to tell it from what a class says of all others.
LISTED = [("10.6.0.0/24", 7), ("fd00::/64", 7), ("0.0.0.0/0", "drop"), ("::/0", "drop")]
NEW = [("10.6.0.0/16", 7), ("fd00::/48", 7), ("10.6.0.0/24", "drop"), ("fd00::/64", "drop"), *ALL]


@pytest.fixture(name="beside", params=["auto", "never"])
def fixture_beside(request):
    return request.param


@pytest.fixture(name="rig")
def fixture_rig(beside):
    with Rig(nodes=2, datapath="iptables", config={"backendMode": "legacy", "nftables": beside}) as rig:
        rig.egress(7, EIP4, EIP6, owner="n2")
        yield rig


@contextlib.contextmanager
def held(rig, node):
    """The node's lock in somebody else's hands."""
    holder = subprocess.Popen(rig.inside(node, "flock", "/run/xtables.lock", "sh", "-c", "echo held; exec cat"),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()


def sources(pod, timeout=2.5):
    return [pod.source(4, timeout), pod.source(6, timeout)]


def tried(rig, node):
    """A full change that cannot write rules; what of it failed."""
    answer = rig.driver(node).ask("apply", change=rig.change(node))
    assert answer["ok"], answer
    assert any("/run/xtables.lock" in f["message"] for f in answer["failures"]), answer
    return answer["failures"]


def test_pods_come_and_are_steered_while_the_lock_is_held(rig):
    first, listed = rig.pod("n1"), rig.pod("n1")
    rig.steer(first, ALL)
    known = rig.steer(listed, LISTED)
    rig.apply()
    with held(rig, "n1"):
        # By a full change, and by a step that needs no rule.
        plain, of_known, stepped, of_new = (rig.pod("n1") for _ in range(4))
        rig.steer(plain, ALL, class_id=1)
        rig.steer(of_known, LISTED, class_id=known)
        rig.steer(of_new, NEW)
        tried(rig, "n1")
        step = rig.delta("n1", endpoints=[{"address": a, "class": 1} for a in (stepped.ipv4, stepped.ipv6)])
        assert step["ok"] and step["failures"], "the host would think that nothing is left to do"
        assert [sources(p) for p in (first, listed, plain, of_known, stepped)] == [[EIP4, EIP6]] * 5
        assert sources(of_new, timeout=0.5) == [None, None]
        # A pod whose policy changes is not left to the old one.
        rig.steer(plain, NEW, class_id=len(rig.classes))
        tried(rig, "n1")
        assert sources(plain, timeout=0.5) == [None, None]
        # A process that begins now goes on with what it finds.
        rig.restart("n1", kill=True)
        tried(rig, "n1")
        assert [sources(p) for p in (first, of_known)] == [[EIP4, EIP6]] * 2
        assert sources(of_new, timeout=0.5) == [None, None]
    rig.steer(of_new, ALL + [("10.6.0.0/16", "drop"), ("fd00::/48", "drop"), ("10.6.0.0/24", 7), ("fd00::/64", 7)])
    rig.apply()
    assert [sources(p) for p in (first, listed, of_known, of_new)] == [[EIP4, EIP6]] * 4
    assert rig.apply("n1")["n1"]["repaired"] == {}


def test_an_egress_that_no_rule_serves_is_not_called_realised(rig, beside):
    """Beside nftables tables it is an element of these, and needs no rule."""
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    rig.egress(8, SECOND4, SECOND6, owner="n2")
    rig.steer(pod, [("0.0.0.0/0", 8), ("::/0", 8)], class_id=1)
    with held(rig, "n2"):
        if beside == "never":
            assert "egress 8" in [f["object"] for f in tried(rig, "n2")]
        else:
            rig.apply("n2")
        rig.apply("n1")
        assert sources(pod, timeout=0.5) == ([None, None] if beside == "never" else [SECOND4, SECOND6])
    rig.apply("n2")
    assert sources(pod) == [SECOND4, SECOND6]


def test_a_node_becomes_a_gateway_while_the_lock_is_held(rig):
    """What comes by the wire is judged all the time, by iptables or by nftables."""
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    rig.egress(8, SECOND4, SECOND6, owner="n2", gateways=["n1", "n2"])
    rig.steer(pod, [("0.0.0.0/0", 8), ("::/0", 8)], class_id=1)
    with held(rig, "n1"):
        tried(rig, "n1")
        rig.apply("n2")
        assert sources(pod) == [SECOND4, SECOND6]
    rig.apply("n1")
    assert sources(pod) == [SECOND4, SECOND6]


def test_a_purge_takes_all_or_nothing(rig):
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    with held(rig, "n1"):
        answer = rig.driver("n1").ask("purge")
        assert not answer["ok"] and "/run/xtables.lock" in answer["error"], answer
        assert sources(pod) == [EIP4, EIP6]
    rig.driver("n1").must("purge")
    assert "EGW" not in rig.sh("n1", "iptables-legacy-save; ip6tables-legacy-save; ipset list -n")
