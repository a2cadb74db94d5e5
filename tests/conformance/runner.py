"""Runs cases of the conformance kit in worker processes, each with rigs of its own, and leaves nothing behind.
Called by kit.py, which has set the environment that rig.py reads.

Cases that judge milliseconds come after the others: some get ready side by side, then each in turn is judged alone, while
the others stand still, then they clear up side by side. A worker that takes longer than LIMIT for one variant is
ended and the variant has failed. A plugin that hangs is not waited for again and again: when HUNG seconds are lost with
it, what has not begun is not run.
"""

import contextlib
import ctypes
import glob
import inspect
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


class Turn:
    """In a worker: what is done within is done alone. The kit gives the word for it, and for going on after it."""

    def __init__(self, pipe):
        self.pipe, self.stood = pipe, 0.0  # s

    def _stand(self, word):
        begin = time.monotonic()
        try:
            self.pipe.send(word)
            self.pipe.recv()
        except (EOFError, OSError):
            sys.exit(1)  # the kit ends
        self.stood += time.monotonic() - begin

    def __enter__(self):
        self._stand("ready")

    def __exit__(self, kind, *_):
        if kind is not SystemExit:
            self._stand("judged")


def run_variant(case, values, turn):
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
            if inspect.isgeneratorfunction(case.run):
                steps = case.run(**given)
                next(steps)
                with turn:
                    for _ in steps:
                        raise RuntimeError("a case yields once: where it begins to judge")
            else:
                with turn:
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
        turn = Turn(pipe)
        with contextlib.redirect_stdout(said):
            result = run_variant(case, case.variants()[name], turn if case.alone else contextlib.nullcontext())
        end_orphans(set())
        pipe.send({"id": id_, "name": name, **result, "seconds": time.monotonic() - begin - turn.stood,
                   "figures": [line for line in said.getvalue().splitlines() if line.startswith("figure {")]})


class Worker:
    def __init__(self):
        self.pipe, other = _fork.Pipe()
        self.process = _fork.Process(target=_worker, args=(other,), daemon=True)
        self.process.start()
        other.close()
        self.task, self.since, self.standing = None, 0.0, ""
        self.lost = False  # it hangs, or it died

    def give(self, task):
        self.task = task
        self.go_on(task)

    def go_on(self, word):
        """standing: "ready" or "judged" while it waits for this."""
        self.since, self.standing = time.monotonic(), ""
        with contextlib.suppress(OSError):  # it has died: so says its pipe
            self.pipe.send(word)

    def hear(self, ready):
        """Its result; None when it has none yet. ready: the pipes that have something."""
        late = not self.standing and time.monotonic() - self.since > LIMIT
        if self.pipe in ready:
            with contextlib.suppress(EOFError, ConnectionResetError):
                word = self.pipe.recv()
                if isinstance(word, dict):
                    return word
                self.standing = word
                return None
        elif not late:
            return None
        self.lost = True
        return {"id": self.task[0], "name": self.task[1], "result": "fail", "seconds": time.monotonic() - self.since,
                "figures": [], "seen": "the case's process died" if self.pipe in ready else f"no end after {LIMIT} s",
                **({} if self.pipe in ready else {"hung": ("a case has no end", LIMIT)})}

    def end(self):
        self.pipe.close()
        self.process.terminate()
        self.process.join(15)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def not_run(id_, name, reason):
    return {"id": id_, "name": name, "result": "fail", "seen": f"not run: {reason}", "seconds": 0.0, "figures": []}


def _next_turn(busy):
    """When all that are at work stand still, one goes on to be judged; after the last one all go on to clear up."""
    if all(w.standing for w in busy):
        ready = [w for w in busy if w.standing == "ready"]
        for w in ready[:1] or busy:
            w.go_on("alone" if ready else "on")


def _batch(tasks, jobs, done):
    """Runs the tasks, the first ones first; done(result) for each. What it returns ends the run before the next task:
    the reason, which is then the result of all that have not begun."""
    workers, tasks = [Worker() for _ in range(min(jobs, len(tasks)))], list(tasks)
    try:
        while tasks or any(w.task for w in workers):
            for w in workers:
                if w.task is None and tasks:
                    w.give(tasks.pop(0))
            busy = [w for w in workers if w.task]
            _next_turn(busy)
            ready = multiprocessing.connection.wait([w.pipe for w in busy], timeout=1)
            for w in busy:
                if (result := w.hear(ready)) is None:
                    continue
                w.task = None
                if w.lost:
                    w.end()
                    workers[workers.index(w)] = Worker()
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

    tasks = {alone: [(c.id, name) for c in sorted(cases, key=lambda c: not c.long) if c.alone == alone for name in c.variants()]
             for alone in (False, True)}
    _batch(tasks[False], jobs, done)
    if sum(lost.values()) < HUNG:
        _batch(tasks[True], jobs, done)
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
