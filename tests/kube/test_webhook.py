"""The admission webhook of two controllers on a real API server, seen with kubectl."""

import base64
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime

import pytest
from kube_support import GATEWAY, POLICY, wait_for
from test_egw import Cluster

PORTS = {"c1": 25822, "c2": 25823, "provided": 25824}
HEALTH = {"c1": 25810, "c2": 25812, "provided": 25814}
CONTROLLERS = "system:serviceaccount:egw-system:egw"

RULES = [(["CREATE", "UPDATE"], ["egressgateways", "egresspolicies", "egressclusterpolicies", "egressclusterinfos"]),
         (["DELETE"], ["egressgateways", "egressclusterinfos"])]


def configuration(kind, path, rules):
    """Both replicas are asked, so that the one that does not lead is asked too."""
    return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "egw-webhook"}, "webhooks": [
        {"name": f"{name}.egressgateway.spidernet.io", "admissionReviewVersions": ["v1"], "sideEffects": "None",
         "failurePolicy": "Fail", "timeoutSeconds": 5,
         "clientConfig": {"url": f"https://127.0.0.1:{PORTS[name]}{path}"},
         "rules": [{"apiGroups": ["egressgateway.spidernet.io"], "apiVersions": ["v1beta1"], "operations": operations,
                    "resources": resources} for operations, resources in rules]}
        for name in ("c1", "c2")]}


class WebhookCluster(Cluster):
    def __init__(self):
        super().__init__()
        for kind, path, rules in (("ValidatingWebhookConfiguration", "/validate", RULES),
                                  ("MutatingWebhookConfiguration", "/mutate", RULES[:1])):
            self.kubectl("create", "-f", "-", stdin=json.dumps(configuration(kind, path, rules)))

    def serve(self, name, **more):
        settings = {"enabled": "true", "address": "127.0.0.1", "port": PORTS[name], "names": "[127.0.0.1]", **more}
        arguments = ["--state-dir", os.path.join(self.folder.name, name), "--node-name", name,
                     "--set", f"controller.healthPort={HEALTH[name]}", "--set", f"controller.metricsPort={HEALTH[name] + 1}"]
        for key, value in settings.items():
            arguments += ["--set", f"plugins.stateStore.config.webhook.{key}={value}"]
        with open(os.path.join(self.folder.name, name + ".log"), "w", encoding="utf-8") as log:
            process = subprocess.Popen(self.command(self.service_account, *arguments, "controller"), stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def attempt(self, *arguments, stdin=None):
        return subprocess.run(["kubectl", "--kubeconfig", self.kubeconfig, *arguments], input=stdin, text=True,
                              capture_output=True, check=False, timeout=60)

    def secret(self):
        data = self.get("secret", "egw-webhook", "-n", "egw-system").get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def bundles(self):
        return [hook["clientConfig"].get("caBundle") for kind in ("validatingwebhookconfiguration", "mutatingwebhookconfiguration")
                for hook in self.get(kind, "egw-webhook")["webhooks"]]


def ready(name):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{HEALTH[name]}/readyz", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def shown(name):
    """The certificate that a client is shown."""
    return ssl.get_server_certificate(("127.0.0.1", PORTS[name]), timeout=5)


def same(pem, other):
    return ssl.PEM_cert_to_DER_cert(pem) == ssl.PEM_cert_to_DER_cert(other)


def ask(port, path, body):
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=ssl._create_unverified_context())
    connection.request("POST", path, body)
    return connection.getresponse()


@pytest.fixture(scope="module")
def cluster():
    c = WebhookCluster()
    try:
        refused = c.attempt("create", "-f", "-", stdin=GATEWAY)
        assert refused.returncode != 0 and "failed calling webhook" in refused.stderr, "nobody serves as yet"
        for name in ("c1", "c2"):
            c.serve(name)
        for name in ("c1", "c2"):
            wait_for(f"{name} to be ready", lambda name=name: ready(name))
        assert all(c.bundles()), "ready means that the API server knows whom to trust"
        # It hears of that a moment later.
        wait_for("the webhook to be asked", lambda: c.attempt("create", "--dry-run=server", "-f", "-", stdin=GATEWAY).returncode == 0)
        yield c
    finally:
        c.close()


def sentences(stderr):
    """What admission says of each field, without the words around it."""
    return set(re.findall(r"spec\.\S+: .*?(?=\s+spec\.|\s+Error: |$)", " ".join(stderr.split())))


def test_defaults_are_filled_in(cluster):
    dry = cluster.attempt("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=GATEWAY)
    assert json.loads(dry.stdout)["spec"]["ippools"]["ipv4DefaultEIP"] == "10.9.0.10", dry.stderr
    assert cluster.get("egw")["items"] == [], "a dry run stores nothing"
    cluster.kubectl("create", "-f", "-", stdin=GATEWAY)
    stored = cluster.get("egw", "web")
    assert stored["spec"]["ippools"]["ipv4DefaultEIP"] == "10.9.0.10"
    assert "egressgateway.spidernet.io/egressgateway" in stored["metadata"]["finalizers"]
    cluster.kubectl("label", "namespace", "default", "spidernet.io/egressgateway-default=web")
    cluster.kubectl("create", "-f", "-", stdin=POLICY.replace("  egressGatewayName: web\n", ""))
    policy = cluster.get("egp", "shop")
    assert policy["spec"]["egressGatewayName"] == "web" and policy["spec"]["egressIP"]["allocatorPolicy"] == "default"
    assert cluster.get("egci", "default")["metadata"]["name"] == "default", "the leader's own writes pass"


@pytest.mark.parametrize("bad", [
    GATEWAY.replace("name: web", "name: other"),  # the same addresses
    GATEWAY.replace("name: web", "name: other").replace("10.9.0.10-10.9.0.20", "10.9.1.20-10.9.1.10"),
    POLICY.replace("name: shop", "name: other").replace("spec:", "spec:\n  egressIP: {ipv4: 10.99.0.1}"),
    POLICY.replace("app: shop}}}", "app: shop}}}\n  destSubnet: [10.0.0.0/99, nonsense]").replace("name: shop", "name: other"),
], ids=["same addresses", "reversed range", "foreign address", "two prefixes"])
def test_a_refusal_has_the_words_of_egw_apply(cluster, bad):
    by_kubectl = cluster.attempt("create", "-f", "-", stdin=bad)
    by_egw = cluster.egw("apply", "-f", "-", stdin=bad)
    assert by_kubectl.returncode != 0 and "denied the request" in by_kubectl.stderr, by_kubectl.stderr
    assert by_egw.returncode == 1 and sentences(by_egw.stderr)
    assert sentences(by_kubectl.stderr) == sentences(by_egw.stderr)


def test_a_change_is_judged_by_what_it_changes(cluster):
    moved = cluster.attempt("patch", "egp", "shop", "--type=merge", "-p", '{"spec": {"egressGatewayName": "other"}}')
    assert moved.returncode != 0 and "cannot be changed" in moved.stderr, moved.stderr
    cluster.kubectl("patch", "egp", "shop", "--type=merge", "-p", '{"spec": {"priority": 5}}')
    cluster.kubectl("patch", "egp", "shop", "--subresource=status", "--type=merge", "-p", '{"status": {"node": "n1"}}')


def test_a_warning_reaches_the_writer_once(cluster):
    lonely = POLICY.replace("name: shop", "name: lonely").replace("Name: web", "Name: nowhere")
    done = cluster.attempt("create", "-f", "-", stdin=lonely)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning:") == 1 and "nowhere" in done.stderr, done.stderr
    cluster.kubectl("delete", "egp", "lonely")


def gateway_reads(cluster):
    """How often controllers have read a gateway by name so far."""
    return sum(1 for e in audited(cluster) if e["verb"] == "get" and e["user"]["username"] == CONTROLLERS
               and e.get("objectRef", {}).get("resource") == "egressgateways" and "subresource" not in e["objectRef"])


def audited(cluster):
    with open(os.path.join(os.path.dirname(cluster.kubeconfig), "audit.log"), encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.endswith("\n")]


def test_an_answer_does_not_lie_unread_between_watches(cluster):
    """Lists that grow, beside watches of the same gateways that bring much: what the webhook reads must come at once."""
    for i in range(60):
        gateway = {"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressGateway", "metadata": {"name": f"many{i}"},
                   "spec": {"ippools": {"ipv4": [f"10.50.{i}.10-10.50.{i}.20"]},
                            "nodeSelector": {"selector": {"matchLabels": {"egress": "true"}}}}}
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(
            {"apiVersion": "v1", "kind": "List", "items": [gateway, policy_of(f"many{i}", f"many{i}")]}))

    def seconds(entry):
        times = [datetime.fromisoformat(entry[key].replace("Z", "+00:00")) for key in ("requestReceivedTimestamp", "stageTimestamp")]
        return (times[1] - times[0]).total_seconds()

    slow = [(e["requestURI"], seconds(e)) for e in audited(cluster)
            if e["verb"] == "create" and e.get("objectRef", {}).get("resource") == "egressgateways" and seconds(e) > 2]
    assert not slow, slow
    cluster.kubectl("delete", "egp", *[f"many{i}" for i in range(60)])
    cluster.kubectl("delete", "egw", *[f"many{i}" for i in range(60)])


def test_many_policies_do_not_cost_a_read_each(cluster):
    def create(prefix):
        items = [policy_of(f"{prefix}{i}") for i in range(20)]
        cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    create("warm")  # from the first question on the gateways are watched
    before = gateway_reads(cluster)
    create("many")
    # 20 policies are 80 questions here: two replicas, each to mutate and to validate.
    assert gateway_reads(cluster) - before <= 2
    cluster.kubectl("delete", "egp", *[f"{prefix}{i}" for prefix in ("warm", "many") for i in range(20)])


def policy_of(name, gateway="web", **egress_ip):
    return {"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressPolicy",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"egressGatewayName": gateway, "egressIP": egress_ip, "appliedTo": {"podSelector": {"matchLabels": {"app": name}}}}}


def test_a_policy_right_after_what_it_needs_is_let_in_without_a_word(cluster):
    """What the webhook remembers may be older: a refusal or a warning for want of something is looked up first."""
    for i in range(15):
        gateway = json.loads(cluster.kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", stdin=GATEWAY.replace(
            "name: web", f"name: quick{i}").replace("10.9.0.", f"10.11.{i}.")))
        wider = json.loads(json.dumps(gateway))
        wider["spec"]["ippools"]["ipv4"].append(f"10.12.{i}.1")
        for items in ([gateway, policy_of(f"quick{i}", f"quick{i}", ipv4=f"10.11.{i}.12")],
                      [wider, policy_of(f"wider{i}", f"quick{i}", ipv4=f"10.12.{i}.1")]):
            done = cluster.attempt("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
            assert done.returncode == 0 and "Warning: spec" not in done.stderr, done.stderr
    cluster.kubectl("delete", "egp", *[f"{kind}{i}" for kind in ("quick", "wider") for i in range(15)])
    cluster.kubectl("delete", "egw", *[f"quick{i}" for i in range(15)])


def test_deletion_is_judged_and_a_finalizer_goes(cluster):
    kept = cluster.attempt("delete", "egci", "default")
    assert kept.returncode != 0 and "cannot be deleted" in kept.stderr, kept.stderr
    unused = GATEWAY.replace("name: web", "name: unused").replace("10.9.0.", "10.9.5.")
    cluster.kubectl("create", "-f", "-", stdin=unused)
    done = cluster.attempt("delete", "egw", "unused", "--timeout=20s")  # the leader takes the finalizer off
    assert done.returncode == 0, done.stderr


def looks(cluster, *verbs):
    """At the Secret and the two configurations, by controllers, so far."""
    names = ("secrets", "validatingwebhookconfigurations", "mutatingwebhookconfigurations")
    return [e for e in audited(cluster) if e["verb"] in verbs and e["user"]["username"] == CONTROLLERS
            and e.get("objectRef", {}).get("resource") in names]


def test_what_is_looked_after_costs_no_requests(cluster):
    before = len(looks(cluster, "get", "list", "watch", "update"))
    time.sleep(22)  # two looks of each replica
    assert len(looks(cluster, "get", "list", "watch", "update")) == before
    assert len(looks(cluster, "get")) <= 2 * 3 * 3, "when it began, and when another replica had written"
    streams = "WatchList=false" not in os.environ.get("EGW_TEST_FEATURE_GATES", "")
    answers = [200] if streams else [200, 422]  # a server that knows no streaming lists says so once
    for entry in looks(cluster, "list", "watch"):
        assert entry["responseStatus"]["code"] in answers and "metadata.name" in entry["requestURI"], entry


def test_a_certificate_that_is_lost_is_made_anew_and_shared(cluster):
    before = cluster.secret()
    assert same(shown("c1"), before["tls.crt"]) and same(shown("c2"), before["tls.crt"])
    cluster.kubectl("patch", "secret", "egw-webhook", "-n", "egw-system", "--type=merge", "-p", '{"data": {"tls.key": ""}}')
    wait_for("another certificate", lambda: cluster.secret()["tls.crt"] != before["tls.crt"])
    after = cluster.secret()
    assert after["ca.crt"] == before["ca.crt"], "its authority is as good as it was"
    for name in ("c1", "c2"):
        wait_for("it to be shown", lambda name=name: same(shown(name), after["tls.crt"]))
    cluster.kubectl("annotate", "egp", "shop", "--overwrite", "test=rotated")


def test_a_new_authority_is_trusted_beside_the_old_one(cluster):
    before = cluster.secret()
    cluster.kubectl("patch", "secret", "egw-webhook", "-n", "egw-system", "--type=merge", "-p", '{"data": {"ca.key": ""}}')
    wait_for("another authority", lambda: cluster.secret()["ca.crt"] != before["ca.crt"])
    after = cluster.secret()
    assert after["ca.crt"].endswith(before["ca.crt"]) and after["tls.crt"] == before["tls.crt"]
    wanted = base64.b64encode(after["ca.crt"].encode()).decode()
    wait_for("the API server to be told", lambda: set(cluster.bundles()) == {wanted})
    cluster.kubectl("annotate", "egp", "shop", "--overwrite", "test=authority")


def test_a_wrong_authority_is_noticed_and_put_right(cluster):
    own = cluster.bundles()
    with open(cluster.kubeconfig, encoding="utf-8") as f:
        server = urllib.parse.urlsplit(json.load(f)["clusters"][0]["cluster"]["server"])
    wrong = base64.b64encode(ssl.get_server_certificate((server.hostname, server.port)).encode()).decode()
    cluster.kubectl("patch", "mutatingwebhookconfiguration", "egw-webhook", "--type=json", "-p",
                    json.dumps([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": wrong}]))
    refused = wait_for("a refusal", lambda: (lambda done: done.returncode != 0 and done.stderr)(
        cluster.attempt("annotate", "egp", "shop", "--overwrite", "test=wrong", "--dry-run=server")))
    assert "x509" in refused, refused
    wait_for("a word about it", lambda: "caBundle" in cluster.log("c1"))
    wait_for("it to be put right", lambda: cluster.bundles() == own, 5)
    wait_for("service", lambda: cluster.attempt("annotate", "egp", "shop", "--overwrite", "test=right").returncode == 0)


def test_provided_files_are_served_and_read_again(cluster):
    folder = os.path.join(cluster.folder.name, "provided-certificate")
    os.mkdir(folder)

    def provide(files):
        for key in ("tls.crt", "tls.key", "ca.crt"):
            with open(os.path.join(folder, key), "w", encoding="utf-8") as f:
                f.write(files[key])

    first = cluster.secret()
    provide(first)
    process = cluster.serve("provided", certificate="provided", folder=folder)
    wait_for("it to be ready", lambda: ready("provided"))
    assert same(shown("provided"), first["tls.crt"])
    cluster.kubectl("patch", "secret", "egw-webhook", "-n", "egw-system", "--type=merge", "-p", '{"data": {"tls.crt": ""}}')
    wait_for("another certificate", lambda: cluster.secret()["tls.crt"] not in ("", first["tls.crt"]))
    second = cluster.secret()
    provide({**second, "tls.key": first["tls.key"]})
    wait_for("a word about it", lambda: "the key is not that of the certificate" in cluster.log("provided"))
    assert same(shown("provided"), first["tls.crt"]) and ready("provided"), "the last good one stays"
    provide(second)
    wait_for("the new one", lambda: same(shown("provided"), second["tls.crt"]))
    process.terminate()
    assert process.wait(timeout=10) == 0


def test_nonsense_is_answered_with_400_and_nobody_dies(cluster):
    for body in (b"", b"{}", b"[" * 100000, b"\xff" * 1000, b'{"kind": "AdmissionReview"}', os.urandom(5000)):
        assert ask(PORTS["c1"], "/validate", body).status == 400
    assert ask(PORTS["c1"], "/elsewhere", b"{}").status == 404
    with socket.create_connection(("127.0.0.1", PORTS["c1"]), timeout=5) as raw:
        raw.sendall(os.urandom(10000))
    cluster.kubectl("annotate", "egp", "shop", "--overwrite", "test=alive")
    assert all(p.poll() is None for p in cluster.processes[:2])


def test_without_the_secrets_permission_it_says_so(cluster):
    cluster.processes[0].terminate()
    assert cluster.processes[0].wait(timeout=10) == 0
    cluster.kubectl("delete", "rolebinding", "egw-webhook", "-n", "egw-system")
    cluster.processes[0] = cluster.serve("c1")
    wait_for("a word about it", lambda: "no permission to get secrets/v1" in cluster.log("c1"))
    assert not ready("c1")


def test_without_controllers_policies_go_and_nothing_else_changes(cluster):
    for process in cluster.processes[:2]:
        process.terminate()
        assert process.wait(timeout=10) == 0
    refused = cluster.attempt("annotate", "egp", "shop", "--overwrite", "test=nobody")
    assert refused.returncode != 0 and "failed calling webhook" in refused.stderr, refused.stderr
    gone = cluster.attempt("delete", "egp", "shop", "--timeout=20s")
    assert gone.returncode == 0, gone.stderr
