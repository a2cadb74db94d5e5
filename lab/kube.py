"""The lab's store of kind `kube`: a real etcd and kube-apiserver in a namespace of their own, on the
nodes' bridge, and the chart installed with helm. Agents and controllers run as what the chart has put there says:
the pods of its DaemonSet and Deployment, with its ConfigMap, service accounts and rights. The lab plays what else a
cluster has: it makes those pods, runs their containers as kubelets do (pod.py), each with a token of its pod, writes
Node and Pod objects, and names the controllers that run as endpoints of the webhook's Service.

    api  10.6.0.200 fd00::200   kube-apiserver on port 6443; etcd on its loopback
    ctlN 10.6.0.210+N           controllers, each in a network of its own, as a pod is
"""

import json
import os
import signal
import subprocess
import time

from lab import net, pod
from lab.api import Api, Refused, connect_inside
from lab.chart import CHART, NAMESPACE, RELEASE, WEBHOOK, WORKLOADS, build_servers
from lab.process import Process

ADDRESS = ("10.6.0.200", 6443)
ADDRESS6 = "fd00::200"
GROUP = "/apis/egressgateway.spidernet.io/v1beta1"
TOKEN_SECONDS = 24 * 3600
# The documents of egw's kinds, to see what was written with which term; of the rest only who asked what.
AUDIT = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: RequestResponse
  verbs: [create, update, patch, delete]
  resources: [{group: egressgateway.spidernet.io}]
- level: Metadata
"""


class KubeStore:
    name = "kube"

    def __init__(self, cluster):
        self.cluster = cluster
        self.ns = cluster.ns("api")
        self.etcd = self._process("etcd")
        self.server = self._process("kube-apiserver")
        self.kubeconfig = self._file("admin.kubeconfig")
        self.kubectl = os.path.join(cluster.dir, "kubectl")
        self.port = ADDRESS[1]  # that agents and controllers are told: a test may put something between
        self.values = self._file("values.yaml")  # of the chart, as installed
        self._admin, self._programs = None, ""

    def _process(self, name):
        return Process(os.path.join(self.cluster.dir, "pids", name))

    def _file(self, *names):
        return os.path.join(self.cluster.dir, "kube", *names)

    def _program(self, name):
        if not self._programs:
            require_kubectl()
            self._programs = build_servers()
        return os.path.join(self._programs, name)

    # ---- life ------------------------------------------------------------------------------

    def start(self):
        for folder in (self._file(), os.path.join(self.cluster.dir, "pids")):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        self.cluster.attach("api", ADDRESS[0], ADDRESS6, make=True)
        for i in range(self.cluster.controllers):
            self.cluster.attach(f"ctl{i}", controller_address(i), f"fd00::{210 + i}")
        self._write_files()
        self.start_etcd()
        self.start_server()
        self._install()
        self._wait_kinds()
        self.name_endpoints(range(self.cluster.controllers))  # each serves as soon as it can

    def _write_files(self):
        net.run("openssl", "genrsa", "-out", self._file("sa.key"), "2048")
        write(self._file("audit.yaml"), AUDIT)
        write(self._file("tokens.csv"), 'admintoken,admin,admin,"system:masters"\n')
        cluster = {"server": f"https://{ADDRESS[0]}:{ADDRESS[1]}",
                   "certificate-authority": self._file("certificates", "apiserver.crt")}
        write(self.kubeconfig, json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": "admintoken"}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}]}))
        # What is served differs between clusters that have the same address: each has its own cache of it.
        write(self.kubectl, "#!/bin/sh\n"
              f"exec nsenter --net={net.NETNS}/{self.ns} -- kubectl --kubeconfig {self.kubeconfig} "
              f"--cache-dir {self._file('kubectl-cache')} \"$@\"\n", 0o755)

    def _install(self):
        """The chart, with what a cluster on one machine wants otherwise; the settings are values too."""
        monitor, update, evict = self.cluster.timeouts
        write(self.values, json.dumps({
            "feature": {"enableIPv6": self.cluster.ipv6, "tunnelMonitorPeriod": monitor,
                        "tunnelUpdatePeriod": update, "eipEvictionTimeout": evict},
            # A third to a fifth of the defaults, as the lab's other times.
            "plugins": {"leaderElection": {"config": {"leaseDuration": 3, "renewDeadline": 2, "retryPeriod": 0.5}}},
            "controller": {"replicas": self.cluster.controllers}}, indent=1))  # JSON is YAML
        settings = self._file("settings.yaml")
        write(settings, json.dumps(self.cluster.settings))
        self.helm("install", RELEASE, CHART, "--create-namespace", "-f", self.values, "-f", settings)

    def helm_command(self, *words):
        """With a home of its own, where helm keeps what it knows of the server."""
        return net.inside(self.ns, "env", "-i", f"HOME={self._file()}", build_servers("helm"), "--kubeconfig", self.kubeconfig,
                          "-n", NAMESPACE, *words)

    def helm(self, *words):
        return net.run(*self.helm_command(*words), timeout=120)

    def start_etcd(self):
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        self.etcd.start(self.ns, [
            self._program("etcd"), f"--data-dir={self._file('etcd')}", "--unsafe-no-fsync",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}", "--log-level=error"], self._file("etcd.log"))

    def start_server(self):
        """Starts kube-apiserver and waits until it is ready."""
        key = self._file("sa.key")
        self.server.start(self.ns, [
            self._program("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379",
            f"--bind-address={ADDRESS[0]}", f"--advertise-address={ADDRESS[0]}", f"--secure-port={ADDRESS[1]}",
            "--enable-aggregator-routing",  # to a Service's endpoints: nobody makes its address work here
            "--endpoint-reconciler-type=none", f"--cert-dir={self._file('certificates')}",
            "--service-cluster-ip-range=10.96.0.0/16", f"--token-auth-file={self._file('tokens.csv')}",
            "--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--disable-admission-plugins=ServiceAccount", f"--audit-policy-file={self._file('audit.yaml')}",
            f"--audit-log-path={self._file('audit.log')}", "--audit-log-maxsize=4000"],  # MB, so that it is one file
            self._file("kube-apiserver.log"))
        self.admin().close()
        self.until("kube-apiserver is not ready", lambda: self.admin().request("GET", "/readyz"))

    def started(self):
        """Waits until everybody who runs is ready, as a kubelet finds out, and says so of the pods."""
        everybody = [("controller", f"ctl{i}") for i in self._running()]
        everybody += [("agent", n) for n in self.cluster.nodes if self.cluster.agent(n).process.running()]
        for role, who in everybody:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                self.until(f"{who} fails its {probe}", lambda w=(role, who, probe): self.probe(*w))
            self.tell_ready(who, True)

    def probe(self, role, who, name):
        """Asks what the pod's probe of that name says; raises OSError when it fails."""
        self.prober(role, who, name)()

    def prober(self, role, who, name):
        """The same as a function that needs no API server."""
        host, port, path, seconds = pod.probes(self._pod(role, who))[name]
        address = host or (self.cluster.address(who) if role == "agent" else controller_address(int(who[3:])))
        return lambda: ask(self.cluster.ns(who), (address, port), path, seconds)

    def tell_ready(self, who, on):
        """As a kubelet writes it, for `kubectl get pods`."""
        made = self.admin().request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{who}")
        word = "True" if on else "False"
        containers = [{"name": c["name"], "ready": on, "started": True, "image": c["image"], "imageID": "", "restartCount": 0,
                       "state": {"running": {"startedAt": made["metadata"]["creationTimestamp"]}}}
                      for c in made["spec"]["containers"]]
        self.admin().request("PATCH", f"/api/v1/namespaces/{NAMESPACE}/pods/{who}/status", {"status": {
            "containerStatuses": containers, "conditions": [{"type": t, "status": word} for t in ("Ready", "ContainersReady")]}},
            "application/merge-patch+json")

    def _running(self):
        return [i for i in range(self.cluster.controllers) if self.cluster.controller(i).process.running()]

    def name_endpoints(self, controllers):
        """The endpoints of the webhook's Service, which a cluster derives from the controllers' pods."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{WEBHOOK}"
        self.admin().apply(path, {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": WEBHOOK, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": WEBHOOK}},
            "addressType": "IPv4", "ports": [{"name": "webhook", "port": self._port("webhook"), "protocol": "TCP"}],
            "endpoints": [{"addresses": [controller_address(i)], "conditions": {"ready": True}} for i in controllers]})

    def _wait_kinds(self):
        """A new kind is answered for a moment after it was accepted."""
        for kind in self.admin().request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]:
            path = f"{GROUP}/{kind['spec']['names']['plural']}"
            self.until(f"{path} is not served", lambda p=path: self.admin().request("GET", p))

    def until(self, trouble, attempt, seconds=60):
        end = time.monotonic() + seconds
        while True:
            try:
                return attempt()
            except (OSError, Refused) as e:
                if not self.server.running():
                    raise RuntimeError(f"kube-apiserver has ended: {self._file('kube-apiserver.log')}") from e
                if time.monotonic() > end:
                    raise RuntimeError(f"{trouble} after {seconds} s: {e}; see "
                                       f"{self._file('kube-apiserver.log')}") from e
            time.sleep(0.05)

    # ---- egw's processes -------------------------------------------------------------------

    def command(self, role, who, options):
        """The command line of an agent or controller: its pod's container."""
        if self.cluster.own_settings:
            raise RuntimeError("own_settings: the chart has one configuration for all; use settings")
        made = self._pod(role, who)
        return pod.run(made, self._file("pods", who), os.path.dirname(self.cluster.bin), (ADDRESS[0], self.port),
                       self._config_map, self._account(made), options)

    def _account(self, made):
        """The files of the pod's service account."""
        with open(self._file("certificates", "apiserver.crt"), encoding="ascii") as f:
            return {"token": self.token(made), "ca.crt": f.read(), "namespace": NAMESPACE}

    def _workload(self, role):
        return self.admin().request("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/{'/'.join(WORKLOADS[role])}")

    def _port(self, name):
        """Of the controllers."""
        return pod.port(self._workload("controller")["spec"]["template"]["spec"], name)

    def _config_map(self, name):
        return self.admin().request("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}")["data"]

    def _pod(self, role, who):
        """The pod of an agent, on its node, or of a controller; made when it is not there."""
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        try:
            return self.admin().request("GET", f"{pods}/{who}")
        except Refused as e:
            if e.code != 404:
                raise
        self.admin().request("POST", pods, pod.of(self._workload(role), who, who if role == "agent" else None))
        return self.admin().request("PATCH", f"{pods}/{who}/status", {"status": {"phase": "Running"}},
                                    "application/merge-patch+json")

    def token(self, made):
        """A token of the pod's service account, which names the pod's node and is void without the pod."""
        bound = {"kind": "Pod", "apiVersion": "v1", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{made['spec']['serviceAccountName']}/token"
        spec = {"expirationSeconds": TOKEN_SECONDS, "boundObjectRef": bound}
        return self.admin().request("POST", path, {"spec": spec})["status"]["token"]

    def run_job(self, name, seconds=120):
        """Runs the pod of a Job as the cluster would, when the Job is there, and writes how it ended. Returns its
        exit code and what it said."""
        job = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{name}"

        def fresh():
            found = self.admin().request("GET", job)
            if found.get("status", {}).get("conditions"):
                raise OSError("it has ended before")
            return found

        stored = self.until(f"there is no Job {name}", fresh)
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        self.admin().request("POST", pods, pod.of(stored, name))
        made = self.admin().request("GET", f"{pods}/{name}")
        words = pod.run(made, self._file("pods", name), os.path.dirname(self.cluster.bin), ADDRESS, self._config_map,
                        self._account(made))
        begin = now()
        done = subprocess.run(net.inside(self.ns, *words), capture_output=True, text=True, check=False, timeout=seconds)
        ended = ["SuccessCriteriaMet", "Complete"] if done.returncode == 0 else ["FailureTarget", "Failed"]
        status = {"startTime": begin, "conditions": [{"type": t, "status": "True", "reason": "Test", "message": "",
                                                      "lastTransitionTime": now()} for t in ended],
                  "uncountedTerminatedPods": {}, "active": 0, "ready": 0, "terminating": 0}
        status.update({"succeeded": 1, "completionTime": now()} if done.returncode == 0 else {"failed": 1})
        self.admin().request("DELETE", f"{pods}/{name}?gracePeriodSeconds=0")
        self.admin().request("PATCH", job + "/status", {"status": status}, "application/merge-patch+json")
        return done.returncode, done.stdout + done.stderr

    # ---- commands --------------------------------------------------------------------------

    def plugins(self, _role, _who):
        """plugins.stateStore and plugins.leaderElection of a verb, which runs as the administrator."""
        access = {"kubeconfig": self.kubeconfig}
        return {"stateStore": {"name": "kube", "config": {**access, "webhook": {"enabled": True}}},
                "leaderElection": {"name": "kube", "config": access}}

    def environment(self):
        """That of verbs and kubectl."""
        return {k: v for k, v in os.environ.items() if k != "KUBECONFIG"}

    def verb(self, *args):
        """The command line that runs a verb of egw against the store."""
        return net.inside(self.ns, os.path.join(self.cluster.bin, "egw"), "--config",
                          self.cluster.verb_config(), *args)

    def reader(self, kind, name=None, namespace=None, *options):
        """The command line that gets objects as JSON."""
        place = ["-n", namespace] if namespace else ([] if name else ["-A"])
        return [self.kubectl, "get", kind, *([name] if name else []), *place, "-o", "json", *options]

    def run_kubectl(self, *args, stdin=None, timeout=60):
        return net.run(self.kubectl, *args, stdin=stdin, timeout=timeout)

    def admin(self):
        """Requests as the cluster's administrator."""
        if self._admin is None:
            self._admin = self.client()
        return self._admin

    def client(self):
        """Another connection of the administrator, for another thread."""
        return Api(self.ns, ADDRESS, self._file("certificates", "apiserver.crt"), "admintoken")

    def apply(self, documents, timeout):
        """Nodes, Pods and Namespaces as a kubelet writes them; the rest with kubectl, as a user does."""
        mine = [d for d in documents if d["kind"] in ("Node", "Pod", "Namespace")]
        for d in mine:
            place = f"/namespaces/{d['metadata']['namespace']}" if d["kind"] == "Pod" else ""
            self.admin().apply(f"/api/v1{place}/{d['kind'].lower()}s/{d['metadata']['name']}", d)
        rest = [d for d in documents if d not in mine]
        if not rest:
            return ""
        self.name_endpoints(self._running())
        return self.run_kubectl("apply", "-f", "-", timeout=timeout,
                                stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": rest}))

    # ---- faults ----------------------------------------------------------------------------

    def cut(self, node):
        """The API server's packets do not reach the node any more; nobody is told."""
        net.batch(self.ns, *[f"route replace blackhole {a}" for a in self._addresses(node)])

    def connect(self, node):
        for a in self._addresses(node):
            net.run("ip", "-n", self.ns, "route", "del", "blackhole", a, check=False)

    def _addresses(self, who):
        if who.startswith("ctl"):
            return (controller_address(int(who[3:])),)
        return self.cluster.address(who), self.cluster.address(who, 6)

    def kill_server(self):
        self.server.stop(signal.SIGKILL)

    def restart_etcd(self):
        self.etcd.stop(signal.SIGKILL)
        self.start_etcd()

    def audit(self):
        """The entries of the API server's audit log so far."""
        with open(self._file("audit.log"), encoding="utf-8") as f:
            for line in f:
                try:
                    yield json.loads(line)
                except ValueError:
                    return  # the last line is still being written


def controller_address(i):
    return f"10.6.0.{210 + i}"


def ask(ns, address, path, seconds):
    """GET of an HTTP path in a namespace; raises OSError unless the answer is a success."""
    with connect_inside(ns, address, seconds) as probe:
        probe.settimeout(seconds)
        probe.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        line = probe.makefile("rb").readline()
    if b" 200 " not in line:
        raise OSError(f"{path}: {line.decode().strip() or 'no answer'}")


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write(path, text, mode=0o600):
    """Writes the file as a whole, so that a reader never sees half of it."""
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path + ".new", mode)
    os.replace(path + ".new", path)


def require_kubectl():
    """Ends with a clear word when kubectl is not there."""
    try:
        subprocess.run(["kubectl", "version", "--client"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as e:
        raise RuntimeError("--store kube needs kubectl in PATH: https://kubernetes.io/docs/tasks/tools "
                           f"({e})") from e
