"""A gateway node whose datapath plugin hangs: the misbehaving library of the ABI tests under the real agent."""

import ctypes
import os
import shutil
import socket
import struct
import time

from conftest import EIP4, GATEWAY, policy, ready
from lab.cluster import build_dir
from lab import net


def arp_answer(cluster, eip, timeout=2.0):
    """The MAC that answers an ARP request of the outside server for the EIP, None in silence."""
    own = bytes.fromhex(net.run("ip", "-n", cluster.ns("srv"), "-br", "link", "show", "eth0").split()[2].replace(":", ""))
    ours = socket.inet_aton("10.6.0.100")
    request = b"\xff" * 6 + own + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + ours + b"\0" * 6 + \
        socket.inet_aton(eip)
    fd = os.open(f"{net.NETNS}/{cluster.ns('srv')}", os.O_RDONLY)
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        setns(fd)
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        s.bind(("eth0", 0x0806))
    finally:
        setns(here)
        os.close(fd)
        os.close(here)
    with s:
        s.send(request)
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            s.settimeout(left)
            try:
                frame = s.recv(200)
            except TimeoutError:
                return None
            if frame[20:22] == b"\0\2" and frame[28:32] == socket.inet_aton(eip):
                return frame[22:28].hex(":")
    return None


def setns(fd):
    """This thread enters a network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def cluster_with_a_gate(make_cluster, tmp_path):
    """Three nodes; n2's datapath hangs from hang() on, and n2 owns the EIP."""
    plugins = tmp_path / "plugins"
    shutil.copytree(os.path.join(build_dir(), "lib", "egw", "plugins"), plugins)
    shutil.copy(os.path.join(build_dir(), "tests", "abi", "lib", "egw-datapath-scripted.so"), plugins)
    for path in (plugins, *plugins.iterdir()):
        os.chmod(path, 0o755)
    fifo = tmp_path / "gate"
    cluster = make_cluster(up=False, nodes=3, gateways=2)
    cluster.own_settings["n2"] = {"plugins": {"dir": str(plugins), "datapath": {
        "name": "scripted", "config": {"apply": "gate", "fifo": str(fifo)}}}}
    cluster.up(start=False)
    for i in range(cluster.controllers):
        cluster.controller(i).start()
    for node in ("n1", "n2"):  # n3 comes later, so that n2 owns the EIP
        cluster.agent(node).start()
        cluster.wait("egt", node, lambda t: t.get("status", {}).get("phase") == "Ready", 15)
    cluster.apply(GATEWAY, policy())
    cluster.wait("egw", "egw", lambda g: any(n["name"] == "n2" and n.get("eips")
                                             for n in g.get("status", {}).get("nodeList", [])))
    cluster.agent("n3").start()
    ready(cluster)
    assert cluster.owner("egw", EIP4) == "n2"

    def hang():
        os.mkfifo(fifo, 0o600)
        cluster.add_pod("poke", "n2", {"app": "shop"})  # the next apply

    return cluster, hang


def condition(tunnel, kind):
    return next((c for c in tunnel.get("status", {}).get("conditions", []) if c["type"] == kind and c["status"] == "True"), None)
