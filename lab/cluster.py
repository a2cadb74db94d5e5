"""The one-machine cluster: nodes as network namespaces on a bridge, pods behind veths, an outside
server, one agent per node, one or more controllers, and a store that they share.

    n1 .. nN   10.6.0.1i  fd00::1i    underlay, on a bridge in a namespace of its own
    server     10.6.0.100 fd00::100   the outside; the nodes' default route
    pod k of node i   10.244.i.k  fd00:244:i::k   behind a veth, as a plain CNI does it

Used by up, down, cut, quickstart and the end-to-end tests. What a cluster leaves on the machine is its folder below the
run folder, and namespaces NAME-*, which are recorded there: other clusters' names may begin like its own.
"""

import copy
import json
import os
import select
import signal
import subprocess
import time

from lab import folder, net
from lab.kube import KubeStore
from lab.local_store import LocalStore
from lab.pod import bpffs_of, clear as clear_bpffs
from lab.process import Process

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SERVER4, SERVER6 = "10.6.0.100", "fd00::100"
PORT = 7000
STORES = {store.name: store for store in (LocalStore, KubeStore)}


def build_dir():
    return os.environ.get("EGW_BUILD_DIR", os.path.join(ROOT, "build", "release"))


class Cluster:
    def __init__(self, name, nodes=3, gateways=2, controllers=2, timeouts=(1, 1, 3), ipv6=True,
                 settings=None, store="local"):
        """timeouts: tunnelMonitorPeriod, tunnelUpdatePeriod, eipEvictionTimeout in seconds. The last
        `gateways` nodes carry the label egress=true. settings: further configuration, merged in."""
        self.dir = folder.path_of(name)
        self.name, self.count, self.controllers, self.timeouts = name, nodes, controllers, timeouts
        self.ipv6, self.settings = ipv6, settings or {}
        self.own_settings = {}  # of one node or controller alone, by name: the last word
        self.nodes = [f"n{i}" for i in range(1, nodes + 1)]
        self.gateways = self.nodes[nodes - gateways:]
        self.pods, self.namespaces, self._traffic = {}, [], []
        self.bin = os.path.join(build_dir(), "bin")
        self.store = STORES[store](self)

    # ---- life ------------------------------------------------------------------------------

    @classmethod
    def claim(cls, prefix="lab", **kwargs):
        """A cluster under a name that no other one holds now: prefix, prefix2, prefix3 ..."""
        folder.checked(prefix)
        with folder.locked():
            for i in range(1, 1000):
                self = cls(prefix if i == 1 else f"{prefix}{i}", **kwargs)
                if not os.path.lexists(self.dir) and not any(map(net.exists, self._first_namespaces())):
                    folder.make(self.name, self._record())
                    return self
        raise RuntimeError(f"no free cluster name: {prefix}, {prefix}2 and so on to {prefix}999 are taken")

    @classmethod
    def load(cls, name):
        """The running cluster of that name, from its folder."""
        record = folder.read(name)
        try:
            self = cls(name, **record["args"])
            self.pods = record["pods"]
            # Without: one that runs since before its namespaces were recorded.
            self.namespaces = record.get("namespaces", self._first_namespaces() + [self.ns(p) for p in self.pods])
        except (KeyError, TypeError) as e:
            raise RuntimeError(f"{folder.path_of(name)}: its record cannot be understood: {e!r}") from e
        return self

    def _record(self):
        args = {"nodes": self.count, "gateways": len(self.gateways), "controllers": self.controllers,
                "timeouts": list(self.timeouts), "ipv6": self.ipv6, "settings": self.settings,
                "store": self.store.name}
        return {"name": self.name, "args": args, "pods": self.pods, "namespaces": self.namespaces}

    def save(self):
        folder.write(self.dir, self._record())

    def up(self, start=True):
        self._underlay()
        self.store.start()
        self.apply(*[self.node_manifest(n) for n in self.nodes])
        self.server_start()
        if start:
            for i in range(self.controllers):
                self.controller(i).start()
            for n in self.nodes:
                self.agent(n).start()
            self.store.started()
        return self

    def down(self):
        for traffic in self._traffic:
            traffic.process.kill()
            traffic.process.wait()
        records = os.path.join(self.dir, "pids")
        if os.path.isdir(records):
            running = [Process(os.path.join(records, r)) for r in os.listdir(records)]
            for p in running:
                p.signal(signal.SIGKILL)
            for p in running:
                p.wait(5)
        for ns in self.namespaces:
            net.remove(ns)
        left = [ns for ns in self.namespaces if net.exists(ns)]
        if left:
            raise RuntimeError(f"network namespaces that do not go: {' '.join(left)}; lab/down {self.name} tries again")
        clear_bpffs(self.dir)
        folder.remove(self.name)

    def __enter__(self):
        return self.up()

    def __exit__(self, *_):
        self.down()

    # ---- network ---------------------------------------------------------------------------

    def ns(self, what):
        return f"{self.name}-{what}"

    def _first_namespaces(self):
        """The names of those that it has from its beginning."""
        return [self.ns(w) for w in ("ul", "srv", "api", *self.nodes, *(f"ctl{i}" for i in range(self.controllers)))]

    def make_ns(self, what, *commands):
        """Makes a namespace that goes with the cluster; recorded before it is there, so that nothing is left."""
        ns = self.ns(what)
        with folder.locked():
            if net.exists(ns):
                raise RuntimeError(f"there is a network namespace {ns} already: take another name for the cluster, or "
                                   f"`ip netns del {ns}` if nobody uses it")
            if ns not in self.namespaces:
                self.namespaces.append(ns)
                self.save()
            net.add(ns, *commands)

    def address(self, node, family=4):
        i = 10 + self.nodes.index(node) + 1
        return f"10.6.0.{i}" if family == 4 else f"fd00::{i}"

    def _underlay(self):
        self.make_ns("ul", "link add br0 type bridge mcast_snooping 0", "link set br0 up")
        self.attach("srv", SERVER4, SERVER6, make=True)
        for i, node in enumerate(self.nodes, 1):
            self.make_ns(node)
            net.sysctl(self.ns(node), net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)
            self.attach(node, self.address(node), self.address(node, 6))
            net.batch(self.ns(node), f"route add default via {SERVER4}", f"route add default via {SERVER6}")
            net.batch(self.ns("srv"), f"route add 10.244.{i}.0/24 via {self.address(node)}",
                      f"route add fd00:244:{i}::/64 via {self.address(node, 6)}")
        for node in self.nodes:
            for i, other in enumerate(self.nodes, 1):
                if other != node:
                    net.batch(self.ns(node), f"route add 10.244.{i}.0/24 via {self.address(other)}",
                              f"route add fd00:244:{i}::/64 via {self.address(other, 6)}")
        for i in range(self.controllers):
            self.make_ns(f"ctl{i}")

    def attach(self, who, v4, v6, make=False):
        """Puts a namespace on the bridge; make: it does not exist yet."""
        if make:
            self.make_ns(who)
        port = f"{who}p"
        net.veth(self.ns(who), "eth0", self.ns("ul"), port)
        net.batch(self.ns("ul"), f"link set {port} master br0", f"link set {port} up")
        net.batch(self.ns(who), "link set eth0 up", f"addr add {v4}/16 dev eth0",
                  f"addr add {v6}/64 dev eth0 nodad")

    def link(self, node, up):
        """The node's cable: pulled (carrier gone at both ends) or back in."""
        net.batch(self.ns("ul"), f"link set {node}p {'up' if up else 'down'}")

    # ---- objects ---------------------------------------------------------------------------

    def node_manifest(self, node):
        i = self.nodes.index(node) + 1
        labels = {"kubernetes.io/hostname": node}
        if node in self.gateways:
            labels["egress"] = "true"
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels},
                "spec": {"podCIDRs": [f"10.244.{i}.0/24", f"fd00:244:{i}::/64"]},
                "status": {"addresses": [{"type": "InternalIP", "address": self.address(node)},
                                         {"type": "InternalIP", "address": self.address(node, 6)}],
                           "conditions": [{"type": "Ready", "status": "True"}]}}

    def add_pod(self, name, node, labels, namespace="default", store=True):
        """A pod with real addresses on `node`; `store`: its object as well. Returns its addresses."""
        i = self.nodes.index(node) + 1
        k = 10 + sum(1 for p in self.pods.values() if p["node"] == node)
        v4, v6 = f"10.244.{i}.{k}", f"fd00:244:{i}::{k:x}"
        host = f"pod{k}"
        self.make_ns(name)
        net.veth(self.ns(name), "eth0", self.ns(node), host)
        net.batch(self.ns(node), f"link set {host} up", f"addr add 10.244.{i}.1/32 dev {host}",
                  f"route add {v4}/32 dev {host}", f"addr add fe80::1/64 dev {host} nodad",
                  f"route add {v6}/128 dev {host}")
        net.batch(self.ns(name), "link set eth0 up", f"addr add {v4}/32 dev eth0",
                  f"addr add {v6}/128 dev eth0 nodad", f"route add 10.244.{i}.1 dev eth0",
                  f"route add default via 10.244.{i}.1", "route add default via fe80::1 dev eth0")
        self.pods[name] = {"node": node, "ipv4": v4, "ipv6": v6, "labels": labels, "namespace": namespace}
        self.save()
        if store:
            self.apply(self.pod_manifest(name))
        return v4, v6

    def pod_manifest(self, name):
        p = self.pods[name]
        return {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": p["namespace"], "labels": p["labels"]},
                "spec": {"nodeName": p["node"], "containers": [{"name": "main", "image": "none"}]},
                "status": {"phase": "Running", "podIP": p["ipv4"],
                           "podIPs": [{"ip": p["ipv4"]}, {"ip": p["ipv6"]}]}}

    # ---- egw -------------------------------------------------------------------------------

    def config(self, role, who):
        """Writes the configuration of a process and returns its path."""
        monitor, update, evict = self.timeouts
        config = {
            "feature": {"enableIPv4": True, "enableIPv6": self.ipv6,
                        "gatewayFailover": {"enable": True, "tunnelMonitorPeriod": monitor,
                                            "tunnelUpdatePeriod": update, "eipEvictionTimeout": evict}},
            "plugins": {"dir": os.path.join(build_dir(), "lib", "egw", "plugins"),
                        "datapath": {"name": "netlink"}, **self.store.plugins(role, who)},
            "stateDir": os.path.join(self.dir, "state", who), "nodeName": who,
        }
        if role == "verb":
            del config["nodeName"]
        merge(config, self.settings)
        merge(config, self.own_settings.get(who, {}))
        self._pin_in_own_folder(config["plugins"]["datapath"])
        path = os.path.join(self.dir, f"{who}.yaml")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config, f, indent=1)  # JSON is YAML
        return path

    def _pin_in_own_folder(self, datapath):
        """All nodes share the machine's bpffs: what ebpf pins there goes with the cluster, as its namespaces do."""
        if datapath["name"] in ("ebpf", "auto"):
            config = datapath.setdefault("config", {})
            if datapath["name"] == "auto":
                config = config.setdefault("ebpf", {})
            config.setdefault("pinPath", bpffs_of(self.dir))

    def agent(self, node, *options):
        return Daemon(self, "agent", node, options)

    def controller(self, i, *options):
        return Daemon(self, "controller", f"ctl{i}", options)

    def egw(self, *args, stdin=None, check=True, timeout=60):
        """Runs a verb against the cluster's store; returns the finished process."""
        done = subprocess.run(self.store.verb(*args), input=stdin, capture_output=True, text=True,
                              timeout=timeout, check=False, env=self.store.environment())
        if check and done.returncode != 0:
            raise RuntimeError(f"egw {' '.join(args)}: exit {done.returncode}: {done.stderr.strip()}")
        return done

    def verb_config(self):
        """The configuration that verbs run with."""
        path = os.path.join(self.dir, "verb.yaml")
        return path if os.path.exists(path) else self.config("verb", "verb")

    def apply(self, *documents, timeout=60):
        return self.store.apply(documents, timeout)

    def get(self, kind, name=None, namespace=None):
        """The object as a dict (None: not found), or the list of all."""
        done = subprocess.run(self.store.reader(kind, name, namespace), capture_output=True, text=True,
                              timeout=60, check=False, env=self.store.environment())
        if done.returncode == 1 and name:
            return None
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        document = json.loads(done.stdout)
        return document if name else document.get("items", [])

    def wait(self, kind, name, predicate, timeout=10.0, namespace=None):
        """Follows the object until predicate(object) holds; returns (object, seconds waited)."""
        args = self.store.reader(kind, name, namespace, "-w")
        begin = time.monotonic()
        last = None
        while time.monotonic() - begin < timeout:
            with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  env=self.store.environment()) as watch:
                try:
                    for last in documents(watch.stdout, begin + timeout):
                        if predicate(last):
                            return last, time.monotonic() - begin
                finally:
                    watch.kill()
            time.sleep(0.1)  # there is no such object yet, or the store has ended the watch
        raise TimeoutError(f"{kind}/{name}: not reached within {timeout} s; last seen: "
                           f"{json.dumps(last.get('status') if last else None)}")

    def owner(self, gateway, eip):
        """The node that holds the EIP according to the gateway's status, None if nobody does."""
        return owner_in(self.get("egw", gateway), eip)

    # ---- faults ----------------------------------------------------------------------------

    def power_off(self, node):
        """The node dies: its processes are killed and its cable goes, at once. In this order, so that no
        agent lives long enough to tell anybody that the cable has gone."""
        agent = self.agent(node).process
        agent.signal(signal.SIGKILL)
        self.link(node, False)
        agent.stop(signal.SIGKILL)

    def power_on(self, node):
        self.link(node, True)
        self.agent(node).start()

    def cut(self, node, store=False, uplink=False):
        if store:
            self.store.cut(node)
        if uplink:
            self.link(node, False)

    def restore(self, node):
        self.store.connect(node)
        self.link(node, True)

    # ---- traffic ---------------------------------------------------------------------------

    def probe(self, *args):
        return [os.path.join(self.bin, "egw-probe"), *args]

    def server_start(self):
        """The outside server; its log's last line is its report, written when it ends."""
        os.makedirs(os.path.join(self.dir, "pids"), exist_ok=True)
        log = os.path.join(self.dir, "server.json")
        server = Process(os.path.join(self.dir, "pids", "server"))
        lines = count_lines(log)
        server.start(self.ns("srv"), self.probe("server", "--port", str(PORT)), log)
        while count_lines(log) == lines:  # its line "ready"
            if server.wait(0.01):
                raise RuntimeError(f"the outside server did not start: {log}")

    def server_stop(self):
        """Ends the server and returns what it saw: {"sources": {address: {packets, ...}}, "resets"}."""
        Process(os.path.join(self.dir, "pids", "server")).stop()
        with open(os.path.join(self.dir, "server.json"), encoding="utf-8") as f:
            return json.loads(f.read().splitlines()[-1])

    def source(self, pod, family=4, timeout=2.0):
        """The source address that the server sees of the pod now; None: no answer."""
        to = SERVER4 if family == 4 else SERVER6
        done = subprocess.run(net.inside(self.ns(pod), *self.probe("once", "--to", to, "--port", str(PORT),
                                                                  "--timeout", str(timeout))),
                              capture_output=True, text=True, check=False)
        return done.stdout.strip() or None

    def traffic(self, pod, family=4, streams=0, interval_us=1000):
        self._traffic.append(Traffic(self, pod, family, streams, interval_us))
        return self._traffic[-1]


class Daemon:
    """An agent or controller of a cluster."""

    def __init__(self, cluster, role, who, options=()):
        self.cluster, self.role, self.who, self.options = cluster, role, who, options
        records = os.path.join(cluster.dir, "pids")
        os.makedirs(records, exist_ok=True)
        self.process = Process(os.path.join(records, f"{role}-{who}"))
        self.log = os.path.join(cluster.dir, f"{who}.log")

    def start(self, *options):
        words = self.cluster.store.command(self.role, self.who, (*self.options, *options))
        self.process.start(self.cluster.ns(self.who), words, self.log)
        return self

    def stop(self, number=signal.SIGTERM, timeout=12):
        return self.process.stop(number, timeout)

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()


class Traffic:
    """One datagram per interval from a pod to the server, until stop()."""

    def __init__(self, cluster, pod, family, streams, interval_us):
        to = SERVER4 if family == 4 else SERVER6
        self.process = subprocess.Popen(
            net.inside(cluster.ns(pod), *cluster.probe("client", "--to", to, "--port", str(PORT),
                                                       "--interval-us", str(interval_us),
                                                       "--streams", str(streams))),
            stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError("the traffic probe did not start")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=20)
        return json.loads(out.splitlines()[-1])


def documents(stream, deadline):
    """JSON documents from a pipe as they arrive, until the pipe ends or the deadline passes."""
    decoder, text = json.JSONDecoder(), ""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            return
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            return
        text += chunk.decode()
        while True:
            text = text.lstrip()
            try:
                document, end = decoder.raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            yield document


def count_lines(path):
    if not os.path.exists(path):
        return 0
    with open(path, "rb") as f:
        return f.read().count(b"\n")


def owner_in(gateway, eip):
    for node in ((gateway or {}).get("status") or {}).get("nodeList", []):
        for entry in node.get("eips", []):
            if eip in (entry.get("ipv4"), entry.get("ipv6")):
                return node["name"]
    return None


def merge(into, other):
    """Merges nested dicts; what `other` says wins."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)
