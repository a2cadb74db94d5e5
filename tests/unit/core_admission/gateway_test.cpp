// EgressGateway: every rule both ways.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "unit/core_admission/store.hpp"

namespace egw::core {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Gateway : public testing::Test {
 protected:
  Gateway() { store.put(node()); }
  Store store;
};

TEST_F(Gateway, Create) {
  const Case cases[] = {
      {"the documentation's", "", {}},
      {"one family", R"({"spec": {"ippools": {"ipv6": null, "ipv6DefaultEIP": null}}})", {}},
      {"ranges and CIDRs",
       R"({"spec": {"ippools": {"ipv4": ["10.6.2.1-10.6.2.10", "10.6.3.0/29"],
           "ipv4DefaultEIP": "10.6.3.6", "ipv6": null, "ipv6DefaultEIP": null}}})",
       {}},
      {"a /64 of 2^64",
       R"({"spec": {"ippools": {"ipv4": null, "ipv4DefaultEIP": null,
           "ipv6": ["fd00:1::/64"], "ipv6DefaultEIP": "fd00:1::ffff"}}})",
       {}},
      {"no pool at all", R"({"spec": {"ippools": null}})", {}},

      // Shape.
      {"spec is a list", R"({"spec": []})", {"spec: a list: want an object"}},
      {"wrong type",
       R"({"spec": {"ippools": {"ipv4": "10.6.1.55"}}})",
       {"spec.ippools.ipv4: \"10.6.1.55\": want a list"}},
      {"wrong type in a list",
       R"({"spec": {"ippools": {"ipv4": [10]}}})",
       {"spec.ippools.ipv4[0]: number 10: want a string"}},
      {"bad selector",
       R"({"spec": {"nodeSelector": {"selector": {"matchExpressions":
           [{"key": "a", "operator": "Is"}]}}}})",
       {"spec.nodeSelector.selector.matchExpressions[0].operator: \"Is\"", "want In, NotIn"}},
      {"unknown field",
       R"({"spec": {"ippool": {}}})",
       {"spec.ippool: unknown field; did you mean spec.ippools?"}},
      {"unknown field without a near one",
       R"({"spec": {"colour": "red"}})",
       {"spec.colour: unknown field"}},
      {"unknown at the top", R"({"specs": {}})", {"specs: unknown field; did you mean spec?"}},
      {"other version",
       R"({"apiVersion": "egressgateway.spidernet.io/v1"})",
       {"apiVersion: \"egressgateway.spidernet.io/v1\": want egressgateway.spidernet.io/v1beta1"}},
      {"no name", R"({"metadata": {"name": null}})", {"metadata.name: \"\": want"}},
      {"name in capitals", R"({"metadata": {"name": "Egw"}})", {"metadata.name: \"Egw\": want"}},
      {"name with dots", R"({"metadata": {"name": "a.b-c.d"}})", {}},
      {"name with two dots", R"({"metadata": {"name": "a..b"}})", {"metadata.name"}},
      {"name part with dash", R"({"metadata": {"name": "a-.b"}})", {"metadata.name"}},
      {"name ends in dash", R"({"metadata": {"name": "a-"}})", {"metadata.name"}},
      {"namespace on a cluster-wide kind",
       R"({"metadata": {"namespace": "x"}})",
       {"metadata.namespace: \"x\": EgressGateway is cluster-wide"}},
      {"status is ignored, whatever it is", R"({"status": "nonsense"})", {}},

      // Node selector.
      {"empty selector",
       R"({"spec": {"nodeSelector": {"selector": {"matchLabels": null}}}})",
       {"spec.nodeSelector.selector: empty; want the labels"}},
      {"no selector", R"({"spec": {"nodeSelector": null}})", {"spec.nodeSelector.selector: empty"}},

      // Addresses.
      {"not an address",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "10.6.1.555"]}}})",
       {"spec.ippools.ipv4[1]: \"10.6.1.555\" is not an IP address", "like 10.6.1.55"}},
      {"leading zeros",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "10.6.1.055"]}}})",
       {"spec.ippools.ipv4[1]", "leading zeros"}},
      {"mapped",
       R"({"spec": {"ippools": {"ipv6": ["fd00::55", "::ffff:10.6.1.1"]}}})",
       {"spec.ippools.ipv6[1]", "write 10.6.1.1"}},
      {"reversed range",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.57-10.6.1.56"]}}})",
       {"spec.ippools.ipv4[0]", "write 10.6.1.56-10.6.1.57"}},
      {"bad CIDR",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.0/33"]}}})",
       {"spec.ippools.ipv4[0]", "from 0 to 32"}},
      {"other family",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "fd00::1"]}}})",
       {"spec.ippools.ipv4[1]: \"fd00::1\" is not IPv4"}},
      {"loopback",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "127.0.0.9"]}}})",
       {"spec.ippools.ipv4[1]", "127.0.0.9", "loopback"}},
      {"a range over multicast",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "223.255.255.255-224.0.0.1"]}}})",
       {"spec.ippools.ipv4[1]", "224.0.0.0", "multicast"}},
      {"unspecified",
       R"({"spec": {"ippools": {"ipv6": ["fd00::55", "::"]}}})",
       {"spec.ippools.ipv6[1]", "unspecified"}},
      {"link-local",
       R"({"spec": {"ippools": {"ipv6": ["fd00::55", "fe80::1"]}}})",
       {"spec.ippools.ipv6[1]", "link-local"}},
      {"broadcast",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "255.255.255.255"]}}})",
       {"spec.ippools.ipv4[1]", "broadcast"}},
      {"everything",
       R"({"spec": {"ippools": {"ipv4": ["0.0.0.0/0"]}}})",
       {"spec.ippools.ipv4[0]", "reserved"}},

      // Counts and defaults.
      {"unequal counts",
       R"({"spec": {"ippools": {"ipv6": ["fd00::55"]}}})",
       {"spec.ippools: 2 IPv4 and 1 IPv6", "as many of each"}},
      {"counted without repeats",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.55", "10.6.1.56", "10.6.1.55-10.6.1.56"]}}})",
       {}},
      {"default outside the pool",
       R"({"spec": {"ippools": {"ipv4DefaultEIP": "10.6.1.57"}}})",
       {"spec.ippools.ipv4DefaultEIP: 10.6.1.57 is not in spec.ippools.ipv4"}},
      {"default of the other family",
       R"({"spec": {"ippools": {"ipv4DefaultEIP": "fd00::55"}}})",
       {"spec.ippools.ipv4DefaultEIP: fd00::55 is not in"}},
      {"default is not an address",
       R"({"spec": {"ippools": {"ipv6DefaultEIP": "fd00::x"}}})",
       {"spec.ippools.ipv6DefaultEIP", "not an IP address"}},
      {"default is the network address of a CIDR",
       R"({"spec": {"ippools": {"ipv4": ["10.6.3.0/30"], "ipv4DefaultEIP": "10.6.3.0"}}})",
       {"spec.ippools.ipv4DefaultEIP: 10.6.3.0 is not in"}},
      {"one default of a pair",
       R"({"spec": {"ippools": {"ipv6DefaultEIP": null}}})",
       {"spec.ippools.ipv6DefaultEIP: empty, while the other family's", "want both"}},

      // Others.
      {"a node's address",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.20-10.6.1.21"],
           "ipv4DefaultEIP": "10.6.1.20"}}})",
       {"spec.ippools.ipv4[0]: 10.6.1.21 belongs to the address of node n1"}},
      {"pod CIDR",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "10.244.1.9"]}}})",
       {"spec.ippools.ipv4[1]: 10.244.1.9", "pod CIDR of node n1 (10.244.1.0/24)"}},
      {"the tunnel's subnet",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "172.31.0.9"]}}})",
       {"spec.ippools.ipv4[1]: 172.31.0.9", "feature.tunnelIpv4Subnet"}},
      {"allowedNamespaces", R"({"spec": {"allowedNamespaces": {"matchLabels": {"a": "b"}}}})", {}},
  };
  for (const Case& c : cases) check(store.create(gateway(c.patch)), c);
}

TEST_F(Gateway, CreateBesideOthers) {
  store.put(cluster_info());
  store.put(gateway(R"({"metadata": {"name": "other"}, "spec": {"clusterDefault": true,
      "ippools": {"ipv4": ["10.6.2.0/24"], "ipv6": ["fd00:2::/120"]}}})"));
  store.put(json::parse(R"({"kind": "EgressTunnel", "metadata": {"name": "n3"},
      "status": {"tunnel": {"parent": {"ipv4": "10.6.1.23"}}}})"));
  const std::string alone = R"("clusterDefault": false)";
  const Case cases[] = {
      {"second default", "", {"spec.clusterDefault: true, but EgressGateway other is"}},
      {"not the default", R"({"spec": {"clusterDefault": false}})", {}},
      {"an address of the other's",
       R"({"spec": {"clusterDefault": false, "ippools":
           {"ipv4": ["10.6.1.56", "10.6.2.7"]}}})",
       {"spec.ippools.ipv4[1]: 10.6.2.7 is in the pool of EgressGateway other too"}},
      {"the other's network address is free",
       R"({"spec": {"clusterDefault": false, "ippools":
           {"ipv4": ["10.6.1.56", "10.6.2.0"]}}})",
       {}},
      {"a range that reaches into it",
       R"({"spec": {"clusterDefault": false, "ippools":
           {"ipv6": ["fd00:1:ffff::-fd00:2::0"], "ipv6DefaultEIP": "fd00:2::", "ipv4": null,
            "ipv4DefaultEIP": null}}})",
       {"spec.ippools.ipv6[0]: fd00:2:: is in the pool of EgressGateway other"}},
      {"service range",
       R"({"spec": {"clusterDefault": false, "ippools":
           {"ipv4": ["10.6.1.56", "10.96.3.4"]}}})",
       {"spec.ippools.ipv4[1]: 10.96.3.4", "the service range (10.96.0.0/16)"}},
      {"an agent's uplink address",
       R"({"spec": {"clusterDefault": false, "ippools":
           {"ipv4": ["10.6.1.56", "10.6.1.23"]}}})",
       {"spec.ippools.ipv4[1]: 10.6.1.23", "node n3"}},
  };
  for (const Case& c : cases) check(store.create(gateway(c.patch)), c);
}

TEST_F(Gateway, AnUnknownFieldBesideTheKnownOneHidesNothing) {
  const AdmitAnswer answer = store.create(gateway(R"({"specs": {}, "spec": {"ippool": {},
      "ippools": {"ipv4DefaultEIP": "10.6.1.99"}}})"));
  EXPECT_THAT(answer.denials,
              testing::UnorderedElementsAre(HasSubstr("did you mean spec?"),
                                            HasSubstr("did you mean spec.ippools?"),
                                            HasSubstr("ipv4DefaultEIP: 10.6.1.99 is not in")));
}

TEST_F(Gateway, EveryEntryThatIsTakenIsTold) {
  store.put(cluster_info());
  store.put(gateway(R"({"metadata": {"name": "other"}, "spec": {"clusterDefault": false,
      "ippools": {"ipv4": ["10.6.2.0/24"], "ipv6": null}}})"));
  const AdmitAnswer answer = store.create(gateway(R"({"spec": {"ippools": {"ipv6": null,
      "ipv6DefaultEIP": null, "ipv4": ["10.6.1.56", "10.6.2.7", "10.6.2.9", "10.6.1.20-10.6.1.22",
      "10.244.1.3", "10.244.1.4", "172.31.0.3", "10.96.0.9"]}}})"));
  EXPECT_THAT(answer.denials,
              testing::UnorderedElementsAre(
                  HasSubstr("ipv4[1]: 10.6.2.7 is in the pool of EgressGateway other"),
                  HasSubstr("ipv4[2]: 10.6.2.9 is in the pool of EgressGateway other"),
                  HasSubstr("ipv4[3]: 10.6.1.21 belongs to the address of node n1"),
                  HasSubstr("ipv4[4]: 10.244.1.3 belongs to the pod CIDR"),
                  HasSubstr("ipv4[5]: 10.244.1.4 belongs to the pod CIDR"),
                  HasSubstr("ipv4[6]: 172.31.0.3 belongs to the tunnel's subnet"),
                  HasSubstr("ipv4[7]: 10.96.0.9 belongs to the service range")));
}

TEST_F(Gateway, FamilySwitchedOff) {
  store.settings.enable_ipv6 = false;
  AdmitAnswer answer = store.create(gateway());
  EXPECT_THAT(
      answer.denials,
      ElementsAre(
          HasSubstr(
              "spec.ippools.ipv6: fd00::55, fd00::56: IPv6 is switched off (feature.enableIPv6)"),
          HasSubstr("spec.ippools.ipv6DefaultEIP: fd00::55: IPv6 is switched off")));
  EXPECT_TRUE(store.create(gateway(R"({"spec": {"ippools": {"ipv6": [], "ipv6DefaultEIP": ""}}})"))
                  .admitted);
  store.settings.enable_ipv4 = false;
  store.settings.enable_ipv6 = true;
  EXPECT_THAT(store.create(gateway()).denials[0], HasSubstr("feature.enableIPv4"));
}

TEST_F(Gateway, CreateFillsInDefaultsAndFinalizer) {
  ASSERT_TRUE(store
                  .create(gateway(R"({"metadata": {"finalizers": ["x/y"]},
      "spec": {"ippools": {"ipv4": ["10.6.1.60", "10.6.1.58-10.6.1.59"], "ipv4DefaultEIP": null,
               "ipv6": ["fd00::/127", "fd00::9"], "ipv6DefaultEIP": ""}}, "status": {"term": 9}})"))
                  .admitted);
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv4DefaultEIP"], "10.6.1.58");
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv6DefaultEIP"], "fd00::");
  EXPECT_EQ(store.stored["metadata"]["finalizers"],
            json({"x/y", "egressgateway.spidernet.io/egressgateway"}));
  EXPECT_FALSE(store.stored.contains("status"));
  // A second time changes nothing.
  const json once = store.stored;
  store.put(once);
  ASSERT_TRUE(store.update(once).admitted);
  EXPECT_EQ(store.stored, once);
}

TEST_F(Gateway, Warnings) {
  const auto warnings = [this](const char* patch) {
    const AdmitAnswer answer = store.create(gateway(patch));
    EXPECT_TRUE(answer.admitted) << testing::PrintToString(answer.denials);
    return answer.warnings;
  };
  EXPECT_THAT(warnings(""), IsEmpty());
  EXPECT_THAT(warnings(R"({"spec": {"nodeSelector": {"policy": "doing"}}})"),
              ElementsAre(HasSubstr("spec.nodeSelector.policy: \"doing\" has no effect")));
  EXPECT_THAT(
      warnings(R"({"spec": {"nodeSelector": {"selector": {"matchLabels": {"egress": "no"}}}}})"),
      ElementsAre(HasSubstr("spec.nodeSelector.selector: matches no node now")));
  EXPECT_THAT(warnings(R"({"spec": {"ippools": {"ipv4": ["10.6.1.55-10.6.1.56", "10.6.1.56"]}}})"),
              ElementsAre(HasSubstr("spec.ippools.ipv4: 10.6.1.56 stands there twice")));
  EXPECT_THAT(warnings(R"({"spec": {"ippools": {"ipv4": ["10.6.1.57/30"], "ipv4DefaultEIP":
      "10.6.1.57"}}})"),
              ElementsAre(HasSubstr("spec.ippools.ipv4[0]: 10.6.1.57/30 is read as 10.6.1.56/30")));
  EXPECT_THAT(warnings(R"({"spec": {"ippools": null}})"),
              ElementsAre(HasSubstr("spec.ippools: empty; only policies with useNodeIP")));
}

// A stored gateway in use: .56/::55 by shop/web, .55/::56 recorded but idle.
class StoredGateway : public Gateway {
 protected:
  StoredGateway() {
    store.put(gateway(R"({"metadata": {"finalizers": ["egressgateway.spidernet.io/egressgateway"]},
      "spec": {"ippools": {"ipv4": ["10.6.1.55", "10.6.1.56", "10.6.1.57"],
                           "ipv6": ["fd00::55", "fd00::56", "fd00::57"]}},
      "status": {"nodeList": [{"name": "n1", "status": "Ready", "eips": [
          {"ipv4": "10.6.1.56", "ipv6": "fd00::55", "id": 1,
           "policies": [{"name": "web", "namespace": "shop"}]}]}],
        "unplaced": [{"ipv4": "10.6.1.55", "ipv6": "fd00::56", "id": 2}]}})"));
    store.put(policy());
  }
  json stored(const std::string& patch = {}) {
    return patched(store.get("egw", "", "egw1"), patch);
  }
};

TEST_F(StoredGateway, Update) {
  const Case cases[] = {
      {"nothing", "", {}},
      {"labels", R"({"metadata": {"labels": {"a": "b"}}})", {}},
      {"more of both",
       R"({"spec": {"ippools": {
           "ipv4": ["10.6.1.55-10.6.1.58"], "ipv6": ["fd00::55-fd00::58"]}}})",
       {}},
      {"more of one",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.55-10.6.1.58"]}}})",
       {"4 IPv4 and 3 IPv6"}},
      {"an idle pair goes",
       R"({"spec": {"ippools": {
           "ipv4": ["10.6.1.55", "10.6.1.56"], "ipv6": ["fd00::55", "fd00::56"]}}})",
       {}},
      {"default goes out of the pool",
       R"({"spec": {"ippools": {"ipv4DefaultEIP": "10.6.1.99"}}})",
       {"spec.ippools.ipv4DefaultEIP: 10.6.1.99 is not in"}},
      {"defaults become an idle recorded pair",
       R"({"spec": {"ippools": {
           "ipv4DefaultEIP": "10.6.1.55", "ipv6DefaultEIP": "fd00::56"}}})",
       {}},
      {"defaults become an unrecorded pair",
       R"({"spec": {"ippools": {
           "ipv4DefaultEIP": "10.6.1.57", "ipv6DefaultEIP": "fd00::57"}}})",
       {}},
      {"defaults tear a pair apart",
       R"({"spec": {"ippools": {
           "ipv4DefaultEIP": "10.6.1.57", "ipv6DefaultEIP": "fd00::55"}}})",
       {"10.6.1.57 and fd00::55 are not a pair: 10.6.1.56 and fd00::55 are one already"}},
      {"defaults left out stay",
       R"({"spec": {"clusterDefault": false, "ippools": {
           "ipv4DefaultEIP": null, "ipv6DefaultEIP": null}}})",
       {}},
      {"a node's address comes in",
       R"({"spec": {"ippools": {
           "ipv4": ["10.6.1.55-10.6.1.57", "10.6.1.21"],
           "ipv6": ["fd00::55-fd00::58"]}}})",
       {"spec.ippools.ipv4[1]: 10.6.1.21 belongs to the address of node n1"}},
      {"unknown field",
       R"({"spec": {"clusterdefault": true}})",
       {"spec.clusterdefault: unknown field; did you mean spec.clusterDefault?"}},
  };
  for (const Case& c : cases) check(store.update(stored(c.patch)), c);
}

TEST_F(StoredGateway, AUsedPairStays) {
  const AdmitAnswer answer = store.update(stored(R"({"spec": {"ippools": {"ipv4": ["10.6.1.57"],
      "ipv6": ["fd00::57"], "ipv4DefaultEIP": null, "ipv6DefaultEIP": null}}})"));
  EXPECT_THAT(
      answer.denials,
      ElementsAre(AllOf(HasSubstr("spec.ippools.ipv4: 10.6.1.56 is used by policy shop/web"),
                        HasSubstr("delete its policies and create them anew")),
                  HasSubstr("spec.ippools.ipv6: fd00::55 is used by policy shop/web")));
}

// The default was filled in, the manifest never named it.
TEST_F(StoredGateway, ADefaultThatLeavesThePoolMovesUnlessItIsUsed) {
  const AdmitAnswer moved = store.update(stored(R"({"spec": {"ippools": {"ipv4": ["10.6.1.56",
      "10.6.1.57"], "ipv6": ["fd00::55", "fd00::57"], "ipv4DefaultEIP": null,
      "ipv6DefaultEIP": null}}})"));
  EXPECT_TRUE(moved.admitted) << testing::PrintToString(moved.denials);
  store.put(stored(R"({"spec": {"ippools": {"ipv4DefaultEIP": "10.6.1.57",
                                            "ipv6DefaultEIP": "fd00::57"}}})"));
  const AdmitAnswer answer = store.update(stored(R"({"spec": {"ippools": {
      "ipv4": ["10.6.1.55", "10.6.1.56"], "ipv6": ["fd00::55", "fd00::56"],
      "ipv4DefaultEIP": null, "ipv6DefaultEIP": ""}}})"));
  EXPECT_TRUE(answer.admitted) << testing::PrintToString(answer.denials);
  EXPECT_THAT(
      answer.warnings,
      ElementsAre(HasSubstr("spec.ippools.ipv4DefaultEIP: 10.6.1.57 has left the pool; 10.6.1.55 "
                            "is the default now"),
                  HasSubstr("spec.ippools.ipv6DefaultEIP: fd00::57 has left the pool; fd00::56")));
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv4DefaultEIP"], "10.6.1.55");
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv6DefaultEIP"], "fd00::56") << "its recorded pair";
}

TEST_F(StoredGateway, ADefaultThatLeavesThePoolIsToldWhereItIsNamed) {
  const char* shrunk = R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "10.6.1.57"],
      "ipv6": ["fd00::55", "fd00::57"], "ipv4DefaultEIP": "10.6.1.55",
      "ipv6DefaultEIP": "fd00::56"}}})";
  store.put(stored(R"({"spec": {"ippools": {"ipv4DefaultEIP": "10.6.1.55",
                                            "ipv6DefaultEIP": "fd00::56"}}})"));
  const AdmitAnswer named = store.update(stored(shrunk));
  EXPECT_THAT(named.denials,
              ElementsAre(AllOf(HasSubstr("spec.ippools.ipv4DefaultEIP: 10.6.1.55 is not in"),
                                HasSubstr("filled in when the gateway was made")),
                          HasSubstr("spec.ippools.ipv6DefaultEIP: fd00::56 is not in")));
  // As `kubectl apply` sends it where the manifest does not name it.
  json doc = stored(shrunk);
  doc["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
      R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "10.6.1.57"]}}})";
  const AdmitAnswer unnamed = store.update(doc);
  EXPECT_TRUE(unnamed.admitted) << testing::PrintToString(unnamed.denials);
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv4DefaultEIP"], "10.6.1.56");
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv6DefaultEIP"], "fd00::55");
}

TEST_F(StoredGateway, AUsedDefaultStaysAndTheMessageSaysWhatToDo) {
  const AdmitAnswer answer = store.update(stored(R"({"spec": {"ippools": {
      "ipv4": ["10.6.1.55", "10.6.1.57"], "ipv6": ["fd00::56", "fd00::57"],
      "ipv4DefaultEIP": null, "ipv6DefaultEIP": null}}})"));
  EXPECT_THAT(answer.denials,
              ElementsAre(AllOf(HasSubstr("spec.ippools.ipv4: 10.6.1.56 is used by policy shop/web "
                                          "and is the gateway's default EIP"),
                                HasSubstr("set spec.ippools.ipv4DefaultEIP to one that stays")),
                          HasSubstr("spec.ippools.ipv6: fd00::55 is used by policy shop/web")));
}

TEST_F(StoredGateway, AFinalizerGoesFromASpecThatCannotBeRead) {
  json doc = stored(R"({"spec": {"clusterDefault": "yes", "ippools": 5}})");
  store.put(doc);
  doc["metadata"].erase("finalizers");
  EXPECT_TRUE(store.update(doc).admitted);
}

TEST_F(StoredGateway, UpdateKeepsDefaultsStatusAndTakesFinalizersAsGiven) {
  ASSERT_TRUE(store
                  .update(stored(R"({"spec": {"clusterDefault": false, "ippools": {
                      "ipv4DefaultEIP": null, "ipv6DefaultEIP": null}}, "status": null})"))
                  .admitted);
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv4DefaultEIP"], "10.6.1.56");
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv6DefaultEIP"], "fd00::55");
  EXPECT_EQ(store.stored["status"], stored()["status"]);
  ASSERT_TRUE(store.update(stored(R"({"metadata": {"finalizers": null}})")).admitted);
  EXPECT_FALSE(store.stored["metadata"].contains("finalizers"));
}

TEST_F(StoredGateway, AFinalizerGoesWhateverTheSpecHasBecome) {
  // Written before a rule existed, or past admission.
  json doc = stored(R"({"spec": {"oddity": 1, "ippools": {"ipv4": ["127.0.0.1"]}}})");
  store.put(doc);
  doc["metadata"].erase("finalizers");
  EXPECT_TRUE(store.update(doc).admitted);
}

TEST_F(StoredGateway, AddingAFamilyIsDenied) {
  store.put(gateway(R"({"metadata": {"name": "v4"}, "spec": {"clusterDefault": false,
      "ippools": {"ipv4": ["10.6.3.1"], "ipv4DefaultEIP": "10.6.3.1", "ipv6": null,
                  "ipv6DefaultEIP": null}}})"));
  const AdmitAnswer answer = store.update(
      patched(store.get("egw", "", "v4"), R"({"spec": {"ippools": {"ipv6": ["fd00:3::1"]}}})"));
  EXPECT_THAT(answer.denials,
              ElementsAre(HasSubstr(
                  "spec.ippools.ipv6: fd00:3::1: the stored gateway has no IPv6 addresses, "
                  "and a family cannot be added: its EIPs have no pairs")));
  store.put(gateway(R"({"metadata": {"name": "bare"}, "spec": {"clusterDefault": false,
      "ippools": null}})"));
  EXPECT_THAT(store
                  .update(patched(store.get("egw", "", "bare"),
                                  R"({"spec": {"ippools": {"ipv4": ["10.6.4.1"]}}})"))
                  .denials,
              ElementsAre(HasSubstr("no IPv4 addresses, and a family cannot be added to one made "
                                    "for useNodeIP alone")));
  EXPECT_TRUE(store
                  .update(patched(store.get("egw", "", "v4"),
                                  R"({"spec": {"ippools": {"ipv4": ["10.6.3.1-10.6.3.9"]}}})"))
                  .admitted);
}

TEST_F(StoredGateway, ANodeThatCameLaterDoesNotStopOtherChanges) {
  store.put(node(R"({"metadata": {"name": "late"}, "status": {"addresses":
      [{"type": "InternalIP", "address": "10.6.1.55"}]}})"));
  EXPECT_TRUE(store.update(stored(R"({"spec": {"clusterDefault": false}})")).admitted);
}

TEST_F(StoredGateway, AddressNamedByAPolicyThatIsNotPlacedYetStays) {
  store.put(
      policy(R"({"metadata": {"name": "new"}, "spec": {"egressIP": {"ipv4": "10.6.1.57"}}})"));
  const AdmitAnswer answer = store.update(stored(R"({"spec": {"ippools": {
      "ipv4": ["10.6.1.55", "10.6.1.56"], "ipv6": ["fd00::55", "fd00::56"]}}})"));
  EXPECT_THAT(answer.denials, ElementsAre(HasSubstr("10.6.1.57 is used by policy shop/new")));
}

TEST_F(StoredGateway, BecomingTheDefault) {
  store.put(gateway(R"({"metadata": {"name": "second"}, "spec": {"clusterDefault": false,
      "ippools": {"ipv4": ["10.6.4.1"], "ipv4DefaultEIP": "10.6.4.1", "ipv6": null,
                  "ipv6DefaultEIP": null}}})"));
  const json second = store.get("egw", "", "second");
  EXPECT_THAT(store.update(patched(second, R"({"spec": {"clusterDefault": true}})")).denials,
              ElementsAre(HasSubstr("spec.clusterDefault: true, but EgressGateway egw1 is")));
  store.put(stored(R"({"spec": {"clusterDefault": false}})"));
  EXPECT_TRUE(store.update(patched(second, R"({"spec": {"clusterDefault": true}})")).admitted);
}

TEST_F(StoredGateway, AllowedNamespacesWarnsOfWhomItShutsOut) {
  const AdmitAnswer answer =
      store.update(stored(R"({"spec": {"allowedNamespaces": {"matchLabels": {"team": "a"}}}})"));
  EXPECT_TRUE(answer.admitted);
  EXPECT_THAT(answer.warnings, ElementsAre(HasSubstr("spec.allowedNamespaces: these policies")));
  EXPECT_THAT(answer.warnings[0], HasSubstr("shop/web"));
}

TEST_F(StoredGateway, DeletionIsAcceptedAndNamesItsUsers) {
  store.put(cluster_policy());
  AdmitAnswer answer = store.remove(stored());
  EXPECT_TRUE(answer.admitted);
  EXPECT_THAT(answer.warnings, ElementsAre(HasSubstr("shop/web, all")));
  answer = store.remove(gateway(R"({"metadata": {"name": "idle"}})"));
  EXPECT_TRUE(answer.admitted);
  EXPECT_THAT(answer.warnings, IsEmpty());
}

TEST_F(Gateway, HugePoolsCostAsMuchAsSmallOnes) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(store
                    .create(gateway(R"({"spec": {"ippools": {"ipv4": null, "ipv4DefaultEIP": null,
                        "ipv6": ["2001:db8::/33"], "ipv6DefaultEIP": null}}})"))
                    .admitted);
  }
  // Enumerating one /64 would take years; the bound is generous to a busy machine.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv6DefaultEIP"], "2001:db8::");
}

TEST_F(Gateway, TooManyEntries) {
  json doc = gateway();
  for (int i = 0; i < 10001; ++i) doc["spec"]["ippools"]["ipv4"].push_back("10.6.1.55");
  EXPECT_THAT(store.create(doc).denials,
              ElementsAre(HasSubstr("spec.ippools.ipv4: 10003 entries; want at most 10000")));
}

TEST_F(Gateway, DenialsAreBoundedAndSayHowManyMore) {
  json doc = gateway();
  for (int i = 0; i < 1000; ++i) doc["spec"]["ippools"]["ipv4"].push_back("x");
  const AdmitAnswer answer = store.create(doc);
  EXPECT_FALSE(answer.admitted);
  ASSERT_EQ(answer.denials.size(), 101U);
  EXPECT_EQ(answer.denials.back(), "and 900 more faults: not listed");
}

// One answer has every fault: of form, of spelling and of every rule that can still be judged.
TEST_F(Gateway, AllFaultsAtOnce) {
  store.put(gateway(R"({"metadata": {"name": "other"}})"));
  const AdmitAnswer answer = store.create(gateway(R"({"metadata": {"name": "Egw", "labels": 5},
      "spec": {"clusterDefault": true, "colour": "red", "allowedNamespaces": {"matchLabels": {"a": 1,
                 "b c": "d e"}, "matchExpressions": [{"key": "k", "operator": "Is"},
                 {"key": "k", "operator": "In", "values": ["good", "not good", "nor this"]}]},
      "ippools": {"ipv4": ["10.6.1.555", 7, "10.6.1.21", "10.6.1.70", "127.0.0.1", "10.6.1.55"],
                  "ipv6": ["fd00::x"], "ipv6DefaultEIP": 3},
      "nodeSelector": {"selector": {}, "policy": []}}})"));
  const auto fault = [](const char* path, const char* what) {
    return AllOf(testing::StartsWith(std::string(path) + ": "), HasSubstr(what));
  };
  EXPECT_THAT(
      answer.denials,
      testing::UnorderedElementsAre(
          fault("metadata.labels", "number 5: want an object"), fault("metadata.name", "\"Egw\""),
          fault("spec.colour", "unknown field"),
          fault("spec.clusterDefault", "EgressGateway other is the cluster's default"),
          fault("spec.allowedNamespaces.matchLabels.a", "number 1: want a string"),
          fault("spec.allowedNamespaces.matchLabels.b c", "\"b c\": want a label key"),
          fault("spec.allowedNamespaces.matchLabels.b c", "\"d e\": want a label value"),
          fault("spec.allowedNamespaces.matchExpressions[0].operator", "\"Is\""),
          fault("spec.allowedNamespaces.matchExpressions[1].values[1]", "\"not good\": want"),
          fault("spec.allowedNamespaces.matchExpressions[1].values[2]", "\"nor this\": want"),
          fault("spec.ippools.ipv4[0]", "10.6.1.555"),
          fault("spec.ippools.ipv4[1]", "number 7: want a string"),
          fault("spec.ippools.ipv4[2]", "10.6.1.21 belongs to the address of node n1"),
          fault("spec.ippools.ipv4[4]", "127.0.0.1"),
          fault("spec.ippools.ipv4[5]", "10.6.1.55 is in the pool of EgressGateway other too"),
          fault("spec.ippools.ipv6[0]", "fd00::x"),
          fault("spec.ippools.ipv6DefaultEIP", "number 3: want a string"),
          fault("spec.nodeSelector.policy", "a list: want a string")));
}

TEST_F(Gateway, WhatFollowsFromAFaultIsNotToldAsAnother) {
  const Case cases[] = {
      {"a mistyped selector is not an empty one",
       R"({"spec": {"nodeSelector": null, "nodeSelecter": {}}})",
       {"did you mean spec.nodeSelector?"}},
      {"nor is one of the wrong type",
       R"({"spec": {"nodeSelector": {"selector": "egress"}}})",
       {"spec.nodeSelector.selector: \"egress\": want an object"}},
      {"a bad entry: neither counts nor defaults are known",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.55", "10.6.1"]}}})",
       {"spec.ippools.ipv4[1]"}},
      {"pools of the wrong type",
       R"({"spec": {"ippools": ["10.6.1.55"]}})",
       {"spec.ippools: a list"}},
      {"spec of the wrong type", R"({"spec": "egress"})", {"spec: \"egress\": want an object"}},
  };
  for (const Case& c : cases) check(store.create(gateway(c.patch)), c);
}

}  // namespace
}  // namespace egw::core
