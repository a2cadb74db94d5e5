"""apply, get, delete, watch: outputs, exit codes, round trips."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import threading

import yaml
from cli_support import MANIFESTS, environment, gateway, node, pod, policy

EGW_KIND = "egressgateway.egressgateway.spidernet.io"


def test_apply_says_created_configured_unchanged(store):
    assert store.apply(node("n1", egress="true")) == "node/n1 created\n"
    assert store.apply(gateway()) == f"{EGW_KIND}/egw created\n"
    assert store.apply(gateway()) == f"{EGW_KIND}/egw unchanged\n"
    changed = gateway()
    changed["spec"]["ippools"]["ipv4"].append("10.6.1.57")
    assert store.apply(changed) == f"{EGW_KIND}/egw configured\n"
    assert store.json("get", "egw", "egw")["spec"]["ippools"]["ipv4"] == ["10.6.1.55", "10.6.1.56", "10.6.1.57"]


def test_apply_again_leaves_what_admission_filled_in(store):
    store.apply(gateway())
    assert "created" in store.apply(policy())
    first = store.json("get", "egp", "shop")
    assert first["spec"]["egressGatewayName"] == "egw", "the cluster default is filled in"
    assert store.apply(policy()) == "egresspolicy.egressgateway.spidernet.io/shop unchanged\n"
    assert store.json("get", "egp", "shop")["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_the_manifests_of_the_documentation_apply_unchanged(store):
    done = store.run("--set", "feature.enableIPv6=true", "apply", "-f", MANIFESTS)
    # A folder is applied in the order of its file names; the cluster policy comes before its gateway.
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "egressclusterpolicy.egressgateway.spidernet.io/data-batch created",
        f"{EGW_KIND}/egw created",
        "egresspolicy.egressgateway.spidernet.io/shop created"]
    again = store.run("--set", "feature.enableIPv6=true", "apply", "-f", MANIFESTS)
    assert [line.split()[-1] for line in again.stdout.splitlines()] == ["unchanged"] * 3


def test_dry_run_stores_nothing(store):
    assert store.ok("apply", "-f", "-", "--dry-run", stdin=json.dumps(gateway())) == \
        f"{EGW_KIND}/egw created (dry run)\n"
    assert store.run("get", "egw", "egw").returncode == 1


def test_goes_on_after_a_failure_and_ends_with_one(store):
    bad = gateway("bad")
    bad["spec"]["ippools"]["ipv4"] = ["127.0.0.1"]
    bad["spec"]["clusterDefault"] = False
    done = store.run("apply", "-f", "-", stdin="\n---\n".join(json.dumps(d) for d in (bad, gateway())))
    assert done.returncode == 1
    assert done.stdout == f"{EGW_KIND}/egw created\n"
    error = done.stderr.splitlines()
    assert error[0].startswith(f"Error: standard input document 1: {EGW_KIND}/bad: ")
    assert "127.0.0.1" in done.stderr and "spec.ippools" in done.stderr


def test_status_of_core_objects_comes_with_them(store):
    store.apply(node("n1"), pod("p1", "10.244.1.10", app="shop"))
    assert store.json("get", "no", "n1")["status"]["addresses"][0]["address"] == "10.6.0.11"
    assert store.json("get", "po", "p1")["status"]["podIP"] == "10.244.1.10"
    assert store.apply(pod("p1", "10.244.1.10", app="shop")) == "pod/p1 unchanged\n"
    assert store.apply(pod("p1", "10.244.1.11", app="shop")) == "pod/p1 configured\n"
    assert store.json("get", "po", "p1")["status"]["podIP"] == "10.244.1.11"


def test_a_status_of_core_objects_that_nobody_can_read_is_refused(store):
    """It would keep every later change of the object out, and agents would go by what they knew."""
    for have in (False, True):
        if have:
            store.apply(node("n1"), pod("p1", "10.244.1.10"))
        for document, *words in ((pod("p1", "10.244.1.10/32"), "status.podIPs[0].ip", "is not an IP address", "it is a prefix"),
                                 (pod("p1", "banana"), "status.podIPs[0].ip", "banana"),
                                 ({**node("n1"), "status": {"addresses": "x"}}, 'status.addresses: "x": want a list')):
            for dry in ([], ["--dry-run"]):
                done = store.run("apply", "-f", "-", *dry, stdin=json.dumps(document))
                assert done.returncode == 1 and done.stdout == "", (have, dry, done.stdout)
                for word in words:
                    assert word in done.stderr, done.stderr
    assert store.json("get", "po", "p1")["status"]["podIP"] == "10.244.1.10"


def test_what_nobody_can_read_is_put_right_by_apply(store):
    """Written by a version before, or by other hands: the manifest says what it shall be."""
    store.apply(pod("p1", "10.244.1.10"))
    with contextlib.closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE objects SET document = replace(document, '10.244.1.10', '10.244.1.10/32')")
    assert store.json("get", "po", "p1")["status"]["podIP"] == "10.244.1.10/32"
    assert store.apply(pod("p1", "10.244.1.10")) == "pod/p1 configured\n"
    assert store.apply(pod("p1", "10.244.1.10", app="shop")) == "pod/p1 configured\n"
    assert store.json("get", "po", "p1")["status"]["podIP"] == "10.244.1.10"


def test_status_of_our_kinds_only_by_subresource(store):
    with_status = {**gateway(), "status": {"nodeList": [{"name": "n1", "status": "Ready"}]}}
    done = store.run("apply", "-f", "-", stdin=json.dumps(with_status))
    assert done.returncode == 0
    assert "Warning: " in done.stderr and "--subresource status" in done.stderr
    assert "nodeList" not in store.json("get", "egw", "egw").get("status", {})
    store.ok("apply", "-f", "-", "--subresource", "status", stdin=json.dumps(with_status))
    assert store.json("get", "egw", "egw")["status"]["nodeList"] == [{"name": "n1", "status": "Ready"}]
    assert "nodeList" in store.json("get", "egw", "egw")["status"], "a later apply keeps it"


def test_a_status_that_cannot_be_read_is_refused(store):
    tunnel = {"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressTunnel", "metadata": {"name": "n1"}}
    store.apply(gateway(), policy(), tunnel)
    eip = [{"name": "n1", "eips": [{"ipv4": "10.6.1.55", "id": "x"}]}]
    for document, status, *words in (
            (gateway(), {"nodeList": eip, "term": -1}, 'status.nodeList[0].eips[0].id: "x": want', "status.term: number -1"),
            (gateway(), [], "status: a list: want an object"), (gateway(), "x", 'status: "x": want an object'),
            (policy(), {"eip": 5}, "status.eip: number 5: want"), (tunnel, {"phase": "Bogus"}, 'status.phase: "Bogus": want one of Pending,'),
            (node("n1"), {"addresses": "x"}, 'status.addresses: "x": want a list')):
        if document["kind"] == "Node":
            store.apply(document)
        done = store.run("apply", "-f", "-", "--subresource", "status", stdin=json.dumps({**document, "status": status}))
        assert done.returncode == 1 and done.stdout == "", done.stdout
        for word in words:
            assert word in done.stderr, done.stderr


def test_what_cannot_be_read_hides_nothing_else(store):
    """A store that somebody else has written into: the objects are named, the rest is shown."""
    store.apply(gateway(), gateway("other", ippools={"ipv4": ["10.6.2.1"]}, clusterDefault=False), policy(),
                node("n1"), pod("p1", "10.244.1.10", app="shop"))
    with sqlite3.connect(store.path) as db:
        for kind, name, spoil in (("EgressGateway", "egw", ("status", {"nodeList": [{"name": 5}]})),
                                  ("EgressGateway", "other", ("spec", 7))):
            (text,) = db.execute("SELECT document FROM objects WHERE kind = ? AND name = ?", (kind, name)).fetchone()
            document = {**json.loads(text), spoil[0]: spoil[1]}
            db.execute("UPDATE objects SET document = ? WHERE kind = ? AND name = ?", (json.dumps(document), kind, name))
    db.close()
    problems = {p["object"]: p for p in json.loads(store.run("status", "-o", "json").stdout)["problems"]}
    assert problems["egressgateway/egw"]["reason"] == "Unreadable"
    assert "status.nodeList[0].name" in problems["egressgateway/egw"]["message"]
    assert "spec: number 7" in problems["egressgateway/other"]["message"]
    why = store.run("why", "p1", "203.0.113.7")
    assert why.returncode == 0 and "egresspolicy/default/shop" in why.stdout
    assert "Warning: egressgateway/egw: status.nodeList[0].name: number 5" in why.stderr


def test_labels_and_annotations(store):
    first = gateway()
    first["metadata"]["labels"] = {"team": "a"}
    store.apply(first)
    assert "unchanged" in store.apply(first)
    assert "unchanged" in store.apply(store.json("get", "egw", "egw")), "what get gives"
    other = gateway()
    other["metadata"]["labels"] = {"tier": "b"}
    assert "configured" in store.apply(other)
    assert store.json("get", "egw", "egw")["metadata"]["labels"] == {"tier": "b"}
    store.ok("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {
        "name": "n1", "labels": {"egress": "true"}, "annotations": {"a": "b"}}}))
    bare = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    assert "configured" in store.apply(gateway(), bare), "not given any more: gone"
    for kind, name in (("egw", "egw"), ("no", "n1")):
        metadata = store.json("get", kind, name)["metadata"]
        assert "labels" not in metadata and "annotations" not in metadata, metadata
    assert "unchanged" in store.apply(bare)


def test_what_a_verb_has_noted_stays(store):
    store.apply(node("n1"), {"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressTunnel",
                             "metadata": {"name": "n1", "annotations": {"mine": "1"}}})
    store.ok("drain", "n1")
    store.apply({"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressTunnel", "metadata": {"name": "n1"}})
    assert list(store.json("get", "egt", "n1")["metadata"]["annotations"]) == ["egressgateway.spidernet.io/drain"]


def test_a_version_that_is_given_is_a_condition(store):
    store.apply(gateway(), policy())
    read = store.json("get", "egp", "shop")
    store.apply(policy(priority=77))
    done = store.run("apply", "-f", "-", stdin=json.dumps({**read, "spec": {**read["spec"], "priority": 5}}))
    assert done.returncode == 1 and done.stdout == "", done
    assert f'metadata.resourceVersion: "{read["metadata"]["resourceVersion"]}", but "' in done.stderr, done.stderr
    assert "read it again" in done.stderr and "leave metadata.resourceVersion and metadata.uid out" in done.stderr
    assert store.json("get", "egp", "shop")["spec"]["priority"] == 77
    now = store.json("get", "egp", "shop")
    assert "configured" in store.apply({**now, "spec": {**now["spec"], "priority": 5}})
    status = store.run("apply", "-f", "-", "--subresource", "status", stdin=json.dumps({**now, "status": {"node": "n1"}}))
    assert status.returncode == 1 and "metadata.resourceVersion" in status.stderr, status
    store.ok("delete", "egp", "shop")
    store.apply(policy())
    del now["metadata"]["resourceVersion"]
    done = store.run("apply", "-f", "-", stdin=json.dumps(now))
    assert done.returncode == 1 and "it is another one of the same name" in done.stderr, done.stderr

    # A cluster's nodes copied here: the versions are that cluster's.
    copy = {**node("n1"), "metadata": {"name": "n1", "uid": "a", "resourceVersion": "5", "labels": {"egress": "true"}}}
    assert store.apply(copy) == "node/n1 created\n"
    copy["metadata"]["resourceVersion"] = "6"
    assert store.apply(copy) == "node/n1 unchanged\n"


def test_finalizers_of_others(store):
    held = gateway()
    held["metadata"]["finalizers"] = ["example.org/x"]
    store.apply(held)
    store.run("delete", "egw", "egw")
    left = store.json("get", "egw", "egw")["metadata"]
    assert left["deletionTimestamp"] and "example.org/x" in left["finalizers"]
    again = store.run("apply", "-f", "-", stdin=json.dumps(gateway()))
    assert again.returncode == 0 and "egw: has been deleted and goes when its finalizers do" in again.stderr, again.stderr
    held["metadata"]["finalizers"] = []
    store.apply(held)
    assert store.run("get", "egw", "egw").returncode == 1, "it has gone"


def test_get_table_has_the_columns_of_the_kind(store):
    store.apply(gateway())
    header, row = store.ok("get", "egw").splitlines()
    assert header.split() == ["NAME", "IPV4DEFAULTEIP", "IPV6DEFAULTEIP", "CLUSTERDEFAULT", "IPV4TOTAL", "IPV4FREE",
                              "IPV6TOTAL", "IPV6FREE", "AGE"]
    assert row.split()[:4] == ["egw", "10.6.1.56", "<none>", "true"]
    assert header.index("CLUSTERDEFAULT") == row.index("true")


def test_get_formats(store):
    store.apply(gateway(), policy(), policy("other", "team"))
    assert store.ok("get", "egressgateways", "-o", "name") == f"{EGW_KIND}/egw\n"
    one = store.json("get", "EgressGateway", "egw")
    assert one["kind"] == "EgressGateway"
    listed = store.json("get", "egw")
    assert (listed["kind"], len(listed["items"])) == ("List", 1)
    assert yaml.safe_load(store.ok("get", "egw", "egw", "-o", "yaml")) == one
    assert list(yaml.safe_load(store.ok("get", "egw", "egw", "-o=yaml"))) == ["apiVersion", "kind", "metadata", "spec"]
    assert len(store.json("get", "egp", "-A")["items"]) == 2
    assert [p["metadata"]["name"] for p in store.json("get", "egp", "-n", "team")["items"]] == ["other"]
    assert store.ok("get", "egp", "-A").splitlines()[0].startswith("NAMESPACE   NAME ")
    several = store.ok("get", "egw,egp")
    assert f"{EGW_KIND}/egw" in several and "egresspolicy.egressgateway.spidernet.io/shop" in several
    assert "\n\nNAME" in several
    assert store.json("get", "egw/egw")["metadata"]["name"] == "egw"


def test_get_by_label(store):
    store.apply(pod("a", "10.244.1.1", app="shop"), pod("b", "10.244.1.2", app="bank"))
    assert store.ok("get", "pods", "-l", "app=shop", "-o", "name") == "pod/a\n"
    assert store.ok("get", "pods", "-l", "app in (shop,bank)", "-o", "name") == "pod/a\npod/b\n"


def test_what_is_not_there(store):
    done = store.run("get", "egw", "x")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", 'Error: egressgateways "x" not found\n')
    done = store.run("get", "egp")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No resources found in default namespace.\n")
    done = store.run("get", "egw", "x", "-o", "json")
    assert (done.returncode, done.stdout) == (1, "")
    assert store.json("get", "egw")["items"] == []
    done = store.run("delete", "egw", "x")
    assert (done.returncode, done.stderr) == (1, 'Error: egressgateways "x" not found\n')
    assert store.run("delete", "egw", "x", "--ignore-not-found").returncode == 0


def test_delete(store):
    store.apply(gateway(), policy(), pod("a", "10.244.1.1"), pod("b", "10.244.1.2"))
    assert store.ok("delete", "pods", "a", "b") == 'pod "a" deleted\npod "b" deleted\n'
    assert store.json("get", "pods")["items"] == []
    assert store.ok("delete", "-f", os.path.join(MANIFESTS, "egresspolicy.yaml")) == \
        'egresspolicy.egressgateway.spidernet.io "shop" deleted\n'
    assert store.json("get", "egp")["items"] == []


def test_delete_of_a_held_object_says_by_what(store):
    held = node("n9")
    held["metadata"]["finalizers"] = ["example.org/hold"]
    store.apply(held)
    assert store.ok("delete", "node", "n9") == \
        'node "n9" marked for deletion: held by finalizer example.org/hold\n'
    assert "deletionTimestamp" in store.json("get", "no", "n9")["metadata"]


def test_watch_shows_changes_of_another_process(store):
    store.apply(gateway())
    watch = store.watch("egw", "-o", "name")
    watch.until("/egw\n")
    store.apply(gateway("second", clusterDefault=False, ippools={"ipv4": ["10.6.1.80"]}))
    watch.until("/second\n")
    store.ok("delete", "egw", "second")
    watch.process.send_signal(signal.SIGINT)
    assert watch.end() == 0


def test_watch_of_one_object_as_json(store):
    store.apply(gateway())
    watch = store.watch("egw", "egw", "-o", "json")
    watch.until("\n}\n")
    status = {**gateway(), "status": {"nodeList": [{"name": "n7", "status": "Ready"}]}}
    store.ok("apply", "-f", "-", "--subresource", "status", stdin=json.dumps(status))
    watch.until('"n7"')
    watch.process.send_signal(signal.SIGTERM)
    assert watch.end() == 0


def test_watch_ends_when_its_reader_goes_away(store):
    store.apply(gateway())
    watch = store.watch("egw")
    watch.until("egw")
    assert watch.end() == 0  # closes the pipe first


def test_watch_over_an_interruption_shows_every_change_once(store, tmp_path):
    store.apply(gateway())
    gate = tmp_path / "gate"
    gate.touch()
    watch = store.watch("egw", "-o", "name", "--set", f"plugins.stateStore.config.gate={gate}")
    watch.until("/egw\n")
    gate.unlink()
    line = ""
    while not line.startswith("the store cannot be reached: "):  # the plugin's own warning may come first
        line = watch.process.stderr.readline().decode()
        assert line, "the watch ended"
    assert str(gate) in line
    store.apply(gateway("second", clusterDefault=False, ippools={"ipv4": ["10.6.1.80"]}))
    gate.touch()
    watch.until("/second\n")
    watch.process.send_signal(signal.SIGINT)
    watch.process.wait(10)
    assert watch.text.count("/egw\n") == 1
    assert watch.end() == 0


def test_watch_of_what_is_not_there(store):
    done = store.run("get", "egw", "x", "-w")
    assert (done.returncode, done.stderr) == (1, 'Error: egressgateways "x" not found\n')


def test_broken_stdout(store):
    store.apply(gateway())
    for words in (["get", "egw"], ["get", "egw", "-w"]):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run(store.args(*words), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
                                  env=environment(), timeout=60)
        assert done.returncode == 1, words
        assert done.stderr == "Error: standard output: cannot be written (No space left on device)\n"


def test_watch_leaves_its_output_as_it_is(store):
    """Others may write there, too, who do not expect to be told to come again later."""
    store.apply(gateway())
    reader, writer = os.pipe()
    with subprocess.Popen(store.args("get", "egw", "-w"), stdout=writer, env=environment()) as watch:
        assert os.read(reader, 4096)
        assert os.get_blocking(writer)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0
    assert os.get_blocking(writer)
    os.close(reader)
    os.close(writer)


def test_two_at_once(store):
    """Eight writers at the same object: every one gets through, each change is kept."""
    store.apply(gateway())
    results = []

    def write(i):
        results.append(store.run("apply", "-f", "-", stdin="\n---\n".join(
            json.dumps(pod(f"p{i}-{k}", f"10.244.{i}.{k}")) for k in range(1, 6))).returncode)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [0] * 8
    assert len(store.json("get", "pods")["items"]) == 40


def test_drain_needs_a_node_and_sets_the_annotation(store):
    done = store.run("drain", "n1")
    assert (done.returncode, done.stderr) == (1, 'Error: egresstunnels "n1" not found: no node of that name\n')
    store.apply({"apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressTunnel",
                 "metadata": {"name": "n1"}, "spec": {}})
    assert store.ok("drain", "n1") == "node/n1 draining\n"
    assert "egressgateway.spidernet.io/drain" in store.json("get", "egt", "n1")["metadata"]["annotations"]
    assert store.ok("drain", "n1") == "node/n1 draining already\n"
    assert store.ok("undrain", "n1") == "node/n1 not draining any more\n"
    assert "egressgateway.spidernet.io/drain" not in store.json("get", "egt", "n1")["metadata"].get("annotations", {})


def test_status_without_a_controller_is_not_healthy(store):
    done = store.run("status")
    assert done.returncode == 1
    assert "no controller has led yet" in done.stdout
    assert json.loads(store.run("status", "-o", "json").stdout)["healthy"] is False
    done = store.run("status", "--local")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no agent and no controller answers here: ")
