"""Runs cases of the conformance kit in worker processes, each with rigs of its own, and leaves nothing behind.
Called by kit.py, which has set the environment that rig.py reads.

Cases that judge milliseconds run alone, after the others. A worker that takes longer than LIMIT for one variant is
ended and the variant has failed.
"""

import contextlib
import ctypes
import glob
import io
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback

import suite
from rig import ALL, EIP4, EIP6, PREFIX, Driver, Rig, end_inside, net

LIMIT = 120  # s
_fork = multiprocessing.get_context("fork")


class CannotRun(Exception):
    """The plugin cannot be opened at all."""


def introduce(libraries):
    """Who the plugins are: opens each once."""
    import rig as settings  # pylint: disable=import-outside-toplevel
    out = []
    for i, library in enumerate(libraries):
        with tempfile.TemporaryDirectory(prefix="egw-rig-") as folder:
            driver = Driver(library, [], os.path.join(folder, "state"), os.path.abspath(library),
                            settings.GATEWAY_CONFIG if i else settings.CONFIG)
            try:
                out.append({**driver.must("plugin"), "file": library})
                driver.stop()
            except RuntimeError as error:
                driver.stop(kill=True)
                raise CannotRun(str(error)) from error
    return [{k: v for k, v in p.items() if k != "ok"} for p in out]


def place(error):
    """File and line of the case in which an error came up."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if os.sep + "cases" + os.sep in f.filename]
    return f" [{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}]" if frames else ""


def run_variant(case, values):
    """(result, what was seen)."""
    try:
        with contextlib.ExitStack() as stack:
            given = dict(values)
            if case.needs("rig"):
                rig = stack.enter_context(Rig(nodes=3))
                rig.egress(7, EIP4, EIP6, owner="n2")
                given["rig"] = rig
                if case.needs("pod"):
                    given["pod"] = rig.pod("n1")
                    rig.steer(given["pod"], ALL)
                    rig.apply()
            case.run(**given)
        return "pass", ""
    except suite.Skip as reason:
        return "skip", str(reason)
    except AssertionError as error:
        return "fail", (str(error) or "does not hold") + place(error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # pylint: disable=broad-except
        return "fail", f"{type(error).__name__}: {error}{place(error)}"


def _worker(pipe):
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: not without the kit
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the kit's own word ends it, once
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    while True:
        try:
            id_, name = pipe.recv()
        except EOFError:
            return
        case, begin, said = suite.CASES[id_], time.monotonic(), io.StringIO()
        with contextlib.redirect_stdout(said):
            result, seen = run_variant(case, case.variants()[name])
        pipe.send({"id": id_, "name": name, "result": result, "seen": seen, "seconds": time.monotonic() - begin,
                   "figures": [line for line in said.getvalue().splitlines() if line.startswith("figure {")]})


class Worker:
    def __init__(self):
        self.pipe, other = _fork.Pipe()
        self.process = _fork.Process(target=_worker, args=(other,), daemon=True)
        self.process.start()
        other.close()
        self.task, self.since = None, 0.0

    def give(self, task):
        self.task, self.since = task, time.monotonic()
        self.pipe.send(task)

    def end(self):
        self.pipe.close()
        self.process.terminate()
        self.process.join(15)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _batch(tasks, jobs, done):
    """Runs the tasks, the first ones first; done(result) for each."""
    workers, tasks = [Worker() for _ in range(min(jobs, len(tasks)))], list(tasks)
    try:
        busy = {}
        while tasks or busy:
            for i, w in enumerate(workers):
                if w.task is None and tasks:
                    w.give(tasks.pop(0))
                    busy[w.pipe] = i
            ready = multiprocessing.connection.wait(list(busy), timeout=1)
            for pipe in list(busy):
                i = busy[pipe]
                w, late = workers[i], time.monotonic() - workers[busy[pipe]].since > LIMIT
                if pipe not in ready and not late:
                    continue
                del busy[pipe]
                try:
                    result = pipe.recv() if pipe in ready else None
                except EOFError:
                    result = None
                if result is None:  # it hangs, or it died
                    w.end()
                    workers[i] = Worker()
                    result = {"id": w.task[0], "name": w.task[1], "result": "fail", "seconds": time.monotonic() - w.since,
                              "figures": [], "seen": f"no end after {LIMIT} s" if late else "the case's process died"}
                w.task = None
                done(result)
    finally:
        for w in workers:
            w.end()


def run(cases, jobs):
    """case id -> results of its variants, in their order."""
    found = {}
    total = sum(len(c.variants()) for c in cases)

    def done(result):
        found[result["id"], result["name"]] = {k: v for k, v in result.items() if k != "id"}
        if sys.stderr.isatty():
            print(f"\r{len(found)} of {total}  {result['id']:<40}", end="", file=sys.stderr, flush=True)

    tasks = {alone: [(c.id, name) for c in cases if c.alone == alone for name in c.variants()] for alone in (False, True)}
    _batch(tasks[False], jobs, done)
    _batch(tasks[True], 1, done)
    if sys.stderr.isatty():
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return {c.id: [found[c.id, name] for name in c.variants()] for c in cases}


def sweep():
    """Removes what workers that had to be ended have left."""
    if not PREFIX.startswith("kit"):
        raise RuntimeError("only the kit's own namespaces may be swept")
    left = net.named(PREFIX)
    end_inside(left)
    for ns in left:
        net.remove(ns)
    for folder in glob.glob(os.path.join(tempfile.gettempdir(), f"egw-rig-{PREFIX}*")):
        shutil.rmtree(folder, ignore_errors=True)
