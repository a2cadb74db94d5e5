"""What the chart renders, without a server: over a matrix of values, and what it refuses."""

import os
import subprocess

import pytest
import yaml

from helm_chart import CHART, OLD_VALUES, ROOT, Rendered, helm, template
from kube_support import GATEWAY

EGW = os.path.join(os.environ["EGW_BUILD_DIR"], "bin/egw")

# name -> values; every one renders a configuration that egw takes.
MATRIX = {
    "defaults": {},
    "ipv6": {"feature": {"enableIPv6": True, "tunnelUnderlay": "ipv6"}, "agent": {"bindAddress": "::"}},
    "numbers": {"feature": {"vxlan": {"id": 16777215, "port": 65535}, "eipEvictionTimeout": 0.75,
                            "tunnelMonitorPeriod": 0.25, "tunnelUpdatePeriod": 0.25},
                "marks": {"slotMask": "0x0ff00000", "ctMask": 4294443008}},
    "nested timeouts": {"feature": {"gatewayFailover": {"enable": True, "tunnelMonitorPeriod": 1,
                                                        "tunnelUpdatePeriod": 1, "eipEvictionTimeout": 3}}},
    "flat timeouts": {"feature": {"tunnelMonitorPeriod": 1, "tunnelUpdatePeriod": 1, "eipEvictionTimeout": 3}},
    "flat and nested": {"feature": {"gatewayFailover": {"eipEvictionTimeout": 30}, "eipEvictionTimeout": 30}},
    "lists": {"feature": {"clusterCIDR": {"extraCidr": ["10.96.0.0/12", "fd00::/108"]},
                          "announcedInterfacesToExclude": ["^cali.*", "^br-.*"],
                          "tunnelDetectCustomInterface": [{"nodeSelector": {"matchLabels": {"rack": "a"}},
                                                           "interfaceName": "bond0"}]}},
    "logs": {"log": {"level": "debug", "format": "json"}, "agent": {"debug": {"logLevel": "panic"}}},
    "no metrics": {"agent": {"prometheus": {"enabled": False}}, "controller": {"prometheus": {"enabled": False}}},
    "ports": {"agent": {"healthServer": {"port": 15810}, "prometheus": {"port": 15811}, "bootDrop": True}},
    "host network": {"controller": {"hostNetwork": True, "replicas": 3, "bindAddress": "127.0.0.1"}},
    "old values": OLD_VALUES,
    "no webhook": {"webhook": {"enabled": False}},
    "election": {"plugins": {"leaderElection": {"config": {"leaseDuration": 13, "renewDeadline": 12.1, "retryPeriod": 10}}}},
    "longest name": {"controller": {"name": "c" * 55}},
    "more names": {"controller": {"webhookPort": 15822, "tls": {"secretName": "mine", "auto": {
        "extraDnsNames": ["egw.test"], "extraIpAddresses": ["192.0.2.1"]}}}, "global": {"clusterDnsDomain": "k8s.test"}},
    "cert-manager": {"controller": {"tls": {"method": "certmanager"}}},
    "provided": {"controller": {"tls": {"method": "provided", "secretName": "mine"}}},
    "one controller": {"plugins": {"leaderElection": {"name": "local"}}, "controller": {"replicas": 1}},
    "no cleanup": {"cleanup": {"enable": False}},
}


def egw(words, **more):
    return subprocess.run([EGW, *words], text=True, capture_output=True, check=False, timeout=60, **more)


@pytest.mark.parametrize("name", MATRIX)
def test_egw_takes_configuration_and_command_line(name, tmp_path):
    rendered = Rendered(MATRIX[name])
    config = tmp_path / "egw.yaml"
    config.write_text(rendered.config_text(), encoding="utf-8")
    gateway = GATEWAY.replace("10.9.0.20]", "10.9.0.10], ipv6: [fd00::9]") if name == "ipv6" else GATEWAY
    done = egw(["--config", config, "check", "-f", "-"], input=gateway)
    assert done.returncode == 0, done.stderr + rendered.config_text()
    # A plugin's own keys are judged before it looks for the server, which is not there.
    store = "plugins.stateStore.config."
    reads = ["--config", config, "--set", store + "kubeconfig=/nowhere", "get", "egw"]
    assert "kubeconfig /nowhere: there is no such file" in egw(reads).stderr
    assert "no such file" not in egw([*reads, "--set", store + "webhook.prt=1"]).stderr
    for role in ("agent", "controller"):
        words, environment = rendered.command(role, "n1")
        assert words[:6] == ["egw", "--config", "/etc/egw/egw.yaml", role, "--node-name", "n1"]
        assert environment == {"NODE_NAME" if role == "agent" else "POD_NAME": "n1"}
        words[2] = str(config)
        done = egw([*words[1:], "--help"])
        assert done.returncode == 0 and role in done.stdout, done.stderr
        assert egw([*words[1:], "--no-such-option"]).returncode == 2, "the command line is really parsed"


def test_the_old_charts_values_keep_their_meaning():
    rendered = Rendered(OLD_VALUES)
    config = rendered.config()
    assert config["plugins"]["datapath"]["name"] == "iptables"
    assert config["plugins"]["stateStore"]["name"] == config["plugins"]["leaderElection"]["name"] == "kube"
    assert config["feature"]["gatewayFailover"] == {"enable": False} and config["feature"]["eipEvictionTimeout"] == 15
    assert config["agent"]["metricsPort"] == 0 and config["agent"]["healthPort"] == 5810
    agent, controller = rendered.pod("agent"), rendered.pod("controller")
    assert agent["containers"][0]["image"] == "registry.test/team/agent:v0.6.9"
    assert controller["containers"][0]["image"] == "registry.test/team/controller:v0.6.9"
    assert rendered.one("Deployment")["spec"]["replicas"] == 1
    assert rendered.one("DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 2
    assert agent["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "512Mi"}
    assert agent["containers"][0]["args"][-1] == "log.format=json"


@pytest.mark.parametrize("mode", ["netlink", "iptables", "ebpf"])
def test_the_datapath_is_chosen_by_either_key(mode):
    for values in ({"feature": {"datapathMode": mode}}, {"plugins": {"datapath": {"name": mode}}},
                   {"feature": {"datapathMode": mode}, "plugins": {"datapath": {"name": mode}}}):
        assert Rendered(values).config()["plugins"]["datapath"] == {"name": mode, "config": {}}
    own = {"plugins": {"datapath": {"name": "mine", "config": {"depth": 3}}, "dir": "/opt/plugins"}}
    plugins = Rendered(own).config()["plugins"]
    assert plugins["datapath"] == {"name": "mine", "config": {"depth": 3}} and plugins["dir"] == "/opt/plugins"


REFUSED = [
    ({"feature": {"eipEvictionTimeout": 10}},
     "feature.eipEvictionTimeout is 10 s; expected more than tunnelMonitorPeriod (5 s) and tunnelUpdatePeriod (5 s)"),
    ({"feature": {"gatewayFailover": {"tunnelUpdatePeriod": 9.5}, "tunnelMonitorPeriod": 5.5}},
     "expected more than tunnelMonitorPeriod (5.5 s) and tunnelUpdatePeriod (9.5 s)"),
    ({"feature": {"eipEvictionTimeout": 20, "gatewayFailover": {"eipEvictionTimeout": 30}}},
     "feature.eipEvictionTimeout is 20 and feature.gatewayFailover.eipEvictionTimeout is 30; they mean the same"),
    ({"feature": {"datapathMode": "ebpf"}, "plugins": {"datapath": {"name": "netlink"}}},
     'feature.datapathMode is "ebpf" and plugins.datapath.name is "netlink"; they mean the same'),
    ({"feature": {"datapathMode": "magic"}}, "feature/datapathMode"),
    ({"feature": {"enableIpv6": True}}, "enableIpv6"),
    ({"feature": {"tunnelUpdatePeriod": "5s"}}, "tunnelUpdatePeriod"),
    ({"agent": {"hostNetwork": False}}, "agent/hostNetwork"),
    ({"agent": {"replicas": 2}}, "replicas"),
    ({"agent": {"prometheus": {"serviceMonitor": {"install": True}}}}, "serviceMonitor/install"),
    ({"controller": {"replicas": -1}}, "controller/replicas"),
    ({"controller": {"tls": {"method": "provided", "provided": {"tlsCert": "eA=="}}}}, "has tlsCert without tlsKey, tlsCa"),
    ({"controller": {"tls": {"method": "provided", "provided": {"tlsCert": "eA==", "tlsKey": "eA=="}}}},
     "has tlsCert, tlsKey without tlsCa"),
    ({"controller": {"tls": {"method": "provided", "provided": {"tlsKey": "eA==", "tlsCa": "eA=="}}}},
     "has tlsKey, tlsCa without tlsCert"),
    ({"controller": {"tls": {"provided": {"tlsCert": "eA==", "tlsKey": "eA==", "tlsCa": "eA=="}}}},
     "controller.tls.provided has tlsCert, tlsKey, tlsCa, but controller.tls.method is auto"),
    ({"controller": {"tls": {"method": "certmanager", "provided": {"tlsCa": "eA=="}}}},
     "controller.tls.provided has tlsCa, but controller.tls.method is certmanager"),
    ({"controller": {"tls": {"secretName": "Mine"}}}, "controller/tls/secretName"),
    ({"plugins": {"leaderElection": {"config": {"leaseDuration": 10}}}},
     "plugins.leaderElection.config.leaseDuration is 10 s; expected more than renewDeadline (10 s)"),
    ({"plugins": {"leaderElection": {"config": {"renewDeadline": 2.4}}}},
     "plugins.leaderElection.config.renewDeadline is 2.4 s; expected more than 1.2 times retryPeriod (2 s)"),
    ({"plugins": {"leaderElection": {"config": {"retryPeriod": 9}}}},
     "renewDeadline is 10 s; expected more than 1.2 times retryPeriod (9 s)"),
    ({"plugins": {"leaderElection": {"config": {"leaseDuration": 15.5}}}}, "leaderElection/config/leaseDuration"),
    ({"plugins": {"leaderElection": {"config": {"leaseDuraton": 20}}}}, "leaseDuraton"),
    ({"plugins": {"stateStore": {"config": {"requestTimeout": 9}}}}, "stateStore/config/requestTimeout"),
    ({"plugins": {"stateStore": {"config": {"termlease": "x"}}}}, "termlease"),
    ({"controller": {"bindAddress": "127.0.0.1"}}, "controller.bindAddress is 127.0.0.1, where no kubelet"),
    ({"controller": {"bindAddress": "::1"}}, "controller.bindAddress is ::1, where no kubelet"),
    ({"agent": {"bindAddress": "localhost"}}, "agent/bindAddress"),
    ({"controller": {"name": "9egw"}}, "controller/name"),
    ({"controller": {"name": "c" * 56}}, "controller/name"),
    ({"agent": {"name": "egw"}, "controller": {"name": "egw"}}, "agent.name and controller.name are both egw"),
    ({"global": {"configName": "egw_config"}}, "global/configName"),
    ({"plugins": {"stateStore": {"config": {"webhook": {"enabled": True}}}}}, "use webhook.enabled"),
    ({"plugins": {"stateStore": {"config": {"webhook": {"enabled": True}}}}, "webhook": {"enabled": False}},
     "use webhook.enabled"),
    ({"plugins": {"stateStore": {"config": {"namespace": "other"}}}},
     "plugins.stateStore.config.namespace is other, but the webhook's Service stands in egw-system"),
    ({"plugins": {"leaderElection": {"name": "local"}}}, "controller.replicas is 2: each pod would lead"),
    ({"plugins": {"stateStore": {"name": "local"}}}, "plugins.stateStore.name is local, a file that serves the processes of one"),
    ({"controller": {"webhookPort": 5820}}, "controller.healthServer.port and controller.webhookPort are both 5820"),
    ({"agent": {"prometheus": {"port": 5810}}}, "agent.healthServer.port and agent.prometheus.port are both 5810"),
    ({"controller": {"hostNetwork": True, "prometheus": {"port": 5810}}},
     "agent.healthServer.port and controller.prometheus.port are both 5810"),
    ({"controller": {"podDisruptionBudget": {"enabled": True, "minAvailable": 2}}}, "no node with a controller could ever be drained"),
    ({"feature": {"enableIPv4": False}}, "feature.enableIPv4 and feature.enableIPv6 are both false"),
    ({"cleanup": {"timeoutSeconds": 0}}, "cleanup/timeoutSeconds"),
    ({"contoller": {"replicas": 3}}, "contoller"),
]


@pytest.mark.parametrize("values,sentence", REFUSED, ids=[s[:40] for _, s in REFUSED])
def test_contradictions_end_the_rendering(values, sentence):
    done = template(values)
    assert done.returncode != 0
    assert sentence in done.stderr, done.stderr


def test_an_uninstall_begins_with_the_nodes():
    rendered = Rendered({"cleanup": {"timeoutSeconds": 90}, "controller": {"image": {"repository": "e", "tag": "1"}}})
    assert all(o["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete" for o in rendered.hooks)
    account, role, binding, job = sorted(rendered.hooks, key=lambda o: o["metadata"]["annotations"].get("helm.sh/hook-weight", "0"))
    assert role["kind"] == "ClusterRole" and all("*" not in str(rule) for rule in role["rules"])
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": "egw-system"}]
    pod = job["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"] and pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["image"] == "e:1" and pod["containers"][0]["args"][-3:] == ["uninstall", "--timeout", "90"]
    assert job["spec"]["activeDeadlineSeconds"] >= 2 * 90
    for values in ("no cleanup", "old values"):
        assert bool(Rendered(MATRIX[values]).hooks) == (values == "old values")
    assert not Rendered({"plugins": {"stateStore": {"name": "mine"}}}).hooks


def test_one_leader_at_a_time_where_each_would_lead():
    assert Rendered(MATRIX["one controller"]).one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert "strategy" not in Rendered().one("Deployment")["spec"]


def test_controllers_are_unprivileged_and_stand_apart():
    rendered = Rendered({"controller": {"replicas": 3, "podDisruptionBudget": {"enabled": True, "minAvailable": 2}}})
    deployment = rendered.one("Deployment")
    assert deployment["spec"]["replicas"] == 3
    pod = rendered.pod("controller")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    apart = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    selectors = [apart["labelSelector"], deployment["spec"]["selector"], rendered.one("PodDisruptionBudget")["spec"]["selector"]]
    assert all(set(s["matchLabels"].items()) <= set(labels.items()) for s in selectors)
    assert rendered.one("PodDisruptionBudget")["spec"]["minAvailable"] == 2
    assert "hostNetwork" not in pod
    security = pod["containers"][0]["securityContext"]
    assert security["runAsNonRoot"] and security["capabilities"] == {"drop": ["ALL"]}
    assert not any("hostPath" in v for v in pod["volumes"])


def test_a_controller_stops_when_nobody_is_led_to_it_any_more():
    pod = Rendered().pod("controller")
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < pause and pause + 9 < pod["terminationGracePeriodSeconds"]  # 9 s: a plugin that does not let go
    assert "lifecycle" not in Rendered(MATRIX["no webhook"]).pod("controller")["containers"][0]


def test_controllers_on_the_host_network_go_before_they_come():
    """A new one could not listen, or would not be scheduled, beside an old one with the same ports."""
    strategy = Rendered(MATRIX["host network"]).one("Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert "strategy" not in Rendered().one("Deployment")["spec"]


def test_an_agent_has_named_capabilities_and_three_folders():
    pod = Rendered({"stateDir": "/srv/egw"}).pod("agent")
    container = pod["containers"][0]
    security = container["securityContext"]
    assert pod["hostNetwork"] and "hostPID" not in pod and "privileged" not in security
    assert security["capabilities"] == {"add": ["NET_ADMIN", "NET_RAW", "SYS_NICE"], "drop": ["ALL"]}
    assert not security["allowPrivilegeEscalation"] and security["readOnlyRootFilesystem"]
    assert security["seLinuxOptions"] == {"type": "spc_t"}, "else SELinux keeps it from both folders"
    folders = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    assert folders == {"state": "/srv/egw", "sysctl": "/proc/sys/net"}
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert mounts == {"config": "/etc/egw", "state": "/srv/egw", "sysctl": "/host/proc/sys/net"}
    more = agent_security({"capabilities": {"add": ["NET_ADMIN", "NET_RAW", "BPF"]}})
    assert more["capabilities"]["add"] == ["NET_ADMIN", "NET_RAW", "BPF"] and not more["allowPrivilegeEscalation"]


BPFFS = ({"name": "bpffs", "mountPath": "/sys/fs/bpf"},
         {"name": "bpffs", "hostPath": {"path": "/sys/fs/bpf", "type": "Directory"}})
LOCK = ({"name": "xtables-lock", "mountPath": "/run/xtables.lock"},
        {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}})


@pytest.mark.parametrize("mode, more, capabilities, seccomp", [
    ("netlink", [], [], "RuntimeDefault"), ("iptables", [LOCK], [], "RuntimeDefault"),
    ("ebpf", [BPFFS], ["BPF", "PERFMON"], "Unconfined"), ("auto", [BPFFS, LOCK], ["BPF", "PERFMON"], "Unconfined")])
def test_an_agent_has_what_its_datapath_needs_and_no_more(mode, more, capabilities, seccomp):
    plain = Rendered().pod("agent")
    for values in ({"feature": {"datapathMode": mode}}, {"plugins": {"datapath": {"name": mode}}}):
        pod = Rendered(values).pod("agent")
        container = pod["containers"][0]
        assert container["volumeMounts"] == plain["containers"][0]["volumeMounts"] + [mount for mount, _ in more]
        assert pod["volumes"] == plain["volumes"] + [volume for _, volume in more]
        assert container["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "NET_RAW", "SYS_NICE", *capabilities]
        assert container["securityContext"]["seccompProfile"] == {"type": seccomp}


def test_a_mount_that_the_values_bring_is_not_made_twice():
    """Where an earlier release's values brought it."""
    pod = Rendered({"feature": {"datapathMode": "auto"}, "agent": {
        "extraVolumes": [{"name": "b", "hostPath": {"path": "/sys/fs/bpf"}}, {"name": "l", "hostPath": {"path": "/run/xtables.lock"}}],
        "extraVolumeMounts": [{"name": "b", "mountPath": "/sys/fs/bpf"}, {"name": "l", "mountPath": "/run/xtables.lock"}]}}).pod("agent")
    mounts = [m["mountPath"] for m in pod["containers"][0]["volumeMounts"]]
    assert len(mounts) == len(set(mounts)) and {"/sys/fs/bpf", "/run/xtables.lock"} < set(mounts)
    assert not {"bpffs", "xtables-lock"} & {v["name"] for v in pod["volumes"]}


def agent_security(given):
    return Rendered({"agent": {"securityContext": given}}).pod("agent")["containers"][0]["securityContext"]


def test_an_agent_that_is_given_more_is_not_confined_beside_it():
    """The API server refuses a container that may everything and may not escalate."""
    privileged = agent_security({"privileged": True})
    assert privileged["privileged"] and privileged["runAsUser"] == 0
    assert not {"allowPrivilegeEscalation", "capabilities", "seccompProfile"} & set(privileged)
    for name in ("SYS_ADMIN", "CAP_SYS_ADMIN"):
        admin = agent_security({"capabilities": {"add": ["NET_ADMIN", name]}})
        assert "allowPrivilegeEscalation" not in admin and admin["capabilities"]["drop"] == ["ALL"]
    assert agent_security({"privileged": False}) == {**agent_security({}), "privileged": False}


def test_probes_go_where_egw_listens():
    rendered = Rendered({"agent": {"healthServer": {"port": 15810}, "bindAddress": "127.0.0.1"}})
    container = rendered.pod("agent")["containers"][0]
    assert {"name": "health", "containerPort": 15810} in container["ports"]
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "health", "host": "127.0.0.1"}
    assert rendered.config()["agent"]["healthPort"] == 15810
    assert "host" not in rendered.pod("controller")["containers"][0]["readinessProbe"]["httpGet"]


def test_what_everybody_may_add_arrives():
    role = {"extraArgs": ["--log-level", "debug"], "extraEnv": [{"name": "A", "value": "b"}],
            "extraVolumes": [{"name": "v", "emptyDir": {}}], "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
            "podLabels": {"l": "1"}, "podAnnotations": {"a": "2"}, "nodeSelector": {"disk": "ssd"},
            "image": {"imagePullSecrets": [{"name": "s"}], "digest": "sha256:" + "0" * 64}}
    rendered = Rendered({"agent": role, "controller": role,
                         "global": {"commonLabels": {"team": "net"}, "commonAnnotations": {"note": "x"},
                                    "imageRegistryOverride": "mirror.test"}})
    for kind in ("agent", "controller"):
        pod = rendered.pod(kind)
        container = pod["containers"][0]
        assert container["args"][-2:] == ["--log-level", "debug"] and {"name": "A", "value": "b"} in container["env"]
        assert {"name": "v", "mountPath": "/v"} in container["volumeMounts"] and {"name": "v", "emptyDir": {}} in pod["volumes"]
        assert pod["imagePullSecrets"] == [{"name": "s"}] and pod["nodeSelector"]["disk"] == "ssd"
        assert container["image"] == "mirror.test/egw@sha256:" + "0" * 64
    template_of = rendered.one("DaemonSet")["spec"]["template"]["metadata"]
    assert {"l": "1", "team": "net"}.items() <= template_of["labels"].items()
    assert {"a": "2", "note": "x"}.items() <= template_of["annotations"].items()
    for o in rendered.objects:
        if o["kind"] != "CustomResourceDefinition":
            assert o["metadata"]["labels"]["team"] == "net" and o["metadata"]["annotations"]["note"] == "x", o["kind"]


def test_a_changed_configuration_starts_the_pods_anew():
    def mark(values):
        return Rendered(values).one("DaemonSet")["spec"]["template"]["metadata"]["annotations"]

    assert mark({}) == mark({"controller": {"replicas": 5}})
    assert mark({}) != mark({"feature": {"enableIPv6": True}})


def test_crds_stay_when_the_release_goes():
    rendered = Rendered()
    crds = [o for o in rendered.objects if o["kind"] == "CustomResourceDefinition"]
    assert len(crds) == 7
    for crd in crds:
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        with open(os.path.join(ROOT, "config/crds", crd["spec"]["names"]["plural"] + ".yaml"), encoding="utf-8") as f:
            assert crd["spec"] == yaml.safe_load(f)["spec"]
    assert "CustomResourceDefinition" not in Rendered({"crds": {"install": False}}).kinds()


def test_another_store_gets_no_rights_in_the_api():
    mine = {"name": "mine", "config": {"keys": "of its own"}}
    kinds = set(Rendered({"plugins": {"stateStore": mine, "leaderElection": mine}}).kinds())
    assert kinds == {"ServiceAccount", "ConfigMap", "DaemonSet", "Deployment"}


def test_leases_of_other_names_and_namespaces():
    rendered = Rendered({"plugins": {"stateStore": {"config": {"termLease": "t", "namespace": "other"}},
                                     "leaderElection": {"config": {"lease": "l"}}}, "webhook": {"enabled": False}})
    term, election = (rendered.one("Role", "egressgateway-controller-" + part) for part in ("term", "election"))
    assert term["metadata"]["namespace"] == "other" and term["rules"][0]["resourceNames"] == ["t"]
    assert election["metadata"]["namespace"] == "egw-system" and election["rules"][0]["resourceNames"] == ["l"]


def rules(rendered):
    return [(o["metadata"]["name"], rule) for o in rendered.objects if o["kind"].endswith("Role") for rule in o["rules"]]


VERBS_OF_ONE_SECRET = ["get", "list", "watch", "update"]  # a list or watch must name it, too: metadata.name


def test_one_secret_and_no_wildcard():
    for values, secrets in (({}, ["egressgateway-controller-webhook"]), (MATRIX["more names"], ["mine"]),
                            (MATRIX["no webhook"], []), (MATRIX["cert-manager"], []), (MATRIX["provided"], [])):
        found = rules(Rendered(values))
        assert not any("*" in str(rule) for _, rule in found)
        named = [(name, rule) for name, rule in found if "secrets" in rule["resources"]]
        assert [rule["resourceNames"][0] for _, rule in named] == secrets
        assert all(name == "egressgateway-controller-webhook" and rule["verbs"] == VERBS_OF_ONE_SECRET
                   for name, rule in named)


# ---- webhook -----------------------------------------------------------------------------------------------


def test_the_webhook_covers_specs_and_leads_to_the_controllers():
    rendered = Rendered({"controller": {"webhookPort": 15822}})
    service = rendered.one("Service")
    labels = rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"] == [{"name": "webhook", "port": 443, "targetPort": "webhook"}]
    assert {"name": "webhook", "containerPort": 15822} in rendered.pod("controller")["containers"][0]["ports"]
    everything = ["egressgateways", "egresspolicies", "egressclusterpolicies", "egressclusterinfos"]
    written = [(["CREATE", "UPDATE"], everything)]
    # Of a policy no deletion is asked about: with a namespace it goes, also while no controller is ready.
    deleted = [(["DELETE"], ["egressgateways", "egressclusterinfos"])]
    for kind, path, wanted in (("MutatingWebhookConfiguration", "/mutate", written),
                               ("ValidatingWebhookConfiguration", "/validate", written + deleted)):
        configuration = rendered.one(kind)
        (hook,) = configuration["webhooks"]
        assert hook["clientConfig"] == {"service": {"name": service["metadata"]["name"], "namespace": "egw-system",
                                                    "path": path, "port": 443}}
        assert hook["failurePolicy"] == "Fail" and hook["sideEffects"] == "None"
        assert [(rule["operations"], rule["resources"]) for rule in hook["rules"]] == wanted
        assert all(rule["apiGroups"] == ["egressgateway.spidernet.io"] and rule["scope"] == "*" for rule in hook["rules"])
    webhook = rendered.config()["plugins"]["stateStore"]["config"]["webhook"]
    assert webhook["service"] == webhook["configuration"] == service["metadata"]["name"] and webhook["port"] == 15822
    secret = rendered.one("Secret")
    assert "data" not in secret and webhook["secret"] == secret["metadata"]["name"]


def test_names_of_a_self_made_certificate():
    webhook = Rendered(MATRIX["more names"]).config()["plugins"]["stateStore"]["config"]["webhook"]
    assert webhook["names"] == ["egw.test", "192.0.2.1", "egressgateway-controller-webhook.egw-system.svc.k8s.test"]
    assert webhook["certificate"] == "selfSigned" and webhook["secret"] == "mine"


def certificate_folder(rendered):
    webhook = rendered.config()["plugins"]["stateStore"]["config"]["webhook"]
    pod = rendered.pod("controller")
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == webhook["folder"]]
    (volume,) = [v for v in pod["volumes"] if v["name"] == mount["name"]]
    assert webhook["certificate"] == "provided" and mount["readOnly"]
    return volume["secret"]["secretName"]


def test_a_provided_certificate():
    rendered = Rendered({"controller": {"tls": {"method": "provided", "provided": {
        "tlsCert": "Yw==", "tlsKey": "aw==", "tlsCa": "YQ=="}}}})
    secret = rendered.one("Secret")
    assert secret["data"] == {"tls.crt": "Yw==", "tls.key": "aw==", "ca.crt": "YQ=="}
    assert secret["type"] == Rendered().one("Secret")["type"], "an upgrade cannot change the type"
    assert certificate_folder(rendered) == secret["metadata"]["name"]
    own = Rendered(MATRIX["provided"])
    assert "Secret" not in own.kinds() and certificate_folder(own) == "mine"


def test_each_method_has_a_secret_of_its_own():
    """Type and owner of a Secret cannot change: an upgrade to another method must not meet the one before."""
    auto = Rendered()
    others = [Rendered({"controller": {"tls": {"method": method}}}) for method in ("certmanager", "provided")]
    names = [auto.one("Secret")["metadata"]["name"], *map(certificate_folder, others)]
    assert len(set(names)) == 3, names
    assert auto.config()["plugins"]["stateStore"]["config"]["webhook"]["secret"] == names[0]


def test_a_certificate_of_cert_manager():
    rendered = Rendered(MATRIX["cert-manager"])
    secret = certificate_folder(rendered)
    certificate = rendered.one("Certificate", "egressgateway-controller-webhook")["spec"]
    assert certificate["secretName"] == secret and certificate["duration"] == "8760h"
    assert rendered.one("Service")["metadata"]["name"] + ".egw-system.svc" in certificate["dnsNames"]
    issuer = rendered.one("Issuer", certificate["issuerRef"]["name"])
    authority = rendered.one("Certificate", "egressgateway-controller-webhook-ca")["spec"]
    assert authority["isCA"] and issuer["spec"] == {"ca": {"secretName": authority["secretName"]}}
    assert rendered.one("Issuer", authority["issuerRef"]["name"])["spec"] == {"selfSigned": {}}
    own = Rendered({"controller": {"tls": {"method": "certmanager", "certmanager": {"issuerName": "corp"}}}})
    assert "Issuer" not in own.kinds() and own.one("Certificate")["spec"]["issuerRef"]["name"] == "corp"


def test_a_node_is_purged_with_what_its_agent_had():
    with open(os.path.join(CHART, "purge-node.yaml"), encoding="utf-8") as f:
        purge = yaml.safe_load(f)["spec"]
    agent = Rendered({"feature": {"datapathMode": "auto"}}).pod("agent")
    (container,) = purge["containers"]
    assert purge["hostNetwork"] and container["securityContext"] == agent["containers"][0]["securityContext"]
    assert purge["volumes"] == [v for v in agent["volumes"] if v["name"] != "config"]
    assert container["volumeMounts"] == [m for m in agent["containers"][0]["volumeMounts"] if m["name"] != "config"]
    assert egw([*container["args"], "--help"]).returncode == 0


def test_without_webhook_nothing_of_it():
    kinds = Rendered(MATRIX["no webhook"]).kinds()
    assert not {"Service", "Secret", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"} & set(kinds)


def test_the_chart_has_the_version_of_egw():
    with open(os.path.join(CHART, "Chart.yaml"), encoding="utf-8") as f:
        chart = yaml.safe_load(f)
    assert chart["version"] == chart["appVersion"] == egw(["--version"]).stdout.split()[1]


def test_lint():
    for values in ([], ["-f", OLD_VALUES]):
        done = helm("lint", "--strict", CHART, *values)
        assert done.returncode == 0, done.stdout
