// A row for every line of the list of what admission denies, tried both ways on create, update and
// delete. What each kind says beyond that: its own file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/core_admission/store.hpp"

namespace egw::core {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

// Patches of the object to begin with.
struct Line {
  const char* what;
  const char* good;       // admitted
  const char* bad;        // what a denial says, "" where it is admitted:
  const char* create;     // when it is created
  const char* update;     // when the object to begin with becomes that
  const char* from = "";  // what that is, if it is another one
};

constexpr const char* kFixed = "cannot be changed";

class EveryLine : public testing::Test {
 protected:
  EveryLine() {
    store.put(node());
    store.put(cluster_info());
    store.put(gateway(R"({"metadata": {"name": "other"},
        "spec": {"ippools": {"ipv4": ["10.6.2.0/24"], "ipv6": ["fd00:2::-fd00:2::fd"]}}})"));
    store.put(gateway(R"({"metadata": {"name": "leaving",
        "deletionTimestamp": "2024-05-01T12:00:00Z"}, "spec": {"clusterDefault": false,
        "ippools": {"ipv4": ["10.6.3.1"], "ipv6": ["fd00:3::1"]}}})"));
    store.put(gateway(R"({"metadata": {"name": "empty"}, "spec": {"clusterDefault": false,
        "ippools": null}})"));
    store.put(own_gateway(""));
    store.put(policy(R"({"metadata": {"name": "user"},
        "spec": {"egressIP": {"ipv4": "10.6.1.56"}}})"));
  }

  static json own_gateway(const std::string& patch) {
    return patched(gateway(R"({"spec": {"clusterDefault": false}})"), patch);
  }

  static void expect(const AdmitAnswer& answer, const std::string& denial) {
    if (denial.empty()) {
      EXPECT_THAT(answer.denials, IsEmpty());
    } else {
      EXPECT_THAT(answer.denials, Contains(HasSubstr(denial)));
    }
    EXPECT_EQ(answer.admitted, denial.empty());
  }

  // another: a patch that changes the spec of each of these in a way that nothing forbids.
  template <class Make>
  void check(const Line& line, Make make, const char* another) {
    SCOPED_TRACE(line.what);
    const json good = make(line.good);
    const json bad = make(line.bad);
    const json from = make(line.from);
    expect(store.create(good), "");
    expect(store.create(bad), line.create);
    store.put(patched(good, another));
    expect(store.update(good), "");
    store.put(from);
    expect(store.update(bad), line.update);
    // Stored all the same: nothing holds up its labels, its finalizers and its end.
    store.put(patched(bad, R"({"metadata": {"finalizers": ["a/b"]}})"));
    expect(store.update(bad), "");
    expect(store.update(patched(bad, R"({"metadata": {"labels": {"a": "b"}}})")), "");
    expect(store.remove(bad), "");
    store.put(from);
  }

  Store store;
};

TEST_F(EveryLine, Gateways) {
  const Line lines[] = {
      {"empty nodeSelector",
       R"({"spec": {"nodeSelector": {"selector": {"matchLabels": {"egress": "true"}}}}})",
       R"({"spec": {"nodeSelector": {"selector": {"matchLabels": null}}}})",
       "spec.nodeSelector.selector: empty", "spec.nodeSelector.selector: empty"},
      {"a second clusterDefault", "", R"({"spec": {"clusterDefault": true}})",
       "spec.clusterDefault: true, but EgressGateway other",
       "spec.clusterDefault: true, but EgressGateway other"},
      {"unequal counts",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.55-10.6.1.57"], "ipv6": ["fd00::55-fd00::57"]}}})",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.55-10.6.1.57"]}}})",
       "spec.ippools: 3 IPv4 and 2 IPv6", "spec.ippools: 3 IPv4 and 2 IPv6"},
      {"default EIP outside its pool",
       R"({"spec": {"ippools": {"ipv4DefaultEIP": "10.6.1.55", "ipv6DefaultEIP": "fd00::56"}}})",
       R"({"spec": {"ippools": {"ipv4DefaultEIP": "10.6.1.99"}}})",
       "spec.ippools.ipv4DefaultEIP: 10.6.1.99 is not in",
       "spec.ippools.ipv4DefaultEIP: 10.6.1.99 is not in"},
      {"default EIP that is no address", "",
       R"({"spec": {"ippools": {"ipv6DefaultEIP": "fd00::x"}}})",
       "spec.ippools.ipv6DefaultEIP: \"fd00::x\" is not an IP address",
       "spec.ippools.ipv6DefaultEIP: \"fd00::x\" is not an IP address"},
      {"an address in two gateways; twice in one is merged",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.55-10.6.1.56", "10.6.1.56"]}}})",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.55", "10.6.1.56", "10.6.2.7"],
           "ipv6": ["fd00::55-fd00::57"]}}})",
       "spec.ippools.ipv4[2]: 10.6.2.7 is in the pool of EgressGateway other",
       "spec.ippools.ipv4[2]: 10.6.2.7 is in the pool of EgressGateway other"},
      {"a family added to a gateway born without it",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.55-10.6.1.57"], "ipv6": null,
           "ipv6DefaultEIP": null}}})",
       "", "", "a family cannot be added",
       R"({"spec": {"ippools": {"ipv6": null, "ipv6DefaultEIP": null}}})"},
      {"an assigned address taken out of the pool",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.56"], "ipv6": ["fd00::55"]}}})",
       R"({"spec": {"ippools": {"ipv4": ["10.6.1.55"], "ipv4DefaultEIP": "10.6.1.55",
           "ipv6": ["fd00::56"], "ipv6DefaultEIP": "fd00::56"}}})",
       "", "spec.ippools.ipv4: 10.6.1.56 is used by policy shop/user"},
      {"one default of a pair without the other; the stored one stays",
       R"({"spec": {"ippools": {"ipv4DefaultEIP": null, "ipv6DefaultEIP": null}}})",
       R"({"spec": {"ippools": {"ipv6DefaultEIP": null}}})",
       "spec.ippools.ipv6DefaultEIP: empty, while the other", ""},
      {"a field that there is not", "", R"({"spec": {"ippool": {}}})", "spec.ippool: unknown field",
       "spec.ippool: unknown field"},
      {"a value of another type", "", R"({"spec": {"ippools": {"ipv4": "10.6.1.56"}}})",
       "spec.ippools.ipv4: \"10.6.1.56\": want a list",
       "spec.ippools.ipv4: \"10.6.1.56\": want a list"},
  };
  const char* another = R"({"spec": {"allowedNamespaces": {"matchLabels": {"a": "b"}}}})";
  for (const Line& line : lines) {
    check(line, own_gateway, another);
    store.put(own_gateway(line.from));
    expect(store.update(own_gateway(line.good)), "");
  }
}

// Each beside two good entries.
TEST_F(EveryLine, EntriesOfPools) {
  const std::pair<const char*, const char*> entries[] = {
      {"0.0.0.0", "unspecified"},
      {"127.0.0.1", "loopback"},
      {"169.254.1.1", "link-local"},
      {"224.0.0.1", "multicast"},
      {"255.255.255.255", "broadcast"},
      {"240.0.0.1", "reserved"},
      {"10.6.1.0-240.0.0.1", "cannot be a source"},
      {"::ffff:10.6.1.57", "write 10.6.1.57"},
      {"10.6.1.057", "leading zeros"},
      {"10.6.1", "is not an IP address"},
      {"fd00::57", "is not IPv4"},
      {"10.6.1.58-10.6.1.57", "write 10.6.1.57-10.6.1.58"},
      {"10.6.1.57-", "is not a range"},
      {"10.6.1.57-fd00::1", "10.6.1.57-fd00::1"},
      {"10.6.1.0/33", "from 0 to 32"},
      {"10.6.1.0/", "10.6.1.0/"},
      {"10.6.1.21", "belongs to the address of node n1"},
      {"10.6.1.22", "the address of node n2"},
      {"10.244.1.7", "belongs to the pod CIDR of node n1"},
      {"10.244.2.7", "the pod CIDR of node n2"},
      {"10.96.0.7", "belongs to the service range"},
      {"172.31.0.7", "belongs to the tunnel's subnet"},
  };
  for (const auto& [entry, why] : entries) {
    SCOPED_TRACE(entry);
    json bad = own_gateway("");
    bad["spec"]["ippools"]["ipv4"].push_back(entry);
    for (const bool update : {false, true}) {
      const AdmitAnswer answer = update ? store.update(bad) : store.create(bad);
      EXPECT_THAT(answer.denials, Contains(AllOf(HasSubstr("spec.ippools.ipv4[2]: "),
                                                 HasSubstr(entry), HasSubstr(why))))
          << (update ? "update" : "create");
    }
    store.put(bad);
    expect(store.update(patched(bad, R"({"metadata": {"labels": {"a": "b"}}})")), "");
    expect(store.remove(bad), "");
    store.put(own_gateway(""));
  }
  // Host bits are normalised; a /31 leaves out nothing; extraCidr may hold the EIPs.
  for (const char* entry : {"10.6.1.57/32", "10.6.1.57"}) {
    json good = own_gateway("");
    good["spec"]["ippools"]["ipv4"].push_back(entry);
    good["spec"]["ippools"]["ipv6"].push_back("fd00::57");
    expect(store.create(good), "");
    expect(store.update(good), "");
  }
  const char* bits = R"({"spec": {"ippools": {"ipv4": ["10.6.1.57/31"]}}})";
  EXPECT_THAT(store.create(own_gateway(bits)).warnings, Contains(HasSubstr("10.6.1.56/31")));
  EXPECT_THAT(store.update(own_gateway(bits)).warnings, Contains(HasSubstr("10.6.1.56/31")));
}

TEST_F(EveryLine, FamilySwitchedOff) {
  store.settings.enable_ipv6 = false;
  check({"a pool of a family that is switched off",
         R"({"spec": {"ippools": {"ipv6": null, "ipv6DefaultEIP": null}}})",
         R"({"spec": {"ippools": {"ipv4": ["10.6.1.55-10.6.1.57"], "ipv6": ["fd00::55-fd00::57"],
             "ipv4DefaultEIP": null, "ipv6DefaultEIP": null}}})",
         "spec.ippools.ipv6: fd00::55-fd00::57: IPv6 is switched off",
         "spec.ippools.ipv6: fd00::55-fd00::57: IPv6 is switched off"},
        own_gateway, R"({"spec": {"allowedNamespaces": {"matchLabels": {"a": "b"}}}})");
}

TEST_F(EveryLine, Policies) {
  const Line lines[] = {
      {"a gateway that is being deleted", "", R"({"spec": {"egressGatewayName": "leaving"}})",
       "spec.egressGatewayName: EgressGateway leaving is being deleted", kFixed},
      {"egressGatewayName", R"({"spec": {"egressGatewayName": "other"}})",
       R"({"spec": {"egressGatewayName": "other"}})", "",
       "spec.egressGatewayName: \"other\": cannot be changed, it is \"egw1\""},
      {"useNodeIP", "", R"({"spec": {"egressIP": {"useNodeIP": true}}})", "",
       "spec.egressIP.useNodeIP: \"true\": cannot be changed, it is \"false\""},
      {"useNodeIP taken back", "", R"({"spec": {"egressIP": {"useNodeIP": false}}})", "",
       "spec.egressIP.useNodeIP: \"false\": cannot be changed, it is \"true\"",
       R"({"spec": {"egressIP": {"useNodeIP": true}}})"},
      {"egressIP.ipv4", "", R"({"spec": {"egressIP": {"ipv4": "10.6.1.55"}}})", "",
       "spec.egressIP.ipv4: \"10.6.1.55\": cannot be changed, it is \"10.6.1.56\"",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1.56"}}})"},
      {"egressIP.ipv6", "", R"({"spec": {"egressIP": {"ipv6": "fd00::56"}}})", "",
       "spec.egressIP.ipv6: \"fd00::56\": cannot be changed"},
      {"allocatorPolicy", "", R"({"spec": {"egressIP": {"allocatorPolicy": "rr"}}})", "",
       "spec.egressIP.allocatorPolicy: \"rr\": cannot be changed, it is \"default\""},
      {"useNodeIP with an EIP", R"({"spec": {"egressIP": {"useNodeIP": true}}})",
       R"({"spec": {"egressIP": {"useNodeIP": true, "ipv4": "10.6.1.55"}}})",
       "spec.egressIP: useNodeIP: true with 10.6.1.55",
       "spec.egressIP: useNodeIP: true with 10.6.1.55"},
      {"an EIP that does not parse", R"({"spec": {"egressIP": {"ipv4": "10.6.1.55"}}})",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1"}}})",
       "spec.egressIP.ipv4: \"10.6.1\" is not an IP address", kFixed},
      {"an EIP that is not in the pool", R"({"spec": {"egressIP": {"ipv6": "fd00::55"}}})",
       R"({"spec": {"egressIP": {"ipv6": "fd00::99"}}})",
       "spec.egressIP.ipv6: fd00::99 is not in the IPv6 pool of EgressGateway egw1", kFixed},
      {"an EIP of the wrong family", "", R"({"spec": {"egressIP": {"ipv4": "fd00::55"}}})",
       "spec.egressIP.ipv4: fd00::55 is not IPv4", kFixed},
      {"an EIP that cannot be a source", "", R"({"spec": {"egressIP": {"ipv4": "127.0.0.1"}}})",
       "spec.egressIP.ipv4: 127.0.0.1 is loopback", kFixed},
      {"two addresses that are not a pair",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1.56", "ipv6": "fd00::55"}}})",
       R"({"spec": {"egressIP": {"ipv4": "10.6.1.55", "ipv6": "fd00::55"}}})",
       "spec.egressIP: 10.6.1.55 and fd00::55 are not a pair", kFixed},
      {"a bad destination; host bits are normalised", R"({"spec": {"destSubnet": ["1.1.1.1/8"]}})",
       R"({"spec": {"destSubnet": ["1.1.1.1", "1.1.1.0/40"]}})",
       "spec.destSubnet[1]: \"1.1.1.0/40\"", "spec.destSubnet[1]: \"1.1.1.0/40\""},
      {"a bad subnet of pods",
       R"({"spec": {"appliedTo": {"podSelector": null, "podSubnet": ["10.244.1.0/24"]}}})",
       R"({"spec": {"appliedTo": {"podSelector": null, "podSubnet": ["10.244.1.0-10.244.1.9"]}}})",
       "spec.appliedTo.podSubnet[0]: \"10.244.1.0-10.244.1.9\"",
       "spec.appliedTo.podSubnet[0]: \"10.244.1.0-10.244.1.9\""},
      {"applied to nobody", R"({"spec": {"appliedTo": {"podSelector": {}}}})",
       R"({"spec": {"appliedTo": {"podSelector": null, "podSubnet": []}}})",
       "spec.appliedTo: neither", "spec.appliedTo: neither"},
      {"both podSelector and podSubnet", "",
       R"({"spec": {"appliedTo": {"podSubnet": ["10.244.1.0/24"]}}})",
       "spec.appliedTo: podSelector and podSubnet (10.244.1.0/24)",
       "spec.appliedTo: podSelector and podSubnet (10.244.1.0/24)"},
      {"a gateway that does not exist waits", "", R"({"spec": {"egressGatewayName": "later"}})", "",
       kFixed},
      {"an empty pool, unless useNodeIP",
       R"({"spec": {"egressGatewayName": "empty", "egressIP": {"useNodeIP": true}}})",
       R"({"spec": {"egressGatewayName": "empty"}})", "EgressGateway empty has no addresses",
       kFixed},
      {"a field that there is not", "", R"({"spec": {"egressIP": {"ipV4": "10.6.1.55"}}})",
       "did you mean spec.egressIP.ipv4?", "did you mean spec.egressIP.ipv4?"},
      {"a value of another type", R"({"spec": {"priority": -5}})", R"({"spec": {"priority": 1.5}})",
       "spec.priority: number 1.5: want a whole number",
       "spec.priority: number 1.5: want a whole number"},
  };
  for (const Line& line : lines) {
    check(line, policy, R"({"spec": {"priority": 77}})");
    check(line, cluster_policy, R"({"spec": {"priority": 77}})");
  }
  const char* by_namespace = R"({"spec": {"appliedTo": {"podSelector": null,
      "namespaceSelector": {"matchLabels": {"a": "b"}}}}})";
  check({"namespaceSelector in a namespace", "", by_namespace,
         "spec.appliedTo.namespaceSelector: ", "spec.appliedTo.namespaceSelector: "},
        policy, R"({"spec": {"priority": 77}})");
  check({"namespaceSelector alone", by_namespace, by_namespace, "", ""}, cluster_policy,
        R"({"spec": {"priority": 77}})");
}

TEST_F(EveryLine, ClusterInfo) {
  const json bad = cluster_info(R"({"spec": {"extraCidr": ["10.0.0.0/8", "10.0.0.0/33"]}})");
  expect(store.create(cluster_info()), "");
  expect(store.create(bad), "spec.extraCidr[1]: \"10.0.0.0/33\"");
  expect(store.update(bad), "spec.extraCidr[1]: \"10.0.0.0/33\"");
  expect(store.update(cluster_info(R"({"spec": {"extraCidr": ["10.0.0.0/8"]}})")), "");
  expect(store.remove(cluster_info()), "metadata.name: \"default\"");
  store.put(bad);
  expect(store.update(patched(bad, R"({"metadata": {"labels": {"a": "b"}}})")), "");
}

// Warned, not denied.
TEST_F(EveryLine, Warnings) {
  const auto warned = [this](const json& from, const json& to, const char* warning) {
    store.put(from);
    for (const AdmitAnswer& answer : {store.create(to), store.update(to)}) {
      expect(answer, "");
      EXPECT_THAT(answer.warnings, Contains(HasSubstr(warning)));
    }
    store.put(from);
  };
  warned(own_gateway(""), own_gateway(R"({"spec": {"nodeSelector": {"policy": "doing"}}})"),
         "spec.nodeSelector.policy: \"doing\" has no effect");
  warned(own_gateway(""),
         own_gateway(R"({"spec": {"nodeSelector": {"selector": {"matchLabels": {"a": "b"}}}}})"),
         "spec.nodeSelector.selector: matches no node now");
  for (const auto make : {policy, cluster_policy}) {
    warned(make(""), make(R"({"spec": {"destSubnet": ["1.1.1.1", "10.96.1.0/24"]}})"),
           "spec.destSubnet[1]: 10.96.1.0/24 has no effect: it lies in the service range");
    warned(make(R"({"spec": {"egressIP": {"useNodeIP": true, "allocatorPolicy": "rr"}}})"),
           make(R"({"spec": {"egressIP": {"useNodeIP": true, "allocatorPolicy": "rr"},
                             "priority": 3}})"),
           "spec.egressIP.allocatorPolicy: rr has no effect beside useNodeIP");
  }
  const AdmitAnswer used = store.remove(own_gateway(""));
  expect(used, "");
  EXPECT_THAT(used.warnings, Contains(HasSubstr("shop/user")));
}

}  // namespace
}  // namespace egw::core
