// What controllers and agents tell people: events, the health of plugins, metrics.
#include "cluster.hpp"
#include "egw/runtime/events.hpp"

namespace egw::test {
namespace {

using testing::HasSubstr;
using TellingTest = ClusterTest;

TEST_F(TellingTest, EventsTellWhatHappened) {
  start_cluster();
  loop.advance(2000);
  const std::string node = owner();
  const std::string next = other(node);
  ASSERT_FALSE(events("Ready").empty()) << "an agent's own phase";
  kill_agent(node);
  loop.advance(5000);
  ASSERT_EQ(owner(), next);
  const auto moved = events("EipMoved");
  ASSERT_EQ(moved.size(), 1U);
  EXPECT_EQ(moved[0]["regarding"]["kind"], "EgressGateway");
  EXPECT_EQ(moved[0]["regarding"]["name"], "egw");
  EXPECT_EQ(moved[0]["regarding"]["uid"],
            content->read(Kind::kEgressGateway, {"", "egw"})["metadata"]["uid"]);
  EXPECT_EQ(moved[0]["metadata"]["namespace"], "default");
  EXPECT_EQ(moved[0]["type"], "Normal");
  EXPECT_EQ(moved[0]["reportingController"], "egw-controller");
  EXPECT_THAT(
      moved[0]["note"].get<std::string>(),
      testing::MatchesRegex(".*" + std::string(kEip) + " moved from " + node + " to " + next +
                            ": HeartbeatTimeout \\([0-9]+ ms to store it, 300. ms "
                            "after " +
                            node + " was heard last\\)"));
  ASSERT_EQ(events("HeartbeatTimeout").size(), 1U);
  EXPECT_EQ(events("HeartbeatTimeout")[0]["type"], "Warning");

  // The same again is counted.
  content->put(Kind::kEgressPolicy, {{"apiVersion", kApi},
                                     {"kind", "EgressPolicy"},
                                     {"metadata", {{"name", "lost"}, {"namespace", "shop"}}},
                                     {"spec", {{"egressGatewayName", "nowhere"}}}});
  loop.advance(1000);
  ASSERT_EQ(events("GatewayNotFound").size(), 1U);
  EXPECT_EQ(events("GatewayNotFound")[0]["metadata"]["namespace"], "shop");
  net::Claim claim;
  claim.address = model::Address::parse(kEip).value();
  claim.mac = {2, 0, 0, 0, 0, 99};
  claim.interface = "eth0";
  for (int i = 0; i < 2; ++i) {
    agents[next]->agent->on_claim(claim);
    loop.advance(100'000);  // the conflict is over, then begins anew
  }
  const auto conflicts = events("EipConflict");
  ASSERT_EQ(conflicts.size(), 1U);
  EXPECT_EQ(conflicts[0]["series"]["count"], 2);
  EXPECT_EQ(conflicts[0]["type"], "Warning");
  EXPECT_GT(conflicts[0]["series"]["lastObservedTime"], conflicts[0]["eventTime"]);
  EXPECT_THAT(conflicts[0]["note"].get<std::string>(), HasSubstr("02:00:00:00:00:63"));
}

// client-go's series: what happens again soon is counted, later it is another story.
TEST_F(TellingTest, ASeriesEndsAfterAWhile) {
  start_cluster();
  loop.advance(2000);
  net::Claim claim;
  claim.address = model::Address::parse(kEip).value();
  claim.mac = {2, 0, 0, 0, 0, 99};
  claim.interface = std::string(2000, 'x') + "\xc3\xa4";
  const std::string node = owner();
  const auto conflict = [&](std::int64_t then_ms) {
    agents[node]->agent->on_claim(claim);
    loop.advance(then_ms);
  };
  conflict(300'000);
  conflict(300'000);
  conflict(runtime::EventRecorder::kSeriesMs + 1000);
  ASSERT_EQ(events("EipConflict").size(), 1U);
  EXPECT_EQ(events("EipConflict")[0]["series"]["count"], 3);
  conflict(1000);
  const auto told = events("EipConflict");
  ASSERT_EQ(told.size(), 2U);
  EXPECT_FALSE(told[0].contains("series") && told[1].contains("series"));
  for (const auto& event : told) {
    EXPECT_EQ(event["note"].get<std::string>().size(), 1024U) << "what the API server takes";
    EXPECT_EQ(event["action"], "Announce");
  }
}

TEST_F(TellingTest, EventsThatAreRefusedHoldUpNothing) {
  start_cluster();
  loop.advance(2000);
  controllers["c1"]->store.refuse = [](const host::WriteRequest& request) {
    return request.kind == Kind::kEvent
               ? std::optional<Error>(Error{Errc::kDenied, "event", "not allowed", 0})
               : std::nullopt;
  };
  const std::string node = owner();
  kill_agent(node);
  testing::internal::CaptureStderr();
  log.set_level(runtime::LogLevel::kWarn);
  loop.advance(4000);
  log.set_level(runtime::LogLevel::kError);
  const std::string told = testing::internal::GetCapturedStderr();
  const auto line = told.find("events are refused");
  EXPECT_NE(line, std::string::npos) << told;
  EXPECT_EQ(told.find("events are refused", line + 1), std::string::npos) << "once: " << told;
  EXPECT_EQ(owner(), other(node));
  EXPECT_TRUE(events("EipMoved").empty());
  EXPECT_THAT(controllers["c1"]->metrics.text(), HasSubstr("egw_events_dropped_total"));
  // A flood is cut off, not queued for ever.
  controllers["c1"]->store.refuse = nullptr;
  for (int i = 0; i < 1000; ++i) {
    content->put(Kind::kEgressPolicy,
                 {{"apiVersion", kApi},
                  {"kind", "EgressPolicy"},
                  {"metadata", {{"name", "lost-" + std::to_string(i)}, {"namespace", "shop"}}},
                  {"spec", {{"egressGatewayName", "nowhere"}}}});
  }
  loop.advance(60'000);
  const auto stored = events("GatewayNotFound").size();
  EXPECT_GE(stored, 100U);
  EXPECT_LE(stored, 300U);
}

TEST_F(TellingTest, PluginsThatAreNotWellAreShownAndMended) {
  start_cluster();
  loop.advance(2000);
  AgentRig& rig = *agents["n1"];
  const auto applies = rig.datapath.applies.size();
  EXPECT_THAT(rig.metrics.text(), HasSubstr("egw_plugin_healthy{plugin=\"datapath\"} 1"));
  rig.datapath.close_gate();
  rig.datapath.unwell = "the tunnel device does not exist";
  loop.advance(1100);
  EXPECT_FALSE(rig.agent->ready());
  EXPECT_TRUE(condition_true("n1", "Degraded"));
  EXPECT_EQ((*condition("n1", "Degraded"))["reason"], "Unwell");
  EXPECT_EQ(phase("n1"), "Ready");
  EXPECT_THAT(rig.metrics.text(), HasSubstr("egw_plugin_healthy{plugin=\"datapath\"} 0"));
  EXPECT_EQ(rig.agent->state()["plugins"]["stateStore"], "ok");
  EXPECT_THAT(rig.agent->state()["plugins"]["datapath"].get<std::string>(),
              HasSubstr("the tunnel device does not exist"));
  rig.datapath.open_gate();
  loop.advance(2000);
  EXPECT_GT(rig.datapath.applies.size(), applies);
  EXPECT_TRUE(rig.agent->ready());
  EXPECT_FALSE(condition_true("n1", "Degraded"));
  EXPECT_TRUE(controllers["c1"]->controller->ready());
  controllers["c1"]->store.disconnect();
  loop.advance(2000);
  EXPECT_FALSE(controllers["c1"]->controller->ready());
  EXPECT_TRUE(controllers["c1"]->controller->synced());
}

TEST_F(TellingTest, ScrapesTellWhatHappened) {
  start_cluster();
  const std::string node = owner();
  kill_agent(node);
  loop.advance(5000);
  const std::string text = controllers["c1"]->metrics.text();
  EXPECT_THAT(text, HasSubstr("egw_leader 1"));
  EXPECT_THAT(text, HasSubstr("egw_notices_total{reason=\"HeartbeatTimeout\"} 1"));
  EXPECT_THAT(text, HasSubstr("egw_tunnels{phase=\"HeartbeatTimeout\"} 1"));
  EXPECT_THAT(text, HasSubstr("egw_moves_total{why="));
}

// A newer version's fields, in the statuses that controller and agents write.
TEST_F(TellingTest, StatusFieldsOfANewerVersionStay) {
  start_cluster();
  const std::pair<Kind, model::Key> places[] = {{Kind::kEgressGateway, {"", "egw"}},
                                                {Kind::kEgressPolicy, {"default", "web"}},
                                                {Kind::kEgressTunnel, {"", "g1"}},
                                                {Kind::kEgressClusterInfo, {"", "default"}}};
  for (const auto& [kind, key] : places) {
    json status = content->read(kind, key)["status"];
    status["newer"] = {{"field", 1}};
    content->put_status(kind, key, status);
  }
  loop.advance(1000);
  add_policy("second");
  kill_agent(owner());
  loop.advance(6000);
  for (const auto& [kind, key] : places) {
    EXPECT_EQ(content->read(kind, key)["status"].value("newer", json()), json({{"field", 1}}))
        << key.name;
  }
}

// A status of what has been deleted meanwhile: nothing to be alarmed at, nor to be written again.
TEST_F(TellingTest, WhatHasGoneIsNoFailedWrite) {
  start_cluster();
  json gateway = content->read(Kind::kEgressGateway, {"", "egw"});
  gateway["metadata"]["finalizers"] = {std::string(model::kGatewayFinalizer)};
  content->put(Kind::kEgressGateway, gateway);
  content->remove(Kind::kEgressGateway, {"", "egw"});
  loop.advance(2000);
  int writes = 0;
  controllers["c1"]->store.refuse = [&](const host::WriteRequest& request) {
    if (request.kind == Kind::kEgressGateway) {
      ++writes;
      json now = content->read(Kind::kEgressGateway, {"", "egw"});
      if (!now.is_null()) {
        now["metadata"]["finalizers"] = json::array();
        content->put(Kind::kEgressGateway, now);
      }
    }
    return std::optional<Error>();
  };
  testing::internal::CaptureStderr();
  content->remove(Kind::kEgressPolicy, {"default", "web"});
  loop.advance(5000);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_GE(writes, 1);
  EXPECT_TRUE(content->read(Kind::kEgressGateway, {"", "egw"}).is_null());
}

}  // namespace
}  // namespace egw::test
