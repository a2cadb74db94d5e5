// EgressPolicy and EgressClusterPolicy: every rule both ways.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/core_admission/store.hpp"

namespace egw::core {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Policy : public testing::Test {
 protected:
  Policy() {
    store.put(node());
    store.put(gateway(R"({"spec": {"ippools": {"ipv4": ["10.6.1.55-10.6.1.58"],
                                               "ipv6": ["fd00::55-fd00::58"]}},
      "status": {"nodeList": [{"name": "n1", "eips": [
          {"ipv4": "10.6.1.56", "ipv6": "fd00::55", "id": 1},
          {"ipv4": "10.6.1.55", "ipv6": "fd00::56", "id": 2}]}]}})"));
    store.put(gateway(R"({"metadata": {"name": "empty"},
      "spec": {"clusterDefault": false, "ippools": null}})"));
    store.put(gateway(R"({"metadata": {"name": "v4"}, "spec": {"clusterDefault": false,
      "ippools": {"ipv4": ["10.6.2.1"], "ipv4DefaultEIP": "10.6.2.1", "ipv6": null,
                  "ipv6DefaultEIP": null}}})"));
    store.put(gateway(R"({"metadata": {"name": "leaving",
      "deletionTimestamp": "2024-05-01T12:00:00Z"}, "spec": {"clusterDefault": false,
      "ippools": {"ipv4": ["10.6.3.1"], "ipv4DefaultEIP": "10.6.3.1", "ipv6": null,
                  "ipv6DefaultEIP": null}}})"));
    store.put(gateway(R"({"metadata": {"name": "private"}, "spec": {"clusterDefault": false,
      "allowedNamespaces": {"matchLabels": {"team": "a"}},
      "ippools": {"ipv4": ["10.6.4.1"], "ipv4DefaultEIP": "10.6.4.1", "ipv6": null,
                  "ipv6DefaultEIP": null}}})"));
    store.put(json::parse(R"({"kind": "Namespace", "metadata": {"name": "team-a",
      "labels": {"team": "a", "spidernet.io/egressgateway-default": "private"}}})"));
  }
  Store store;
};

TEST_F(Policy, Create) {
  const Case cases[] = {
      {"plain", "", {}},
      {"every pod", R"({"spec": {"appliedTo": {"podSelector": {"matchLabels": null}}}})", {}},
      {"by subnet",
       R"({"spec": {"appliedTo": {"podSelector": null,
           "podSubnet": ["10.244.0.0/16", "fd01::/48"]}}})",
       {}},
      {"destinations", R"({"spec": {"destSubnet": ["0.0.0.0/0", "::/0", "1.1.1.1"]}})", {}},
      {"NodeIP on failure", R"({"spec": {"failurePolicy": "NodeIP", "priority": -5}})", {}},

      // Shape.
      {"unknown",
       R"({"spec": {"destSubnets": []}})",
       {"spec.destSubnets: unknown field; did you mean spec.destSubnet?"}},
      {"priority is text",
       R"({"spec": {"priority": "1"}})",
       {"spec.priority: \"1\": want a whole number"}},
      {"other word",
       R"({"spec": {"failurePolicy": "Bypass"}})",
       {"spec.failurePolicy: \"Bypass\": want one of Drop, NodeIP"}},
      {"no namespace",
       R"({"metadata": {"namespace": null}})",
       {"metadata.namespace: \"\": want the namespace of the EgressPolicy"}},
      {"namespace with a dot", R"({"metadata": {"namespace": "a.b"}})", {"metadata.namespace"}},

      // Whom it is applied to.
      {"to nobody",
       R"({"spec": {"appliedTo": {"podSelector": null}}})",
       {"spec.appliedTo: neither podSelector nor podSubnet"}},
      {"no appliedTo",
       R"({"spec": {"appliedTo": null}})",
       {"spec.appliedTo: neither podSelector nor podSubnet"}},
      {"both",
       R"({"spec": {"appliedTo": {"podSubnet": ["10.244.0.0/16"]}}})",
       {"spec.appliedTo: podSelector and podSubnet (10.244.0.0/16); want one"}},
      {"namespaceSelector",
       R"({"spec": {"appliedTo": {"namespaceSelector": {}}}})",
       {"spec.appliedTo.namespaceSelector", "shop", "EgressClusterPolicy"}},
      {"bad subnet",
       R"({"spec": {"appliedTo": {"podSelector": null,
           "podSubnet": ["10.244.0.0/16", "10.244.0.0/40"]}}})",
       {"spec.appliedTo.podSubnet[1]", "from 0 to 32"}},
      {"bad destination",
       R"({"spec": {"destSubnet": ["example.com"]}})",
       {"spec.destSubnet[0]: \"example.com\" is not a prefix"}},

      // Its gateway.
      {"no name of a gateway",
       R"({"spec": {"egressGatewayName": "Egress_GW"}})",
       {"spec.egressGatewayName: \"Egress_GW\": want the name of an EgressGateway: 1 to 253"}},
      {"being deleted",
       R"({"spec": {"egressGatewayName": "leaving"}})",
       {"spec.egressGatewayName: EgressGateway leaving is being deleted"}},
      {"not for this namespace",
       R"({"spec": {"egressGatewayName": "private"}})",
       {"spec.egressGatewayName: private does not serve namespace shop", "allowedNamespaces"}},
      {"for this namespace",
       R"({"metadata": {"namespace": "team-a"}, "spec": {"egressGatewayName": "private"}})",
       {}},
      {"without addresses",
       R"({"spec": {"egressGatewayName": "empty"}})",
       {"spec.egressIP.useNodeIP: false, but EgressGateway empty has no addresses"}},
      {"without addresses, node's address",
       R"({"spec": {"egressGatewayName": "empty", "egressIP": {"useNodeIP": true}}})",
       {}},

      // Its EIP.
      {"one address", R"({"spec": {"egressIP": {"ipv4": "10.6.1.57"}}})", {}},
      {"spelt in capitals", R"({"spec": {"egressIP": {"ipv6": "FD00::0:57"}}})", {}},
      {"node's address and an EIP",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1.55", "useNodeIP": true}}})",
       {"spec.egressIP: useNodeIP: true with 10.6.1.55; want"}},
      {"not an address",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1"}}})",
       {"spec.egressIP.ipv4: \"10.6.1\" is not an IP address"}},
      {"mapped",
       R"({"spec": {"egressIP": {"ipv6": "::ffff:10.6.1.55"}}})",
       {"spec.egressIP.ipv6", "write 10.6.1.55"}},
      {"wrong family",
       R"({"spec": {"egressIP": {"ipv4": "fd00::55"}}})",
       {"spec.egressIP.ipv4: fd00::55 is not IPv4"}},
      {"multicast",
       R"({"spec": {"egressIP": {"ipv4": "224.0.0.1"}}})",
       {"spec.egressIP.ipv4: 224.0.0.1 is multicast"}},
      {"outside the pool",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1.99"}}})",
       {"spec.egressIP.ipv4: 10.6.1.99 is not in the IPv4 pool of EgressGateway egw1",
        "want one of 10.6.1.55-10.6.1.58"}},
      {"a family that the gateway has not",
       R"({"spec": {"egressGatewayName": "v4", "egressIP": {"ipv6": "fd00::55"}}})",
       {"spec.egressIP.ipv6: fd00::55 is not in the IPv6 pool of EgressGateway v4"}},

      // Pairs.
      {"the defaults", R"({"spec": {"egressIP": {"ipv4": "10.6.1.56", "ipv6": "fd00::55"}}})", {}},
      {"a recorded pair",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1.55", "ipv6": "fd00::56"}}})",
       {}},
      {"a new pair", R"({"spec": {"egressIP": {"ipv4": "10.6.1.57", "ipv6": "fd00::58"}}})", {}},
      {"not a pair",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1.55", "ipv6": "fd00::55"}}})",
       {"spec.egressIP: 10.6.1.55 and fd00::55 are not a pair: 10.6.1.56 and fd00::55 are"}},
      {"one of them free",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1.57", "ipv6": "fd00::56"}}})",
       {"10.6.1.57 and fd00::56 are not a pair: 10.6.1.55 and fd00::56 are"}},
  };
  for (const Case& c : cases) check(store.create(policy(c.patch)), c);
}

TEST_F(Policy, AddressesAreStoredInOneSpelling) {
  const json given = policy(R"({"spec": {"egressIP": {"ipv6": "FD00::0:57"},
      "appliedTo": {"podSelector": null, "podSubnet": ["FD01:0:0::/64", "10.244.1.0/24"]},
      "destSubnet": ["2001:DB8:0:0::1", "2001:0db8:1::/48"]}})");
  ASSERT_TRUE(store.create_and_put(given).admitted);
  const json before = store.stored;
  EXPECT_EQ(before["spec"]["egressIP"]["ipv6"], "fd00::57");
  EXPECT_EQ(before["spec"]["appliedTo"]["podSubnet"], json({"fd01::/64", "10.244.1.0/24"}));
  EXPECT_EQ(before["spec"]["destSubnet"], json({"2001:db8::1", "2001:db8:1::/48"}));
  EXPECT_TRUE(store.update(given).admitted);
  EXPECT_EQ(store.stored["spec"], before["spec"]);
}

TEST_F(Policy, CreateClusterPolicy) {
  const Case cases[] = {
      {"plain", "", {}},
      {"namespaceSelector alone",
       R"({"spec": {"appliedTo": {"podSelector": null,
           "namespaceSelector": {"matchLabels": {"a": "b"}}}}})",
       {}},
      {"namespaceSelector and podSelector",
       R"({"spec": {"appliedTo": {"namespaceSelector": {}}}})",
       {}},
      {"to nobody",
       R"({"spec": {"appliedTo": {"podSelector": null}}})",
       {"spec.appliedTo: neither podSelector, podSubnet nor namespaceSelector"}},
      {"both",
       R"({"spec": {"appliedTo": {"podSubnet": ["10.244.0.0/16"]}}})",
       {"spec.appliedTo: podSelector and podSubnet"}},
      {"in a namespace",
       R"({"metadata": {"namespace": "shop"}})",
       {"metadata.namespace: \"shop\": EgressClusterPolicy is cluster-wide"}},
      {"a tenant's gateway is the administrator's too",
       R"({"spec": {"egressGatewayName": "private"}})",
       {}},
      {"EIP outside the pool",
       R"({"spec": {"egressIP": {"ipv4": "10.6.9.9"}}})",
       {"spec.egressIP.ipv4: 10.6.9.9 is not in"}},
  };
  for (const Case& c : cases) check(store.create(cluster_policy(c.patch)), c);
}

TEST_F(Policy, MissingGatewayIsAWarning) {
  for (const char* ip : {"{}", R"({"ipv4": "10.9.9.9"})"}) {
    const AdmitAnswer answer = store.create(
        policy(std::string(R"({"spec": {"egressGatewayName": "later", "egressIP": )") + ip + "}}"));
    EXPECT_TRUE(answer.admitted);
    EXPECT_THAT(answer.warnings, ElementsAre(HasSubstr("spec.egressGatewayName: EgressGateway "
                                                       "later does not exist")));
  }
}

TEST_F(Policy, UnreadableGatewayIsAWarning) {
  store.put(json::parse(R"({"kind": "EgressGateway", "metadata": {"name": "bad"}, "spec": 5})"));
  const AdmitAnswer answer = store.create(policy(R"({"spec": {"egressGatewayName": "bad"}})"));
  EXPECT_TRUE(answer.admitted);
  EXPECT_THAT(answer.warnings, ElementsAre(HasSubstr("cannot be read (spec: number 5")));
}

TEST_F(Policy, GatewayFromNamespaceThenCluster) {
  const char* unnamed = R"({"spec": {"egressGatewayName": null}})";
  const char* unnamed_a =
      R"({"metadata": {"namespace": "team-a"}, "spec": {"egressGatewayName": ""}})";
  ASSERT_TRUE(store.create(policy(unnamed)).admitted);
  EXPECT_EQ(store.stored["spec"]["egressGatewayName"], "egw1");
  ASSERT_TRUE(store.create(policy(unnamed_a)).admitted);
  EXPECT_EQ(store.stored["spec"]["egressGatewayName"], "private");
  ASSERT_TRUE(store.create(cluster_policy(unnamed)).admitted);
  EXPECT_EQ(store.stored["spec"]["egressGatewayName"], "egw1");

  // Two defaults, stored at once past admission: the older, as the leader has it.
  store.put(gateway(R"({"metadata": {"name": "a", "creationTimestamp": "2024-05-01T12:00:01Z"}})"));
  store.put(gateway(R"({"metadata": {"creationTimestamp": "2024-05-01T12:00:00Z"}})"));
  ASSERT_TRUE(store.create(policy(unnamed)).admitted);
  EXPECT_EQ(store.stored["spec"]["egressGatewayName"], "egw1");
  store.put(gateway(R"({"metadata": {"name": "a"}, "spec": {"clusterDefault": false}})"));

  store.put(gateway(R"({"spec": {"clusterDefault": false}})"));
  EXPECT_THAT(store.create(policy(unnamed)).denials,
              ElementsAre(AllOf(HasSubstr("spec.egressGatewayName: empty"),
                                HasSubstr("spidernet.io/egressgateway-default"),
                                HasSubstr("clusterDefault: true"))));
  EXPECT_THAT(store.create(cluster_policy(unnamed)).denials,
              ElementsAre(Not(HasSubstr("on the namespace"))));
  EXPECT_TRUE(store.create(policy(unnamed_a)).admitted);
}

TEST_F(Policy, ConstantsAreWrittenIntoTheSpec) {
  ASSERT_TRUE(store.create(policy(R"({"status": {"node": "n9"}})")).admitted);
  EXPECT_EQ(store.stored["spec"]["egressIP"],
            (json{{"allocatorPolicy", "default"}, {"useNodeIP", false}}));
  EXPECT_FALSE(store.stored.contains("status"));
  ASSERT_TRUE(
      store.create(policy(R"({"spec": {"egressIP": {"allocatorPolicy": "rr"}}})")).admitted);
  EXPECT_EQ(store.stored["spec"]["egressIP"]["allocatorPolicy"], "rr");
}

TEST_F(Policy, AllowedByTheNameThatKubernetesPutsOnEveryNamespace) {
  store.put(gateway(R"({"metadata": {"name": "private"}, "spec": {"clusterDefault": false,
      "allowedNamespaces": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}})"));
  EXPECT_TRUE(store.create(policy(R"({"spec": {"egressGatewayName": "private"}})")).admitted);
  EXPECT_FALSE(store
                   .create(policy(R"({"metadata": {"namespace": "other"},
                       "spec": {"egressGatewayName": "private"}})"))
                   .admitted);
}

TEST_F(Policy, FamilySwitchedOff) {
  store.settings.enable_ipv6 = false;
  EXPECT_THAT(store.create(policy(R"({"spec": {"egressIP": {"ipv6": "fd00::56"}}})")).denials,
              ElementsAre(HasSubstr("spec.egressIP.ipv6: fd00::56: IPv6 is switched off")));
  const AdmitAnswer answer =
      store.create(policy(R"({"spec": {"destSubnet": ["::/0", "1.1.1.1"]}})"));
  EXPECT_TRUE(answer.admitted);
  EXPECT_THAT(answer.warnings, ElementsAre(HasSubstr("spec.destSubnet[0]: ::/0 has no effect")));
}

TEST_F(Policy, Warnings) {
  store.put(cluster_info());
  const auto warnings = [this](const char* patch) {
    const AdmitAnswer answer = store.create(policy(patch));
    EXPECT_TRUE(answer.admitted) << testing::PrintToString(answer.denials);
    return answer.warnings;
  };
  EXPECT_THAT(warnings(""), IsEmpty());
  EXPECT_THAT(warnings(R"({"spec": {"destSubnet": ["10.0.0.0/8", "10.96.7.0/24", "10.6.1.22"]}})"),
              ElementsAre(HasSubstr("spec.destSubnet[1]: 10.96.7.0/24 has no effect: it lies in "
                                    "the service range"),
                          HasSubstr("spec.destSubnet[2]: 10.6.1.22/32 has no effect")));
  EXPECT_THAT(warnings(R"({"spec": {"destSubnet": ["1.2.3.4/16", "2001:DB8::/32"]}})"),
              ElementsAre(HasSubstr("spec.destSubnet[0]: 1.2.3.4/16 is read as 1.2.0.0/16")));
  EXPECT_THAT(warnings(R"({"spec": {"egressIP": {"ipv4": "10.6.1.55", "allocatorPolicy": "rr"}}})"),
              ElementsAre(HasSubstr("spec.egressIP.allocatorPolicy: rr has no effect beside")));
  EXPECT_THAT(warnings(R"({"spec": {"egressIP": {"useNodeIP": true, "allocatorPolicy": "rr"}}})"),
              ElementsAre(HasSubstr("rr has no effect beside useNodeIP")));
}

TEST_F(Policy, DestinationsOfAFamilyThatTheGatewayLacks) {
  const auto warnings = [this](const char* patch) {
    const AdmitAnswer answer =
        store.create(patched(policy(R"({"spec": {"egressGatewayName": "v4"}})"), patch));
    EXPECT_TRUE(answer.admitted) << testing::PrintToString(answer.denials);
    return answer.warnings;
  };
  const char* lacks = "EgressGateway v4 has no IPv6 addresses; such packets are left alone";
  EXPECT_THAT(warnings(R"({"spec": {"destSubnet": ["1.1.1.1", "2001:db8::/32"]}})"),
              ElementsAre(AllOf(HasSubstr("spec.destSubnet[1]: 2001:db8::/32"), HasSubstr(lacks))));
  EXPECT_THAT(warnings(""),
              ElementsAre(AllOf(HasSubstr("spec.destSubnet: empty"), HasSubstr(lacks))));
  EXPECT_THAT(warnings(R"({"spec": {"destSubnet": ["1.1.1.1"]}})"), IsEmpty());
  EXPECT_THAT(warnings(R"({"spec": {"egressIP": {"useNodeIP": true}}})"), IsEmpty());
  store.settings.enable_ipv6 = false;
  EXPECT_THAT(warnings(""), IsEmpty());
}

TEST_F(Policy, AllFaultsAtOnce) {
  const AdmitAnswer answer = store.create(policy(R"({"metadata": {"namespace": "a.b"}, "spec": {
      "egressGatewayName": "v4", "priority": "high", "failurePolicy": "Bypass", "prio": 1,
      "destSubnet": ["1.1.1.1", "example.com", 5], "egressIP": {"useNodeIP": "no", "ipv4": "10.6.2.9",
      "ipv6": "fe80::1", "allocatorPolicy": "random"},
      "appliedTo": {"podSubnet": ["10.0.0.0/33"], "namespaceSelector": {}}}})"));
  const auto fault = [](const char* path, const char* what) {
    return AllOf(testing::StartsWith(std::string(path) + ": "), HasSubstr(what));
  };
  EXPECT_THAT(
      answer.denials,
      testing::UnorderedElementsAre(
          fault("metadata.namespace", "\"a.b\""), fault("spec.priority", "\"high\""),
          fault("spec.failurePolicy", "\"Bypass\""), fault("spec.prio", "unknown field"),
          fault("spec.destSubnet[1]", "example.com"), fault("spec.destSubnet[2]", "number 5"),
          fault("spec.egressIP.useNodeIP", "\"no\": want true or false"),
          fault("spec.egressIP.ipv4", "10.6.2.9 is not in the IPv4 pool"),
          fault("spec.egressIP.ipv6", "fe80::1 is link-local"),
          fault("spec.egressIP.allocatorPolicy", "\"random\""),
          fault("spec.appliedTo", "podSelector and podSubnet"),
          fault("spec.appliedTo.podSubnet[0]", "10.0.0.0/33"),
          fault("spec.appliedTo.namespaceSelector", "selects pods of its own namespace")));
}

TEST_F(Policy, WhatFollowsFromAFaultIsNotToldAsAnother) {
  const Case cases[] = {
      {"a mistyped selector",
       R"({"spec": {"appliedTo": {"podSelector": null, "podSelectr": {}}}})",
       {"did you mean spec.appliedTo.podSelector?"}},
      {"a gateway of the wrong type",
       R"({"spec": {"egressGatewayName": 7}})",
       {"spec.egressGatewayName: number 7: want a string"}},
      {"a list for an object", R"({"spec": {"egressIP": []}})", {"spec.egressIP: a list"}},
      {"no spec at all", R"({"spec": 7})", {"spec: number 7"}},
  };
  for (const Case& c : cases) check(store.create(policy(c.patch)), c);
}

TEST_F(Policy, Update) {
  ASSERT_TRUE(store
                  .create_and_put(policy(R"({"spec": {"egressIP":
                      {"ipv4": "10.6.1.55", "ipv6": "fd00::56"}}})"))
                  .admitted);
  const json stored = store.get("egp", "shop", "web");
  const Case cases[] = {
      {"nothing", "", {}},
      {"other pods",
       R"({"spec": {"appliedTo": {"podSelector": {"matchLabels": {"app": "db"}}}}})",
       {}},
      {"destinations and priority", R"({"spec": {"destSubnet": ["1.1.1.1"], "priority": 3}})", {}},
      {"address spelt otherwise", R"({"spec": {"egressIP": {"ipv6": "FD00::0056"}}})", {}},
      {"immutables left out",
       R"({"spec": {"egressGatewayName": null, "egressIP": null,
           "priority": 4}})",
       {}},
      {"gateway",
       R"({"spec": {"egressGatewayName": "v4"}})",
       {"spec.egressGatewayName: \"v4\": cannot be changed, it is \"egw1\""}},
      {"ipv4",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1.57"}}})",
       {"spec.egressIP.ipv4: \"10.6.1.57\": cannot be changed, it is \"10.6.1.55\""}},
      {"ipv6", R"({"spec": {"egressIP": {"ipv6": "fd00::57"}}})", {"spec.egressIP.ipv6"}},
      {"allocator",
       R"({"spec": {"egressIP": {"allocatorPolicy": "rr"}}})",
       {"spec.egressIP.allocatorPolicy: \"rr\": cannot be changed, it is \"default\""}},
      {"to nobody",
       R"({"spec": {"appliedTo": {"podSelector": null}}})",
       {"spec.appliedTo: neither"}},
      {"bad destination", R"({"spec": {"destSubnet": ["x"]}})", {"spec.destSubnet[0]"}},
      {"unknown", R"({"spec": {"prority": 1}})", {"did you mean spec.priority?"}},
  };
  for (const Case& c : cases) check(store.update(patched(stored, c.patch)), c);

  ASSERT_TRUE(store
                  .update(patched(stored, R"({"spec": {"egressGatewayName": null,
      "egressIP": null, "priority": 4}})"))
                  .admitted);
  EXPECT_EQ(store.stored["spec"]["egressIP"], stored["spec"]["egressIP"]);
  EXPECT_EQ(store.stored["spec"]["egressGatewayName"], "egw1");
}

TEST_F(Policy, UpdateOfUseNodeIp) {
  ASSERT_TRUE(
      store.create_and_put(policy(R"({"spec": {"egressIP": {"useNodeIP": true}}})")).admitted);
  const json stored = store.get("egp", "shop", "web");
  EXPECT_THAT(
      store.update(patched(stored, R"({"spec": {"egressIP": {"useNodeIP": false}}})")).denials,
      ElementsAre(HasSubstr("spec.egressIP.useNodeIP: \"false\": cannot be changed, it is "
                            "\"true\"")));
  EXPECT_TRUE(store.update(patched(stored, R"({"spec": {"priority": 1}})")).admitted);
}

TEST_F(Policy, AddingAnAddressLaterIsAChange) {
  ASSERT_TRUE(store.create_and_put(policy()).admitted);
  EXPECT_THAT(store.update(policy(R"({"spec": {"egressIP": {"ipv4": "10.6.1.55"}}})")).denials,
              ElementsAre(HasSubstr("spec.egressIP.ipv4: \"10.6.1.55\": cannot be changed")));
}

TEST_F(Policy, ServedOnesMayChangeWhileTheirGatewayLeaves) {
  store.put(policy(R"({"spec": {"egressGatewayName": "leaving"}})"));
  EXPECT_TRUE(store.update(policy(R"({"spec": {"egressGatewayName": "leaving", "priority": 2}})"))
                  .admitted);
}

TEST_F(Policy, DeletionIsFree) { EXPECT_TRUE(store.remove(policy()).admitted); }

TEST_F(Policy, LongNames) {
  EXPECT_TRUE(store.create(policy(R"({"metadata": {"name": ")" + std::string(253, 'a') + R"("}})"))
                  .admitted);
  EXPECT_FALSE(store.create(policy(R"({"metadata": {"name": ")" + std::string(254, 'a') + R"("}})"))
                   .admitted);
}

TEST_F(Policy, GeneratedNameComesAfterAdmission) {
  EXPECT_TRUE(
      store.create(policy(R"({"metadata": {"name": null, "generateName": "web-"}})")).admitted);
}

}  // namespace
}  // namespace egw::core
