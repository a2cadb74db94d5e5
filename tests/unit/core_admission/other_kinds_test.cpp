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
  for (const char* name : {"peers-0", "peers-", "peers-1x", "other"}) {
    EXPECT_THAT(
        store.create(cluster_info(std::string(R"({"metadata": {"name": ")") + name + R"("}})"))
            .denials,
        ElementsAre(HasSubstr("metadata.name")))
        << name;
  }
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

TEST(Slice, TopLevelFields) {
  Store store;
  const json slice = json::parse(R"({"kind": "EgressEndpointSlice",
      "metadata": {"name": "s", "namespace": "shop"}, "endpoints": []})");
  EXPECT_TRUE(store.create(slice).admitted);
  EXPECT_THAT(store.create(patched(slice, R"({"endpoint": []})")).denials,
              ElementsAre(HasSubstr("endpoint: unknown field; did you mean endpoints?")));
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
