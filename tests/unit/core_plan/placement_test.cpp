// Which node owns an EIP, and what the gateway's status says of it.
#include <gmock/gmock.h>

#include <map>

#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

using testing::HasSubstr;

std::map<std::string, int> loads(const Cluster& c) {
  std::map<std::string, int> out;
  for (const auto& [name, n] : c.world.nodes) out[name] = 0;
  for (const auto& [name, g] : c.world.gateways) {
    for (const auto& n : g.status.node_list) out[n.name] += static_cast<int>(n.eips.size());
  }
  return out;
}

TEST(PlanPlacement, DocumentationManifestFailsOver) {
  Cluster c;
  c.nodes(3);
  c.gateway("egw", {"10.6.1.55", "10.6.1.56"}, {"fd00::55", "fd00::56"}, "10.6.1.56", "fd00::55");
  c.policy("ns", "p", "egw");
  c.start();
  EXPECT_EQ(c.status("p").ipv4, "10.6.1.56");
  EXPECT_EQ(c.status("p").ipv6, "fd00::55");
  EXPECT_EQ(c.status("p").node, "n1");
  c.live(14000, {"n1"});
  EXPECT_EQ(c.owner("egw", "10.6.1.56"), "n1");
  c.live(3000, {"n1"});
  EXPECT_EQ(c.owner("egw", "10.6.1.56"), "n2");
  EXPECT_EQ(c.status("p").node, "n2");
  EXPECT_EQ(c.world.gateways["egw"].status.node_list[0].status, "HeartbeatTimeout");
  ASSERT_EQ(c.moves.size(), 1U);
  EXPECT_EQ(c.moves[0].from, "n1");
  EXPECT_EQ(c.moves[0].to, "n2");
  EXPECT_EQ(c.moves[0].why, "HeartbeatTimeout");
  EXPECT_EQ(c.moves[0].eip, "10.6.1.56/fd00::55");
  EXPECT_EQ(c.moves[0].epoch, 2U);
  EXPECT_EQ(c.eip("egw", "fd00::55")->moving_from, "");
  EXPECT_THAT(c.condition("egw", "LastMove")->message,
              HasSubstr("10.6.1.56/fd00::55 from n1 to n2 (HeartbeatTimeout)"));
  c.live(20000);  // the old owner is back: no failback
  EXPECT_EQ(c.owner("egw", "10.6.1.56"), "n2");
  EXPECT_EQ(c.moves.size(), 1U);
}

TEST(PlanPlacement, NewEipsGoToTheNodeWithFewestTiesByName) {
  Cluster c;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1-10.0.0.9"});
  for (int i = 0; i < 7; ++i) c.rr("p" + std::to_string(i), "g");
  c.start();
  EXPECT_EQ(loads(c), (std::map<std::string, int>{{"n1", 3}, {"n2", 2}, {"n3", 2}}));
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n1");
  EXPECT_EQ(c.owner("g", "10.0.0.2"), "n2");
  EXPECT_EQ(c.owner("g", "10.0.0.3"), "n3");
  c.gateway("h", {"10.1.0.1"});
  c.policy("ns", "q", "h");
  c.settle();
  EXPECT_EQ(c.owner("h", "10.1.0.1"), "n2") << "counts over all gateways";
}

TEST(PlanPlacement, TheEipsOfALostNodeSpread) {
  Cluster c;
  c.nodes(4);
  c.gateway("g", {"10.0.0.1-10.0.0.12"});
  for (int i = 0; i < 12; ++i) c.rr("p" + std::to_string(i), "g");
  c.start();
  c.live(17000, {"n2"});
  EXPECT_EQ(loads(c), (std::map<std::string, int>{{"n1", 4}, {"n2", 0}, {"n3", 4}, {"n4", 4}}));
}

TEST(PlanPlacement, AFailoverIsOneWritePerGateway) {
  Cluster c;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1-10.0.0.30"});
  for (int i = 0; i < 30; ++i) c.rr("p" + std::to_string(i), "g");
  c.start();
  c.live(15000, {"n1"});
  c.pass(1000);
  c.beat("n2");
  c.beat("n3");
  const core::Plan p = c.step();
  int gateways = 0;
  bool policy_seen = false;
  for (const core::Write& w : p.writes) {
    if (std::holds_alternative<core::WriteGateway>(w)) {
      ++gateways;
      EXPECT_FALSE(policy_seen) << "policies follow";
    }
    policy_seen = policy_seen || std::holds_alternative<core::WritePolicy>(w);
  }
  EXPECT_EQ(gateways, 1);
  EXPECT_TRUE(policy_seen);
  EXPECT_EQ(p.moves.size(), 10U);
}

TEST(PlanPlacement, InterruptedAnywhereTheNextPlanDoesTheRest) {
  Cluster whole;
  const auto build = [](Cluster& c) {
    c.nodes(3);
    c.gateway("g", {"10.0.0.1-10.0.0.9"});
    c.gateway("h", {"10.1.0.1-10.1.0.9"});
    for (int i = 0; i < 6; ++i) c.rr("p" + std::to_string(i), i % 2 == 0 ? "g" : "h");
    c.start();
    c.live(15000, {"n1"});
    c.pass(1000);
    c.beat("n2");
    c.beat("n3");
  };
  build(whole);
  const std::size_t writes = whole.step().writes.size();
  whole.settle();
  ASSERT_GT(writes, 3U);
  for (std::size_t done = 0; done < writes; ++done) {
    Cluster c;
    build(c);
    c.input.world = &c.world;
    c.input.settings = &c.settings;
    core::observe(c.input);
    core::Plan cut = core::plan(c.input);
    cut.writes.resize(done);
    EXPECT_EQ(apply_plan(c.world, cut), "");
    c.settle();
    for (const auto& [key, p] : whole.world.policies) {
      EXPECT_EQ(c.world.policies[key].status.node, p.status.node) << done;
      EXPECT_EQ(c.world.policies[key].status.ipv4, p.status.ipv4) << done;
    }
  }
}

TEST(PlanPlacement, AnEmptySelectorMatchesNothing) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1"}).spec.node_selector = {};
  c.policy("ns", "a", "g");
  c.start();
  EXPECT_TRUE(c.world.gateways["g"].status.node_list.empty());
  EXPECT_EQ(c.world.gateways["g"].status.unplaced.size(), 1U);
  EXPECT_EQ(c.condition("g", "Ready")->reason, "NoNodeSelected");
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1");
  EXPECT_EQ(c.status("a").node, "");
}

TEST(PlanPlacement, NodeListHasEverySelectedNodeWithItsPhase) {
  Cluster c;
  c.nodes(4);
  c.node("plain", {});
  c.gateway("g", {"10.0.0.1"});
  c.start();
  c.tunnel("n2").status.phase = model::TunnelPhase::kFailed;
  c.world.nodes["n3"].ready = false;
  c.settle();
  std::map<std::string, std::string> seen;
  for (const auto& n : c.world.gateways["g"].status.node_list) seen[n.name] = n.status;
  EXPECT_EQ(seen, (std::map<std::string, std::string>{
                      {"n1", "Ready"}, {"n2", "Failed"}, {"n3", "NodeNotReady"}, {"n4", "Ready"}}));
}

TEST(PlanPlacement, AnAgentThatSaysFailedLosesItsEipsAtOnce) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  c.tunnel("n1").status.phase = model::TunnelPhase::kFailed;
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  EXPECT_EQ(c.moves.at(0).why, "Failed");
}

TEST(PlanPlacement, ANodeThatLeavesTheSelectorGivesItsEipsAwayPlanned) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  c.world.nodes["n1"].meta.labels.clear();
  c.step();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "n1");
  EXPECT_EQ(c.moves.at(0).why, "NodeNotSelected");
}

TEST(PlanPlacement, UnplacedUntilANodeIsReady) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.settle();  // no agent yet
  ASSERT_EQ(c.world.gateways["g"].status.unplaced.size(), 1U);
  EXPECT_EQ(c.world.gateways["g"].status.unplaced[0].ipv4, "10.0.0.1");
  c.beat("n1");
  c.settle();
  EXPECT_EQ(c.status("a").node, "n1");
  EXPECT_TRUE(c.world.gateways["g"].status.unplaced.empty());
  EXPECT_EQ(c.eip("g", "10.0.0.1")->epoch, 1U);
}

// A node that has lost the interface of one network serves the others as before.
TEST(PlanPlacement, ALostSubnetMovesItsEipsAndNothingElse) {
  Cluster c;
  c.nodes(3);
  c.gateway("a", {"10.0.0.1-10.0.0.4"});
  c.gateway("b", {"10.1.0.1-10.1.0.3"});
  for (const char* name : {"a1", "a2", "a3"}) c.rr(name, "a");
  for (const char* name : {"b1", "b2", "b3"}) c.rr(name, "b");
  c.start();
  const std::string node = c.owner("b", "10.1.0.1");
  const auto owners = [&] {
    return std::vector{c.owner("a", "10.0.0.1"), c.owner("a", "10.0.0.2"),
                       c.owner("a", "10.0.0.3")};
  };
  const auto before = owners();
  c.moves.clear();
  c.tunnel(node).status.lost_subnets = {"10.1.0.0/24"};
  c.settle();
  for (const char* eip : {"10.1.0.1", "10.1.0.2", "10.1.0.3"}) {
    EXPECT_NE(c.owner("b", eip), node) << eip;
    EXPECT_NE(c.owner("b", eip), "") << eip;
  }
  ASSERT_FALSE(c.moves.empty());
  EXPECT_EQ(c.moves[0].why, "SubnetLost");
  EXPECT_EQ(owners(), before);
  // On all: they stay where they are, and nobody is unserved.
  c.moves.clear();
  for (const char* name : {"n1", "n2", "n3"}) {
    c.tunnel(name).status.lost_subnets = {"10.1.0.0/24"};
  }
  c.live(60'000);
  EXPECT_TRUE(c.moves.empty());
  EXPECT_EQ(owners(), before);
  EXPECT_FALSE(c.eip("a", "10.0.0.1")->unserved);
  EXPECT_FALSE(c.eip("b", "10.1.0.1")->unserved);
  c.rr("b4", "a");
  c.settle();
  EXPECT_EQ(c.reason("b4"), "Allocated");
}

TEST(PlanPlacement, NobodyIsAskedToServeALostSubnet) {
  Cluster c;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1-10.0.0.9"});
  c.start();
  c.tunnel("n1").status.lost_subnets = {"10.0.0.0/24"};
  c.tunnel("n2").status.lost_subnets = {"nonsense", "fd00::/64"};
  c.rr("a", "g");
  c.rr("b", "g");
  c.settle();
  EXPECT_NE(c.owner("g", "10.0.0.1"), "n1");
  EXPECT_NE(c.owner("g", "10.0.0.2"), "n1");
  c.world.gateways["g"].meta.annotations = {
      {std::string(model::kMoveAnnotation), R"({"eip": "10.0.0.1", "to": "n1"})"}};
  c.settle();
  ASSERT_NE(c.condition("g", "MoveRefused"), nullptr);
  EXPECT_EQ(c.condition("g", "MoveRefused")->reason, "TargetNotReady");
}

}  // namespace
}  // namespace egw::test
