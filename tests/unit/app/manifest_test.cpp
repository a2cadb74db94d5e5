// Manifests: what is refused and how it is said, merging with what is stored, the samples.
#include "egw/app/manifest.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "egw/app/yaml.hpp"
#include "egw/model/codec.hpp"

namespace egw::app {
namespace {

using model::Kind;
using nlohmann::json;

json yaml(const std::string& text) { return read_yaml(text, "test", 1 << 20).value().at(0); }

std::string refusal(const std::string& text, const std::string& ns = "") {
  const auto manifest = to_manifest(yaml(text), ns, "FILE");
  return manifest ? "(accepted)" : manifest.error().to_string();
}

const std::string kApi = "apiVersion: egressgateway.spidernet.io/v1beta1\n";

TEST(Manifest, Refusals) {
  EXPECT_EQ(refusal("[1]"), "FILE: expected an object with apiVersion, kind and metadata");
  EXPECT_EQ(refusal("kind: EgressGateway"), "FILE: apiVersion and kind must be given, as strings");
  EXPECT_EQ(refusal("apiVersion: v1\nkind: EgressGateway"),
            "FILE: apiVersion of EgressGateway is \"v1\"; expected "
            "egressgateway.spidernet.io/v1beta1");
  EXPECT_EQ(refusal(kApi + "kind: EgresGateway"),
            "FILE: unknown kind EgresGateway; did you mean EgressGateway?");
  EXPECT_EQ(refusal("apiVersion: apps/v1\nkind: Deployment"),
            "FILE: unknown kind Deployment (apps/v1); expected one of EgressGateway, EgressPolicy, "
            "EgressClusterPolicy, EgressTunnel, EgressEndpointSlice, EgressClusterEndpointSlice, "
            "EgressClusterInfo, Node, Pod, Namespace, Event, IPPool, ServiceCIDR");
  EXPECT_EQ(refusal(kApi + "kind: EgressGateway\nmetadata: {}"),
            "FILE: EgressGateway: metadata.name must be given");
  EXPECT_EQ(refusal(kApi + "kind: EgressGateway\nmetadata: {name: 123}"),
            "FILE: EgressGateway: metadata.name: 123: want a string; put it into quotes");
  EXPECT_EQ(refusal(kApi + "kind: EgressPolicy\nmetadata: {name: p, namespace: 123}"),
            "FILE: EgressPolicy: metadata.namespace: 123: want a string; put it into quotes");
  EXPECT_EQ(refusal(kApi + "kind: EgressPolicy\nmetadata: {name: [p]}"),
            "FILE: EgressPolicy: metadata.name: [\"p\"]: want a string");
  EXPECT_EQ(refusal(kApi + "kind: EgressPolicy\nmetadata: {name: p, namespace: x}", "y"),
            "FILE: EgressPolicy p names the namespace x, but -n says y");
}

TEST(Manifest, NamespaceOfTheObjectThenOptionThenDefault) {
  const std::string own = kApi + "kind: EgressPolicy\nmetadata: {name: p, namespace: x}";
  const std::string none = kApi + "kind: EgressPolicy\nmetadata: {name: p}";
  EXPECT_EQ(to_manifest(yaml(own), "", "F")->key.to_string(), "x/p");
  EXPECT_EQ(to_manifest(yaml(none), "y", "F")->key.to_string(), "y/p");
  EXPECT_EQ(to_manifest(yaml(none), "", "F")->key.to_string(), "default/p");
  EXPECT_EQ(to_manifest(yaml(none), "", "F")->document["metadata"]["namespace"], "default");
  EXPECT_EQ(to_manifest(yaml(none), "", "F")->label(), "egresspolicy.egressgateway.spidernet.io/p");
  EXPECT_EQ(to_manifest(yaml("apiVersion: v1\nkind: Node\nmetadata: {name: n}"), "y", "F")->label(),
            "node/n");
}

TEST(Manifest, FoldersListsAndSeveralDocuments) {
  const auto dir =
      std::filesystem::temp_directory_path() / ("egw-manifest-test-" + std::to_string(::getpid()));
  std::filesystem::create_directory(dir);
  std::ofstream(dir / "b.yaml") << "apiVersion: v1\nkind: Node\nmetadata: {name: b1}\n---\n\n---\n"
                                   "apiVersion: v1\nkind: Nod\nmetadata: {name: b2}\n";
  std::ofstream(dir / "a.json") << R"({"apiVersion": "v1", "kind": "List", "items": [
      {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a1"}},
      {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a2"}}]})";
  std::ofstream(dir / "c.txt") << "not read";
  std::vector<std::string> said;
  for (const auto& m : read_manifests({dir, "/nonexistent.yaml"}, "")) {
    std::string line = m ? m->label() : m.error().to_string();
    if (const auto at = line.find(dir.string()); at != std::string::npos) {
      line.replace(at, dir.string().size(), "DIR");
    }
    said.push_back(line);
  }
  std::filesystem::remove_all(dir);
  EXPECT_THAT(said, testing::ElementsAre(
                        "node/a1", "node/a2", "node/b1",
                        "DIR/b.yaml document 2: unknown kind Nod; did you mean Node?",
                        "/nonexistent.yaml: cannot be opened (No such file or directory)"));
}

TEST(Manifest, MergeReplacesWhatIsGivenAndKeepsTheRest) {
  const json stored = yaml(R"(
metadata:
  name: p
  uid: u1
  resourceVersion: "7"
  labels: {old: "1", others: "2"}
  annotations:
    mine: "1"
    theirs: "1"
    egressgateway.spidernet.io/move: x
    egressgateway.spidernet.io/applied: '{"annotations":["mine"],"labels":["old","gone"]}'
  finalizers: [egressgateway.spidernet.io/egressgateway]
spec:
  egressGatewayName: egw
  egressIP: {ipv4: 10.6.1.56, allocatorPolicy: default}
  appliedTo: {podSelector: {matchLabels: {app: a}}}
  destSubnet: [10.0.0.0/8]
status: {node: n2}
)");
  const json wanted = yaml(R"(
metadata: {name: p, annotations: {other: "2"}}
spec: {appliedTo: {podSelector: {matchLabels: {app: b}}}}
status: {node: n9}
)");
  EXPECT_EQ(merge_applied(Kind::kEgressPolicy, stored, wanted), yaml(R"(
metadata:
  name: p
  uid: u1
  resourceVersion: "7"
  labels: {others: "2"}
  annotations:
    other: "2"
    theirs: "1"
    egressgateway.spidernet.io/move: x
    egressgateway.spidernet.io/applied: '{"annotations":["other"]}'
  finalizers: [egressgateway.spidernet.io/egressgateway]
spec:
  egressGatewayName: egw
  egressIP: {ipv4: 10.6.1.56}
  appliedTo: {podSelector: {matchLabels: {app: b}}}
status: {node: n2}
)"));
}

// As kubectl: what this or an earlier apply gave is the manifest's, the rest is others'.
TEST(Manifest, LabelsAndAnnotationsOfAnEarlierApplyGo) {
  const auto applied = [](const json& stored, const std::string& metadata) {
    return merge_applied(Kind::kNode, stored, yaml("{metadata: " + metadata + ", spec: {}}"));
  };
  json node = applied({}, "{name: n, labels: {egress: 'true', a: b}, annotations: {x: y}}");
  EXPECT_EQ(node["metadata"]["annotations"]["egressgateway.spidernet.io/applied"],
            R"({"annotations":["x"],"labels":["a","egress"]})");
  const json again = applied(node, node["metadata"].dump());
  EXPECT_EQ(again, node) << "what get gives, applied";
  node["metadata"]["labels"]["kubelet"] = "1";
  EXPECT_EQ(applied(node, "{name: n, labels: {a: c}}")["metadata"],
            yaml(R"({name: n, labels: {a: c, kubelet: "1"}, annotations:
                {egressgateway.spidernet.io/applied: '{"labels":["a"]}'}})"));
  for (const char* none : {"{name: n}", "{name: n, labels: null, annotations: {}}"}) {
    EXPECT_EQ(applied(node, none)["metadata"], yaml("{name: n, labels: {kubelet: '1'}}")) << none;
  }
  const json by_kubectl = yaml(R"({metadata: {name: n, labels: {a: b, c: d}, annotations:
      {kubectl.kubernetes.io/last-applied-configuration: '{"metadata":{"labels":{"a":"b"}}}'}}})");
  EXPECT_EQ(applied(by_kubectl, "{name: n}")["metadata"]["labels"], yaml("{c: d}"));
}

TEST(Manifest, FinalizersAreTakenWhereTheyAreGiven) {
  const json stored = yaml("{metadata: {name: g, finalizers: [a/b, c/d]}, spec: {}}");
  const auto applied = [&stored](const char* metadata) {
    return merge_applied(Kind::kEgressGateway, stored,
                         yaml(std::string("{metadata: ") + metadata + ", spec: {}}"))["metadata"];
  };
  EXPECT_EQ(applied("{name: g}")["finalizers"], yaml("[a/b, c/d]"));
  EXPECT_EQ(applied("{name: g, finalizers: []}")["finalizers"], yaml("[]"));
  EXPECT_EQ(applied("{name: g, finalizers: [c/d]}")["finalizers"], yaml("[c/d]"));
}

TEST(Manifest, WhatIsRefusedIsTriedAgainAfterItsLike) {
  std::vector<Manifest> all;
  for (const Kind kind : {Kind::kNode, Kind::kEgressGateway, Kind::kEgressGateway,
                          Kind::kEgressGateway, Kind::kEgressPolicy}) {
    all.push_back({kind, {}, {}, {}});
  }
  std::vector<std::size_t> tried;
  std::set<std::size_t> done;
  in_passes(all, [&](std::size_t i) {
    tried.push_back(i);
    // 1 needs 2, which needs 3; 4 is refused for good.
    const bool refused = i == 4 || ((i == 1 || i == 2) && !done.contains(i + 1));
    if (refused) return Attempt::kRefused;
    done.insert(i);
    return Attempt::kChanged;
  });
  EXPECT_THAT(tried, testing::ElementsAre(0, 1, 2, 3, 1, 2, 1, 4));
  tried.clear();
  in_passes(all, [&](std::size_t i) {
    tried.push_back(i);
    return i == 1 ? Attempt::kRefused : Attempt::kUnchanged;
  });
  EXPECT_THAT(tried, testing::ElementsAre(0, 1, 2, 3, 4)) << "nothing has changed";
}

TEST(Manifest, ListsOfAKindAndListsOfLists) {
  std::vector<std::string> labels;
  const std::string path = testing::TempDir() + "lists.yaml";
  std::ofstream(path) << R"(
apiVersion: v1
kind: NodeList
items: [{metadata: {name: a}}, {apiVersion: v1, kind: Node, metadata: {name: b}}]
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node, metadata: {name: c}}]}
- {apiVersion: egressgateway.spidernet.io/v1beta1, kind: EgressPolicyList, items: [
   {metadata: {name: p, namespace: d}}]}
)";
  for (const auto& m : read_manifests({path}, "")) {
    labels.push_back(m ? m->label() : m.error().to_string());
  }
  EXPECT_THAT(labels, testing::ElementsAre("node/a", "node/b", "node/c",
                                           "egresspolicy.egressgateway.spidernet.io/p"));
}

TEST(Manifest, MergeKeepsWhatAdmissionHasToRefuse) {
  const json stored = yaml("{metadata: {name: g, uid: u}, spec: {}}");
  const json wanted = yaml("{metadata: {name: g, namespace: x, lables: {a: b}, a.b: 1}, spec: {}}");
  EXPECT_EQ(merge_applied(Kind::kEgressGateway, stored, wanted)["metadata"],
            yaml("{name: g, uid: u, namespace: x, lables: {a: b}, a.b: 1}"));
}

std::vector<std::string> read_text_of(const std::string& text) {
  const YamlText read = read_yaml_documents(text, "F", 1 << 20);
  std::vector<std::string> out;
  for (const json& document : read.documents) out.push_back(document.dump());
  if (read.mistake) out.push_back(read.mistake->to_string());
  return out;
}

// A mistake in one document: those before it are read, but for one that may be half read.
TEST(Manifest, DocumentsBeforeAMistake) {
  EXPECT_THAT(read_text_of("a: 1\n---\nb: 2\n---\nc: 1\nc: 2\n"),
              testing::ElementsAre("{\"a\":1}", "{\"b\":2}", "F:6: the key \"c\" is given twice"));
  EXPECT_THAT(read_text_of("a: 1\n---\nb: [\n"),
              testing::ElementsAre("{\"a\":1}", testing::StartsWith("F:4: not valid YAML")));
  for (const char* half : {"a: {b: 1}\n]\n", "a:\n  b: 1\n c: 2\n", "a: 1\n}\n"}) {
    EXPECT_THAT(read_text_of(half), testing::ElementsAre(testing::StartsWith("F:"))) << half;
  }
}

TEST(Manifest, MergeKeys) {
  EXPECT_THAT(read_text_of("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {y: 4, <<: *a}\n"
                           "d: {<<: [{z: 5, x: 6}, *a]}\ne: {\"<<\": 1}\nf: {<<: {<<: *a}}\n"),
              testing::ElementsAre(R"({"a":{"x":1,"y":2},"b":{"x":1,"y":3},"c":{"x":1,"y":4},)"
                                   R"("d":{"x":6,"y":2,"z":5},"e":{"<<":1},"f":{"x":1,"y":2}})"));
  EXPECT_THAT(read_text_of("a: {<<: 1}"),
              testing::ElementsAre("F:1: the value of << must be a map or a list of maps"));
  EXPECT_THAT(read_text_of("a: {<<: {}, <<: {}}"),
              testing::ElementsAre("F:1: the key \"<<\" is given twice"));
}

TEST(Manifest, TheLikeliestCauseOfAMistakeIsTold) {
  EXPECT_THAT(read_text_of("a:\n\tb: 1\n"),
              testing::ElementsAre("F:2: not valid YAML: the line is indented with a tab; YAML "
                                   "wants spaces"));
  EXPECT_THAT(read_text_of("{\"a\": 1,\n \"b\": 2,\n ,\"c\": 3}\n"),
              testing::ElementsAre(testing::AllOf(testing::StartsWith("F:3: not valid JSON"),
                                                  testing::HasSubstr("no comma after the last"))));
  EXPECT_THAT(read_text_of("{ // why\n \"b\": 2\n}\n"),
              testing::ElementsAre(testing::AllOf(testing::StartsWith("F:1: not valid JSON"),
                                                  testing::HasSubstr("no comments"))));
  EXPECT_THAT(read_text_of("{a: [}\n"), testing::ElementsAre(testing::HasSubstr("not valid YAML")));
  EXPECT_THAT(read_text_of("{a: !!int 3, b: !!float 1.5, c: !!bool true, d: !!null null,\n"
                           " e: !!str 5, f: !!map {}, g: !!seq []}"),
              testing::ElementsAre(R"({"a":3,"b":1.5,"c":true,"d":null,"e":"5","f":{},"g":[]})"));
  EXPECT_THAT(read_text_of("a: !!int x"),
              testing::ElementsAre("F:1: \"x\" is no value for the tag !!int"));
}

TEST(Manifest, AKeyGivenTwiceInJson) {
  EXPECT_THAT(read_text_of("{\n \"a\": {\"x\": 1,\n \"y\": 2,\n \"x\": 3}}"),
              testing::ElementsAre("F:4: the key \"x\" is given twice"));
  EXPECT_THAT(
      read_text_of("{\"a\": 1, \"b\": {\"a\": 1}, \"c\": [{\"a\": 1}, {\"a\": 2}], \"a\": 2}"),
      testing::ElementsAre("F:1: the key \"a\" is given twice"));
  EXPECT_THAT(read_text_of("{\"a\": 1, \"b\": {\"a\": 1}, \"c\": [{\"a\": 1}, {\"a\": 2}]}"),
              testing::SizeIs(1));
}

TEST(Manifest, MergeOfASpecThatIsNoMapLeavesItToAdmission) {
  const json stored = yaml("{metadata: {name: p}, spec: {egressGatewayName: egw}}");
  const json wanted = yaml("{metadata: {name: p}, spec: 3}");
  EXPECT_EQ(merge_applied(Kind::kEgressPolicy, stored, wanted)["spec"], 3);
}

TEST(Manifest, SameButStatus) {
  const json a = yaml("{metadata: {name: p, resourceVersion: '1', labels: {}}, spec: {x: 1}}");
  const json b = yaml(
      "{metadata: {name: p, resourceVersion: '2', generation: 3}, spec: {x: 1}, status: {y: 1}}");
  EXPECT_TRUE(same_but_status(a, b));
  EXPECT_FALSE(same_but_status(a, yaml("{metadata: {name: p}, spec: {x: 2}}")));
  EXPECT_FALSE(same_but_status(a, yaml("{metadata: {name: p, labels: {l: v}}, spec: {x: 1}}")));
}

TEST(Manifest, Kinds) {
  EXPECT_THAT(parse_kinds("egw,egp,EgressGateway").value(),
              testing::ElementsAre(Kind::kEgressGateway, Kind::kEgressPolicy));
  EXPECT_EQ(parse_kinds("egressgatewys").error().message,
            "there is no kind \"egressgatewys\"; did you mean \"egressgateways\"?");
  EXPECT_EQ(parse_kinds("").error().message,
            "there is no kind \"\"; known: egw, egp, egcp, egt, egep, egcep, egci, no, po, ns, ev, "
            "calicoippool, svccidr");
}

// The manifests of the documentation, decoded as the program does it.
TEST(Manifest, SamplesDecodeWithoutUnknownFields) {
  int seen = 0;
  for (const auto& m : read_manifests({EGW_SOURCE_DIR "/config/linux-gateway-objects.yaml"}, "")) {
    ASSERT_TRUE(m) << m.error().to_string();
    EXPECT_THAT(model::find_unknown_fields(m->kind, m->document), testing::IsEmpty()) << m->source;
  }
  for (const auto& m : read_manifests({EGW_SOURCE_DIR "/config/manifests"}, "")) {
    ASSERT_TRUE(m) << m.error().to_string();
    ++seen;
    EXPECT_THAT(model::find_unknown_fields(m->kind, m->document), testing::IsEmpty()) << m->source;
    if (m->kind == Kind::kEgressGateway) {
      const auto gateway = model::decode<model::EgressGateway>(m->document);
      ASSERT_TRUE(gateway) << gateway.error().to_string();
      EXPECT_TRUE(gateway->spec.cluster_default);
      EXPECT_EQ(gateway->spec.ippools.ipv4.size(), 2U);
      EXPECT_EQ(gateway->spec.ippools.ipv6.size(), 2U);
      EXPECT_EQ(gateway->spec.ippools.ipv4_default_eip, "10.6.1.56");
      EXPECT_EQ(gateway->spec.ippools.ipv6_default_eip, "fd00::55");
      EXPECT_TRUE(gateway->spec.node_selector.matches({{"egress", "true"}}));
    } else if (m->kind == Kind::kEgressPolicy) {
      EXPECT_TRUE(model::decode<model::EgressPolicy>(m->document));
    } else {
      EXPECT_TRUE(model::decode<model::EgressClusterPolicy>(m->document));
    }
  }
  EXPECT_EQ(seen, 3);
}

}  // namespace
}  // namespace egw::app
