"""`egw uninstall` with the local store: what is in the kernel of the nodes before and after, seen with ip and nft."""

import signal
import subprocess

from conftest import EIP4, events, interrupted, ready, wait_source
from lab import net


def left(cluster, node):
    """What egw has in the kernel of a node."""
    def seen(*words):
        return net.enter(cluster.ns(node), *words).splitlines()

    found = [line for line in seen("ip", "-br", "link") if "egress" in line]
    found += [line for f in ("-4", "-6") for line in seen("ip", f, "rule") if not line.startswith(("0:", "32766:", "32767:"))]
    found += seen("nft", "list", "tables")
    return found + [s for s in seen("sysctl", "net.netfilter.nf_conntrack_tcp_be_liberal") if not s.endswith("= 0")]


def all_left(cluster):
    return {node: left(cluster, node) for node in cluster.nodes}


def test_nothing_is_left_nothing_moves_and_it_can_be_taken_back(shop):
    owner = shop.owner("egw", EIP4)
    moves = len(events(shop, "EipMoved"))
    assert all(all_left(shop).values())
    done = shop.egw("uninstall")
    assert all(f"node/{node} purged" in done.stdout for node in shop.nodes), done.stdout
    assert all_left(shop) == {node: [] for node in shop.nodes}
    wait_source(shop, "pod1", shop.pods["pod1"]["ipv4"])
    assert shop.owner("egw", EIP4) == owner and len(events(shop, "EipMoved")) == moves
    assert not [o for kind in ("egw", "egt") for o in shop.get(kind) if o["metadata"].get("finalizers")]
    assert "nothing is left" in shop.egw("uninstall").stdout, "a second time"
    # Taken back, all is as before.
    assert "cancelled" in shop.egw("uninstall", "--cancel").stdout
    ready(shop)
    wait_source(shop, "pod1", EIP4)
    assert all(all_left(shop).values())


def test_an_uninstall_that_is_interrupted_takes_no_finalizer_off(shop):
    agent = shop.agent("n1").process
    agent.signal(signal.SIGSTOP)
    asked = subprocess.Popen(shop.store.verb("uninstall"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for node in shop.gateways:
        shop.wait("egt", node, lambda t: any(c["type"] == "Purged" and c["status"] == "True"
                                             for c in t["status"].get("conditions", [])))
    said = interrupted(asked)
    agent.signal(signal.SIGCONT)
    assert asked.returncode == 1 and "interrupted: the request stays" in said and len(said.splitlines()) == 1, said
    assert all(o["metadata"]["finalizers"] for kind in ("egw", "egt") for o in shop.get(kind))
    assert "cancelled" in shop.egw("uninstall", "--cancel").stdout
    ready(shop)


def test_a_dead_agents_node_is_named_and_a_new_controller_begins_again(shop):
    shop.agent("n1").stop(signal.SIGKILL)
    done = shop.egw("uninstall", "--timeout", "3", check=False)
    assert done.returncode == 1
    assert 'node "n1" is left: its agent has not answered (heard last' in done.stderr, done.stderr
    assert {n for n, what in all_left(shop).items() if what} == {"n1"}
    shop.agent("n1").start()  # which finds the request
    shop.wait("egt", "n1", lambda t: any(c["type"] == "Purged" and c["status"] == "True"
                                         for c in t["status"].get("conditions", [])))
    assert all_left(shop) == {node: [] for node in shop.nodes}
    # A controller that starts later is an installation again.
    for i in range(shop.controllers):
        shop.controller(i).stop()
        shop.controller(i).start()
    ready(shop)
    wait_source(shop, "pod1", EIP4)
    shop.wait("egw", "egw", lambda g: g["metadata"].get("finalizers"))
