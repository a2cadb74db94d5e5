"""lab/quickstart: the whole story with real packets. Every step checks what it shows; the first step
that does not hold ends it with exit 1."""

import os
import signal
import sys
import time

from lab.cluster import ROOT, Cluster
from lab.process import undisturbed

MANIFESTS = os.path.join(ROOT, "config", "manifests")
EIP4, EIP6 = "10.6.1.56", "fd00::55"


class Story:
    def __init__(self, cluster):
        self.cluster, self.failed = cluster, []

    def say(self, text=""):
        print(text, flush=True)

    def step(self, text):
        self.say(f"\n== {text}")

    def check(self, ok, text):
        self.say(f"   {'ok  ' if ok else 'FAIL'} {text}")
        if not ok:
            raise SystemExit(f"quickstart: this did not happen: {text}")

    def show(self, *args):
        """Runs what a user would: kubectl where there is one, else egw, which takes the same words."""
        kube = self.cluster.store.name == "kube"
        self.say(f"   $ {'kubectl' if kube else 'egw'} {' '.join(args)}")
        shown = self.cluster.store.run_kubectl(*args) if kube else self.cluster.egw(*args).stdout
        for line in shown.splitlines():
            self.say(f"     {line}")

    def sources(self, expect, what):
        """Asks from every pod, both families, which source the server sees. expect(pod, family)."""
        for pod, info in self.cluster.pods.items():
            for family in (4, 6):
                seen = self.cluster.source(pod, family)
                self.check(seen == expect(pod, family),
                           f"{what}: {pod} on {info['node']} ({self.role(info['node'])}) leaves as {seen}")

    def role(self, node):
        if node not in self.cluster.gateways:
            return "plain node"
        return "owner" if self.cluster.owner("egw", EIP4) == node else "standby gateway"


def eip(_pod, family):
    return EIP4 if family == 4 else EIP6


def settle(cluster, timeout=15):
    """Waits until every tunnel is Ready."""
    for node in cluster.nodes:
        cluster.wait("egt", node, lambda t: t.get("status", {}).get("phase") == "Ready", timeout)


def wait_eip(cluster, pod, timeout=10):
    begin = time.monotonic()
    while time.monotonic() - begin < timeout:
        if cluster.source(pod, 4, 0.2) == EIP4 and cluster.source(pod, 6, 0.2) == EIP6:
            return
    raise TimeoutError(f"{pod} does not leave as {EIP4} and {EIP6} within {timeout} s")


def serve_shop(cluster):
    """On the kube store: a pod app=shop on each node, and the gateway and policy of the quickstart for them, in force."""
    for i, node in enumerate(cluster.nodes):
        cluster.add_pod(f"pod{i + 1}", node, {"app": "shop"})
    for name in ("egressgateway", "egresspolicy"):
        cluster.store.run_kubectl("apply", "-f", os.path.join(MANIFESTS, name + ".yaml"))
    wait_eip(cluster, "pod1")


def failover(story, cluster, pod, what, action, limit_s):
    """Runs traffic through `action`, which takes the owner away; returns the old and the new owner."""
    old = cluster.owner("egw", EIP4)
    t4, t6 = cluster.traffic(pod, 4, streams=4), cluster.traffic(pod, 6)
    time.sleep(0.3)  # traffic before the fault, for the gap to have a beginning
    begin = time.monotonic()
    action(old)
    status, _ = cluster.wait("egw", "egw", lambda g: owner_moved(g, old), limit_s + 5)
    wait_eip(cluster, pod, limit_s + 5)
    story.say(f"   {what}: {old} lost its EIP after {time.monotonic() - begin:.1f} s")
    time.sleep(0.5)  # traffic after it, to see that it stays
    r4, r6 = t4.stop(), t6.stop()
    for family, r, address in ((4, r4, EIP4), (6, r6, EIP6)):
        seen = sorted({s["source"] for s in r["sources"]})
        story.check(seen == [address], f"IPv{family}: sources seen by the server during it: {' '.join(seen)}")
        story.check(r["gap_ms"] <= limit_s * 1000,
                    f"IPv{family}: gap {r['gap_ms']:.0f} ms (limit {limit_s * 1000:.0f} ms), "
                    f"{r['lost']} of {r['sent']} datagrams lost"
                    + (f", {r['tcp_resets']} of {r['tcp_streams']} TCP streams reset" if r["tcp_streams"] else ""))
    return old, cluster.owner("egw", EIP4)


def owner_moved(gateway, old):
    owners = {n["name"] for n in gateway.get("status", {}).get("nodeList", []) if n.get("eips")}
    return bool(owners) and old not in owners


def leader(cluster):
    """The controller that leads now, and its term."""
    status = cluster.get("egci", "default")["status"]
    return status["leader"], status["term"]


def settings_of(args):
    """The same keys in a configuration and in the chart's values."""
    return {"plugins": {"datapath": {"name": args.datapath}}}


def main(args):
    cluster = Cluster.claim("quickstart", nodes=4, gateways=3, controllers=2, timeouts=args.timeouts,
                            store=args.store, settings=settings_of(args))
    story = Story(cluster)
    begin = time.monotonic()
    try:
        tell(story, cluster, args.timeouts)
        story.say(f"\nquickstart: all of it happened, in {time.monotonic() - begin:.0f} s")
    except (SystemExit, Exception):
        keep_logs(cluster)
        raise
    finally:
        if args.keep:
            story.say(f"the cluster goes on: lab/down {cluster.name} ends it")
        else:
            with undisturbed():
                cluster.down()


def keep_logs(cluster):
    """After a failure: the last words of every process."""
    for name in sorted(os.listdir(cluster.dir)) if os.path.isdir(cluster.dir) else []:
        if name.endswith(".log"):
            with open(os.path.join(cluster.dir, name), encoding="utf-8", errors="replace") as f:
                lines = f.read().splitlines()[-25:]
            print(f"--- {name}\n" + "\n".join(lines), file=sys.stderr)


def tell(story, cluster, timeouts):
    monitor, _, evict = timeouts
    limit = evict + monitor + 0.5

    story.step(f"a cluster: nodes {' '.join(cluster.nodes)}; gateways {' '.join(cluster.gateways)}; two controllers")
    cluster.up()
    settle(cluster)
    story.show("get", "egt")
    for i, node in enumerate(cluster.nodes):
        cluster.add_pod(f"pod{i + 1}", node, {"app": "shop"})

    story.step("before any policy the server sees the pods' own addresses")
    story.sources(lambda pod, f: cluster.pods[pod]["ipv4" if f == 4 else "ipv6"], "before")

    story.step("a gateway and a policy")
    story.show("apply", "-f", os.path.join(MANIFESTS, "egressgateway.yaml"))
    story.show("apply", "-f", os.path.join(MANIFESTS, "egresspolicy.yaml"))
    cluster.wait("egw", "egw", lambda g: any(n.get("eips") for n in g.get("status", {}).get("nodeList", [])))
    wait_eip(cluster, "pod1")
    story.show("get", "egw")
    story.show("get", "egp", "-A")
    story.sources(eip, "with the policy")

    story.step("the owner's node is powered off: its processes are killed, its link is gone")
    old, new = failover(story, cluster, "pod1", "power off", cluster.power_off, limit)
    tunnel, _ = cluster.wait("egt", old, lambda t: t.get("status", {}).get("phase") == "HeartbeatTimeout")
    story.show("get", "egt")
    story.check(tunnel["status"]["phase"] == "HeartbeatTimeout", f"tunnel of {old}: HeartbeatTimeout")
    story.show("get", "egw", "egw", "-o", "yaml")
    story.check(new not in (None, old), f"{EIP4} has moved from {old} to {new}")
    story.check(cluster.source("pod1", 4) == EIP4, f"pod1 leaves as {EIP4} again")
    story.check(cluster.source("pod1", 6) == EIP6, f"pod1 leaves as {EIP6} again")

    story.step("the second gateway's agent is killed with -9")
    old2, new2 = failover(story, cluster, "pod1", "kill -9",
                          lambda node: cluster.agent(node).stop(signal.SIGKILL), limit)
    story.check(new2 not in (None, old2), f"{EIP4} has moved from {old2} to {new2}")
    story.check(cluster.source("pod1", 4) == EIP4, f"pod1 leaves as {EIP4} again")

    story.step("the leader is killed; another controller takes over and nothing moves")
    change_leader(story, cluster, new2)


def change_leader(story, cluster, owner):
    holder, term = leader(cluster)
    who = next(i for i in range(cluster.controllers) if f"ctl{i}" in holder)
    story.say(f"   the leader is {holder}, term {term}")
    cluster.controller(who).stop(signal.SIGKILL)
    begin = time.monotonic()
    cluster.wait("egci", "default", lambda i: i["status"]["term"] > term and i["status"]["leader"] != holder)
    now, higher = leader(cluster)
    story.check(now != holder and higher > term,
                f"now the leader is {now}, term {higher}, after {time.monotonic() - begin:.1f} s")
    story.check(cluster.owner("egw", EIP4) == owner, f"{EIP4} stayed on {owner}")
    story.check(cluster.source("pod1", 4) == EIP4, f"pod1 still leaves as {EIP4}")
