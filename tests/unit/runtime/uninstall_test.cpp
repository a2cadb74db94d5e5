// `egw uninstall`: agents take their nodes' kernel state away and say so, the leader rests, and
// what is not completed is undone.
#include "cluster.hpp"

namespace egw::test {
namespace {

using testing::HasSubstr;

class UninstallTest : public ClusterTest {
 protected:
  void ask(const std::string& when) {
    json info = content->read(Kind::kEgressClusterInfo, {"", "default"});
    if (when.empty()) {
      info["metadata"]["annotations"].erase(std::string(model::kUninstallAnnotation));
    } else {
      info["metadata"]["annotations"][std::string(model::kUninstallAnnotation)] = when;
    }
    content->put(Kind::kEgressClusterInfo, info);
  }
  [[nodiscard]] bool asked() const {
    const json info = content->read(Kind::kEgressClusterInfo, {"", "default"});
    const json annotations = info["metadata"].value("annotations", json::object());
    return annotations.contains(std::string(model::kUninstallAnnotation));
  }
  [[nodiscard]] std::string now() { return model::format_micro_time(loop.clock.wall_ms()); }
  [[nodiscard]] json finalizers() const {
    return content->read(Kind::kEgressGateway, {"", "egw"})["metadata"].value("finalizers",
                                                                              json::array());
  }
};

TEST_F(UninstallTest, NodesAreLeftCleanAndNothingMoves) {
  start_cluster();
  const std::string node = owner();
  const std::string when = now();
  ask(when);
  loop.advance(2000);
  for (const auto& [name, rig] : agents) {
    EXPECT_EQ(rig->datapath.purges, 1) << name;
    EXPECT_TRUE(rig->datapath.state.endpoints.empty() && rig->datapath.state.peers.empty()) << name;
    ASSERT_TRUE(condition_true(name, "Purged")) << name;
    EXPECT_THAT((*condition(name, "Purged"))["message"].get<std::string>(), HasSubstr(when));
    EXPECT_FALSE(rig->agent->ready());
  }
  const auto applies = agents["n1"]->datapath.applies.size();
  add_pod("web-2", "n1", "10.244.1.6");
  add_policy("more", "198.51.100.0/24");
  loop.advance(60'000);
  EXPECT_EQ(agents["n1"]->datapath.applies.size(), applies) << "nothing is programmed any more";
  EXPECT_EQ(owner(), node);
  EXPECT_TRUE(asked());
  agents[node]->agent->stop(true);
  loop.settle();
  EXPECT_TRUE(agents[node]->ended) << "a drain would wait for a leader that rests";
}

TEST_F(UninstallTest, WhatIsTakenBackIsProgrammedAgain) {
  start_cluster();
  ask(now());
  loop.advance(2000);
  ask("");
  loop.advance(3000);
  for (const auto& [name, rig] : agents) {
    EXPECT_FALSE(condition_true(name, "Purged")) << name;
    EXPECT_EQ(phase(name), "Ready") << name;
    EXPECT_EQ(rig->datapath.state.peers.size(), 2U) << name;
  }
  EXPECT_NE(owner(), "");
  EXPECT_EQ(agents["n1"]->datapath.state.endpoints.size(), 1U);
}

TEST_F(UninstallTest, AnotherRequestIsAnsweredAnew) {
  start_cluster();
  ask(now());
  loop.advance(2000);
  const std::string when = now();
  ask(when);
  loop.advance(2000);
  EXPECT_EQ(agents["n1"]->datapath.purges, 2);
  EXPECT_THAT((*condition("n1", "Purged"))["message"].get<std::string>(), HasSubstr(when));
}

TEST_F(UninstallTest, ANodeThatCannotBePurgedSaysWhyAndTriesAgain) {
  start_cluster();
  agents["n1"]->datapath.unpurgeable = "the table is busy";
  ask(now());
  loop.advance(3000);
  EXPECT_FALSE(condition_true("n1", "Purged"));
  ASSERT_TRUE(condition_true("n1", "PurgeFailed"));
  EXPECT_THAT((*condition("n1", "PurgeFailed"))["message"].get<std::string>(),
              HasSubstr("the table is busy"));
  agents["n1"]->datapath.unpurgeable.clear();
  loop.advance(10'000);
  EXPECT_TRUE(condition_true("n1", "Purged"));
  EXPECT_FALSE(condition_true("n1", "PurgeFailed"));
}

TEST_F(UninstallTest, WhatIsNotCompletedIsUndone) {
  start_cluster();
  ask(now());
  loop.advance(9 * 60'000);
  EXPECT_TRUE(asked());
  loop.advance(2 * 60'000);
  EXPECT_FALSE(asked());
  EXPECT_EQ(phase("n1"), "Ready");
  EXPECT_EQ(events("UninstallOver").size(), 1U);
}

TEST_F(UninstallTest, AControllerThatStartsLaterIsAnInstallationAgain) {
  start_cluster();
  EXPECT_THAT(finalizers(), testing::SizeIs(1)) << "also of a gateway that admission has not seen";
  ask(now());
  loop.advance(2000);
  json gateway = content->read(Kind::kEgressGateway, {"", "egw"});
  gateway["metadata"].erase("finalizers");
  content->put(Kind::kEgressGateway, gateway);
  loop.advance(5000);
  EXPECT_THAT(finalizers(), testing::IsEmpty()) << "what the uninstall has taken off stays off";
  AgentRig& late = start_agent("g1", true);
  loop.advance(2000);
  EXPECT_TRUE(late.datapath.applies.empty()) << "an agent that starts meanwhile programs nothing";
  late.datapath.open_gate();
  controllers["c1"]->controller->stop();
  loop.advance(2000);
  start_controller("c2");
  loop.advance(5000);
  EXPECT_FALSE(asked());
  EXPECT_EQ(phase("n1"), "Ready");
  EXPECT_THAT(finalizers(), testing::SizeIs(1));
}

}  // namespace
}  // namespace egw::test
