"""The commands as a person types them: the real binary and the real local store, no root needed."""

import json
import os
import select
import subprocess
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BUILD = os.environ.get("EGW_BUILD_DIR", os.path.join(ROOT, "build", "release"))
EGW = os.path.join(BUILD, "bin", "egw")
PLUGINS = os.path.join(BUILD, "lib", "egw", "plugins")
MANIFESTS = os.path.join(ROOT, "config", "manifests")


def environment():
    """Without the variables that egw itself reads."""
    return {k: v for k, v in os.environ.items() if not k.startswith("EGW_")}


class Store:
    """A store of its own in a temporary folder, and the egw that speaks to it."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.path = os.path.join(self.folder, "egw.db")

    def args(self, *args):
        return [EGW, "--set", f"plugins.stateStore.config.path={self.path}",
                "--set", f"stateDir={self.folder}", *args]

    def run(self, *args, stdin=None, env=None):
        return subprocess.run(self.args(*args), input=stdin, capture_output=True, text=True, timeout=60,
                              check=False, env={**environment(), **(env or {})})

    def ok(self, *args, stdin=None):
        done = self.run(*args, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *args):
        return json.loads(self.ok(*args, "-o", "json"))

    def apply(self, *documents):
        return self.ok("apply", "-f", "-", stdin="\n---\n".join(json.dumps(d) for d in documents))

    def watch(self, *args):
        return Watch(self.args("get", *args, "-w"))


class Watch:
    """A running `get -w`."""

    def __init__(self, args):
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        self.text = ""

    def until(self, word, timeout=10):
        """Reads until `word` has come; returns the seconds that took."""
        begin = time.monotonic()
        while word not in self.text:
            left = begin + timeout - time.monotonic()
            assert left > 0 and select.select([self.process.stdout], [], [], left)[0], \
                f"{word!r} did not come within {timeout} s; so far: {self.text!r}"
            chunk = os.read(self.process.stdout.fileno(), 65536)
            assert chunk, f"the watch ended: {self.process.stderr.read().decode()}"
            self.text += chunk.decode()
        return time.monotonic() - begin

    def end(self, timeout=10):
        """Waits for the end; returns the exit code."""
        self.process.stdout.close()
        code = self.process.wait(timeout)
        self.process.stderr.close()
        return code


@pytest.fixture
def store(tmp_path):
    """A store that exists: verbs that only look make none."""
    made = Store(tmp_path)
    made.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "made"}})
    return made


def node(name, **labels):
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
            "spec": {"podCIDRs": ["10.244.1.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.6.0.11"}],
                       "conditions": [{"type": "Ready", "status": "True"}]}}


def pod(name, ip, namespace="default", **labels):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}}


def gateway(name="egw", **spec):
    return {"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressGateway", "metadata": {"name": name},
            "spec": {"clusterDefault": True,
                     "ippools": {"ipv4": ["10.6.1.55", "10.6.1.56"], "ipv4DefaultEIP": "10.6.1.56"},
                     "nodeSelector": {"selector": {"matchLabels": {"egress": "true"}}}, **spec}}


def policy(name="shop", namespace="default", **spec):
    return {"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"appliedTo": {"podSelector": {"matchLabels": {"app": "shop"}}}, **spec}}
