"""The traffic probe counts what the network loses, and not what it or its server is late to look at: on a busy
machine either may be kept from running for some hundred milliseconds."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from lab import net
from lab.cluster import build_dir

PROBE = os.path.join(build_dir(), "bin", "egw-probe")
PORT = 7000
SMALLEST = 500  # bytes that a queued datagram occupies, at least


@pytest.fixture(name="ns")
def fixture_ns():
    name = f"e2e-probe-{os.getpid()}"
    net.add(name)
    yield name
    net.remove(name)


@pytest.fixture(name="start")
def fixture_start(ns):
    """start(words...): a probe in the namespace, once it is ready."""
    running = []

    def start(*words):
        process = subprocess.Popen(net.inside(ns, PROBE, *words), stdout=subprocess.PIPE, text=True, cwd=ROOT)
        running.append(process)
        assert process.stdout.readline().strip() == "ready"
        return process

    yield start
    for process in running:
        process.kill()  # also one that is stopped
        process.wait()


def client(start):
    return start("client", "--to", "127.0.0.1", "--port", str(PORT))


def report(process):
    return json.loads(process.communicate(timeout=20)[0].splitlines()[-1])


def queued(server):
    """Bytes that wait at the server's UDP socket."""
    with open(f"/proc/{server.pid}/net/udp6", encoding="ascii") as f:
        sockets = [line.split() for line in f.readlines()[1:]]
    return next(int(s[4].split(":")[1], 16) for s in sockets if int(s[1].split(":")[1], 16) == PORT)


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_burst_of_answers_is_not_lost(start):
    """The server stands still while hundreds of datagrams come, and answers them while the client stands still."""
    server = start("server", "--port", str(PORT))
    traffic = client(start)
    server.send_signal(signal.SIGSTOP)
    until(lambda: queued(server) >= 1000 * SMALLEST)
    traffic.send_signal(signal.SIGSTOP)
    server.send_signal(signal.SIGCONT)
    until(lambda: queued(server) == 0)
    traffic.send_signal(signal.SIGCONT)
    traffic.terminate()
    result = report(traffic)
    assert result["sent"] > 400 and result["lost"] == 0, result


def test_answers_under_way_at_the_end_are_not_lost(start):
    server = start("server", "--port", str(PORT))
    traffic = client(start)
    server.send_signal(signal.SIGSTOP)
    until(lambda: queued(server) >= 300 * SMALLEST)
    traffic.terminate()
    time.sleep(0.2)  # a server that is late by that
    server.send_signal(signal.SIGCONT)
    result = report(traffic)
    assert result["sent"] > 100 and result["lost"] == 0, result


def test_what_comes_while_the_server_stands_still_is_counted(ns, start):
    server = start("server", "--port", str(PORT))
    server.send_signal(signal.SIGSTOP)
    net.enter(ns, sys.executable, "-c", f"""
import socket
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(20000):
    out.sendto(b"x", ("127.0.0.1", {PORT}))
""")
    server.terminate()
    server.send_signal(signal.SIGCONT)
    assert report(server)["sources"]["127.0.0.1"]["packets"] == 20000


def test_what_is_not_answered_is_lost(start):
    server = start("server", "--port", str(PORT))
    traffic = client(start)
    server.send_signal(signal.SIGSTOP)
    until(lambda: queued(server) >= 300 * SMALLEST)
    server.kill()
    server.wait()
    begin = time.monotonic()
    traffic.terminate()
    result = report(traffic)
    assert 100 < result["lost"] <= result["sent"], result
    assert result["gap_ms"] > 100 and time.monotonic() - begin < 5
