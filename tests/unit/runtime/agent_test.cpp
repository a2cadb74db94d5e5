// The agent's rules, in a cluster with a real controller.
#include <fstream>

#include "cluster.hpp"

namespace egw::test {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

using AgentTest = ClusterTest;

TEST_F(AgentTest, PhasesOnTheWayToReady) {
  add_node("n1", false);
  AgentRig& rig = start_agent("n1");
  loop.advance(500);
  EXPECT_TRUE(tunnel("n1").is_null()) << "the controller makes it";
  // A tunnel without an address yet.
  content->put(Kind::kEgressTunnel, make(kApi, "EgressTunnel", "n1", json::object()));
  loop.settle();
  EXPECT_EQ(phase("n1"), "Pending");
  EXPECT_EQ(tunnel("n1")["status"]["tunnel"]["parent"]["mac"], "02:00:00:00:00:01");
  EXPECT_EQ(tunnel("n1")["status"]["tunnel"]["mac"], "02:ee:0a:06:00:01");
  EXPECT_THAT(rig.datapath.applies, IsEmpty());

  rig.datapath.close_gate();
  json status = tunnel("n1")["status"];
  status["tunnel"]["ipv4"] = "172.31.0.9";
  content->put_status(Kind::kEgressTunnel, {"", "n1"}, status);
  loop.settle();
  EXPECT_EQ(phase("n1"), "Init");
  EXPECT_FALSE(rig.agent->started());
  rig.datapath.open_gate();
  loop.settle();
  EXPECT_EQ(phase("n1"), "Ready");
  EXPECT_TRUE(rig.agent->ready());
  EXPECT_EQ(rig.programmed_calls, 1);
  ASSERT_FALSE(rig.datapath.applies.empty());
  EXPECT_TRUE(rig.datapath.applies[0].full);
  EXPECT_EQ(rig.datapath.state.node.tunnel_v4.to_string(), "172.31.0.9");
  EXPECT_EQ(rig.datapath.state.node.parent_device, "eth0");
}

TEST_F(AgentTest, APodIsProgrammedAtOnceAsADelta) {
  start_cluster();
  auto& datapath = agents["n1"]->datapath;
  EXPECT_EQ(datapath.state.endpoints.size(), 1U);
  const auto before = datapath.applies.size();
  const auto writes = heartbeats_of("n1");
  add_pod("web-2", "n1", "10.244.1.6");
  loop.settle();  // no time passes
  EXPECT_EQ(datapath.state.endpoints.size(), 2U);
  ASSERT_EQ(datapath.applies.size(), before + 1);
  EXPECT_FALSE(datapath.applies.back().full);
  EXPECT_EQ(datapath.applies.back().endpoints.size(), 1U);
  EXPECT_EQ(heartbeats_of("n1"), writes) << "a pod costs no write";
  content->remove(Kind::kPod, {"default", "web-2"});
  loop.settle();
  EXPECT_EQ(datapath.state.endpoints.size(), 1U);
  add_pod("web-3", "g1", "10.244.2.6");
  loop.settle();
  EXPECT_EQ(datapath.applies.size(), before + 2) << "another node's pod";
}

TEST_F(AgentTest, WhatArrivesDuringAnApplyIsMerged) {
  start_cluster();
  auto& datapath = agents["n1"]->datapath;
  datapath.close_gate();
  add_pod("web-2", "n1", "10.244.1.6");
  loop.settle();
  const auto begun = datapath.applies.size();
  for (int i = 10; i < 60; ++i) {
    add_pod("web-" + std::to_string(i), "n1", "10.244.1." + std::to_string(i));
    loop.settle();
  }
  EXPECT_EQ(datapath.applies.size(), begun);
  datapath.open_gate();
  loop.settle();
  EXPECT_EQ(datapath.applies.size(), begun + 1);
  EXPECT_EQ(datapath.applies.back().endpoints.size(), 50U);
  EXPECT_EQ(datapath.state.endpoints.size(), 52U);
}

TEST_F(AgentTest, EverythingAgainWhenTheDatapathLostTrack) {
  start_cluster();
  auto& datapath = agents["n1"]->datapath;
  datapath.generation = 12345;
  add_pod("web-2", "n1", "10.244.1.6");
  loop.settle();
  EXPECT_EQ(datapath.need_fulls, 1);
  EXPECT_TRUE(datapath.applies.back().full);
  EXPECT_EQ(datapath.state.endpoints.size(), 2U);
}

TEST_F(AgentTest, FullApplyEvery30SecondsAndOnDrift) {
  start_cluster();
  auto& datapath = agents["n1"]->datapath;
  const auto before = datapath.applies.size();
  loop.advance(31'000);
  ASSERT_EQ(datapath.applies.size(), before + 1);
  EXPECT_TRUE(datapath.applies.back().full);
  datapath.repairs = {{"route", 2}};
  datapath.drift("route deleted");
  loop.settle();
  EXPECT_EQ(datapath.applies.size(), before + 2);
  EXPECT_TRUE(datapath.applies.back().full);
  EXPECT_THAT(agents["n1"]->metrics.text(),
              testing::HasSubstr("egw_repaired_total{type=\"route\"} 2"));
  // A stream of drift does not become a stream of applies.
  for (int i = 0; i < 100; ++i) {
    datapath.drift("again");
    loop.advance(10);
  }
  EXPECT_LE(datapath.applies.size(), before + 2 + 5);
  EXPECT_GE(datapath.applies.size(), before + 2 + 3);
}

TEST_F(AgentTest, HeartbeatEveryPeriodAndNoMore) {
  start_cluster();
  loop.advance(5000);
  const auto before = heartbeats_of("n1");
  const json first = tunnel("n1")["status"]["lastHeartbeatTime"];
  loop.advance(10'000);
  EXPECT_GE(heartbeats_of("n1") - before, 9);
  EXPECT_LE(heartbeats_of("n1") - before, 11);
  EXPECT_NE(tunnel("n1")["status"]["lastHeartbeatTime"], first);
}

TEST_F(AgentTest, StatusWrittenByOthersIsRespected) {
  start_cluster();
  json status = tunnel("n1")["status"];
  status["phase"] = "HeartbeatTimeout";
  content->put_status(Kind::kEgressTunnel, {"", "n1"}, status);
  loop.settle();
  EXPECT_EQ(phase("n1"), "Ready");
  // The controller's word stays; its node is not Ready.
  json node_status;
  node_status["conditions"] = json::array({{{"type", "Ready"}, {"status", "False"}}});
  content->put_status(Kind::kNode, {"", "n1"}, node_status);
  loop.advance(3000);
  EXPECT_EQ(phase("n1"), "NodeNotReady");
}

// Its tunnel goes with it: nobody answers this node any more, and that is not the owners' fault.
TEST_F(AgentTest, WithoutItsNodeItIsNotReadyAndAccusesNobody) {
  start_cluster();
  loop.advance(5000);
  AgentRig& rig = *agents["n1"];
  ASSERT_TRUE(rig.agent->ready());
  ASSERT_THAT(rig.pinger.asked, testing::SizeIs(1));
  const json node = content->read(Kind::kNode, {"", "n1"});
  content->remove(Kind::kNode, {"", "n1"});
  rig.pinger.silent.insert(rig.pinger.asked[0]);
  loop.advance(10'000);
  EXPECT_FALSE(rig.agent->ready());
  EXPECT_EQ(rig.agent->state()["unreachable"], json::array());
  rig.pinger.silent.clear();
  content->put(Kind::kNode, node);
  loop.advance(3000);
  EXPECT_TRUE(rig.agent->ready());
  EXPECT_EQ(phase("n1"), "Ready");
}

TEST_F(AgentTest, ConflictingWriteIsRepeatedFromTheNewestVersion) {
  start_cluster();
  auto& store = agents["n1"]->store;
  int meddled = 0;
  store.before_write = [&](const host::WriteRequest& request) {
    if (meddled++ > 0) return;
    json document = tunnel("n1");
    document["metadata"]["annotations"] = {{"by", "somebody"}};
    content->put(request.kind, document);
  };
  loop.advance(1000);
  EXPECT_GE(meddled, 2);
  EXPECT_EQ(tunnel("n1")["metadata"]["annotations"]["by"], "somebody");
  EXPECT_EQ(phase("n1"), "Ready");
}

TEST_F(AgentTest, WithoutTheStoreEverythingStays) {
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  rig.store.disconnect();
  controllers["c1"]->store.disconnect();
  loop.advance(600'000);
  EXPECT_TRUE(rig.announces(kEip));
  EXPECT_FALSE(rig.datapath.state.egresses.empty());
  EXPECT_TRUE(rig.agent->ready());
  EXPECT_EQ(rig.agent->state()["store"]["connected"], false);
  rig.store.reconnect();
  controllers["c1"]->store.reconnect();
  loop.advance(1000);
  EXPECT_EQ(phase(node), "Ready");
  EXPECT_EQ(owner(), node) << "nothing moved";
}

TEST_F(AgentTest, AStoreThatFillsUpNeverHammers) {
  start_cluster();
  auto& store = agents["n1"]->store;
  store.refuse = [](const host::WriteRequest&) -> std::optional<Error> {
    return Error{Errc::kUnavailable, "store", "disk full", 0};
  };
  const int before = store.attempts;
  loop.advance(60'000);
  EXPECT_LE(store.attempts - before, 60);
  EXPECT_GE(store.attempts - before, 20);
  store.refuse = nullptr;
  loop.advance(3000);
  EXPECT_EQ(phase("n1"), "Ready");
}

// EIPs may be of the network of another interface than the uplink.
TEST_F(AgentTest, GatewaysAreKnownByAllInterfacesThatTheyAnnounceOn) {
  start_cluster();
  const model::Mac second{0x02, 0xcc, 0, 0, 0, 9};
  agents["g1"]->announcer.ports = {agents["g1"]->uplink.mac, second};
  loop.advance(3000);
  EXPECT_EQ(tunnel("g1")["status"]["tunnel"]["parent"]["macs"], json::array({"02:cc:00:00:00:09"}));
  EXPECT_THAT(agents["g2"]->announcer.macs, Contains(second));
  EXPECT_THAT(agents["g1"]->announcer.macs, Not(Contains(second)));
}

TEST_F(AgentTest, ClaimsOfStrangersAndOfGateways) {
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  EXPECT_THAT(rig.announcer.macs, Contains(agents[other(node)]->uplink.mac));
  EXPECT_THAT(rig.announcer.macs, Not(Contains(rig.uplink.mac)));
  net::Claim claim;
  claim.address = model::Address::parse(kEip).value();
  claim.mac = {0x02, 0xbb, 0, 0, 0, 1};
  claim.interface = "eth0";
  rig.agent->on_claim(claim);
  loop.settle();
  EXPECT_TRUE(condition_true(node, "EipConflict"));
  EXPECT_THAT((*condition(node, "EipConflict"))["message"].get<std::string>(),
              testing::HasSubstr("02:bb:00:00:00:01"));
  EXPECT_EQ(phase(node), "Ready");
  EXPECT_TRUE(rig.announces(kEip));
  loop.advance(61'000);
  EXPECT_FALSE(condition_true(node, "EipConflict"));

  // A gateway's claim while the store says that it is ours: confirmed after asking the store.
  claim.from_gateway = true;
  claim.mac = agents[other(node)]->uplink.mac;
  rig.agent->on_claim(claim);
  loop.settle();
  EXPECT_THAT(rig.announcer.confirmed, ElementsAre(kEip));
}

TEST_F(AgentTest, AYieldedEipIsNotConfirmedWhileTheStoreIsAway) {
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  rig.store.disconnect();
  loop.advance(100);
  net::Claim claim;
  claim.address = model::Address::parse(kEip).value();
  claim.mac = agents[other(node)]->uplink.mac;
  claim.from_gateway = true;
  rig.agent->on_claim(claim);
  loop.advance(10'000);
  EXPECT_THAT(rig.announcer.confirmed, IsEmpty());
  ASSERT_EQ(owner(), other(node)) << "the leader has missed its heartbeats";
  rig.store.reconnect();
  loop.advance(2000);
  EXPECT_THAT(rig.announcer.confirmed, IsEmpty()) << "it is not ours any more";
  EXPECT_FALSE(rig.announces(kEip));
}

TEST_F(AgentTest, ConnectionsOfFormerEipsAreForgotten) {
  start_cluster();
  const std::string node = owner();
  const std::string standby = other(node);
  agents[standby]->agent->stop(false);
  loop.settle();
  agents.erase(standby);
  start_agent(standby);
  EXPECT_THAT(agents[standby]->datapath.forgotten, ElementsAre(kEip)) << "at its start";
  AgentRig& rig = *agents[node];
  const auto already = rig.datapath.forgotten.size();
  auto down = rig.uplink;
  down.carrier = false;
  rig.agent->on_uplink(down);
  loop.advance(2000);
  ASSERT_EQ(owner(), standby);
  rig.agent->on_uplink(rig.uplink);
  loop.advance(50'000);
  EXPECT_EQ(rig.datapath.forgotten.size(), already);
  loop.advance(12'000);
  ASSERT_EQ(rig.datapath.forgotten.size(), already + 1);
  EXPECT_EQ(rig.datapath.forgotten.back(), kEip);
}

TEST_F(AgentTest, ADatapathThatCannotForgetIsAskedAgain) {
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  auto down = rig.uplink;
  down.carrier = false;
  rig.agent->on_uplink(down);
  loop.advance(2000);
  rig.agent->on_uplink(rig.uplink);
  const auto already = rig.datapath.forgotten.size();
  rig.datapath.forget_errors.assign(3, Error{Errc::kUnavailable, "datapath", "busy"});
  loop.advance(62'000);
  EXPECT_EQ(rig.datapath.forgotten.size(), already);
  loop.advance(30'000);
  ASSERT_EQ(rig.datapath.forgotten.size(), already + 1);
  EXPECT_EQ(rig.datapath.forgotten.back(), kEip);
}

// forget waits for the apply; what is to be answered does not.
TEST_F(AgentTest, AnEipToForgetBehindAHungApplyHoldsNoTimeUp) {
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  agents[other(node)]->agent->stop(true);
  const json second = {{"egressGatewayName", "egw"},
                       {"egressIP", {{"ipv4", "10.6.1.56"}}},
                       {"appliedTo", {{"podSelector", {{"matchLabels", {{"app", "web"}}}}}}},
                       {"destSubnet", json::array({"198.51.100.0/24"})}};
  json policy = make(kApi, "EgressPolicy", "second", second);
  policy["metadata"]["namespace"] = "default";
  content->put(Kind::kEgressPolicy, policy);
  loop.advance(5000);
  ASSERT_EQ(owner("10.6.1.56"), node);
  content->remove(Kind::kEgressPolicy, {"default", "second"});
  loop.advance(57'000);
  ASSERT_EQ(owner(), node);
  ASSERT_FALSE(rig.announces("10.6.1.56"));
  rig.datapath.close_gate();
  rig.datapath.drift("x");
  net::Claim claim;
  claim.address = model::Address::parse(kEip).value();
  claim.interface = "eth0";
  rig.agent->on_claim(claim);
  ASSERT_FALSE(rig.agent->state()["conflicts"].empty());
  loop.advance(70'000);
  EXPECT_TRUE(rig.agent->state()["conflicts"].empty()) << "a minute after its last claim";
  rig.datapath.open_gate();
  loop.settle();
  EXPECT_EQ(rig.datapath.forgotten.back(), "10.6.1.56");
}

TEST_F(AgentTest, ThreeMissedDeadlinesMakeAGatewayFail) {
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  const Error late{Errc::kTimeout, "datapath plugin x", "apply has not come back", 0};
  for (int i = 0; i < 20; ++i) rig.datapath.errors.push_back(late);
  rig.datapath.drift("x");
  loop.settle();
  EXPECT_TRUE(condition_true(node, "Degraded"));
  EXPECT_EQ(phase(node), "Ready") << "once is no failure";
  EXPECT_TRUE(rig.announces(kEip));
  loop.advance(8000);
  EXPECT_EQ(phase(node), "Failed");
  EXPECT_EQ(owner(), other(node));
  const auto beats = heartbeats_of(node);
  loop.advance(2000);
  EXPECT_GT(heartbeats_of(node), beats);
  rig.datapath.errors.clear();
  loop.advance(10'000);
  EXPECT_EQ(phase(node), "Ready");
  EXPECT_FALSE(condition_true(node, "Degraded"));
}

TEST_F(AgentTest, APluginThatHangsHasNotFailedBeforeThreeDeadlines) {
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  rig.datapath.errors.push_back({Errc::kTimeout, "datapath plugin x", "has not come back", 0});
  const Error busy{Errc::kUnavailable, "datapath plugin x", "still busy with apply", 0};
  for (int i = 0; i < 20; ++i) rig.datapath.errors.push_back(busy);
  rig.datapath.drift("x");
  loop.advance(8000);  // more than one eipEvictionTimeout
  ASSERT_FALSE(rig.datapath.errors.empty());
  EXPECT_TRUE(condition_true(node, "Degraded"));
  EXPECT_EQ(phase(node), "Ready");
  EXPECT_EQ(owner(), node) << "its kernel forwards";
}

TEST_F(AgentTest, ProbeThatForbidsRunningIsAFailure) {
  add_node("n1", false);
  start_controller("c1");
  AgentRig& rig = start_agent("n1");
  loop.settle();
  ASSERT_EQ(phase("n1"), "Ready");
  AgentRig& second = start_agent("g9");  // a node that comes later, with a hostile firewall
  second.datapath.findings = {{false, "MarkConflict", "rule 100 uses mark 0x1000000"}};
  add_node("g9", true);
  loop.advance(500);
  EXPECT_EQ(phase("g9"), "Failed");
  EXPECT_TRUE(condition_true("g9", "DatapathRefused"));
  EXPECT_THAT((*condition("g9", "DatapathRefused"))["message"].get<std::string>(),
              testing::HasSubstr("MarkConflict: rule 100"));
  EXPECT_THAT(second.datapath.applies, IsEmpty());
  second.datapath.findings.clear();
  loop.advance(6000);
  EXPECT_EQ(phase("g9"), "Ready");
  EXPECT_EQ(rig.datapath.need_fulls, 0);
}

// E.g. forwarding that is off and that the host is allowed to switch on, or reports by its key.
TEST_F(AgentTest, ProbeThatWarnsDoesNotKeepTheNodeFromRunning) {
  start_controller("c1");
  AgentRig& rig = start_agent("n1");
  rig.datapath.findings = {{false, "Forwarding", "net/ipv4/ip_forward is 0", true}};
  add_node("n1", false);
  loop.advance(500);
  EXPECT_EQ(phase("n1"), "Ready");
  EXPECT_FALSE(condition_true("n1", "DatapathRefused"));
}

// Also when the time of the full apply has come: a refusal that costs no time must not be asked for
// without end.
TEST_F(AgentTest, ADatapathThatRefusesIsAskedAtIntervals) {
  start_cluster();
  auto& datapath = agents["n1"]->datapath;
  const auto before = datapath.applies.size();
  for (int i = 0; i < 5000; ++i) {
    datapath.errors.push_back({Errc::kUnavailable, "datapath", "still busy", 0});
  }
  const auto beats = heartbeats_of("n1");
  loop.advance(120'000);
  EXPECT_GT(datapath.applies.size(), before + 10);
  EXPECT_LT(datapath.applies.size(), before + 150);
  EXPECT_GT(heartbeats_of("n1"), beats + 20);
}

// Whatever probe finds once the node runs is said, and stops nothing.
TEST_F(AgentTest, RemarksOfProbeAreShownAndGoAgain) {
  start_cluster();
  auto& datapath = agents["n1"]->datapath;
  datapath.findings = {{false, "TunnelForward", "chain forward: its policy drops", true},
                       {false, "MarkConflict", "rule 100 uses mark 0x1000000", false}};
  loop.advance(31'000);
  EXPECT_EQ(phase("n1"), "Ready");
  EXPECT_FALSE(condition_true("n1", "DatapathRefused"));
  ASSERT_TRUE(condition_true("n1", "DatapathRemark"));
  EXPECT_EQ(
      (*condition("n1", "DatapathRemark"))["message"],
      "TunnelForward: chain forward: its policy drops; MarkConflict: rule 100 uses mark 0x1000000");
  datapath.findings.clear();
  loop.advance(31'000);
  EXPECT_FALSE(condition_true("n1", "DatapathRemark"));
}

TEST(MetricsTest, ACounterOfAPluginEndsInTotalOnce) {
  runtime::Metrics metrics("agent", "0");
  metrics.external("datapath",
                   {{"datapath_drops", "reason=forged", 1}, {"datapath_a_total", "", 2}});
  EXPECT_THAT(metrics.text(), testing::HasSubstr("egw_datapath_drops_total{reason=\"forged\"} 1"));
  EXPECT_THAT(metrics.text(), testing::HasSubstr("egw_datapath_a_total 2"));
}

TEST_F(AgentTest, MissingForwardingIsNamed) {
  add_node("n1", false);
  start_controller("c1");
  std::filesystem::create_directories(folder / "proc/net/ipv4");
  std::ofstream(folder / "proc/net/ipv4/ip_forward") << "0\n";
  AgentRig& rig = start_agent("n1");
  rig.datapath.needs = {{"net/ipv4/ip_forward", "1", "packets are routed", true}};
  rig.agent->apply_all();
  loop.settle();
  EXPECT_EQ(phase("n1"), "Failed");
  EXPECT_THAT((*condition("n1", "SysctlMissing"))["message"].get<std::string>(),
              testing::HasSubstr("net/ipv4/ip_forward"));
  std::ofstream(folder / "proc/net/ipv4/ip_forward") << "1\n";
  loop.advance(31'000);
  EXPECT_EQ(phase("n1"), "Ready");
}

TEST_F(AgentTest, BootDropHoldsPodsOnceAndKnowsWhatIsInside) {
  settings.boot_drop = true;
  start_cluster();
  const AgentRig& rig = *agents["n1"];
  EXPECT_EQ(rig.holds, 1);
  EXPECT_EQ(rig.programmed_calls, 1);
  ASSERT_EQ(rig.held_pods.size(), 1U);
  EXPECT_THAT(rig.inside_held, Contains(rig.held_pods[0]));
}

TEST_F(AgentTest, BootDropSaysOnceThatTheNodeDoesNotTellItsPods) {
  settings.boot_drop = true;
  add_node("n1", false);
  json node = content->read(Kind::kNode, {"", "n1"});
  node["spec"] = json::object();
  content->put(Kind::kNode, node);
  testing::internal::CaptureStderr();
  log.set_level(runtime::LogLevel::kWarn);
  const AgentRig& rig = start_agent("n1");
  content->put(Kind::kNode, node);
  loop.settle();
  log.set_level(runtime::LogLevel::kError);
  const std::string told = testing::internal::GetCapturedStderr();
  const auto first = told.find("agent.bootDrop holds nobody back");
  EXPECT_NE(first, std::string::npos) << told;
  EXPECT_EQ(told.find("agent.bootDrop holds nobody back", first + 1), std::string::npos) << told;
  EXPECT_EQ(rig.holds, 0);
}

TEST_F(AgentTest, StopLeavesStatusAndKernelAsTheyAre) {
  start_cluster();
  const std::string node = owner();
  AgentRig& rig = *agents[node];
  const auto applies = rig.datapath.applies.size();
  const json before = tunnel(node)["status"]["phase"];
  rig.agent->stop(false);
  loop.settle();
  EXPECT_TRUE(rig.ended);
  EXPECT_EQ(rig.datapath.applies.size(), applies);
  EXPECT_EQ(tunnel(node)["status"]["phase"], before);
}

TEST_F(AgentTest, AdminDocuments) {
  start_cluster();
  const std::string node = owner();
  const json state = agents[node]->agent->state();
  EXPECT_EQ(state["phase"], "Ready");
  EXPECT_EQ(state["announced"], json::array({kEip}));
  EXPECT_EQ(state["datapath"]["programmed"], true);
  const json desired = agents["n1"]->agent->desired();
  EXPECT_TRUE(desired["endpoints"].contains("10.244.1.5")) << desired.dump(1);
  EXPECT_EQ(desired["egresses"].size(), 1U);
}

// An agent watches its own tunnel alone and writes nothing else but events.
TEST_F(AgentTest, SeesAndWritesNoOtherTunnelThanItsOwn) {
  start_cluster();
  const std::string node = owner();
  kill_agent(node);
  loop.advance(10'000);
  for (const auto& [name, rig] : agents) {
    int tunnels = 0;
    for (const auto& query : rig->store.queries) {
      if (query.kind != Kind::kEgressTunnel) continue;
      ++tunnels;
      EXPECT_EQ(query.name, name);
    }
    EXPECT_EQ(tunnels, 1);
    EXPECT_FALSE(rig->store.writes.empty());
    for (const auto& write : rig->store.writes) {
      if (write.kind == Kind::kEvent) continue;
      EXPECT_EQ(write.kind, Kind::kEgressTunnel);
      EXPECT_EQ(write.key.name, name);
    }
  }
}

}  // namespace
}  // namespace egw::test
