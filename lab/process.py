"""Processes of the lab: started in a namespace, known by pid and start time, ended by exactly that.

A pid alone may have been reused by the time it is signalled; the start time in /proc/PID/stat tells.
"""

import contextlib
import json
import os
import select
import signal
from signal import SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM
import subprocess
import time

from lab import net


ENDING = (SIGINT, SIGTERM, SIGHUP)  # ctrl-C, a kill, a closed terminal


@contextlib.contextmanager
def undisturbed():
    """What is done here is not ended by another ctrl-C, nor are the programs that it runs."""
    before = [signal.signal(number, signal.SIG_IGN) for number in ENDING]
    try:
        yield
    finally:
        for number, handler in zip(ENDING, before):
            signal.signal(number, handler)


def start_time(pid, dead=False):
    """The process' start time in clock ticks since boot, None if it does not run (dead: a zombie counts)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" and not dead else int(fields[19])


class Process:
    """A background process with its record in `record` and its output in `log`."""

    def __init__(self, record):
        self.record = record
        self.pid, self.started = 0, None
        if os.path.exists(record):
            with open(record, encoding="ascii") as f:
                self.pid, self.started = json.load(f)

    def start(self, ns, args, log):
        if self.running():
            raise RuntimeError(f"{self.record}: runs already as pid {self.pid}")
        with open(log, "ab") as out:
            child = subprocess.Popen(net.inside(ns, *args), stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=out, start_new_session=True)
        self.pid, self.started = child.pid, start_time(child.pid)
        with open(self.record, "w", encoding="ascii") as f:
            json.dump([self.pid, self.started], f)
        return self

    def running(self):
        return self.started is not None and start_time(self.pid) == self.started

    def signal(self, number):
        if self.running():
            os.kill(self.pid, number)

    def wait(self, timeout):
        """True when the process has ended within `timeout` seconds."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return True
        try:
            if start_time(self.pid, dead=True) != self.started:
                return True
            # A zombie's other threads may still be closing their files: only the pidfd knows the end.
            ended = bool(select.select([fd], [], [], timeout)[0])
        finally:
            os.close(fd)
        if ended:
            try:
                os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pass
        return ended

    def stop(self, number=SIGTERM, timeout=12):
        """Ends the process; with SIGKILL if it does not go by itself. Returns the seconds it took."""
        begin = time.monotonic()
        if self.running():
            self.signal(number)
            if number == SIGSTOP:
                return 0.0
            if not self.wait(timeout):
                self.signal(SIGKILL)
                self.wait(5)
        if os.path.exists(self.record):
            os.unlink(self.record)
        self.pid, self.started = 0, None
        return time.monotonic() - begin
