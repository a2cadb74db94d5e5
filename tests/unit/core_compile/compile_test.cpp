// What the compiler does with pods, policies and gateways, rule by rule.
#include "compile_fixture.hpp"

namespace egw::core::test {
namespace {

TEST_F(CompileTest, NodeConfigComesFromSettingsInterfacesAndOwnTunnel) {
  const auto& node = state().node;
  EXPECT_EQ(node.name, "n1");
  EXPECT_EQ(node.tunnel_device, "egress.vxlan");
  EXPECT_EQ(node.tunnel_vni, 100U);
  EXPECT_EQ(node.tunnel_port, 7789U);
  EXPECT_EQ(node.tunnel_v4, ip("172.31.0.1"));
  EXPECT_EQ(node.tunnel_v4_length, 16);
  EXPECT_EQ(node.tunnel_v6, ip("fd11::1"));
  EXPECT_EQ(node.tunnel_v6_length, 112);
  EXPECT_EQ(node.underlay, ip("10.6.0.1"));
  EXPECT_EQ(node.parent_device, "eth0");
  EXPECT_TRUE(node.enable_ipv6);
}

TEST_F(CompileTest, UnderlayFollowsTheSettingsFamily) {
  auto settings = dual_stack();
  settings.underlay = model::Family::kV6;
  Compiler v6(settings, local_node());
  compile(v6, world);
  EXPECT_EQ(v6.state().node.underlay, ip("fd00:6::1"));
  EXPECT_EQ(v6.state().peers.at("n2").underlay, ip("fd00:6::2"));
}

TEST_F(CompileTest, ClusterPrefixesAreSortedAndCoveredOnesRemoved) {
  auto& status = world.cluster_infos["default"].status;
  status.extra_cidr = {"10.244.0.0/16", "10.244.0.0/16", "not-a-prefix"};
  EXPECT_THAT(state().node.cluster_prefixes,
              ElementsAre(net("10.6.0.1/32"), net("10.96.0.0/12"), net("10.244.0.0/16"),
                          net("172.31.0.0/16"), net("fd11::/112")));
}

TEST_F(CompileTest, PeersAreTheOtherNodesOfAllShardsThatCanBeReached) {
  world.cluster_infos["peers-1"].status.peers = {peer_row("n4", 4)};
  world.cluster_infos["peers-1"].status.peers.push_back(peer_row("n5", 5));
  world.cluster_infos["peers-1"].status.peers.back().mac = "";
  const auto& peers = state().peers;
  ASSERT_EQ(peers.size(), 3U);
  EXPECT_EQ(peers.count("n1"), 0U);
  EXPECT_EQ(peers.count("n5"), 0U) << "no MAC: nothing can be sent there";
  EXPECT_EQ(peers.at("n4").underlay, ip("10.6.0.4"));
  EXPECT_EQ(peers.at("n4").mac, (model::Mac{2, 0xee, 10, 6, 0, 4}));
  EXPECT_THAT(peers.at("n4").pod_cidrs, ElementsAre(net("10.244.4.0/24")));
}

TEST_F(CompileTest, EgressOwnersAndWhoMayServe) {
  auto& gateway = world.gateways["gw"];
  gateway.status.node_list = {{"gone", "Ready", {eip(3, "10.6.1.58", "", {})}},
                              {"n1", "Ready", {eip(1, "10.6.1.56", "fd00:6:1::56", {})}},
                              {"n2", "Ready", {eip(2, "10.6.1.57", "", {})}}};
  gateway.status.unplaced = {eip(4, "10.6.1.59", "", {})};
  const auto& egresses = state().egresses;
  ASSERT_EQ(egresses.size(), 3U) << "nothing from unplaced";
  EXPECT_EQ(egresses.at(1).owner, model::Owner::kSelf);
  EXPECT_EQ(egresses.at(2).owner, model::Owner::kPeer);
  EXPECT_EQ(egresses.at(2).owner_peer, "n2");
  EXPECT_EQ(egresses.at(3).owner, model::Owner::kNone) << "not in the peer table";
  for (const auto& [id, egress] : egresses) EXPECT_TRUE(egress.may_serve);
  EXPECT_THAT(compiler.owned(), ElementsAre(OwnedEip{ip("10.6.1.56"), 1, false},
                                            OwnedEip{ip("fd00:6:1::56"), 1, false}));
  gateway.status.node_list.erase(gateway.status.node_list.begin() + 1);
  for (const auto& [id, egress] : state().egresses) EXPECT_FALSE(egress.may_serve);
}

TEST_F(CompileTest, UseNodeIpHasNoAddressesIsNotAnnouncedAndCoversBothFamilies) {
  auto p = policy("app", "web", "gw");
  p.spec.egress_ip.use_node_ip = true;
  p.spec.pod_selector = labelled("app=web");
  put(world, p);
  auto entry = eip(9, "", "", {p.ref()});
  entry.use_node_ip = true;
  world.gateways["gw"].spec.ippools = {};
  world.gateways["gw"].status.node_list = {{"n1", "Ready", {entry}}};
  put(world, pod("app", "a", {"10.244.1.5", "fd00:244::5"}, {{"app", "web"}}));
  const auto& egress = state().egresses.at(9);
  EXPECT_EQ(egress.kind, model::EgressKind::kNode);
  EXPECT_FALSE(egress.v4);
  EXPECT_THAT(compiler.owned(), IsEmpty());
  EXPECT_EQ(look_up(state(), "10.244.1.5", "203.0.113.1"), to(9));
  EXPECT_EQ(look_up(state(), "fd00:244::5", "2001:db8::1"), to(9));
}

TEST_F(CompileTest, PlannedMoveFromAKnownPeerIsTold) {
  auto entry = eip(1, "10.6.1.56", "", {});
  entry.moving_from = "n2";
  world.gateways["gw"].status.node_list = {{"n1", "Ready", {entry}}};
  compile(compiler, world);
  EXPECT_THAT(compiler.owned(), ElementsAre(OwnedEip{ip("10.6.1.56"), 1, true}));
}

TEST_F(CompileTest, TheFormerOwnerServesUntilAPlannedMoveIsOver) {
  auto entry = eip(1, "10.6.1.56", "", {});
  entry.moving_from = "n1";  // which has left the selector
  world.gateways["gw"].status.node_list = {{"n2", "Ready", {entry}}};
  compile(compiler, world);
  EXPECT_TRUE(state().egresses.at(1).may_serve);
  world.gateways["gw"].status.node_list.front().eips.front().moving_from.clear();
  compile(compiler, world);
  EXPECT_FALSE(state().egresses.at(1).may_serve);
}

// The datapath lets answers come both ways meanwhile, so that nobody waits for the announcement.
TEST_F(CompileTest, EverybodyTurnsToTheNewOwnerWhenAPlannedMoveBegins) {
  auto entry = eip(1, "10.6.1.56", "", {});
  entry.moving_from = "n1";
  world.gateways["gw"].status.node_list = {{"n1", "Ready", {}}, {"n2", "Ready", {entry}}};
  compile(compiler, world);
  EXPECT_EQ(state().egresses.at(1).owner, model::Owner::kPeer) << "the former owner";
  EXPECT_EQ(state().egresses.at(1).owner_peer, "n2");
  EXPECT_TRUE(state().egresses.at(1).may_serve) << "other nodes' pods turn when they can";
  EXPECT_THAT(compiler.owned(), IsEmpty());

  entry.moving_from = "n2";
  world.gateways["gw"].status.node_list = {{"n1", "Ready", {entry}}, {"n2", "Ready", {}}};
  compile(compiler, world);
  EXPECT_EQ(state().egresses.at(1).owner, model::Owner::kSelf) << "the new owner";
  EXPECT_EQ(state().egresses.at(1).owner_peer, "");
  EXPECT_THAT(compiler.owned(), ElementsAre(OwnedEip{ip("10.6.1.56"), 1, true}));
}

TEST_F(CompileTest, BadEgressIdsAreIgnoredAndReported) {
  add_policy("app", "zero", 0);
  add_policy("app", "big", 16384);
  add_policy("app", "first", 7);
  add_policy("app", "second", 7);
  put(world, pod("app", "a", {"10.244.1.5"}, {{"app", "zero"}}));
  put(world, pod("app", "b", {"10.244.1.6"}, {{"app", "second"}}));
  EXPECT_EQ(state().egresses.size(), 1U);
  EXPECT_THAT(reasons(), ElementsAre("big:InvalidEgressId", "second:DuplicateEgressId",
                                     "zero:InvalidEgressId"));
  EXPECT_EQ(look_up(state(), "10.244.1.5", "203.0.113.1"), kDropped);
  EXPECT_EQ(look_up(state(), "10.244.1.6", "203.0.113.1"), kDropped);
}

TEST_F(CompileTest, OnlyRunningPodsOfThisNodeWithTheirOwnAddressAreEndpoints) {
  add_policy("app", "web", 1);
  const model::Labels web{{"app", "web"}};
  put(world, pod("app", "good", {"10.244.1.1", "fd00:244::1"}, web));
  put(world, pod("other", "elsewhere", {"10.244.1.2"}, web));
  auto host = pod("app", "host", {"10.6.0.1"}, web);
  host.host_network = true;
  put(world, host);
  auto done = pod("app", "done", {"10.244.1.3"}, web);
  done.finished = true;
  put(world, done);
  auto terminating = pod("app", "terminating", {"10.244.1.4"}, web);
  terminating.meta.deleted_ms = 5000;
  put(world, terminating);
  auto remote = pod("app", "remote", {"10.244.2.1"}, web);
  remote.node_name = "n2";
  put(world, remote);
  put(world, pod("app", "unlabelled", {"10.244.1.6"}));
  EXPECT_THAT(endpoints(), ElementsAre("10.244.1.1", "10.244.1.4", "fd00:244::1"));
  EXPECT_THAT(compiler.policies_in_use(), ElementsAre(model::PolicyRef{"web", "app"}));
}

TEST_F(CompileTest, ReusedAddressBelongsToTheNewerPod) {
  add_policy("app", "web", 1);
  add_policy("app", "db", 2);
  auto old = pod("app", "z-old", {"10.244.1.1"}, {{"app", "web"}});
  old.meta.deleted_ms = 2000;
  put(world, old);
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), to(1));
  auto young = pod("app", "a-new", {"10.244.1.1"}, {{"app", "db"}});
  young.meta.created_ms = 3000;
  put(world, young);
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), to(2));
  young.meta.labels = {};  // the newer pod has no policy: neither has the address
  put(world, young);
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), kAlone);
  young.finished = true;
  put(world, young);
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.1"), to(1));
}

TEST_F(CompileTest, ClusterPolicySelectsByPodAndNamespaceLabels) {
  world.namespaces["red"].meta.labels = {{"team", "red"}};
  auto p = policy("", "by-team", "gw");
  p.spec.namespace_selector = labelled("team=red");
  p.spec.pod_selector = labelled("app in (web,api)");
  put(world, p);
  place(p.ref(), 1);
  auto by_name = policy("", "by-name", "gw");
  by_name.spec.namespace_selector = labelled("kubernetes.io/metadata.name=blue");
  put(world, by_name);
  place(by_name.ref(), 2);
  put(world, pod("red", "web", {"10.244.1.1"}, {{"app", "web"}}));
  put(world, pod("red", "db", {"10.244.1.2"}, {{"app", "db"}}));
  put(world, pod("green", "web", {"10.244.1.3"}, {{"app", "web"}}));
  put(world, pod("blue", "any", {"10.244.1.4"}));
  EXPECT_THAT(endpoints(), ElementsAre("10.244.1.1", "10.244.1.4"));
  EXPECT_EQ(look_up(state(), "10.244.1.4", "203.0.113.1"), to(2));

  world.namespaces["green"].meta.labels = {{"team", "red"}};
  model::Changes changes;
  changes.namespaces = {"green"};
  compiler.update(world, changes);
  EXPECT_EQ(look_up(compiler.state(), "10.244.1.3", "203.0.113.1"), to(1));
}

TEST_F(CompileTest, PolicyWithoutAnyCriterionSelectsNothing) {
  for (const auto* ns : {"app", ""}) {
    auto p = policy(ns, "nothing", "gw");
    put(world, p);
    place(p.ref(), ns[0] == 0 ? 1 : 2);
  }
  auto garbage = policy("app", "garbage", "gw");
  garbage.spec.pod_subnet = {"everything"};
  put(world, garbage);
  place(garbage.ref(), 3);
  put(world, pod("app", "a", {"10.244.1.1"}));
  EXPECT_THAT(endpoints(), IsEmpty());
  EXPECT_THAT(compiler.policies_in_use(), IsEmpty());
}

TEST_F(CompileTest, PodSubnetSelectsKnownPodsWithAnAddressInside) {
  auto p = policy("app", "net", "gw");
  p.spec.pod_subnet = {"10.244.1.0/28", "10.244.1.200"};
  put(world, p);
  place(p.ref(), 1);
  auto wide = policy("", "wide", "gw");
  wide.spec.pod_subnet = {"10.244.0.0/16"};
  wide.spec.dest_subnet = {"198.51.100.0/24"};
  put(world, wide);
  place(wide.ref(), 2);
  put(world, pod("app", "in", {"10.244.1.3", "fd00:244::3"}));
  put(world, pod("app", "single", {"10.244.1.200"}));
  put(world, pod("app", "out", {"10.244.1.16"}));
  put(world, pod("other", "foreign", {"10.244.1.4"}));
  EXPECT_EQ(look_up(state(), "10.244.1.3", "203.0.113.1"), to(1));
  EXPECT_EQ(look_up(state(), "fd00:244::3", "2001:db8::1"), to(1)) << "the pod is selected";
  EXPECT_EQ(look_up(state(), "10.244.1.200", "203.0.113.1"), to(1));
  EXPECT_EQ(look_up(state(), "10.244.1.16", "203.0.113.1"), kAlone);
  EXPECT_EQ(look_up(state(), "10.244.1.16", "198.51.100.9"), to(2));
  EXPECT_EQ(look_up(state(), "10.244.1.4", "203.0.113.1"), kAlone) << "another namespace's pod";
  EXPECT_EQ(look_up(state(), "10.244.1.4", "198.51.100.9"), to(2));
}

TEST_F(CompileTest, OrderIsPriorityThenNamespacedThenAgeThenName) {
  const auto add = [&](const std::string& ns, const std::string& name, std::int64_t priority,
                       std::int64_t created, std::uint32_t id) {
    auto p = policy(ns, name, "gw");
    p.spec.pod_selector = model::LabelSelector{};
    p.spec.priority = priority;
    p.meta.created_ms = created;
    put(world, p);
    place(p.ref(), id);
  };
  put(world, pod("app", "a", {"10.244.1.1"}));
  const auto answer = [&] { return look_up(state(), "10.244.1.1", "203.0.113.1"); };
  add("app", "y", 0, 2000, 1);
  EXPECT_EQ(answer(), to(1));
  add("", "cluster", 0, 1, 2);
  EXPECT_EQ(answer(), to(1)) << "namespaced before cluster-wide, however old";
  add("app", "z", 0, 1000, 3);
  EXPECT_EQ(answer(), to(3)) << "the older one";
  add("app", "x", 0, 1000, 4);
  EXPECT_EQ(answer(), to(4)) << "by name";
  add("", "first", -1, 9000, 5);
  EXPECT_EQ(answer(), to(5)) << "the lower number";
}

TEST_F(CompileTest, HigherPolicysPrefixHidesLongerOnesOfLowerPolicies) {
  const auto add = [&](const std::string& name, std::int64_t priority, std::uint32_t id,
                       std::vector<std::string> destinations) {
    auto p = policy("app", name, "gw");
    p.spec.pod_selector = model::LabelSelector{};
    p.spec.priority = priority;
    p.spec.dest_subnet = std::move(destinations);
    put(world, p);
    place(p.ref(), id);
  };
  add("high", 1, 1, {"198.51.100.0/24", "203.0.113.7"});
  add("low", 2, 2, {"198.51.100.128/25", "203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24"});
  put(world, pod("app", "a", {"10.244.1.1"}));
  EXPECT_EQ(look_up(state(), "10.244.1.1", "198.51.100.200"), to(1));
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.7"), to(1));
  EXPECT_EQ(look_up(state(), "10.244.1.1", "203.0.113.8"), to(2));
  EXPECT_EQ(look_up(state(), "10.244.1.1", "192.0.2.1"), to(2));
  EXPECT_EQ(look_up(state(), "10.244.1.1", "8.8.8.8"), kAlone);
  const auto& table = state().classes.begin()->second;
  EXPECT_EQ(table.size(), 4U) << "the /25 and the second /24 are gone";
  EXPECT_TRUE(std::is_sorted(table.begin(), table.end()));
}

TEST_F(CompileTest, DestinationThatDoesNotParseIsNotEverything) {
  add_policy("app", "web", 1, {"10.0.0.0/99"});
  put(world, pod("app", "a", {"10.244.1.1"}, {{"app", "web"}}));
  EXPECT_THAT(endpoints(), IsEmpty());
  EXPECT_THAT(state().classes, IsEmpty());
}

TEST_F(CompileTest, DisabledFamilyIsLeftAloneAndSaidWherePodsHaveIt) {
  auto settings = dual_stack();
  settings.enable_ipv6 = false;
  compiler = Compiler(settings, local_node());
  add_policy("app", "web", 1);
  put(world, pod("app", "a", {"10.244.1.1"}, {{"app", "web"}}));
  EXPECT_FALSE(state().egresses.at(1).v6);
  EXPECT_THAT(reasons(), IsEmpty()) << "a cluster without IPv6 hears nothing of it";
  put(world, pod("app", "b", {"10.244.1.2", "fd00:244::2"}, {{"app", "web"}}));
  EXPECT_THAT(endpoints(), ElementsAre("10.244.1.1", "10.244.1.2"));
  EXPECT_THAT(reasons(), ElementsAre("web:FamilyNotCovered"));
  world.pods.erase({"app", "b"});
  compile(compiler, world);
  EXPECT_THAT(reasons(), IsEmpty());
  add_policy("app", "six", 2, {"2001:db8::/32"});
  compile(compiler, world);
  EXPECT_THAT(reasons(), ElementsAre("six:FamilyNotCovered")) << "it asks for nothing else";
}

TEST_F(CompileTest, GatewayHoldsFiveThousandPolicies) {
  auto& entry = world.gateways["gw"].status.node_list[0].eips.emplace_back(
      eip(1, "10.6.1.56", "fd00:6:1::56", {}));
  for (int i = 0; i < 5002; ++i) {
    auto p = policy("app", "p" + std::to_string(100000 + i), "gw");
    p.spec.pod_selector = labelled("app=x" + std::to_string(i));
    p.spec.dest_subnet = {"198.51.100.0/24"};
    put(world, p);
    // The first by order has no place: those that have one go before.
    if (i > 0) entry.policies.push_back(p.ref());
  }
  put(world, pod("app", "a", {"10.244.1.1"}, {{"app", "x0"}}));
  put(world, pod("app", "b", {"10.244.1.2"}, {{"app", "x5000"}}));
  put(world, pod("app", "c", {"10.244.1.3"}, {{"app", "x5001"}}));
  EXPECT_EQ(look_up(state(), "10.244.1.1", "198.51.100.1"), kDropped);
  EXPECT_EQ(look_up(state(), "10.244.1.2", "198.51.100.1"), to(1));
  EXPECT_EQ(look_up(state(), "10.244.1.3", "198.51.100.1"), kDropped);
  EXPECT_THAT(reasons(), ElementsAre("p100000:GatewayFull", "p105001:GatewayFull"));
}

TEST_F(CompileTest, EqualTablesShareAClass) {
  auto& entry = world.gateways["gw"].status.node_list[0].eips.emplace_back(
      eip(1, "10.6.1.56", "fd00:6:1::56", {}));
  for (const auto* name : {"web", "db"}) {
    auto p = policy("app", name, "gw");
    p.spec.pod_selector = labelled(std::string("app=") + name);
    put(world, p);
    entry.policies.push_back(p.ref());
    put(world, pod("app", name, {name[0] == 'w' ? "10.244.1.1" : "10.244.1.2"}, {{"app", name}}));
  }
  EXPECT_EQ(state().classes.size(), 1U);
  EXPECT_EQ(compiler.policies_in_use().size(), 2U);
}

TEST_F(CompileTest, ClassIdsStartAtOneAreKeptAndReusedLast) {
  add_policy("app", "a", 1);
  put(world, pod("app", "a", {"10.244.1.1"}, {{"app", "a"}}));
  EXPECT_EQ(state().endpoints.at(ip("10.244.1.1")), 1U);
  add_policy("app", "b", 2);
  put(world, pod("app", "b", {"10.244.1.2"}, {{"app", "b"}}));
  EXPECT_EQ(state().endpoints.at(ip("10.244.1.1")), 1U);
  EXPECT_EQ(state().endpoints.at(ip("10.244.1.2")), 2U);
  world.pods.erase({"app", "a"});
  EXPECT_EQ(state().classes.count(1), 0U);
  put(world, pod("app", "a", {"10.244.1.1"}, {{"app", "a"}}));
  EXPECT_EQ(state().endpoints.at(ip("10.244.1.1")), 3U);
}

TEST_F(CompileTest, PolicyThatGetsItsEipKeepsItsClassId) {
  auto p = policy("app", "web", "gw");
  p.spec.pod_selector = model::LabelSelector{};
  put(world, p);
  put(world, pod("app", "a", {"10.244.1.1"}));
  compile(compiler, world);
  place(p.ref(), 5);
  model::Changes changes;
  changes.gateways = true;
  const auto change = compiler.update(world, changes);
  EXPECT_EQ(look_up(compiler.state(), "10.244.1.1", "203.0.113.1"), to(5));
  EXPECT_EQ(change.classes.size(), 1U);
  EXPECT_THAT(change.endpoints, IsEmpty()) << "the class changed, not the endpoint";
  EXPECT_THAT(change.deleted_classes, IsEmpty());
}

TEST_F(CompileTest, FailoverChangesEgressesOnly) {
  for (std::uint32_t i = 1; i <= 5; ++i) {
    add_policy("app", "p" + std::to_string(i), i);
    put(world, pod("app", "a" + std::to_string(i), {"10.244.1." + std::to_string(i)},
                   {{"app", "p" + std::to_string(i)}}));
  }
  compile(compiler, world);
  auto& nodes = world.gateways["gw"].status.node_list;
  nodes[0].status = "HeartbeatTimeout";
  std::swap(nodes[0].eips, nodes[1].eips);
  model::Changes changes;
  changes.gateways = true;
  const auto change = compiler.update(world, changes);
  EXPECT_EQ(change.egresses.size(), 5U);
  EXPECT_THAT(change.classes, IsEmpty());
  EXPECT_THAT(change.endpoints, IsEmpty());
  EXPECT_FALSE(change.node);
  EXPECT_EQ(compiler.state().egresses.at(3).owner_peer, "n3");
}

TEST_F(CompileTest, FirstChangeIsFullLaterOnesAreSteps) {
  add_policy("app", "web", 1);
  const auto first = compile(compiler, world);
  EXPECT_TRUE(first.full);
  EXPECT_EQ(first.base, 0U);
  EXPECT_EQ(first.generation, 1U);
  const auto nothing = compile(compiler, world);
  EXPECT_TRUE(nothing.empty());
  EXPECT_EQ(compiler.generation(), 1U);
  put(world, pod("app", "a", {"10.244.1.1"}, {{"app", "web"}}));
  model::Changes changes;
  changes.pods = {{"app", "a"}};
  const auto step = compiler.update(world, changes);
  EXPECT_FALSE(step.full);
  EXPECT_EQ(step.base, 1U);
  EXPECT_EQ(step.generation, 2U);
  EXPECT_EQ(step.endpoints.size(), 1U);
  EXPECT_EQ(step.classes.size(), 1U);
  EXPECT_THAT(step.peers, IsEmpty());
  model::NodeState held;
  apply(held, compiler.full());
  EXPECT_TRUE(same(held, compiler.state()));
  EXPECT_EQ(compiler.full().generation, 2U);
}

TEST_F(CompileTest, NewInterfacesAreTakenOverWithTheNextUpdate) {
  compile(compiler, world);
  auto local = local_node();
  local.parent_v4 = ip("10.6.0.99");
  compiler.set_local(local);
  const auto change = compiler.update(world, {});
  ASSERT_TRUE(change.node);
  EXPECT_EQ(change.node->underlay, ip("10.6.0.99"));
}

}  // namespace
}  // namespace egw::core::test
