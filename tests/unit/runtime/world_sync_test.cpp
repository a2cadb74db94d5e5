// WorldSync against a store in memory: snapshots, resync, broken objects, reconnection.
#include "egw/runtime/world_sync.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory_store.hpp"
#include "virtual_time.hpp"

namespace egw::runtime {
namespace {

using model::Kind;
using nlohmann::json;
using testing::ElementsAre;

json pod(const std::string& name, const std::string& node, const std::string& ip) {
  return {{"apiVersion", "v1"},
          {"kind", "Pod"},
          {"metadata", {{"name", name}, {"namespace", "default"}}},
          {"spec", {{"nodeName", node}}},
          {"status", {{"podIP", ip}}}};
}

json gateway(const std::string& name) {
  return {{"apiVersion", "egressgateway.spidernet.io/v1beta1"},
          {"kind", "EgressGateway"},
          {"metadata", {{"name", name}}},
          {"spec",
           {{"ippools", {{"ipv4", {"10.6.1.55"}}}},
            {"nodeSelector", {{"selector", {{"matchLabels", {{"egress", "true"}}}}}}}}}};
}

class WorldSyncTest : public testing::Test {
 protected:
  WorldSyncTest() {
    host::Query gateways;
    gateways.kind = Kind::kEgressGateway;
    host::Query pods;
    pods.kind = Kind::kPod;
    pods.fields = "spec.nodeName=n1";
    WorldSync::Options options;
    options.queries = {gateways, pods};
    options.on_change = [this](std::optional<Kind>) { ++woken; };
    sync = std::make_unique<WorldSync>(loop.executor(), loop.clock, log, metrics, store,
                                       std::move(options));
  }
  ~WorldSyncTest() override {
    sync.reset();
    loop.settle();
  }
  void start() {
    sync->start();
    loop.settle();
  }

  test::VirtualLoop loop;
  Logger log{LogFormat::kText, LogLevel::kError};
  Metrics metrics{"agent", "test"};
  std::shared_ptr<test::MemoryContent> content = std::make_shared<test::MemoryContent>();
  test::MemoryStore store{loop.executor(), content};
  std::unique_ptr<WorldSync> sync;
  int woken = 0;
};

TEST_F(WorldSyncTest, SnapshotThenChanges) {
  content->put(Kind::kPod, pod("a", "n1", "10.1.0.1"));
  content->put(Kind::kPod, pod("b", "n2", "10.1.0.2"));
  EXPECT_FALSE(sync->synced());
  start();
  EXPECT_TRUE(sync->synced());
  EXPECT_TRUE(sync->connected());
  EXPECT_TRUE(sync->take_changes().everything);
  ASSERT_EQ(sync->world().pods.size(), 1U);
  EXPECT_EQ(sync->world().pods.begin()->first.name, "a");

  const int before = woken;
  content->put(Kind::kPod, pod("c", "n1", "10.1.0.3"));
  content->put(Kind::kPod, pod("c", "n1", "10.1.0.3"));  // unchanged: no event
  loop.settle();
  EXPECT_EQ(woken, before + 1);
  const auto changes = sync->take_changes();
  EXPECT_FALSE(changes.everything);
  EXPECT_THAT(changes.pods, ElementsAre(model::Key{"default", "c"}));
  EXPECT_EQ(sync->revision(Kind::kPod), content->revision);

  content->remove(Kind::kPod, {"default", "c"});
  loop.settle();
  EXPECT_THAT(sync->take_changes().pods, ElementsAre(model::Key{"default", "c"}));
  EXPECT_EQ(sync->world().pods.size(), 1U);
}

// A new condition of a gateway is no new placement; a Node that was only looked at is no change.
TEST_F(WorldSyncTest, WhatIsSaidOfAnObjectIsToldFromWhatItIs) {
  host::Query gateways, nodes;
  gateways.kind = Kind::kEgressGateway;
  nodes.kind = Kind::kNode;
  WorldSync::Options options;
  options.queries = {gateways, nodes};
  options.on_change = [](std::optional<Kind>) {};
  sync = std::make_unique<WorldSync>(loop.executor(), loop.clock, log, metrics, store,
                                     std::move(options));
  content->put(Kind::kEgressGateway, gateway("g"));
  json node = {{"apiVersion", "v1"}, {"kind", "Node"}, {"metadata", {{"name", "n1"}}}};
  content->put(Kind::kNode, node);
  start();
  (void)sync->take_changes();

  json status = {{"conditions", {{{"type", "Realised"}, {"status", "True"}}}}};
  content->put_status(Kind::kEgressGateway, {"", "g"}, status);
  loop.settle();
  model::Changes changes = sync->take_changes();
  EXPECT_TRUE(changes.gateways);
  EXPECT_FALSE(changes.placements);
  status["nodeList"] = {{{"name", "n1"}, {"eips", {{{"ipv4", "10.6.1.55"}, {"egressID", 7}}}}}};
  content->put_status(Kind::kEgressGateway, {"", "g"}, status);
  loop.settle();
  EXPECT_TRUE(sync->take_changes().placements);
  content->remove(Kind::kEgressGateway, {"", "g"});
  loop.settle();
  EXPECT_TRUE(sync->take_changes().placements);

  const auto before = sync->world().nodes.at("n1").meta.revision;
  content->put_status(Kind::kNode, {"", "n1"}, {{"images", {{{"sizeBytes", 7}}}}});
  loop.settle();
  EXPECT_FALSE(sync->pending());
  EXPECT_GT(sync->world().nodes.at("n1").meta.revision, before);
  node["metadata"]["labels"]["egress"] = "true";
  content->put(Kind::kNode, node);
  loop.settle();
  EXPECT_TRUE(sync->take_changes().nodes);
}

// They can be large, and nothing here reads those of Pods.
// Not every Pod can be read from its text: those come as documents.
TEST_F(WorldSyncTest, PodsComeReadOrAsDocuments) {
  content->put_raw(Kind::kPod, {"default", "plain"}, pod("plain", "n1", "10.1.0.1"));
  json accented = pod("accented", "n1", "10.1.0.2");
  accented["metadata"]["annotations"] = {{"example.com/title", "caf\u00e9"}};
  content->put_raw(Kind::kPod, {"default", "accented"}, accented);
  start();
  ASSERT_EQ(sync->world().pods.size(), 2U);
  (void)sync->take_changes();
  for (const char* name : {"plain", "accented"}) {
    const model::Key key{"default", name};
    EXPECT_EQ(sync->world().pods.at(key).node_name, "n1");
    EXPECT_GT(sync->world().pods.at(key).meta.revision, 0U);
    json broken = content->read(Kind::kPod, key);
    broken["status"]["podIP"] = "10.1.0.500";
    content->put_raw(Kind::kPod, key, broken);
    loop.settle();
    EXPECT_EQ(sync->world().pods.at(key).ips.size(), 1U);  // the last good version
    EXPECT_FALSE(sync->pending());
    broken["status"]["podIP"] = "10.1.0.5";
    content->put_raw(Kind::kPod, key, broken);
    loop.settle();
    EXPECT_EQ(sync->world().pods.at(key).ips.at(0).to_string(), "10.1.0.5");
    EXPECT_THAT(sync->take_changes().pods, ElementsAre(key));
    content->remove(Kind::kPod, key);
    loop.settle();
    EXPECT_FALSE(sync->world().pods.contains(key));
    (void)sync->take_changes();
  }
}

TEST_F(WorldSyncTest, AnnotationsOfPodsAreNotKept) {
  json annotated = pod("a", "n1", "10.1.0.1");
  annotated["metadata"]["annotations"] = {{"example.com/large", std::string(1000, 'x')}};
  json moving = gateway("g");
  moving["metadata"]["annotations"] = {{"example.com/kept", "yes"}};
  content->put(Kind::kPod, annotated);
  content->put(Kind::kEgressGateway, moving);
  start();
  ASSERT_EQ(sync->world().pods.size(), 1U);
  EXPECT_TRUE(sync->world().pods.begin()->second.meta.annotations.empty());
  ASSERT_EQ(sync->world().gateways.size(), 1U);
  EXPECT_EQ(sync->world().gateways.begin()->second.meta.annotations.size(), 1U);
}

json policy(const std::string& eip, std::int64_t priority) {
  return {{"apiVersion", "egressgateway.spidernet.io/v1beta1"},
          {"kind", "EgressPolicy"},
          {"metadata", {{"name", "p"}, {"namespace", "default"}}},
          {"spec", {{"priority", priority}, {"appliedTo", {{"podSelector", json::object()}}}}},
          {"status", {{"eip", {{"ipv4", eip}}}, {"node", "n1"}}}};
}

TEST_F(WorldSyncTest, WhereNobodyLooksAtStatusesOfPoliciesTheyAreNoChange) {
  host::Query policies;
  policies.kind = Kind::kEgressPolicy;
  WorldSync::Options options;
  options.queries = {policies};
  options.policy_statuses = false;
  options.on_change = [this](std::optional<Kind>) { ++woken; };
  sync = std::make_unique<WorldSync>(loop.executor(), loop.clock, log, metrics, store,
                                     std::move(options));
  content->put_raw(Kind::kEgressPolicy, {"default", "p"}, policy("10.6.1.55", 1));
  start();
  (void)sync->take_changes();
  const int before = woken;
  content->put_raw(Kind::kEgressPolicy, {"default", "p"}, policy("10.6.1.56", 1));
  loop.settle();
  EXPECT_FALSE(sync->pending());
  EXPECT_EQ(woken, before);
  EXPECT_EQ(sync->revision(Kind::kEgressPolicy), content->revision);
  EXPECT_EQ(sync->world().policies.begin()->second.status, model::EgressPolicy::Status());
  content->put_raw(Kind::kEgressPolicy, {"default", "p"}, policy("10.6.1.56", 2));
  loop.settle();
  EXPECT_TRUE(sync->take_changes().policies);
  EXPECT_EQ(woken, before + 1);
  // But for one word: that the leader gives a policy of failurePolicy NodeIP no EIP.
  json refused = policy("", 2);
  refused["status"]["conditions"] = {{{"type", "Allocated"}, {"status", "False"}}};
  content->put_raw(Kind::kEgressPolicy, {"default", "p"}, refused);
  loop.settle();
  EXPECT_FALSE(sync->pending());
  refused["spec"]["failurePolicy"] = "NodeIP";
  content->put_raw(Kind::kEgressPolicy, {"default", "p"}, refused);
  loop.settle();
  EXPECT_TRUE(sync->take_changes().policies);
  EXPECT_TRUE(sync->world().policies.begin()->second.is_refused());
  refused["status"]["conditions"][0]["status"] = "True";
  content->put_raw(Kind::kEgressPolicy, {"default", "p"}, refused);
  loop.settle();
  EXPECT_TRUE(sync->take_changes().policies);
  EXPECT_FALSE(sync->world().policies.begin()->second.is_refused());
}

TEST_F(WorldSyncTest, BrokenObjectKeepsItsLastGoodVersion) {
  content->put(Kind::kEgressGateway, gateway("good"));
  content->put(Kind::kEgressGateway, gateway("other"));
  start();
  (void)sync->take_changes();
  json broken = content->read(Kind::kEgressGateway, {"", "good"});
  broken["spec"]["ippools"]["ipv4"] = 7;
  content->put_raw(Kind::kEgressGateway, {"", "good"}, broken);
  auto more = gateway("other");
  more["spec"]["clusterDefault"] = true;
  content->put(Kind::kEgressGateway, more);
  loop.settle();
  EXPECT_THAT(sync->world().gateways.at("good").spec.ippools.ipv4, ElementsAre("10.6.1.55"));
  EXPECT_TRUE(sync->world().gateways.at("other").spec.cluster_default);
  EXPECT_NE(metrics.text().find("egw_decode_errors_total{kind=\"EgressGateway\"} 1"),
            std::string::npos);

  // Nor does a resync drop it.
  store.disconnect();
  loop.settle();
  store.reconnect();
  loop.settle();
  EXPECT_TRUE(sync->world().gateways.contains("good"));
}

TEST_F(WorldSyncTest, AGatewayThatCouldNeverBeReadIsKnownToBeThere) {
  json broken = gateway("g");
  broken["spec"]["ippools"]["ipv4"] = 7;
  broken["status"] = {{"nodeList", {{{"name", "n1"}, {"eips", {{{"id", 4}}}}}}}};
  content->put_raw(Kind::kEgressGateway, {"", "g"}, broken);
  content->put_raw(Kind::kEgressGateway, {"", "h"}, broken);
  start();
  const auto& unreadable = sync->world().unreadable_gateways;
  EXPECT_TRUE(sync->world().gateways.empty());
  ASSERT_EQ(unreadable.size(), 2U);
  EXPECT_EQ(unreadable.at("g").status.node_list.at(0).eips.at(0).id, 4U);
  (void)sync->take_changes();
  content->put_raw(Kind::kEgressGateway, {"", "g"}, gateway("g"));
  content->remove(Kind::kEgressGateway, {"", "h"});
  loop.settle();
  EXPECT_TRUE(sync->take_changes().gateways);
  EXPECT_TRUE(unreadable.empty());
  EXPECT_TRUE(sync->world().gateways.contains("g"));
}

// A status is the leader's to write anew: what was last known of it stays in force until then.
TEST_F(WorldSyncTest, ADamagedStatusHidesNothing) {
  const auto with_status = [](const std::string& name, const json& status) {
    json out = gateway(name);
    out["status"] = status;
    return out;
  };
  const json good = json::parse(
      R"({"term": 3, "nodeList": [{"name": "n1", "eips": [{"ipv4": "10.6.1.55", "id": 4}]}]})");
  json bad = good;
  bad["nodeList"][0]["eips"][0]["id"] = "x";
  content->put_raw(Kind::kEgressGateway, {"", "known"}, with_status("known", good));
  content->put_raw(Kind::kEgressGateway, {"", "new"}, with_status("new", bad));
  start();
  (void)sync->take_changes();
  const auto& gateways = sync->world().gateways;
  ASSERT_TRUE(gateways.contains("new"));
  EXPECT_TRUE(gateways.at("new").status_damaged);
  EXPECT_EQ(gateways.at("new").status.term, 3U);
  EXPECT_EQ(gateways.at("new").status.node_list.at(0).eips.at(0).ipv4, "10.6.1.55");
  EXPECT_FALSE(gateways.at("known").status_damaged);

  json changed = with_status("known", bad);
  changed["spec"]["clusterDefault"] = true;
  content->put_raw(Kind::kEgressGateway, {"", "known"}, changed);
  loop.settle();
  EXPECT_TRUE(sync->take_changes().gateways);
  EXPECT_TRUE(gateways.at("known").status_damaged);
  EXPECT_TRUE(gateways.at("known").spec.cluster_default);
  EXPECT_EQ(gateways.at("known").status.node_list.at(0).eips.at(0).id, 4U);
  content->put_raw(Kind::kEgressGateway, {"", "known"}, with_status("known", good));
  loop.settle();
  EXPECT_FALSE(gateways.at("known").status_damaged);
}

TEST_F(WorldSyncTest, StoreAwayKeepsTheWorldAndResyncPrunes) {
  content->put(Kind::kEgressGateway, gateway("stays"));
  content->put(Kind::kEgressGateway, gateway("goes"));
  start();
  (void)sync->take_changes();
  loop.advance(500);
  const auto first_since = sync->connected_since_ms();
  store.disconnect();
  loop.settle();
  EXPECT_FALSE(sync->connected());
  EXPECT_EQ(sync->connected_since_ms(), 0);
  EXPECT_EQ(sync->trouble(), "cut off");
  EXPECT_TRUE(sync->synced());
  EXPECT_EQ(sync->world().gateways.size(), 2U);
  EXPECT_FALSE(sync->pending());

  content->remove(Kind::kEgressGateway, {"", "goes"});
  content->put(Kind::kEgressGateway, gateway("comes"));
  loop.advance(1000);
  EXPECT_EQ(sync->world().gateways.size(), 2U) << "no event while disconnected";
  store.reconnect();
  loop.settle();
  EXPECT_TRUE(sync->connected());
  EXPECT_GT(sync->connected_since_ms(), first_since);
  EXPECT_TRUE(sync->world().gateways.contains("comes"));
  EXPECT_FALSE(sync->world().gateways.contains("goes"));
  EXPECT_TRUE(sync->take_changes().everything);
}

TEST_F(WorldSyncTest, RefusedSubscriptionIsTriedAgain) {
  store.refuse_subscriptions = 3;
  start();
  EXPECT_FALSE(sync->synced());
  loop.advance(10'000);
  EXPECT_TRUE(sync->synced());
}

TEST_F(WorldSyncTest, AdoptedObjectIsNotOvertakenByAnOlderEvent) {
  start();
  const auto first = content->put(Kind::kEgressGateway, gateway("g"));  // its event is under way
  auto newer = gateway("g");
  newer["spec"]["clusterDefault"] = true;
  const auto second = content->put(Kind::kEgressGateway, newer);
  ASSERT_GT(second.revision, first.revision);
  const auto external = sync->external_changes();
  sync->adopt(Kind::kEgressGateway, second);
  EXPECT_TRUE(sync->world().gateways.at("g").spec.cluster_default);
  EXPECT_TRUE(sync->take_changes().gateways);
  loop.settle();
  EXPECT_TRUE(sync->world().gateways.at("g").spec.cluster_default);
  EXPECT_FALSE(sync->pending()) << "both events bring nothing new";
  EXPECT_EQ(sync->external_changes(), external);
}

TEST_F(WorldSyncTest, AnAnswerThatADeletionHasOvertakenBringsNothingBack) {
  const auto written = content->put(Kind::kEgressGateway, gateway("g"));
  start();
  content->remove(Kind::kEgressGateway, {"", "g"});
  loop.settle();
  ASSERT_TRUE(sync->world().gateways.empty());
  sync->adopt(Kind::kEgressGateway, written);
  EXPECT_TRUE(sync->world().gateways.empty());
}

TEST_F(WorldSyncTest, NothingArrivesAfterStop) {
  start();
  const int before = woken;
  content->put(Kind::kEgressGateway, gateway("late"));
  sync->stop();
  loop.settle();
  EXPECT_EQ(woken, before);
  EXPECT_TRUE(sync->world().gateways.empty());
}

}  // namespace
}  // namespace egw::runtime
