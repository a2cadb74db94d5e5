// Objects that fail alone, and what a later delta does to their failures; what an agent that hears
// only a part of the store says.
#include "cluster.hpp"

namespace egw::test {
namespace {

class PartlyTest : public ClusterTest {
 protected:
  // A cluster whose EIP's owner cannot program the egress.
  std::string owner_without_room() {
    start_cluster();
    std::string node = owner();
    RecordingDatapath& datapath = agents[node]->datapath;
    const auto id = datapath.state.egresses.begin()->first;
    datapath.failures = {{"egress " + std::to_string(id), 22, "no room"}};
    datapath.drift("x");
    loop.settle();
    return node;
  }
};

TEST_F(PartlyTest, AnObjectThatFailsFailsAlone) {
  const std::string node = owner_without_room();
  AgentRig& rig = *agents[node];
  EXPECT_FALSE(rig.announces(kEip)) << "what is not programmed is not announced";
  EXPECT_TRUE(condition_true(node, "PartlyProgrammed"));
  rig.datapath.failures.clear();
  loop.advance(6000);
  EXPECT_TRUE(rig.announces(kEip));
  EXPECT_FALSE(condition_true(node, "PartlyProgrammed"));
}

// A delta that succeeds has not tried the failed object again.
TEST_F(PartlyTest, AFailureStandsUntilItsObjectIsTriedAgain) {
  const std::string node = owner_without_room();
  AgentRig& rig = *agents[node];
  ASSERT_FALSE(rig.announces(kEip));
  rig.datapath.failures.clear();
  add_pod("web-2", node, "10.244.2.6");
  loop.settle();
  ASSERT_FALSE(rig.datapath.applies.back().full);
  EXPECT_FALSE(rig.announces(kEip));
  EXPECT_TRUE(condition_true(node, "PartlyProgrammed"));
  loop.advance(6000);
  EXPECT_TRUE(rig.announces(kEip)) << "tried again after a pause, not with the next full pass";
  EXPECT_FALSE(condition_true(node, "PartlyProgrammed"));
}

TEST_F(PartlyTest, AFailureGoesWithItsObject) {
  start_cluster();
  AgentRig& rig = *agents["n1"];
  rig.datapath.failures = {{"endpoint 10.244.1.5", 22, "no room"}};
  rig.datapath.drift("x");
  loop.settle();
  ASSERT_TRUE(condition_true("n1", "PartlyProgrammed"));
  rig.datapath.failures.clear();
  content->remove(Kind::kPod, {"default", "web-1"});
  loop.settle();
  ASSERT_FALSE(rig.datapath.applies.back().full);
  EXPECT_FALSE(condition_true("n1", "PartlyProgrammed"));
}

// Its revision of the other kinds goes on, and would say that it steers by a policy that it has
// never seen.
TEST_F(PartlyTest, WhileAKindIsNotHeardOfNothingMoreIsRealised) {
  start_cluster();
  const auto realised = [&](const std::string& policy) {
    const json stored = content->read(Kind::kEgressPolicy, {"default", policy});
    for (const json& condition : stored.value("/status/conditions"_json_pointer, json::array())) {
      if (condition["type"] == "Realised") return condition.value("status", "");
    }
    return std::string("absent");
  };
  ASSERT_EQ(realised("web"), "True");
  MemoryStore& store = agents["n1"]->store;
  store.disconnect(Kind::kEgressPolicy);
  loop.advance(1000);
  add_policy("late", "198.51.100.0/24");
  loop.advance(5000);
  EXPECT_EQ(realised("late"), "False");
  EXPECT_TRUE(condition_true("n1", "StoreBehind")) << "somebody must be able to find out why";
  EXPECT_THAT((*condition("n1", "StoreBehind"))["message"],
              testing::HasSubstr("EgressPolicy: cut off"));
  EXPECT_FALSE(condition_true("n2", "StoreBehind"));
  store.reconnect();
  loop.advance(5000);
  EXPECT_EQ(realised("late"), "True");
  EXPECT_FALSE(condition_true("n1", "StoreBehind"));
}

TEST_F(PartlyTest, ShortlyBehindIsNoNews) {
  start_cluster();
  MemoryStore& store = agents["n1"]->store;
  store.disconnect(Kind::kEgressPolicy);
  loop.advance(1500);
  store.reconnect();
  loop.advance(60'000);
  EXPECT_EQ(condition("n1", "StoreBehind"), nullptr);
}

// All kinds are unheard of then, and what can be written when it is back is no news either.
TEST_F(PartlyTest, AStoreThatWasAwayAltogetherIsNotBehind) {
  start_cluster();
  MemoryStore& store = agents["n1"]->store;
  store.disconnect();
  loop.advance(60'000);
  store.reconnect();
  loop.advance(5000);
  EXPECT_EQ(condition("n1", "StoreBehind"), nullptr);
}

}  // namespace
}  // namespace egw::test
