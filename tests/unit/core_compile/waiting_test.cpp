// What the compiler does with policies that cannot be served as they say: prefixes of the cluster
// that are not known, no place, no word of the leader, a family without an address.
#include "compile_fixture.hpp"

namespace egw::core::test {
namespace {

TEST_F(CompileTest, EmptyDestinationWaitsForTheClustersPrefixes) {
  world.cluster_infos["default"].status.present = false;
  add_policy("app", "all", 1);
  add_policy("app", "some", 2, {"198.51.100.0/24"});
  put(world, pod("app", "a", {"10.244.1.1"}, {{"app", "all"}}));
  put(world, pod("app", "b", {"10.244.1.2"}, {{"app", "some"}}));
  EXPECT_THAT(endpoints(), ElementsAre("10.244.1.2"));
  EXPECT_THAT(reasons(), ElementsAre("all:ClusterPrefixesUnknown"));
  world.cluster_infos["default"].status.present = true;
  model::Changes changes;
  changes.cluster_infos = true;
  const auto change = compiler.update(world, changes);
  EXPECT_EQ(look_up(compiler.state(), "10.244.1.1", "203.0.113.1"), to(1));
  EXPECT_EQ(change.endpoints.size(), 1U);
  EXPECT_THAT(reasons(), IsEmpty());
}

TEST_F(CompileTest, CalicoWithoutAPoolIsNotKnowingThePrefixes) {
  auto& status = world.cluster_infos["default"].status;
  status.pod_cidr_mode = "calico";
  status.pod_cidr = {{"pool2", {}}};
  add_policy("app", "all", 1);
  put(world, pod("app", "a", {"10.244.1.1"}, {{"app", "all"}}));
  EXPECT_THAT(endpoints(), IsEmpty());
  EXPECT_THAT(reasons(), ElementsAre("all:ClusterPrefixesUnknown"));
  status.pod_cidr["pool"].ipv4 = {"10.244.0.0/16"};
  model::Changes changes;
  changes.cluster_infos = true;
  compiler.update(world, changes);
  EXPECT_EQ(look_up(compiler.state(), "10.244.1.1", "203.0.113.1"), to(1));
  EXPECT_THAT(reasons(), IsEmpty());
}

TEST_F(CompileTest, WithoutPlaceThePolicyFollowsItsFailurePolicy) {
  for (const auto* name : {"drop", "node"}) {
    auto p = policy("app", name, "gw");
    p.spec.pod_selector = labelled(std::string("app=") + name);
    if (p.meta.name == "node") p.spec.failure_policy = model::FailurePolicy::kNodeIp;
    put(world, p);
  }
  world.gateways["gw"].status.unplaced = {
      eip(1, "10.6.1.56", "fd00:6:1::56", {{"drop", "app"}, {"node", "app"}})};
  put(world, pod("app", "a", {"10.244.1.1", "fd00:244::1"}, {{"app", "drop"}}));
  put(world, pod("app", "b", {"10.244.1.2", "fd00:244::2"}, {{"app", "node"}}));
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), kDropped);
  EXPECT_EQ(look_up(state(), "fd00:244::1", "2001:db8::1"), kDropped);
  EXPECT_EQ(look_up(state(), "10.244.1.2", "203.0.113.1"), kDropped)
      << "the leader has not said that NodeIP acts";
  world.gateways["gw"].status.unplaced[0].unserved = true;
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), kDropped);
  EXPECT_EQ(look_up(state(), "10.244.1.2", "203.0.113.1"), kNodeIp);
  EXPECT_EQ(look_up(state(), "fd00:244::2", "2001:db8::1"), kNodeIp);
  world.gateways.clear();
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), kDropped) << "no gateway: no leak";
  EXPECT_EQ(look_up(state(), "fd00:244::1", "2001:db8::1"), kDropped);
}

TEST_F(CompileTest, NodeIpWaitsForTheLeadersWord) {
  auto p = policy("app", "node", "gw");
  p.spec.pod_selector.emplace();
  p.spec.failure_policy = model::FailurePolicy::kNodeIp;
  put(world, p);
  put(world, pod("app", "a", {"10.244.1.1", "fd00:244::1"}));
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), kDropped);
  p.status.conditions = {{"Allocated", false, "NoFreeEip", "", 0}};
  ++p.meta.revision;
  put(world, p);
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), kNodeIp);
  EXPECT_EQ(look_up(state(), "fd00:244::1", "2001:db8::1"), kNodeIp);
  place(p.ref(), 1);
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), to(1));
}

TEST_F(CompileTest, APolicyMadeAnewDoesNotUseItsPredecessorsEip) {
  auto p = policy("app", "web", "gw");
  p.meta.uid = "first";
  p.spec.pod_selector.emplace();
  put(world, p);
  place(p.ref(), 1);
  put(world, pod("app", "web-1", {"10.244.1.1"}));
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), to(1));
  p.meta.uid = "second";
  ++p.meta.revision;
  put(world, p);
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1").first, ActionKind::kDrop);
  world.gateways["gw"].status.node_list[0].eips.back().policies[0].uid = "";  // an older leader's
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), to(1));
  world.gateways["gw"].status.node_list[0].eips.back().policies[0].uid = "second";
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), to(1));
}

TEST_F(CompileTest, NodeIpActsWhenTheLeaderSaysThatNobodyServesTheEip) {
  add_policy("app", "web", 1);
  world.policies.at({"app", "web"}).spec.failure_policy = model::FailurePolicy::kNodeIp;
  add_policy("app", "strict", 2);
  put(world, pod("app", "a", {"10.244.1.1"}, {{"app", "web"}}));
  put(world, pod("app", "b", {"10.244.1.2"}, {{"app", "strict"}}));
  auto& nodes = world.gateways["gw"].status.node_list;
  for (auto& node : nodes) node.status = "HeartbeatTimeout";
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), to(1)) << "it may still come back";
  for (auto& node : nodes) {
    for (auto& e : node.eips) e.unserved = true;
  }
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), kNodeIp);
  EXPECT_EQ(look_up(state(), "10.244.1.2", "203.0.113.1"), to(2));
}

TEST_F(CompileTest, FamilyWithAPoolButNoAddressFollowsTheFailurePolicy) {
  auto p = policy("app", "v4only", "gw");
  p.spec.pod_selector = model::LabelSelector{};
  put(world, p);
  world.gateways["gw"].status.node_list[0].eips = {eip(1, "10.6.1.56", "", {p.ref()})};
  put(world, pod("app", "a", {"10.244.1.1", "fd00:244::1"}));
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), to(1));
  EXPECT_EQ(look_up(state(), "fd00:244::1", "2001:db8::1"), kDropped);
  EXPECT_THAT(reasons(), IsEmpty());

  world.gateways["gw"].spec.ippools.ipv6.clear();
  EXPECT_EQ(look_up(state(), "fd00:244::1", "2001:db8::1"), kAlone);
  EXPECT_THAT(endpoints(), ElementsAre("10.244.1.1"));
  EXPECT_THAT(reasons(), ElementsAre("v4only:FamilyNotCovered"));
}

}  // namespace
}  // namespace egw::core::test
