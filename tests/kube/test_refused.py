"""What a real API server refuses a controller, a verb or an event: it is told in one line and tried again with growing
pauses, and everybody else is served. And of two elections over the same objects one leads."""

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
        """What the controllers asked for."""
        with open(os.path.join(os.path.dirname(self.kubeconfig), "audit.log"), encoding="utf-8") as f:
            for line in f:
                if not line.endswith("\n"):
                    return  # it is being written
                entry = json.loads(line)
                target = entry.get("objectRef", {})
                if (target.get("resource") == resource and entry["verb"] in verbs and (name in (None, target.get("name")))
                        and "system:serviceaccount:egw-system:egw" == entry["user"].get("username")):
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
    wait_for("the first to lead again", lambda: term() > led, 60)
    assert led > before
