"""What a real API server refuses a controller: one object by its schema or by a policy, a verb, a Lease, an event. Each is
told in one line and tried again with growing pauses, and everybody else is served. What it does not serve is hardly asked for;
and of two elections over the same objects one leads."""

import json
import os
import subprocess
import time

import pytest
from kube_support import GATEWAY, POLICY, wait_for
from test_egw import Cluster

WINDOW_S = 8  # in which a storm would come
ATTEMPTS = 6  # that growing pauses allow in it: at 0, 1, 3, 7 s, and one more for a status that changes
PORTS = {"c1": 15850, "c2": 15860}
BEGAN = time.time()


class Refusing(Cluster):
    def start(self, name, *settings):
        with open(os.path.join(self.folder.name, name + ".log"), "w", encoding="utf-8") as log:
            process = subprocess.Popen(
                self.command(self.service_account, "--state-dir", os.path.join(self.folder.name, name), "--node-name", name,
                             *[w for s in (f"controller.healthPort={PORTS[name]}", f"controller.metricsPort={PORTS[name] + 1}",
                                           *settings) for w in ("--set", s)], "controller"), stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def lines(self, words, name="c1"):
        return [line for line in self.log(name).splitlines() if words in line]

    def audit(self, resource, *verbs, name=None):
        """What the controllers asked for; of a watch there are two entries, when it begins and when it ends."""
        known = set()
        with open(os.path.join(os.path.dirname(self.kubeconfig), "audit.log"), encoding="utf-8") as f:
            for line in f:
                if not line.endswith("\n"):
                    return  # it is being written
                entry = json.loads(line)
                target = entry.get("objectRef", {})
                if (target.get("resource") == resource and entry["verb"] in verbs and (name in (None, target.get("name")))
                        and "system:serviceaccount:egw-system:egw" == entry["user"].get("username")
                        and entry["auditID"] not in known):
                    known.add(entry["auditID"])
                    yield entry

    def count(self, *what, **more):
        return len(list(self.audit(*what, **more)))

    def change(self, kind, name, change, *namespace):
        """Changes an object by `change` and returns what undoes it."""
        before = self.get(kind, name, *namespace)
        after = json.loads(json.dumps(before))
        change(after)
        self.replace(after)
        return lambda: self.replace(before)

    def replace(self, what):
        what["metadata"].pop("resourceVersion", None)
        self.kubectl("replace", "-f", "-", stdin=json.dumps(what))

    def kubectl_says(self, answer, verb, what):
        """Whether the controller may, by the server's word."""
        done = subprocess.run(["kubectl", "--kubeconfig", self.service_account, "auth", "can-i", verb, what, "-n", "default"],
                              text=True, capture_output=True, check=False, timeout=20)
        return done.stdout.split()[:1] == [answer]

    def policy(self, name):
        self.kubectl("create", "-f", "-", stdin=POLICY.replace("name: shop", f"name: {name}"))

    def judged(self, name, kind="egp"):
        """Whether the leader has written the policy's status. There are no agents, so no EIPs either."""
        return bool(self.get(kind, name).get("status", {}).get("conditions"))


@pytest.fixture(scope="module")
def cluster():
    c = Refusing()
    try:
        c.kubectl("create", "-f", "-", stdin=GATEWAY)
        c.start("c1")
        c.policy("first")
        wait_for("a status", lambda: c.judged("first"))
        yield c
    finally:
        c.close()


def rule_of(role, resource):
    return next(r for r in role["rules"] if resource in r["resources"] and "create" in r["verbs"])


def test_a_schema_that_refuses_a_status(cluster):
    some = {"type": "X", "status": "True", "reason": "X", "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}

    def narrow(crd):
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        schema["properties"]["status"]["properties"]["conditions"]["maxItems"] = 0

    restore = cluster.change("crd", "egresspolicies.egressgateway.spidernet.io", narrow)
    try:
        # Which the server looks at a moment later.
        wait_for("the schema", lambda: subprocess.run(
            ["kubectl", "--kubeconfig", cluster.kubeconfig, "patch", "egp", "first", "--subresource=status", "--type=merge", "-p",
             json.dumps({"status": {"conditions": [some]}}), "--dry-run=server"], capture_output=True, check=False).returncode != 0)
        before = cluster.count("egresspolicies", "update", "patch")
        cluster.policy("narrow-1")
        cluster.policy("narrow-2")
        wait_for("word", lambda: cluster.lines("default/narrow-2"))
        time.sleep(WINDOW_S)
        assert cluster.count("egresspolicies", "update", "patch") - before <= 2 * ATTEMPTS
        for name in ("narrow-1", "narrow-2"):
            (line,) = cluster.lines("default/" + name)
            assert "a write was refused" in line and "status.conditions" in line and "kubectl apply -f config/crds" in line, line
        other = POLICY.replace("kind: EgressPolicy", "kind: EgressClusterPolicy").replace(
            "{name: shop, namespace: default}", "{name: other}")
        cluster.kubectl("create", "-f", "-", stdin=other)
        wait_for("the others' status", lambda: cluster.judged("other", "egcp"), 3)
    finally:
        restore()
    wait_for("what was refused", lambda: cluster.judged("narrow-1") and cluster.judged("narrow-2"), 40)
    assert not cluster.lines("plans do not settle")


def test_a_policy_of_the_cluster_that_denies_one_object(cluster):
    api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "deny-one"}}
    policy = {**api, "kind": "ValidatingAdmissionPolicy", "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": ["egressgateway.spidernet.io"], "apiVersions": ["*"],
                                                "operations": ["UPDATE"], "resources": ["egresspolicies/status"]}]},
        "validations": [{"expression": "object.metadata.name != 'denied'", "message": "not this one"}]}}
    binding = {**api, "kind": "ValidatingAdmissionPolicyBinding", "spec": {"policyName": "deny-one", "validationActions": ["Deny"]}}
    for o in (policy, binding):
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(o))
    try:
        cluster.policy("denied")
        # The server heeds it a moment later.
        def heeded():
            done = subprocess.run(["kubectl", "--kubeconfig", cluster.kubeconfig, "patch", "egp", "denied", "--subresource=status",
                                   "--type=merge", "-p", '{"status": {}}', "--dry-run=server"], capture_output=True, check=False)
            return done.returncode != 0
        wait_for("the policy", heeded)
        cluster.kubectl("delete", "egp", "denied")
        before = cluster.count("egresspolicies", "update", "patch", name="denied")
        cluster.policy("denied")
        cluster.policy("allowed")
        wait_for("the others' status", lambda: cluster.judged("allowed"), 3)
        wait_for("word", lambda: cluster.lines("not this one"))
        time.sleep(WINDOW_S)
        assert cluster.count("egresspolicies", "update", "patch", name="denied") - before <= ATTEMPTS
        (line,) = cluster.lines("not this one")
        assert "object=default/denied" in line and "deny-one" in line and "config/crds" not in line, line
    finally:
        cluster.kubectl("delete", "validatingadmissionpolicybinding", "deny-one")
    wait_for("what was denied", lambda: cluster.judged("denied"), 40)


def test_a_verb_that_is_taken_away(cluster):
    restore = cluster.change("clusterrole", "egw", lambda role: rule_of(role, "egresstunnels")["verbs"].remove("create"))
    try:
        wait_for("the role", lambda: cluster.kubectl_says("no", "create", "egresstunnels"))
        before = cluster.count("egresstunnels", "create")
        cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n7"}}))
        wait_for("word", lambda: cluster.lines("no permission to create egresstunnels"))
        time.sleep(WINDOW_S)
        assert cluster.count("egresstunnels", "create") - before <= ATTEMPTS
        (line,) = cluster.lines("no permission to create egresstunnels")
        assert "object=n7" in line and "which a role" in line, line
        cluster.policy("beside")
        wait_for("the others' status", lambda: cluster.judged("beside"), 3)
    finally:
        restore()
    wait_for("the tunnel", lambda: "n7" in cluster.kubectl("get", "egt", "-o", "name"), 40)


def test_events_that_may_not_be_written(cluster):
    restore = cluster.change("clusterrole", "egw", lambda role: rule_of(role, "events")["verbs"].remove("create"))
    try:
        wait_for("the role", lambda: cluster.kubectl_says("no", "create", "events.events.k8s.io"))
        for name in ("lost-1", "lost-2", "lost-3"):
            cluster.kubectl("create", "-f", "-", stdin=POLICY.replace("name: shop", f"name: {name}").replace(": web", ": nowhere"))
        wait_for("word", lambda: cluster.lines("events are refused"))
        time.sleep(WINDOW_S)
        (line,) = cluster.lines("events are refused")
        assert "no permission to create events.events.k8s.io" in line, line
        denied = [e for e in cluster.audit("events", "create") if e["responseStatus"]["code"] == 403]
        assert 3 <= len(denied) <= 6, "each once"
        cluster.policy("eventless")
        wait_for("the others' status", lambda: cluster.judged("eventless"), 3)
    finally:
        restore()
        cluster.kubectl("delete", "egp", "lost-1", "lost-2", "lost-3")


def test_a_lease_that_may_not_be_written(cluster):
    def read_only(role):
        for rule in role["rules"]:
            rule["verbs"] = [v for v in rule["verbs"] if v != "update"]

    def term():
        return cluster.get("egci", "default")["status"]["term"]

    before, said = term(), "no permission to update leases"
    restore = cluster.change("role", "egw-election", read_only, "-n", "egw-system")
    try:
        wait_for("the end of the office", lambda: cluster.lines("lost the office"))
        begun = cluster.count("leases", "update", name="egw-controller")
        time.sleep(WINDOW_S)
        attempts = cluster.count("leases", "update", name="egw-controller") - begun
        assert 3 <= attempts <= 7, "at 0 s and after pauses of at least 0.5, 1, 1.5, 1.5 ... s"
        (line,) = [s for s in cluster.lines(said) if "leader election" in s and "lost" not in s]
        assert "Lease egw-system/egw-controller" in line, line
        assert term() == before
    finally:
        restore()
    wait_for("an office again", lambda: term() > before, 3 + 2)  # leaseDuration, and a moment
    cluster.policy("after")
    wait_for("a status", lambda: cluster.judged("after"), 5)


def test_a_kind_that_the_server_does_not_serve_is_hardly_asked_for(cluster):
    (line,) = cluster.lines("does not serve ippools")
    assert "404" in line
    asked = [e for e in cluster.audit("ippools", "list", "watch")]
    seconds = time.time() - BEGAN
    assert seconds > 30 and len(asked) <= 9, f"{len(asked)} in {seconds} s: at 0, 1, 3, 7, 15, 31, 63 s and once a minute"
    definition = [e for e in cluster.audit("customresourcedefinitions", "list", "watch")]
    assert 1 <= len(definition) <= 3 and all(e["responseStatus"]["code"] == 200 for e in definition), definition


def test_of_two_elections_one_leads_and_the_other_says_so(cluster):
    def term():
        return cluster.get("egci", "default")["status"]["term"]

    role, binding = (cluster.get(kind, "egw-election", "-n", "egw-system") for kind in ("role", "rolebinding"))
    for o in (role, binding):
        o["metadata"] = {"name": "egw-election", "namespace": "default"}
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(o))
    before = term()
    second = cluster.start("c2", "plugins.leaderElection.config.namespace=default")
    wait_for("the second leader", lambda: cluster.get("egci", "default")["status"]["leader"].startswith("c2"))
    wait_for("word", lambda: cluster.lines("two elections lead over the same objects"))
    led = term()
    elections = cluster.count("leases", "update")
    time.sleep(WINDOW_S)
    assert term() == led, "they take the office from each other"
    (line,) = cluster.lines("two elections lead over the same objects")
    name = cluster.get("egci", "default")["status"]["leader"]
    assert name.startswith("c2") and name in line and "same namespace and lease" in line, line
    assert "TwoLeaders" in cluster.kubectl("describe", "egci", "default")
    assert cluster.count("leases", "update") - elections <= 2 * (WINDOW_S / 0.5 + 2), "renewals, nothing else"
    second.kill()
    second.wait()
    wait_for("the first to lead again", lambda: term() > led, 15 + 3)
    assert led > before
