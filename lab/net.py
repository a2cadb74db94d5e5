"""Network namespaces of the lab: made in batches, entered with nsenter, removed without a trace.

Called by cluster.py and by the network tests.
"""

import os
import subprocess

NETNS = "/run/netns"


def run(*args, stdin=None, check=True, timeout=60):
    """Runs a program and returns its stdout; a failure carries the program's own words."""
    done = subprocess.run(args, input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(args)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def exists(ns):
    return os.path.exists(f"{NETNS}/{ns}")


def make(*names):
    """Makes namespaces, with nothing set in them."""
    run("ip", "-batch", "-", stdin="".join(f"netns add {ns}\n" for ns in names))


def add(ns, *commands):
    """Makes a namespace with lo up and runs `ip` commands in it. IPv6 addresses skip DAD."""
    make(ns)
    enter(ns, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
    batch(ns, "link set lo up", *commands)


def batch(ns, *commands):
    """Runs several `ip` commands in a namespace in one process, all or an error."""
    if commands:
        run("ip", "-n", ns, "-batch", "-", stdin="\n".join(commands) + "\n")


def inside(ns, *args):
    """The command line that runs `args` inside the namespace, in the mount namespace of the caller."""
    return ["nsenter", f"--net={NETNS}/{ns}", "--", *args]


def enter(ns, *args, **kwargs):
    return run(*inside(ns, *args), **kwargs)


def sysctl(ns, **values):
    """sysctl(ns, net_ipv4_ip_forward=1): underscores that separate are written as double ones."""
    enter(ns, "sysctl", "-qw", *[f"{k.replace('__', '.')}={v}" for k, v in values.items()])


def veth(ns_a, name_a, ns_b, name_b):
    veths((ns_a, name_a, ns_b, name_b))


def veths(*pairs):
    """veths((ns_a, name_a, ns_b, name_b), ...): pairs of devices, each end in its namespace."""
    run("ip", "-batch", "-", stdin="".join(f"link add {a} netns {ns_a} type veth peer name {b} netns {ns_b}\n"
                                           for ns_a, a, ns_b, b in pairs))


def remove(*names):
    """Removes those of the namespaces that exist."""
    if there := [ns for ns in names if exists(ns)]:
        run("ip", "-force", "-batch", "-", stdin="".join(f"netns del {ns}\n" for ns in there), check=False)


def named(prefix):
    """Names of the existing namespaces that begin with `prefix`."""
    return sorted(n for n in os.listdir(NETNS) if n.startswith(prefix)) if os.path.isdir(NETNS) else []
