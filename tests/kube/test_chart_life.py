"""What comes after the chart's installation, on a real API server: its notes, another way to the webhook's certificate,
the verbs from outside and in a pod, and the removal with the commands of the chart's README."""

import json
import os
import signal
import subprocess

import pytest
import yaml

from helm_chart import CHART, NAMESPACE, kubelet
from test_chart_server import BUILD, GROUP, HEALTH, Cluster, Container, NodeNetwork, inside, ready, wait_for

EGW = os.path.join(BUILD, "bin/egw")
GATEWAY = {"apiVersion": GROUP + "/v1beta1", "kind": "EgressGateway", "metadata": {"name": "web"}, "spec": {
    "ippools": {"ipv4": ["192.0.2.100"]}, "nodeSelector": {"selector": {"matchLabels": {"egress": "true"}}}}}
POLICIES = [{"apiVersion": GROUP + "/v1beta1", "kind": kind, "metadata": {"name": "shop", **where}, "spec": {
    "egressGatewayName": "web", "appliedTo": {"podSelector": {"matchLabels": {"app": "shop"}}}}}
            for kind, where in (("EgressPolicy", {"namespace": "default"}), ("EgressClusterPolicy", {}))]


@pytest.fixture(scope="module")
def release():
    c = Cluster()
    done = c.helm("install", "egw", CHART, "--create-namespace", "-f", c.values)
    assert done.returncode == 0, done.stderr
    for plural in ("egresstunnels", "egressgateways", "egresspolicies", "egressclusterpolicies"):
        wait_for(plural, lambda kind=plural: c.kubectl("get", kind).returncode == 0)
    yield c
    c.close()


def from_readme(cluster, words):
    """Runs the block of the README that has these words, in the namespace of the tests."""
    with open(os.path.join(CHART, "README.md"), encoding="utf-8") as f:
        (block,) = [b for b in f.read().split("```")[1::2] if words in b]
    done = subprocess.run(["bash", "-ec", block.replace("-n egressgateway", "-n " + NAMESPACE)], text=True, check=False,
                          capture_output=True, timeout=60, cwd=os.path.join(CHART, "../.."),
                          env={**os.environ, "KUBECONFIG": cluster.kubeconfig})
    assert done.returncode == 0, done.stderr
    return done.stdout


def ignored_keys(schema, path=()):
    if "x-egw-ignored" in schema:
        yield path
    for key, below in schema.get("properties", {}).items():
        yield from ignored_keys(below, (*path, key))


def notes(release, values):
    path = os.path.join(release.folder, "notes.yaml")
    with open(path, "w", encoding="utf-8") as f:
        yaml.safe_dump(values, f)
    done = release.helm("upgrade", "egw", CHART, "--dry-run=server", "-f", path)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("NOTES:")[1]


def test_the_notes_name_what_has_no_effect(release):
    with open(os.path.join(CHART, "values.schema.json"), encoding="utf-8") as f:
        paths = list(ignored_keys(json.load(f)))
    assert ("feature", "mark") in paths and ("agent", "cmdBinName") in paths
    values = {}
    for path in paths:
        at = values
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = False
    line = next(line for line in notes(release, values).splitlines() if line.startswith("Without effect here"))
    assert set(line.rstrip(".").split(": ")[1].split(", ")) == {".".join(path) for path in paths}
    mine = notes(release, {"plugins": {"stateStore": {"name": "mine"}}})
    assert "plugins.stateStore.name is mine" in mine and "webhook.enabled" not in mine and "egresstunnels" not in mine
    off = notes(release, {"webhook": {"enabled": False}})
    assert "webhook.enabled is false" in off and "egresstunnels" in off


def test_there_is_one_release_in_a_cluster(release):
    """Two would share ports, folders and kernels, and the uninstall of one would purge the nodes of both."""
    more = ["--create-namespace", "--set", "agent.name=a2,controller.name=c2,crds.install=false"]
    done = release.helm("install", "two", CHART, "-n", "other", *more)
    assert done.returncode != 0 and f"is of another release of this chart ({NAMESPACE}/egw)" in done.stderr, done.stderr


def test_the_name_may_change(release):
    for name in ("foo", "egressgateway"):
        done = release.helm("upgrade", "egw", CHART, "-f", release.values, "--set",
                            "webhook.enabled=true,global.name=" + name)
        assert done.returncode == 0, done.stderr
        deployment = release.get("deployment", "egressgateway-controller", "-n", NAMESPACE)
        services = [s["spec"]["selector"] for s in release.get("services", "-n", NAMESPACE)["items"]]
        assert services and all(s.items() <= deployment["spec"]["template"]["metadata"]["labels"].items() for s in services)
    assert release.helm("upgrade", "egw", CHART, "-f", release.values).returncode == 0


def test_the_certificates_method_may_change(release):
    """A Secret's type cannot, and one that Helm has not made it does not take over."""
    provided = "controller.tls.method=provided," + ",".join(
        f"controller.tls.provided.{key}=eA==" for key in ("tlsCert", "tlsKey", "tlsCa"))
    for given in ("", "mine"):
        for values, name in (("", "egressgateway-controller-webhook"), (provided, "egressgateway-controller-webhook-provided"),
                             ("", "egressgateway-controller-webhook")):
            done = release.helm("upgrade", "egw", CHART, "-f", release.values, "--set", "webhook.enabled=true", "--set",
                                "controller.tls.secretName=" + given, *(["--set", values] if values else []))
            assert done.returncode == 0, done.stderr
            secrets = [s for s in release.get("secrets", "-n", NAMESPACE)["items"] if s["type"] == "Opaque"]
            assert [s["metadata"]["name"] for s in secrets] == [given or name]
            assert set(secrets[0].get("data", {})) == ({"tls.crt", "tls.key", "ca.crt"} if values else set())
    assert release.helm("upgrade", "egw", CHART, "-f", release.values).returncode == 0


def test_accounts_that_an_upgrade_would_take_away_stay(release):
    """As values.yaml has it: what the chart made, and agents' tokens are signed for, is left to whoever looks after it next."""
    def accounts():
        return {a["metadata"]["name"]: a["metadata"]["uid"] for a in release.get("serviceaccounts", "-n", NAMESPACE)["items"]
                if a["metadata"]["name"] != "default"}
    before = accounts()
    assert len(before) == 2
    for name in before:
        release.must("annotate", "serviceaccount", "-n", NAMESPACE, name, "helm.sh/resource-policy=keep")
    done = release.helm("upgrade", "egw", CHART, "-f", release.values, "--set",
                        "agent.serviceAccount.create=false,controller.serviceAccount.create=false")
    assert done.returncode == 0, done.stderr
    assert accounts() == before
    assert release.helm("upgrade", "egw", CHART, "-f", release.values).returncode == 0
    assert accounts() == before


def test_an_uninstall_that_came_too_early_is_mended(release):
    assert release.helm("uninstall", "egw", "--no-hooks").returncode == 0
    held = {**GATEWAY, "metadata": {"name": "held", "finalizers": [GROUP + "/egressgateway"]}}
    tunnel = {"apiVersion": GATEWAY["apiVersion"], "kind": "EgressTunnel",
              "metadata": {"name": "held", "finalizers": [GROUP + "/egresstunnel"]}}
    for document in (held, {**GATEWAY, "metadata": {"name": "free"}}, tunnel):
        release.create(document)
    for kind in ("egw", "egt"):
        release.must("delete", kind, "held", "--wait=false")
        assert release.get(kind, "held")["metadata"]["deletionTimestamp"]
    from_readme(release, "/metadata/finalizers")
    assert [o["metadata"]["name"] for o in release.get("egw")["items"]] == ["free"]
    assert release.kubectl("get", "egt", "held").returncode != 0
    release.must("delete", "egw", "free")
    done = release.helm("install", "egw", CHART, "-f", release.values)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def running(release):
    """A controller and the agent of n1, with what the chart rendered."""
    network = NodeNetwork("egw-removal-n1", release.url.port)
    subprocess.run(["ip", "netns", "exec", network.name, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
    processes = []
    try:
        processes.append(Container(release, "controller", "egw-controller-0"))
        wait_for("ready controller", lambda: ready(processes[0], None, HEALTH))
        processes.append(Container(release, "agent", "n1", "n1", network.name))
        wait_for("Ready tunnel", lambda: phase(release) == "Ready")
        yield processes[1], network
    finally:
        for process in processes:
            process.close()
        network.close()


def phase(cluster):
    done = cluster.kubectl("get", "egt", "n1", "-o", "jsonpath={.status.phase}")
    return done.stdout


def egw(words, env, stdin=None):
    clean = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"}
    done = subprocess.run([EGW, "--set", "plugins.stateStore.name=kube", *words], input=stdin, text=True, check=False,
                          capture_output=True, timeout=30, env={**clean, "HOME": "/nonexistent", **env})
    return done


def test_verbs_take_the_way_of_kubectl(release, running):
    for document in (GATEWAY, *POLICIES):
        done = egw(["apply", "-f", "-"], {"KUBECONFIG": release.kubeconfig}, json.dumps(document))
        assert done.returncode == 0, done.stderr
    assert release.get("egw", "web")["metadata"]["finalizers"] == [GROUP + "/egressgateway"]
    wait_for("EIP on n1", lambda: release.get("egp", "shop").get("status", {}).get("node") == "n1")
    done = egw(["--set", "plugins.stateStore.config.kubeconfig=" + release.kubeconfig, "get", "egw", "-o", "name"], {})
    assert (done.returncode, done.stdout.strip()) == (0, f"egressgateway.{GROUP}/web"), done.stderr


def test_verbs_in_a_controllers_pod(release, running):
    folder = os.path.join(release.folder, "account-of-verbs")
    os.mkdir(folder)
    with open(release.authority, encoding="utf-8") as f:
        files = {"token": release.token("egressgateway-controller"), "ca.crt": f.read(), "namespace": NAMESPACE}
    for name, text in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)
    env = {"KUBERNETES_SERVICE_HOST": release.url.hostname, "KUBERNETES_SERVICE_PORT": str(release.url.port)}

    def verb(*words):
        done = egw(["--set", "plugins.stateStore.config.serviceAccountFolder=" + folder, *words], env)
        assert "orbidden" not in done.stderr, done.stderr
        return done

    assert "n1" in verb("status").stdout
    for kind in ("node", "egw", "egp", "egcp", "egt", "egci"):
        name = {"node": "n1", "egt": "n1", "egw": "web", "egci": "default"}.get(kind, "shop")
        done = verb("get", kind, name, "-o", "name")
        assert done.returncode == 0 and done.stdout.strip().endswith("/" + name), done.stderr
    for word in ("drain", "undrain"):
        assert verb(word, "n1").returncode == 0
    done = verb("vip", "move", "web", "192.0.2.100", "--to", "n2")
    assert "192.0.2.100 not moved to n2: " in done.stderr and "no leader" not in done.stderr, "the leader has answered"
    done = egw(["--set", "plugins.stateStore.config.serviceAccountFolder=" + folder, "delete", "egp", "shop"], env)
    assert done.returncode == 1 and "no permission" in done.stderr, done.stderr


def run_purge(release, network, pod):
    """As a kubelet would, on the node of the agent n1: with its disk and in its network."""
    words = kubelet.run(pod, os.path.join(release.folder, "n1"), BUILD, (release.url.hostname, release.url.port), None, {})
    try:
        return subprocess.run([*inside(network.name), *words], text=True, capture_output=True, check=False, timeout=60)
    finally:
        kubelet.clear(os.path.join(release.folder, "n1"))


def in_kernel(network):
    """What egw leaves in the kernel of a node."""
    def ask(*words):
        return subprocess.run([*inside(network.name), *words], text=True, capture_output=True, check=True).stdout

    liberal = ask("sysctl", "-n", "net.netfilter.nf_conntrack_tcp_be_liberal").strip()
    return "egress.vxlan" in ask("ip", "link"), len(ask("ip", "rule").splitlines()) > 3, bool(ask("nft", "list", "tables")), liberal


def test_the_removal_that_the_readme_describes(release, running):
    """With a node whose agent does not answer; tests/kube/test_uninstall.py has the rest."""
    agent, network = running
    agent.process.send_signal(signal.SIGSTOP)
    done = egw(["uninstall", "--timeout", "2"], {"KUBECONFIG": release.kubeconfig})
    assert done.returncode == 1 and 'node "n1" is left' in done.stderr and "n2" not in done.stderr, done.stderr
    assert release.helm("uninstall", "egw", "--no-hooks").returncode == 0
    from_readme(release, "job,serviceaccount")
    release.must("label", "node", "n1", "n2", "kubernetes.io/os=linux")  # as a kubelet does
    from_readme(release, "purge-node.yaml")
    pods = {n: release.get("pod", "egw-purge-" + n, "-n", NAMESPACE) for n in ("n1", "n2")}
    assert all(pod["spec"]["nodeName"] == n for n, pod in pods.items())
    assert pods["n1"]["spec"]["containers"][0]["image"] == "REGISTRY/egw:0.1.0"
    assert in_kernel(network) == (True, True, True, "1")
    done = run_purge(release, network, pods["n1"])
    assert done.returncode == 1 and "an agent runs with this state folder: stop it first" in done.stderr
    agent.process.kill()
    agent.close()
    done = run_purge(release, network, pods["n1"])
    assert done.returncode == 0 and "purged" in done.stdout, done.stderr
    assert in_kernel(network) == (False, False, False, "0")


def test_the_definitions_go_last(release):
    from_readme(release, "kubectl delete -f config/crds")
    assert "egressgateway" not in release.must("get", "crd", "-o", "name")
