"""What only the ebpf datapath does: programs at interfaces that come, are taken away, are left and taken over; clsact
in place of tcx; fastPath; nothing left after a purge. What every datapath must do: tests/conformance."""

import json
import os
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "conformance"))

import sockets  # noqa: E402  (the path must be set first)
from rig import ALL, EIP4, EIP6, SERVER4, Driver, Rig, net  # noqa: E402


def make(**config):
    rig = Rig(nodes=2, datapath="ebpf", config=config)
    rig.egress(7, EIP4, EIP6, owner="n2", answer=False)
    return rig


def start(rig, pod=None):
    for eip in (EIP4, EIP6):
        rig.answering("n2", eip)
    pod = pod or rig.pod("n1")
    rig.steer(pod, ALL)
    rig.apply()
    return pod


def held(rig, *nodes):
    """Ids of the programs that the nodes' drivers hold open: other rigs on this machine have theirs."""
    found = set()
    for node in nodes or rig.nodes:
        driver = rig.drivers[node]
        folder = f"/proc/{driver.process.pid}/fdinfo"
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding="ascii") as f:
                found |= {int(line.split()[1]) for line in f if line.startswith("prog_id:")}
    return found


def loaded(ids):
    """Which of them the kernel still has."""
    out = subprocess.run(["bpftool", "-j", "prog"], capture_output=True, text=True, check=True)
    return ids & {p["id"] for p in json.loads(out.stdout)}


def tc(rig, node, *args):
    return net.enter(rig.ns(node), "tc", *args)


@pytest.mark.parametrize("attach", ["tcx", "clsact"])
def test_steers_and_leaves_nothing(attach):
    with make(attach=attach) as rig:
        pod = start(rig)
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6
        assert rig.driver("n1").must("observe")["observed"]["bpf"]["attach"] == attach
        ids = held(rig)
        assert len(loaded(ids)) >= 4, "two programs on each node"
        assert ("clsact" in tc(rig, "n1", "qdisc", "show")) == (attach == "clsact")
        for node in rig.nodes:
            rig.driver(node).must("purge")
        assert not loaded(ids)
        assert "clsact" not in tc(rig, "n1", "qdisc", "show")
        assert all("egw" not in rig.sh(node, "ls /sys/fs/bpf").split() for node in rig.nodes)
        assert pod.source(4) == pod.ipv4


def test_purge_without_sys_admin_takes_a_predecessors_filters():
    """An agent in a pod has BPF and PERFMON, and may not look at programs that another process has loaded."""
    with make(attach="clsact") as rig:
        pod = start(rig)
        rig.drivers.pop("n1").stop(kill=True)
        assert "egw_pod" in tc(rig, "n1", "filter", "show", "dev", pod.host, "ingress")
        confined = [*rig.inside("n1"), "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"]
        rig.drivers["n1"] = Driver(rig.ns("n1"), confined, os.path.join(rig.state, "n1"), *rig.datapaths[0])
        rig.driver("n1").must("purge")
        assert "egw" not in tc(rig, "n1", "filter", "show", "dev", pod.host, "ingress")
        assert "clsact" not in tc(rig, "n1", "qdisc", "show")


def test_purge_leaves_other_peoples_clsact():
    with make(attach="clsact") as rig:
        pod = start(rig)
        tc(rig, "n1", "filter", "add", "dev", pod.host, "ingress", "prio", "1", "bpf", "bytecode", "1,6 0 0 0,")
        rig.driver("n1").must("purge")
        assert "bytecode" in tc(rig, "n1", "filter", "show", "dev", pod.host, "ingress")


def test_an_interface_that_comes_has_its_program():
    """A pod after the apply: a step names its address, and nothing else."""
    with make() as rig:
        start(rig)
        late = rig.pod("n1")
        answer = rig.delta("n1", endpoints=[{"address": a, "class": 1} for a in (late.ipv4, late.ipv6)])
        assert answer["ok"] and not answer["failures"]
        assert late.source(4) == EIP4 and late.source(6) == EIP6


ACCEPT = ["bpf", "bytecode", "1,6 0 0 4294967295,", "flowid", "1:1"]  # every packet; what matches ends the walk


def accept_all(rig, pod, place):
    """Somebody else's program, which ends the walk with TC_ACT_OK."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "accept_all.py")
    net.enter(rig.ns("n1"), "/usr/bin/python3", script, pod.host, place)


def test_comes_before_programs_that_are_there():
    with make(attach="tcx") as rig:
        pod = rig.pod("n1")
        accept_all(rig, pod, "before")
        start(rig, pod)
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6


def test_names_the_interface_where_another_comes_first():
    """And the next process puts its own first, while nothing is lost."""
    with make(attach="tcx") as rig:
        pod = start(rig)
        accept_all(rig, pod, "after")
        assert rig.apply("n1")["n1"]["failures"] == []
        assert pod.source(4) == EIP4
        accept_all(rig, pod, "before")
        assert rig.driver("n1").ask("drift", timeoutMs=3000)["ok"]
        failures = rig.driver("n1").must("apply", partly=True, change=rig.change("n1"))["failures"]
        assert len(failures) == 1 and pod.host in str(failures) and "comes before egw's" in str(failures), failures
        rig.restart("n1", kill=True)
        assert rig.apply("n1")["n1"]["failures"] == []
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6


def test_names_the_interface_where_a_filter_comes_first():
    with make(attach="clsact") as rig:
        pod = rig.pod("n1")
        tc(rig, "n1", "qdisc", "add", "dev", pod.host, "clsact")
        tc(rig, "n1", "filter", "add", "dev", pod.host, "ingress", *ACCEPT)
        start(rig, pod)
        assert pod.source(4) == EIP4, "one whose priority the kernel has chosen comes later"
        tc(rig, "n1", "filter", "add", "dev", pod.host, "ingress", "prio", "1", *ACCEPT)
        assert rig.driver("n1").ask("drift", timeoutMs=3000)["ok"]
        failures = rig.driver("n1").must("apply", partly=True, change=rig.change("n1"))["failures"]
        assert len(failures) == 1 and pod.host in str(failures) and "comes before egw's" in str(failures), failures
        tc(rig, "n1", "filter", "del", "dev", pod.host, "ingress", "prio", "1")
        assert rig.apply("n1")["n1"]["failures"] == []
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6


def test_a_program_taken_away_comes_back():
    with make(attach="clsact") as rig:
        pod = start(rig)
        tc(rig, "n1", "qdisc", "del", "dev", pod.host, "clsact")
        answer = rig.apply("n1")["n1"]
        assert answer["repaired"].get("BPF program") == 1, answer
        assert pod.source(4) == EIP4


def test_a_new_process_takes_the_programs_over():
    """kill -9 and a new process: no packet is lost, none has another source; the old programs are gone."""
    with make() as rig:
        pod = start(rig)
        traffic = rig.traffic(pod, 4, streams=1)
        capture = sockets.Capture(rig.ns("srv"))
        time.sleep(0.1)
        old = held(rig, "n1")
        rig.driver("n1").stop(kill=True)
        time.sleep(0.1)
        rig.drivers.pop("n1")
        assert loaded(old), "they go on without the process"
        assert rig.apply("n1")["n1"]["repaired"] == {}
        time.sleep(0.1)
        report = rig.report(traffic)
        capture.stop()
        assert report["lost"] == 0 and report["tcp_resets"] == 0, report
        assert set(capture.received_sources(7000)) == {EIP4}
        assert not loaded(old)


@pytest.mark.parametrize("first,then", [("tcx", "clsact"), ("clsact", "tcx")])
def test_another_method_takes_the_programs_over(first, then):
    """With programs by both a packet would be looked at twice, and what the gateway answers be dropped."""
    with make(attach=first) as rig:
        pod = start(rig)
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6
        old = held(rig)
        rig.datapaths = [("ebpf", {"attach": then})] * 2
        for node in rig.nodes:
            rig.restart(node, kill=True)
        rig.apply()
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6
        assert rig.driver("n1").must("observe")["observed"]["bpf"]["attach"] == then
        assert ("clsact" in tc(rig, "n1", "qdisc", "show")) == (then == "clsact")
        # The kernel frees a filter's program when nobody can be using it any more, and tells nobody.
        until = time.monotonic() + 2
        while loaded(old) and time.monotonic() < until:
            time.sleep(0.01)
        assert not loaded(old)


def test_maps_in_another_folder_take_over():
    """After a restart with another pinPath the old maps, which nobody writes any more, decide nothing."""
    with make(pinPath="/sys/fs/bpf/one") as rig:
        pod = start(rig)
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6
        rig.datapaths = [("ebpf", {"pinPath": "/sys/fs/bpf/two"})] * 2
        rig.steer(pod, [("0.0.0.0/0", "drop"), ("::/0", 7)])
        rig.restart("n1", kill=True)
        rig.apply("n1")
        assert pod.source(4, timeout=0.5) is None
        assert pod.source(6) == EIP6


def test_a_class_that_changes_leaks_nothing_when_the_programs_cannot_follow():
    """The tables have followed, and the program still gives the old class's number: its packets are not left alone."""
    with make() as rig:
        pod = rig.pod("n1")
        inside = rig.steer(pod, [(f"{SERVER4}/32", "drop"), ("198.51.100.0/24", 7)])
        rig.apply()
        assert pod.source(4, timeout=0.5) is None
        # The kernel takes no more elements of classes.
        maps = rig.sh("n1", "for f in $(find /sys/fs/bpf -name classes4); do bpftool map freeze pinned $f && echo $f; done")
        assert maps.count("classes4") == 1, maps
        rules = [{"destination": f"{SERVER4}/32", "action": "drop"}, {"destination": "203.0.113.0/24", "action": "drop"}]
        answer = rig.delta("n1", classes=[{"id": inside, "rules": rules}])
        assert not answer["ok"], answer
        assert pod.source(4, timeout=0.5) is None, "left with the pod's address"


@pytest.mark.parametrize("first,then", [("netlink", "ebpf"), ("ebpf", "netlink")])
def test_a_change_of_the_datapath(first, then):
    """The new one programs, then the old one purges, as the host does it: nothing leaves with another source, and
    what the two share stays."""
    with make() as rig:
        rig.datapaths = [(first, {})] * 2
        pod = start(rig)
        traffic = rig.traffic(pod, 4, streams=1)
        capture = sockets.Capture(rig.ns("srv"))
        time.sleep(0.1)
        ids = held(rig) if first == "ebpf" else set()
        old, rig.drivers = rig.drivers, {}
        rig.datapaths = [(then, {})] * 2
        rig.apply()
        assert (pod.source(4), pod.source(6)) == (EIP4, EIP6), "while both are there"
        for driver in old.values():
            driver.must("purge")
            driver.stop()
        time.sleep(0.1)
        report = rig.report(traffic)
        capture.stop()
        print("figure", json.dumps({"test": f"from {first} to {then}", "lost": report["lost"]}))
        assert set(capture.received_sources(7000)) == {EIP4, EIP6}
        assert report["tcp_resets"] == 0
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6
        assert rig.driver("n1").must("health")
        assert not loaded(ids)


def test_fast_path():
    """Both families there and back without an entry in the client's connection tracking; connections from outside
    stay what they are."""
    with make(fastPath=True) as rig:
        pod = start(rig)
        assert rig.driver("n1").must("observe")["observed"]["bpf"]["fastPath"]
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6
        table = net.enter(rig.ns("n1"), "conntrack", "-L", "-s", pod.ipv4)
        assert SERVER4 not in table, table
        rig.serve(port=7100, ns=pod.ns)
        asked = sockets.udp(rig.ns("srv"), to=(pod.ipv4, 7100))
        assert sockets.ask(asked, b"\0" * 64)
        asked.close()
        counters = rig.driver("n1").must("counters")["counters"]
        assert counters["steered_packets_total{egress=7}"] >= 2
