"""Both families over an uplink whose MTU leaves no room for IPv6 in the tunnel: IPv4 goes on, IPv6 is dropped, and the
node says why; when there is room again, IPv6 comes back."""

import os
import sys

import pytest

KIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "conformance")
sys.path[:0] = [os.path.abspath(KIT), os.path.abspath(os.path.join(KIT, "cases"))]

from closed import Sources  # noqa: E402  (the path must be set first)
from rig import ALL, EIP4, EIP6, Rig  # noqa: E402

DATAPATHS = {"netlink": ("netlink", {}), "ebpf": ("ebpf", {}), "iptables": ("iptables", {}),
             "iptables alone": ("iptables", {"nftables": "never"})}
LEAST = {4: 1330, 6: 1350}  # an uplink's MTU by the family of the outer packets


def remark(rig, node):
    findings = rig.driver(node).must("probe", node=rig.node_config(node))["findings"]
    return [f["message"] for f in findings if f["code"] == "TunnelMtu" and not f["ok"] and f["advisory"]]


def narrow(rig, pod, node):
    mtu = LEAST[rig.underlay] - 1
    rig.sh(node, f"ip link set eth0 mtu {mtu}")
    answer = rig.driver(node).ask("apply", change=rig.change(node))
    rig.driver(node).must("sysctls")
    # No failure: others would wait for this node, with ids and moves, until somebody has widened its uplink.
    assert answer["ok"] and answer["repaired"] == {} and not answer["failures"], answer
    (words,) = remark(rig, node)
    assert f"eth0 has MTU {mtu}" in words and f"MTU of {mtu + 1} or more" in words
    rig.driver(node).must("health")
    with Sources(rig) as sources:
        assert [pod.source(4), pod.source(6, 0.2)] == [EIP4, None]
    assert set(sources.seen) == {EIP4}


def wide(rig, pod, node):
    rig.sh(node, f"ip link set eth0 mtu {LEAST[rig.underlay]}")
    assert rig.apply(node)[node]["repaired"] == {}
    assert remark(rig, node) == []
    assert [pod.source(4), pod.source(6)] == [EIP4, EIP6]
    own = rig.sh(node, "ip -6 -o addr show dev egress.vxlan").splitlines()
    assert len(own) == 1 and rig.node_config(node)["tunnelIPv6"] in own[0], own
    assert rig.sh(node, "cat /proc/sys/net/ipv6/conf/egress.vxlan/addr_gen_mode").strip() == "1"


@pytest.mark.parametrize("underlay", LEAST)
@pytest.mark.parametrize("node", ["n1", "n2"], ids=["client", "owner"])
@pytest.mark.parametrize("datapath", DATAPATHS)
def test_ipv4_goes_on_and_ipv6_comes_back(datapath, node, underlay):
    name, config = DATAPATHS[datapath]
    with Rig(nodes=2, datapath=name, config=config) as rig:
        rig.underlay = underlay
        rig.egress(7, EIP4, EIP6, owner="n2")
        pod = rig.pod("n1")
        rig.steer(pod, ALL)
        rig.apply(*{"n1", "n2"} - {node})
        for step in (narrow, wide, narrow, wide):
            step(rig, pod, node)
