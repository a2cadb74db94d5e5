"""Fixtures of the datapath tests: a rig of three nodes (n1 client, n2 owner, n3 standby) with one egress."""

import pytest
from rig import Rig

EIP4, EIP6 = "10.6.1.56", "fd00::56"
ALL = [("0.0.0.0/0", 7), ("::/0", 7)]


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
