"""SIGTERM to an agent whose datapath plugin does not come back ends it within 10 s."""

import signal
import time

from conftest import EIP4, result_line
from hung import arp_answer, cluster_with_a_gate


def test_sigterm_ends_an_agent_whose_datapath_hangs(make_cluster, tmp_path):
    cluster, hang = cluster_with_a_gate(make_cluster, tmp_path)
    answering = arp_answer(cluster, EIP4)
    assert answering is not None
    hang()
    before = cluster.get("egt", "n2")["status"]["lastHeartbeatTime"]
    tunnel, _ = cluster.wait("egt", "n2", lambda t: t["status"]["lastHeartbeatTime"] != before, 5)
    assert tunnel["status"]["phase"] == "Ready"
    assert arp_answer(cluster, EIP4) == answering, "the announcer waits for the plugin"
    took = cluster.agent("n2").stop(signal.SIGTERM, timeout=12)
    result_line("SIGTERM with a hung datapath", s=round(took, 2))
    assert took <= 10, f"the agent ended after {took:.1f} s"
    begin = time.monotonic()
    cluster.wait("egw", "egw", lambda g: any(n["name"] == "n3" and n.get("eips") for n in g["status"]["nodeList"]))
    assert time.monotonic() - begin <= 5
