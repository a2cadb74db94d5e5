"""Values that render and then fail, on the server or when egw starts, are refused by helm, with the key's name; what helm's users
do with any chart works: null, the chart as a dependency, pods with more rights."""

import os
import shutil

import pytest
import yaml
from helm_chart import CHART, NAMESPACE, RELEASE, Rendered, helm, template


def tls(**auto):
    return {"controller": {"tls": {"auto": auto}}}


def disruption(least, replicas=2):
    return {"controller": {"replicas": replicas, "podDisruptionBudget": {"enabled": True, "minAvailable": least}}}


REFUSED = [
    # What egw would end for at its start.
    (tls(extraDnsNames=["UPPER.example.org"]), "controller/tls/auto/extraDnsNames/0"),
    (tls(extraDnsNames=["a.*.org"]), "controller/tls/auto/extraDnsNames/0"),
    (tls(extraIpAddresses=["10.0.0.300"]), "controller/tls/auto/extraIpAddresses/0"),
    (tls(extraIpAddresses=["10.0.0.03"]), "controller/tls/auto/extraIpAddresses/0"),
    ({"global": {"clusterDnsDomain": "Cluster.Local"}}, "global/clusterDnsDomain"),
    ({"feature": {"tunnelIpv4Subnet": "foo"}}, "feature/tunnelIpv4Subnet"),
    ({"feature": {"tunnelIpv4Subnet": "fd11::/112"}}, "feature/tunnelIpv4Subnet"),
    ({"feature": {"tunnelIpv6Subnet": "172.31.0.0/16"}}, "feature/tunnelIpv6Subnet"),
    ({"feature": {"tunnelDetectMethod": "foo"}}, "feature/tunnelDetectMethod"),
    ({"feature": {"vxlan": {"name": "a/b"}}}, "feature/vxlan/name"),
    ({"feature": {"clusterCIDR": {"extraCidr": ["10.0.0.0/99"]}}}, "feature/clusterCIDR/extraCidr/0"),
    ({"feature": {"announcedInterfacesToExclude": ["("]}}, 'feature.announcedInterfacesToExclude has "(", which is no regular'),
    ({"marks": {"slotMask": "0x0f0f0000"}}, "marks/slotMask"),
    ({"marks": {"slotMask": 0xff00}}, "marks/slotMask"),
    ({"marks": {"slotMask": "0x000ff000"}}, "marks/slotMask"),
    ({"agent": {"bindAddress": "999.1.1.1"}}, "agent/bindAddress"),
    # What the API server refuses, or should.
    ({"global": {"commonLabels": {"app.kubernetes.io/component": "net"}}}, "global.commonLabels has app.kubernetes.io/component, a label"),
    ({"agent": {"podLabels": {"app.kubernetes.io/name": "mine"}}}, "agent.podLabels has app.kubernetes.io/name, a label"),
    ({"controller": {"podLabels": {"app.kubernetes.io/instance": "a"}}}, "controller.podLabels has app.kubernetes.io/instance, a label"),
    ({"controller": {"podAnnotations": {"egressgateway.spidernet.io/config": "x"}}},
     "controller.podAnnotations has egressgateway.spidernet.io/config, an annotation"),
    ({"global": {"commonAnnotations": {"egressgateway.spidernet.io/config": "x"}}},
     "global.commonAnnotations has egressgateway.spidernet.io/config, an annotation"),
    ({"global": {"commonAnnotations": {"helm.sh/hook": "pre-install"}}}, "global.commonAnnotations has helm.sh/hook, an annotation"),
    (disruption("100%"), "controller/podDisruptionBudget/minAvailable"),
    (disruption("abc"), "controller/podDisruptionBudget/minAvailable"),
    (disruption("51%"), "minAvailable is 51% and controller.replicas 2: no node with a controller could ever be drained"),
    (disruption("1%", 1), "minAvailable is 1% and controller.replicas 1"),
    ({"agent": {"image": {"imagePullSecrets": ["regcred"]}}}, "agent/image/imagePullSecrets/0"),
    ({"agent": {"priorityClassName": "*bad"}}, "agent/priorityClassName"),
    ({"stateDir": "/"}, "stateDir"),
    ({"stateDir": "/var/lib/e g: w"}, "stateDir"),
    ({"stateDir": "/etc/egw"}, "stateDir is /etc/egw, which is something else in egw's pods"),
    ({"agent": {"image": {"digest": "abc"}}}, "agent/image/digest"),
    ({"controller": {"image": {"repository": "Foo/bar"}}}, "controller/image/repository"),
    ({"agent": {"image": {"registry": "registry.example/"}}}, "agent/image/registry"),
    ({"global": {"imageRegistryOverride": "registry.example/"}}, "global/imageRegistryOverride"),
    ({"agent": {"updateStrategy": {"type": "Foo"}}}, "agent/updateStrategy/type"),
    ({"controller": {"extraVolumes": [{"name": "config", "emptyDir": {}}]}}, "controller.extraVolumes has config, a volume"),
    ({"agent": {"extraVolumeMounts": [{"name": "x", "mountPath": "/etc/egw/"}]}}, "agent.extraVolumeMounts has /etc/egw/, where"),
    ({"agent": {"extraVolumeMounts": [{"name": "x", "mountPath": "/var/lib/egw"}]}}, "agent.extraVolumeMounts has /var/lib/egw, where"),
    ({"agent": {"extraEnv": [{"name": "NODE_NAME", "value": "n1"}]}}, "agent.extraEnv has NODE_NAME, a variable"),
    # Mistakes in what a parent chart may hand down.
    ({"global": {"imageRegistry": "r"}}, "global.imageRegistry: unknown key"),
    ({"enabled": True}, "enabled: is for a chart that has this one as a dependency"),
]


@pytest.mark.parametrize("values,sentence", REFUSED, ids=[f"{i} {s[:40]}" for i, (_, s) in enumerate(REFUSED)])
def test_refused(values, sentence):
    done = template(values)
    assert done.returncode != 0 and sentence in done.stderr, done.stderr


TAKEN = [
    tls(extraDnsNames=["*.example.org", "a.example.org"], extraIpAddresses=["10.0.0.3", "fd00::3"]),
    {"global": {"clusterDnsDomain": "cluster.example"}},
    {"feature": {"tunnelIpv4Subnet": "10.200.0.0/20", "tunnelIpv6Subnet": "fd12::/64", "tunnelDetectMethod": "interface=bond0.12",
                 "vxlan": {"name": "egw0"}, "clusterCIDR": {"extraCidr": ["10.0.0.0/8", "10.1.1.1", "fd00::/8", "fd01::1"]},
                 "announcedInterfacesToExclude": ["^br-.*", "^(?!eth).*", "a|b"]}},
    {"marks": {"slotMask": "0x0ff00000", "ctMask": "0x3fffc"}},
    {"marks": {"slotMask": 0x1e0000, "ctMask": "0xfff80000"}},
    {"agent": {"bindAddress": "::", "priorityClassName": ""}, "controller": {"bindAddress": "10.0.0.1"}},
    {"stateDir": "/srv/data/egw-1.state"},
    {"agent": {"podLabels": {"app.kubernetes.io/part-of": "net"}}, "global": {"commonLabels": {"team": "net"}}},
    {"agent": {"image": {"registry": "registry.example:5000/team", "repository": "net/egw_x", "digest": "sha256:" + "0" * 64},
               "updateStrategy": {"type": "OnDelete"}, "extraEnv": [{"name": "MALLOC_ARENA_MAX", "value": "1"}],
               "extraVolumes": [{"name": "certs", "emptyDir": {}}], "extraVolumeMounts": [{"name": "certs", "mountPath": "/etc/certs"}]}},
    {"global": {"imageRegistryOverride": "[fd00::1]:5000"}, "controller": {"image": {"registry": ""}}},
    disruption("50%"), disruption("0%"), disruption("34%", 3), disruption(1),
]


@pytest.mark.parametrize("values", TAKEN, ids=range(len(TAKEN)))
def test_taken(values):
    Rendered(values)


def test_no_value_stands_in_a_selector():
    """An upgrade cannot change it."""
    def selectors(objects):
        out = {}
        for (kind, name), o in objects.items():
            spec = o.get("spec", {})
            if kind in ("DaemonSet", "Deployment", "PodDisruptionBudget"):
                out[kind, name] = spec["selector"]["matchLabels"]
                pod = spec.get("template", {}).get("metadata", {}).get("labels")
                assert pod is None or spec["selector"]["matchLabels"].items() <= pod.items()
            elif kind == "Service":
                out[kind, name] = spec["selector"]
        return out

    def of(**more):
        given = {"controller": {"replicas": 2, "podDisruptionBudget": {"enabled": True, "minAvailable": 1}}, **more}
        return selectors({(o["kind"], o["metadata"]["name"]): o for o in Rendered(given).objects})

    first = of()
    assert {kind for kind, _ in first} == {"DaemonSet", "Deployment", "PodDisruptionBudget", "Service"}
    assert of(**{"global": {"name": "foo", "commonLabels": {"team": "net"}}}) == first


SECTIONS = ["webhook", "cleanup", "global", "crds", "plugins", "feature", "agent.image", "agent.debug", "agent.prometheus",
            "agent.healthServer", "agent.healthServer.readinessProbe", "controller.tls", "controller.tls.auto", "controller.tls.provided",
            "controller.podDisruptionBudget", "agent.name", "controller.replicas", "stateDir"]


@pytest.mark.parametrize("key", SECTIONS)
def test_what_is_needed_cannot_be_taken_out(key):
    done = template(None, "--set", key + "=null")
    assert done.returncode != 0 and f"missing property '{key.rsplit('.', 1)[-1]}'" in done.stderr, done.stderr


def test_all_else_can_be_taken_out():
    """With null, helm's way to drop a default: then there is none, or egw's."""
    def paths(values, above=()):
        for key, value in values.items():
            yield (*above, key)
            if isinstance(value, dict):
                yield from paths(value, (*above, key))

    with open(os.path.join(CHART, "values.yaml"), encoding="utf-8") as f:
        every = [".".join(path) for path in paths(yaml.safe_load(f)) if "kubernetes.io/os" not in path]
    gone = 0
    for key in every:
        done = template(None, "--set", key + "=null")
        if done.returncode == 0:
            gone += 1
            assert list(yaml.safe_load_all(done.stdout))
        else:
            assert "missing property" in done.stderr, key + ": " + done.stderr
    assert gone > 40, gone
    pod = Rendered(None, "--set", "agent.securityContext=null,agent.resources=null,agent.tolerations=null,agent.priorityClassName=null").pod("agent")
    assert not {"tolerations", "priorityClassName"} & set(pod) and "resources" not in pod["containers"][0]


@pytest.mark.parametrize("feature, address", [
    ({}, "0.0.0.0"), ({"enableIPv6": True}, "::"), ({"enableIPv6": True, "tunnelUnderlay": "ipv6"}, "::"),
    ({"enableIPv4": False, "enableIPv6": True}, "::"), ({"enableIPv4": False, "enableIPv6": True, "tunnelUnderlay": "ipv6"}, "::")])
def test_an_ipv6_cluster_reaches_its_pods(feature, address):
    config = Rendered({"feature": feature}).config()
    assert [config[role]["bindAddress"] for role in ("agent", "controller")] == [address] * 2
    assert config["plugins"]["stateStore"]["config"]["webhook"]["address"] == address
    own = Rendered({"feature": feature, "agent": {"bindAddress": "10.0.0.1"}}).config()
    assert own["agent"]["bindAddress"] == "10.0.0.1"


def test_it_can_be_a_dependency(tmp_path):
    parent = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [
        {"name": "egressgateway", "version": "0.1.0", "condition": "egressgateway.enabled", "tags": ["net"]}]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(parent))
    shutil.copytree(CHART, tmp_path / "charts/egressgateway")
    values = {"global": {"imageRegistry": "r", "storageClass": "s", "imageRegistryOverride": "mirror.test"},
              "egressgateway": {"enabled": True, "controller": {"replicas": 3}}}

    def render():
        return helm("template", RELEASE, str(tmp_path), "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump(values))

    done = render()
    assert done.returncode == 0, done.stderr
    (deployment,) = [o for o in yaml.safe_load_all(done.stdout) if o and o["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"].startswith("mirror.test/")
    values["egressgateway"]["contoller"] = {}
    assert "contoller" in render().stderr, "a mistake is still one"
    del values["egressgateway"]["contoller"]
    values["egressgateway"]["enabled"] = False
    assert not [o for o in yaml.safe_load_all(render().stdout) if o]


def test_a_controller_that_is_given_more_is_not_confined_beside_it():
    def security(given):
        return Rendered({"controller": {"securityContext": given}}).pod("controller")["containers"][0]["securityContext"]

    assert not {"allowPrivilegeEscalation", "capabilities", "seccompProfile"} & set(security({"privileged": True}))
    assert "allowPrivilegeEscalation" not in security({"capabilities": {"add": ["SYS_ADMIN"]}})
    assert security({})["allowPrivilegeEscalation"] is False


def test_the_cleanup_runs_where_and_as_a_controller_can():
    own = {"hostNetwork": True, "priorityClassName": "mine", "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}],
           "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
               {"matchExpressions": [{"key": "c", "operator": "Exists"}]}]}}},
           "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://p"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
           "extraVolumes": [{"name": "v", "emptyDir": {}}], "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
           "image": {"imagePullSecrets": [{"name": "s"}]}, "securityContext": {"runAsUser": 1000680000},
           "podLabels": {"mesh": "off"}, "podAnnotations": {"inject": "false"}}
    rendered = Rendered({"controller": own})
    (template,) = [o["spec"]["template"] for o in rendered.hooks if o["kind"] == "Job"]
    controller, job = rendered.pod("controller"), template["spec"]
    assert template["metadata"]["labels"]["mesh"] == "off" and template["metadata"]["annotations"] == {"inject": "false"}
    for key in ("hostNetwork", "dnsPolicy", "priorityClassName", "affinity", "imagePullSecrets", "nodeSelector", "tolerations"):
        assert job[key] == controller[key], key
    assert job["serviceAccountName"] == "egressgateway-controller-cleanup"
    container = job["containers"][0]
    assert container["resources"] == controller["containers"][0]["resources"] and container["env"] == own["extraEnv"]
    assert container["securityContext"] == controller["containers"][0]["securityContext"]
    assert container["securityContext"]["runAsUser"] == 1000680000 and container["securityContext"]["runAsNonRoot"]
    assert {"name": "v", "mountPath": "/v"} in container["volumeMounts"] and {"name": "v", "emptyDir": {}} in job["volumes"]
    default = [o["spec"]["template"]["spec"] for o in Rendered().hooks if o["kind"] == "Job"][0]
    assert default["containers"][0]["resources"]["limits"] and default["priorityClassName"] == "system-cluster-critical"
