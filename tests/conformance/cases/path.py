"""The way of a packet: client node, standby gateway, owner; both families; moves."""

from rig import ALL, EIP4, EIP6
from suite import FAMILIES, NODES, case


@case("path-source", "A pod's packets to a destination of its policy leave the owner's uplink with the egress IP",
      node=NODES)
def leaves_with_the_eip(rig, node):
    pod = rig.pod(node)
    assert pod.source(4) == pod.ipv4 and pod.source(6) == pod.ipv6
    rig.steer(pod, ALL)
    rig.apply()
    assert pod.source(4) == EIP4
    assert pod.source(6) == EIP6


@case("path-bystander", "A pod without policy is left alone")
def a_pod_without_policy_is_left_alone(rig):
    pod, other = rig.pod("n1"), rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    assert other.source(4) == other.ipv4 and other.source(6) == other.ipv6


@case("path-bridge", "Pods behind a bridge of their node (cni0) leave with the egress IP, but for one without policy", node=NODES)
def behind_a_bridge(rig, node):
    pod, other = (rig.pod(node, bridge="cni0") for _ in range(2))
    rig.steer(pod, ALL)
    rig.apply()
    assert [pod.source(4), pod.source(6)] == [EIP4, EIP6]
    assert [other.source(4), other.source(6)] == [other.ipv4, other.ipv6]


@case("path-move", "After a move the new owner gives the egress IP, without having been told before")
def a_move_to_the_standby(rig):
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    assert pod.source(4) == EIP4
    rig.egress(7, EIP4, EIP6, owner="n3")
    rig.apply()
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6


@case("path-standby", "Every gateway serves every egress beforehand: a takeover changes nothing on the new owner",
      family=FAMILIES)
def the_standby_is_programmed(rig, family):
    """Only the client node is told of the new owner."""
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    rig.egress(7, EIP4, EIP6, owner="n3")
    rig.apply("n1")
    assert pod.source(family) == (EIP4 if family == 4 else EIP6)


@case("path-no-owner", "Without an owner the packets are dropped")
def no_owner_drops(rig):
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    rig.egress(7, EIP4, EIP6, owner=None)
    rig.apply()
    assert pod.source(4, 0.3) is None and pod.source(6, 0.3) is None


TUNNELS = {"IPv6 underlay": (6, {}, 1430),
           "IPv6 underlay, other port": (6, {"port": 4790}, 1430),
           "other device, VNI and port": (4, {"tunnelDevice": "egw0", "vni": 4711, "port": 4790}, 1450)}


@case("path-tunnel", "The tunnel is as it was configured: underlay of either family, device, VNI, port; its MTU follows",
      tunnel=TUNNELS)
def the_tunnel_is_as_configured(rig, tunnel):
    rig.underlay, rig.node_extra, mtu = tunnel
    pods = rig.everywhere()
    for pod in pods:
        assert [pod.source(4), pod.source(6)] == [EIP4, EIP6], pod.name
    device = rig.node_extra.get("tunnelDevice", "egress.vxlan")
    text = rig.sh("n1", f"ip -d link show {device}")
    assert f" mtu {mtu} " in text
    assert f"vxlan id {rig.node_extra.get('vni', 100)} " in text and f"dstport {rig.node_extra.get('port', 7789)} " in text
