"""The clusters of this machine: each has a name, and a folder below RUN with the record of what it made.

Used by cluster.py and by the commands. A folder without a record is nobody's: it is neither read nor removed. The record
is there from the folder's first moment to its last, so that `lab/down` can end whatever was interrupted.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil

RUN = "/run/egw-lab"
RECORD = "cluster.json"
LONGEST = 32
NAME = re.compile("[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def checked(name):
    """The name, if a cluster may have it: it is part of paths and of the names of network namespaces."""
    if len(name) > LONGEST or not NAME.fullmatch(name):
        raise RuntimeError(f"{name!r} is no name for a cluster: it has 1 to {LONGEST} characters, of a-z, 0-9 and '-', "
                           "and begins and ends with a letter or digit")
    return name


def path_of(name):
    return os.path.join(RUN, checked(name))


def names():
    """Of the folders that may be clusters."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(e.name for e in os.scandir(RUN) if e.is_dir(follow_symlinks=False) and NAME.fullmatch(e.name))
    return []


@contextlib.contextmanager
def locked():
    """Held while a name is taken, of a cluster or of a network namespace."""
    os.makedirs(RUN, mode=0o755, exist_ok=True)
    with open(os.path.join(RUN, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(name, record):
    """Makes the cluster's folder, with its record, at one stroke. Under locked()."""
    unborn = os.path.join(RUN, ".new")
    shutil.rmtree(unborn, ignore_errors=True)
    os.makedirs(unborn, mode=0o700)
    write(unborn, record)
    os.rename(unborn, path_of(name))


def write(path, record):
    new = os.path.join(path, RECORD + ".new")
    with open(new, "w", encoding="utf-8") as f:
        json.dump(record, f)
    os.replace(new, os.path.join(path, RECORD))


def read(name):
    """The record of the cluster of that name; no link is followed on the way to it."""
    path = path_of(name)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError as e:
        raise RuntimeError(f"no cluster named {name!r} runs here; those that do: {' '.join(names()) or 'none'}") from e
    except OSError as e:
        raise RuntimeError(f"{path} is no folder, so it is no cluster's: nothing was touched") from e
    try:
        with open(RECORD, encoding="utf-8",
                  opener=lambda file, flags: os.open(file, flags | os.O_NOFOLLOW, dir_fd=folder)) as f:
            record = json.load(f)
        if not isinstance(record, dict) or record.get("name", name) != name:
            raise ValueError("it is another cluster's")
        return record
    except (OSError, ValueError) as e:
        raise RuntimeError(f"{path} is not known to be a cluster's: {RECORD} in it cannot be used ({e}); nothing was touched. "
                           "Remove it by hand if you know it") from e
    finally:
        os.close(folder)


def remove(name):
    """Removes the cluster's folder, its record last."""
    path = path_of(name)
    for entry in list(os.scandir(path)) if os.path.isdir(path) else []:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        elif entry.name != RECORD:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)
    if set(os.listdir(path) if os.path.isdir(path) else []) <= {RECORD}:
        shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        raise RuntimeError(f"{path} could not be removed; is a file system mounted there? lab/down {name} tries again")
