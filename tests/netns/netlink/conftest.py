"""What of the netlink datapath the conformance kit cannot know: its tables, chains and words. Fixtures: a rig of three
nodes (n1 client, n2 owner, n3 standby) with one egress, as the kit's cases have it."""

import os
import sys

import pytest

KIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "conformance")
sys.path[:0] = [os.path.abspath(KIT), os.path.abspath(os.path.join(KIT, "cases"))]

from rig import ALL, EIP4, EIP6, Rig  # noqa: E402  (the path must be set first)


@pytest.fixture(name="rig")
def fixture_rig():
    with Rig(nodes=3) as rig:
        rig.egress(7, EIP4, EIP6, owner="n2")
        yield rig


@pytest.fixture(name="pod")
def fixture_pod(rig):
    """A steered pod on the client node, everything programmed."""
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    return pod
