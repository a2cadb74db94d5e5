// EgressClusterInfo: the cluster's own prefixes.
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
