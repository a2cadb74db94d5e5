"""Runs cases of the conformance kit in worker processes, each with rigs of its own, and leaves nothing behind.
Called by kit.py, which has set the environment that rig.py reads.

Cases that judge milliseconds run alone, after the others. A worker that takes longer than LIMIT for one variant is
ended and the variant has failed. A plugin that hangs is not waited for again and again: when HUNG seconds are lost with
it, what has not begun is not run.
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
from rig import ALL, EIP4, EIP6, PREFIX, Driver, Hangs, Rig, children, end_inside, net

LIMIT = 120  # s
HUNG = 25    # s: one apply, or a few of the shorter operations
_fork = multiprocessing.get_context("fork")


class CannotRun(Exception):
    """The plugin cannot be opened at all."""


def adopt_orphans():
    """What a plugin starts and leaves behind becomes a child of this process: it is found, wherever it went."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def end_orphans(known):
    """Ends every child that is not known, and what becomes a child by that."""
    while left := children() - known:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


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
            except (RuntimeError, ValueError) as error:
                driver.stop(kill=True)
                raise CannotRun(str(error)) from error
    return [{k: v for k, v in p.items() if k != "ok"} for p in out]


def place(error):
    """File and line of the case in which an error came up."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if os.sep + "cases" + os.sep in f.filename]
    return f" [{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}]" if frames else ""


def run_variant(case, values):
    """The result, what was seen, and who hung for how long."""
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
        return {"result": "pass", "seen": ""}
    except suite.Skip as reason:
        return {"result": "skip", "seen": str(reason)}
    except AssertionError as error:
        return {"result": "fail", "seen": (str(error) or "does not hold") + place(error)}
    except Hangs as error:
        return {"result": "fail", "seen": f"{error}{place(error)}", "hung": (f"{error.op} hangs", error.seconds)}
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # pylint: disable=broad-except
        return {"result": "fail", "seen": f"{type(error).__name__}: {error}{place(error)}"}


def _worker(pipe):
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: not without the kit
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the kit's own word ends it, once
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    adopt_orphans()
    while True:
        try:
            id_, name = pipe.recv()
        except EOFError:
            return
        case, begin, said = suite.CASES[id_], time.monotonic(), io.StringIO()
        with contextlib.redirect_stdout(said):
            result = run_variant(case, case.variants()[name])
        end_orphans(set())
        pipe.send({"id": id_, "name": name, **result, "seconds": time.monotonic() - begin,
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


def not_run(id_, name, reason):
    return {"id": id_, "name": name, "result": "fail", "seen": f"not run: {reason}", "seconds": 0.0, "figures": []}


def _batch(tasks, jobs, done):
    """Runs the tasks, the first ones first; done(result) for each. What it returns ends the run before the next task:
    the reason, which is then the result of all that have not begun."""
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
                    if late:
                        result["hung"] = ("a case has no end", LIMIT)
                w.task = None
                if reason := done(result):
                    for id_, name in tasks:
                        done(not_run(id_, name, reason))
                    tasks.clear()
    finally:
        for w in workers:
            w.end()


def run(cases, jobs):
    """case id -> results of its variants, in their order."""
    found, lost = {}, {}  # lost: what hung -> for how many seconds in all
    total = sum(len(c.variants()) for c in cases)

    def done(result):
        what, seconds = result.pop("hung", ("", 0.0))
        lost[what] = lost.get(what, 0.0) + seconds
        found[result["id"], result["name"]] = {k: v for k, v in result.items() if k != "id"}
        if sys.stderr.isatty():
            print(f"\r{len(found)} of {total}  {result['id']:<40}", end="", file=sys.stderr, flush=True)
        return max(lost, key=lost.get) if sum(lost.values()) >= HUNG else ""

    tasks = {alone: [(c.id, name) for c in cases if c.alone == alone for name in c.variants()] for alone in (False, True)}
    _batch(tasks[False], jobs, done)
    if sum(lost.values()) < HUNG:
        _batch(tasks[True], 1, done)
    else:
        for id_, name in tasks[True]:
            done(not_run(id_, name, max(lost, key=lost.get)))
    if sys.stderr.isatty():
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return {c.id: [found[c.id, name] for name in c.variants()] for c in cases}


def sweep(known):
    """Removes what workers that had to be ended have left; known: children that are not the kit's."""
    if not PREFIX.startswith("kit"):
        raise RuntimeError("only the kit's own namespaces may be swept")
    left = net.named(PREFIX)
    end_inside(left)
    end_orphans(known)
    for ns in left:
        net.remove(ns)
    for folder in glob.glob(os.path.join(tempfile.gettempdir(), f"egw-rig-{PREFIX}*")):
        shutil.rmtree(folder, ignore_errors=True)
