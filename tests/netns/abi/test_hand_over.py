"""hand_over: another datapath of the same layout goes on with the node (docs/adr/0017). What is this datapath's own
goes; device, routes, rules and connections stay."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "conformance"))

import sockets  # noqa: E402  (the path must be set first)
from rig import ALL, EIP4, EIP6, SERVER4, SERVER6, Rig, net  # noqa: E402

OWN = """
nft list tables | grep -w egw
iptables-save 2>/dev/null | grep -i egw; iptables-legacy-save 2>/dev/null | grep -i egw
ipset list -n 2>/dev/null | grep -i egw
true
"""
SHARED = """
ip -d -o link show egress.vxlan | sed 's/ *promiscuity.*//'; ip -o addr show dev egress.vxlan
bridge fdb show dev egress.vxlan | sort; ip neigh show dev egress.vxlan nud permanent | sort
ip rule; ip -6 rule; ip route show table all proto 119; ip -6 route show table all proto 119
"""


@pytest.fixture(name="rig")
def fixture_rig():
    with Rig(nodes=3) as rig:
        rig.egress(7, EIP4, EIP6, owner="n2")
        yield rig


@pytest.fixture(name="pod")
def fixture_pod(rig):
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    return pod


def ask(rig, node, script):
    return net.enter(rig.ns(node), "sh", "-c", script)


def hand_over(rig, node):
    rig.driver(node).must("hand_over", node=rig.node_config(node))


@pytest.mark.parametrize("node", ["n1", "n2"], ids=["client", "owner"])
def test_what_is_shared_stays_and_its_own_goes(rig, pod, node):
    assert pod.source() == EIP4
    shared = ask(rig, node, SHARED)
    assert "egress.vxlan" in shared and ask(rig, node, OWN)
    hand_over(rig, node)
    assert ask(rig, node, SHARED) == shared
    assert ask(rig, node, OWN) == ""
    hand_over(rig, node)  # again: nothing to do is no error
    assert ask(rig, node, SHARED) == shared
    rig.apply(node)
    assert ask(rig, node, SHARED) == shared
    assert (pod.source(4), pod.source(6)) == (EIP4, EIP6)


@pytest.mark.parametrize("family", [4, 6])
def test_running_connections_go_on_whatever_numbers_peers_get(rig, family):
    """The connection's mark on the owner says by number which node it came from: the numbers are kept in the folder
    of the layout, so a successor gives them to the same peers."""
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    server = (SERVER4 if family == 4 else SERVER6, 7000)
    with sockets.udp(pod.ns, to=server) as connection:
        connection.settimeout(2)
        connection.send(b"\0" * 16)
        assert connection.recv(100)
        for node in ("n1", "n2"):
            hand_over(rig, node)
            rig.driver(node).stop()
        del rig.drivers["n1"], rig.drivers["n2"]
        # A peer whose name sorts first: without the numbers of before it would have the client's.
        rig.crowd(len(rig.nodes))
        rig.apply("n2", "n1")
        connection.send(b"\0" * 16)
        assert connection.recv(100), "the answer went to another node"
    assert pod.source(family) == (EIP4 if family == 4 else EIP6)
