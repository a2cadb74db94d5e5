"""egw itself on a real API server: verbs and controllers with the kube plugins, seen with kubectl."""

import glob
import json
import os
import signal
import subprocess
import tempfile
from datetime import datetime, timezone

import pytest
import yaml
from helm_chart import NAMESPACE, Rendered
from kube_support import BUILD, GATEWAY, POLICY, start_server, wait_for

EGW = os.path.join(BUILD, "bin/egw")
CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../config")
CRDS = os.path.join(CONFIG, "crds")

OBJECTS = f"{GATEWAY}---{POLICY}"


RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Secret")


def rights():
    """The service account `egw` with what the chart gives a controller, the webhook's Secret, and nothing else."""
    ours = [o for o in Rendered({"controller": {"name": "egw"}}).objects
            if o["kind"] in RIGHTS and o["metadata"]["labels"]["app.kubernetes.io/component"] == "controller"]
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *ours]


class Cluster:
    """An API server with the shipped CRDs and two nodes."""

    def __init__(self):
        self.server, self.kubeconfig = start_server()
        self.folder = tempfile.TemporaryDirectory()
        self.processes = []
        for name in ("n1", "n2"):
            self.kubectl("create", "-f", "-", stdin=json.dumps({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"egress": "true"}},
                "spec": {"podCIDRs": [f"10.244.{name[1]}.0/24"]}}))
            status = {"status": {"conditions": [{"type": "Ready", "status": "True"}],
                                 "addresses": [{"type": "InternalIP", "address": f"192.168.0.{name[1]}"}]}}
            self.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))

        self.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": rights()}))
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", CRDS)
        self.service_account = self.kubeconfig_of("egw")

    def kubeconfig_of(self, account):
        """A kubeconfig with a token of a service account, in a file of its own."""
        with open(self.kubeconfig, encoding="utf-8") as f:
            config = json.load(f)
        token = os.path.join(self.folder.name, account + ".token")
        with open(token, "w", encoding="utf-8") as f:
            f.write(self.kubectl("create", "token", account, "-n", "egw-system"))
        authority = config["clusters"][0]["cluster"]["certificate-authority"]
        config["clusters"][0]["cluster"]["certificate-authority"] = os.path.join(
            os.path.dirname(self.kubeconfig), authority)
        config["users"][0]["user"] = {"tokenFile": token}
        config["contexts"][0]["context"]["namespace"] = "egw-system"
        path = os.path.join(self.folder.name, account + ".kubeconfig")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config, f)
        return path

    def say(self, word):
        self.server.stdin.write(word + "\n")
        self.server.stdin.flush()
        assert self.server.stdout.readline().strip() == word

    def kubectl(self, *arguments, stdin=None):
        done = subprocess.run(["kubectl", "--kubeconfig", self.kubeconfig, *arguments], input=stdin, text=True,
                              capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *what):
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def command(self, kubeconfig, *arguments):
        """egw with the kube plugins."""
        out = [EGW]
        for kind in ("stateStore", "leaderElection"):
            out += ["--set", f"plugins.{kind}.name=kube", "--set", f"plugins.{kind}.config.kubeconfig={kubeconfig}"]
        for key, value in (("leaseDuration", 3), ("renewDeadline", 2), ("retryPeriod", 0.5)):
            out += ["--set", f"plugins.leaderElection.config.{key}={value}"]
        return out + list(arguments)

    def egw(self, *arguments, stdin=None):
        return subprocess.run(self.command(self.kubeconfig, *arguments), input=stdin, text=True, capture_output=True, check=False,
                              timeout=60)

    def controller(self, name):
        log = open(os.path.join(self.folder.name, name + ".log"), "w", encoding="utf-8")
        state = os.path.join(self.folder.name, name)
        ports = {"c1": 15810, "c2": 15820}[name]
        process = subprocess.Popen(
            self.command(self.service_account, "--state-dir", state, "--node-name", name,
                         "--set", f"controller.healthPort={ports}", "--set", f"controller.metricsPort={ports + 1}",
                         "controller"), stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def log(self, name):
        with open(os.path.join(self.folder.name, name + ".log"), encoding="utf-8") as f:
            return f.read()

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.server.stdin.close()
        self.server.wait(timeout=20)
        self.folder.cleanup()


@pytest.fixture(scope="module")
def cluster():
    c = Cluster()
    yield c
    c.close()


def holder(cluster):
    leases = cluster.get("lease", "-n", "egw-system")["items"]
    return next((i["spec"].get("holderIdentity", "") for i in leases if i["metadata"]["name"] == "egw-controller"), "")


def test_verbs_and_kubectl_see_the_same(cluster):
    done = cluster.egw("apply", "-f", "-", stdin=OBJECTS)
    assert done.returncode == 0, done.stderr
    stored = cluster.get("egw", "web")
    assert stored["spec"]["ippools"]["ipv4DefaultEIP"], "admission fills in the default address"
    shown = cluster.egw("get", "egp", "-n", "default", "shop", "-o", "json")
    assert json.loads(shown.stdout)["metadata"]["uid"] == cluster.get("egp", "shop")["metadata"]["uid"]
    assert "web" in cluster.kubectl("get", "egp", "shop"), "printer columns"
    again = cluster.egw("apply", "-f", "-", stdin=OBJECTS)
    assert again.returncode == 0 and "unchanged" in again.stdout, again.stdout + again.stderr
    bad = cluster.egw("apply", "-f", "-", stdin=OBJECTS.replace("10.9.0.10-10.9.0.20", "10.9.0.20-10.9.0.10"))
    assert bad.returncode == 1 and "ippools" in bad.stderr, bad.stderr


def test_controllers_elect_write_and_hand_over(cluster):
    first = cluster.controller("c1")
    leader = wait_for("leader", lambda: holder(cluster))
    wait_for("tunnels", lambda: {t["metadata"]["name"] for t in cluster.get("egt")["items"]
                                 if t.get("status", {}).get("tunnel", {}).get("ipv4")} == {"n1", "n2"})
    info = wait_for("cluster info", lambda: next((i for i in cluster.get("egci")["items"] if i.get("status")), None))
    term = info["status"]["term"]
    assert term >= 1
    wait_for("gateway status", lambda: cluster.get("egw", "web").get("status", {}).get("term") == term)
    cluster.controller("c2")
    wait_for("observer", lambda: "leader observed" in cluster.log("c2"))
    assert holder(cluster) == leader
    first.send_signal(signal.SIGKILL)
    # The lease (3 s) and one retry, and some more for a busy machine.
    wait_for("successor", lambda: holder(cluster) not in ("", leader), 8)
    assert "no permission" not in cluster.log("c1") + cluster.log("c2")
    wait_for("higher term", lambda: cluster.get("egw", "web")["status"]["term"] > term)


def report(cluster, node):
    """As its agent does."""
    status = {"phase": "Ready", "lastHeartbeatTime": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
              "tunnel": {"mac": f"02:ee:00:00:00:0{node[1]}", "parent": {"name": "eth0", "ipv4": f"192.168.0.{node[1]}"}}}
    cluster.kubectl("patch", "egt", node, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def test_tunnels_that_are_deleted_come_back_and_nothing_moves(cluster):
    nodes = ("n1", "n2")
    for node in nodes:
        report(cluster, node)

    def owners():
        listed = cluster.get("egw", "web").get("status", {}).get("nodeList", [])
        return {n["name"]: [e["ipv4"] for e in n.get("eips", [])] for n in listed}

    def tunnels():
        return {t["metadata"]["name"]: t for t in cluster.get("egt")["items"] if t["metadata"]["name"] in nodes}

    wait_for("an owner", lambda: any(owners().values()))
    before, owned, moved = tunnels(), owners(), cluster.log("c2").count("EIP moved")
    for tunnel in before.values():
        assert tunnel["metadata"]["finalizers"] == ["egressgateway.spidernet.io/egresstunnel"]
    cluster.kubectl("delete", "egt", *nodes, "--timeout=10s")
    wait_for("new ones", lambda: all(
        name in tunnels() and tunnels()[name]["metadata"]["uid"] != before[name]["metadata"]["uid"]
        and tunnels()[name].get("status", {}).get("phase") == "Ready" for name in nodes), 8)
    for name, tunnel in tunnels().items():
        for key in ("tunnel", "mark"):
            assert tunnel["status"][key] == before[name]["status"][key]
    assert owners() == owned and cluster.log("c2").count("EIP moved") == moved
    for node in nodes:
        report(cluster, node)
    assert owners() == owned


def test_the_clusters_own_prefixes_are_found(cluster):
    """ServiceCIDR is there from the beginning; Calico's pools come later, with their kind."""
    def found(key):
        return cluster.get("egci", "default")["status"].get(key)
    ranges = [c for r in cluster.get("servicecidrs")["items"] for c in r["spec"]["cidrs"]]
    wait_for("the range of services", lambda: (found("clusterIP") or {}).get("ipv4") == ranges)
    assert found("podCidrMode") == "k8s" and found("podCIDR")["n1"]["ipv4"] == ["10.244.1.0/24"]
    names = {"plural": "ippools", "singular": "ippool", "kind": "IPPool", "listKind": "IPPoolList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ippools.crd.projectcalico.org"},
        "spec": {"group": "crd.projectcalico.org", "scope": "Cluster", "names": names,
                 "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}]}}))
    cluster.kubectl("wait", "--for=condition=Established", "crd/ippools.crd.projectcalico.org", "--timeout=20s")
    cluster.kubectl("create", "-f", "-", stdin=json.dumps({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pool"},
        "spec": {"cidr": "192.168.64.0/18"}}))
    wait_for("Calico's pool", lambda: found("podCIDR") == {"pool": {"ipv4": ["192.168.64.0/18"]}}, 20)
    assert found("podCidrMode") == "calico"


def test_an_outage_of_the_server_is_survived(cluster):
    cluster.say("kill")
    wait_for("word about it", lambda: "state store unavailable" in cluster.log("c2"))
    refused = cluster.egw("get", "egw")
    assert refused.returncode == 1 and len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    cluster.say("start")
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n3"}}))
    wait_for("the new node's tunnel", lambda: any(
        t["metadata"]["name"] == "n3" and t.get("status", {}).get("tunnel") for t in cluster.get("egt")["items"]), 30)
    assert all(p.poll() is None for p in cluster.processes[1:]), cluster.log("c2")


def test_kubectl_takes_every_sample(cluster):
    """What the documentation applies with egw, applied with kubectl, no field unknown. Nodes and pods are a kubelet's."""
    files = [os.path.join(CONFIG, "linux-gateway-objects.yaml"), *glob.glob(os.path.join(CONFIG, "manifests/*.yaml"))]
    for file in files:
        with open(file, encoding="utf-8") as f:
            ours = [d for d in yaml.safe_load_all(f) if d["apiVersion"].startswith("egressgateway.spidernet.io/")]
        shown = cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(
            {"apiVersion": "v1", "kind": "List", "items": [{**d, "metadata": {**d["metadata"], "name": "sample"}} for d in ours]}))
        assert ours and shown.count("created") == len(ours), shown


def explained(cluster, *path):
    return cluster.kubectl("explain", ".".join(path))


def test_kubectl_explains_every_field(cluster):
    asked = 0
    for file in sorted(os.listdir(CRDS)):
        if not file.endswith(".yaml"):
            continue
        with open(os.path.join(CRDS, file), encoding="utf-8") as f:
            definition = yaml.safe_load(f)
        names, (version,) = definition["spec"]["names"], definition["spec"]["versions"]
        fields = {}

        def walk(schema, path):
            while "properties" not in schema and ("items" in schema or "additionalProperties" in schema):
                schema = schema.get("items") or schema["additionalProperties"]
            for name, below in schema.get("properties", {}).items():
                assert name == "metadata" or below["description"], (*path, name)
                fields[(*path, name)] = below
                walk(below, (*path, name))

        walk(version["schema"]["openAPIV3Schema"], (names["shortNames"][0],))
        deepest = max(fields, key=len)
        text = " ".join(explained(cluster, *deepest).split())
        assert " ".join(fields[deepest]["description"].split()) in text and names["kind"] in text, text
        recursive = cluster.kubectl("explain", names["plural"], "--recursive")
        assert all(path[-1] + "\t<" in recursive for path in fields), recursive
        asked += len(fields)
    assert asked > 200


def test_kubectl_shows_the_columns_and_follows(cluster):
    """The whole category at once, and each kind with -w, which kubectl takes one at a time."""
    tunnel = {"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressTunnel", "metadata": {"name": "n1"}}
    for documents in (OBJECTS, json.dumps(tunnel)):
        cluster.kubectl("apply", "-f", "-", stdin=documents)
    shown = cluster.kubectl("get", "egw,egp,egcp,egt", "-A")
    assert "EGRESSNODE" in shown and "TUNNELMAC" in shown and "IPV4DEFAULTEIP" in shown, shown
    assert "egressgateway.egressgateway.spidernet.io/web" in cluster.kubectl("get", "egress", "-A", "-o", "name")
    columns = {"egw": "CLUSTERDEFAULT", "egp": "GATEWAY", "egcp": "EGRESSTUNNEL", "egt": "PHASE"}
    cluster.kubectl("apply", "-f", "-", stdin=OBJECTS.replace("kind: EgressPolicy", "kind: EgressClusterPolicy").replace(
        "{name: shop, namespace: default}", "{name: shop}"))
    for kind, column in columns.items():
        command = ["timeout", "20", "kubectl", "--kubeconfig", cluster.kubeconfig, "get", kind, "-w"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
            assert column in watch.stdout.readline()
            assert watch.stdout.readline().split()[0], kind
            watch.terminate()
