"""The ABI's cases (egw-abi-check) for every datapath that is built: each in a network namespace of its own, with an uplink
as a node has it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from lab import net  # noqa: E402  (the path must be set first)

BUILD = pathlib.Path(os.environ["EGW_BUILD_DIR"])
PLUGINS = BUILD / "lib" / "egw" / "plugins"
DATAPATHS = sorted(p.stem.removeprefix("egw-datapath-") for p in PLUGINS.glob("egw-datapath-*.so"))
ALONE = {"iptables"}  # has no layout in common with another, so it does not hand over


@pytest.fixture(name="node")
def fixture_node():
    node, outside = f"abi{os.getpid()}-n", f"abi{os.getpid()}-o"
    try:
        for name in (node, outside):
            net.add(name)
        net.veth(node, "eth0", outside, "eth0")
        net.batch(outside, "link set eth0 up")
        net.batch(node, "link set eth0 up", "addr add 10.6.0.11/16 dev eth0", "route add default via 10.6.0.100 dev eth0")
        net.sysctl(node, net__ipv4__ip_forward=1)
        yield node
    finally:
        for name in (node, outside):
            net.remove(name)


@pytest.mark.parametrize("name", DATAPATHS)
def test_abi_cases(node, tmp_path, name):
    done = subprocess.run(net.inside(node, str(BUILD / "bin" / "egw-abi-check"), str(PLUGINS), name, str(tmp_path / "state")),
                          capture_output=True, text=True, timeout=90, check=False)
    cases = json.loads(done.stdout)["cases"]
    assert done.returncode == 0, [c for c in cases if c["result"] == "fail"]
    skipped = [(c["case"], c["detail"]) for c in cases if c["result"] == "skip"]
    assert len(cases) == 19 and skipped in ([], [("hand over", "names no layout")] if name in ALONE else []), cases
