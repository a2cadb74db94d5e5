"""The lab's commands: up, down, cut, quickstart."""

import argparse
import os
import signal
import sys

from lab import folder, quickstart
from lab.cluster import ROOT, STORES, Cluster, build_dir
from lab.process import undisturbed


def timeouts(text):
    """EVICTION/MONITOR/UPDATE in seconds, as in 15/5/5 -> (monitor, update, eviction)."""
    parts = [float(p) for p in text.split("/")]
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r}: want EVICTION/MONITOR/UPDATE, e.g. 15/5/5")
    return parts[1], parts[2], parts[0]


def datapath(name):
    """One that is built, or auto: an agent that ends at once would be seen in its log alone."""
    plugins = os.path.join(build_dir(), "lib", "egw", "plugins")
    there = sorted(f[len("egw-datapath-"):-len(".so")] for f in os.listdir(plugins) if f.startswith("egw-datapath-"))
    if name not in (*there, "auto"):
        raise argparse.ArgumentTypeError(f"{name!r}: want one of {', '.join(there)}, auto ({plugins})")
    return name


def up(args):
    if args.gateways > args.nodes:
        raise RuntimeError(f"--gateways {args.gateways}: there are only {args.nodes} nodes (--nodes)")
    cluster = Cluster.claim(args.name, nodes=args.nodes, gateways=args.gateways,
                            controllers=args.controllers, timeouts=args.timeouts, store=args.store,
                            settings=quickstart.settings_of(args))
    try:
        cluster.up()
        for i, node in enumerate(cluster.nodes):
            cluster.add_pod(f"pod{i + 1}", node, {"app": "shop"})
    except BaseException:
        with undisturbed():
            cluster.down()
        raise
    print(f"cluster {cluster.name}: nodes {' '.join(cluster.nodes)}, gateways {' '.join(cluster.gateways)}, "
          f"one pod labelled app=shop on each node")
    if args.store == "kube":
        print(f"  kubectl {cluster.store.kubectl} get egt -w")
    print(f"  verbs   {' '.join(cluster.store.verb('get', 'egt'))}")
    print(f"  EIPs    {' '.join(cluster.store.verb('apply', '-f', os.path.join(ROOT, 'config', 'manifests')))}")
    print(f"  a pod   nsenter --net=/run/netns/{cluster.ns('pod1')} {cluster.bin}/egw-probe once --to 10.6.0.100")
    print(f"  logs    {cluster.dir}/*.log")
    print(f"  end     lab/down {cluster.name}")


def down(args):
    there = folder.names()
    names = args.names or (there if args.all else ["lab"] if "lab" in there else sys.exit(
        f"lab/down: which cluster? {' '.join(there) or 'none runs'} (or --all)"))
    failed = False
    for name in names:
        try:
            Cluster.load(name).down()
            print(f"cluster {name} is gone", flush=True)
        except RuntimeError as e:
            print(f"lab/down: {e}", file=sys.stderr)
            failed = True
    sys.exit(1 if failed else 0)


def cut(args):
    cluster = Cluster.load(args.cluster)
    if args.node not in cluster.nodes:
        sys.exit(f"lab/cut: no node {args.node!r}; nodes: {' '.join(cluster.nodes)}")
    if args.restore:
        cluster.restore(args.node)
    elif args.store or args.uplink or args.both:
        cluster.cut(args.node, store=args.store or args.both, uplink=args.uplink or args.both)
    else:
        sys.exit("lab/cut: cut what? --store, --uplink or --both (or --restore)")


def store_option(parser):
    parser.add_argument("--store", choices=sorted(STORES), default="local",
                        help="local (default): a SQLite file. kube: a real etcd and kube-apiserver, built from Go "
                             "modules at first (11 min, Go 1.26), with the Helm chart installed, the processes of its "
                             "pods and kubectl as the user's tool")
    parser.add_argument("--datapath", type=datapath, default="netlink", help="netlink (default), iptables, ebpf or auto")


def main():
    parser = argparse.ArgumentParser(prog="lab")
    verbs = parser.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("up", prog="lab/up", description="Start a cluster that stays until lab/down.")
    p.add_argument("--name", default="lab", help="lab (default); a number is added when the name is taken")
    p.add_argument("--nodes", type=int, default=3, choices=range(1, 10), metavar="1..9")
    p.add_argument("--gateways", type=int, default=2, choices=range(0, 10), metavar="0..9", help="of the nodes, the last ones")
    p.add_argument("--controllers", type=int, default=2, choices=range(1, 21), metavar="1..20")
    p.add_argument("--timeouts", type=timeouts, default=(1, 1, 3),
                   help="EVICTION/MONITOR/UPDATE in seconds (default 3/1/1)")
    store_option(p)
    p.set_defaults(run=up)
    p = verbs.add_parser("down", prog="lab/down", description="Remove clusters and all that they left.")
    p.add_argument("names", nargs="*", metavar="NAME", help="the clusters' names (default: lab)")
    p.add_argument("--all", action="store_true", help="every cluster of this machine")
    p.set_defaults(run=down)
    p = verbs.add_parser("cut", prog="lab/cut", description="Cut a node from the store, from the network, or from both.")
    p.add_argument("node", metavar="NODE", help="n1, n2, ...")
    p.add_argument("--cluster", default="lab", metavar="NAME", help="lab (default)")
    p.add_argument("--store", action="store_true", help="its agent cannot reach the state store")
    p.add_argument("--uplink", action="store_true", help="its uplink has no carrier")
    p.add_argument("--both", action="store_true", help="--store and --uplink")
    p.add_argument("--restore", action="store_true", help="mend what was cut")
    p.set_defaults(run=cut)
    p = verbs.add_parser("quickstart", prog="lab/quickstart",
                         description="Show the whole story with real packets; exit code 0 only if all of it happened.")
    p.add_argument("--timeouts", type=timeouts, default=(1, 1, 3),
                   help="EVICTION/MONITOR/UPDATE in seconds (default 3/1/1)")
    p.add_argument("--keep", action="store_true", help="leave the cluster running")
    store_option(p)
    p.set_defaults(run=quickstart.main)
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit(f"lab/{args.verb}: network namespaces need root: run it as root")
    # A closed terminal or a kill is an exception like ctrl-C, so that everything is taken down.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    try:
        args.run(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, OSError) as e:
        sys.exit(f"lab/{args.verb}: {e}")


if __name__ == "__main__":
    main()
