"""The way to a real API server, and every way in which it may be barred: what a service account brings and how it
rotates, kubeconfigs of all kinds, certificates that have run out. As egw's verbs and a controller find it."""

import json
import os
import stat
import subprocess
import tempfile

import pytest
from kube_support import BUILD, GATEWAY, start_server, wait_for

EGW = os.path.join(BUILD, "bin/egw")
EXPIRED_NAME = "expired.test"  # under which the server has a certificate that has run out


def openssl(folder, *words, stdin=None):
    subprocess.run(["openssl", *words], cwd=folder, input=stdin, check=True, capture_output=True, text=True)


def make_certificates(folder):
    """An authority for clients, of which `root` and `late` are signed (the latter has run out), and a server's
    certificate that has run out."""
    for name in ("clients", "strange"):
        openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                "-out", f"{name}.crt", "-days", "30", "-subj", f"/CN={name}")
    with open(os.path.join(folder, "use"), "w", encoding="ascii") as f:
        f.write(f"extendedKeyUsage=clientAuth,serverAuth\nsubjectAltName=DNS:{EXPIRED_NAME}\n")
    for name, days, subject in (("root", 30, "/O=system:masters/CN=root"), ("late", 0, "/O=system:masters/CN=late"),
                                ("expired", 0, f"/CN={EXPIRED_NAME}")):
        openssl(folder, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                "-out", f"{name}.csr", "-subj", subject)
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "clients.crt", "-CAkey", "clients.key", "-days", str(days),
                "-extfile", "use", "-out", f"{name}.crt")


class Server:
    def __init__(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = self.temporary.name
        make_certificates(self.folder)
        self.process, self.kubeconfig = start_server(
            f"--client-ca-file={self.path('clients.crt')}",
            f"--tls-sni-cert-key={self.path('expired.crt')},{self.path('expired.key')}:{EXPIRED_NAME}")
        with open(self.kubeconfig, encoding="utf-8") as f:
            cluster = json.load(f)["clusters"][0]["cluster"]
        self.url = cluster["server"]
        self.authority = os.path.join(os.path.dirname(self.kubeconfig), cluster["certificate-authority"])

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        """As a kubelet does it: the file is another one then."""
        path = self.path(name)
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(content if isinstance(content, str) else json.dumps(content))
        os.replace(path + ".new", path)
        return path

    def config(self, user, name="config", **cluster):
        return self.write(name, {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": self.url, "certificate-authority": self.authority, **cluster}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}]})

    def kubectl(self, *arguments, stdin=None):
        done = subprocess.run(["kubectl", "--kubeconfig", self.kubeconfig, *arguments], input=stdin, text=True,
                              capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def egw(self, *words, kubeconfig=None, more=(), stdin=None, env=None):
        settings = ["plugins.stateStore.name=kube", "plugins.stateStore.config.requestTimeout=2",
                    *([f"plugins.stateStore.config.kubeconfig={kubeconfig}"] if kubeconfig else []), *more]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("KUBE")}
        return subprocess.run([EGW, *[w for s in settings for w in ("--set", s)], *words], input=stdin, text=True,
                              capture_output=True, check=False, timeout=30, env={**clean, "HOME": self.folder, **(env or {})})

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.temporary.cleanup()


@pytest.fixture(scope="module")
def server():
    s = Server()
    s.kubectl("apply", "-f", "-", stdin=GATEWAY)
    yield s
    s.close()


def assert_seen(done):
    assert done.returncode == 0 and "web" in done.stdout, done.stderr


def assert_refused(done, *words, code=1):
    """One clear line. code: 2 where the operator has to put something right before."""
    assert done.returncode == code and done.stdout == "", done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


# ---- kubeconfigs -----------------------------------------------------------------------------------------------


def test_client_certificates_from_files_and_from_the_kubeconfig(server):
    files = {"client-certificate": "root.crt", "client-key": "root.key"}  # relative to the kubeconfig's folder
    assert_seen(server.egw("get", "egw", kubeconfig=server.config(files)))
    user = json.loads(server.kubectl("config", "view", "--raw", "--flatten", "-o", "json", "--kubeconfig",
                                     server.config(files)))["users"][0]["user"]
    assert set(user) == {"client-certificate-data", "client-key-data"}
    assert_seen(server.egw("get", "egw", kubeconfig=server.config(user)))


def test_a_client_certificate_that_has_run_out(server):
    late = {"client-certificate": "late.crt", "client-key": "late.key"}
    assert_refused(server.egw("get", "egw", kubeconfig=server.config(late)), "401", "token or certificate has expired")
    mixed = {"client-certificate": "root.crt", "client-key": "late.key"}
    assert_refused(server.egw("get", "egw", kubeconfig=server.config(mixed)), "client certificate or its key cannot be used")


def test_a_server_certificate_that_has_run_out(server):
    config = server.config({"token": "admintoken"}, **{"certificate-authority": "clients.crt", "tls-server-name": EXPIRED_NAME})
    assert_refused(server.egw("get", "egw", kubeconfig=config), "certificate is not accepted", "expired")


def test_a_token_that_the_server_does_not_know(server):
    assert_refused(server.egw("get", "egw", kubeconfig=server.config({"token": "forged"})), "401", "token or certificate has expired")


def test_what_is_forbidden_names_verb_and_resource(server):
    config = server.config({"token": "nobodytoken"})
    assert_refused(server.egw("get", "egw", kubeconfig=config), "no permission to list egressgateways", "403")


def test_a_list_of_kubeconfigs_is_one(server):
    """$KUBECONFIG as kubectl reads it: of two entries of a name the first counts, and missing files are none."""
    whole = server.config({"token": "admintoken"}, "whole")
    other = server.write("other", {"current-context": "other", "contexts": [
        {"name": "other", "context": {"cluster": "k", "user": "nobody"}}], "users": [
            {"name": "nobody", "user": {"token": "nobodytoken"}}, {"name": "u", "user": {"token": "forged"}}]})
    missing = server.path("missing")
    listed = {"KUBECONFIG": f"{missing}:{other}:{whole}"}
    assert_refused(server.egw("get", "egw", env=listed), "no permission")
    of_c = ["plugins.stateStore.config.context=c"]
    assert_refused(server.egw("get", "egw", env=listed, more=of_c), "401")
    assert_seen(server.egw("get", "egw", env={"KUBECONFIG": f"{whole}:{other}"}))
    assert_refused(server.egw("get", "egw", env=listed, more=["plugins.stateStore.config.context=x"]),
                   'no entry "x" among its contexts', code=2)
    assert_refused(server.egw("get", "egw", env={"KUBECONFIG": missing}), missing, "no such file", code=2)


def test_a_credential_program_is_asked_again_when_its_token_is_refused(server):
    program = server.write("program", f"""#!/bin/sh
echo run >> {server.path("runs")}
case "$KUBERNETES_EXEC_INFO" in *certificate-authority-data*) ;; *) exit 5 ;; esac
token=$(cat {server.path("tokens")}); echo admintoken > {server.path("tokens")}
echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {{"token": "'$token'"}}}}'
""")
    os.chmod(program, stat.S_IRWXU)
    server.write("tokens", "old")
    config = server.config({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./program",
                                     "interactiveMode": "Never", "provideClusterInfo": True}})
    assert_seen(server.egw("get", "egw", kubeconfig=config))
    with open(server.path("runs"), encoding="ascii") as f:
        assert f.read() == "run\nrun\n"
    server.write("program", "#!/bin/sh\nexit 7\n")
    os.chmod(program, stat.S_IRWXU)
    assert_refused(server.egw("get", "egw", kubeconfig=config), "program", "exit code 7")


# ---- a pod's service account -----------------------------------------------------------------------------------


class InCluster:
    """A controller with a service account's folder, as in a pod."""

    def __init__(self, server):
        self.server, self.folder = server, server.path("account")
        os.mkdir(self.folder)
        server.kubectl("create", "namespace", "egw")
        self.make_account()
        server.kubectl("create", "clusterrolebinding", "egw", "--clusterrole=cluster-admin", "--serviceaccount=egw:egw")
        self.rotate(ca=server.authority, token=self.token())
        server.write("account/namespace", "egw")
        host, port = server.url.removeprefix("https://").rsplit(":", 1)
        self.env = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        self.log = server.path("controller.log")
        settings = [s for kind in ("stateStore", "leaderElection") for s in
                    (f"plugins.{kind}.name=kube", f"plugins.{kind}.config.serviceAccountFolder={self.folder}")]
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [EGW, *[w for s in settings for w in ("--set", s)], "--state-dir", server.path("state"), "--node-name", "c",
                 "--set", "controller.healthPort=15870", "--set", "controller.metricsPort=0", "controller"],
                stdout=log, stderr=log, env={**{k: v for k, v in os.environ.items() if not k.startswith("KUBE")}, **self.env})

    def make_account(self):
        self.server.kubectl("delete", "serviceaccount", "egw", "-n", "egw", "--ignore-not-found")
        self.server.kubectl("create", "serviceaccount", "egw", "-n", "egw")

    def token(self):
        return self.server.kubectl("create", "token", "egw", "-n", "egw").strip()

    def rotate(self, ca=None, token=None):
        if ca:
            with open(ca, encoding="ascii") as f:
                self.server.write("account/ca.crt", f.read())
        if token:
            self.server.write("account/token", token)

    def said(self, words):
        with open(self.log, encoding="utf-8") as f:
            return f.read().count(words)

    def works(self, name):
        """A Node gets its tunnel from the controller."""
        self.server.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))
        wait_for(f"tunnel of {name}", lambda: name in self.server.kubectl("get", "egt", "-o", "name"), 30)
        assert self.process.poll() is None

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def pod(server):
    p = InCluster(server)
    yield p
    p.close()


def test_a_pods_account_leads_to_the_server(pod):
    pod.works("n1")


def test_a_revoked_token_is_said_and_the_next_one_is_taken(pod):
    pod.make_account()  # another one of that name: what the first had signed is void
    wait_for("word", lambda: pod.said("401 Unauthorized"), 60)
    said = pod.said("401 Unauthorized")
    pod.rotate(token=pod.token())
    pod.works("n2")
    assert said < 50, "a line each time would flood the log"


def test_an_authority_that_changes_is_read_again(pod, server):
    """The server's certificate of a new authority, seen from the other side: the pod's file is the wrong one at first."""
    pod.rotate(ca=server.path("strange.crt"))
    server.process.stdin.write("kill\nstart\n")  # no connection is left that was believed once
    server.process.stdin.flush()
    assert [server.process.stdout.readline().strip() for _ in range(2)] == ["kill", "start"]
    wait_for("word", lambda: pod.said("certificate is not accepted"), 60)
    pod.rotate(ca=server.authority)
    pod.works("n3")


def test_a_pods_account_that_is_not_whole(server):
    folder = server.path("empty")
    os.mkdir(folder)
    env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}
    account = [f"plugins.stateStore.config.serviceAccountFolder={folder}"]
    assert_refused(server.egw("get", "egw", more=account, env=env), "no way to an API server", folder, code=2)
    server.write("empty/token", "x")
    assert_refused(server.egw("get", "egw", more=account, env=env), f"{folder}/ca.crt", "cannot be read", code=2)
    server.write("empty/ca.crt", "")
    assert_refused(server.egw("get", "egw", more=account, env=env), f"{folder}/ca.crt: there is no certificate in it")


# ---- definitions -----------------------------------------------------------------------------------------------


def test_an_object_that_the_schema_refuses(server):
    """Past egw's own admission, by whoever uses kubectl; and in egw's words before that."""
    bad = GATEWAY.replace("[10.9.0.10-10.9.0.20]", "10")
    done = server.egw("apply", "-f", "-", stdin=bad, kubeconfig=server.kubeconfig)
    assert_refused(done, "spec.ippools.ipv4")


def test_definitions_of_another_version_and_none(server):
    crd = json.loads(server.kubectl("get", "crd", "egressgateways.egressgateway.spidernet.io", "-o", "json"))
    other = {"apiVersion": crd["apiVersion"], "kind": crd["kind"], "metadata": {"name": crd["metadata"]["name"]}, "spec": crd["spec"]}
    other["spec"]["versions"][0]["name"] = "v1"
    server.kubectl("delete", "egw", "--all")
    server.kubectl("delete", "crd", other["metadata"]["name"])
    words = ("does not serve egressgateways.egressgateway.spidernet.io/v1beta1", "is missing or has another version")
    assert_refused(server.egw("get", "egw", kubeconfig=server.kubeconfig), *words)
    server.kubectl("create", "-f", "-", stdin=json.dumps(other))
    server.kubectl("wait", "crd", other["metadata"]["name"], "--for=condition=Established")
    assert_refused(server.egw("get", "egw", kubeconfig=server.kubeconfig), *words)
