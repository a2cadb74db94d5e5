"""What egw-rates says of new flows: each is new to conntrack, and a packet that is lost ends nothing and is not hidden."""

import json
import os
import signal
import subprocess
import time

import layouts
import pytest
from rig import SERVER4, net

RATES = os.path.join(layouts.BUILD, "bin", "egw-rates")


@pytest.fixture(name="routed")
def routed_():
    """A pod behind a node with connection tracking; how it asks for a measurement, and that node."""
    with layouts.datapath_rig("netlink") as rig:
        pod = layouts.tracked(rig)
        rig.quiet()
        yield [RATES, "flows", "2", "200", f"l,{pod.ns},{rig.ns('srv')},{SERVER4}"], rig.ns("n1"), pod.ns


def flows(command, meanwhile=lambda process: None):
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        meanwhile(process)
        found = json.loads(process.communicate(timeout=60)[0])["l"]
    assert process.returncode == 0
    return found


def rules(ns, *body):
    net.enter(ns, "nft", "-f", "-", stdin="table ip x {\nchain f {\ntype filter hook forward priority -10\n" +
              "".join(f"tcp flags & (syn | ack) == syn {rule}\n" for rule in body) + "}\n}\n")


def syns(node):
    """What the rules with a counter have counted."""
    table = json.loads(net.enter(node, "nft", "-j", "list", "table", "ip", "x"))
    return [e["counter"]["packets"] for r in table["nftables"] if "rule" in r for e in r["rule"]["expr"] if "counter" in e]


def test_each_flow_is_new_also_when_its_ports_come_again(routed):
    command, node, pod = routed
    net.sysctl(pod, net__ipv4__ip_local_port_range="40000 40199")
    rules(node, "counter", "ct state new counter")
    found = flows(command)
    every, new = syns(node)
    assert every == new > 200, f"{new} of {every} flows were new"
    assert sum(found["lost"]) == 0 and min(found["per_second"]) > 0, found


def test_a_lost_packet_is_counted_and_the_run_goes_on(routed):
    command, node, _ = routed
    rules(node, "numgen inc mod 500 == 499 drop")
    found = flows(command)
    assert sum(found["lost"]) > 0, found
    # The second that it took is not in the rate.
    assert max(found["per_second"]) > 1000, found


def test_who_stands_still_is_late_and_has_lost_nothing(routed):
    command, node, _ = routed
    rules(node, "counter")

    def stall(process):
        end = time.monotonic() + 20
        while syns(node)[0] < 2000:  # behind the round that warms up
            assert process.poll() is None and time.monotonic() < end
        for _ in range(4):  # it may be between two connections once, which are neither's time
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.3)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
    found = flows([*command[:2], "20", *command[3:]], stall)
    assert sum(found["lost"]) == 0 and sum(found["late"]) > 0, found
