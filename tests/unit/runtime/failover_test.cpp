// Controllers and agents together: deaths, planned moves, drains, changes of leader.
#include "cluster.hpp"

namespace egw::test {
namespace {

using testing::HasSubstr;
class FailoverTest : public ClusterTest {
 protected:
  // Pods with a policy on n1 and on n2; each has asked the EIP's owner through the tunnel.
  void start_with_two_clients() {
    start_cluster();
    add_node("n2", false);
    start_agent("n2");
    add_pod("web-9", "n2", "10.244.9.5");
    loop.advance(5000);
  }
};

TEST_F(FailoverTest, DeadGatewayLosesItsEipInTime) {
  start_cluster();
  loop.advance(5000);
  const std::string node = owner();
  const std::string next = other(node);
  kill_agent(node);
  const auto killed = loop.clock.steady_ms();
  while (owner() == node && loop.clock.steady_ms() - killed < 10'000) loop.advance(10);
  const auto gap = loop.clock.steady_ms() - killed;
  EXPECT_EQ(owner(), next);
  EXPECT_TRUE(agents[next]->announces(kEip));
  EXPECT_EQ(phase(node), "HeartbeatTimeout");
  EXPECT_LE(gap, 3000 + 100) << "the leader wakes for the deadline";
  EXPECT_GE(gap, 1900);
  const json state = controllers["c1"]->controller->state();
  ASSERT_FALSE(state["moves"].empty());
  EXPECT_EQ(state["moves"][0]["from"], node);
  EXPECT_EQ(state["moves"][0]["to"], next);

  // It comes back: Ready, and the EIP stays where it is.
  start_agent(node);
  loop.advance(3000);
  EXPECT_EQ(phase(node), "Ready");
  EXPECT_EQ(owner(), next);
}

TEST_F(FailoverTest, HeartbeatsAloneAreNotPlannedFor) {
  start_cluster();
  loop.advance(5000);
  const auto plans = [&] {
    const std::string text = controllers["c1"]->metrics.text();
    const std::string key = "egw_plan_seconds_count ";
    const auto at = text.find("\n" + key);
    return std::stol(text.substr(at + 1 + key.size()));
  };
  const auto before = plans();
  const auto writes = controllers["c1"]->store.attempts;
  loop.advance(20'000);  // 60 heartbeats, 20 monitor periods
  EXPECT_LE(plans() - before, 22);
  EXPECT_GE(plans() - before, 18);
  EXPECT_EQ(controllers["c1"]->store.attempts, writes);
}

TEST_F(FailoverTest, AnEipThatGoesAndComesBackDuringAnApplyIsAnnouncedAfterIt) {
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  for (auto& [name, controller] : controllers) controller->store.disconnect();
  rig.datapath.close_gate();
  add_pod("web-new", node, "10.244.2.77");
  loop.advance(100);
  const json here = content->read(Kind::kEgressGateway, {"", "egw"})["status"];
  json there = here;
  for (json& one : there["nodeList"]) one["eips"] = json::array();
  content->put_status(Kind::kEgressGateway, {"", "egw"}, there);
  loop.advance(100);
  EXPECT_FALSE(rig.announces(kEip)) << "at once, whatever the datapath does";
  content->put_status(Kind::kEgressGateway, {"", "egw"}, here);
  loop.advance(100);
  rig.datapath.open_gate();
  loop.advance(1000);
  EXPECT_TRUE(rig.announces(kEip));
}

TEST_F(FailoverTest, PlannedMoveHandsOver) {
  start_cluster();
  loop.advance(2000);
  const std::string node = owner();
  const std::string next = other(node);
  // The new owner's datapath is slow: nobody may announce before it is done, the old one goes on.
  agents[next]->datapath.close_gate();
  json gateway = content->read(Kind::kEgressGateway, {"", "egw"});
  gateway["metadata"]["annotations"]["egressgateway.spidernet.io/move"] =
      json{{"eip", kEip}, {"to", next}}.dump();
  content->put(Kind::kEgressGateway, gateway);
  loop.settle();
  ASSERT_EQ(owner(), next);
  EXPECT_TRUE(agents[node]->announces(kEip));
  EXPECT_FALSE(agents[next]->announces(kEip));
  agents[next]->datapath.open_gate();
  loop.settle();
  EXPECT_TRUE(agents[next]->announces(kEip)) << "all have realised it: movingFrom is cleared";
  ASSERT_FALSE(agents[next]->announcer.eips.empty());
  EXPECT_FALSE(agents[next]->announcer.eips[0].probe_first);
  // The old owner hears the announcement.
  net::Claim claim;
  claim.address = model::Address::parse(kEip).value();
  claim.mac = agents[next]->uplink.mac;
  claim.from_gateway = true;
  EXPECT_TRUE(agents[node]->announces(kEip));
  agents[node]->agent->on_claim(claim);
  loop.settle();
  EXPECT_FALSE(agents[node]->announces(kEip));
  const json after = content->read(Kind::kEgressGateway, {"", "egw"});
  EXPECT_FALSE(after["metadata"].contains("annotations") &&
               after["metadata"]["annotations"].contains("egressgateway.spidernet.io/move"));
}

TEST_F(FailoverTest, DrainHandsOverThenStops) {
  start_cluster();
  loop.advance(2000);
  const std::string node = owner();
  const std::string next = other(node);
  agents[node]->agent->stop(true);
  loop.advance(300);
  EXPECT_EQ(owner(), next);
  EXPECT_TRUE(agents[next]->announces(kEip));
  loop.advance(3000);
  EXPECT_TRUE(agents[node]->ended);
  EXPECT_TRUE(tunnel(node)["metadata"]["annotations"].contains("egressgateway.spidernet.io/drain"));
  agents.erase(node);
  loop.settle();
  // Its next start ends the drain.
  start_agent(node);
  loop.advance(1000);
  EXPECT_FALSE(
      tunnel(node)["metadata"].contains("annotations") &&
      tunnel(node)["metadata"]["annotations"].contains("egressgateway.spidernet.io/drain"));
  EXPECT_EQ(phase(node), "Ready");
}

TEST_F(FailoverTest, DrainWithNobodyToTakeOverEndsAtOnce) {
  start_cluster();
  const std::string node = owner();
  kill_agent(other(node));
  loop.advance(5000);
  ASSERT_EQ(owner(), node);
  agents[node]->agent->stop(true);
  loop.advance(500);  // n1 is Ready, but no gateway
  EXPECT_TRUE(agents[node]->ended);
  const json* drained = condition(node, "Drained");
  ASSERT_NE(drained, nullptr);
  EXPECT_EQ((*drained)["reason"], "NoOtherReadyNode");
  EXPECT_THAT((*drained)["message"].get<std::string>(), HasSubstr(kEip));
}

TEST_F(FailoverTest, DrainThatNoLeaderAnswersEndsByItsTimeout) {
  start_cluster();
  const std::string node = owner();
  controllers["c1"]->store.disconnect();
  agents[node]->agent->stop(true);
  loop.advance(29'000);
  EXPECT_FALSE(agents[node]->ended);
  EXPECT_TRUE(agents[node]->announces(kEip));
  loop.advance(2000);
  EXPECT_TRUE(agents[node]->ended);
}

TEST_F(FailoverTest, SecondStopEndsADrain) {
  start_cluster();
  const std::string node = owner();
  controllers["c1"]->store.disconnect();
  agents[node]->agent->stop(true);
  loop.advance(100);
  EXPECT_FALSE(agents[node]->ended);
  agents[node]->agent->stop(true);
  loop.settle();
  EXPECT_TRUE(agents[node]->ended);
}

TEST_F(FailoverTest, NewLeaderMovesNothingWithoutNeed) {
  start_cluster();
  start_controller("c2");
  loop.advance(3000);
  const std::string node = owner();
  const json before = content->read(Kind::kEgressGateway, {"", "egw"});
  EXPECT_TRUE(controllers["c1"]->controller->leading());
  EXPECT_FALSE(controllers["c2"]->controller->leading());
  controllers["c1"]->controller->stop();
  loop.settle();
  EXPECT_TRUE(controllers["c1"]->ended);
  EXPECT_TRUE(controllers["c2"]->controller->leading());
  loop.advance(10'000);
  EXPECT_EQ(owner(), node);
  const json after = content->read(Kind::kEgressGateway, {"", "egw"});
  EXPECT_EQ(after["status"]["nodeList"], before["status"]["nodeList"]);
  EXPECT_GT(controllers["c2"]->controller->state()["term"],
            before.value("/status/term"_json_pointer, 0));
  // It is a working leader.
  kill_agent(node);
  loop.advance(5000);
  EXPECT_EQ(owner(), other(node));
}

// Since when nobody serves an EIP is in the store, and counts across leaders.
TEST_F(FailoverTest, ANewLeaderGoesOnWithTheTimeUnserved) {
  start_cluster();
  start_controller("c2");
  loop.advance(2000);
  kill_agent("g1");
  kill_agent("g2");
  const auto has = [this](const std::string& field) {
    const json all = content->read(Kind::kEgressGateway, {"", "egw"})["status"].flatten();
    for (const auto& [path, value] : all.items()) {
      if (path.ends_with(field) && value != false) return true;
    }
    return false;
  };
  for (int i = 0; i < 100 && !has("/unservedSince"); ++i) loop.advance(100);
  ASSERT_TRUE(has("/unservedSince"));
  loop.advance(2000);
  ASSERT_FALSE(has("/unserved"));
  office.depose();
  loop.settle();
  ASSERT_TRUE(controllers["c2"]->controller->leading());
  loop.advance(1300);
  EXPECT_TRUE(has("/unserved")) << "one eipEvictionTimeout, 3 s, after it began";
}

// Each plan writes something. Within a moment that is a fight; where nodes come one after the other
// it is their number, and what is urgent does not wait.
TEST_F(FailoverTest, ManyNodesThatComeAreNoFight) {
  start_cluster();
  loop.advance(2000);
  for (const int write_ms : {60, 0}) {
    int come = 0;
    const auto next = [&] {
      add_node(std::to_string(write_ms) + "-" + std::to_string(++come), false);
    };
    controllers["c1"]->store.before_write = [&](const host::WriteRequest& write) {
      if (come == 30 || write.key.name != std::to_string(write_ms) + "-" + std::to_string(come)) {
        return;
      }
      loop.clock.set(loop.clock.steady_ms() + write_ms);
      next();
    };
    testing::internal::CaptureStderr();
    next();
    loop.settle();
    const bool told =
        testing::internal::GetCapturedStderr().find("do not settle") != std::string::npos;
    EXPECT_EQ(told, write_ms == 0);
    EXPECT_EQ(come == 30, write_ms != 0) << "or there is a pause";
    controllers["c1"]->store.before_write = nullptr;
  }
}

// All agents read the table of nodes: where many come at once, it is not written for each.
TEST_F(FailoverTest, ManyAgentsThatComeAreFewWritesOfTheirTable) {
  start_cluster();
  for (int i = 0; i < 30; ++i) add_node("x" + std::to_string(i), false);
  loop.advance(1000);
  auto& writes = controllers["c1"]->store.writes;
  writes.clear();
  for (int i = 0; i < 30; ++i) {
    start_agent("x" + std::to_string(i));
    loop.advance(10);
  }
  loop.advance(1000);
  EXPECT_LE(std::count_if(writes.begin(), writes.end(),
                          [](const auto& w) { return w.kind == Kind::kEgressClusterInfo; }),
            12);
  const json info = content->read(Kind::kEgressClusterInfo, {"", "default"});
  EXPECT_EQ(info["status"]["peers"].size(), 33U);
}

TEST_F(FailoverTest, ALeaderThatTookOverWaitsAWholeTimeout) {
  start_cluster();
  loop.advance(2000);
  const std::string node = owner();
  kill_agent(node);
  loop.advance(2000);  // the old leader would act within a second
  start_controller("c2");
  controllers["c1"]->controller->stop();
  loop.settle();
  ASSERT_TRUE(controllers["c2"]->controller->leading());
  loop.advance(2900);
  EXPECT_EQ(owner(), node);
  loop.advance(200);
  EXPECT_EQ(owner(), other(node));
}

TEST_F(FailoverTest, NoWriteOfADeposedLeaderPasses) {
  start_cluster();
  start_controller("c2");
  loop.advance(2000);
  office.depose();
  loop.settle();
  EXPECT_FALSE(controllers["c1"]->controller->leading());
  EXPECT_TRUE(controllers["c2"]->controller->leading());
  const auto attempts = controllers["c1"]->store.attempts;
  kill_agent(owner());
  loop.advance(6000);
  EXPECT_EQ(controllers["c1"]->store.attempts, attempts);
  std::uint64_t term = 0;
  for (const auto& write : controllers["c2"]->store.writes) {
    if (write.kind == Kind::kEvent) continue;  // for people, of no office
    EXPECT_GE(write.term, term);
    term = write.term;
  }
  EXPECT_EQ(term, content->term);
}

TEST_F(FailoverTest, ALeaderOfAnOldTermStandsAgainWithAHigherOne) {
  start_cluster();
  content->term = 1000;  // somebody has led whom this one did not hear of
  json gateway = content->read(Kind::kEgressGateway, {"", "egw"});
  gateway["status"]["term"] = 1000;
  content->put_status(Kind::kEgressGateway, {"", "egw"}, gateway["status"]);
  const auto attempts = controllers["c1"]->store.attempts;
  kill_agent(owner());
  loop.advance(4000);
  EXPECT_LE(controllers["c1"]->store.attempts - attempts, 20) << "it does not spin";
  loop.advance(20'000);
  EXPECT_GT(controllers["c1"]->controller->state()["term"], 1000);
  EXPECT_TRUE(controllers["c1"]->controller->leading());
}

TEST_F(FailoverTest, AConflictIsPlannedAgainNotRepeated) {
  start_cluster();
  loop.advance(2000);
  const std::string node = owner();
  auto& store = controllers["c1"]->store;
  int meddled = 0;
  store.before_write = [&](const host::WriteRequest& request) {
    if (request.kind != Kind::kEgressGateway || meddled++ > 0) return;
    json gateway = content->read(Kind::kEgressGateway, {"", "egw"});
    gateway["metadata"]["labels"]["touched"] = "true";
    content->put(Kind::kEgressGateway, gateway);
  };
  const int attempts = store.attempts;
  kill_agent(node);
  loop.advance(3200);
  EXPECT_EQ(owner(), other(node));
  EXPECT_GE(meddled, 2);
  EXPECT_LE(store.attempts - attempts, 30);
}

TEST_F(FailoverTest, AnOutageOfTheStoreDeclaresNobodyDead) {
  start_cluster();
  loop.advance(2000);
  const std::string node = owner();
  for (auto& [name, rig] : agents) rig->store.disconnect();
  controllers["c1"]->store.disconnect();
  loop.advance(60'000);
  // The leader is back first; the agents need a while.
  controllers["c1"]->store.reconnect();
  loop.advance(2500);
  EXPECT_EQ(owner(), node);
  for (auto& [name, rig] : agents) rig->store.reconnect();
  loop.advance(5000);
  EXPECT_EQ(owner(), node);
  for (const char* name : {"n1", "g1", "g2"}) EXPECT_EQ(phase(name), "Ready") << name;
}

TEST_F(FailoverTest, ManyPoliciesDoNotDelayAMove) {
  start_cluster();
  for (int i = 0; i < 300; ++i) {
    add_policy("p" + std::to_string(i), "198.51." + std::to_string(i % 256) + ".0/24");
  }
  loop.advance(5000);
  const std::string node = owner();
  kill_agent(node);
  auto& store = controllers["c1"]->store;
  store.writes.clear();
  loop.advance(4000);
  ASSERT_EQ(owner(), other(node));
  // The gateway's status is written before any policy's.
  for (const auto& write : store.writes) {
    if (write.kind == Kind::kEgressGateway) break;
    EXPECT_NE(write.kind, Kind::kEgressPolicy);
  }
  const json policy = content->read(Kind::kEgressPolicy, {"default", "p299"});
  EXPECT_EQ(policy["status"]["node"], other(node));
}

TEST_F(FailoverTest, AGatewayThatForwardsNothingLosesReady) {
  start_with_two_clients();
  const std::string node = owner();
  ASSERT_TRUE(condition_true("n1", "TunnelReachable"));
  ASSERT_TRUE(condition_true("n2", "TunnelReachable"));
  EXPECT_EQ(condition(other(node), "TunnelReachable"), nullptr) << "it has no pods";
  const auto tunnel_address =
      model::Address::parse(tunnel(node)["status"]["tunnel"]["ipv4"].get<std::string>()).value();
  EXPECT_THAT(agents["n1"]->pinger.asked, testing::ElementsAre(tunnel_address));
  EXPECT_EQ(agents["n1"]->pinger.last_device, "egress.vxlan");

  // One client that gets no answer may be at fault itself.
  agents["n1"]->pinger.silent.insert(tunnel_address);
  loop.advance(5000);
  EXPECT_FALSE(condition_true("n1", "TunnelReachable"));
  EXPECT_EQ(tunnel("n1")["status"]["unreachable"], json::array({node}));
  EXPECT_THAT((*condition("n1", "TunnelReachable"))["message"].get<std::string>(),
              HasSubstr("from " + node));
  EXPECT_EQ(owner(), node);
  // Two of two.
  agents["n2"]->pinger.silent.insert(tunnel_address);
  loop.advance(4000);
  EXPECT_EQ(owner(), other(node));
  loop.advance(10'000);
  EXPECT_EQ(owner(), other(node)) << "and it stays there";
  EXPECT_FALSE(condition_true("n1", "TunnelReachable")) << "it is asked on";
  agents["n1"]->pinger.silent.clear();
  agents["n2"]->pinger.silent.clear();
  loop.advance(3000);
  EXPECT_TRUE(condition_true("n1", "TunnelReachable"));
  EXPECT_THAT(agents["n1"]->pinger.asked, testing::SizeIs(1));
}

TEST_F(FailoverTest, AGatewayThatForwardsNothingGetsNothingBeforeItAnswers) {
  start_with_two_clients();
  const std::string node = owner();
  const auto silence = [&](const std::string& name) {
    const std::string text = tunnel(name)["status"]["tunnel"]["ipv4"];
    for (const char* client : {"n1", "n2"}) {
      agents[client]->pinger.silent.insert(model::Address::parse(text).value());
    }
  };
  silence(node);
  loop.advance(6000);
  ASSERT_EQ(owner(), other(node));
  // It has the fewest EIPs.
  json policy = make(kApi, "EgressPolicy", "own",
                     {{"egressGatewayName", "egw"},
                      {"egressIP", {{"allocatorPolicy", "rr"}}},
                      {"appliedTo", {{"podSelector", {{"matchLabels", {{"app", "web"}}}}}}},
                      {"destSubnet", json::array({"198.51.100.0/24"})}});
  policy["metadata"]["namespace"] = "default";
  content->put(Kind::kEgressPolicy, policy);
  loop.advance(10'000);
  EXPECT_EQ(owner("10.6.1.56"), other(node));

  // Nor do EIPs move to and fro when nobody can be reached.
  silence(other(node));
  loop.advance(5000);
  const auto moves = controllers["c1"]->controller->state()["moves"].size();
  loop.advance(30'000);
  EXPECT_EQ(controllers["c1"]->controller->state()["moves"].size(), moves);
  EXPECT_EQ(owner(), other(node));

  for (const char* client : {"n1", "n2"}) agents[client]->pinger.silent.clear();
  loop.advance(3000);
  EXPECT_EQ(phase(node), "Ready");
  kill_agent(other(node));
  loop.advance(4000);
  EXPECT_EQ(owner(), node) << "it is counted on again";
}

TEST_F(FailoverTest, ARestartedAgentNeverGivesUpReady) {
  start_cluster();
  loop.advance(2000);
  const std::string node = owner();
  agents[node]->agent->stop(false);
  loop.settle();
  agents.erase(node);
  loop.settle();
  for (const auto& [name, rig] : agents) rig->store.writes.clear();
  AgentRig& rig = start_agent(node);
  loop.advance(3000);
  EXPECT_TRUE(rig.agent->ready());
  for (const auto& write : rig.store.writes) {
    if (write.kind == Kind::kEgressTunnel && write.op == host::WriteRequest::Op::kUpdateStatus) {
      EXPECT_EQ(write.document["status"]["phase"], "Ready");
    }
  }
  EXPECT_EQ(owner(), node);
  EXPECT_TRUE(rig.announces(kEip));
}

// A reboot within the eviction timeout: the store still says Ready, the kernel holds nothing.
TEST_F(FailoverTest, ARebootedNodeIsNotReadyBeforeItIsProgrammed) {
  start_cluster();
  loop.advance(2000);
  const std::string node = owner();
  kill_agent(node);
  loop.advance(500);
  ASSERT_EQ(phase(node), "Ready");
  AgentRig& rig = start_agent(node, true);
  loop.advance(100);
  EXPECT_EQ(phase(node), "Init");
  EXPECT_EQ(owner(), other(node)) << "somebody who is programmed takes it";
  EXPECT_FALSE(rig.announces(kEip));
  EXPECT_FALSE(rig.agent->ready());
  rig.datapath.open_gate();
  loop.advance(100);
  EXPECT_EQ(phase(node), "Ready");
  EXPECT_TRUE(rig.agent->ready());
  for (const auto& write : rig.store.writes) {
    if (write.kind != Kind::kEgressTunnel || !write.document.contains("status")) continue;
    EXPECT_TRUE(write.document["status"]["phase"] == "Init" || &write != &rig.store.writes.front());
  }
}

// At most 5 status writes a second per gateway, merged; a failover waits for nothing.
TEST_F(FailoverTest, StatusWritesOfAGatewayAreBoundedAndMoveNevertheless) {
  start_cluster();
  loop.advance(3000);
  std::vector<std::int64_t> written;
  controllers["c1"]->store.before_write = [&](const host::WriteRequest& request) {
    if (request.kind == Kind::kEgressGateway) written.push_back(loop.clock.steady_ms());
  };
  const auto first = loop.clock.steady_ms();
  for (int i = 0; i < 200; ++i) {
    add_policy("busy-" + std::to_string(i), "198.51." + std::to_string(i) + ".0/24");
    loop.advance(20);
  }
  ASSERT_FALSE(written.empty());
  EXPECT_LE(written.front(), first + 1) << "the first at once";
  for (std::size_t i = 5; i < written.size(); ++i) {
    EXPECT_GE(written[i] - written[i - 5], 1000) << i;
  }
  EXPECT_GE(written.size(), 12U) << "and not far below that rate";
  loop.advance(1000);
  EXPECT_EQ(content->read(Kind::kEgressPolicy, {"default", "busy-199"})["status"]["node"], owner());

  const std::string node = owner();
  kill_agent(node);
  const auto killed = loop.clock.steady_ms();
  for (int i = 0; owner() == node && i < 500; ++i) {
    add_policy("late-" + std::to_string(i), "198.18." + std::to_string(i % 250) + ".0/24");
    loop.advance(10);
  }
  EXPECT_EQ(owner(), other(node));
  EXPECT_LE(loop.clock.steady_ms() - killed, 3000 + 100);
}

}  // namespace
}  // namespace egw::test
