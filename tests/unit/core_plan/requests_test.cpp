// What people ask for by annotations (decision 24): moves and drains.
#include <gmock/gmock.h>

#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

using testing::HasSubstr;

TEST(PlanDecision24, AMoveIsDoneAnsweredAndTheAnnotationGoes) {
  Moving c;
  c.settle();
  EXPECT_TRUE(c.world.gateways["g"].meta.annotations.empty());
  ASSERT_NE(c.condition("g", "MoveDone"), nullptr);
  EXPECT_EQ(c.condition("g", "MoveDone")->message, "10.0.0.1 is on node n3");
  EXPECT_EQ(c.status("a").node, "n3");
}

// Not by way of the node that would be chosen otherwise.
TEST(PlanDecision24, AnEipThatMustLeaveGoesWhereItIsWanted) {
  for (const bool deleted : {true, false}) {
    Cluster c;
    c.nodes(3);
    c.gateway("g", {"10.0.0.1"});
    c.policy("ns", "a", "g");
    c.start();
    ASSERT_EQ(c.owner("g", "10.0.0.1"), "n1");
    c.moves.clear();
    if (deleted) {
      c.world.nodes.erase("n1");
    } else {
      c.world.nodes["n1"].meta.labels.clear();
    }
    c.world.gateways["g"].meta.annotations[std::string(model::kMoveAnnotation)] =
        R"({"eip": "10.0.0.1", "to": "n3"})";
    c.settle();
    EXPECT_EQ(c.owner("g", "10.0.0.1"), "n3");
    EXPECT_EQ(c.moves.size(), 1U);
    ASSERT_NE(c.condition("g", "MoveDone"), nullptr);
  }
}

TEST(PlanDecision24, ARefusedMoveSaysWhy) {
  struct Case {
    const char* request;
    const char* reason;
    const char* says;
  };
  const Case cases[] = {
      {"nonsense", "InvalidRequest", "not a JSON object"},
      {R"({"eip": "10.0.0.1"})", "InvalidRequest", "want {"},
      {R"({"eip": "10.0.0.1", "to": 3})", "InvalidRequest", "\"to\" is not a string"},
      {R"({"eip": "10.0.0.1", "to": "n2", "now": "x"})", "InvalidRequest", "unknown key \"now\""},
      {R"({"eip": "10.0.0.x", "to": "n2"})", "InvalidRequest", "10.0.0.x"},
      {R"({"eip": "10.0.0.2", "to": "n2"})", "EipNotFound", "10.0.0.2"},
      {R"({"eip": "10.0.0.1", "to": "plain"})", "NodeNotSelected", "plain"},
      {R"({"eip": "10.0.0.1", "to": "n9"})", "NodeNotSelected", "n9"},
      {R"({"eip": "10.0.0.1", "to": "n2"})", "TargetNotReady", "n2 is Failed"},
      {R"({"eip": "10.0.0.1", "to": "n3"})", "TargetDraining", "n3"},
  };
  for (const Case& t : cases) {
    Cluster c;
    c.nodes(3);
    c.node("plain", {});
    c.gateway("g", {"10.0.0.1-10.0.0.2"});
    c.policy("ns", "a", "g");
    c.start();
    c.tunnel("n2").status.phase = model::TunnelPhase::kFailed;
    c.tunnel("n3").meta.annotations[std::string(model::kDrainAnnotation)] = "";
    c.world.gateways["g"].meta.annotations = {{std::string(model::kMoveAnnotation), t.request},
                                              {"other", "stays"}};
    c.settle();
    EXPECT_EQ(c.owner("g", "10.0.0.1"), "n1") << t.request;
    ASSERT_NE(c.condition("g", "MoveRefused"), nullptr) << t.request;
    EXPECT_EQ(c.condition("g", "MoveRefused")->reason, t.reason);
    EXPECT_THAT(c.condition("g", "MoveRefused")->message, HasSubstr(t.says));
    EXPECT_EQ(c.world.gateways["g"].meta.annotations, (model::Labels{{"other", "stays"}}));
    EXPECT_EQ(c.count("MoveRefused"), 1) << t.request;
  }
}

TEST(PlanDecision24, ADrainedNodeGivesEverythingAwayAndGetsNothing) {
  Cluster c;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1-10.0.0.9"});
  for (int i = 0; i < 6; ++i) c.rr("p" + std::to_string(i), "g");
  c.start();
  const std::string key(model::kDrainAnnotation);
  c.tunnel("n1").meta.annotations[key] = "maintenance";
  touch(c.world, c.tunnel("n1").meta);
  c.step();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "n1") << "a planned move";
  EXPECT_EQ(c.moves.size(), 2U);
  EXPECT_EQ(c.moves[0].why, "Drain");
  c.settle();
  EXPECT_EQ(find_condition(c.tunnel("n1").status.conditions, "Drained")->status, false);
  c.pass(2000);
  c.settle();
  EXPECT_EQ(find_condition(c.tunnel("n1").status.conditions, "Drained")->reason, "DrainDone");
  c.rr("new", "g");
  c.settle();
  EXPECT_NE(c.status("new").node, "n1");
  EXPECT_TRUE(c.tunnel("n1").meta.annotations.contains(key)) << "holds until it is taken off";
  c.tunnel("n1").meta.annotations.clear();
  c.rr("newer", "g");
  c.settle();
  EXPECT_EQ(c.status("newer").node, "n1");
  EXPECT_EQ(find_condition(c.tunnel("n1").status.conditions, "Drained"), nullptr);
}

TEST(PlanDecision24, ADrainWithoutAnotherReadyNodeMovesNothing) {
  Cluster c;
  c.nodes(1);
  c.node("plain", {});  // Ready, but no gateway
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  c.tunnel("n1").meta.annotations[std::string(model::kDrainAnnotation)] = "";
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n1");
  const model::Condition* drained = find_condition(c.tunnel("n1").status.conditions, "Drained");
  EXPECT_EQ(drained->reason, "NoOtherReadyNode");
  EXPECT_THAT(drained->message, HasSubstr("10.0.0.1"));
  c.node("n2");
  c.settle();
  c.beat("n2");
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
}

}  // namespace
}  // namespace egw::test
