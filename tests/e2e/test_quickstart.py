"""The quickstart itself, two at once, and what it leaves: nothing."""

import os
import signal
import subprocess
import sys
import time

from conftest import ROOT
from lab import net
from lab.folder import RUN


def quickstart():
    return subprocess.Popen([sys.executable, "-m", "lab.main", "quickstart"], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def left():
    folders = os.listdir(RUN) if os.path.isdir(RUN) else []
    return net.named("quickstart"), [f for f in folders if f.startswith("quickstart")]


def test_two_at_once_succeed_and_leave_nothing():
    both = [quickstart(), quickstart()]
    outputs = [p.communicate(timeout=240)[0] for p in both]
    for p, output in zip(both, outputs):
        assert p.returncode == 0, output
        for words in ("HeartbeatTimeout", "owner", "standby gateway", "plain node", "gap", "the leader is"):
            assert words in output
    assert left() == ([], [])


def test_ctrl_c_leaves_nothing():
    p = quickstart()
    for line in p.stdout:
        if "before any policy" in line:
            break
    time.sleep(0.2)
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    assert p.returncode != 0
    assert left() == ([], [])
