// What a step writes is the difference of two desired states; peers and egresses that make no sense
// fail alone.
#include "common/nftables/desired.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "support/node_state.hpp"

namespace egw::common {
namespace {

using test::addr;
using test::node_state;
using test::peer;

// Few addresses, so that egresses share them with each other and with the node.
sdk::State some_state() {
  sdk::State s = node_state();
  for (std::uint8_t i = 1; i <= 4; ++i) {
    if (*rc::gen::arbitrary<bool>()) s.peers.emplace("p" + std::to_string(i), peer(i));
  }
  for (std::uint32_t id = 1; id <= 6; ++id) {
    if (*rc::gen::inRange(0, 3) == 0) continue;
    sdk::Egress e;
    e.id = id;
    e.kind = *rc::gen::element(sdk::EgressKind::kAddress, sdk::EgressKind::kNode);
    e.owner = *rc::gen::element(sdk::Owner::kNone, sdk::Owner::kSelf, sdk::Owner::kPeer);
    if (e.owner == sdk::Owner::kPeer) e.owner_peer = "p" + std::to_string(*rc::gen::inRange(1, 5));
    e.may_serve = *rc::gen::arbitrary<bool>();
    if (e.kind == sdk::EgressKind::kAddress) {
      e.v4 = addr(*rc::gen::element<std::string>("10.6.1.1", "10.6.1.2", "10.6.0.11"));
      if (*rc::gen::arbitrary<bool>()) e.v6 = addr("fd00::1");
    }
    s.egresses[id] = e;
  }
  return s;
}

std::map<std::string, std::string> as_map(const Elements& e) { return {e.begin(), e.end()}; }

RC_GTEST_PROP(Desired, AStepWritesTheDifference, ()) {
  Numbering numbering;
  std::vector<ObjectFailure> failures;
  Desired before, after;
  before.build(some_state(), 1450, numbering, failures);
  after.build(some_state(), 1450, numbering, failures);
  const Lists old_lists = before.elements(), new_lists = after.elements();
  const Desired::Changed changed = Desired::changed(before, after);
  for (const Table t : kTables) {
    for (std::size_t d = 0; d < kDynCount; ++d) {
      const auto dyn = static_cast<Dyn>(d);
      auto kernel = as_map(old_lists.at(t, dyn));
      for (const auto& [key, data] : changed.had.at(t, dyn)) {
        RC_ASSERT(kernel.count(key) == 1U);  // the kernel would refuse to remove what is not there
        kernel.erase(key);
      }
      for (const auto& [key, data] : changed.wants.at(t, dyn)) kernel[key] = data;
      RC_ASSERT(kernel == as_map(new_lists.at(t, dyn)));
    }
  }
}

TEST(Desired, AMoveIsOneElementOfEachSetThatItConcerns) {
  sdk::State s = node_state();
  s.peers = {{"p1", peer(1)}, {"p2", peer(2)}};
  for (std::uint32_t id = 1; id <= 50; ++id) {
    sdk::Egress& e = s.egresses[id];
    e.id = id;
    e.owner = sdk::Owner::kPeer;
    e.owner_peer = "p1";
    e.v4 = sdk::Address::v4(10, 6, 2, static_cast<std::uint8_t>(id));
  }
  Numbering numbering;
  std::vector<ObjectFailure> failures;
  Desired before, after;
  before.build(s, 1450, numbering, failures);
  s.egresses[7].owner_peer = "p2";
  after.build(s, 1450, numbering, failures);
  EXPECT_TRUE(failures.empty());
  const Desired::Changed changed = Desired::changed(before, after);
  EXPECT_EQ(changed.wants.at(Table::kNetdev, Dyn::kOwnerMac),
            (Elements{{register_u32(7), register_mac(peer(2).mac)}}));
  for (const Table t : kFamilies) {
    EXPECT_EQ(changed.wants.at(t, Dyn::kSteered), changed.had.at(t, Dyn::kSteered));
    EXPECT_TRUE(changed.wants.at(t, Dyn::kPeer).empty());
  }
}

TEST(Desired, TheFixedChainsDoNotGrow) {
  sdk::State s = node_state();
  const auto chains = [&] {
    Numbering numbering;
    std::vector<ObjectFailure> failures;
    Desired d;
    d.build(s, 1450, numbering, failures);
    std::size_t n = 0;
    for (const Table t : kTables) d.each_chain(t, [&](const Chain&) { ++n; });
    return n;
  };
  const std::size_t empty = chains();
  for (std::uint8_t i = 1; i <= 200; ++i) {
    s.peers.emplace("p" + std::to_string(i), peer(i));
    s.egresses[i].id = i;
    s.egresses[i].owner = sdk::Owner::kPeer;
    s.egresses[i].owner_peer = "p" + std::to_string(i);
    sdk::ClassRule rule;
    rule.destination = sdk::Prefix(sdk::Address::v4(198, 51, i, 0), 24);
    rule.action = {sdk::ActionKind::kEgress, i};
    s.classes[i] = {rule};
  }
  EXPECT_EQ(chains(), empty + 1);  // the one that asks for /24
}

TEST(Desired, MoreThanThreeHundredPeersHaveNumbers) {
  sdk::State s = node_state();
  for (int i = 0; i < 8191; ++i) {
    sdk::Peer p = peer(1);
    p.name = "p" + std::to_string(i);
    p.mac = {2, 0xaa, 0, 0, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)};
    s.peers.emplace(p.name, p);
  }
  Numbering numbering;
  std::vector<ObjectFailure> failures;
  Desired d;
  d.build(s, 1450, numbering, failures);
  ASSERT_EQ(failures.size(), 1U);
  EXPECT_NE(failures[0].message.find("marks.ctMask 0xfff80000 has room for 8190 peers"),
            std::string::npos)
      << failures[0].message;
  EXPECT_EQ(d.peers().size(), 8190U);
}

}  // namespace
}  // namespace egw::common
