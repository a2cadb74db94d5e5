"""What a case of the conformance kit is, and how its assertions say what was seen.

    @case("path-source", "A pod's packets leave with the egress IP", node=NODES)
    def leaves_with_the_eip(rig, node): ...

A case is one requirement: an id, whose first word names its group, and one sentence. The keywords are axes; the
case runs once for each combination. A parameter `rig` is given a Rig of three nodes with egress 7 at n2, `pod` a
steered pod on n1 with everything programmed. What a case with alone=True judges runs while nothing else does: all of it,
or from its `yield` on. Used by kit.py and the modules in cases/.
"""

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import itertools
import sys

NODES = {"client": "n1", "owner": "n2", "standby": "n3"}
FAMILIES = {"IPv4": 4, "IPv6": 6}
POST_DNAT = 1 << 0  # EGW_CAP_POST_DNAT

CASES = {}  # id -> Case, in the order of definition


class Skip(Exception):
    """The case cannot run here; its text says why. Must stand in skips.txt."""


@dataclasses.dataclass
class Case:
    id: str
    sentence: str
    run: object
    axes: dict
    alone: bool  # it judges milliseconds: nothing else runs beside what it judges
    solo: bool   # of one plugin alone: not run with a mixed pair
    long: bool   # it takes several seconds: it begins first, so that none is left to wait for at the end

    @property
    def group(self):
        return self.id.split("-")[0]

    def variants(self):
        """name -> arguments; one without a name where there are no axes."""
        names = list(self.axes)
        choices = [list(a.items()) if isinstance(a, dict) else [(str(v), v) for v in a] for a in self.axes.values()]
        return {", ".join(n for n, _ in combination): dict(zip(names, (v for _, v in combination)))
                for combination in itertools.product(*choices)}

    def needs(self, what):
        return what in inspect.signature(self.run).parameters


def case(id_, sentence, /, alone=False, solo=False, long=False, **axes):
    def add(run):
        if id_ in CASES:
            raise ValueError(f"two cases are called {id_}")
        CASES[id_] = Case(id_, sentence, run, axes, alone, solo, long)
        return run
    return add


def skip(reason):
    raise Skip(reason)


@contextlib.contextmanager
def raises(kind):
    try:
        yield
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}, and nothing happened")


# ---- assertions that say what was seen -----------------------------------------------------------

def _short(value, limit=1200):
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."


def seen(text, values, message):
    """The words of a failed assertion: its own text, and the values of its two sides or of the whole."""
    words = " against ".join(_short(v) for v in values)
    return f"{text}: saw {words}" + ("" if message is None else f" ({_short(message)})")


class _Words(ast.NodeTransformer):
    """Turns `assert a == b, m` into an assertion that carries the values of a and b; each is evaluated once."""

    def visit_Assert(self, node):  # pylint: disable=invalid-name
        self.generic_visit(node)
        if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And):
            return [s for v in node.test.values
                    for s in self.visit_Assert(ast.copy_location(ast.Assert(v, node.msg), node))]
        test = node.test
        inner = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            parts = [test.left, test.comparators[0]]
        else:
            parts = [test.operand if inner else test]
        names = [f"__seen{i}" for i in range(len(parts))]
        loads = [ast.Name(n, ast.Load()) for n in names]
        if len(parts) == 2:
            again = ast.Compare(loads[0], test.ops, [loads[1]])
        else:
            again = ast.UnaryOp(ast.Not(), loads[0]) if inner else loads[0]
        words = ast.Call(ast.Name("__seen", ast.Load()),
                         [ast.Constant(ast.unparse(test)), ast.List(loads, ast.Load()),
                          node.msg or ast.Constant(None)], [])
        keep = [ast.Assign([ast.Name(n, ast.Store())], p) for n, p in zip(names, parts)]
        return [ast.fix_missing_locations(ast.copy_location(s, node)) for s in (*keep, ast.Assert(again, words))]


def load(path, name):
    """Imports a module of cases with its assertions made to speak."""
    with open(path, encoding="utf-8") as f:
        tree = _Words().visit(ast.parse(f.read(), path))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    module.__dict__["__seen"] = seen
    exec(compile(ast.fix_missing_locations(tree), path, "exec"), module.__dict__)  # pylint: disable=exec-used
    return module
