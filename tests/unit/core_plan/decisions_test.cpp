// The numbered decisions of the design that plan() has to keep, one test or more each.
#include <gmock/gmock.h>

#include <set>

#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

// 4. A flow follows its policy: an id means one EIP, so a policy that gets another EIP gets another
// id.
TEST(PlanDecision04, AnotherEipIsAnotherId) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1-10.0.0.4"});
  c.named("a", "g", "10.0.0.1");
  c.start();
  const std::uint32_t before = c.eip("g", "10.0.0.1")->id;
  c.drop_policy("a");
  c.named("a", "g", "10.0.0.2");
  c.settle();
  EXPECT_NE(c.eip("g", "10.0.0.2")->id, before);
  EXPECT_EQ(c.eip("g", "10.0.0.1"), nullptr);
}

// 6. useNodeIP: one entry and one id per gateway, no address, not counted.
TEST(PlanDecision06, UseNodeIpIsOneEntryPerGateway) {
  Cluster c;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1-10.0.0.4"});
  c.gateway("h", {});
  for (const char* name : {"a", "b", "c"})
    c.policy("ns", name, "g").spec.egress_ip.use_node_ip = true;
  c.policy("ns", "d", "h").spec.egress_ip.use_node_ip = true;
  c.start();
  int entries = 0;
  for (const auto& n : c.world.gateways["g"].status.node_list) {
    for (const auto& e : n.eips) {
      ++entries;
      EXPECT_TRUE(e.use_node_ip);
      EXPECT_NE(e.id, 0U);
      EXPECT_EQ(e.ipv4 + e.ipv6, "");
      EXPECT_EQ(e.policies.size(), 3U);
    }
  }
  EXPECT_EQ(entries, 1);
  EXPECT_EQ(c.world.gateways["g"].status.ip_usage.ipv4_free, 4);
  EXPECT_EQ(c.status("a").node, "n1");
  EXPECT_EQ(c.status("a").ipv4, "");
  EXPECT_EQ(c.status("d").node, "n2");
  c.live(17000, {"n1"});
  EXPECT_EQ(c.status("a").node, "n3") << "it moves with the gateway node";
}

// 21. Pairs, with the manifest of the documentation.
TEST(PlanDecision21, TheDefaultsAreAPairAndTheRestPairUpInOrder) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.6.1.55", "10.6.1.56"}, {"fd00::55", "fd00::56"}, "10.6.1.56", "fd00::55");
  c.policy("ns", "d", "g");
  c.named("n", "g", "10.6.1.55");
  c.start();
  EXPECT_EQ(c.status("d").ipv4 + " " + c.status("d").ipv6, "10.6.1.56 fd00::55");
  EXPECT_EQ(c.status("n").ipv4 + " " + c.status("n").ipv6, "10.6.1.55 fd00::56");
}

TEST(PlanDecision21, NamingOneAddressGetsItsPair) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.4"}, {"fd00::1-fd00::4"}, "10.0.0.1", "fd00::4");
  c.named("a", "g", "10.0.0.3");
  c.named("b", "g", "", "fd00::2");
  c.named("d", "g", "", "fd00::1");
  c.start();
  EXPECT_EQ(c.status("a").ipv6, "fd00::2");
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.3") << "the recorded pair";
  EXPECT_EQ(c.status("d").ipv4, "10.0.0.2");
}

TEST(PlanDecision21, NamingTwoThatAreNotAPair) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.4"}, {"fd00::1-fd00::4"}, "10.0.0.1", "fd00::1");
  c.named("free", "g", "10.0.0.2", "fd00::4");     // neither recorded: a pair from now on
  c.named("split", "g", "10.0.0.3", "fd00::4");    // one recorded elsewhere
  c.named("halfdef", "g", "10.0.0.1", "fd00::3");  // the default's other half is bound
  c.start();
  EXPECT_EQ(c.status("free").ipv4 + " " + c.status("free").ipv6, "10.0.0.2 fd00::4");
  EXPECT_EQ(c.reason("split"), "PairConflict");
  EXPECT_EQ(c.reason("halfdef"), "PairConflict");
  c.rr("x", "g");
  c.rr("y", "g");
  c.rr("z", "g");
  c.settle();
  std::set<std::string> pairs;
  for (const char* p : {"x", "y", "z"}) pairs.insert(c.status(p).ipv4 + " " + c.status(p).ipv6);
  EXPECT_EQ(pairs,
            (std::set<std::string>{"10.0.0.1 fd00::1", "10.0.0.3 fd00::2", "10.0.0.4 fd00::3"}));
}

TEST(PlanDecision21, PairsAreSticky) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.2-10.0.0.3"}, {"fd00::2-fd00::3"});
  c.named("a", "g", "10.0.0.3");
  c.start();
  EXPECT_EQ(c.status("a").ipv6, "fd00::3");
  auto& pools = c.world.gateways["g"].spec.ippools;
  pools.ipv4.push_back("10.0.0.1");  // what pairs up in order is now another
  pools.ipv6.push_back("fd00::9");
  c.settle();
  EXPECT_EQ(c.status("a").ipv6, "fd00::3");
}

// 22. term never falls; a new leader stamps every gateway before its first move.
TEST(PlanDecision22, ANewLeaderStampsEveryGateway) {
  Cluster c;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1"});
  c.gateway("h", {"10.1.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  EXPECT_EQ(c.world.gateways["h"].status.term, 1U);
  c.input.term = 4;
  c.input.identity = "leader-b";
  EXPECT_EQ(c.step().moves.size(), 0U);
  EXPECT_EQ(c.world.gateways["g"].status.term, 4U);
  EXPECT_EQ(c.world.gateways["h"].status.term, 4U);
  c.step();
  EXPECT_EQ(c.info().term, 4U);
  EXPECT_EQ(c.info().leader, "leader-b");
  EXPECT_TRUE(c.step().writes.empty());
}

TEST(PlanDecision22, NothingMovesBeforeEveryGatewayHasTheNewTerm) {
  Cluster c;
  c.nodes(3);
  c.gateway("a", {"10.0.0.1"});
  c.gateway("b", {"10.1.0.1"});
  c.named("p", "a", "10.0.0.1");
  c.named("q", "b", "10.1.0.1");
  c.start();
  c.world.nodes[c.owner("a", "10.0.0.1")].ready = false;  // while nobody led
  const std::string before = c.owner("a", "10.0.0.1");
  c.input.term = 2;
  const core::Plan first = c.step();
  EXPECT_TRUE(first.moves.empty());
  ASSERT_EQ(first.writes.size(), 2U);
  for (const core::Write& w : first.writes) {
    const auto* stamp = std::get_if<core::WriteGateway>(&w);
    ASSERT_NE(stamp, nullptr);
    EXPECT_EQ(stamp->gateway.status.term, 2U);
  }
  EXPECT_EQ(c.owner("a", "10.0.0.1"), before);
  EXPECT_EQ(c.step().moves.size(), 1U);
  EXPECT_NE(c.owner("a", "10.0.0.1"), before);
}

TEST(PlanDecision22, AFormerLeaderWritesNothing) {
  Cluster c;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.input.term = 5;
  c.start();
  c.input.term = 4;
  c.world.nodes["n1"].ready = false;
  c.node("n4");
  EXPECT_TRUE(c.step().writes.empty());
  EXPECT_EQ(c.count("StaleTerm"), 1);
}

// 23. Ids have memory.
TEST(PlanDecision23, TheBooksAreWrittenBeforeTheIdIsUsed) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1"});
  c.start();
  c.policy("ns", "a", "g");
  const core::Plan p = c.step();
  std::size_t info_at = 99;
  std::size_t gateway_at = 99;
  for (std::size_t i = 0; i < p.writes.size(); ++i) {
    if (std::holds_alternative<core::WriteClusterInfo>(p.writes[i])) info_at = i;
    if (std::holds_alternative<core::WriteGateway>(p.writes[i])) gateway_at = i;
  }
  EXPECT_LT(info_at, gateway_at);
  EXPECT_LT(gateway_at, 99U);
  EXPECT_EQ(c.info().next_egress_id, c.eip("g", "10.0.0.1")->id + 1);
}

TEST(PlanDecision23, ARetiredIdReturnsWhenEveryReadyTunnelIsPast) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1-10.0.0.9"});
  c.named("a", "g", "10.0.0.1");
  c.start();
  EXPECT_EQ(c.eip("g", "10.0.0.1")->id, 1U);
  c.drop_policy("a");
  c.settle();
  ASSERT_EQ(c.info().retired.size(), 1U);
  EXPECT_EQ(c.info().retired[0].id, 1U);
  const auto walk_round = [&] {
    c.world.cluster_infos["default"].status.next_egress_id = 1;
    c.named("b", "g", "10.0.0.2");
    c.settle();
    const std::uint32_t id = c.eip("g", "10.0.0.2")->id;
    c.drop_policy("b");
    c.settle();
    return id;
  };
  EXPECT_EQ(walk_round(), 2U) << "1 is not forgotten yet";
  const std::uint64_t noted = c.info().retired[0].revision;
  EXPECT_GT(noted, 0U);
  c.tunnel("n1").status.realised.revision = c.world.revision;
  c.tunnel("n2").status.realised.revision = noted;
  EXPECT_EQ(walk_round(), 3U) << "n2 is at it, not past it";
  c.tunnel("n1").status.realised.revision = c.world.revision;
  c.tunnel("n2").status.realised.revision = noted + 1;
  EXPECT_EQ(walk_round(), 1U);
}

// The revision noted is never before the write with which the id went.
TEST(PlanDecision23, TheRevisionNotedIsPastTheWriteThatDroppedTheId) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.9"});
  c.named("a", "g", "10.0.0.1");
  c.start();
  c.drop_policy("a");
  c.settle();
  const std::uint64_t gone_at = c.world.gateways["g"].meta.revision;
  EXPECT_EQ(c.info().retired.at(0).revision, 0U) << "going";
  c.named("b", "g", "10.0.0.2");
  c.settle();
  EXPECT_GE(c.info().retired.at(0).revision, gone_at);
}

TEST(PlanDecision23, ExhaustedSaysNoEgressIdAndServesWhenOneIsBack) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.0/16"});
  c.rr("a", "g");
  c.start();
  auto& retired = c.world.cluster_infos["default"].status.retired;
  for (std::uint32_t id = 2; id <= 16383; ++id) retired.push_back({id, 1'000'000});
  c.rr("b", "g");
  c.settle();
  EXPECT_EQ(c.reason("b"), "NoEgressId");
  EXPECT_NE(c.condition("g", "NoEgressId"), nullptr);
  EXPECT_NE(find_condition(c.info().conditions, "NoEgressId"), nullptr);
  EXPECT_EQ(c.count("NoEgressId"), 2) << "once for the cluster, once for the policy";
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1");
  c.world.revision = 2'000'000;
  c.beat("n1");
  c.settle();
  EXPECT_EQ(c.reason("b"), "Allocated");
  EXPECT_EQ(c.condition("g", "NoEgressId"), nullptr);
  EXPECT_EQ(find_condition(c.info().conditions, "NoEgressId"), nullptr);
}

TEST(PlanDecision23, ALostClusterInfoDoesNotGiveAnIdTwice) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.9"});
  c.rr("a", "g");
  c.rr("b", "g");
  c.start();
  c.world.cluster_infos.clear();
  c.rr("d", "g");
  c.settle();
  EXPECT_EQ(c.eip("g", "10.0.0.3")->id, 3U);
}

// 25. Without failover EIPs move only on Node NotReady or by hand.
TEST(PlanDecision25, WithoutFailoverHeartbeatsMoveNothing) {
  Cluster c;
  c.settings.failover = false;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  c.live(60000, {"n1"});
  EXPECT_EQ(c.phase("n1"), "Ready");
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n1");
  EXPECT_EQ(c.last.wake_ms, 0);
  c.tunnel("n1").status.phase = model::TunnelPhase::kFailed;
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n1");
  c.world.nodes["n1"].ready = false;
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  c.world.gateways["g"].meta.annotations[std::string(model::kMoveAnnotation)] =
      R"({"eip": "10.0.0.1", "to": "n3"})";
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n3");
}

TEST(PlanDecision25, MarksAreUniquePerNode) {
  Cluster c;
  c.nodes(9);
  c.settle();
  std::set<std::string> marks;
  for (const auto& [name, t] : c.world.tunnels) {
    EXPECT_EQ(t.status.mark.substr(0, 4), "0x26");
    EXPECT_EQ(t.status.mark.size(), 10U);
    marks.insert(t.status.mark);
  }
  EXPECT_EQ(marks.size(), 9U);
}

// 29. The peer table, sharded.
TEST(PlanDecision29, PeersStandInShardsAndStayWhereTheyAre) {
  Cluster c;
  for (int i = 0; i < 450; ++i) c.node("node-" + std::to_string(1000 + i));
  c.start();
  c.settle();
  ASSERT_EQ(c.world.cluster_infos.size(), 3U);
  EXPECT_EQ(c.info().peers.size(), 200U);
  EXPECT_EQ(c.world.cluster_infos["peers-1"].status.peers.size(), 200U);
  EXPECT_EQ(c.world.cluster_infos["peers-2"].status.peers.size(), 50U);
  const model::PeerInfo& row = c.info().peers[0];
  EXPECT_EQ(row.name, "node-1000");
  EXPECT_EQ(row.tunnel_v4, "172.31.0.1");
  EXPECT_EQ(row.underlay_v4, "192.0.2.0");
  EXPECT_EQ(row.mac, "02:ee:00:00:00:01");

  // A node that comes or goes is one write to one shard, wherever its name sorts.
  c.world.nodes.erase("node-1210");
  c.node("aaa");
  c.settle();
  c.beat("aaa");
  const core::Plan p = c.step();
  ASSERT_EQ(p.writes.size(), 1U);
  const auto* write = std::get_if<core::WriteClusterInfo>(&p.writes[0]);
  ASSERT_NE(write, nullptr);
  EXPECT_EQ(write->info.meta.name, "peers-1");
  EXPECT_EQ(write->info.status.peers.size(), 200U);

  for (int i = 400; i < 450; ++i) c.world.nodes.erase("node-" + std::to_string(1000 + i));
  c.settle();
  EXPECT_FALSE(c.world.cluster_infos.contains("peers-2"));
}

TEST(PlanDecision29, AHeartbeatWritesNothing) {
  Cluster c;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.start();
  c.beat_all();
  c.settle();  // what all have programmed is Realised
  c.pass(1000);
  c.beat_all();
  EXPECT_TRUE(c.step().writes.empty());
}

// 30. A gateway whose status was written often is left alone for a while; a move waits for nothing.
TEST(PlanDecision30, AHeldGatewayIsWrittenLaterWithAllThatCame) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1-10.0.0.9"});
  c.gateway("h", {"10.1.0.1-10.1.0.9"});
  c.rr("a", "g");
  c.start();
  const std::uint32_t next_id = c.info().next_egress_id;
  const std::int64_t until = c.input.now_ms + 250;
  c.input.held = {{"g", until}};
  c.rr("b", "g");
  c.rr("d", "g");
  c.drop_policy("a");
  EXPECT_TRUE(c.step().writes.empty()) << "no id is spent, no status of a policy is written";
  EXPECT_EQ(c.last.wake_ms, until);
  EXPECT_EQ(c.info().next_egress_id, next_id);
  c.rr("e", "h");
  c.settle();
  EXPECT_EQ(c.reason("e"), "Allocated") << "another gateway is not held";
  EXPECT_EQ(c.reason("b"), "");
  c.pass(250);
  int writes = 0;
  const core::Plan later = c.step();
  for (const core::Write& w : later.writes) {
    writes += std::holds_alternative<core::WriteGateway>(w) ? 1 : 0;
  }
  EXPECT_EQ(writes, 1);
  EXPECT_EQ(c.reason("b"), "Allocated");
  EXPECT_EQ(c.reason("d"), "Allocated");
}

TEST(PlanDecision30, AMoveDoesNotWait) {
  Cluster c;
  c.nodes(3);
  c.gateway("g", {"10.0.0.1-10.0.0.9"});
  c.rr("a", "g");
  c.start();
  const auto hold = [&c] { c.input.held = {{"g", c.input.now_ms + 250}}; };
  hold();
  c.world.nodes["n1"].ready = false;  // a failover
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n2");
  hold();
  c.tunnel("n2").meta.annotations[std::string(model::kDrainAnnotation)] = "";
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "n3");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "n2");
  c.pass(2000);  // the end of a planned move is part of it
  hold();
  c.settle();
  EXPECT_EQ(c.eip("g", "10.0.0.1")->moving_from, "");
  // Nobody can take it: nothing to write in a hurry.
  hold();
  c.tunnel("n3").status.phase = model::TunnelPhase::kFailed;
  EXPECT_TRUE(c.step().writes.empty());
}

// 30. A gateway holds at most 5,000 policies.
TEST(PlanDecision30, GatewayFull) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1"});
  for (int i = 0; i < 5001; ++i) c.policy("ns", "p" + std::to_string(i), "g");
  c.start();
  EXPECT_EQ(c.reason("p4999"), "Allocated");
  EXPECT_EQ(c.reason("p5000"), "GatewayFull") << "the youngest";
  EXPECT_EQ(c.eip("g", "10.0.0.1")->policies.size(), 5000U);
  c.drop_policy("p7");
  c.settle();
  EXPECT_EQ(c.reason("p5000"), "Allocated");
}

// 35. allowedNamespaces is checked by plan too.
TEST(PlanDecision35, AllowedNamespaces) {
  Cluster c;
  c.nodes(1);
  model::LabelSelector selector;
  selector.requirements = {{"team", model::Requirement::Op::kIn, {"red"}}};
  c.gateway("g", {"10.0.0.1"}).spec.allowed_namespaces = selector;
  c.world.namespaces["red"].meta.labels = {{"team", "red"}};
  c.world.namespaces["blue"].meta.labels = {{"team", "blue"}};
  c.policy("red", "a", "g");
  c.policy("blue", "a", "g");
  c.policy("unknown", "a", "g");
  c.policy("", "cluster", "g");
  c.start();
  EXPECT_EQ(c.status("a", "red").ipv4, "10.0.0.1");
  EXPECT_EQ(c.reason("a", "blue"), "NamespaceNotAllowed");
  EXPECT_EQ(c.reason("a", "unknown"), "NamespaceNotAllowed");
  EXPECT_EQ(c.status("cluster", "").ipv4, "10.0.0.1");
  c.world.namespaces["red"].meta.labels = {};
  c.settle();
  EXPECT_EQ(c.reason("a", "red"), "NamespaceNotAllowed");
  EXPECT_EQ(c.status("a", "red").ipv4, "");
}

}  // namespace
}  // namespace egw::test
