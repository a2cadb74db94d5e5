"""Finds two constructs that g++ 12 compiles wrongly: a capturing lambda or a braced aggregate built inside
a `co_await` expression, and a capturing lambda given to co_spawn as the coroutine itself (its captures die
with the full expression).

usage: coroutines.py FOLDER...
"""

import os
import re
import sys

AWAIT_WITH_LAMBDA = re.compile(r"co_await\b[^;]*?\[[^\]\s][^\]]*\]\s*(\(|\{|mutable)")
AWAIT_WITH_BRACES = re.compile(r"co_await\b[^;{}]*[(,]\s*(?:[A-Za-z_:]+\s*)?\{[^}]")
SPAWN_WITH_LAMBDA = re.compile(r"co_spawn\s*\([^;]*?\[[^\]\s][^\]]*\][^;]*?->\s*(?:boost::)?(?:asio::)?awaitable")


def faults(text):
    for pattern, words in ((AWAIT_WITH_LAMBDA, "a capturing lambda inside a co_await expression"),
                           (AWAIT_WITH_BRACES, "a braced aggregate inside a co_await expression"),
                           (SPAWN_WITH_LAMBDA, "a capturing lambda as the coroutine of co_spawn")):
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, words


def main():
    bad = 0
    for folder in sys.argv[1:]:
        for where, _, files in os.walk(folder):
            for name in sorted(files):
                if not name.endswith((".cpp", ".hpp")):
                    continue
                path = os.path.join(where, name)
                with open(path, encoding="utf-8") as f:
                    text = re.sub(r"//[^\n]*", "", f.read())
                for line, words in faults(text):
                    print(f"{path}:{line}: {words}: name the object first, then std::move it")
                    bad += 1
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
