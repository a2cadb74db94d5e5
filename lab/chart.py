"""The Helm chart as the lab and the tests install it, and the helm that tests/kube/build-servers builds."""

import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CHART = os.path.join(ROOT, "charts", "egressgateway")
NAMESPACE = "egw-system"
RELEASE = "egw"
# role -> kind of its workload, and the name of that and of its service account.
WORKLOADS = {"agent": ("daemonsets", "egressgateway-agent"),
             "controller": ("deployments", "egressgateway-controller")}
WEBHOOK = "egressgateway-controller-webhook"  # Service, Secret and configurations


def build_servers(*what):
    """Builds (once) and returns what tests/kube/build-servers prints."""
    done = subprocess.run([os.path.join(ROOT, "tests", "kube", "build-servers"), *what], text=True,
                          stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise RuntimeError("etcd, kube-apiserver or helm could not be built, see above")
    return done.stdout.strip()
