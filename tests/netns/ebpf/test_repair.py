"""What somebody takes away from the ebpf datapath: programs, pins, the bpffs; what refuses a program; where nothing can
be pinned. It is noticed within two seconds, told as drift, put back, and the next process goes on with it."""

import json
import os
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "conformance"))

from rig import ALL, EIP4, EIP6, Rig, net  # noqa: E402  (the path must be set first)

NOTICED_MS = 2000


@pytest.fixture(name="rig", params=["tcx", "clsact"])
def fixture_rig(request):
    """A client and a gateway, a steered pod, everything programmed."""
    with Rig(nodes=2, datapath="ebpf", config={"attach": request.param}) as rig:
        rig.attach = request.param
        rig.egress(7, EIP4, EIP6, owner="n2")
        rig.first = rig.pod("n1")
        rig.steer(rig.first, ALL)
        rig.apply()
        quiet(rig.driver("n1"))
        yield rig


def quiet(driver):
    while driver.ask("drift", timeoutMs=0)["ok"]:
        pass  # words about what the rig itself has done do not count


def detach(rig, pod):
    if rig.attach == "clsact":
        net.enter(rig.ns("n1"), "tc", "qdisc", "del", "dev", pod.host, "clsact")
        return
    index = rig.sh("n1", f"cat /sys/class/net/{pod.host}/ifindex").strip()
    rig.sh("n1", f"bpftool link detach pinned $(echo /sys/fs/bpf/egw/*/links/in{index})")


def pins(rig):
    return sorted(rig.sh("n1", "find /sys/fs/bpf -mindepth 1").split())


def test_a_detached_program_comes_back_and_is_told(rig):
    driver = rig.driver("n1")
    detach(rig, rig.first)
    word = driver.ask("drift", timeoutMs=NOTICED_MS)
    assert word["ok"] and "BPF program" in json.dumps(word), word
    assert rig.first.source(4) == EIP4 and rig.first.source(6) == EIP6, "before any apply"
    assert driver.ask("health")["ok"]
    assert rig.apply("n1")["n1"]["repaired"] == {"BPF program": 1}
    assert rig.apply("n1")["n1"]["repaired"] == {}
    assert not driver.ask("drift", timeoutMs=1500)["ok"], "told once"


def test_pins_that_are_removed_come_back_and_carry_the_next_process(rig):
    driver = rig.driver("n1")
    before = pins(rig)
    rig.sh("n1", "rm -rf /sys/fs/bpf/egw/*/links /sys/fs/bpf/egw/*/maps*")
    word = driver.ask("drift", timeoutMs=NOTICED_MS)
    assert word["ok"] and "BPF pins" in json.dumps(word), word
    assert pins(rig) == before
    assert rig.apply("n1")["n1"]["repaired"].get("BPF pin", 0) >= 1
    assert rig.apply("n1")["n1"]["repaired"] == {}
    rig.restart("n1", kill=True)
    assert rig.first.source(4) == EIP4, "the programs go on without a process"
    assert rig.apply("n1")["n1"]["repaired"] == {}
    assert rig.first.source(4) == EIP4


def test_pins_that_are_removed_come_back_with_an_apply_too(rig):
    before = pins(rig)
    rig.sh("n1", "rm -rf /sys/fs/bpf/egw")
    assert rig.apply("n1")["n1"]["repaired"].get("BPF pin", 0) >= 1
    assert pins(rig) == before


def test_a_bpffs_that_is_unmounted_is_mounted_again(rig):
    before = pins(rig)
    rig.sh("n1", "umount /sys/fs/bpf")
    assert rig.driver("n1").ask("drift", timeoutMs=NOTICED_MS)["ok"]
    assert pins(rig) == before


def test_what_cannot_be_pinned_again_is_named_until_it_can(rig):
    driver = rig.driver("n1")
    rig.sh("n1", "rm -rf /sys/fs/bpf/egw/*/maps*; mount -o remount,ro /sys/fs/bpf")
    assert driver.ask("drift", timeoutMs=NOTICED_MS)["ok"]
    health = driver.ask("health")
    assert not health["ok"] and "pinned" in json.dumps(health), health
    answer = driver.ask("apply", change=rig.change("n1"))
    assert answer["ok"] and "Read-only file system" in json.dumps(answer["failures"]), answer
    assert rig.first.source(4) == EIP4
    late = rig.pod("n1")
    rig.steer(late, ALL)
    assert driver.ask("apply", change=rig.change("n1"))["ok"]
    assert late.source(4) == EIP4, "its program cannot be pinned, and works as long as this process lives"
    rig.sh("n1", "mount -o remount,rw /sys/fs/bpf")
    quiet(driver)
    assert rig.apply("n1")["n1"]["repaired"].get("BPF pin", 0) >= 1
    assert driver.ask("health")["ok"]


def test_the_devices_mtu_comes_back_and_is_told(rig):
    driver = rig.driver("n1")
    rig.sh("n1", "ip link set egress.vxlan mtu 1300")
    word = driver.ask("drift", timeoutMs=NOTICED_MS)
    assert word["ok"] and "MTU of tunnel device egress.vxlan changed" in json.dumps(word), word
    assert rig.apply("n1")["n1"]["repaired"] == {"tunnel device": 1}
    assert not driver.ask("drift", timeoutMs=1500)["ok"], "told once"


def test_an_interface_that_refuses_a_program_fails_alone():
    """Somebody's filter has our priority for a protocol of its own; its interface comes before the pod's."""
    with Rig(nodes=2, datapath="ebpf", config={"attach": "clsact"}) as rig:
        rig.egress(7, EIP4, EIP6, owner="n2")
        rig.sh("n1", "ip link add bad type veth peer name worse; ip link set bad up; tc qdisc add dev bad clsact; "
                     "tc filter add dev bad ingress protocol ip pref 49000 bpf bytecode '1,6 0 0 0,'")
        pod = rig.pod("n1")
        rig.steer(pod, ALL)
        rig.apply("n2")
        driver = rig.driver("n1")
        answer = driver.ask("apply", change=rig.change("n1"))
        driver.must("sysctls")
        assert answer["ok"] and len(answer["failures"]) == 1 and "bad" in json.dumps(answer["failures"]), answer
        assert pod.source(4) == EIP4
        quiet(driver)
        late = rig.pod("n1")
        rig.steer(late, ALL)
        assert len(driver.ask("apply", change=rig.change("n1"))["failures"]) == 1
        assert late.source(6) == EIP6
        assert not driver.ask("drift", timeoutMs=1500)["ok"], "known already"
        rig.sh("n1", "tc filter del dev bad ingress pref 49000")
        rig.apply("n1")
        assert "egw_pod" in rig.sh("n1", "tc filter show dev bad ingress")


@pytest.mark.parametrize("what", ["read-only", "no bpffs", "a file", "no mount allowed"])
def test_probe_says_where_nothing_can_be_pinned(what, tmp_path):
    """So that `auto` goes on to the next datapath; and neither probe nor apply leaves a folder."""
    with Rig(nodes=1, datapath="ebpf", config={}) as rig:
        path = str(tmp_path / "somewhere")
        folder = {"no bpffs": path, "a file": path + "/below"}.get(what, "/sys/fs/bpf/egw")
        rig.datapaths = [("ebpf", {"pinPath": folder})] * 2
        if what == "read-only":
            rig.sh("n1", "mount -o remount,ro /sys/fs/bpf")
        elif what == "a file":
            with open(path, "w", encoding="ascii"):
                pass
        elif what == "no mount allowed":
            rig.sh("n1", "umount /sys/fs/bpf")
            # No bpffs is known there, whoever asks.
            rig.sh("n1", "mount -t tmpfs -o ro tmpfs /sys/fs")
        driver = rig.driver("n1")
        answer = driver.ask("probe", node=rig.node_config("n1"))
        bad = [f["message"] for f in answer["findings"] if f["code"] == "Bpffs" and not f["ok"] and not f["advisory"]]
        assert len(bad) == 1 and "pinPath" in bad[0], answer
        applied = driver.ask("apply", change=rig.change("n1"))
        assert not applied["ok"] and "pinPath" in json.dumps(applied), applied
        assert not os.path.isdir(path)


def test_probe_mounts_nothing():
    with Rig(nodes=1, datapath="ebpf", config={}) as rig:
        rig.sh("n1", "umount /sys/fs/bpf")
        answer = rig.driver("n1").must("probe", node=rig.node_config("n1"))
        assert any(f["code"] == "Bpffs" and f["ok"] for f in answer["findings"]), answer
        assert "egw" not in rig.sh("n1", "ls /sys/fs/bpf") and rig.sh("n1", "stat -f -c %T /sys/fs/bpf").strip() != "bpf_fs"
        rig.apply()
        assert "egw" in rig.sh("n1", "ls /sys/fs/bpf").split()


def steered(driver):
    counters = driver.must("counters")["counters"]
    return {k: v for k, v in counters.items() if k.startswith(("steered_packets", "class_packets"))}


@pytest.mark.parametrize("step", [False, True], ids=["full", "steps"])
def test_a_used_id_counts_from_zero(step):
    """An egress IP, and a class, that get a number which others had before."""
    with Rig(nodes=2, datapath="ebpf", config={}) as rig:
        rig.egress(7, EIP4, EIP6, owner="n2")
        pod = rig.pod("n1")
        rig.steer(pod, ALL + [("10.9.0.0/16", "drop")])
        rig.apply()
        for _ in range(5):
            assert pod.source(4) == EIP4
        driver = rig.driver("n1")
        counted = steered(driver)
        assert counted["steered_packets_total{egress=7}"] >= 5 and len(counted) >= 2, counted
        assert rig.apply("n1") and steered(driver) == counted, "a full apply keeps them"
        rig.restart("n1", kill=True)
        rig.apply("n1")
        driver = rig.driver("n1")
        assert steered(driver) == counted, "so does another process"
        rules = [("0.0.0.0/0", 7), ("::/0", 7), ("10.77.0.0/16", "drop")]
        if step:
            rig.delta("n1", deleted={"endpoints": [pod.ipv4, pod.ipv6]})
            rig.delta("n1", deleted={"egresses": [7], "classes": [1]})
            assert steered(driver) == {}
            del rig.egresses[7]
            rig.egress(7, "10.6.1.99", "fd00::99", owner="n2")
            new = next(e for e in rig.change("n1")["egresses"] if e["id"] == 7)
            rig.generations["n1"] = rig.generation - 1  # that change has not been applied
            rig.generation -= 1
            assert rig.delta("n1", egresses=[new], classes=[{"id": 2, "rules": [
                {"destination": d, **({"action": a} if isinstance(a, str) else {"action": "egress", "egressID": a})}
                for d, a in rules]}])["ok"]
        else:
            rig.endpoints.clear()
            rig.classes.clear()
            del rig.egresses[7]
            rig.apply("n1")
            assert steered(driver) == {}
            rig.egress(7, "10.6.1.99", "fd00::99", owner="n2")
            rig.steer(pod, rules)
            rig.apply("n1")
        assert steered(driver) == {}, "no packet has been sent since"


def test_watching_costs_little():
    """200 interfaces, each asked every second."""
    with Rig(nodes=1, datapath="ebpf", config={}) as rig:
        net.batch(rig.ns("n1"), *(f"link add x{k} type veth peer name y{k}" for k in range(100)))
        rig.apply()
        pid = rig.driver("n1").process.pid

        def cpu():
            with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        begin, start = cpu(), time.monotonic()
        time.sleep(5)  # what is measured is what passes by itself
        share = (cpu() - begin) / (time.monotonic() - start)
        print("figure", json.dumps({"test": "watching 200 interfaces", "cpu": share}))
        assert share < 0.005


def test_each_family_counts_its_own_classes():
    """Numbers of classes are given by family: one of IPv4 and another of IPv6 have the same."""
    with Rig(nodes=2, datapath="ebpf", config={}) as rig:
        rig.egress(7, EIP4, EIP6, owner="n2")
        four, six = rig.pod("n1"), rig.pod("n1")
        rig.steer(four, [*ALL, ("10.9.0.0/16", "drop")])
        rig.steer(six, [*ALL, ("fd09::/64", "drop")])
        rig.apply()
        assert four.source(4) == EIP4
        first = {k: v for k, v in steered(rig.driver("n1")).items() if k.startswith("class_")}
        assert len(first) == 1 and all("family=ipv4" in k for k in first), first
        assert [six.source(6) for _ in range(3)] == [EIP6] * 3
        both = {k: v for k, v in steered(rig.driver("n1")).items() if k.startswith("class_")}
        assert len(both) == 2 and both.items() >= first.items(), both
