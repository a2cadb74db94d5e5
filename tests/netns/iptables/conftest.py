"""What of the iptables datapath the conformance kit cannot know: its backends, chains and sets. Fixture: a rig of three
nodes (n1 client, n2 owner, n3 standby) with one egress, for each backend."""

import os
import sys

import pytest

KIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "conformance")
sys.path[:0] = [os.path.abspath(KIT)]

from rig import ALL, EIP4, EIP6, Rig  # noqa: E402  (the path must be set first)


@pytest.fixture(name="backend", params=["legacy", "nft"])
def fixture_backend(request):
    return request.param


@pytest.fixture(name="beside")
def fixture_beside(request):
    """How much of nf_tables is used: the plugin's key `nftables`."""
    return getattr(request, "param", "auto")


@pytest.fixture(name="rig")
def fixture_rig(backend, beside):
    with Rig(nodes=3, datapath="iptables", config={"backendMode": backend, "nftables": beside}) as rig:
        rig.egress(7, EIP4, EIP6, owner="n2")
        yield rig


@pytest.fixture(name="pod")
def fixture_pod(rig):
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    return pod


def sources(pod):
    return [pod.source(4), pod.source(6)]
