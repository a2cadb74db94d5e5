"""What somebody else changes of the node's rules, sets and tables is noticed and repaired, with both backends."""

import os
import sys
import time

import pytest
import sockets
from conftest import sources
from rig import ALL, EIP4, EIP6, SERVER4, Driver

DRIFT = {
    "chain flushed": "{t} -w -t mangle -F EGW-JUDGE",
    "rule added": "{t} -w -t mangle -I EGW-JUDGE 1 -j RETURN",
    "jump removed": "{t} -w -t mangle -F PREROUTING",
    "jump not first": "{t} -w -t nat -I POSTROUTING 1 -j MASQUERADE",
    "jump not last": "{t} -w -t mangle -A PREROUTING -p tcp --dport 9 -j ACCEPT",
    "set flushed": "ipset flush EGW4-pods",
    "element removed": "ipset del EGW4-pods {pod}",
    "element added": "ipset add EGW4-pods 10.244.1.99 skbmark 0x09000007/0xff003fff",
    "table removed": "nft delete table ip egw-iptables",
    "guard of the wire flushed": "nft flush chain ip egw-iptables from_wire",
    "table of the tunnel removed": "nft delete table netdev egw-iptables",
    "chain of a table flushed": "nft flush chain ip egw-iptables late",
    "owner removed": "nft delete element netdev egw-iptables owner '{{ 7 }}'",
}
DRIFT_WITHOUT_NFTABLES = {
    "jump not last": "{t} -w -t nat -A PREROUTING -p tcp --dport 9 -j ACCEPT",
    "next hop": "ip neigh change 169.254.64.7 lladdr 02:00:00:00:00:99 dev egress.vxlan nud permanent",
    "leaf of the tree": "ip rule del pref $(ip rule | grep 0x9000007 | cut -d: -f1)",
}


CASES = [(what, rule, beside) for rules, beside in ((DRIFT, "auto"), (DRIFT_WITHOUT_NFTABLES, "never"))
         for what, rule in rules.items()]


@pytest.mark.parametrize("rule, beside", [case[1:] for case in CASES], ids=[f"{c[0]}-{c[2]}" for c in CASES],
                         indirect=["beside"])
def test_drift_is_noticed_and_repaired(rig, pod, backend, rule):
    driver = rig.driver("n1")
    time.sleep(1.1)  # the first look of the watch
    while driver.ask("drift", timeoutMs=0)["ok"]:
        pass
    rig.sh("n1", rule.format(t=f"iptables-{backend}", pod=pod.ipv4))
    assert driver.ask("drift", timeoutMs=5000)["ok"]
    answer = rig.apply("n1")["n1"]
    assert sum(answer["repaired"].values()) >= 1, answer
    assert sources(pod) == [EIP4, EIP6]
    assert rig.apply("n1")["n1"]["repaired"] == {}


# As on a host that was booted with ipv6.disable=1: what the program and its children ask for sockets of AF_INET6 comes to
# EAFNOSUPPORT. By seccomp: socket() with this first argument.
NO_IPV6 = """
import ctypes, errno, os, struct, sys
socket = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
code = b"".join(struct.pack("HBBI", *c) for c in (
    (0x20, 0, 0, 0), (0x15, 0, 3, socket), (0x20, 0, 0, 16), (0x15, 0, 1, 10), (0x06, 0, 0, 0x50000 | errno.EAFNOSUPPORT),
    (0x06, 0, 0, 0x7fff0000)))
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(38, 1, 0, 0, 0) != 0 or prctl(22, 2, program, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
    sys.exit("no filter: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_host_without_ipv6(rig, backend):
    """It is programmed again and again, and what others change is noticed."""
    rig.node_extra = {"enableIPv6": False}
    pod = rig.pod("n1")
    rig.steer(pod, ALL)
    driver = rig.drivers["n1"] = Driver(rig.ns("n1"), [*rig.inside("n1"), sys.executable, "-c", NO_IPV6],
                                        os.path.join(rig.state, "n1"), *rig.datapaths[0])
    rig.apply()
    assert rig.apply("n1")["n1"]["repaired"] == {}
    assert pod.source(4) == EIP4
    time.sleep(1.1)  # the first look of the watch
    while driver.ask("drift", timeoutMs=0)["ok"]:
        pass
    rig.sh("n1", f"iptables-{backend} -w -t mangle -F EGW-JUDGE")
    assert driver.ask("drift", timeoutMs=5000)["ok"]
    rig.apply("n1")
    assert pod.source(4) == EIP4


def test_the_devices_mtu_comes_back(rig, pod):
    driver = rig.driver("n1")
    while driver.ask("drift", timeoutMs=0)["ok"]:
        pass
    rig.sh("n1", "ip link set egress.vxlan mtu 1300")
    assert driver.ask("drift", timeoutMs=2000)["ok"]
    assert rig.apply("n1")["n1"]["repaired"] == {"tunnel device": 1}
    assert sources(pod) == [EIP4, EIP6]
    # Its own answer to another MTU of the uplink is no drift.
    rig.sh("n1", "ip link set eth0 mtu 1400")
    assert rig.apply("n1")["n1"]["repaired"] == {}
    assert not driver.ask("drift", timeoutMs=1500)["ok"]


def test_a_connection_that_began_without_its_class_begins_anew(rig):
    """On the owner; while nobody's prefixes stand in the set, a CNI's masquerade rule has it."""
    pod = rig.pod("n2")
    rig.steer(pod, [("10.6.0.0/16", 7)])
    rig.apply("n2")
    rig.sh("n2", "nft add table ip cni; nft add chain ip cni post '{ type nat hook postrouting priority 100; }'; "
                 "nft add rule ip cni post ip saddr 10.244.0.0/16 masquerade; ipset flush EGW4-who0")
    client = sockets.udp(pod.ns, to=(SERVER4, 7000))
    assert sockets.ask(client, b"\0" * 16) is not None
    rig.apply("n2")
    capture = sockets.Capture(rig.ns("srv"))
    end = time.monotonic() + 2
    while sockets.ask(client, b"\0" * 16, 0.1) is None:
        assert time.monotonic() < end, "it is dropped for as long as it talks"
    client.close()
    capture.stop()
    assert set(capture.received_sources(7000)) == {EIP4}
