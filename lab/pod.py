"""What a kubelet and the controllers of DaemonSets and Deployments do, on one machine: the pod of a workload, and the
command line that runs its container with what the pod says and nothing else. container.py carries that out.

What differs from a node of a cluster: the image is the folders bin and lib of a build beside this machine's own
programs, and `folder` is the node's disk. Used by the kube store of the lab and by the chart's tests.
"""

import json
import os
import shutil

CONTAINER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "container.py")
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
BPFFS = "/sys/fs/bpf"


def of(workload, name, node=None):
    """The pod that a DaemonSet (on its node) or a Deployment makes of its template."""
    template = workload["spec"]["template"]
    metadata = {key: template["metadata"][key] for key in ("labels", "annotations") if key in template["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": workload["metadata"]["namespace"], **metadata},
            "spec": {**template["spec"], **({"nodeName": node} if node else {})}}


def port(spec, name):
    """The number behind a port's name in the specification of a pod."""
    return next(p["containerPort"] for p in spec["containers"][0]["ports"] if p["name"] == name)


def probes(pod):
    """What a kubelet asks the pod's container over HTTP: name -> (host or None for the pod's address, port, path, seconds)."""
    container = pod["spec"]["containers"][0]
    found = {}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        if name in container:
            get = container[name]["httpGet"]
            number = get["port"] if isinstance(get["port"], int) else port(pod["spec"], get["port"])
            found[name] = (get.get("host"), number, get["path"], container[name]["timeoutSeconds"])
    return found


def command(pod):
    """Command line and environment of the pod's container."""
    container = pod["spec"]["containers"][0]
    env = {e["name"]: field(pod, e["valueFrom"]["fieldRef"]["fieldPath"]) if "valueFrom" in e else e.get("value", "")
           for e in container.get("env", [])}
    words = container["command"] + container.get("args", [])
    for name, value in env.items():
        words = [w.replace(f"$({name})", value) for w in words]
    return words, env


def field(pod, path):
    value = pod
    for key in path.split("."):
        value = value[key]
    return value


def run(pod, folder, build, server, config_map, account, options=()):
    """The command line that runs the pod's container, to be started in the network of its node or of its own.

    folder: what this machine keeps of the pod. build: has bin and lib. server: address and port of the API server.
    config_map(name): the files of a ConfigMap. account: those of the pod's service account. options: more words.
    """
    container = pod["spec"]["containers"][0]
    volumes = {v["name"]: volume(v, folder, config_map) for v in pod["spec"]["volumes"]}
    mounts = {m["mountPath"]: volumes[m["name"]] for m in container["volumeMounts"]}
    mounts[ACCOUNT] = filled(os.path.join(folder, "account"), account)
    mounts.update({f"/image/{part}": os.path.join(build, part) for part in ("bin", "lib")})
    words, env = command(pod)
    env.update(PATH="/image/bin", KUBERNETES_SERVICE_HOST=server[0], KUBERNETES_SERVICE_PORT=str(server[1]))
    security = container["securityContext"]
    spec = {"argv": [*words, *options], "env": env, "user": security["runAsUser"], "mounts": mounts,
            "writable": [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")],
            "capabilities": security["capabilities"].get("add", [])}
    root = made(os.path.join(folder, "root"))
    return ["unshare", "-m", "--propagation", "private", "/usr/bin/python3", CONTAINER, root, json.dumps(spec)]


def volume(described, folder, config_map):
    """The folder of this machine that a volume is."""
    path = os.path.join(folder, "volumes", described["name"])
    if "configMap" in described:
        return filled(path, config_map(described["configMap"]["name"]))
    if "emptyDir" in described:
        return made(path, 0o777)
    if "hostPath" in described:
        on_host = described["hostPath"]["path"]
        if on_host.startswith("/proc/"):
            return on_host
        if on_host == BPFFS:
            made(folder)  # first: clear() goes by it
            return made(bpffs_of(folder))
        return made(path) if described["hostPath"]["type"] != "FileOrCreate" else made_file(path)
    raise RuntimeError(f"volume {described['name']}: lab/pod.py knows configMap, emptyDir and hostPath only: {described}")


def bpffs_of(folder):
    """What stands for a bpffs of its own, of a node or a cluster with that folder: a folder of the machine's, which does
    not go with the process."""
    return os.path.join(BPFFS, folder.strip("/").replace("/", "-"))


def clear(folder):
    """Removes what a cluster with that folder, and the containers of its pods, have left in the machine's bpffs."""
    pods = os.path.join(folder, "kube", "pods")
    below = os.listdir(pods) if os.path.isdir(pods) else []
    for path in map(bpffs_of, [folder, *(os.path.join(pods, name) for name in below)]):
        shutil.rmtree(path, ignore_errors=True)
        if os.path.lexists(path):
            raise RuntimeError(f"{path} could not be removed: who has mounted that bpffs read-only?")


def made_file(path):
    made(os.path.dirname(path))
    with open(path, "a", encoding="ascii"):
        return path


def made(path, mode=0o755):
    os.makedirs(path, exist_ok=True)
    os.chmod(path, mode)
    return path


def filled(path, files):
    made(path)
    for name, text in files.items():
        with open(os.path.join(path, name), "w", encoding="utf-8") as f:
            os.fchmod(f.fileno(), 0o644)  # whichever user the container has; the folder above is closed to others
            f.write(text)
    return path
