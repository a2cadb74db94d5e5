"""A first apply that comes to nothing leaves nothing, with every datapath; the next one, when what was in the way has
gone, does it all."""

import os
import sys

import pytest

KIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "conformance")
sys.path[:0] = [os.path.abspath(KIT)]

import kernel  # noqa: E402  (the path must be set first)
from rig import ALL, EIP4, EIP6, Rig  # noqa: E402

# As many chains as the kernel takes at one hook.
FULL = ("{ echo 'table ip others {'; for i in $(seq 1024); do echo \"chain c$i { type filter hook prerouting priority $i; }\"; "
        "done; echo '}'; } | nft -f -")
ROOM = "nft delete table ip others"
# Case: datapath, its configuration, what stands in the way, how it goes.
CASES = {
    "netlink": ("netlink", {}, FULL, ROOM),
    "iptables": ("iptables", {"backendMode": "nft"}, FULL, ROOM),
    "iptables, lock": ("iptables", {"backendMode": "legacy"}, "setsid flock /run/xtables.lock sh -c 'echo $$ > /run/holder; "
                       "exec sleep 60' >/dev/null 2>&1 & until [ -s /run/holder ]; do :; done", "kill $(cat /run/holder)"),
    "ebpf": ("ebpf", {}, FULL, ROOM),
    "ebpf, nothing can be pinned": ("ebpf", {"pinPath": "/run/egw"}, "true", "mkdir /run/egw; mount -t bpf bpf /run/egw"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_first_apply_that_fails_leaves_nothing(case):
    datapath, config, obstacle, away = CASES[case]
    with Rig(nodes=2, datapath=datapath, config={}) as rig:
        rig.datapaths[0] = (datapath, config)
        rig.egress(7, EIP4, EIP6, owner="n2")
        pod = rig.pod("n1")
        rig.steer(pod, ALL)
        rig.apply("n2")
        rig.sh("n1", obstacle)
        files = rig.sh("n1", "find /run")
        before = kernel.snapshot(rig, "n1")
        answer = rig.driver("n1").ask("apply", change=rig.change("n1"))
        assert not answer["ok"], answer
        assert kernel.difference(before, kernel.snapshot(rig, "n1")) == {}
        assert rig.sh("n1", "find /run") == files
        rig.sh("n1", away)
        rig.apply("n1")
        assert [pod.source(4), pod.source(6)] == [EIP4, EIP6]
