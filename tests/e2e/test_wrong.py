"""What people do wrong, beside a running cluster: each gives one clear line and the right exit code, and nothing
that already runs in the kernel changes."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import time

import pytest
from conftest import EIP4, GATEWAY, placed, policy, ready, wait_source
from lab import net
from lab.cluster import Cluster, build_dir

ABI = os.path.join(build_dir(), "tests", "abi", "lib")


@pytest.fixture(name="cluster", scope="module")
def fixture_cluster():
    """One cluster for all cases: they are to leave it as it was."""
    cluster = Cluster.claim("e2e", nodes=3, gateways=2)
    try:
        cluster.up()
        ready(cluster)
        for i, node in enumerate(cluster.nodes):
            cluster.add_pod(f"pod{i + 1}", node, {"app": "shop"})
        cluster.apply(GATEWAY, policy())
        placed(cluster)
        wait_source(cluster, "pod1", EIP4)
        yield cluster
    finally:
        cluster.down()


def kernel(cluster, node):
    return net.enter(cluster.ns(node), "sh", "-c", "nft list ruleset | sed -E 's/packets [0-9]+ bytes [0-9]+//'; ip rule; "
                     "ip -6 rule; ip route show table all; ip -o link show egress.vxlan; bridge fdb show dev egress.vxlan; "
                     "ip neigh show dev egress.vxlan; sysctl net.netfilter.nf_conntrack_tcp_be_liberal")


@contextlib.contextmanager
def undisturbed(cluster, node="n1"):
    """The kernel of the node is the same before and after, and the pod's traffic runs without a gap."""
    before = kernel(cluster, node)
    traffic = cluster.traffic("pod1", 4, streams=1)
    time.sleep(0.1)  # traffic before, during and after
    yield
    time.sleep(0.1)
    result = traffic.stop()
    assert result["lost"] == 0 and result["tcp_resets"] == 0, result
    assert {s["source"] for s in result["sources"]} == {EIP4}
    assert kernel(cluster, node) == before


# ---- an agent that is started wrongly -------------------------------------------------------

def ends(cluster, role, who, *options, config=None):
    """Runs a role until it ends by itself: (exit code, its lines that are errors)."""
    config = config or cluster.config(role, who)
    done = subprocess.run(net.inside(cluster.ns(who), os.path.join(cluster.bin, "egw"), "--config", config, *options,
                                     role), capture_output=True, text=True, timeout=20, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if re.search(r"\berror\b", line, re.I)]
    return done.returncode, lines


def agent(cluster, *options, config=None):
    return ends(cluster, "agent", "n1", *options, config=config)


@pytest.fixture(name="stopped")
def fixture_stopped(cluster):
    """n1 without its agent, as when somebody restarts it with a new configuration."""
    cluster.agent("n1").stop()
    return cluster


@pytest.fixture(name="running")
def fixture_running(cluster):
    if not cluster.agent("n1").process.running():
        cluster.agent("n1").start()
    well_again(cluster)
    return cluster


CONFIGURATIONS = {
    "unknown key": ("feature.tunelIpv4Subnet=172.31.0.0/16", "feature.tunelIpv4Subnet", "unknown key"),
    "wrong type": ("feature.vxlan.port=much", "feature.vxlan.port", "expected"),
    "timeouts": ("feature.eipEvictionTimeout=2", "eipEvictionTimeout", "tunnelMonitorPeriod (1 s)",
                 "tunnelUpdatePeriod (1 s)"),
    "a key of the plugin": ("plugins.datapath.config.rulePreferense=5", "plugins.datapath.config.rulePreferense",
                            "rulePreference"),
    "a value of the plugin": ("plugins.datapath.config.routeTable=-1", "plugins.datapath.config.routeTable", "4294967295"),
    "no such plugin": ("plugins.datapath.name=netlnk", "plugins.datapath.name", "egw-datapath-netlnk.so", "netlink"),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_wrong_configuration(stopped, case):
    setting, *words = CONFIGURATIONS[case]
    with undisturbed(stopped):
        code, lines = agent(stopped, "--set", setting)
    said(code, lines, words)


def test_wrong_leader_election(stopped):
    """A second controller in the first one's place; its ports are the first one's."""
    with undisturbed(stopped):
        code, lines = ends(stopped, "controller", "ctl0", "--set", "plugins.leaderElection.name=none", "--set",
                           "controller.healthPort=0", "--set", "controller.metricsPort=0")
    said(code, lines, ["plugins.leaderElection.name", "egw-leaderelection-none.so", "local"])


def said(code, lines, words, wanted=2):
    assert code == wanted, lines
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture(name="plugins")
def fixture_plugins(tmp_path):
    folder = tmp_path / "plugins"
    shutil.copytree(os.path.join(build_dir(), "lib", "egw", "plugins"), folder)
    for path in (folder, *folder.iterdir()):
        os.chmod(path, 0o755)
    return folder


def put(plugins, library):
    """The library of the ABI tests in the place of the datapath plugin of its own name."""
    shutil.copy(os.path.join(ABI, f"egw-datapath-{library}.so"), plugins)
    os.chmod(plugins / f"egw-datapath-{library}.so", 0o755)
    return library


def out_of_the_folder(plugins):
    outside = plugins.parent / "elsewhere.so"
    shutil.move(plugins / "egw-datapath-netlink.so", outside)
    os.symlink(outside, plugins / "egw-datapath-netlink.so")


def text_file(plugins):
    (plugins / "egw-datapath-netlink.so").write_text("#!/bin/sh\necho hello\n")


def cut_short(plugins):
    os.truncate(plugins / "egw-datapath-netlink.so", 100_000)


PLUGINS = {
    "missing": (lambda p: os.unlink(p / "egw-datapath-netlink.so"), "egw-datapath-netlink.so", "plugins.datapath.name"),
    "no library": (text_file, "is no ELF file", "put a plugin library in its place"),
    "cut short": (cut_short, "is truncated", "copy it again"),
    "of the wrong kind": (lambda p: put(p, "wrong-kind"), "is a statestore plugin"),
    "of a newer ABI": (lambda p: put(p, "newer-major"), "plugin ABI 2.", "this egw speaks 1.", "install"),
    "not a plugin": (lambda p: put(p, "no-symbol"), "does not export egw_plugin_entry_v1"),
    "crashing in its entry": (lambda p: put(p, "crash-in-entry"), "crashed with signal 11 (SIGSEGV) in its entry"),
    "ending the process": (lambda p: put(p, "exit-in-entry"), "ended the process with exit code 7"),
    "hanging in its entry": (lambda p: put(p, "hang-in-entry"), "did not come back within 5 s"),
    "throwing": (lambda p: put(p, "throws-in-entry"), "threw an exception in its entry"),
    "missing a library": (lambda p: put(p, "undefined-symbol"), "egw_test_symbol_that_nobody_defines"),
    "writable by everybody": (lambda p: os.chmod(p / "egw-datapath-netlink.so", 0o777), "can be written by everybody",
                              "chmod go-w"),
    "writable by its group": (lambda p: os.chmod(p / "egw-datapath-netlink.so", 0o775), "can be written by its group"),
    "in a folder writable by everybody": (lambda p: os.chmod(p, 0o777), "the plugin folder can be written by everybody",
                                          "chmod go-w"),
    "of another user": (lambda p: os.chown(p / "egw-datapath-netlink.so", 12345, 0), "belongs to user 12345", "chown"),
    "a link out of the folder": (out_of_the_folder, "is a link to", "elsewhere.so", "outside the plugin folder"),
}


@pytest.mark.parametrize("case", PLUGINS)
def test_wrong_plugin(stopped, plugins, case):
    spoil, *words = PLUGINS[case]
    name = spoil(plugins) or "netlink"
    with undisturbed(stopped):
        code, lines = agent(stopped, "--plugin-dir", str(plugins), "--set", f"plugins.datapath.name={name}")
    if "folder writable" in case:  # the store's plugin lies in the same folder and comes first
        said(code, lines, words)
    else:
        said(code, lines, [f"egw-datapath-{name}.so", *words])


@pytest.mark.parametrize("spoil, words", [
    (lambda p: os.chmod(p, 0o777), ("the state folder can be written by others", "chmod go-w")),
    (lambda p: os.chown(p, 12345, 0), ("the state folder belongs to user 12345", "chown"))], ids=("writable", "foreign"))
def test_state_folder_of_others(stopped, tmp_path, spoil, words):
    """What is noted there is believed: which settings of the kernel to put back, for one."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    spoil(folder)
    with undisturbed(stopped):
        code, lines = agent(stopped, "--state-dir", str(folder))
    said(code, lines, [str(folder), *words])


def store_config(cluster, path, tmp_path):
    """A configuration of n1 with another store file."""
    with open(cluster.config("agent", "n1"), encoding="utf-8") as f:
        config = json.load(f)
    config["plugins"]["stateStore"]["config"]["path"] = str(path)
    file = tmp_path / "n1.yaml"
    file.write_text(json.dumps(config))
    return str(file)


def test_agent_with_a_wrong_store(stopped, tmp_path):
    os.chmod(tmp_path, 0o700)
    damaged, folder = tmp_path / "damaged.db", tmp_path / "folder.db"
    damaged.write_bytes(b"this is no database " * 1000)
    os.chmod(damaged, 0o600)
    folder.mkdir()
    for path, *words in ((damaged, "is no database"), (folder, "folder.db"), ("/proc/egw.db", "/proc/egw.db")):
        with undisturbed(stopped):
            code, lines = agent(stopped, config=store_config(stopped, path, tmp_path))
        assert code in (1, 2)
        said(code, lines, [str(path), *words], code)


# ---- a store that goes wrong while everything runs ---------------------------------------------

def files(path):
    return [path + s for s in ("", "-wal", "-shm") if os.path.exists(path + s)]


def verb(cluster, code=1):
    """A write by hand: refused in one line, which is returned."""
    done = cluster.egw("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace",
                                                              "metadata": {"name": f"n{time.monotonic_ns()}"}}), check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == code and len(lines) == 1 and lines[0].startswith("Error: "), (done.returncode, lines)
    return lines[0]


def well_again(cluster):
    """Every agent is heard, and Ready."""
    before = {n: cluster.get("egt", n)["status"]["lastHeartbeatTime"] for n in cluster.nodes}
    for n in cluster.nodes:
        cluster.wait("egt", n, lambda t, n=n: t["status"]["phase"] == "Ready" and
                     t["status"]["lastHeartbeatTime"] != before[n], 20)


def test_store_removed_under_a_running_cluster(running):
    path = os.path.join(running.dir, "egw.db")
    with undisturbed(running):
        moved = files(path)
        for f in moved:
            os.rename(f, f + ".away")
        time.sleep(5)  # longer than an eviction timeout: nobody may act on the absence
        line = verb(running)
        assert path in line and "removed while in use" in line and "Put it back" in line, line
        for f in moved:
            os.rename(f + ".away", f)
    well_again(running)
    assert "the database is gone" in running.agent("n1").log_text()


def test_store_locked_under_a_running_cluster(running):
    path = os.path.join(running.dir, "egw.db")
    with undisturbed(running):
        lock = sqlite3.connect(path, isolation_level=None, timeout=10)
        lock.execute("BEGIN IMMEDIATE")
        try:
            line = verb(running)
            assert path in line and "locked" in line and str(os.getpid()) in line, line
        finally:
            lock.execute("ROLLBACK")
            lock.close()
    well_again(running)


def test_store_damaged_under_a_running_cluster(running):
    """Somebody moves what is no database over the file; then a backup, as the manual says."""
    path = os.path.join(running.dir, "egw.db")
    with undisturbed(running):
        with contextlib.closing(sqlite3.connect(path)) as source, \
                contextlib.closing(sqlite3.connect(path + ".backup")) as backup:
            source.backup(backup)
        with open(path + ".new", "wb") as f:
            f.write(b"no database at all " * 4096)
        for name in (".new", ".backup"):
            os.chmod(path + name, 0o600)
        os.rename(path + ".new", path)
        time.sleep(5)  # longer than an eviction timeout
        line = verb(running, 2)
        assert path in line and ("no database" in line or "damaged" in line), line
        os.rename(path + ".backup", path)
        well_again(running)
    running.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "after"}})


def test_store_on_a_full_disk(tmp_path):
    """The store's file system fills up: writes are refused by name, traffic runs on, and it goes on with space."""
    small = tmp_path / "small"
    small.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "none", str(small)], check=True)
    cluster = Cluster.claim("e2e", nodes=2, gateways=1, settings={"plugins": {
        "stateStore": {"config": {"path": str(small / "egw.db")}},
        "leaderElection": {"config": {"path": str(small / "egw.db")}}}})
    try:
        cluster.up()
        ready(cluster)
        cluster.add_pod("pod1", "n1", {"app": "shop"})
        cluster.apply(GATEWAY, policy())
        placed(cluster)
        wait_source(cluster, "pod1", EIP4)
        with undisturbed(cluster):
            with open(small / "ballast", "wb", buffering=0) as f, contextlib.suppress(OSError):
                while True:
                    f.write(b"\0" * 65536)
            deadline = time.monotonic() + 20
            line = ""
            while "full" not in line and "space" not in line:  # the log may have had room for some writes
                assert time.monotonic() < deadline, line
                done = cluster.egw("apply", "-f", "-", stdin=json.dumps(
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"n{time.monotonic_ns()}"}}), check=False)
                line = done.stderr.strip()
            assert done.returncode == 1 and str(small / "egw.db") in line and "\n" not in line, line
            time.sleep(4)  # longer than an eviction timeout
            os.unlink(small / "ballast")
        well_again(cluster)
        assert cluster.owner("egw", EIP4) == "n2"
    finally:
        cluster.down()
        subprocess.run(["umount", "-l", str(small)], check=True)
