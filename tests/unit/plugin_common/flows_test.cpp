// Which tracked connections a change of the desired state makes wrong, and that none is forgotten
// (plugins/common/flows.hpp). No kernel.
#include "common/flows.hpp"

#include <gmock/gmock.h>

namespace egw::common {
namespace {

using Kind = Fate::Kind;

sdk::Address ip(const char* text) { return *sdk::Address::parse(text); }

const sdk::Address kPod = ip("10.244.1.10"), kOther = ip("10.244.1.11");
const sdk::Address kServer = ip("10.6.0.100"), kInside = ip("10.244.2.10");
const sdk::Address kEip = ip("10.6.1.56"), kSecond = ip("10.6.1.57"), kNode = ip("10.6.0.11");

// A gateway node n1 with one peer n2, egress ids 7 and 8, and a pod of class 1.
struct World {
  sdk::State state;
  Numbering numbers;

  World() {
    state.node.enable_ipv4 = true;
    state.node.name = "n1";
    state.node.tunnel_device = "egress.vxlan";
    state.node.parent_device = "eth0";
    state.node.underlay = state.node.parent_v4 = kNode;
    state.node.tunnel_mac = {2, 0, 0, 0, 0, 1};
    state.node.slot_mask = state.node.ct_mask = 0xff000000;
    state.node.cluster_prefixes = {*sdk::Prefix::parse("10.244.0.0/16")};
    sdk::Peer peer;
    peer.name = "n2";
    peer.underlay = ip("10.6.0.12");
    peer.mac = {2, 0, 0, 0, 0, 2};
    state.peers["n2"] = peer;
    egress(7, kEip, true);
    egress(8, kSecond, true);
    steer(7);
    state.endpoints[kPod] = 1;
  }
  void egress(std::uint32_t id, const sdk::Address& eip, bool own) {
    sdk::Egress e;
    e.id = id;
    e.kind = sdk::EgressKind::kAddress;
    e.v4 = eip;
    e.may_serve = true;
    e.owner = own ? sdk::Owner::kSelf : sdk::Owner::kPeer;
    e.owner_peer = own ? "" : "n2";
    state.egresses[id] = e;
  }
  void steer(std::uint32_t id) {
    sdk::ClassRule rule;
    rule.destination = *sdk::Prefix::parse("0.0.0.0/0");
    rule.action.kind = sdk::ActionKind::kEgress;
    rule.action.egress_id = id;
    state.classes[1] = {rule};
  }
  Plan plan() {
    Plan out;
    std::vector<ObjectFailure> failures;
    out.build(state, numbers, failures);
    EXPECT_TRUE(failures.empty());
    return out;
  }
};

Flow flow(const sdk::Address& translated, std::uint16_t zone = 0, const sdk::Address& source = kPod,
          const sdk::Address& destination = kServer) {
  return {source, destination, translated, zone};
}

std::vector<SourceChange> change(const std::string& before, const std::string& after) {
  return {{kPod, before, after}};
}

TEST(Flows, AnEgressIpThatGoesLeavesTheOldBindingForAnswers) {
  World world;
  const Plan before = world.plan();
  world.egress(7, kEip, false);
  const Plan after = world.plan();
  Unswept unswept(false);
  unswept.note(&before, after, world.state, {});
  EXPECT_TRUE(unswept.urgent());
  const auto sweep = unswept.take(after, world.state, {});
  ASSERT_TRUE(sweep);
  EXPECT_FALSE(unswept.urgent());
  const Fate fate = sweep->judge(flow(kEip));
  EXPECT_EQ(fate.kind, Kind::kRebind);
  EXPECT_EQ(fate.translated, kPod) << "by the tunnel, under its own address";
  EXPECT_EQ(fate.zone, 7);
  EXPECT_EQ(sweep->judge(flow(kPod)).kind, Kind::kKeep);
  EXPECT_EQ(sweep->judge(flow(kSecond)).kind, Kind::kRemove);
  EXPECT_EQ(sweep->judge(flow(kPod, 0, kPod, kInside)).kind, Kind::kKeep);
  EXPECT_EQ(sweep->judge(flow(kOther, 0, kOther)).kind, Kind::kKeep) << "no endpoint";
}

TEST(Flows, AnEgressIpThatComesBindsSteeredConnections) {
  World world;
  world.egress(7, kEip, false);
  const Plan before = world.plan();
  world.egress(7, kEip, true);
  const Plan after = world.plan();
  Unswept unswept(false);
  unswept.note(&before, after, world.state, {});
  const auto sweep = unswept.take(after, world.state, {});
  ASSERT_TRUE(sweep);
  const Fate fate = sweep->judge(flow(kPod));
  EXPECT_EQ(fate.kind, Kind::kRebind);
  EXPECT_EQ(fate.translated, kEip);
  EXPECT_EQ(sweep->judge(flow(kEip, 7)).kind, Kind::kRemove) << "parked by an earlier move";
  EXPECT_EQ(sweep->judge(flow(kPod, 7)).kind, Kind::kKeep);
  EXPECT_EQ(sweep->judge(flow(kEip, 7, ip("10.244.2.9"))).kind, Kind::kKeep) << "another node's";
}

TEST(Flows, AnotherAddressIsNoMove) {
  World world;
  const Plan before = world.plan();
  world.steer(8);
  const Plan after = world.plan();
  Unswept unswept(false);
  unswept.note(&before, after, world.state, change("e7", "e8"));
  const auto sweep = unswept.take(after, world.state, {});
  ASSERT_TRUE(sweep);
  EXPECT_EQ(sweep->judge(flow(kEip)).kind, Kind::kRemove);
  EXPECT_EQ(sweep->judge(flow(kSecond)).kind, Kind::kKeep);
}

TEST(Flows, WhatAFailedChangeLeftIsSweptWhenOneSucceeds) {
  World world;
  const Plan before = world.plan();
  world.steer(8);
  const Plan tried = world.plan();
  Unswept unswept(false);
  unswept.note(&before, tried, world.state, change("e7", "e8"));
  unswept.failed(tried, world.state);
  // The policy goes meanwhile. The next change is a full one that finds nothing to do.
  world.state.endpoints.clear();
  const Plan after = world.plan();
  unswept.note(nullptr, after, world.state, {});
  const auto sweep = unswept.take(after, world.state, {});
  ASSERT_TRUE(sweep);
  EXPECT_EQ(sweep->judge(flow(kEip)).kind, Kind::kRemove) << "bound before the failed change";
  EXPECT_EQ(sweep->judge(flow(kSecond)).kind, Kind::kRemove) << "bound by what of it took effect";
  EXPECT_EQ(sweep->judge(flow(kPod, 0, kPod, kInside)).kind, Kind::kKeep);
}

TEST(Flows, ARefusedEndpointIsSweptWhenItIsTaken) {
  World world;
  const Plan before = world.plan();
  world.steer(8);
  const Plan after = world.plan();
  Unswept unswept(false);
  unswept.note(&before, after, world.state, change("e7", "e8"));
  EXPECT_FALSE(unswept.take(after, world.state, {kPod}))
      << "the kernel still binds to the old address";
  unswept.note(&after, after, world.state, {});
  const auto sweep = unswept.take(after, world.state, {});
  ASSERT_TRUE(sweep);
  EXPECT_EQ(sweep->judge(flow(kEip)).kind, Kind::kRemove);
}

TEST(Flows, WaitingSweepsBecomeOne) {
  World world;
  const auto next = [&](const Plan& before, const Plan& after, const char* had, const char* has) {
    Unswept unswept(false);
    unswept.note(&before, after, world.state, change(had, has));
    return unswept.take(after, world.state, {});
  };
  const Plan seven = world.plan();
  world.steer(8);
  const Plan eight = world.plan();
  const auto waiting = next(seven, eight, "e7", "e8");
  // Away and back again: what was bound in between goes, whatever came first.
  for (int i = 0; i < 50; ++i) {
    world.steer(7);
    waiting->absorb(*next(eight, seven, "e8", "e7"));
    EXPECT_EQ(waiting->judge(flow(kSecond)).kind, Kind::kRemove);
    EXPECT_EQ(waiting->judge(flow(kEip)).kind, Kind::kKeep);
    world.steer(8);
    waiting->absorb(*next(seven, eight, "e7", "e8"));
    EXPECT_EQ(waiting->judge(flow(kEip)).kind, Kind::kRemove);
    EXPECT_EQ(waiting->judge(flow(kSecond)).kind, Kind::kKeep);
  }
  EXPECT_EQ(waiting->hint().source, kPod);
}

TEST(Flows, AnAgentThatStartsLooksForWhatItsPredecessorLeft) {
  World world;
  const Plan after = world.plan();
  Unswept unswept(false);
  unswept.note(nullptr, after, world.state, {});
  const auto sweep = unswept.take(after, world.state, {});
  ASSERT_TRUE(sweep);
  EXPECT_EQ(sweep->judge(flow(kEip)).kind, Kind::kKeep);
  EXPECT_EQ(sweep->judge(flow(kSecond)).kind, Kind::kRemove);
  EXPECT_EQ(sweep->judge(flow(kEip, 7, ip("10.244.2.9"))).kind, Kind::kKeep);
  EXPECT_EQ(sweep->judge(flow(kSecond, 7, ip("10.244.2.9"))).kind, Kind::kRemove);
  EXPECT_EQ(sweep->judge(flow(kPod, 0, kPod, kInside)).kind, Kind::kKeep) << "never ours";
}

// A service's connection to an endpoint outside, which only some datapaths judge (decision 9).
TEST(Flows, ARedirectedConnectionIsLeftAloneWhereTheRulesDo) {
  World world;
  const Plan after = world.plan();
  Flow masqueraded = flow(kSecond);
  masqueraded.redirected = true;
  for (const bool leaves : {true, false}) {
    Unswept unswept(leaves);
    unswept.note(nullptr, after, world.state, {});
    const auto sweep = unswept.take(after, world.state, {});
    ASSERT_TRUE(sweep);
    EXPECT_EQ(sweep->judge(masqueraded).kind, leaves ? Kind::kKeep : Kind::kRemove);
    EXPECT_EQ(sweep->judge(flow(kSecond)).kind, Kind::kRemove);
  }
}

TEST(Flows, AnIdThatGoesTakesItsConnections) {
  World world;
  const Plan before = world.plan();
  world.state.egresses.erase(8);
  const Plan after = world.plan();
  Unswept unswept(false);
  unswept.note(&before, after, world.state, {});
  const auto sweep = unswept.take(after, world.state, {});
  ASSERT_TRUE(sweep);
  EXPECT_EQ(sweep->judge(flow(kSecond, 8, ip("10.244.2.9"))).kind, Kind::kRemove);
  EXPECT_EQ(sweep->judge(flow(kEip, 7, ip("10.244.2.9"))).kind, Kind::kKeep);
}

}  // namespace
}  // namespace egw::common
