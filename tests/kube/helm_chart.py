"""The chart as the tests use it: helm, and what it renders."""

import os
import subprocess

import yaml

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
CHART = os.path.join(ROOT, "charts/egressgateway")
NAMESPACE = "egw-system"
OLD_VALUES = os.path.join(ROOT, "tests/kube/old-values.yaml")


def helm_path():
    return subprocess.run([os.path.join(ROOT, "tests/kube/build-servers"), "helm"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()


HELM = helm_path()


def helm(*arguments, stdin=None):
    return subprocess.run([HELM, *arguments], input=stdin, text=True, capture_output=True, check=False, timeout=120)


def template(values=None, *arguments):
    """helm template with `values`, a tree or the path of a file."""
    tree = isinstance(values, dict)
    return helm("template", "egw", CHART, "-n", NAMESPACE, *arguments,
                *(["-f", "-" if tree else values] if values else []), stdin=yaml.safe_dump(values) if tree else None)


class Rendered:
    """The objects of a rendering, by kind and name."""

    def __init__(self, values=None, *arguments):
        done = template(values, *arguments)
        assert done.returncode == 0, done.stderr
        self.text = done.stdout
        self.objects = [o for o in yaml.safe_load_all(done.stdout) if o]

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

    def pod(self, role):
        return self.one({"agent": "DaemonSet", "controller": "Deployment"}[role])["spec"]["template"]["spec"]

    def command(self, role, environment, config):
        """The container's command line, with the environment that the kubelet would fill in and the configuration
        where it would mount it."""
        container = self.pod(role)["containers"][0]
        known = {e["name"]: environment[e["name"]] if "valueFrom" in e else e["value"] for e in container.get("env", [])}
        words = container["command"] + container["args"]
        for name, value in known.items():
            words = [w.replace(f"$({name})", value) for w in words]
        return [config if w == "/etc/egw/egw.yaml" else w for w in words], known
