// The agent's rules for its uplink and for a kernel that refuses, in a cluster with a real
// controller.
#include "cluster.hpp"
#include "egw/runtime/lasting_failure.hpp"

namespace egw::test {
namespace {

using AgentUplinkTest = ClusterTest;

TEST_F(AgentUplinkTest, CarrierLossIsSaidAtOnceAndMutes) {
  start_cluster();
  const std::string old_owner = owner();
  AgentRig& rig = *agents[old_owner];
  ASSERT_TRUE(rig.announces(kEip));
  auto down = rig.uplink;
  down.carrier = false;
  rig.agent->on_uplink(down);
  EXPECT_TRUE(rig.announcer.muted) << "before anything else";
  loop.settle();
  EXPECT_EQ(phase(old_owner), "Failed");
  EXPECT_TRUE(condition_true(old_owner, "UplinkDown"));
  loop.advance(1000);
  EXPECT_EQ(owner(), other(old_owner));
  EXPECT_TRUE(agents[other(old_owner)]->announces(kEip));

  rig.agent->on_uplink(rig.uplink);
  EXPECT_FALSE(rig.announcer.muted);
  loop.settle();
  EXPECT_EQ(phase(old_owner), "Ready");
  EXPECT_FALSE(condition_true(old_owner, "UplinkDown"));
  EXPECT_FALSE(rig.announces(kEip)) << "no failback";
}

// EIPs may be on another interface than the tunnel.
TEST_F(AgentUplinkTest, EipsOfALostSubnetMoveAndStayAwayUntilItIsBack) {
  start_cluster();
  const std::string old_owner = owner();
  AgentRig& rig = *agents[old_owner];
  rig.announcer.silent_eips = {*model::Address::parse(kEip)};
  rig.announcer.lost = {{*model::Prefix::parse("10.6.1.0/24"), "eth1"},
                        {*model::Prefix::parse("192.0.2.0/24"), "eth2"}};
  rig.agent->on_ports();
  EXPECT_THAT(rig.metrics.text(), testing::HasSubstr("\negw_eips_announced 0\n"));
  loop.settle();
  EXPECT_EQ(phase(old_owner), "Ready") << "it serves others";
  EXPECT_EQ(tunnel(old_owner)["status"]["lostSubnets"], json::array({"10.6.1.0/24"}))
      << "no pool has any of the other one";
  ASSERT_TRUE(condition_true(old_owner, "SubnetLost"));
  EXPECT_THAT((*condition(old_owner, "SubnetLost"))["message"],
              testing::HasSubstr("10.6.1.0/24 was on interface eth1, which does not work"));
  loop.advance(1000);
  EXPECT_EQ(owner(), other(old_owner));
  rig.announcer.silent_eips.clear();
  kill_agent(other(old_owner));
  loop.advance(10'000);
  EXPECT_EQ(owner(), other(old_owner)) << "it could not serve it";

  rig.announcer.lost.clear();
  rig.agent->on_ports();
  loop.advance(1000);
  EXPECT_FALSE(condition_true(old_owner, "SubnetLost"));
  EXPECT_FALSE(tunnel(old_owner)["status"].contains("lostSubnets"));
  EXPECT_EQ(owner(), old_owner);
}

// The pool may be wrong, and every node alike.
TEST_F(AgentUplinkTest, AnEipWithoutAnInterfaceIsToldAndMovesNothing) {
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  rig.announcer.silent_eips = {*model::Address::parse(kEip)};
  rig.agent->on_ports();
  loop.advance(5000);
  EXPECT_EQ(phase(node), "Ready");
  EXPECT_TRUE(condition_true(node, "EipNotAnnounced"));
  EXPECT_EQ(owner(), node);
}

TEST_F(AgentUplinkTest, ANodeWithoutAnUplinkSaysHowItWasLookedFor) {
  start_cluster();
  testing::internal::CaptureStderr();
  log.set_level(runtime::LogLevel::kWarn);
  agents["g1"]->agent->on_uplink({});
  log.set_level(runtime::LogLevel::kError);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::HasSubstr("none was found by tunnelDetectMethod defaultRouteInterface"));
}

// Without an address nothing reaches the node through the tunnel: as bad as a pulled cable.
TEST_F(AgentUplinkTest, LossOfTheUnderlaysAddressIsSaidAtOnceAndMutes) {
  start_cluster();
  const std::string old_owner = owner();
  AgentRig& rig = *agents[old_owner];
  const json mac = tunnel(old_owner)["status"]["tunnel"]["mac"];
  auto bare = rig.uplink;
  bare.ipv4 = {};
  rig.agent->on_uplink(bare);
  EXPECT_TRUE(rig.announcer.muted) << "before anything else";
  loop.settle();
  EXPECT_EQ(phase(old_owner), "Failed");
  ASSERT_TRUE(condition_true(old_owner, "UplinkDown"));
  EXPECT_EQ((*condition(old_owner, "UplinkDown"))["reason"], "NoAddress");
  EXPECT_EQ(tunnel(old_owner)["status"]["tunnel"]["mac"], mac) << "the kernel's device has it";
  EXPECT_TRUE(rig.datapath.state.node.underlay) << "the kernel's state is good for its return";
  loop.advance(1000);
  EXPECT_EQ(owner(), other(old_owner));

  rig.agent->on_uplink(rig.uplink);
  EXPECT_FALSE(rig.announcer.muted);
  loop.settle();
  EXPECT_EQ(phase(old_owner), "Ready");
  EXPECT_FALSE(condition_true(old_owner, "UplinkDown"));
}

TEST_F(AgentUplinkTest, LossOfTheOtherFamilysAddressIsSaidAndMovesNothing) {
  settings.enable_ipv6 = true;
  settings.tunnel_v6 = model::Prefix::parse("fd11::/112").value();
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  rig.uplink.ipv6 = *model::Address::parse("fd00::1");
  rig.agent->on_uplink(rig.uplink);
  loop.settle();
  auto half = rig.uplink;
  half.ipv6 = {};
  rig.agent->on_uplink(half);
  loop.advance(3000);
  EXPECT_EQ(phase(node), "Ready");
  EXPECT_TRUE(condition_true(node, "UplinkFamilyLost"));
  EXPECT_EQ(owner(), node);
  rig.agent->on_uplink(rig.uplink);
  loop.settle();
  EXPECT_FALSE(condition_true(node, "UplinkFamilyLost"));
}

TEST_F(AgentUplinkTest, AnApplyThatFailsForLongIsNoGatewaysAndItsEipsMove) {
  start_cluster();
  const std::string old_owner = owner();
  AgentRig& rig = *agents[old_owner];
  const std::deque<Error> refusals(1000, Error{Errc::kInternal, "datapath", "no", 0});
  rig.datapath.errors = refusals;
  const std::int64_t timeout = settings.eip_eviction_timeout.count();
  rig.agent->apply_all();
  loop.advance(timeout / 2);
  EXPECT_EQ(phase(old_owner), "Ready") << "it may be over soon";
  EXPECT_EQ(owner(), old_owner);
  loop.advance(timeout + 2000);
  EXPECT_EQ(phase(old_owner), "Failed");
  EXPECT_EQ(owner(), other(old_owner));
  // With nobody left who can program its kernel, nothing moves any more.
  AgentRig& second = *agents[other(old_owner)];
  second.datapath.errors = refusals;
  second.agent->apply_all();
  loop.advance(3 * timeout);
  EXPECT_EQ(phase(other(old_owner)), "Failed");
  EXPECT_EQ(owner(), other(old_owner));
  rig.datapath.errors.clear();
  loop.advance(12'000);
  EXPECT_EQ(phase(old_owner), "Ready");
  EXPECT_EQ(owner(), old_owner);
}

// Some kernels refuse what only an owner has: without a memory the EIP would move for ever.
TEST_F(AgentUplinkTest, WhatFailsOnEveryOwnerDoesNotMoveEipsToAndFroForEver) {
  start_cluster();
  std::string last = owner();
  int moves = 0;
  for (int step = 0; step < 6000; ++step) {  // ten minutes
    for (const char* g : {"g1", "g2"}) {
      auto& datapath = agents[g]->datapath;
      const bool owns = owner() == g;
      if (owns && datapath.errors.empty()) {
        datapath.errors.assign(1000, Error{Errc::kInternal, "datapath", "no", 0});
        agents[g]->agent->apply_all();
      } else if (!owns) {
        datapath.errors.clear();
      }
    }
    loop.advance(100);
    if (owner() == last) continue;
    last = owner();
    ++moves;
  }
  EXPECT_GE(moves, 3) << "a failure may be a passing one";
  EXPECT_LE(moves, 16) << "at 3 s each it would be some 150";
  const std::string idle = other(last);
  EXPECT_EQ(phase(idle), "Failed");
  EXPECT_THAT((*condition(idle, "Degraded"))["message"], testing::HasSubstr("no EIPs for a while"));
}

TEST(LastingFailure, TheFirstTimeIsForgivenAndLongAgoIsForgotten) {
  runtime::LastingFailure lasting(1000);
  EXPECT_FALSE(lasting.look(999, 5000));
  EXPECT_TRUE(lasting.look(1000, 5001));
  EXPECT_FALSE(lasting.look(0, 6000));
  EXPECT_TRUE(lasting.look(1000, 8000));
  EXPECT_TRUE(lasting.look(0, 9000));
  EXPECT_EQ(lasting.held_ms(), 1000);
  EXPECT_FALSE(lasting.look(0, 10'000));
  EXPECT_TRUE(lasting.look(1000, 12'000));
  EXPECT_TRUE(lasting.look(0, 12'001));
  EXPECT_EQ(lasting.held_ms(), 2000) << "twice as long";
  EXPECT_TRUE(lasting.look(1000, 2'000'000)) << "it fails";
  EXPECT_FALSE(lasting.look(0, 2'000'001)) << "that is counted anew";
}

TEST_F(AgentUplinkTest, CustomInterfaceBySelector) {
  model::TunnelInterfaceRule rule;
  rule.node_selector = model::LabelSelector::parse_text("egress=true").value();
  rule.interface_name = "eth7";
  settings.tunnel_detect_custom = {rule};
  add_node("g1", true);
  add_node("n1", false);
  EXPECT_EQ(start_agent("g1").uplink_method, "interface=eth7");
  EXPECT_EQ(start_agent("n1").uplink_method, "defaultRouteInterface");
}

}  // namespace
}  // namespace egw::test
