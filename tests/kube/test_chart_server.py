"""The chart on a real API server: installed with helm, its rights asked with tokens as a kubelet would fetch them, and
its containers run with what it rendered and nothing else."""

import base64
import ctypes
import functools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.parse

import pytest
import yaml

from helm_chart import CHART, HELM, NAMESPACE, OLD_VALUES, Rendered, kubelet
from kube_support import BUILD, start_server
from kube_support import wait_for as wait_at_most
from lab.chart import WORKLOADS  # where helm_chart says that it is

wait_for = functools.partial(wait_at_most, seconds=30)
GROUP = "egressgateway.spidernet.io"


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


HEALTH, WEBHOOK = free_ports(2)
# The webhook comes when a controller runs: without one the server refuses what the tests write.
VALUES = {"feature": {"tunnelMonitorPeriod": 1, "tunnelUpdatePeriod": 1, "eipEvictionTimeout": 3},
          "webhook": {"enabled": False},
          "controller": {"healthServer": {"port": HEALTH}, "prometheus": {"enabled": False}, "webhookPort": WEBHOOK,
                         "tls": {"auto": {"extraIpAddresses": ["127.0.0.1"]}}}}


class Cluster:
    """An API server with two nodes, and the chart's release `egw`."""

    def __init__(self):
        self.server, self.kubeconfig = start_server("--bare")
        with open(self.kubeconfig, encoding="utf-8") as f:
            server = json.load(f)["clusters"][0]["cluster"]
        self.url = urllib.parse.urlsplit(server["server"])
        self.authority = os.path.join(os.path.dirname(self.kubeconfig), server["certificate-authority"])
        self.folder = tempfile.mkdtemp(prefix="egw-chart-")
        self.values = os.path.join(self.folder, "values.yaml")
        with open(self.values, "w", encoding="utf-8") as f:
            yaml.safe_dump(VALUES, f)
        for name in ("n1", "n2"):
            self.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"egress": "true"}},
                         "spec": {"podCIDRs": [f"10.244.{name[1]}.0/24"]}})
            self.status("node", name, {"conditions": [{"type": "Ready", "status": "True"}],
                                       "addresses": [{"type": "InternalIP", "address": f"192.0.2.{name[1]}"}]})

    def kubectl(self, *arguments, stdin=None, token=None):
        who = ["--kubeconfig", self.kubeconfig]
        if token:  # the administrator's certificate or token must not come along
            who = ["--kubeconfig", "/dev/null", "--server", self.url.geturl(), "--certificate-authority", self.authority,
                   "--token", token]
        return subprocess.run(["kubectl", *who, *arguments], input=stdin, text=True, capture_output=True, check=False,
                              timeout=60)

    def must(self, *arguments, stdin=None):
        done = self.kubectl(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, document):
        self.must("create", "-f", "-", stdin=json.dumps(document))

    def status(self, kind, name, status):
        self.must("patch", kind, name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    def get(self, *what):
        return json.loads(self.must("get", *what, "-o", "json"))

    def helm(self, *arguments):
        return subprocess.run([HELM, "--kubeconfig", self.kubeconfig, "-n", NAMESPACE, *arguments], text=True,
                              capture_output=True, check=False, timeout=120)

    def config_map(self, name):
        return self.get("configmap", name, "-n", NAMESPACE)["data"]

    def pod(self, role, name, node=None):
        """The pod of a role; made when it is not there."""
        what = ("pod", name, "-n", NAMESPACE)
        if self.kubectl("get", *what).returncode != 0:
            self.create(kubelet.of(self.get(*WORKLOADS[role], "-n", NAMESPACE), name, node))
        return self.get(*what)

    def token_of(self, pod):
        """As a kubelet fetches it."""
        return self.must("create", "token", pod["spec"]["serviceAccountName"], "-n", NAMESPACE, "--bound-object-kind=Pod",
                         "--bound-object-name=" + pod["metadata"]["name"]).strip()

    def token(self, account, node=None):
        """Of the agent on the node, or of nobody's pod."""
        if node:
            return self.token_of(self.pod("agent", node, node))
        return self.must("create", "token", account, "-n", NAMESPACE).strip()

    def close(self):
        self.server.stdin.close()
        self.server.wait(timeout=20)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def cluster():
    c = Cluster()
    yield c
    c.close()


@pytest.fixture(scope="module")
def release(cluster):
    """The chart, installed."""
    done = cluster.helm("install", "egw", CHART, "--create-namespace", "-f", cluster.values)
    assert done.returncode == 0, done.stderr
    for plural in ("egresstunnels", "egressgateways"):
        wait_for(plural, lambda kind=plural: cluster.kubectl("get", kind).returncode == 0)
    return cluster


# ---- helm --------------------------------------------------------------------------------------------------


def test_the_server_would_take_it(cluster):
    """What helm install sends, each object judged by the server; and the notes for the older chart's values."""
    cluster.must("create", "namespace", NAMESPACE)
    rendered = Rendered(cluster.values)
    done = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=rendered.text)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(rendered.objects) + len(rendered.hooks)
    more = yaml.safe_dump(Rendered({"agent": {"securityContext": {"privileged": True}}}).one("DaemonSet"))
    done = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=more)
    assert done.returncode == 0, done.stderr
    cluster.must("delete", "namespace", NAMESPACE, "--wait=false")
    cluster.must("replace", "--raw", f"/api/v1/namespaces/{NAMESPACE}/finalize", "-f", "-", stdin=json.dumps(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}, "spec": {"finalizers": []}}))
    done = cluster.helm("install", "egw", CHART, "--create-namespace", "--dry-run=server", "-f", OLD_VALUES)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.split("NOTES:")[1]
    idle = notes.split("Without effect here")[1].splitlines()[0]
    assert "agent.cmdBinName" in idle and "agent.image" not in idle
    assert "egw-datapath-iptables.so" in notes and "controller.replicas is 1" in notes
    plain = cluster.helm("install", "egw", CHART, "--create-namespace", "--dry-run=server").stdout.split("NOTES:")[1]
    assert "Without effect" not in plain and "egw-datapath" not in plain, plain


def test_install_and_upgrade(release):
    deployment = release.get("deployment", "egressgateway-controller", "-n", NAMESPACE)
    assert deployment["spec"]["replicas"] == 2
    marks = []
    for timeout in ("3", "4"):
        done = release.helm("upgrade", "egw", CHART, "-f", release.values, "--set", f"feature.eipEvictionTimeout={timeout}",
                            "--set", "controller.replicas=3")
        assert done.returncode == 0, done.stderr
        agent = release.get("daemonset", "egressgateway-agent", "-n", NAMESPACE)
        marks.append(agent["spec"]["template"]["metadata"]["annotations"][GROUP + "/config"])
    assert marks[0] != marks[1]
    assert release.get("deployment", "egressgateway-controller", "-n", NAMESPACE)["spec"]["replicas"] == 3
    assert yaml.safe_load(release.get("configmap", "egressgateway", "-n", NAMESPACE)["data"]["egw.yaml"])[
        "feature"]["eipEvictionTimeout"] == 4
    done = release.helm("upgrade", "egw", CHART, "--set", "feature.eipEvictionTimeout=9")
    assert done.returncode != 0 and "expected more than tunnelMonitorPeriod" in done.stderr
    assert release.helm("upgrade", "egw", CHART, "-f", release.values).returncode == 0


def test_an_upgrade_leaves_what_controllers_have_written(release):
    name = "egressgateway-controller-webhook"
    on = ("upgrade", "egw", CHART, "-f", release.values, "--set", "webhook.enabled=true")
    assert release.helm(*on).returncode == 0
    release.must("patch", "secret", name, "-n", NAMESPACE, "--type=merge", "-p", '{"data": {"tls.crt": "eA=="}}')
    with open(release.authority, "rb") as f:
        bundle = base64.b64encode(f.read()).decode()
    kinds = ("validatingwebhookconfiguration", "mutatingwebhookconfiguration")
    for kind in kinds:
        release.must("patch", kind, name, "--type=json", "-p", json.dumps(
            [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]))
    done = release.helm(*on, "--set", "controller.replicas=4")
    assert done.returncode == 0, done.stderr
    assert release.get("secret", name, "-n", NAMESPACE)["data"] == {"tls.crt": "eA=="}
    for kind in kinds:
        assert release.get(kind, name)["webhooks"][0]["clientConfig"]["caBundle"] == bundle
    assert release.helm("upgrade", "egw", CHART, "-f", release.values).returncode == 0
    assert release.kubectl("get", "secret", name, "-n", NAMESPACE).returncode != 0


# ---- rights ------------------------------------------------------------------------------------------------

KINDS = ["egressgateways", "egresspolicies", "egressclusterpolicies", "egresstunnels", "egressclusterinfos"]
SLICES = ["egressendpointslices", "egressclusterendpointslices"]
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
LOOK, READ = {"list", "watch"}, {"get", "list", "watch"}
STATUS = {"update", "patch"}

# account -> (group, resource) -> verbs; nothing else is allowed.
ALLOWED = {
    "egressgateway-agent": {
        ("", "nodes"): LOOK, ("", "pods"): LOOK, ("", "namespaces"): LOOK,
        ("events.k8s.io", "events"): {"get", "create", "update"},
        **{(GROUP, kind): LOOK for kind in KINDS},
        (GROUP, "egresstunnels"): READ | {"update"}, (GROUP, "egresstunnels/status"): STATUS,
    },
    "egressgateway-controller": {
        ("", "nodes"): READ, ("", "namespaces"): READ, ("events.k8s.io", "events"): {"get", "create", "update"},
        **{(GROUP, kind + "/status"): STATUS for kind in KINDS},
        (GROUP, "egressgateways"): READ | {"update"}, (GROUP, "egresspolicies"): READ,
        (GROUP, "egressclusterpolicies"): READ, (GROUP, "egresstunnels"): READ | {"create", "update", "delete"},
        (GROUP, "egressclusterinfos"): READ | {"create", "update", "delete"},
        **{(GROUP, kind): READ | {"create", "update", "delete"} for kind in SLICES}, ("", "pods"): LOOK,
        ("crd.projectcalico.org", "ippools"): LOOK, ("networking.k8s.io", "servicecidrs"): LOOK,
        ("coordination.k8s.io", "leases"): {"create"},
    },
}
ASKED = [(GROUP, kind + part) for kind in [*KINDS, *SLICES] for part in ("", "/status", "/finalizers")] + [
    ("", r) for r in ("nodes", "nodes/status", "pods", "pods/exec", "namespaces", "secrets", "configmaps", "events",
                      "serviceaccounts", "serviceaccounts/token")] + [
    ("crd.projectcalico.org", "ippools"), ("networking.k8s.io", "servicecidrs"),
    ("events.k8s.io", "events"), ("apps", "daemonsets"), ("coordination.k8s.io", "leases"), ("rbac.authorization.k8s.io", "clusterroles"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"), ("apiextensions.k8s.io", "customresourcedefinitions")]


@pytest.mark.parametrize("account", ALLOWED)
def test_exactly_these_rights(release, account):
    reviews = []
    for group, resource in ASKED:
        main, _, sub = resource.partition("/")
        for verb in VERBS:
            reviews.append({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
                "user": f"system:serviceaccount:{NAMESPACE}:{account}",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:" + NAMESPACE, "system:authenticated"],
                "resourceAttributes": {"verb": verb, "group": group, "resource": main, "subresource": sub,
                                       "namespace": "default" if main == "events" else NAMESPACE}}})
    answers = release.must("create", "-o", 'jsonpath={.status.allowed}{"\\n"}', "-f", "-", stdin=json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": reviews})).split()
    assert len(answers) == len(ASKED) * len(VERBS)
    allowed = {}
    for (group, resource), verb, answer in ((a, v, answers[i * len(VERBS) + j]) for i, a in enumerate(ASKED)
                                            for j, v in enumerate(VERBS)):
        if answer == "true":
            allowed.setdefault((group, resource), set()).add(verb)
    assert allowed == ALLOWED[account]


def can(cluster, token, verb, what, namespace):
    done = cluster.kubectl("auth", "can-i", verb, what, "-n", namespace, token=token)
    answer = done.stdout.split()[:1]  # a reason may follow
    assert answer in (["yes"], ["no"]), done.stderr
    return answer == ["yes"]


def test_the_controller_has_its_two_leases(release):
    token = release.token("egressgateway-controller")
    for lease, allowed in (("egw-term", True), ("egw-controller", True), ("another", False)):
        for verb in ("get", "update"):
            assert can(release, token, verb, f"leases.coordination.k8s.io/{lease}", NAMESPACE) == allowed, (verb, lease)
    assert release.kubectl("get", "secrets", "-n", NAMESPACE, token=token).returncode != 0


def test_the_controller_sees_the_definition_of_calicos_kind_alone(release):
    token = release.token("egressgateway-controller")
    for name, allowed in (("ippools.crd.projectcalico.org", True), ("egressgateways.egressgateway.spidernet.io", False)):
        for verb in ("list", "watch"):
            what = f"customresourcedefinitions.apiextensions.k8s.io/{name}"
            assert can(release, token, verb, what, NAMESPACE) == allowed, (verb, name)


EVENTS = "events.events.k8s.io"


def test_events_are_written_where_their_objects_are(release):
    """A controller's in every namespace; an agent's are about its EgressTunnel and stand in `default`."""
    for account, elsewhere in (("egressgateway-controller", True), ("egressgateway-agent", False)):
        token = release.token(account)
        for verb in ("get", "create", "update"):
            assert can(release, token, verb, EVENTS, "default"), (account, verb)
            assert can(release, token, verb, EVENTS, NAMESPACE) == elsewhere, (account, verb)


@pytest.fixture(scope="module")
def tunnels(release):
    for name in ("n1", "n2"):
        release.create({"apiVersion": GROUP + "/v1beta1", "kind": "EgressTunnel", "metadata": {
            "name": name, "labels": {"a": "b"}, "annotations": {"x": "y"}}})
    # A policy judges from a moment after it was stored.
    token = release.token("egressgateway-agent", "n1")
    wait_for("policy", lambda: write_status(release, token, "n2").returncode != 0)
    yield release
    for tunnel in release.get("egt")["items"]:  # no controller runs that would take its finalizer off
        release.must("patch", "egt", tunnel["metadata"]["name"], "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    release.must("delete", "egt", "--all")


def write_status(cluster, token, name, phase="Init"):
    document = {**cluster.get("egt", name), "status": {"phase": phase}}
    return cluster.kubectl("replace", "--subresource=status", "-f", "-", stdin=json.dumps(document), token=token)


def replace(cluster, token, name, change):
    document = cluster.get("egt", name)
    change(document)
    return cluster.kubectl("replace", "-f", "-", stdin=json.dumps(document), token=token)


def test_an_agent_writes_the_status_of_its_own_tunnel_only(tunnels):
    for own, other in (("n1", "n2"), ("n2", "n1")):
        token = tunnels.token("egressgateway-agent", own)
        done = write_status(tunnels, token, own)
        assert done.returncode == 0, done.stderr
        assert tunnels.get("egt", own)["status"]["phase"] == "Init"
        done = write_status(tunnels, token, other, "Failed")
        assert done.returncode != 0, done.stdout
        assert f"the agent of node {own} changes only the EgressTunnel {own}, not {other}" in done.stderr
        assert tunnels.get("egt", other).get("status", {}).get("phase") != "Failed"


def test_a_token_of_no_node_writes_nothing(tunnels):
    done = write_status(tunnels, tunnels.token("egressgateway-agent"), "n1")
    assert done.returncode != 0 and "the agent's token is not bound to a node" in done.stderr, done.stderr


def test_of_its_tunnel_itself_an_agent_changes_the_drain_only(tunnels):
    token = tunnels.token("egressgateway-agent", "n1")
    drain = GROUP + "/drain"

    def note(key, value):
        return lambda o: o["metadata"]["annotations"].update({key: value})

    done = replace(tunnels, token, "n1", note(drain, "true"))
    assert done.returncode == 0, done.stderr
    assert tunnels.get("egt", "n1")["metadata"]["annotations"][drain] == "true"
    done = replace(tunnels, token, "n1", lambda o: o["metadata"]["annotations"].pop(drain))
    assert done.returncode == 0, done.stderr
    for name, change in {
            "another annotation": note("other", "1"), "changed annotation": note("x", "z"),
            "annotation taken away": lambda o: o["metadata"]["annotations"].pop("x"),
            "label": lambda o: o["metadata"]["labels"].update({"a": "c"}),
            "finalizer": lambda o: o["metadata"].update({"finalizers": [GROUP + "/egresstunnel"]}),
            "owner": lambda o: o["metadata"].update({"ownerReferences": [{
                "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"}]})}.items():
        done = replace(tunnels, token, "n1", change)
        assert done.returncode != 0 and "only the status and the annotation" in done.stderr, (name, done.stderr)
    done = replace(tunnels, token, "n2", note(drain, "true"))
    assert done.returncode != 0 and "only the EgressTunnel n1" in done.stderr, done.stderr


def test_the_policy_holds_where_the_roles_would_not(tunnels):
    """Somebody binds more to the agents' account: still nothing but the own tunnel is written."""
    tunnels.must("create", "clusterrolebinding", "mistake", "--clusterrole=cluster-admin",
                 f"--serviceaccount={NAMESPACE}:egressgateway-agent")
    try:
        token = tunnels.token("egressgateway-agent", "n1")
        wait_for("right", lambda: tunnels.kubectl("get", "secrets", "-A", token=token).returncode == 0)
        for words in (("delete", "egt", "n2"), ("delete", "egt", "n1"),
                      ("patch", "egci", "default", "--type=merge", "-p", '{"spec": {"extraCidr": ["10.0.0.0/8"]}}')):
            if words[1] == "egci":
                tunnels.create({"apiVersion": GROUP + "/v1beta1", "kind": "EgressClusterInfo", "metadata": {"name": "default"}})
            done = tunnels.kubectl(*words, token=token)
            assert done.returncode != 0 and "nothing but the EgressTunnel of its node" in done.stderr, done.stderr
        older = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "n", "namespace": "default"}, "type": "Normal",
                 "reason": "r", "message": "m", "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": "n1"}}
        for document in (event("n1", NAMESPACE, namespace=NAMESPACE), older):
            done = tunnels.kubectl("create", "-f", "-", stdin=json.dumps(document), token=token)
            assert done.returncode != 0 and "writes no events but those about the EgressTunnel n1" in done.stderr, done.stderr
    finally:
        tunnels.must("delete", "clusterrolebinding", "mistake")
        tunnels.must("delete", "egci", "--all")


def event(node, where="default", **about):
    about = {"apiVersion": GROUP + "/v1beta1", "kind": "EgressTunnel", "name": node, **about}
    return {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": f"{node}.test", "namespace": where},
            "regarding": about, "type": "Normal", "action": "Test", "reason": "Test", "note": "a test",
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "egw-agent", "reportingInstance": node}


def counted(document, count):
    return {**document, "series": {"count": count, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}


def test_an_agents_events_are_about_its_own_tunnel(tunnels):
    token = tunnels.token("egressgateway-agent", "n1")

    def write(verb, document, *more):
        return tunnels.kubectl(verb, "-f", "-", *more, stdin=json.dumps(document), token=token)

    wait_for("policy", lambda: write("create", event("n2"), "--dry-run=server").returncode != 0)
    for verb, document in (("create", event("n1")), ("replace", counted(event("n1"), 2))):
        done = write(verb, document)
        assert done.returncode == 0, done.stderr
    only = "the agent of node n1 writes no events but those about the EgressTunnel n1, in the namespace default"
    tunnels.create(event("n2"))
    refused = {"another node's": ("create", event("n2")), "a Node's": ("create", event("n1", apiVersion="v1", kind="Node")),
               "another group's": ("create", event("n1", apiVersion="other.test/v1")),
               "another node's, changed": ("replace", counted(event("n2"), 2))}
    for what, (verb, document) in refused.items():
        done = write(verb, document)
        assert done.returncode != 0 and only in done.stderr, (what, done.stderr)
    stolen = event("n1")
    stolen["metadata"]["name"] = "n2.test"
    for document in (stolen, event("n1", uid="another")):
        done = write("replace", document)
        # The server's own rule of these events comes first; the policy's is for those of the core group.
        assert done.returncode != 0 and "field is immutable" in done.stderr, done.stderr
    done = write("create", event("n1", NAMESPACE))
    assert done.returncode != 0 and "is forbidden: User" in done.stderr, done.stderr
    done = tunnels.kubectl("create", "-f", "-", stdin=json.dumps(event("n1")), token=tunnels.token("egressgateway-agent"))
    assert done.returncode != 0 and "the agent's token is not bound to a node" in done.stderr, done.stderr
    tunnels.must("delete", "events", "--all", "-n", "default")


# ---- the containers ----------------------------------------------------------------------------------------


class NodeNetwork:
    """A network namespace like a node's: an uplink with a default route, and the API server on its loopback, where a
    relay carries it over. (Listening sockets stay in the namespace in which they were made.)"""

    def __init__(self, name, port):
        self.name = name
        peer = name + "-up"
        for words in (f"netns add {name}", f"netns add {peer}",
                      f"link add eth0 netns {name} type veth peer name eth0 netns {peer}",
                      f"-n {name} link set lo up", f"-n {name} link set eth0 up", f"-n {peer} link set eth0 up",
                      f"-n {name} address add 192.0.2.1/24 dev eth0", f"-n {peer} address add 192.0.2.254/24 dev eth0",
                      f"-n {name} route add default via 192.0.2.254"):
            subprocess.run(["ip", *words.split()], check=True)
        self.peer = peer
        self.listener = None
        opener = threading.Thread(target=self.open, args=(port,))
        opener.start()
        opener.join()
        threading.Thread(target=self.relay, args=(port,), daemon=True).start()

    def open(self, port):
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{self.name}", encoding="utf-8") as there:
            assert libc.setns(there.fileno(), 0x40000000) == 0
        self.listener = socket.create_server(("127.0.0.1", port))

    def relay(self, port):
        def carry(source, sink):
            try:
                while data := source.recv(65536):
                    sink.sendall(data)
            except OSError:
                pass
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

        while True:
            try:
                inside, _ = self.listener.accept()
            except OSError:
                return
            outside = socket.create_connection(("127.0.0.1", port))
            for pair in ((inside, outside), (outside, inside)):
                threading.Thread(target=carry, args=pair, daemon=True).start()

    def close(self):
        self.listener.close()
        for name in (self.name, self.peer):
            subprocess.run(["ip", "netns", "delete", name], check=True)


def inside(netns):
    return ["nsenter", f"--net=/run/netns/{netns}", "--"] if netns else []


class Container:
    """The container of a role's pod as the server has it, run as a kubelet would (lab/pod.py)."""

    def __init__(self, cluster, role, name, node=None, netns=None):
        pod = cluster.pod(role, name, node)
        folder = os.path.join(cluster.folder, name)
        with open(cluster.authority, encoding="utf-8") as f:
            account = {"token": cluster.token_of(pod), "ca.crt": f.read(), "namespace": NAMESPACE}
        words = kubelet.run(pod, folder, BUILD, (cluster.url.hostname, cluster.url.port), cluster.config_map, account)
        self.folder = folder
        self.path = os.path.join(folder, "log")
        with open(self.path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([*inside(netns), *words], stdout=log, stderr=log)

    def log(self):
        with open(self.path, encoding="utf-8") as f:
            return f.read()

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        kubelet.clear(self.folder)


def ready(process, netns, port):
    ask = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/readyz', timeout=5)"
    done = subprocess.run([*inside(netns), "/usr/bin/python3", "-c", ask], capture_output=True, check=False)
    assert process.process.poll() is None, process.log()
    return done.returncode == 0


def enable_webhook(cluster):
    """As an upgrade does. No Service leads anywhere here, so the server is told the controller's own address."""
    done = cluster.helm("upgrade", "egw", CHART, "-f", cluster.values, "--set", "webhook.enabled=true")
    assert done.returncode == 0, done.stderr
    for kind, path in (("validatingwebhookconfiguration", "validate"), ("mutatingwebhookconfiguration", "mutate")):
        cluster.must("patch", kind, "egressgateway-controller-webhook", "--type=json", "-p", json.dumps([
            {"op": "remove", "path": "/webhooks/0/clientConfig/service"},
            {"op": "add", "path": "/webhooks/0/clientConfig/url", "value": f"https://127.0.0.1:{WEBHOOK}/{path}"}]))


def test_controller_and_agent_run_with_what_the_chart_rendered(release):
    enable_webhook(release)
    running = []
    network = NodeNetwork("egw-chart-n1", release.url.port)
    try:
        account = release.token("egressgateway-controller")
        controller = Container(release, "controller", "egw-controller-0")
        running.append(controller)
        wait_for("ready controller", lambda: ready(controller, None, HEALTH))
        wait_for("tunnel", lambda: release.kubectl("get", "egt", "n1").returncode == 0)
        secrets = [release.kubectl("get", "secret", *name, "-n", NAMESPACE, token=account).returncode
                   for name in (["egressgateway-controller-webhook"], [], ["sh.helm.release.v1.egw.v1"])]
        assert secrets[0] == 0 and 0 not in secrets[1:], "its own secret, and no other"
        # The agent may not switch forwarding on by itself: the node's owner does.
        subprocess.run(["ip", "netns", "exec", network.name, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        agent = Container(release, "agent", "n1", "n1", network.name)
        running.append(agent)
        wait_for("ready agent", lambda: ready(agent, network.name, 5810))
        wait_for("Ready tunnel", lambda: release.get("egt", "n1")["status"].get("phase") == "Ready")
        text = agent.log() + controller.log()
        assert "orbidden" not in text and "no permission" not in text, text
        # The container's /proc/sys is read-only: the host's was written.
        value = subprocess.run(["ip", "netns", "exec", network.name, "sysctl", "-n", "net.ipv4.conf.egress/vxlan.src_valid_mark",
                                "net.netfilter.nf_conntrack_tcp_be_liberal"], capture_output=True, text=True, check=True)
        assert value.stdout.split() == ["1", "1"], agent.log()
        leases = {i["metadata"]["name"]: i for i in release.get("lease", "-n", NAMESPACE)["items"]}
        assert leases["egw-controller"]["spec"]["holderIdentity"].startswith("egw-controller-0")
        assert "egw-term" in leases
        # The gateway gets an EIP on the node, which the controller writes with its own rights.
        release.create({"apiVersion": GROUP + "/v1beta1", "kind": "EgressGateway", "metadata": {"name": "web"}, "spec": {
            "ippools": {"ipv4": ["192.0.2.100"]}, "nodeSelector": {"selector": {"matchLabels": {"egress": "true"}}}}})
        assert release.get("egw", "web")["spec"]["ippools"]["ipv4DefaultEIP"] == "192.0.2.100", "the webhook's default"
        done = release.kubectl("patch", "egw", "web", "--type=merge", "-p", '{"spec": {"ippools": {"ipv4DefaultEIP": "192.0.2.9"}}}')
        assert done.returncode != 0 and "spec.ippools.ipv4DefaultEIP" in done.stderr, done.stderr
        release.create({"apiVersion": GROUP + "/v1beta1", "kind": "EgressPolicy", "metadata": {
            "name": "shop", "namespace": "default"}, "spec": {
                "egressGatewayName": "web", "appliedTo": {"podSelector": {"matchLabels": {"app": "shop"}}}}})
        wait_for("EIP on n1", lambda: release.get("egp", "shop").get("status", {}).get("node") == "n1")
        agent.process.kill()
        wait_for("HeartbeatTimeout", lambda: release.get("egt", "n1")["status"]["phase"] == "HeartbeatTimeout")
        wait_for("event of it", lambda: any(e["reason"] == "HeartbeatTimeout" for e in release.get("events", "-A")["items"]))
        assert "update tunnel status to HeartbeatTimeout" in controller.log()
        # A node that has gone: the tunnel is deleted.
        release.must("delete", "node", "n2")
        wait_for("end of the tunnel n2", lambda: release.kubectl("get", "egt", "n2").returncode != 0)
        text = agent.log() + controller.log()
        assert "orbidden" not in text and "no permission" not in text, text
    finally:
        for process in running:
            process.close()
        network.close()


def test_an_uninstall_leaves_definitions_and_objects(release):
    assert release.kubectl("get", "egw", "web").returncode == 0, "the test before has stored it"
    done = release.helm("uninstall", "egw", "--no-hooks")
    assert done.returncode == 0, done.stderr
    assert release.kubectl("get", "egw", "web").returncode == 0
    for kind in ("clusterrole", "clusterrolebinding", "validatingadmissionpolicy", "validatingadmissionpolicybinding"):
        assert "egressgateway" not in release.must("get", kind, "-o", "name"), kind
    done = release.helm("install", "egw", CHART, "-f", release.values)
    assert done.returncode == 0, done.stderr
