"""check: the rules of apply without a store, and against one; every fault, each with its field."""

import json
import os
import time

import pytest

from cli_support import MANIFESTS, gateway, node, policy


def text(*documents):
    return "\n---\n".join(json.dumps(d) for d in documents)


def check(store, *documents, stored=False):
    return store.run("check", "-f", "-", *(["--stored"] if stored else []), stdin=text(*documents))


def test_the_documentations_manifests_are_well_whatever_their_order(store):
    os.unlink(store.path)
    done = store.run("--set", "feature.enableIPv6=true", "check", "-f", MANIFESTS)
    assert done.returncode == 0 and done.stdout.startswith("3 checked, 0 refused"), done
    assert not os.path.exists(store.path), "no store is made"


def test_every_fault_is_told_with_its_field(store):
    bad = gateway("bad")
    bad["spec"]["clusterDefault"] = False
    bad["spec"]["ippools"]["ipv4"] = ["127.0.0.1", "10.6.1.300", "10.6.1.9-10.6.1.3"]
    wrong = policy("wrong")
    wrong["spec"]["destSubnet"] = ["10.0.0.0/33"]
    wrong["spec"]["appliedTo"] = {}
    done = check(store, wrong, bad, gateway(), {"kind": "Egress"})
    assert done.returncode == 1 and done.stdout.startswith("4 checked, 3 refused")
    errors = done.stderr.splitlines()
    for words in ('bad: spec.ippools.ipv4[0]: ', 'bad: spec.ippools.ipv4[1]: ', 'bad: spec.ippools.ipv4[2]: ',
                  "wrong: spec.destSubnet[0]: ", "wrong: spec.appliedTo", "standard input document 4: "):
        assert any(words in e and e.startswith("Error: standard input document") for e in errors), (words, errors)


def test_two_that_cannot_both_be(store):
    second = gateway("second")
    done = check(store, second, gateway(), gateway())
    assert done.returncode == 1
    assert "clusterDefault" in done.stderr and "stands in standard input document 2 already" in done.stderr


def faults_of(done):
    """{object: [fault]} of what check or apply said, which has to say each on a line of its own."""
    out = {}
    for line in done.stderr.splitlines():
        if not line.startswith("Error: "):
            continue
        place, fault = line.split(".egressgateway.spidernet.io/", 1)[1].split(": ", 1)
        out.setdefault(place, []).append(fault)
    return out


def test_apply_says_what_check_says_in_any_order(store):
    """A policy before its default gateway, faults of every sort in several objects, one object twice."""
    bad = gateway("bad", clusterDefault="yes", colour="red", nodeSelector={"selector": {}})
    bad["spec"]["ippools"] = {"ipv4": [7, "10.6.1.300", "127.0.0.1"]}
    wrong = policy("wrong", priority="high", destSubnet=["x", "10.0.0.0/33"], appliedTo={"podSubnet": [], "podSelecter": {}})
    named = gateway("Bad_Name", ippools={"ipv4": ["10.6.1.300"]})
    documents = [policy(), wrong, bad, gateway(), gateway(), named]
    checked = check(store, *documents)
    applied = store.run("apply", "-f", "-", stdin=text(*documents))
    assert checked.returncode == applied.returncode == 1
    assert faults_of(checked) == faults_of(applied)
    assert applied.stdout.splitlines() == ["egressgateway.egressgateway.spidernet.io/egw created",
                                           "egresspolicy.egressgateway.spidernet.io/shop created"]
    told = {name: sorted(f.split(": ")[0] for f in faults) for name, faults in faults_of(checked).items()}
    assert told == {
        "bad": ["spec.clusterDefault", "spec.colour", "spec.ippools.ipv4[0]", "spec.ippools.ipv4[1]",
                "spec.ippools.ipv4[2]", "spec.nodeSelector.selector"],
        "Bad_Name": ["metadata.name", "spec.clusterDefault", "spec.ippools.ipv4[0]"],
        "wrong": ["spec.appliedTo.podSelecter", "spec.destSubnet[0]", "spec.destSubnet[1]", "spec.priority"],
        "egw": ["stands in standard input document 4 already"]}, told


def test_a_policy_of_a_refused_gateway_is_judged_as_if_it_were_there(store):
    bad = gateway(colour="red")
    outside = policy("outside", egressIP={"ipv4": "10.6.9.9"})
    named = policy("named", egressGatewayName="egw")
    told = faults_of(check(store, outside, named, bad))
    assert set(told) == {"egw", "outside"}, told
    assert told["outside"][0].startswith("spec.egressIP.ipv4: 10.6.9.9 is not in the IPv4 pool"), told


def test_what_the_metadata_may_not_hold_is_told_by_check_and_apply(store):
    """A namespace of a cluster-wide kind and a mistyped field, beside other faults; new or stored."""
    store.apply(node("n1", egress="true"), gateway("stored"))
    for name in ("new", "stored"):
        wrong = gateway(name, clusterDefault=False, colour="red")
        wrong["metadata"].update(namespace="x", lables={"a": "b"})
        for done in (check(store, wrong, stored=True), store.run("apply", "-f", "-", stdin=text(wrong))):
            assert done.returncode == 1 and "configured" not in done.stdout, done
            faults = sorted(f.split(":")[0] for f in faults_of(done)[name])
            assert {"metadata.lables", "metadata.namespace", "spec.colour"} <= set(faults), faults
    mistyped = gateway("stored")
    mistyped["metadata"]["lables"] = {"a": "b"}
    done = store.run("apply", "-f", "-", stdin=text(mistyped))
    assert done.returncode == 1 and "metadata.lables: unknown field" in done.stderr, done
    quoted = policy("q")
    quoted["metadata"]["namespace"] = 123
    done = check(store, quoted)
    assert done.returncode == 1 and "metadata.namespace: 123: want a string; put it into quotes" in done.stderr, done


def test_what_the_store_writes_itself_is_judged_too(store):
    store.apply(gateway("stored", clusterDefault=False))
    for name in ("new", "stored"):
        wrong = gateway(name, clusterDefault=False, ippools={"ipv4": ["10.6.7.1" if name == "new" else "10.6.1.56"]})
        wrong["metadata"].update(generation="x", creationTimestamp="yesterday", resourceVersion="abc",
                                 deletionTimestamp=[1], ownerReferences="x", managedFields=5)
        told = [faults_of(done)[name] for done in (check(store, wrong), check(store, wrong, stored=True),
                                                   store.run("apply", "-f", "-", stdin=text(wrong)))]
        assert told[0] == told[1] == told[2], told
        assert sorted(f.split(":")[0] for f in told[0]) == sorted(
            f"metadata.{f}" for f in ("generation", "creationTimestamp", "resourceVersion", "deletionTimestamp",
                                      "ownerReferences", "managedFields")), told[0]
    large = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "annotations": {"a": "x" * 1600000}}}
    for done in (check(store, large), store.run("apply", "-f", "-", stdin=text(large))):
        assert done.returncode == 1 and "bytes as JSON; want at most 1572864" in done.stderr, done


def test_what_one_gateway_gives_up_another_may_take(store):
    """Of one file: the default changes hands, and an address; whatever the order."""
    def pools(last, *addresses, **more):
        return gateway(f"g{last}", ippools={"ipv4": list(addresses)}, clusterDefault=False, **more)
    one, two = pools(1, "10.6.1.1", "10.6.1.9"), pools(2, "10.6.1.2")
    one["spec"]["clusterDefault"] = True
    store.apply(one, two)
    after_one, after_two = pools(1, "10.6.1.1"), pools(2, "10.6.1.2", "10.6.1.9")
    after_two["spec"]["clusterDefault"] = True
    for documents in ((after_one, after_two), (after_two, after_one)):
        done = check(store, policy(), *documents, stored=True)
        assert done.returncode == 0 and done.stdout.startswith("3 checked, 0 refused"), done
    told = store.apply(policy(), after_two, after_one)
    assert [line.split()[0].split("/")[1] for line in told.splitlines()] == ["g2", "g1", "shop"], told
    assert store.json("get", "egp", "shop")["spec"]["egressGatewayName"] == "g2"
    assert store.apply(after_one, after_two).count("unchanged") == 2


def test_documents_before_a_yaml_mistake_are_judged(store):
    bad = gateway(colour="red")
    for done in (store.run("check", "-f", "-", stdin=text(node("n1", egress="true"), bad) + "\n---\na: [\n"),
                 store.run("apply", "-f", "-", stdin=text(node("n1", egress="true"), bad) + "\n---\na: [\n")):
        assert done.returncode == 1
        assert "spec.colour: unknown field" in done.stderr and "not valid YAML" in done.stderr, done.stderr


def test_a_key_given_twice_in_json(store):
    twice = json.dumps(gateway()).replace('"clusterDefault": true', '"clusterDefault": true, "clusterDefault": false')
    done = store.run("check", "-f", "-", stdin=twice)
    assert done.returncode == 1 and 'the key "clusterDefault" is given twice' in done.stderr, done


def test_no_text_of_a_manifest_begins_a_line(store):
    forged = gateway("egw\nError: forged", **{"x\nError: forged": 1})
    for done in (check(store, forged), check(store, {"apiVersion": "v1", "kind": "X\nError: forged"}),
                 store.run("apply", "-f", "-", stdin=text(forged))):
        assert done.returncode == 1
        assert not [line for line in done.stderr.splitlines() if line.startswith("Error: forged")], done.stderr


def test_more_faults_than_are_listed(store):
    bad = gateway()
    bad["spec"]["ippools"]["ipv4"] = ["x"] * 150
    for done in (check(store, bad), store.run("apply", "-f", "-", stdin=text(bad))):
        faults = faults_of(done)["egw"]
        assert len(faults) == 101 and faults[-1] == "and 50 more faults: not listed", faults


def test_a_default_that_was_filled_in_follows_the_pool(store):
    store.apply(node("n1", egress="true"))
    ours = gateway()
    ours["spec"]["ippools"] = {"ipv4": ["10.6.1.55-10.6.1.58"]}
    store.apply(ours)
    ours["spec"]["ippools"] = {"ipv4": ["10.6.1.57-10.6.1.60"]}
    done = store.run("apply", "-f", "-", stdin=text(ours))
    assert done.returncode == 0, done.stderr
    assert "10.6.1.55 has left the pool; 10.6.1.57 is the default now" in done.stderr
    assert store.json("get", "egw", "egw")["spec"]["ippools"]["ipv4DefaultEIP"] == "10.6.1.57"
    assert store.ok("apply", "-f", "-", stdin=text(ours)).endswith("unchanged\n")


def test_against_the_store(store):
    store.apply(node("n1", egress="true"), gateway(), policy())
    smaller = gateway()
    smaller["spec"]["ippools"] = {"ipv4": ["10.6.1.55"], "ipv4DefaultEIP": "10.6.1.55"}
    assert check(store, smaller).returncode == 0
    before = store.json("get", "egw", "egw")
    alone = policy("alone")
    assert check(store, alone).returncode == 1, "without the store there is no default gateway"
    assert check(store, alone, stored=True).returncode == 0
    changed = policy()
    changed["spec"]["egressIP"] = {"ipv4": "10.6.1.55"}
    done = check(store, changed, stored=True)
    assert done.returncode == 1 and "spec.egressIP.ipv4" in done.stderr, done.stderr
    assert store.json("get", "egw", "egw") == before and store.run("get", "egp", "alone").returncode == 1


def test_one_of_a_thing_is_named_as_one(store):
    twice = gateway()
    twice["spec"]["ippools"] = {"ipv4": ["10.6.1.55", "10.6.1.55"]}  # "it counts once"
    assert check(store, node("n1", egress="true"), twice).stdout == "2 checked, 0 refused, 1 warning\n"
    assert check(store, twice).stdout == "1 checked, 0 refused, 2 warnings\n"  # there is no node for it


@pytest.mark.parametrize("gateways", [99, 999])  # each is compared with each
def test_a_thousand_manifests_in_a_second(store, tmp_path, gateways):
    documents = [node("n1", egress="true")]
    for i in range(gateways):
        g = gateway(f"g{i}")
        g["spec"] = {"ippools": {"ipv4": [f"10.{7 + i // 250}.{i % 250}.0/24"]},
                     "nodeSelector": g["spec"]["nodeSelector"]}
        documents.append(g)
    for i in range(999 - gateways):
        p = policy(f"p{i}")
        p["spec"]["egressGatewayName"] = f"g{i % gateways}"
        documents.append(p)
    for i, document in enumerate(documents):
        (tmp_path / f"{i:04}.yaml").write_text(json.dumps(document), encoding="utf-8")
    begin = time.monotonic()
    done = store.run("check", "-f", str(tmp_path))
    took = time.monotonic() - begin
    assert done.stdout == "1000 checked, 0 refused, 0 warnings\n", done.stdout + done.stderr[:2000]
    assert took <= 1.0, f"{took:.2f} s"


def test_usage(store):
    assert store.run("check").returncode == 2
    missing = store.run("check", "-f", "/nowhere/at/all.yaml")
    assert missing.returncode == 1 and "/nowhere/at/all.yaml" in missing.stderr
