"""`egw purge` under a running cluster: nothing of egw is left in the kernel, settings have their old values,
and the other nodes go on."""

import os
import shutil
import signal
import subprocess

from conftest import EIP4, GATEWAY, policy, ready, wait_source
from lab import net
from lab.cluster import build_dir

# Everything of a node that could be ours. Counters and dynamic neighbours of other devices are not.
STATE = """
nft list ruleset; iptables-legacy-save 2>/dev/null | grep -v '^#'
ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | grep -v -e 'proto ra' -e expires
ip -o addr | sed 's/ *valid_lft.*//'; ip -d -o link | sed 's/ *promiscuity.*//'
bridge fdb show | grep -v 33:33 | grep -v 01:00:5e | sort
sysctl -a 2>/dev/null | grep '^net' | grep -v -e random -e conntrack_count -e egress.vxlan -e nf_log
"""


def state(cluster, node):
    return net.enter(cluster.ns(node), "sh", "-c", STATE)


def purge(cluster, node, *options, check=True):
    config = os.path.join(cluster.dir, f"{node}.yaml")
    args = net.inside(cluster.ns(node), os.path.join(cluster.bin, "egw"), "--config", config, "purge", *options)
    done = subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_purge_leaves_nothing_of_egw(make_cluster):
    cluster = make_cluster(up=False, nodes=3, gateways=2)
    cluster.up(start=False)
    cluster.add_pod("pod1", "n1", {"app": "shop"})
    cluster.add_pod("pod2", "n2", {"app": "shop"})
    for node in cluster.nodes:  # somebody else's things, and a setting that egw changes
        net.enter(cluster.ns(node), "sh", "-ec", "nft add table ip others; nft add chain ip others c; ip rule add pref 500 "
                  "fwmark 0x10 lookup 500; ip route add blackhole 10.99.0.0/16 table 500; "
                  "echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
    before = {n: state(cluster, n) for n in cluster.nodes}
    for i in range(cluster.controllers):
        cluster.controller(i).start()
    for node in cluster.nodes:
        cluster.agent(node).start()
    ready(cluster)
    cluster.apply(GATEWAY, policy())
    wait_source(cluster, "pod1", EIP4)
    assert all(state(cluster, n) != before[n] for n in cluster.nodes)

    refused = purge(cluster, "n1", check=False)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert "stop it first" in refused.stderr
    refused = purge(cluster, "n1", "--state-dir", os.path.join(cluster.dir, "another"), check=False)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1, refused.stderr
    assert f"another agent runs here (process {cluster.agent('n1').process.pid})" in refused.stderr
    assert cluster.source("pod1") == EIP4, "a refused purge changes nothing"

    cluster.agent("n1").stop(signal.SIGTERM)
    assert cluster.source("pod1") == EIP4, "a stopped agent leaves the kernel as it is"
    assert purge(cluster, "n1").stdout == "node/n1 purged\n"
    assert state(cluster, "n1") == before["n1"]
    assert cluster.source("pod1") == cluster.pods["pod1"]["ipv4"]
    assert cluster.source("pod2") == EIP4, "the rest of the cluster goes on"
    assert purge(cluster, "n1").stdout == "node/n1 purged\n"  # nothing to do is no error
    assert state(cluster, "n1") == before["n1"]

    for node in ("n2", "n3"):
        cluster.agent(node).stop(signal.SIGKILL)
        purge(cluster, node)
        assert state(cluster, node) == before[node]

    for node in cluster.nodes:  # and back
        cluster.agent(node).start()
    wait_source(cluster, "pod1", EIP4, 15)


def test_purge_of_all_says_what_it_could_not_purge(make_cluster):
    """A folder without the plugin that has programmed the node, or without any: nothing is given up as done."""
    cluster = make_cluster(up=False, nodes=2, gateways=1)
    cluster.up(start=False)
    cluster.add_pod("pod1", "n1", {"app": "shop"})
    before = state(cluster, "n1")
    cluster.controller(0).start()
    for node in cluster.nodes:
        cluster.agent(node).start()
    ready(cluster)
    cluster.apply(GATEWAY, policy())
    wait_source(cluster, "pod1", EIP4)
    cluster.agent("n1").stop(signal.SIGTERM)
    programmed = state(cluster, "n1")

    folders = [os.path.join(cluster.dir, name) for name in ("nothing", "without-netlink")]
    for folder in folders:
        os.mkdir(folder, 0o755)
    for name in ("ebpf", "iptables"):
        shutil.copy(os.path.join(build_dir(), "lib", "egw", "plugins", f"egw-datapath-{name}.so"), folders[1])
    for folder, seen in zip(folders, (EIP4, None)):  # what the others take away cuts the pod off; it does not open
        done = purge(cluster, "n1", "--datapath", "all", "--plugin-dir", folder, check=False)
        assert done.returncode != 0 and done.stdout == "" and "netlink" in done.stderr, done
        assert cluster.source("pod1") == seen
    assert os.path.exists(os.path.join(cluster.dir, "state", "n1", "datapath.json"))
    assert purge(cluster, "n1", "--datapath", "all").stdout == "node/n1 purged\n"
    assert state(cluster, "n1") == before
    assert programmed != before
    done = purge(cluster, "n1", "--datapath", "all", "--plugin-dir", folders[0], check=False)
    assert done.returncode == 2 and "--plugin-dir" in done.stderr, done
