// EgressClusterInfo, tunnels, slices and the core kinds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "unit/core_admission/store.hpp"

namespace egw::core {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(ClusterInfo, CreateAndUpdate) {
  Store store;
  EXPECT_TRUE(store.create(cluster_info()).admitted);
  EXPECT_TRUE(store.create(cluster_info(R"({"metadata": {"name": "peers-1"}})")).admitted);
  for (const char* name : {"peers-0", "peers-", "peers-1x", "peers-01", "other"}) {
    EXPECT_THAT(
        store.create(cluster_info(std::string(R"({"metadata": {"name": ")") + name + R"("}})"))
            .denials,
        ElementsAre(HasSubstr("metadata.name")))
        << name;
  }
  EXPECT_THAT(
      store.create(cluster_info(R"({"metadata": {"name": null, "generateName": "x-"}})")).denials,
      ElementsAre(HasSubstr("metadata.name: generateName \"x-\": there is one")));
  EXPECT_THAT(store.create(cluster_info(R"({"spec": {"extraCidr": ["10.0.0.0/8", "x"]}})")).denials,
              ElementsAre(HasSubstr("spec.extraCidr[1]: \"x\" is not a prefix")));
  EXPECT_THAT(
      store.create(cluster_info(R"({"spec": {"autoDetect": {"podCidrMode": "x"}}})")).denials,
      ElementsAre(HasSubstr("spec.autoDetect.podCidrMode: \"x\": want one of auto, k8s, calico")));
  EXPECT_THAT(
      store.create(cluster_info(R"({"spec": {"autoDetect": {"podCIDRMode": "k8s"}}})")).denials,
      ElementsAre(HasSubstr("did you mean spec.autoDetect.podCidrMode?")));
  store.put(cluster_info());
  ASSERT_TRUE(store
                  .update(cluster_info(R"({"spec": {"extraCidr": ["10.0.0.0/8"]},
      "status": {"nextEgressId": 999}})"))
                  .admitted);
  EXPECT_EQ(store.stored["status"]["nextEgressId"], 3);  // the status is not written here
}

TEST(Metadata, LabelsAnnotationsAndFinalizersAsKubernetesHasThem) {
  Store store;
  const Case cases[] = {
      {"good",
       R"({"metadata": {"labels": {"a": "", "example.org/b_c.d": "E-f"},
           "annotations": {"Example.org/x": "any text, \n any length"}}})",
       {}},
      {"a space in a key",
       R"({"metadata": {"labels": {"a b": "c"}}})",
       {"metadata.labels: \"a b\": want a label key"}},
      {"an empty key", R"({"metadata": {"labels": {"": "c"}}})", {"metadata.labels: \"\": want"}},
      {"an empty prefix", R"({"metadata": {"labels": {"/x": "1"}}})", {"metadata.labels: \"/x\""}},
      {"a value with a slash",
       R"({"metadata": {"labels": {"a": "c/d"}}})",
       {"metadata.labels.a: \"c/d\": want a label value"}},
      {"an annotation's key",
       R"({"metadata": {"annotations": {"": "x"}}})",
       {"metadata.annotations: \"\": want a key"}},
      {"a finalizer",
       R"({"metadata": {"finalizers": ["example.org/x", "no domain"]}})",
       {"metadata.finalizers[1]: \"no domain\": want a name with a domain, like example.org/"}},
      {"owners", R"({"metadata": {"ownerReferences": "x"}})", {"metadata.ownerReferences: \"x\""}},
      {"an owner's uid",
       R"({"metadata": {"ownerReferences": [{"uid": 4}]}})",
       {"metadata.ownerReferences[0].uid: number 4: want a string"}},
      {"managed fields", R"({"metadata": {"managedFields": 5}})", {"metadata.managedFields"}},
  };
  for (const Case& c : cases) {
    check(store.create(gateway(c.patch)), c);
    if (std::string(c.what) != "an owner's uid") check(store.create(node(c.patch)), c);
  }
  EXPECT_THAT(store.create(gateway(R"({"metadata": {"finalizers": ["plain"]}})")).warnings,
              testing::Contains(HasSubstr("metadata.finalizers[0]: \"plain\": prefer")));
  json large = gateway();
  large["metadata"]["annotations"]["x"] = std::string(256UL * 1024, 'x');
  EXPECT_THAT(store.create(large).denials,
              ElementsAre(HasSubstr("metadata.annotations: 262145 bytes in all")));

  // What is stored already stays, and can be taken away.
  json old = gateway(R"({"metadata": {"labels": {"a b": "c"}, "finalizers": ["no domain"]}})");
  store.put(old);
  old["metadata"]["labels"]["new"] = "1";
  EXPECT_TRUE(store.update(old).admitted);
  old["metadata"].erase("finalizers");
  EXPECT_TRUE(store.update(old).admitted);
}

TEST(Node, AddressesAndPrefixes) {
  Store store;
  const Case cases[] = {
      {"good",
       R"({"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd01::/64"]}})",
       {}},
      {"one alone", R"({"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": null}})", {}},
      {"a name is no address",
       R"({"status": {"addresses": [{"type": "Hostname", "address": "n1"}]}})",
       {}},
      {"too long",
       R"({"spec": {"podCIDRs": ["10.244.1.0/24", "10.250.0.0/33"]}})",
       {"spec.podCIDRs[1]: \"10.250.0.0/33\" is not a prefix"}},
      {"no length",
       R"({"spec": {"podCIDRs": ["10.244.1.0"]}})",
       {"spec.podCIDRs[0]: \"10.244.1.0\": want a prefix with its length"}},
      {"the single one",
       R"({"spec": {"podCIDR": "x", "podCIDRs": null}})",
       {"spec.podCIDR: \"x\" is not a prefix"}},
      {"two that differ",
       R"({"spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.2.0.0/24"]}})",
       {"spec.podCIDR: \"10.1.0.0/24\", but spec.podCIDRs[0] is \"10.2.0.0/24\""}},
      {"half an address",
       R"({"status": {"addresses": [{"type": "InternalIP", "address": "192.168.9"}]}})",
       {"status.addresses[0].address: \"192.168.9\" is not an IP address"}},
      {"none",
       R"({"status": {"addresses": [{"type": "InternalIP"}]}})",
       {"status.addresses[0].address: \"\" is not an IP address"}},
  };
  for (const Case& c : cases) check(store.create(node(c.patch)), c);
  EXPECT_THAT(store.create(json{{"kind", "Namespace"}, {"metadata", {{"name", "a.b"}}}}).denials,
              ElementsAre(HasSubstr("metadata.name: \"a.b\": want 1 to 63 lower-case letters")));
}

TEST(Status, WhatIsWrittenByHand) {
  const auto faults = [](model::Kind kind, const char* status) {
    return status_faults(kind, json{{"status", json::parse(status)}});
  };
  using model::Kind;
  EXPECT_THAT(faults(Kind::kEgressGateway, R"({"term": 3, "newer": 1})"), IsEmpty());
  EXPECT_THAT(
      faults(Kind::kEgressGateway, R"({"term": -1, "nodeList": [{"eips": [{"id": "x"}]}]})"),
      testing::UnorderedElementsAre(HasSubstr("status.term: number -1: want"),
                                    HasSubstr("status.nodeList[0].eips[0].id: \"x\"")));
  EXPECT_THAT(faults(Kind::kEgressGateway, "[]"), ElementsAre(HasSubstr("status: a list")));
  EXPECT_THAT(faults(Kind::kEgressTunnel, R"({"phase": "Ready"})"), IsEmpty());
  EXPECT_THAT(faults(Kind::kEgressTunnel, R"({"phase": "Bogus"})"),
              ElementsAre("status.phase: \"Bogus\": want one of Pending, Init, Failed, Ready, "
                          "HeartbeatTimeout, NodeNotReady"));
}

TEST(ClusterInfo, PrefixesThatSwallowWhatPoliciesSteerAreWarnedOf) {
  Store store;
  const auto warnings = [&store](const char* extra) {
    const auto answer =
        store.create(cluster_info(std::string(R"({"spec": {"extraCidr": )") + extra + "}}"));
    EXPECT_TRUE(answer.admitted);
    return answer.warnings;
  };
  EXPECT_THAT(warnings(R"(["0.0.0.0/0"])"),
              ElementsAre(HasSubstr("spec.extraCidr: covers every IPv4 address")));
  EXPECT_THAT(warnings(R"(["0.0.0.0/1", "128.0.0.0/1"])"),
              ElementsAre(HasSubstr("spec.extraCidr: covers every IPv4 address")));
  EXPECT_THAT(warnings(R"(["10.0.0.0/8"])"), IsEmpty());
  store.put(json::parse(R"({"kind": "EgressPolicy", "metadata": {"name": "p", "namespace": "ns"},
      "spec": {"destSubnet": ["203.0.113.0/24", "10.9.0.0/16"]}})"));
  EXPECT_THAT(
      warnings(R"(["172.16.0.0/12", "10.0.0.0/8"])"),
      ElementsAre(HasSubstr("spec.extraCidr[1]: 10.0.0.0/8 is the cluster's own then: these "
                            "policies no longer steer what their destSubnet names there: "
                            "ns/p (10.9.0.0/16)")));
  EXPECT_THAT(warnings(R"(["10.9.1.0/24"])"), IsEmpty());
}

TEST(ClusterInfo, DefaultCannotBeDeleted) {
  Store store;
  const AdmitAnswer answer = store.remove(cluster_info());
  EXPECT_FALSE(answer.admitted);
  EXPECT_THAT(answer.denials, ElementsAre(HasSubstr("metadata.name: \"default\"")));
  EXPECT_TRUE(store.remove(cluster_info(R"({"metadata": {"name": "peers-2"}})")).admitted);
}

TEST(ForeignKinds, PrefixesOfTheClusterAreRead) {
  Store store;
  const auto denials = [&store](const char* text) {
    return store.create(json::parse(text)).denials;
  };
  EXPECT_THAT(
      denials(
          R"({"kind": "IPPool", "metadata": {"name": "pool"}, "spec": {"cidr": "10.244.0.0/16"}})"),
      IsEmpty());
  EXPECT_THAT(denials(R"({"kind": "IPPool", "metadata": {"name": "pool"}, "spec": {"cidr": "x"}})"),
              ElementsAre(HasSubstr("spec.cidr: \"x\" is not a prefix")));
  EXPECT_THAT(
      denials(R"({"kind": "IPPool", "metadata": {"name": "pool"}, "spec": {"disabled": true}})"),
      ElementsAre(HasSubstr("spec.cidr")));
  EXPECT_THAT(
      denials(
          R"({"kind": "ServiceCIDR", "metadata": {"name": "k"}, "spec": {"cidrs": ["10.96.0.0/12", "y"]}})"),
      ElementsAre(HasSubstr("spec.cidrs[1]: \"y\" is not a prefix")));
}

TEST(Tunnel, SpecKnowsNoField) {
  Store store;
  const json tunnel = json::parse(R"({"kind": "EgressTunnel", "metadata": {"name": "n1"},
      "spec": {}})");
  EXPECT_TRUE(store.create(tunnel).admitted);
  EXPECT_THAT(store.create(patched(tunnel, R"({"spec": {"mark": 1}})")).denials,
              ElementsAre(HasSubstr("spec.mark: unknown field")));
  EXPECT_TRUE(store.remove(tunnel).admitted);
}

json slice(const char* endpoints, bool cluster_wide = false) {
  json doc = json::parse(R"({"kind": "EgressEndpointSlice",
      "metadata": {"name": "s", "namespace": "shop"}})");
  if (cluster_wide) {
    doc["kind"] = "EgressClusterEndpointSlice";
    doc["metadata"].erase("namespace");
  }
  doc["endpoints"] = json::parse(endpoints);
  return doc;
}

TEST(Slice, TopLevelFields) {
  Store store;
  EXPECT_TRUE(store.create(slice("[]")).admitted);
  EXPECT_THAT(store.create(patched(slice("[]"), R"({"endpoint": []})")).denials,
              ElementsAre(HasSubstr("endpoint: unknown field; did you mean endpoints?")));
}

// Both kinds, created and as an update of what is empty.
TEST(Slice, Endpoints) {
  const std::string long_name(254, 'a');
  const std::string long_pod =
      R"([{"pod": ")" + long_name + R"(", "ns": "shop", "node": "n1", "ipv4": ["10.1.0.5"]}])";
  const Case cases[] = {
      {"the controller's",
       R"([{"pod": "web-1", "ns": "shop", "node": "n1", "ipv4": ["10.1.0.5"],
            "ipv6": ["fd01::5"]}, {"pod": "web.2", "ns": "shop", "node": "n1.a",
            "ipv6": ["fd01::6", "fd01::7"]}])",
       {}},
      {"without its node", R"([{"pod": "a", "ns": "shop", "ipv4": ["10.1.0.5"]}])", {}},
      {"no list", R"({"pod": "a"})", {"endpoints: an object: want a list"}},
      {"no endpoint", R"([5])", {"endpoints[0]: number 5: want an object"}},
      {"null", R"([null])", {"endpoints[0]: null: want a value"}},
      {"unknown field",
       R"([{"pod": "a", "ns": "shop", "ipv4": ["10.1.0.5"], "colour": "red"}])",
       {"endpoints[0].colour: unknown field"}},
      {"mistyped field",
       R"([{"pod": "a", "ns": "shop", "ipV4": ["10.1.0.5"]}])",
       {"endpoints[0].ipV4: unknown field; did you mean endpoints[0].ipv4?"}},
      {"no addresses",
       R"([{"pod": "a", "ns": "shop", "ipv4": ["10.1.0.5"]}, {"pod": "b", "ns": "shop"}])",
       {"endpoints[1]: pod \"b\" has no addresses; want one or more in ipv4 or ipv6"}},
      {"empty lists",
       R"([{"pod": "a", "ns": "shop", "ipv4": [], "ipv6": []}])",
       {"endpoints[0]: pod \"a\" has no addresses"}},
      {"no address",
       R"([{"pod": "a", "ns": "shop", "ipv4": ["10.1.0.5", "10.1.0"]}])",
       {"endpoints[0].ipv4[1]: \"10.1.0\" is not an IP address"}},
      {"a prefix",
       R"([{"pod": "a", "ns": "shop", "ipv6": ["fd01::/64"]}])",
       {"endpoints[0].ipv6[0]: \"fd01::/64\" is not an IP address"}},
      {"other family",
       R"([{"pod": "a", "ns": "shop", "ipv4": ["fd01::5"]}])",
       {"endpoints[0].ipv4[0]: fd01::5 is not IPv4; want an address of that family"}},
      {"number for an address",
       R"([{"pod": "a", "ns": "shop", "ipv4": [5]}])",
       {"endpoints[0].ipv4[0]: number 5: want a string"}},
      {"one address, no list",
       R"([{"pod": "a", "ns": "shop", "ipv4": "10.1.0.5"}])",
       {"endpoints[0].ipv4: \"10.1.0.5\": want a list"}},
      {"number for a pod",
       R"([{"pod": 5, "ns": "shop", "ipv4": ["10.1.0.5"]}])",
       {"endpoints[0].pod: number 5: want a string"}},
      {"no pod",
       R"([{"ns": "shop", "ipv4": ["10.1.0.5"]}])",
       {"endpoints[0].pod: \"\": want the name of a pod: 1 to 253"}},
      {"no name of a pod", long_pod.c_str(), {"endpoints[0].pod: \"aaa", "want the name of a pod"}},
      {"no name of a node",
       R"([{"pod": "a", "ns": "shop", "node": "N 1", "ipv4": ["10.1.0.5"]}])",
       {"endpoints[0].node: \"N 1\": want the name of a node: 1 to 253"}},
      {"no name of a namespace",
       R"([{"pod": "a", "ns": "a.b", "ipv4": ["10.1.0.5"]}])",
       {"endpoints[0].ns: \"a.b\": want"}},
  };
  Store store;
  for (const bool cluster_wide : {false, true}) {
    store.put(slice("[]", cluster_wide));
    for (const Case& c : cases) {
      check(store.create(slice(c.patch, cluster_wide)), c);
      check(store.update(slice(c.patch, cluster_wide)), c);
      EXPECT_TRUE(store.remove(slice(c.patch, cluster_wide)).admitted) << c.what;
    }
  }
}

TEST(Slice, NamespacesOfItsPods) {
  Store store;
  const char* other = R"([{"pod": "a", "ns": "other", "ipv4": ["10.1.0.5"]}])";
  const char* none = R"([{"pod": "a", "ipv4": ["10.1.0.5"]}])";
  EXPECT_THAT(store.create(slice(other)).denials,
              ElementsAre("endpoints[0].ns: \"other\": want shop, the namespace of this "
                          "EgressEndpointSlice"));
  EXPECT_THAT(store.create(slice(none)).denials, IsEmpty());
  EXPECT_THAT(store.create(slice(other, true)).denials, IsEmpty());
  EXPECT_THAT(store.create(slice(none, true)).denials,
              ElementsAre(HasSubstr("endpoints[0].ns: \"\": want the pod's namespace: 1 to 63")));
}

TEST(Slice, AsManyAsConfigured) {
  Store store;
  store.settings.max_endpoints_per_slice = 2;
  json doc = slice("[]");
  const auto add = [&doc] {
    doc["endpoints"].push_back({{"pod", "a"}, {"ns", "shop"}, {"ipv4", {"10.1.0.5"}}});
  };
  add();
  add();
  EXPECT_THAT(store.create(doc).denials, IsEmpty());
  add();
  EXPECT_THAT(store.create(doc).denials,
              ElementsAre(HasSubstr("endpoints: 3 entries; want at most 2 "
                                    "(feature.maxNumberEndpointPerSlice)")));
}

// Stored before a rule existed: who changes something else is not asked about it.
TEST(Slice, LabelsBesideEndpointsThatCannotBeRead) {
  for (const bool cluster_wide : {false, true}) {
    for (const char* bad : {R"([{"pod": 5, "odd": 1, "ipv4": ["x"]}, 7])", R"({})", R"("x")"}) {
      Store store;
      json doc = slice(bad, cluster_wide);
      store.put(doc);
      doc["metadata"]["labels"] = {{"a", "b"}};
      EXPECT_THAT(store.update(doc).denials, IsEmpty()) << bad;
      EXPECT_EQ(store.stored["endpoints"], doc["endpoints"]);
      doc["colour"] = "red";
      EXPECT_THAT(store.update(doc).denials, ElementsAre(HasSubstr("colour: unknown field")));
      EXPECT_TRUE(store.remove(doc).admitted);
    }
  }
}

TEST(CoreKinds, ShapeOnlyAndUnchanged) {
  Store store;
  const json pod = json::parse(R"({"apiVersion": "v1", "kind": "Pod",
      "metadata": {"name": "p", "namespace": "shop", "odd": 1},
      "spec": {"containers": [{"image": "x"}]}, "status": {"podIP": "10.1.0.5"}, "data": 5})");
  ASSERT_TRUE(store.create(pod).admitted);
  EXPECT_EQ(store.stored, pod);
  EXPECT_THAT(store.create(patched(pod, R"({"status": {"podIP": "10.1.0"}})")).denials,
              ElementsAre(HasSubstr("status.podIP: \"10.1.0\" is not an IP address")));
  EXPECT_THAT(store.create(patched(pod, R"({"metadata": {"namespace": null}})")).denials,
              ElementsAre(HasSubstr("metadata.namespace")));
  EXPECT_TRUE(store.create(node()).admitted);
  EXPECT_THAT(store.create(node(R"({"spec": {"podCIDRs": "10.0.0.0/8"}})")).denials,
              ElementsAre(HasSubstr("spec.podCIDRs: \"10.0.0.0/8\": want a list")));
  EXPECT_TRUE(store.remove(pod).admitted);
}

TEST(Shape, NotEvenAnObject) {
  Store store;
  json object;
  for (const json& doc : {json(nullptr), json("x"), json::array()}) {
    const AdmitAnswer answer = admit(AdmitOp::kCreate, model::Kind::kEgressGateway, nullptr, doc,
                                     store.reader(), store.settings, object);
    EXPECT_THAT(answer.denials, ElementsAre(HasSubstr("the document"))) << doc;
    EXPECT_TRUE(object.is_null());
  }
}

// Whatever is in the new document, the old one or the other objects: an answer, never an exception;
// a denial always names something, and what is admitted is admitted again unchanged.
RC_GTEST_PROP(AdmissionProperty, AnswersWhateverComes, (bool update, bool cluster_wide)) {
  const json replacements[] = {nullptr,
                               true,
                               -1,
                               "x",
                               "10.6.1.55",
                               "fd00::55",
                               json::array(),
                               json::object(),
                               json::array({"10.6.1.0/24"}),
                               1.5};
  const auto any = [](std::size_t end) { return *rc::gen::inRange<std::size_t>(0, end); };
  const auto spoil = [&](json doc) {
    if (any(3) == 0) return doc;
    std::vector<json::json_pointer> places;
    const json leaves = doc.flatten();
    for (auto it = leaves.begin(); it != leaves.end(); ++it) {
      for (json::json_pointer p(it.key()); !p.empty(); p = p.parent_pointer()) {
        const std::string text = p.to_string();
        if (text != "/kind" && text != "/metadata" && text != "/metadata/name" &&
            text != "/metadata/namespace") {
          places.push_back(p);
        }
      }
    }
    doc[places[any(places.size())]] = replacements[any(std::size(replacements))];
    return doc;
  };
  Store store;
  store.put(spoil(node()));
  store.put(spoil(cluster_info()));
  store.put(spoil(gateway(R"({"metadata": {"name": "egw0"}, "spec": {"clusterDefault": false,
      "ippools": {"ipv4": ["10.6.9.0/24"], "ipv6": []}}})")));
  const json base_gateway = gateway(R"({"status": {"nodeList": [{"name": "n1", "eips":
      [{"ipv4": "10.6.1.56", "ipv6": "fd00::55", "policies": [{"name": "p"}]}]}]}})");
  const json base_policy = cluster_wide ? cluster_policy() : policy();
  store.put(spoil(base_gateway));
  store.put(spoil(base_policy));
  for (const json& base : {base_gateway, base_policy}) {
    const json doc = spoil(base);
    const AdmitAnswer answer = update ? store.update(doc) : store.create(doc);
    RC_ASSERT(answer.admitted == answer.denials.empty());
    for (const std::string& d : answer.denials) RC_ASSERT(d.find(": ") != std::string::npos);
    if (!answer.admitted) continue;
    const json once = store.stored;
    store.put(once);
    RC_ASSERT(store.update(once).admitted);
    RC_ASSERT(store.stored == once);
  }
}

}  // namespace
}  // namespace egw::core
