"""A datapath that misbehaves under a real agent (docs/write-a-datapath.md#faults): the agent says Degraded, its
heartbeat and its answers to ARP go on, the kernel forwards, and when the fault has gone so has the condition."""

import os
import shutil
import signal
import socket
import time

import pytest
from conftest import EIP4, GATEWAY, policy, ready, result_line, sources, wait_source
from hung import arp_answer, condition
from lab import net
from lab.cluster import build_dir

# (operation and fault, what the condition says of it); the leak comes last, since only a restart ends it. The first one
# needs a full apply, for which the test takes a route away: the others are under traffic.
FAULTS = [
    ("sysctls throw", "does not say which sysctls it needs"),
    ("apply throw", "threw an exception: the card is on fire"),
    ("apply throw-number", "no std::exception"),
    ("apply end-thread", "ended its thread (pthread_exit)"),
    ("apply status", "unknown status 4711"),
    ("apply need-full", "asked for everything when it was given everything"),
    ("health status", "unknown status 4711"),
    ("health end-thread", "ended its thread"),
    ("health block", "health"),
    ("counters flood", "busy with counters"),
    ("health leak", "a plugin leaks them"),
]


class Faulty:
    """Three nodes; n2 owns the EIP, and its datapath is the real one behind a library that errs when told to."""

    def __init__(self, make_cluster, tmp_path):
        plugins = tmp_path / "plugins"
        shutil.copytree(os.path.join(build_dir(), "lib", "egw", "plugins"), plugins)
        shutil.copy(os.path.join(build_dir(), "tests", "abi", "lib", "egw-datapath-faulty.so"), plugins)
        for path in (plugins, *plugins.iterdir()):
            os.chmod(path, 0o755)
        self.file, self.cluster, self.pokes = tmp_path / "fault", make_cluster(up=False, nodes=3, gateways=2), 0
        self.cluster.own_settings["n2"] = {"plugins": {"dir": str(plugins), "datapath": {
            "name": "faulty", "config": {"library": str(plugins / "egw-datapath-netlink.so"), "fault": str(self.file)}}}}
        self.cluster.up(start=False)

    def start(self):
        cluster = self.cluster
        for i in range(cluster.controllers):
            cluster.controller(i).start()
        for node in ("n1", "n2"):  # n3 comes later, so that n2 owns the EIP
            cluster.agent(node).start()
            cluster.wait("egt", node, lambda t: t.get("status", {}).get("phase") == "Ready", 15)
        cluster.add_pod("pod1", "n1", {"app": "shop"})
        cluster.apply(GATEWAY, policy())
        wait_source(cluster, "pod1", EIP4)
        cluster.agent("n3").start()
        ready(cluster)
        assert cluster.owner("egw", EIP4) == "n2"

    def set(self, what):
        with open(f"{self.file}.new", "w", encoding="ascii") as f:
            f.write(what)
        os.replace(f"{self.file}.new", self.file)

    def poke(self, drift=False):
        """Work for n2's datapath: a step, a scrape; drift: a full apply, because somebody has removed its route."""
        self.pokes += 1
        self.cluster.add_pod(f"poke{self.pokes}", "n2", {"app": "shop"})
        if drift:
            net.enter(self.cluster.ns("n2"), "ip", "route", "flush", "table", "6645623")
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(os.path.join(self.cluster.dir, "state", "n2", "agent.sock"))
            s.send(b"GET /counters HTTP/1.0\r\n\r\n")
        return f"poke{self.pokes}"


@pytest.fixture(name="faulty")
def fixture_faulty(make_cluster, tmp_path):
    faulty = Faulty(make_cluster, tmp_path)
    yield faulty
    faulty.set("")


def degraded(cluster, says, seconds):
    return cluster.wait("egt", "n2", lambda t: condition(t, "Degraded") and says in condition(t, "Degraded")["message"],
                        seconds)[0]


def test_each_fault_is_told_and_harms_nothing(faulty):
    faulty.start()
    cluster = faulty.cluster
    pid, answering = cluster.agent("n2").process.pid, arp_answer(cluster, EIP4)
    traffic, steps = None, []
    for what, says in FAULTS:
        drift = what.startswith("sysctls")
        if traffic is None and not drift:
            wait_source(cluster, "pod1", EIP4)  # the route that the test took away last is back
            traffic = cluster.traffic("pod1")
        faulty.set(what)
        begin = time.monotonic()
        steps.append((begin, what))
        faulty.poke(drift)
        before = degraded(cluster, says, 20)["status"]["lastHeartbeatTime"]
        told = time.monotonic() - begin
        cluster.wait("egt", "n2", lambda t, old=before: t["status"]["lastHeartbeatTime"] != old, 5)
        assert arp_answer(cluster, EIP4) == answering, what
        faulty.set("")
        steps.append((time.monotonic(), "after " + what))
        wait_source(cluster, faulty.poke(drift), EIP4, 40)
        if what != "health leak":
            cluster.wait("egt", "n2", lambda t: not condition(t, "Degraded"), 20)
        assert cluster.agent("n2").process.pid == pid and cluster.agent("n2").process.running(), what
        assert cluster.get("egt", "n2")["status"]["phase"] == "Ready" and cluster.owner("egw", EIP4) == "n2"
        result_line("fault: " + what, told_s=round(told, 1))
    report = traffic.stop()
    gap_at = [f"{report['gap_at_us'] / 1e6 - at:.3f} s {what}" for at, what in steps if at <= report["gap_at_us"] / 1e6]
    assert sources(report) == [EIP4] and report["lost"] == 0, (report, gap_at[-1:])
    result_line("traffic of another node meanwhile", sent=report["sent"], lost=report["lost"])


def test_one_that_crashes_in_its_probe_is_refused_and_the_agent_lives(faulty):
    faulty.set("probe crash")
    cluster = faulty.cluster
    for i in range(cluster.controllers):
        cluster.controller(i).start()
    cluster.agent("n2").start()
    cluster.wait("egt", "n2", lambda t: condition(t, "DatapathRefused") and
                 "crashed with signal 11 (SIGSEGV) in probe" in condition(t, "DatapathRefused")["message"], 15)
    pid = cluster.agent("n2").process.pid
    faulty.set("")
    cluster.wait("egt", "n2", lambda t: t["status"]["phase"] == "Ready", 15)
    assert cluster.agent("n2").process.pid == pid and cluster.agent("n2").process.running()


def test_one_that_does_not_let_the_process_end(faulty):
    faulty.start()
    faulty.set("exit block")
    took = faulty.cluster.agent("n2").stop(signal.SIGTERM, timeout=12)
    result_line("SIGTERM with a library that hangs at exit", s=round(took, 2))
    assert 2 <= took <= 10, f"the agent ended after {took:.1f} s"
