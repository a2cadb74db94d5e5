// Tunnels: one per Node, addresses and marks, phases, heartbeats, when to look again.
#include <gmock/gmock.h>

#include <set>

#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

using model::TunnelPhase;
using testing::HasSubstr;

TEST(PlanTunnels, OnePerNodeWithAddressesAndMark) {
  Cluster c;
  c.nodes(3);
  c.start();
  ASSERT_EQ(c.world.tunnels.size(), 3U);
  EXPECT_EQ(c.tunnel("n1").status.ipv4, "172.31.0.1");
  EXPECT_EQ(c.tunnel("n2").status.ipv4, "172.31.0.2");
  EXPECT_EQ(c.tunnel("n1").status.ipv6, "fd11::1");
  EXPECT_EQ(c.tunnel("n1").status.mark, "0x26000001");
  EXPECT_EQ(c.tunnel("n3").status.mark, "0x26000003");
  c.world.nodes.erase("n2");
  c.settle();
  EXPECT_FALSE(c.world.tunnels.contains("n2"));
  EXPECT_EQ(c.tunnel("n3").status.ipv4, "172.31.0.3") << "sticky";
  c.node("n9");
  c.settle();
  EXPECT_EQ(c.tunnel("n9").status.ipv4, "172.31.0.2");
  EXPECT_EQ(c.tunnel("n9").status.mark, "0x26000002");
}

TEST(PlanTunnels, NeverTheEndsOfTheSubnet) {
  Cluster c;
  c.settings.tunnel_v4 = model::Prefix::parse("172.31.0.0/30").value();
  c.settings.tunnel_v6 = model::Prefix::parse("fd11::/126").value();
  c.nodes(3);
  c.settle();
  std::set<std::string> v4;
  for (const auto& [name, t] : c.world.tunnels) v4.insert(t.status.ipv4);
  EXPECT_EQ(v4, (std::set<std::string>{"172.31.0.1", "172.31.0.2", ""}));
  EXPECT_NE(find_condition(c.tunnel("n3").status.conditions, "NoTunnelAddress"), nullptr);
  EXPECT_EQ(c.count("NoTunnelAddress"), 1);
  c.world.nodes.erase("n1");
  c.settle();
  EXPECT_EQ(c.tunnel("n3").status.ipv4, "172.31.0.1");
  EXPECT_EQ(find_condition(c.tunnel("n3").status.conditions, "NoTunnelAddress"), nullptr);
}

TEST(PlanTunnels, OnlyEnabledFamilies) {
  Cluster c;
  c.settings.enable_ipv6 = false;
  c.nodes(1);
  c.settle();
  EXPECT_EQ(c.tunnel("n1").status.ipv4, "172.31.0.1");
  EXPECT_EQ(c.tunnel("n1").status.ipv6, "");
  c.settings.enable_ipv6 = true;
  c.settings.enable_ipv4 = false;
  c.settle();
  EXPECT_EQ(c.tunnel("n1").status.ipv4, "");
  EXPECT_EQ(c.tunnel("n1").status.ipv6, "fd11::1");
}

TEST(PlanTunnels, DuplicateOrForeignAddressesAndMarksAreReplaced) {
  Cluster c;
  c.nodes(4);
  c.start();
  c.tunnel("n2").status.ipv4 = "172.31.0.1";
  c.tunnel("n3").status.ipv4 = "10.0.0.1";
  c.tunnel("n4").status.mark = "0x26000001";
  c.settle();
  EXPECT_EQ(c.tunnel("n1").status.ipv4, "172.31.0.1");
  EXPECT_EQ(c.tunnel("n2").status.ipv4, "172.31.0.2");
  EXPECT_EQ(c.tunnel("n3").status.ipv4, "172.31.0.3");
  EXPECT_EQ(c.tunnel("n1").status.mark, "0x26000001");
  EXPECT_EQ(c.tunnel("n4").status.mark, "0x26000004");
}

TEST(PlanTunnels, FinalizerOfADeletedTunnelGoes) {
  Cluster c;
  c.nodes(1);
  c.start();
  c.tunnel("n1").meta.finalizers = {std::string(model::kTunnelFinalizer)};
  c.world.nodes.erase("n1");
  c.settle();
  EXPECT_TRUE(c.world.tunnels.empty());
}

TEST(PlanTunnels, HeartbeatTimeoutIsToldInTheOldWords) {
  Cluster c;
  c.nodes(2);
  c.start();
  c.live(15000, {"n2"});
  EXPECT_EQ(c.phase("n2"), "Ready");
  c.pass(1);
  c.step();
  EXPECT_EQ(c.phase("n2"), "HeartbeatTimeout");
  ASSERT_EQ(c.count("HeartbeatTimeout"), 1);
  const auto& n = c.notices.back();
  EXPECT_EQ(n.message, "update tunnel status to HeartbeatTimeout");
  EXPECT_EQ(n.key.name, "n2");
  EXPECT_EQ(n.level, core::Notice::Level::kWarning);
  c.beat("n2");  // its agent is back and says Ready by itself
  c.settle();
  EXPECT_EQ(c.phase("n2"), "Ready");
}

TEST(PlanTunnels, WakesAtTheEarliestDeadline) {
  Cluster c;
  c.nodes(3);
  c.start();
  const std::int64_t beat_at = c.input.now_ms;
  c.pass(4000);
  c.beat("n1");
  c.beat("n2");
  c.settle();
  EXPECT_GT(c.last.wake_ms, beat_at + 15000);
  EXPECT_LE(c.last.wake_ms, beat_at + 15010);
  const std::int64_t wake = c.last.wake_ms;
  c.input.now_ms = wake - 1000;
  c.beat("n1");
  c.beat("n2");
  c.settle();
  c.input.now_ms = wake;
  c.step();
  EXPECT_EQ(c.phase("n3"), "HeartbeatTimeout");
}

TEST(PlanTunnels, TheLeadersClockDecidesNotTheAgents) {
  Cluster c;
  c.nodes(3);
  c.start();
  c.tunnel("n1").status.last_heartbeat_ms = 9'999'999'999'999;  // an hour, a year ahead
  c.live(20000, {"n1"});
  EXPECT_EQ(c.phase("n1"), "HeartbeatTimeout");
  c.tunnel("n1").status.phase = TunnelPhase::kReady;
  c.tunnel("n1").status.last_heartbeat_ms = 5;  // far behind, but it changes
  c.live(20000);
  EXPECT_EQ(c.phase("n1"), "Ready");
}

TEST(PlanTunnels, ANewLeaderWaitsAWholeTimeoutBeforeItDeclaresAnyoneDead) {
  Cluster c;
  c.nodes(3);
  c.start();
  c.pass(60000);  // nobody led for a minute
  c.input.term = 2;
  c.input.heartbeats.clear();
  c.input.watching_since_ms = c.input.now_ms;
  c.settle();
  EXPECT_EQ(c.count("HeartbeatTimeout"), 0);
  c.live(15000, {"n2"});
  EXPECT_EQ(c.phase("n2"), "Ready");
  c.live(1000, {"n2"});
  EXPECT_EQ(c.phase("n2"), "HeartbeatTimeout");
}

TEST(PlanTunnels, AfterLosingTheStoreTheLeaderWaitsAsWell) {
  Cluster c;
  c.nodes(3);
  c.start();
  c.pass(14000);
  c.input.watching_since_ms = c.input.now_ms;  // the runtime resynced just now
  c.pass(10000);
  c.step();
  EXPECT_EQ(c.count("HeartbeatTimeout"), 0);
}

TEST(PlanTunnels, NodeNotReadyAndBack) {
  Cluster c;
  c.nodes(2);
  c.start();
  c.world.nodes["n1"].ready = false;
  c.settle();
  EXPECT_EQ(c.phase("n1"), "NodeNotReady");
  EXPECT_EQ(c.count("NodeNotReady"), 1);
  c.world.nodes["n1"].ready = true;
  c.settle();
  EXPECT_EQ(c.phase("n1"), "Init");
  c.beat("n1");
  c.settle();
  EXPECT_EQ(c.phase("n1"), "Ready");
}

TEST(PlanTunnels, PhasesOfTheAgentAreLeftAlone) {
  for (const auto phase : {TunnelPhase::kPending, TunnelPhase::kInit, TunnelPhase::kFailed,
                           TunnelPhase::kHeartbeatTimeout}) {
    Cluster c;
    c.nodes(2);
    c.start();
    c.tunnel("n1").status.phase = phase;
    c.live(30000, {"n1"});
    EXPECT_EQ(c.tunnel("n1").status.phase, phase);
  }
}

}  // namespace
}  // namespace egw::test
