"""The way of a packet: client node, standby gateway, owner; both families; moves."""

import pytest
from conftest import ALL, EIP4, EIP6


@pytest.mark.parametrize("node", ["n1", "n2", "n3"], ids=["client", "owner", "standby"])
def test_leaves_with_the_eip(rig, node):
    pod = rig.pod(node)
    assert pod.source(4) == pod.ipv4 and pod.source(6) == pod.ipv6
    rig.steer(pod, ALL)
    rig.apply()
    assert pod.source(4) == EIP4
    assert pod.source(6) == EIP6


def test_a_pod_without_policy_is_left_alone(rig):
    pod, other = rig.pod("n1"), rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    assert other.source(4) == other.ipv4 and other.source(6) == other.ipv6


def test_a_move_to_the_standby(rig):
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    assert pod.source(4) == EIP4
    rig.egress(7, EIP4, EIP6, owner="n3")
    rig.apply()
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6


def test_no_owner_drops(rig):
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.egress(7, EIP4, EIP6, owner=None)
    rig.apply()
    assert pod.source(4, 0.3) is None and pod.source(6, 0.3) is None
