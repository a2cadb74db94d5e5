// What an agent says of what it has programmed, and when.
#include "cluster.hpp"
#include "egw/runtime/agent_status.hpp"

namespace egw::test {
namespace {

using RealisedTest = ClusterTest;

// Realised names a revision that is in the kernel, and none before it is.
TEST_F(RealisedTest, FollowsTheKernel) {
  start_cluster();
  loop.advance(2000);
  auto& rig = *agents["n1"];
  const auto realised = [this] {
    return tunnel("n1").value("/status/realised/revision"_json_pointer, std::uint64_t{0});
  };
  const auto before = realised();
  rig.datapath.close_gate();
  add_policy("other", "198.51.100.0/24");
  loop.advance(3000);
  EXPECT_EQ(realised(), before);
  const auto placed = content->objects.at({Kind::kEgressGateway, {"", "egw"}}).revision;
  rig.datapath.open_gate();
  loop.settle();
  EXPECT_GE(realised(), placed) << "at once, not with the next heartbeat";
}

// What the leader says of a gateway is answered by nobody: a thousand agents would write at once.
TEST_F(RealisedTest, AConditionOfAGatewayIsNoNewsToTell) {
  start_cluster();
  loop.advance(2000);
  const int before = heartbeats_of("n1");
  json gateway = content->read(Kind::kEgressGateway, {"", "egw"});
  gateway["status"]["conditions"].push_back(
      {{"type", "Told"}, {"status", "True"}, {"reason", "Test"}});
  content->put_status(Kind::kEgressGateway, {"", "egw"}, gateway["status"]);
  loop.settle();
  EXPECT_EQ(heartbeats_of("n1"), before);
  loop.advance(2000);
  EXPECT_GE(tunnel("n1").value("/status/realised/revision"_json_pointer, std::uint64_t{0}),
            content->objects.at({Kind::kEgressGateway, {"", "egw"}}).revision)
      << "the next heartbeat says it";
}

TEST(RealisedSpread, GrowsWithTheClusterAndHoldsUpNoHandOver) {
  model::World world;
  auto& peers = world.cluster_infos["default"].status.peers;
  peers.resize(100);
  EXPECT_EQ(runtime::realised_spread_ms(world), 0);
  peers.resize(900);
  world.cluster_infos["default-1"].status.peers.resize(100);
  EXPECT_EQ(runtime::realised_spread_ms(world), 5000);
  model::GatewayNode& node = world.gateways["g"].status.node_list.emplace_back();
  node.eips.emplace_back();
  EXPECT_EQ(runtime::realised_spread_ms(world), 5000);
  node.eips.back().moving_from = "n1";
  EXPECT_EQ(runtime::realised_spread_ms(world), 0);
}

}  // namespace
}  // namespace egw::test
