// EgressClusterInfo: the cluster's own prefixes.
#include <gmock/gmock.h>

#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

using Addresses = model::EgressClusterInfo::Addresses;

TEST(PlanClusterInfo, TheLeaderMakesDefaultFromTheSettings) {
  Cluster c;
  c.settings.pod_cidr_mode = "";
  c.settings.detect_node_ip = false;
  c.nodes(1);
  c.world.nodes["n1"].pod_cidrs = {"10.244.0.0/24"};
  c.world.nodes["n1"].internal_ips = {"192.0.2.1"};
  c.settle();
  ASSERT_TRUE(c.world.cluster_infos.contains("default"));
  EXPECT_EQ(c.world.cluster_infos["default"].spec.pod_cidr_mode, "");
  EXPECT_FALSE(c.world.cluster_infos["default"].spec.node_ip);
  EXPECT_TRUE(c.info().present);
  EXPECT_TRUE(c.info().pod_cidr.empty());
  EXPECT_TRUE(c.info().node_ip.empty());
}

TEST(PlanClusterInfo, PrefixesFromNodesAndExtra) {
  Cluster c;
  c.settings.extra_cidr = {"172.20.1.2/16", "FD33::/64"};
  c.nodes(2);
  c.world.nodes["n1"].pod_cidrs = {"10.244.1.0/24", "fd00:10:244:1::/64"};
  c.world.nodes["n1"].internal_ips = {"192.0.2.1", "2001:DB8::1"};
  c.settle();
  c.world.cluster_infos["default"].spec.extra_cidr = {"10.99.0.0/16", "172.20.0.0/16", "bad"};
  c.settle();
  const auto& s = c.info();
  EXPECT_EQ(s.pod_cidr_mode, "k8s");
  EXPECT_EQ(s.pod_cidr.at("n1"), (Addresses{{"10.244.1.0/24"}, {"fd00:10:244:1::/64"}}));
  EXPECT_FALSE(s.pod_cidr.contains("n2"));
  EXPECT_EQ(s.node_ip.at("n1"), (Addresses{{"192.0.2.1"}, {"2001:db8::1"}}));
  EXPECT_EQ(s.extra_cidr, (std::vector<std::string>{"10.99.0.0/16", "172.20.0.0/16", "fd33::/64"}));
  c.world.cluster_infos["default"].spec.pod_cidr_mode = "calico";
  c.settle();
  EXPECT_TRUE(c.info().pod_cidr.empty());
  EXPECT_EQ(c.info().pod_cidr_mode, "calico");
}

TEST(PlanClusterInfo, CalicosPoolsWhereTheStoreHasThem) {
  Cluster c;
  c.nodes(1);
  c.world.nodes["n1"].pod_cidrs = {"10.244.1.0/24"};
  c.settle();
  EXPECT_EQ(c.info().pod_cidr_mode, "k8s");
  c.world.ip_pools["pool"].cidrs = {"192.168.0.0/16"};
  c.world.ip_pools["six"].cidrs = {"FD44::/48"};
  c.world.ip_pools_known = true;
  c.settle();
  EXPECT_EQ(c.info().pod_cidr_mode, "calico");
  const std::map<std::string, Addresses> pools{{"pool", {{"192.168.0.0/16"}, {}}},
                                               {"six", {{}, {"fd44::/48"}}}};
  EXPECT_EQ(c.info().pod_cidr, pools);
  // A new leader that has not read them yet takes none of them away.
  c.world.ip_pools.clear();
  c.world.ip_pools_known = false;
  c.settle();
  EXPECT_EQ(c.info().pod_cidr, pools);
  c.world.cluster_infos["default"].spec.pod_cidr_mode = "k8s";  // at a hand's change
  c.settle();
  EXPECT_EQ(c.info().pod_cidr.size(), 1U);
  EXPECT_TRUE(c.info().pod_cidr.contains("n1"));
  c.world.cluster_infos["default"].spec.pod_cidr_mode = "auto";
  c.world.ip_pools_known = true;  // Calico is gone
  c.settle();
  EXPECT_EQ(c.info().pod_cidr_mode, "k8s");
}

// Until the cluster's own prefixes are known, an empty destSubnet waits and says so.
TEST(PlanClusterInfo, CalicoWithoutAPoolIsNotKnowingThePrefixes) {
  Cluster c;
  c.nodes(1);
  c.world.nodes["n1"].pod_cidrs = {"10.244.1.0/24"};
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "all", "g");
  c.policy("ns", "some", "g").spec.dest_subnet = {"203.0.113.0/24"};
  c.remembers = true;
  c.start();
  const auto told = [&c](const model::Conditions& conditions) {
    const auto* found = find_condition(conditions, "ClusterPrefixesUnknown");
    return found == nullptr ? "" : found->message;
  };
  EXPECT_TRUE(c.info().prefixes_known());
  EXPECT_EQ(told(c.info().conditions), "");
  c.world.cluster_infos["default"].spec.pod_cidr_mode = "calico";
  touch(c.world, c.world.cluster_infos["default"].meta);
  c.settle();
  EXPECT_FALSE(c.info().prefixes_known());
  EXPECT_THAT(told(c.info().conditions), testing::HasSubstr("no IPPool is there"));
  EXPECT_EQ(told(c.status("all").conditions), told(c.info().conditions));
  EXPECT_EQ(told(c.status("some").conditions), "");
  EXPECT_EQ(c.count("ClusterPrefixesUnknown"), 1);
  c.world.ip_pools["bad"].cidrs = {"x"};
  c.world.ip_pools_known = true;
  c.settle();
  EXPECT_FALSE(c.info().prefixes_known());
  EXPECT_THAT(told(c.status("all").conditions),
              testing::HasSubstr("no IPPool has a valid spec.cidr (bad)"));
  c.world.ip_pools["good"].cidrs = {"192.168.0.0/16"};
  c.settle();
  EXPECT_TRUE(c.info().prefixes_known());
  EXPECT_EQ(told(c.info().conditions), "");
  EXPECT_EQ(told(c.status("all").conditions), "");
  EXPECT_EQ(c.reason("all"), "Allocated");
  const auto* left_out = find_condition(c.info().conditions, "InvalidIPPool");
  ASSERT_NE(left_out, nullptr);
  EXPECT_THAT(left_out->message, testing::HasSubstr("IPPool bad"));
  c.world.ip_pools.erase("bad");
  c.settle();
  EXPECT_EQ(find_condition(c.info().conditions, "InvalidIPPool"), nullptr);
}

TEST(PlanClusterInfo, AutoWithAnUnusablePoolWaits) {
  Cluster c;
  c.nodes(1);
  c.world.nodes["n1"].pod_cidrs = {"10.244.1.0/24"};
  c.start();
  ASSERT_TRUE(c.info().prefixes_known());
  c.world.ip_pools["pool2"].cidrs = {};
  c.world.ip_pools_known = true;
  c.settle();
  EXPECT_EQ(c.info().pod_cidr_mode, "calico");
  EXPECT_FALSE(c.info().prefixes_known());
  c.world.ip_pools.clear();
  c.settle();
  EXPECT_TRUE(c.info().prefixes_known());
}

TEST(PlanClusterInfo, PrefixesThatCoverEverythingAreTold) {
  Cluster c;
  c.nodes(1);
  c.start();
  const auto told = [&c](std::vector<std::string> extra) {
    c.world.cluster_infos["default"].spec.extra_cidr = std::move(extra);
    touch(c.world, c.world.cluster_infos["default"].meta);
    c.settle();
    const auto* found = find_condition(c.info().conditions, "NothingSteered");
    return found == nullptr ? "" : found->message.substr(0, found->message.find(':'));
  };
  EXPECT_EQ(told({"10.0.0.0/8", "0.0.0.0/1"}), "");
  EXPECT_EQ(told({"0.0.0.0/0"}),
            "the cluster's own prefixes cover every IPv4 address, so no policy steers any such "
            "packet");
  EXPECT_EQ(c.count("NothingSteered"), 1);
  EXPECT_THAT(told({"0.0.0.0/1", "128.0.0.0/1", "::/0"}), testing::HasSubstr("IPv4 and IPv6"));
  EXPECT_EQ(told({}), "");
  c.settings.enable_ipv6 = false;
  EXPECT_EQ(told({"::/0"}), "");
}

TEST(PlanClusterInfo, TheRangeOfServicesFollowsTheStoreAndTheSwitch) {
  Cluster c;
  c.nodes(1);
  c.world.service_cidrs["kubernetes"].cidrs = {"10.96.0.0/16", "fd00:10:96::/112"};
  c.settle();
  EXPECT_EQ(c.info().cluster_ip, Addresses{}) << "not all are known yet";
  c.world.service_cidrs_known = true;
  c.settle();
  const Addresses both{{"10.96.0.0/16"}, {"fd00:10:96::/112"}};
  EXPECT_EQ(c.info().cluster_ip, both);
  c.world.service_cidrs_known = false;
  c.settle();
  EXPECT_EQ(c.info().cluster_ip, both);
  c.world.cluster_infos["default"].spec.cluster_ip = false;
  c.settle();
  EXPECT_EQ(c.info().cluster_ip, Addresses{});
  c.world.cluster_infos["default"].spec.cluster_ip = true;
  c.world.service_cidrs_known = true;
  c.settle();
  EXPECT_EQ(c.info().cluster_ip, both);
}

TEST(PlanClusterInfo, APeerNeedsAnUnderlayAddress) {
  Cluster c;
  c.nodes(2);
  c.settle();
  EXPECT_TRUE(c.info().peers.empty());
  c.beat("n2");
  c.world.nodes["n2"].pod_cidrs = {"10.244.2.0/24"};
  c.settle();
  ASSERT_EQ(c.info().peers.size(), 1U);
  EXPECT_EQ(c.info().peers[0].name, "n2");
  EXPECT_EQ(c.info().peers[0].pod_cidrs, (std::vector<std::string>{"10.244.2.0/24"}));
}

// All agents read the tables: where nodes come one after the other, they are written together. What
// else is in there does not wait.
TEST(PlanClusterInfo, TablesWaitWhereTheyWereWrittenAMomentAgo) {
  Cluster c;
  c.nodes(2);
  c.start();
  c.live(2000);
  c.input.held_infos["default"] = c.input.now_ms + 1000;
  c.tunnel("n1").status.parent.ipv4 = "192.168.0.99";
  const core::Plan held = c.step();
  EXPECT_NE(c.info().peers.at(0).underlay_v4, "192.168.0.99");
  EXPECT_EQ(held.wake_ms, c.input.held_infos["default"]);
  c.settings.extra_cidr = {"198.18.0.0/15"};
  c.settle();
  EXPECT_EQ(c.info().peers.at(0).underlay_v4, "192.168.0.99") << "it goes with the rest";
  c.tunnel("n1").status.parent.ipv4 = "192.168.0.98";
  c.input.held_infos["default"] = c.input.now_ms;
  c.settle();
  EXPECT_EQ(c.info().peers.at(0).underlay_v4, "192.168.0.98");
}

TEST(PlanClusterInfo, ObjectsOfOtherNamesAreLeftAlone) {
  Cluster c;
  c.nodes(1);
  c.world.cluster_infos["peers-x"].meta.name = "peers-x";
  c.world.cluster_infos["peers-01"].meta.name = "peers-01";
  c.start();
  EXPECT_TRUE(c.world.cluster_infos.contains("peers-x"));
  EXPECT_TRUE(c.world.cluster_infos.contains("peers-01"));
}

}  // namespace
}  // namespace egw::test
