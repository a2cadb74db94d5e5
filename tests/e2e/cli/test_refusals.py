"""What is refused, in one line that names the thing, with the right exit code."""

import json
import os
import shutil
import sqlite3
import subprocess

import pytest
from cli_support import EGW, MANIFESTS, PLUGINS, environment, gateway


def run(*args, env=None):
    return subprocess.run([EGW, *args], capture_output=True, text=True, timeout=60, check=False,
                          env={**environment(), **(env or {})})


def refused(done, code, *words):
    """Exit code, one line on stderr that begins with Error, nothing on stdout."""
    assert done.returncode == code, (done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in lines[0], lines[0]


def test_usage():
    refused(run(), 2, "a command is missing", "egw --help")
    refused(run("gte", "egw"), 2, 'did you mean "get"')
    refused(run("get"), 2, "egw get --help")
    refused(run("get", "egw", "--no-such"), 2, "--no-such")
    refused(run("get", "nonsense"), 2, 'no kind "nonsense"')
    refused(run("get", "egressgatewys"), 2, 'did you mean "egressgateways"')
    refused(run("get", "egw", "-o", "xml"), 2, "table, wide, json, yaml or name")
    refused(run("get", "pods", "-l", "a=(b"), 2, "-l a=(b")
    refused(run("get", "pods", "-A", "-n", "x"), 2, "-n and -A")
    refused(run("apply"), 2, "-f FILE|DIR|-")
    refused(run("delete"), 2, "KIND NAME")
    refused(run("delete", "egp,egcp/web"), 2, "one kind")
    refused(run("apply", "-f", "x", "--subresource", "scale"), 2, "expected status")
    refused(run("agent", "--drain", "--drain-timeout", "soon"), 2, '--drain-timeout is "soon"')
    refused(run("agent", "--drain-timeout", "60"), 2, "without --drain")
    refused(run("status", "--state-dir", "/x"), 2, "without --local")


def test_help_and_version():
    for args in (["--help"], ["get", "--help"], ["plugin", "inspect", "-h"], ["help"], ["help", "apply"],
                 ["plugin", "--help"], ["vip", "-h"], ["help", "vip"]):
        done = run(*args)
        assert done.returncode == 0 and "usage: egw" in done.stdout and done.stderr == ""
    for args in (["--version"], ["version"]):
        done = run(*args)
        assert done.returncode == 0 and done.stdout.startswith("egw 0.") and "plugin ABI 1." in done.stdout


@pytest.mark.parametrize("role", ["agent", "controller", "apply", "get", "status", "purge", "plugin list"])
def test_configuration(role, tmp_path):
    """Every command reads the configuration before it does anything."""
    words = {"apply": ["apply", "-f", MANIFESTS], "get": ["get", "egw"]}.get(role, role.split())
    config = tmp_path / "egw.yaml"
    for text, *expected in (
            ("feature: {tunelMonitorPeriod: 1}", "feature.tunelMonitorPeriod", "unknown key", "tunnelMonitorPeriod"),
            ("feature: {enableIPv6: maybe}", "feature.enableIPv6", "true or false"),
            ("feature: {tunnelMonitorPeriod: 5, tunnelUpdatePeriod: 5, eipEvictionTimeout: 10}",
             "10 s", "tunnelMonitorPeriod (5 s)", "tunnelUpdatePeriod (5 s)"),
            ("feature: {", "not valid YAML")):
        config.write_text(text)
        refused(run("--config", str(config), *words), 2, str(config), *expected)
    refused(run("--config", str(tmp_path / "none.yaml"), *words), 2, "none.yaml", "No such file")
    config.write_text("feature: {enableIPv6: maybe}")
    refused(run(*words, env={"EGW_CONFIG": str(config)}), 2, str(config))


def test_plugin_folder(store, tmp_path):
    refused(store.run("--plugin-dir", str(tmp_path / "none"), "get", "egw"), 2, "none", "--plugin-dir")
    refused(store.run("get", "egw", env={"EGW_PLUGIN_DIR": str(tmp_path / "none")}), 2, "--plugin-dir")
    refused(store.run("--set", "plugins.stateStore.name=etcd", "get", "egw"), 2, "plugins.stateStore.name", "local")
    assert store.ok("--plugin-dir", PLUGINS, "get", "egw", "-o", "json", stdin="")


@pytest.fixture
def plugins(tmp_path):
    """A copy of the plugins that a test may spoil."""
    folder = tmp_path / "plugins"
    shutil.copytree(PLUGINS, folder)
    os.chmod(folder, 0o755)
    for name in os.listdir(folder):
        os.chmod(folder / name, 0o755)
    return folder


def test_bad_plugins(store, plugins):
    name = plugins / "egw-statestore-local.so"
    good = name.read_bytes()

    def get():
        return store.run("--plugin-dir", str(plugins), "get", "egw")

    assert get().returncode == 0
    name.write_text("not a library")
    refused(get(), 2, str(name))
    shutil.copy(plugins / "egw-leaderelection-local.so", name)
    refused(get(), 2, str(name))
    name.write_bytes(good)
    os.chmod(name, 0o777)
    refused(get(), 2, str(name), "chmod")
    os.chmod(name, 0o755)
    assert get().returncode == 0


def test_plugin_list_and_inspect(plugins):
    done = run("plugin", "list")
    assert done.returncode == 0
    header, *rows = [line.split() for line in done.stdout.splitlines()]
    assert header == ["KIND", "NAME", "VERSION", "ABI", "FILE", "USABLE"]
    kinds = {(r[0], r[1]) for r in rows}
    assert {("statestore", "local"), ("leaderelection", "local"), ("datapath", "netlink")} <= kinds
    assert all(r[-1] == "yes" for r in rows)
    (plugins / "egw-datapath-broken.so").write_text("nothing")
    os.chmod(plugins / "egw-datapath-broken.so", 0o644)
    done = run("--plugin-dir", str(plugins), "plugin", "list")
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if "egw-datapath-broken.so" in line and "no: " in line]
    done = run("plugin", "inspect", "statestore/local")
    assert done.returncode == 0 and "configSchema:" in done.stdout and "path:" in done.stdout
    refused(run("plugin", "inspect", "none"), 1, '"none"')
    refused(run("--plugin-dir", "/nonexistent", "plugin", "list"), 2, "/nonexistent")


def test_store_file(store):
    store.apply(gateway())
    with open(store.path, "r+b") as f:
        f.write(b"\0" * 4096)
    done = store.run("get", "egw")
    refused(done, done.returncode, store.path)
    assert done.returncode in (1, 2)
    os.unlink(store.path)
    os.mkdir(store.path)
    done = store.run("get", "egw")
    refused(done, done.returncode, store.path)


def test_verbs_that_look_make_no_store(store):
    os.unlink(store.path)
    manifest = json.dumps(gateway())
    for words in (["get", "egw"], ["get", "egw", "-w"], ["status"], ["why", "default/p", "203.0.113.7"], ["drain", "n1"],
                  ["delete", "egw", "egw"], ["check", "--stored", "-f", "-"], ["apply", "--dry-run", "-f", "-"]):
        done = store.run(*words, stdin=manifest)
        refused(done, 1, store.path)
        assert "there is no database: the file does not exist" in done.stderr and not os.path.exists(store.path), words
    assert store.run("apply", "-f", "-", stdin=manifest).returncode == 0 and os.path.exists(store.path)


def run_without_rights(folder, *args):
    """As a user from whom `folder` is closed: its owner is another one, and root's override is taken away."""
    os.chown(folder, 65534, 65534)
    os.chmod(folder, 0o700)
    return subprocess.run(["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *args],
                          capture_output=True, text=True, timeout=60, check=False, env=environment())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a folder of another user's is made")
def test_a_closed_folder_is_not_called_missing_or_busy(store):
    store.apply(gateway())
    for words, code in ((["get", "egw"], 2), (["status"], 2), (["status", "--local"], 1)):
        done = run_without_rights(store.folder, *store.args(*words))
        refused(done, code, store.folder, "(Permission denied)", "root")
        for untrue in ("does not exist", "an agent runs", "nothing answers"):
            assert untrue not in done.stderr, done.stderr
    for role in ("purge", "agent"):
        done = run_without_rights(store.folder, *store.args(role))
        assert done.returncode == 2 and f"{store.folder}: the state folder belongs to user 65534" in done.stderr, done.stderr


def test_a_missing_plugin_leaves_no_folder(store):
    assert store.run("--set", "plugins.datapath.name=typo", "agent").returncode == 2
    assert not [name for name in os.listdir(store.folder) if "typo" in name]


def test_store_where_no_file_can_be_made(store):
    done = store.run("--set", "plugins.stateStore.config.path=/proc/egw.db", "apply", "-f", "-", stdin=json.dumps(gateway()))
    refused(done, 2, "/proc/egw.db")
    refused(store.run("--set", "plugins.stateStore.config.path=egw.db", "get", "egw"), 2,
            'plugins.stateStore.config.path: is "egw.db"; expected a string that matches ^/')
    refused(store.run("--set", "plugins.stateStore.config.pth=/x", "get", "egw"), 2,
            'plugins.stateStore.config.pth: unknown key; did you mean "path"?')


def test_locked_store_is_named_and_changes_nothing(store):
    store.apply(gateway())
    lock = sqlite3.connect(store.path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        done = store.run("apply", "-f", "-", stdin="""
apiVersion: v1
kind: Namespace
metadata: {name: late}
""")
        assert done.returncode == 1
        assert store.path in done.stderr and "locked" in done.stderr
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    assert store.run("get", "ns", "late").returncode == 1
    assert store.json("get", "egw", "egw")["metadata"]["name"] == "egw"


def test_broken_yaml_in_a_manifest(store, tmp_path):
    file = tmp_path / "m.yaml"
    file.write_text("a: [1\n")
    refused(store.run("apply", "-f", str(file)), 1, str(file), "not valid YAML")
    file.write_text("apiVersion: egressgateway.spidernet.io/v1beta1\nkind: EgressGatway\nmetadata: {name: x}\n")
    refused(store.run("apply", "-f", str(file)), 1, "did you mean EgressGateway?")
    file.write_text("")
    refused(store.run("apply", "-f", str(file)), 1, "holds no object")
    refused(store.run("apply", "-f", str(tmp_path / "none.yaml")), 1, "none.yaml", "No such file")
