"""Requests to a Kubernetes API server that listens inside a network namespace.

Used by the kube store of the lab, which plays the kubelets, and by the tests.
"""

import ctypes
import http.client
import json
import os
import socket
import ssl

from lab import net

CLONE_NEWNET = 0x40000000


class Refused(RuntimeError):
    """An answer that is no success; `code` is its HTTP status."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def connect_inside(ns, address, timeout):
    """A TCP connection made inside the namespace; a socket stays in the one it was made in."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    inside = os.open(f"{net.NETNS}/{ns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(inside, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace {ns}")
        try:
            return socket.create_connection(address, timeout)
        finally:
            libc.setns(own, CLONE_NEWNET)
    finally:
        os.close(own)
        os.close(inside)


class Api:
    """One kept connection with a bearer token. For one thread."""

    def __init__(self, ns, address, authority, token, timeout=30):
        self.ns, self.address, self.authority, self.token = ns, address, authority, token
        self.timeout, self.connection = timeout, None

    def _open(self):
        context = ssl.create_default_context(cafile=self.authority)
        raw = connect_inside(self.ns, self.address, self.timeout)
        connection = http.client.HTTPSConnection(*self.address, timeout=self.timeout)
        connection.sock = context.wrap_socket(raw, server_hostname=self.address[0])
        return connection

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def request(self, method, path, body=None, content_type="application/json"):
        """The parsed answer; raises Refused for one that is no success, OSError when there is none."""
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body)
            headers["Content-Type"] = content_type
        fresh = self.connection is None
        try:
            self.connection = self.connection or self._open()
            self.connection.request(method, path, data, headers)
            answer = self.connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as e:
            self.close()
            if fresh:
                raise e if isinstance(e, OSError) else OSError(f"{method} {path}: {e!r}") from e
            return self.request(method, path, body, content_type)  # the kept connection was dead
        if answer.status >= 300:
            raise Refused(answer.status, f"{method} {path}: {answer.status}: {text.strip()}")
        return json.loads(text) if text.startswith("{") else text

    def apply(self, path, document):
        """Makes the object or what the document says of it; its status as well, as a kubelet writes it."""
        document = dict(document)
        status = document.pop("status", None)
        stored = self.request("PATCH", path + "?fieldManager=lab&force=true", document,
                              "application/apply-patch+yaml")
        if status is not None:
            stored = self.request("PATCH", path + "/status", {"status": status}, "application/merge-patch+json")
        return stored
