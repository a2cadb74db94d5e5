"""A rig for datapath tests: nodes, pods and an outside server in network namespaces, and a driver process
per node that holds the datapath plugin open. No controller, no agent, no store: the test says what the
state is and the plugin makes the kernels agree. A node has a network and a mount namespace of its own, with /run
and /sys/fs/bpf of its own. Used by the conformance kit, by tests/netns and by tests/bench.

    rig = Rig(nodes=3)                    n1 (client), n2, n3 (gateways), underlay 10.6.0.1i / fd00::1i
    pod = rig.pod("n1")                   a pod; pod.ipv4, pod.ipv6, pod.source()
    rig.egress(7, "10.6.1.56", "fd00::56", owner="n2")
    rig.steer(pod, rules=[("0.0.0.0/0", 7), ("::/0", 7)])
    rig.apply()                           a full apply on every node
"""

import itertools
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path[:0] = [HERE, ROOT]  # installed, lab/net.py lies below HERE

import sockets  # noqa: E402  (the path must be set first)
from lab import net  # noqa: E402

SERVER4, SERVER6 = "10.6.0.100", "fd00::100"
EIP4, EIP6 = "10.6.1.56", "fd00::56"
# Seconds for an answer that must come: a question for a neighbour that is lost while its device comes up is repeated
# after one.
PATIENCE = 2.5
SECOND4, SECOND6 = "10.6.1.57", "fd00::57"
ALL = [("0.0.0.0/0", 7), ("::/0", 7)]
# This file stands in <prefix>/share/egw/conformance, of an installation or (as a link) of a build, or in the source tree.
BUILD = os.path.abspath(os.environ.get("EGW_BUILD_DIR", os.path.join(ROOT, "build", "release")))
INSTALLED = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
TOOLS = next((d for d in (os.path.join(INSTALLED, "libexec", "egw"), os.path.join(INSTALLED, "bin"))
              if "EGW_BUILD_DIR" not in os.environ and os.path.exists(os.path.join(d, "egw-datapath-driver"))),
             os.path.join(BUILD, "bin"))
PROBE = os.path.join(TOOLS, "egw-probe")
# A datapath is a name (of the build's plugins) or a library's path. The second one, for the nodes that are
# gateways, makes a mixed pair.
DATAPATH = os.environ.get("EGW_DATAPATH", "netlink")
GATEWAY_DATAPATH = os.environ.get("EGW_GATEWAY_DATAPATH", DATAPATH)
CONFIG = json.loads(os.environ.get("EGW_DATAPATH_CONFIG", "{}"))
GATEWAY_CONFIG = json.loads(os.environ.get("EGW_GATEWAY_DATAPATH_CONFIG", "{}" if GATEWAY_DATAPATH != DATAPATH else
                                           json.dumps(CONFIG)))
PREFIX = os.environ.get("EGW_RIG_PREFIX", "dp")  # of the namespaces' names
_serial = itertools.count()


def folder_and_name(datapath):
    """What the host wants to know of a library: its folder and its plugin's name."""
    if "/" not in datapath:
        return os.path.join(BUILD, "lib", "egw", "plugins"), datapath
    folder, file = os.path.split(os.path.abspath(datapath))
    return folder, file.removeprefix("egw-datapath-").removesuffix(".so")


def children():
    """Processes whose parent this one is; in the kit also the orphans below it (runner.adopt_orphans)."""
    out = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
                if int(f.read().rpartition(")")[2].split()[1]) == os.getpid():
                    out.add(int(pid))
        except OSError:
            pass  # it has ended
    return out


def end_inside(namespaces):
    """Kills every process in these network namespaces."""
    inodes = {os.stat(os.path.join(net.NETNS, ns)).st_ino for ns in namespaces}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}/ns/net").st_ino in inodes:
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass  # it has ended


class Hangs(RuntimeError):
    """The plugin has not come back from an operation within the time that the host gives it."""

    def __init__(self, op, words, seconds):
        super().__init__(f"{op} hangs: {words}")
        self.op, self.seconds = op, seconds


class Driver:
    """The datapath of one node, held open by a process in the node's namespaces."""

    PATIENCE = 60  # s for any answer: longer than the host's deadlines of open and apply together

    def __init__(self, ns, inside, state_dir, datapath, config):
        self.ns, self.args = ns, [*inside, os.path.join(TOOLS, "egw-datapath-driver"), *folder_and_name(datapath),
                                  state_dir, json.dumps(config)]
        self.log = state_dir + ".log"
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def stop(self, kill=False):
        """Without `kill` it ends in order; its exit code also says whether a sanitizer has found something."""
        if self.process.poll() is None:
            if kill:
                self.process.kill()
            else:
                self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                raise Hangs("close", f"{self.ns}: the process has not ended after 10 s", 10) from None
        self.process.stdout.close()
        if not kill and self.process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(self.ended("close"))

    def ended(self, op):
        """In which operation and how the process ended, and its last words."""
        code = self.process.wait(10)
        with open(self.log, encoding="utf-8", errors="replace") as log:
            said = log.read()[-4000:].strip()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"{self.ns}: {op}: the driver {how}: " + (
            said or "without a word: a plugin must not end the process that it runs in")

    def _line(self):
        """The next answer; "" when the process has ended, also if a child of the plugin's holds its pipes open."""
        process = os.pidfd_open(self.process.pid)
        try:
            ready = select.select([self.process.stdout, process], [], [], self.PATIENCE)[0]
        finally:
            os.close(process)
        if not ready:
            return None
        return self.process.stdout.readline() if self.process.stdout in ready else ""

    def ask(self, op, **fields):
        begin = time.monotonic()
        try:
            self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(self.ended(op)) from None
        line = self._line()
        if line is None:
            raise Hangs(op, f"{self.ns}: no answer after {self.PATIENCE} s", self.PATIENCE)
        if not line:
            raise RuntimeError(self.ended(op))
        answer = json.loads(line)
        if not answer["ok"] and "did not come back within" in answer.get("error", ""):
            raise Hangs(op, f"{self.ns}: {answer['error']}", time.monotonic() - begin)
        return answer

    def must(self, op, partly=False, **fields):
        """partly: objects that fail are expected."""
        answer = self.ask(op, **fields)
        if not answer["ok"] or (answer.get("failures") and not partly):
            raise RuntimeError(f"{self.ns}: {op}: {answer}")
        return answer


class Pod:
    def __init__(self, rig, name, node, ipv4, ipv6, host):
        self.rig, self.name, self.node, self.ipv4, self.ipv6, self.host = rig, name, node, ipv4, ipv6, host
        self.ns = rig.ns(name)

    def source(self, family=4, timeout=PATIENCE, to=None, port=7000):
        """The source address that the outside server sees, None without an answer."""
        to = to or (SERVER4 if family == 4 else SERVER6)
        done = subprocess.run(net.inside(self.ns, PROBE, "once", "--to", to, "--port", str(port), "--timeout",
                                         str(timeout)), capture_output=True, text=True, check=False)
        return done.stdout.strip() or None


class Rig:
    def __init__(self, nodes=3, datapath=DATAPATH, config=None, mtu=1500):
        self.name = f"{PREFIX}{os.getpid()}x{next(_serial)}"
        self.nodes = [f"n{i}" for i in range(1, nodes + 1)]
        self.mtu, self.mounts = mtu, {}
        # (library, configuration) of the first node and of the others, which are the gateways
        self.datapaths = [(datapath, CONFIG if config is None else config)]
        self.datapaths.append((GATEWAY_DATAPATH, GATEWAY_CONFIG) if datapath == DATAPATH and config is None else
                              self.datapaths[0])
        self.pods, self.egresses, self.classes, self.endpoints = [], {}, {}, {}
        self.drivers, self.processes, self.generation, self.generations = {}, [], 0, {}
        self.node_extra, self.cluster_prefixes = {}, ["10.244.0.0/16", "fd00:244::/32"]
        self.more_peers = []  # peers that are no namespaces
        self.underlay = 4     # the family of the tunnel's outer packets
        self.state = tempfile.mkdtemp(prefix=f"egw-rig-{PREFIX}")

    def __enter__(self):
        try:
            self._build()
        except BaseException as error:
            self.__exit__(error)
            raise
        return self

    def __exit__(self, error=None, *_):
        for p in self.processes:
            p.kill()
            p.wait()
        try:
            for d in self.drivers.values():
                d.stop(kill=error is not None)
        finally:
            for d in self.drivers.values():
                d.stop(kill=True)
            for mounts in self.mounts.values():
                os.close(mounts)
            names = net.named(f"{self.name}-")
            if error is not None:
                end_inside(names)  # what was being started when it went wrong
            net.remove(*names)
            shutil.rmtree(self.state, ignore_errors=True)

    def ns(self, what):
        return f"{self.name}-{what}"

    def inside(self, node, *args):
        """The command line that runs `args` in both namespaces of a node."""
        return ["nsenter", f"--net={net.NETNS}/{self.ns(node)}", f"--mount=/proc/{os.getpid()}/fd/{self.mounts[node]}", "--",
                *args]

    def sh(self, node, script):
        """Runs a shell script on a node, as its administrator would; returns its output."""
        return net.run(*self.inside(node, "sh", "-ec", script))

    def index(self, node):
        return self.nodes.index(node) + 1

    def address(self, node, family=4):
        return f"10.6.0.{10 + self.index(node)}" if family == 4 else f"fd00::{10 + self.index(node)}"

    def _namespaces(self, *whose, **settings):
        """New namespaces in which IPv6 addresses skip DAD; settings: more of them, as net.sysctl() has them."""
        names = [self.ns(who) for who in whose]
        net.make(*names)
        for name in names:
            sockets.write_sysctls(name, net__ipv6__conf__all__accept_dad=0, net__ipv6__conf__default__accept_dad=0, **settings)
        return names

    def _build(self):
        """In few processes: a set of namespaces for each case is what a run of the kit mostly works for."""
        wire, *hosts = self._namespaces("ul", "srv") + self._namespaces(
            *self.nodes, net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)
        for node in self.nodes:
            self.mounts[node] = sockets.own_mounts(self.ns(node))
        ends = [f"{who}p" for who in ("srv", *self.nodes)]
        net.veths(*((host, "eth0", wire, end) for host, end in zip(hosts, ends)))
        net.batch(wire, "link set lo up", "link add br0 type bridge mcast_snooping 0", "link set br0 up",
                  *(f"link set {end} mtu {self.mtu} master br0 up" for end in ends))
        # The outside knows the pods' networks, so that a packet with a pod's address is answered and therefore seen.
        to_pods = [f"route add {prefix} via {self.address(node, family)}" for i, node in enumerate(self.nodes, 1)
                   for family, prefix in ((4, f"10.244.{i}.0/24"), (6, f"fd00:244:{i}::/64"))]
        out = [f"route add default via {SERVER4}", f"route add default via {SERVER6}"]
        faces = [(SERVER4, SERVER6, to_pods), *((self.address(n), self.address(n, 6), out) for n in self.nodes)]
        for host, (v4, v6, routes) in zip(hosts, faces):
            net.batch(host, "link set lo up", f"link set eth0 mtu {self.mtu} up", f"addr add {v4}/16 dev eth0",
                      f"addr add {v6}/64 dev eth0 nodad", *routes)
        self.serve()

    def quiet(self):
        """For measurements of packets per second: no probe that taps every packet, no netfilter in the bridge that
        stands for the wire between the nodes."""
        for p in self.processes:
            p.kill()
            p.wait()
        path = "/proc/sys/net/bridge/"
        net.enter(self.ns("ul"), "sh", "-c", f"for key in {path}bridge-nf-call-*; do [ ! -e $key ] || echo 0 >$key; done")

    def serve(self, port=7000, ns=None):
        """The probe's server; the returned process answers report() when ended with SIGTERM."""
        p = subprocess.Popen(net.inside(ns or self.ns("srv"), PROBE, "server", "--port", str(port)),
                             stdout=subprocess.PIPE, text=True)
        if p.stdout.readline().strip() != "ready":
            raise RuntimeError("the server did not start")
        self.processes.append(p)
        return p

    def traffic(self, pod, family=4, streams=0, interval_us=1000, port=7000):
        to = SERVER4 if family == 4 else SERVER6
        p = subprocess.Popen(net.inside(pod.ns, PROBE, "client", "--to", to, "--port", str(port), "--interval-us",
                                        str(interval_us), "--streams", str(streams)),
                             stdout=subprocess.PIPE, text=True)
        if p.stdout.readline().strip() != "ready":
            raise RuntimeError("the traffic did not start")
        self.processes.append(p)
        return p

    @staticmethod
    def report(process):
        """Ends a server or traffic process and returns its JSON."""
        process.terminate()
        return json.loads(process.communicate(timeout=20)[0].splitlines()[-1])

    def sysctl(self, node, values):
        """{"net/ipv4/conf/egress.vxlan/rp_filter": 1}: with slashes, since device names have dots."""
        net.enter(self.ns(node), "sh", "-ec", "; ".join(f"echo {v} > /proc/sys/{k}" for k, v in values.items()))

    def ping(self, node, target, source, timeout=0.5):
        """Whether an ICMP echo of the node itself is answered."""
        v6 = ":" in target
        make = (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) if v6 else \
            (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        s = sockets.inside(self.ns(node), lambda: socket.socket(*make))
        s.bind((source, 0))
        body = struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 77, 1) + b"egw"
        body = body[:2] + struct.pack("!H", 0 if v6 else sockets.checksum(body)) + body[4:]
        s.sendto(body, (target, 0))
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            s.settimeout(left)
            try:
                data = s.recv(2000)[0 if v6 else 20:]
            except TimeoutError:
                break
            if data[0] == (129 if v6 else 0) and data[4:8] == body[4:8]:
                s.close()
                return True
        s.close()
        return False

    def answering(self, node, *eips):
        """The server finds the EIPs at the node, as after the announcer's gratuitous announcement."""
        if node and eips:
            mac = sockets.mac_of(self.ns(node), "eth0")
            net.batch(self.ns("srv"), *(f"neigh replace {eip} lladdr {mac} dev eth0 nud permanent" for eip in eips))

    def pod(self, node, mtu=1500, bridge=None):
        """bridge: the node's device for it is a port of this bridge, as bridge CNI plugins make it; else it is routed to."""
        i, k = self.index(node), 10 + sum(1 for p in self.pods if p.node == node)
        name, host, v4, v6 = f"{node}p{k}", f"pod{k}", f"10.244.{i}.{k}", f"fd00:244:{i}::{k:x}"
        self._namespaces(name)
        net.veth(self.ns(name), "eth0", self.ns(node), host)
        if bridge:
            net.run("ip", "-n", self.ns(node), "link", "add", bridge, "type", "bridge", check=False)  # it may be there
            net.batch(self.ns(node), f"link set {host} master {bridge}", f"link set {bridge} up")
        device = bridge or host
        net.batch(self.ns(node), f"link set {host} mtu {mtu} up", f"addr replace 10.244.{i}.1/32 dev {device}",
                  f"route add {v4}/32 dev {device}", f"addr replace fe80::1/64 dev {device} nodad",
                  f"route add {v6}/128 dev {device}")
        net.batch(self.ns(name), "link set lo up", f"link set eth0 mtu {mtu} up", f"addr add {v4}/32 dev eth0",
                  f"addr add {v6}/128 dev eth0 nodad", f"route add 10.244.{i}.1 dev eth0",
                  f"route add default via 10.244.{i}.1", "route add default via fe80::1 dev eth0")
        pod = Pod(self, name, node, v4, v6, host)
        self.pods.append(pod)
        return pod

    # ---- desired state ---------------------------------------------------------------------

    def egress(self, id_, ipv4, ipv6, owner, gateways=None, kind="address", answer=True):
        """owner: a node's name or None; gateways: nodes that may serve it (default: all but the first)."""
        gateways = gateways if gateways is not None else self.nodes[1:]
        self.egresses[id_] = {"id": id_, "ipv4": ipv4 or "", "ipv6": ipv6 or "", "owner": owner,
                              "gateways": gateways, "kind": kind}
        if answer:
            self.answering(owner, *filter(None, (ipv4, ipv6)))

    def steer(self, pod, rules, class_id=None):
        """rules: (destination, egress id | "drop" | "nodeip" | "bypass"). Returns the class id."""
        class_id = class_id or len(self.classes) + 1
        self.classes[class_id] = [
            {"destination": d, **({"action": a} if isinstance(a, str) else {"action": "egress", "egressID": a})}
            for d, a in rules]
        for address in (pod.ipv4, pod.ipv6):
            self.endpoints[address] = (pod.node, class_id)
        return class_id

    def everywhere(self, rules=ALL):
        """A steered pod on every node, everything programmed."""
        pods = [self.pod(n) for n in self.nodes]
        for pod in pods:
            self.steer(pod, rules)
        self.apply()
        return pods

    def crowd(self, peers):
        """As many peers in all as a cluster of that many nodes would have; their names sort before the rig's nodes."""
        self.node_extra["ctMask"] = 0xfff80000  # room for 8,190 numbers
        self.more_peers = [
            {"name": f"m{k:05}", "underlay": f"10.6.{100 + k // 250}.{k % 250 + 1}",
             "tunnelIPv4": f"172.31.{100 + k // 250}.{k % 250 + 1}", "tunnelIPv6": f"fd11::1:{k:x}",
             "mac": f"02:ee:0b:00:{k >> 8:02x}:{k & 255:02x}", "podCIDRs": []}
            for k in range(peers - len(self.nodes) + 1)]

    def mac(self, node):
        return f"02:ee:0a:06:00:{10 + self.index(node):02x}"

    def node_config(self, node):
        i = self.index(node)
        config = {"name": node, "enableIPv4": True, "enableIPv6": True, "tunnelDevice": "egress.vxlan", "vni": 100,
                  "port": 7789, "mac": self.mac(node), "tunnelIPv4": f"172.31.0.{i}/16",
                  "tunnelIPv6": f"fd11::{i:x}/112", "parentDevice": "eth0", "underlay": self.address(node, self.underlay),
                  "parentIPv4": self.address(node), "parentIPv6": self.address(node, 6), "slotMask": 0xff000000,
                  "ctMask": 0xfff80000, "clusterPrefixes": self.cluster_prefixes}
        config.update(self.node_extra)
        return config

    def change(self, node):
        """The full desired state of a node."""
        self.generation += 1
        self.generations[node] = self.generation
        peers = [{"name": n, "underlay": self.address(n, self.underlay), "tunnelIPv4": f"172.31.0.{self.index(n)}",
                  "tunnelIPv6": f"fd11::{self.index(n):x}", "mac": self.mac(n),
                  "podCIDRs": [f"10.244.{self.index(n)}.0/24", f"fd00:244:{self.index(n)}::/64"]}
                 for n in self.nodes if n != node] + self.more_peers
        egresses = [{"id": e["id"], "kind": e["kind"], **{k: e[k] for k in ("ipv4", "ipv6") if e[k]},
                     "mayServe": node in e["gateways"],
                     "owner": "none" if e["owner"] is None else "self" if e["owner"] == node else "peer",
                     "ownerPeer": e["owner"] if e["owner"] not in (None, node) else ""}
                    for e in self.egresses.values()]
        here = {a: c for a, (n, c) in self.endpoints.items() if n == node}
        return {"version": 1, "full": True, "generation": self.generation, "node": self.node_config(node),
                "peers": peers, "egresses": egresses,
                "classes": [{"id": c, "rules": r} for c, r in self.classes.items() if c in here.values()],
                "endpoints": [{"address": a, "class": c} for a, c in here.items()]}

    def restart(self, node, kill=False):
        """The process of a node's datapath ends and another one begins."""
        self.drivers.pop(node).stop(kill)
        return self.driver(node)

    def driver(self, node):
        if node not in self.drivers:
            library, config = self.datapaths[node != self.nodes[0]]
            self.drivers[node] = Driver(self.ns(node), self.inside(node), os.path.join(self.state, node), library, config)
        return self.drivers[node]

    def apply(self, *nodes):
        """A full apply and the settings it asks for; returns {node: answer}."""
        answers = {}
        for node in nodes or self.nodes:
            self.driver(node)  # those that are new begin side by side
        for node in nodes or self.nodes:
            answers[node] = self.driver(node).must("apply", change=self.change(node))
            self.driver(node).must("sysctls")
        return answers

    def apply_file(self, node, change):
        """A full change that is too long for a line, by way of a file; the plugin's milliseconds."""
        path = os.path.join(self.state, "change.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(change, f)
        return self.driver(node).must("apply", file=path)["tookUs"] / 1000

    def delta(self, node, **fields):
        """A step from the node's present generation: delta("n1", endpoints=[...], deleted={...})."""
        self.generation += 1
        base, self.generations[node] = self.generations[node], self.generation
        return self.driver(node).ask("apply", change={"version": 1, "full": False, "generation": self.generation,
                                                      "base": base, **fields})
