"""What the tests with a real API server share: starting one, waiting, and a gateway with a policy."""

import os
import subprocess
import time

BUILD = os.environ["EGW_BUILD_DIR"]

GATEWAY = """
apiVersion: egressgateway.spidernet.io/v1beta1
kind: EgressGateway
metadata: {name: web}
spec:
  ippools: {ipv4: [10.9.0.10-10.9.0.20]}
  nodeSelector: {selector: {matchLabels: {egress: "true"}}}
"""
POLICY = """
apiVersion: egressgateway.spidernet.io/v1beta1
kind: EgressPolicy
metadata: {name: shop, namespace: default}
spec:
  egressGatewayName: web
  appliedTo: {podSelector: {matchLabels: {app: shop}}}
"""


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"no {what} within {seconds} s"
        time.sleep(0.1)


def start_server(*options):
    """(process, kubeconfig of its administrator); the server ends when the process's stdin is closed."""
    server = subprocess.Popen([os.path.join(BUILD, "bin/kube_serve"), *options], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    kubeconfig = server.stdout.readline().strip()
    assert kubeconfig, "the API server did not start"
    return server, kubeconfig
