"""The chart as the tests use it: helm, and what it renders."""

import os
import subprocess
import sys

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from lab import pod as kubelet  # noqa: E402  (the path must be set first)
from lab.chart import CHART, NAMESPACE, RELEASE, build_servers  # noqa: E402

OLD_VALUES = os.path.join(ROOT, "tests/kube/old-values.yaml")
HELM = build_servers("helm")


def helm(*arguments, stdin=None):
    return subprocess.run([HELM, *arguments], input=stdin, text=True, capture_output=True, check=False, timeout=120)


def template(values=None, *arguments):
    """helm template with `values`, a tree or the path of a file."""
    tree = isinstance(values, dict)
    return helm("template", RELEASE, CHART, "-n", NAMESPACE, *arguments,
                *(["-f", "-" if tree else values] if values else []), stdin=yaml.safe_dump(values) if tree else None)


class Rendered:
    """The objects of a rendering, by kind and name."""

    def __init__(self, values=None, *arguments):
        done = template(values, *arguments)
        assert done.returncode == 0, done.stderr
        self.text = done.stdout
        every = [o for o in yaml.safe_load_all(done.stdout) if o]
        self.hooks = [o for o in every if "helm.sh/hook" in o["metadata"].get("annotations", {})]
        self.objects = [o for o in every if o not in self.hooks]  # what an installation brings

    def kinds(self):
        return [o["kind"] for o in self.objects]

    def one(self, kind, name=None):
        found = [o for o in self.objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
        assert len(found) == 1, f"{len(found)} {kind} {name or ''}"
        return found[0]

    def config_text(self):
        return self.one("ConfigMap")["data"]["egw.yaml"]

    def config(self):
        return yaml.safe_load(self.config_text())

    def workload(self, role):
        return self.one({"agent": "DaemonSet", "controller": "Deployment"}[role])

    def pod(self, role):
        return self.workload(role)["spec"]["template"]["spec"]

    def command(self, role, name):
        """Command line and environment of the container in a pod of that name, on a node of that name."""
        return kubelet.command(kubelet.of(self.workload(role), name, name))
