// Reachability: whom to ask, and when silence counts.
#include "egw/runtime/reachability.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace egw::runtime {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

model::Address ip(const char* text) { return model::Address::parse(text).value(); }

model::NodeState client_state() {
  model::NodeState state;
  state.peers["g1"] = {"g1", ip("10.0.0.1"), ip("172.31.0.1"), ip("fd11::1"), {}, {}};
  state.peers["g2"] = {"g2", ip("10.0.0.2"), {}, ip("fd11::2"), {}, {}};
  state.peers["g3"] = {"g3", ip("10.0.0.3"), ip("172.31.0.3"), {}, {}, {}};
  const auto egress = [](std::uint32_t id, model::Owner owner, const char* peer) {
    model::Egress e;
    e.id = id;
    e.owner = owner;
    e.owner_peer = peer;
    return e;
  };
  state.egresses[1] = egress(1, model::Owner::kPeer, "g1");
  state.egresses[2] = egress(2, model::Owner::kPeer, "g2");
  state.egresses[3] = egress(3, model::Owner::kPeer, "g3");  // no class uses it
  state.egresses[4] = egress(4, model::Owner::kSelf, "");
  const auto all = model::Prefix::parse("0.0.0.0/0").value();
  for (const std::uint32_t id : {1U, 2U, 4U}) {
    state.classes[7].push_back({all, model::ActionKind::kEgress, id});
  }
  state.endpoints[ip("10.244.1.5")] = 7;
  return state;
}

TEST(Reachability, AsksTheOwnersThatItsPodsUse) {
  auto state = client_state();
  EXPECT_THAT(Reachability::owners_of(state),
              ElementsAre(Pair("g1", ip("172.31.0.1")), Pair("g2", ip("fd11::2"))));
  state.endpoints.clear();
  EXPECT_THAT(Reachability::owners_of(state), IsEmpty());
}

TEST(Reachability, AsksTheSilentOnUntilTheyAnswerOrAreKnownToBeDead) {
  auto state = client_state();
  model::World world;
  auto& nodes = world.gateways["egw"].status.node_list;
  nodes.resize(1);
  nodes[0].name = "g1";
  nodes[0].status = "Ready";
  Reachability reachability;
  for (int i = 0; i < 3; ++i) {
    reachability.round(Reachability::owners_of(state), {ip("fd11::2")});
  }
  state.egresses[1].owner_peer = "g2";  // what g1 had has moved
  const auto both = ElementsAre(Pair("g1", ip("172.31.0.1")), Pair("g2", ip("fd11::2")));
  EXPECT_THAT(reachability.to_ask(state, world), both);
  nodes[0].status = "Unreachable";
  EXPECT_THAT(reachability.to_ask(state, world), both);
  nodes[0].status = "HeartbeatTimeout";
  EXPECT_THAT(reachability.to_ask(state, world), ElementsAre(Pair("g2", ip("fd11::2"))));
  nodes[0].status = "Unreachable";
  reachability.round(reachability.to_ask(state, world), {ip("172.31.0.1"), ip("fd11::2")});
  EXPECT_THAT(reachability.unreachable(), IsEmpty());
  EXPECT_THAT(reachability.to_ask(state, world), ElementsAre(Pair("g2", ip("fd11::2"))));
}

TEST(Reachability, ThreeSilencesInARow) {
  Reachability reachability;
  const std::map<std::string, model::Address> asked{{"g1", ip("172.31.0.1")},
                                                    {"g3", ip("172.31.0.3")}};
  EXPECT_TRUE(reachability.round(asked, {ip("172.31.0.1"), ip("172.31.0.3")}));
  EXPECT_FALSE(reachability.round(asked, {ip("172.31.0.3")}));
  EXPECT_FALSE(reachability.round(asked, {ip("172.31.0.3")}));
  EXPECT_THAT(reachability.unreachable(), IsEmpty());
  EXPECT_TRUE(reachability.round(asked, {ip("172.31.0.3")}));
  EXPECT_THAT(reachability.unreachable(), ElementsAre("g1"));
  EXPECT_FALSE(reachability.round(asked, {ip("172.31.0.3")}));
  EXPECT_TRUE(reachability.round(asked, {ip("172.31.0.1"), ip("172.31.0.3")}));
  EXPECT_THAT(reachability.unreachable(), IsEmpty());
  EXPECT_TRUE(reachability.round({}, {}));
  EXPECT_FALSE(reachability.asked_anybody());
}

}  // namespace
}  // namespace egw::runtime
