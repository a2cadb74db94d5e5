"""Runs clang-tidy over the sources of the framework and the plugins, one process per core.

usage: tidy.py ROOT BUILD_DIR [--changed]
Sources that the build compiles as one are looked at as one: headers are read once.
--changed: only the sources that the last commit or the working tree touches, each alone, for the short test run; it
shows, too, that they can be compiled alone.
What has not changed since it last passed with the same configuration and headers is not looked at again (stamps in
BUILD_DIR/tidy, by the hash of the preprocessed text's inputs).
"""

import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys

# Of a source in a batch it would say that it is included.
ARGUMENTS = ["--quiet", "--extra-arg=-Wno-unknown-warning-option", "--checks=-bugprone-suspicious-include"]


def digest_of(paths):
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as f:
            digest.update(f.read())
    return digest.hexdigest()


def headers(root):
    return [os.path.join(where, name) for top in ("framework", "plugins")
            for where, _, files in sorted(os.walk(os.path.join(root, top)))
            for name in sorted(files) if name.endswith((".h", ".hpp"))]


def parts_of(unit):
    """The sources that are compiled with this one: of a batch those it includes."""
    if "/Unity/" not in unit:
        return [unit]
    with open(unit, encoding="utf-8") as f:
        return re.findall(r'#include "(.*)"', f.read())


def units_of(root, build):
    """Compile commands of the framework and the plugins, as {unit: (entry, [source])}."""
    tops = tuple(f"{base}/{top}/" for base in (root, build) for top in ("framework", "plugins"))
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        entries = [e for e in json.load(f) if e["file"].startswith(tops)]
    return {e["file"]: (e, parts_of(e["file"])) for e in entries}


def changed(root):
    """Files that differ from the commit before the last, as full paths; none where there is no history."""
    done = subprocess.run(["git", "-C", root, "diff", "--name-only", "HEAD~1"], capture_output=True, text=True,
                          check=False)
    return {os.path.join(root, name) for name in done.stdout.splitlines()}


def alone(units, wanted, folder):
    """Writes commands that compile each of the wanted sources alone; returns those sources."""
    commands = []
    for unit, (entry, sources) in units.items():
        for source in sorted(set(sources) & wanted):
            commands.append(dict(entry, file=source, command=entry["command"].replace(unit, source)))
    with open(os.path.join(folder, "compile_commands.json"), "w", encoding="utf-8") as f:
        json.dump(commands, f)
    return {c["file"]: [c["file"]] for c in commands}


def tidy(commands, unit):
    done = subprocess.run(["clang-tidy-14", *ARGUMENTS, "-p", commands, unit], capture_output=True, text=True,
                          check=False)
    return done.returncode, done.stdout


def main():
    root, build = sys.argv[1:3]
    stamps = os.path.join(build, "tidy")
    os.makedirs(stamps, exist_ok=True)
    units = units_of(root, build)
    commands, looked_at = build, {unit: sources for unit, (_, sources) in units.items()}
    if "--changed" in sys.argv[3:]:
        commands, looked_at = stamps, alone(units, changed(root), stamps)
    common = digest_of([*headers(root), os.path.join(root, ".clang-tidy")])
    todo = []
    for unit, sources in sorted(looked_at.items()):
        name = hashlib.sha256((unit + common + digest_of(sources)).encode()).hexdigest()
        if not os.path.exists(os.path.join(stamps, name)):
            todo.append((unit, os.path.join(stamps, name)))
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (_, stamp), (code, text) in zip(todo, pool.map(lambda t: tidy(commands, t[0]), todo)):
            if code != 0:
                print(text)
                bad += 1
            else:
                open(stamp, "w", encoding="ascii").close()
    print(f"clang-tidy: {len(todo)} of {len(looked_at)} units looked at, {bad} with findings; "
          f"{sum(len(sources) for sources in looked_at.values())} sources")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
