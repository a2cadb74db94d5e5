"""The lab's default store: one SQLite file that all processes of the machine share.

A node's way to it is a file, its gate: without it the store plugin answers as if it could not be reached.
"""

import contextlib
import json
import os


class LocalStore:
    name = "local"

    def __init__(self, cluster):
        self.cluster = cluster

    def start(self):
        pass  # the first process makes the file

    def started(self):
        pass  # verbs need no process

    def plugins(self, role, who):
        """plugins.stateStore and plugins.leaderElection of a process."""
        config = {"path": os.path.join(self.cluster.dir, "egw.db")}
        if role == "agent":
            self.connect(who)
            config["gate"] = self._gate(who)
        return {"stateStore": {"name": "local", "config": config},
                "leaderElection": {"name": "local", "config": dict(config)}}

    def command(self, role, who, options):
        """The command line of an agent or controller."""
        return [os.path.join(self.cluster.bin, "egw"), "--config", self.cluster.config(role, who), role, *options]

    def environment(self):
        return None  # that of the lab

    def verb(self, *args):
        """The command line that runs a verb of egw against the store."""
        return [os.path.join(self.cluster.bin, "egw"), "--config", self.cluster.verb_config(), *args]

    def reader(self, kind, name=None, namespace=None, *options):
        """The command line that gets objects as JSON."""
        place = ["-n", namespace] if namespace else []
        return self.verb("get", kind, *([name] if name else []), *place, "-o", "json", *options)

    def apply(self, documents, timeout):
        text = "\n---\n".join(json.dumps(d) for d in documents)
        return self.cluster.egw("apply", "-f", "-", stdin=text, timeout=timeout).stdout

    def cut(self, node):
        with contextlib.suppress(FileNotFoundError):  # cut already
            os.unlink(self._gate(node))

    def connect(self, node):
        os.makedirs(os.path.dirname(self._gate(node)), exist_ok=True)
        open(self._gate(node), "a", encoding="ascii").close()

    def _gate(self, node):
        return os.path.join(self.cluster.dir, "gate", node)
