// The numbered decisions of the design on ownership: 18 (who loses an EIP), 19, 20 (planned moves).
#include <gmock/gmock.h>

#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

using testing::HasSubstr;

// 18. An EIP leaves a node only for another Ready node.
TEST(PlanDecision18, NoReadyNodeKeepsTheOwner) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1-10.0.0.2"});
  c.rr("a", "g");
  c.rr("b", "g");
  c.start();
  c.world.nodes["n1"].ready = false;
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  c.world.nodes["n2"].ready = false;
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  EXPECT_EQ(c.owner("g", "10.0.0.2"), "n2");
  ASSERT_NE(c.condition("g", "OwnerNotReady"), nullptr);
  EXPECT_THAT(c.condition("g", "OwnerNotReady")->message, HasSubstr("10.0.0.1 on n2"));
  EXPECT_EQ(find_condition(c.status("a").conditions, "Placed")->reason, "OwnerNotReady");
  EXPECT_EQ(c.condition("g", "Ready")->status, false);
  // After a total outage everybody has the same EIP; the first node that is back takes them.
  c.world.nodes["n1"].ready = true;
  c.settle();
  c.beat("n1");
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n1");
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1");
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.2");
  EXPECT_EQ(c.condition("g", "OwnerNotReady"), nullptr);
}

TEST(PlanDecision18, AnOwnerThatIsGoneLosesItEvenToNobody) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  c.world.nodes["n1"].meta.labels.clear();
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "");
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1") << "still its own";
  EXPECT_EQ(c.status("a").node, "");
  c.node("n2");
  c.settle();
  c.beat("n2");
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  c.world.nodes.erase("n2");
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "");
  EXPECT_EQ(c.world.gateways["g"].status.unplaced.size(), 1U);
}

TEST(PlanDecision18, StoreSuspectMovesNothing) {
  Cluster c;
  c.nodes(5);
  c.gateway("g", {"10.0.0.1-10.0.0.5"});
  for (int i = 0; i < 5; ++i) c.rr("p" + std::to_string(i), "g");
  c.start();
  c.live(60000, {"n1", "n2", "n3"});
  EXPECT_TRUE(c.moves.empty());
  EXPECT_EQ(c.phase("n1"), "Ready");
  EXPECT_EQ(c.count("HeartbeatTimeout"), 0);
  EXPECT_EQ(c.count("StoreSuspect"), 1) << "told once";
  ASSERT_NE(find_condition(c.info().conditions, "StoreSuspect"), nullptr);
  EXPECT_TRUE(find_condition(c.info().conditions, "StoreSuspect")->status);
  c.world.nodes["n1"].ready = false;  // the same store says so: as doubtful
  c.settle();
  EXPECT_TRUE(c.moves.empty());
  EXPECT_EQ(c.phase("n1"), "Ready");
  c.world.nodes["n1"].ready = true;
  c.live(2000, {"n3"});  // heartbeats come again, but n3 is really dead
  EXPECT_FALSE(find_condition(c.info().conditions, "StoreSuspect")->status);
  EXPECT_EQ(c.phase("n3"), "Ready") << "a whole timeout for the others to be heard";
  c.live(17000, {"n3"});
  EXPECT_EQ(c.phase("n3"), "HeartbeatTimeout");
  ASSERT_EQ(c.moves.size(), 1U);
  EXPECT_EQ(c.moves[0].from, "n3");
}

TEST(PlanDecision18, HalfOfTheTunnelsOrTwoAreNotSuspicious) {
  for (const int nodes : {3, 6}) {
    Cluster c;
    c.nodes(nodes);
    c.gateway("g", {"10.0.0.1-10.0.0.6"});
    for (int i = 0; i < 6; ++i) c.rr("p" + std::to_string(i), "g");
    c.start();
    std::vector<std::string> dead{"n1", "n2"};
    if (nodes == 6) dead.push_back("n3");
    c.live(17000, dead);
    EXPECT_EQ(c.count("StoreSuspect"), 0);
    EXPECT_EQ(c.moves.size(), nodes == 3 ? 4U : 3U);
  }
}

TEST(PlanDecision18, OneAfterTheOtherWithinATimeoutIsAsSuspicious) {
  Cluster c;
  c.nodes(5);
  c.gateway("g", {"10.0.0.1-10.0.0.5"});
  for (int i = 0; i < 5; ++i) c.rr("p" + std::to_string(i), "g");
  c.start();
  c.live(6000, {"n1"});
  c.live(6000, {"n1", "n2"});
  c.live(30000, {"n1", "n2", "n3"});
  EXPECT_EQ(c.count("HeartbeatTimeout"), 1) << "the third made it doubtful";
  EXPECT_EQ(c.phase("n2"), "Ready");
  EXPECT_EQ(c.phase("n3"), "Ready");
}

TEST(PlanDecision18, HeartbeatsThatStopTogetherRunOutApartAndMoveNothing) {
  Cluster c;
  c.nodes(4);
  c.gateway("g", {"10.0.0.1-10.0.0.4"});
  for (int i = 0; i < 4; ++i) c.rr("p" + std::to_string(i), "g");
  c.start();
  c.live(1000, {"n1"});  // the last beats are 0 to 3 s apart, less than a period
  c.live(1000, {"n1", "n2"});
  c.live(1000, {"n1", "n2", "n3"});
  c.live(30000, {"n1", "n2", "n3", "n4"});
  EXPECT_EQ(c.count("HeartbeatTimeout"), 0);
  EXPECT_EQ(c.count("StoreSuspect"), 1);
}

TEST(PlanDecision18, AFewThatDieTogetherAreBelievedInTime) {
  struct Case {
    int nodes, dead;
  };
  for (const auto& [nodes, dead] : {Case{3, 1}, Case{3, 2}, Case{5, 2}, Case{6, 3}}) {
    Cluster c;
    c.nodes(nodes);
    c.gateway("g", {"10.0.0.1-10.0.0.6"});
    for (int i = 0; i < 6; ++i) c.rr("p" + std::to_string(i), "g");
    c.start();
    std::vector<std::string> names;
    for (int i = 1; i <= dead; ++i) names.push_back("n" + std::to_string(i));
    c.live(15000, names);
    EXPECT_TRUE(c.moves.empty());
    c.pass(10);
    c.settle();
    for (const std::string& name : names) EXPECT_EQ(c.phase(name), "HeartbeatTimeout");
    EXPECT_GE(c.moves.size(), 1U);
    EXPECT_EQ(c.count("StoreSuspect"), 0);
  }
}

// Others are silent at the moment at which the first is declared dead, and are heard again: that
// was no outage, and the dead one loses its EIPs at once, not a timeout later.
TEST(PlanDecision18, ASilenceThatEndsDelaysAMoveNoLonger) {
  Cluster c;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  c.live(4000, {"n1"});
  c.pass(11500);  // n1 is silent for 15.5 s, the others for 11.5 s
  c.settle();
  EXPECT_EQ(c.phase("n1"), "Ready") << "all three may turn out silent";
  EXPECT_EQ(c.count("StoreSuspect"), 0);
  EXPECT_GE(core::doubtful_silence_ms(c.settings), 5000);
  EXPECT_LE(core::doubtful_silence_ms(c.settings), 11500);
  c.beat_all({"n1"});
  c.settle();
  EXPECT_EQ(c.phase("n1"), "HeartbeatTimeout");
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  EXPECT_EQ(c.count("StoreSuspect"), 0);
}

TEST(PlanDecision18, NodesThatDieOneByOneOverALongTimeAreBelieved) {
  Cluster c;
  c.settings.eip_eviction_timeout = std::chrono::milliseconds(60'000);
  c.nodes(5);
  c.gateway("g", {"10.0.0.1-10.0.0.5"});
  for (int i = 0; i < 5; ++i) c.rr("p" + std::to_string(i), "g");
  c.start();
  std::vector<std::string> dead;
  for (const char* name : {"n1", "n2", "n3", "n4"}) {
    dead.emplace_back(name);
    c.live(31'000, dead);  // never three within one timeout
  }
  c.live(61'000, dead);
  EXPECT_EQ(c.count("HeartbeatTimeout"), 4);
  EXPECT_EQ(c.count("StoreSuspect"), 0);
  for (const char* eip : {"10.0.0.1", "10.0.0.4"}) EXPECT_EQ(c.owner("g", eip), "n5");
}

// NodeIP acts when the owner is not Ready for one timeout and nobody else can take the EIP.
TEST(PlanDecision18, NodeIpActsAfterOneTimeoutWithoutAnybody) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  c.live(15000, {"n1", "n2"});
  c.pass(10);
  c.settle();
  ASSERT_EQ(c.phase("n1"), "HeartbeatTimeout");
  EXPECT_FALSE(c.eip("g", "10.0.0.1")->unserved);
  const std::int64_t acts_at = c.input.now_ms + 15000;
  EXPECT_EQ(c.last.wake_ms, acts_at);
  c.pass(14999);
  c.settle();
  EXPECT_FALSE(c.eip("g", "10.0.0.1")->unserved);
  c.pass(1);
  c.settle();
  EXPECT_TRUE(c.eip("g", "10.0.0.1")->unserved);
  EXPECT_THAT(c.condition("g", "OwnerNotReady")->message, HasSubstr("NodeIP"));
  // A new leader does not take that back.
  c.input.term = 2;
  c.input.unserved.clear();
  c.input.heartbeats.clear();
  c.input.watching_since_ms = c.input.now_ms;
  c.settle();
  EXPECT_TRUE(c.eip("g", "10.0.0.1")->unserved);
  c.beat("n2");
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  EXPECT_FALSE(c.eip("g", "10.0.0.1")->unserved);
}

TEST(PlanDecision18, NodeIpDoesNotActForAnOwnerThatComesBackInTime) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  for (int i = 0; i < 3; ++i) {
    c.tunnel("n1").status.phase = model::TunnelPhase::kFailed;
    c.settle();
    c.pass(10'000);
    c.settle();
    EXPECT_FALSE(c.eip("g", "10.0.0.1")->unserved);
    c.beat("n1");
    c.settle();
  }
}

// The same where there is no owner any more, or never was one.
TEST(PlanDecision18, NodeIpActsForAnUnplacedEipAfterOneTimeout) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.2"});
  c.named("a", "g", "10.0.0.1").spec.failure_policy = model::FailurePolicy::kNodeIp;
  c.start();
  const auto degraded = [&c](const char* policy) {
    const auto* found = find_condition(c.status(policy).conditions, "Degraded");
    return found == nullptr ? "" : found->message;
  };
  EXPECT_EQ(c.eip("g", "10.0.0.1")->unserved_since_ms, 0);
  c.world.nodes["n1"].meta.labels.clear();
  touch(c.world, c.world.nodes["n1"].meta);
  c.step();
  ASSERT_EQ(c.owner("g", "10.0.0.1"), "");
  const std::int64_t since = c.input.wall_ms;
  EXPECT_EQ(c.eip("g", "10.0.0.1")->unserved_since_ms, since);
  EXPECT_EQ(c.last.wake_ms, c.input.now_ms + 15000);
  c.settle();
  EXPECT_THAT(degraded("a"), HasSubstr("dropped until"));
  c.pass(5000);
  c.named("new", "g", "10.0.0.2").spec.failure_policy = model::FailurePolicy::kNodeIp;
  c.settle();
  c.pass(9999);
  c.settle();
  EXPECT_FALSE(c.eip("g", "10.0.0.1")->unserved);
  // Another leader, whose steady clock is another one, goes on counting.
  c.input.term = 2;
  c.input.unserved.clear();
  c.input.heartbeats.clear();
  c.input.now_ms += 777'000'000;
  c.input.watching_since_ms = c.input.now_ms;
  c.settle();
  EXPECT_FALSE(c.eip("g", "10.0.0.1")->unserved);
  EXPECT_EQ(c.eip("g", "10.0.0.1")->unserved_since_ms, since);
  EXPECT_EQ(c.last.wake_ms, c.input.now_ms + 1);
  c.pass(1);
  c.settle();
  EXPECT_TRUE(c.eip("g", "10.0.0.1")->unserved);
  EXPECT_THAT(degraded("a"), HasSubstr("leave with their node's address"));
  EXPECT_FALSE(c.eip("g", "10.0.0.2")->unserved) << "its time began when it was made";
  EXPECT_THAT(degraded("new"), HasSubstr("dropped until"));
  c.pass(5000);
  c.settle();
  EXPECT_TRUE(c.eip("g", "10.0.0.2")->unserved);
  c.node("n2");
  c.settle();
  c.beat("n2");
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  EXPECT_FALSE(c.eip("g", "10.0.0.1")->unserved);
  EXPECT_EQ(c.eip("g", "10.0.0.1")->unserved_since_ms, 0);
  EXPECT_EQ(degraded("a"), "");
}

TEST(PlanDecision18, AnEipThatIsPlacedAgainHasMoved) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  EXPECT_TRUE(c.moves.empty()) << "placed for the first time";
  const auto last_move = [&c] { return c.condition("g", "LastMove")->message; };
  c.world.nodes["n1"].meta.labels.clear();
  c.settle();
  ASSERT_EQ(c.moves.size(), 1U);
  EXPECT_EQ(c.moves[0].from + " " + c.moves[0].to + " " + c.moves[0].why, "n1  NodeNotSelected");
  EXPECT_EQ(c.count("EipUnplaced"), 1);
  EXPECT_EQ(last_move(), "10.0.0.1 from n1 to no node (NodeNotSelected)");
  c.pass(3000);
  c.input.term = 2;  // the next leader tells the same
  c.input.unserved.clear();
  c.settle();
  EXPECT_EQ(c.moves.size(), 1U);
  c.node("n2");
  c.settle();
  c.beat("n2");
  c.pass(500);
  c.settle();
  ASSERT_EQ(c.moves.size(), 2U);
  EXPECT_EQ(c.moves[1].from, "n1");
  EXPECT_EQ(c.moves[1].to, "n2");
  EXPECT_EQ(c.moves[1].why, "NodeNotSelected");
  EXPECT_EQ(c.moves[1].unserved_ms, 3500);
  EXPECT_EQ(last_move(), "10.0.0.1 from n1 to n2 (NodeNotSelected, unserved for 3500 ms)");
  EXPECT_EQ(c.count("EipMoved"), 1);
  EXPECT_EQ(c.eip("g", "10.0.0.1")->left_node, "");
  // An owner that is not Ready for a while, too.
  c.tunnel("n2").status.phase = model::TunnelPhase::kFailed;
  c.settle();
  c.pass(2000);
  c.node("n3");
  c.settle();
  c.beat("n3");
  c.settle();
  EXPECT_EQ(last_move(), "10.0.0.1 from n2 to n3 (Failed, unserved for 2000 ms)");
}

TEST(PlanDecision18, AnOwnerThatIsNotReadyAndThenLeavesCountsAsOneTime) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  c.tunnel("n1").status.phase = model::TunnelPhase::kFailed;
  c.settle();
  c.pass(10'000);
  c.world.nodes.erase("n1");
  c.settle();
  ASSERT_EQ(c.owner("g", "10.0.0.1"), "");
  c.pass(4'999);
  c.settle();
  EXPECT_FALSE(c.eip("g", "10.0.0.1")->unserved);
  c.pass(1);
  c.settle();
  EXPECT_TRUE(c.eip("g", "10.0.0.1")->unserved);
}

TEST(PlanDecision18, LongDeadTunnelsSayNothingAboutTheStore) {
  Cluster c;
  c.nodes(9);
  c.gateway("g", {"10.0.0.1-10.0.0.9"});
  for (int i = 0; i < 9; ++i) c.rr("p" + std::to_string(i), "g");
  c.start();
  const std::vector<std::string> dead{"n1", "n2", "n3", "n4"};
  c.live(60000, dead);
  EXPECT_EQ(c.count("HeartbeatTimeout"), 4);
  // A new leader sees the four dead as long as it watches; the fifth that dies is believed.
  c.input.term = 2;
  c.input.heartbeats.clear();
  c.input.watching_since_ms = c.input.now_ms;
  c.live(2000, dead);
  c.live(20000, {"n1", "n2", "n3", "n4", "n5"});
  EXPECT_EQ(c.phase("n5"), "HeartbeatTimeout");
  EXPECT_EQ(c.count("StoreSuspect"), 0);
}

// 19. The uplink's MAC is in the peer table, by which claims are told apart.
TEST(PlanDecision19, PeersCarryTheUplinksMac) {
  Cluster c;
  c.nodes(1);
  c.start();
  ASSERT_EQ(c.info().peers.size(), 1U);
  EXPECT_EQ(c.info().peers[0].parent_mac, "02:00:00:00:00:01");
}

// 20. Planned moves: the old owner is named until everybody knows, at the latest 2 s.
TEST(PlanDecision20, PlannedMoveNamesTheFormerOwner) {
  Moving c;
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n3");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->epoch, 2U);
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "n1");
  EXPECT_EQ(c.moves.at(0).why, "Requested");
}

TEST(PlanDecision20, MovingFromGoesWhenEveryReadyTunnelHasRealisedIt) {
  Moving c;
  c.beat("n1");
  c.beat("n2");
  c.settle();
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "n1") << "n3 has not said so";
  c.beat("n3");
  c.settle();
  c.beat_all();  // the annotation's removal was a revision more
  c.settle();
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->epoch, 2U);
}

TEST(PlanDecision20, MovingFromGoesAfterTwoSecondsAtTheLatest) {
  Moving c;
  const std::int64_t moved_at = c.input.now_ms;
  c.settle();
  EXPECT_EQ(c.last.wake_ms, moved_at + 2000);
  c.pass(1999);
  c.settle();
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "n1");
  c.pass(1);
  c.settle();
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "");
}

TEST(PlanDecision20, MovingFromGoesWithTheFormerOwner) {
  Moving c;
  c.world.nodes["n1"].ready = false;
  c.settle();
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "");
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n3");
}

TEST(PlanDecision20, AFailureDuringAPlannedMoveIsAnUnplannedMove) {
  Moving c;
  c.settle();  // the annotation is gone
  c.world.nodes["n3"].ready = false;
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n1");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->epoch, 3U);
}

}  // namespace
}  // namespace egw::test
