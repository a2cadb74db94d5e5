"""What crosses the seam: descriptor, operations, answers. Needs no packet and no kernel object of the plugin, so that a
skeleton passes, too."""

import os
import time

from kernel import difference, snapshot
from rig import ALL, EIP4, EIP6, Rig, children
from suite import case


class One:
    """A rig of one node with an egress and an endpoint."""

    def __enter__(self):
        self.rig = Rig(nodes=1).__enter__()
        self.rig.egress(7, EIP4, EIP6, owner="n1", gateways=["n1"], answer=False)
        self.pod = self.rig.pod("n1")
        self.rig.steer(self.pod, ALL)
        return self.rig, self.rig.driver("n1"), self.pod

    def __exit__(self, *error):
        self.rig.__exit__(*error)


def words_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
            return f.read().replace("\0", " ").strip()
    except OSError:
        return "has ended since"


def holds(driver, rig):
    """A right full change is taken, whatever came before."""
    answer = driver.ask("apply", change=rig.change("n1"))
    assert answer["ok"] and not answer["needFull"] and answer["failures"] == []


@case("abi-plugin", "The library says who it is: name, version, this ABI's major", solo=True)
def says_who_it_is():
    with One() as (_, driver, _pod):
        plugin = driver.must("plugin")
        assert plugin["name"] and plugin["version"]
        assert plugin["abi"].split(".")[0] == "1"


@case("abi-looks-only", "open and probe change nothing in the kernel", solo=True)
def open_and_probe_change_nothing():
    with Rig(nodes=1) as rig:
        before = snapshot(rig, "n1")
        rig.driver("n1").must("probe", node=rig.node_config("n1"))
        assert difference(before, snapshot(rig, "n1"), looked=True) == {}


@case("abi-full", "A full change is taken, again and again; afterwards the plugin is healthy", solo=True)
def a_full_change_is_taken():
    with One() as (rig, driver, _):
        for _turn in range(3):
            holds(driver, rig)
        driver.must("sysctls")
        assert driver.ask("health")["ok"]


@case("abi-step", "A step on the state that the plugin holds is taken, or NEED_FULL is answered and then a full change taken",
      solo=True)
def a_step_is_taken():
    with One() as (rig, driver, pod):
        holds(driver, rig)
        for fields in ({"endpoints": [{"address": "10.244.1.99", "class": 1}]}, {"deleted": {"endpoints": ["10.244.1.99"]}},
                       {"classes": [{"id": 9, "rules": [{"destination": "10.0.0.0/8", "action": "drop"}]}]},
                       {"deleted": {"classes": [9]}}, {"deleted": {"endpoints": [pod.ipv4, pod.ipv6], "classes": [1]}}):
            answer = rig.delta("n1", **fields)
            assert answer["ok"] and answer["failures"] == []
            if answer["needFull"]:
                holds(driver, rig)


@case("abi-need-full", "A step on another state is answered with NEED_FULL, also before the first full change", solo=True)
def a_step_on_another_state():
    with One() as (rig, driver, _):
        step = {"version": 1, "full": False, "generation": 2, "base": 1, "endpoints": [{"address": "10.244.1.99", "class": 1}]}
        assert driver.must("apply", change=step)["needFull"]
        holds(driver, rig)
        generation = rig.generation
        for base in (generation + 5, 0):
            assert driver.must("apply", change={**step, "base": base, "generation": generation + 6})["needFull"]
        answer = rig.delta("n1", deleted={"endpoints": ["10.244.1.99"]})  # the state is still the one of before
        assert answer["ok"]


@case("abi-delete-missing", "Deleting what is not there succeeds", solo=True)
def deleting_what_is_not_there():
    with One() as (rig, driver, _):
        holds(driver, rig)
        answer = rig.delta("n1", deleted={"peers": ["nobody"], "egresses": [4711], "classes": [4711],
                                          "endpoints": ["10.244.1.77", "fd00:244:1::77"]})
        assert answer["ok"] and answer["failures"] == []


# What no datapath can do, and what a mistaken agent might send.
BAD = {
    "class unknown": {"endpoints": [{"address": "10.244.1.50", "class": 4711}]},
    "egress unknown": {"classes": [{"id": 50, "rules": [{"destination": "10.0.0.0/8", "action": "egress", "egressID": 4711}]}]},
    "egress 0": {"egresses": [{"id": 0, "kind": "address", "ipv4": "10.6.1.9", "owner": "none", "mayServe": False}]},
    "egress 16384": {"egresses": [{"id": 16384, "kind": "address", "ipv4": "10.6.1.9", "owner": "none", "mayServe": False}]},
    "peer unknown": {"egresses": [{"id": 40, "kind": "address", "ipv4": "10.6.1.9", "owner": "peer", "ownerPeer": "nobody",
                                   "mayServe": False}]},
    "class 0": {"classes": [{"id": 0, "rules": []}]},
    "no rules": {"classes": [{"id": 51, "rules": []}]},
    "one prefix twice": {"classes": [{"id": 52, "rules": [{"destination": "10.0.0.0/8", "action": "drop"},
                                                         {"destination": "10.0.0.0/8", "action": "bypass"}]}]},
    "one endpoint twice": {"endpoints": [{"address": "10.244.1.51", "class": 1}, {"address": "10.244.1.51", "class": 1}]},
    "two egresses with one address": {"egresses": [{"id": i, "kind": "address", "ipv4": "10.6.1.9", "owner": "none",
                                                    "mayServe": True} for i in (41, 42)]},
    "peer without MAC": {"peers": [{"name": "bad", "underlay": "10.6.0.77", "mac": "00:00:00:00:00:00"}]},
    "peer without address": {"peers": [{"name": "bad", "mac": "02:00:00:00:00:01"}]},
}


@case("abi-bad-input", "A change that makes no sense is answered, with words where it fails, and the plugin goes on", solo=True,
      change=BAD)
def bad_input(change):
    with One() as (rig, driver, _):
        holds(driver, rig)
        answer = rig.delta("n1", **change)
        assert all(f["object"] and f["message"] for f in answer.get("failures", []))
        assert answer["ok"] or answer["error"]
        holds(driver, rig)


@case("abi-observe", "observe gives a JSON object, before and after a change", solo=True)
def observe_gives_an_object():
    with One() as (rig, driver, _):
        assert isinstance(driver.must("observe")["observed"], dict)
        holds(driver, rig)
        assert isinstance(driver.must("observe")["observed"], dict)


@case("abi-counters", "Counters only grow and none disappears", solo=True)
def counters_only_grow():
    with One() as (rig, driver, _):
        holds(driver, rig)
        first = driver.must("counters")["counters"]
        holds(driver, rig)
        second = driver.must("counters")["counters"]
        assert {k: v for k, v in first.items() if second.get(k, -1) < v} == {}


@case("abi-purge", "purge may be called before any change, twice, and is followed by a full change", solo=True)
def purge_at_any_time():
    with One() as (rig, driver, _):
        driver.must("purge")
        holds(driver, rig)
        driver.must("purge")
        driver.must("purge")
        holds(driver, rig)


@case("abi-sysctls", "The plugin names the settings that it needs, with reasons, and writes none itself", solo=True)
def settings_belong_to_the_host():
    with One() as (rig, driver, _):
        script = "cd /proc/sys/net; grep -r . ipv4/conf ipv6/conf ipv4/ip_forward ipv4/tcp* netfilter bridge 2>/dev/null"

        def settings():
            lines = rig.sh("n1", script + " || true").splitlines()
            return {line for line in lines if "egress.vxlan" not in line and "nf_conntrack_count" not in line and
                    "stable_secret" not in line}
        before = settings()
        holds(driver, rig)
        assert settings() - before == set()
        for need in driver.must("sysctls")["sysctls"]:
            assert need["why"] and os.path.exists("/proc/sys/" + need["key"].split("/conf/")[0]), need
            assert need["forwarding"] == (need["key"].endswith(("ip_forward", "/forwarding"))), need


@case("abi-close", "close ends within 2 s and leaves the kernel as it is", solo=True)
def close_leaves_the_kernel_alone():
    with One() as (rig, driver, _):
        holds(driver, rig)
        before, begin = snapshot(rig, "n1"), time.monotonic()
        driver.stop()
        del rig.drivers["n1"]
        assert time.monotonic() - begin < 2
        assert difference(before, snapshot(rig, "n1")) == {}


@case("abi-processes", "No process that the plugin has started outlives the one that it runs in", solo=True)
def no_process_is_left():
    with Rig(nodes=1) as rig:
        before, driver = children(), rig.driver("n1")
        driver.must("probe", node=rig.node_config("n1"))
        for op in ("sysctls", "counters", "observe", "health", "purge"):
            driver.ask(op)
            holds(driver, rig)
        driver.stop()
        del rig.drivers["n1"]
        assert {pid: words_of(pid) for pid in children() - before} == {}


@case("abi-reopen", "A state folder of an ended process is taken over by the next one", solo=True)
def another_process_takes_over():
    with One() as (rig, driver, _):
        holds(driver, rig)
        for kill in (False, True):
            driver = rig.restart("n1", kill)
            holds(driver, rig)
