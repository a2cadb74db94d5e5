"""Runs a container of the chart without a kubelet: the rendered command line, environment, volumes, user and
capabilities, in a root folder of its own, with /proc/sys read-only as container runtimes mount it. Needs root.

usage: [ip netns exec NAME] unshare -m --propagation private container.py ROOT SPEC
ROOT: an empty folder. SPEC: JSON {argv, env, user, capabilities: [...], mounts: {path: source}, writable: [path]}
"""

import json
import os
import subprocess
import sys

IMAGE = ("/usr", "/bin", "/lib", "/lib64")  # what an image would bring


def bind(source, target, *more):
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a", encoding="ascii"):
            pass
    subprocess.run(["mount", "--rbind", source, target], check=True)
    if more:
        subprocess.run(["mount", "-o", "remount,bind," + ",".join(more), target], check=True)


def main():
    root, spec = sys.argv[1], json.loads(sys.argv[2])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", root], check=True)
    for folder in IMAGE:
        if os.path.islink(folder):
            os.symlink(os.readlink(folder), root + folder)
        else:
            bind(folder, root + folder)
    for folder in ("/proc", "/sys", "/dev"):
        bind(folder, root + folder)
    bind("/proc/sys", root + "/proc/sys", "ro")
    for path, source in spec["mounts"].items():
        if path == "/sys/fs/bpf":  # there already, in the machine's own /sys
            subprocess.run(["mount", "--bind", source, root + path], check=True)
            continue
        bind(source, root + path, "rw" if path in spec["writable"] else "ro")
    subprocess.run(["mount", "-o", "remount,ro", root], check=True)
    os.chroot(root)
    os.chdir("/")
    wanted = ",".join(["-all"] + ["+" + c.lower() for c in spec["capabilities"]])
    user = str(spec["user"])
    os.execvpe("/usr/bin/setpriv", ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs",
                                    "--bounding-set", wanted, "--inh-caps", wanted, *spec["argv"]], spec["env"])


main()
