"""Runs clang-tidy over the sources of the framework and the plugins, one process per core.

usage: tidy.py ROOT BUILD_DIR [--changed]
--changed: only the sources that the last commit or the working tree touches, for the short test run; all of them
take about ten CPU seconds each.
A file that has not changed since it last passed with the same configuration and headers is not looked at
again (stamps in BUILD_DIR/tidy, by the hash of the preprocessed text's inputs).
"""

import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys


def inputs_hash(root, source):
    """Hash of the source, of all headers of the tree and of the configuration."""
    digest = hashlib.sha256()
    for name in [source, os.path.join(root, ".clang-tidy")]:
        with open(name, "rb") as f:
            digest.update(f.read())
    return digest.hexdigest()


def headers_hash(root):
    digest = hashlib.sha256()
    for top in ("framework", "plugins"):
        for where, _, files in sorted(os.walk(os.path.join(root, top))):
            for name in sorted(files):
                if name.endswith((".h", ".hpp")):
                    with open(os.path.join(where, name), "rb") as f:
                        digest.update(f.read())
    return digest.hexdigest()


def tidy(build, source):
    done = subprocess.run(["clang-tidy-14", "--quiet", "-p", build, "--extra-arg=-Wno-unknown-warning-option",
                           source], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def changed(root):
    """Files that differ from the commit before the last, as full paths; none where there is no history."""
    done = subprocess.run(["git", "-C", root, "diff", "--name-only", "HEAD~1"], capture_output=True, text=True,
                          check=False)
    return {os.path.join(root, name) for name in done.stdout.splitlines()}


def main():
    root, build = sys.argv[1:3]
    stamps = os.path.join(build, "tidy")
    os.makedirs(stamps, exist_ok=True)
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        sources = sorted({e["file"] for e in json.load(f)
                          if e["file"].startswith((f"{root}/framework/", f"{root}/plugins/"))})
    if "--changed" in sys.argv[3:]:
        sources = sorted(set(sources) & changed(root))
    headers = headers_hash(root)
    todo = []
    for source in sources:
        stamp = os.path.join(stamps, hashlib.sha256((source + headers + inputs_hash(root, source)).encode()).hexdigest())
        if not os.path.exists(stamp):
            todo.append((source, stamp))
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (source, stamp), (code, text) in zip(todo, pool.map(lambda t: tidy(build, t[0]), todo)):
            if code != 0:
                print(text)
                bad += 1
            else:
                open(stamp, "w", encoding="ascii").close()
    print(f"clang-tidy: {len(todo)} of {len(sources)} files looked at, {bad} with findings")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
