// The controller, real loops and real plan, with a fault at every one of its writes in turn: it
// comes to the same state as without.
#include <algorithm>
#include <optional>

#include "cluster.hpp"

namespace egw::test {
namespace {

enum class Fault { kNone, kConflict, kUnavailable, kTimeout, kKilledBefore, kKilledAfter };

constexpr std::pair<Fault, const char*> kFaults[] = {
    {Fault::kConflict, "conflict"},
    {Fault::kUnavailable, "refused"},
    {Fault::kTimeout, "timeout, though the write was made"},
    {Fault::kKilledBefore, "killed before the write"},
    {Fault::kKilledAfter, "killed after the write"}};

class FaultsTest : public ClusterTest {
 public:
  // gtest makes one fixture a test; a sweep needs a cluster for each fault.
  void TestBody() override {}

  // What the controller's doing comes to; without numbers that count attempts.
  json run(Fault fault, int at) {
    fault_ = fault;
    at_ = at;
    settings.max_endpoints_per_slice = 2;
    content->put(
        Kind::kNamespace,
        {{"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", {{"name", "default"}}}});
    for (const char* name : {"n1", "g1", "g2"}) add_node(name, name[0] == 'g');
    lead("c1");
    for (const char* name : {"n1", "g1", "g2"}) start_agent(name);
    add_gateway();
    json gateway = content->read(Kind::kEgressGateway, {"", "egw"});
    gateway["metadata"]["finalizers"] = {std::string(model::kGatewayFinalizer)};  // admission's
    content->put(Kind::kEgressGateway, gateway);
    add_policy("web");
    for (int i = 1; i <= 3; ++i) add_pod("web-" + std::to_string(i), "n1", "10.244.1.5");
    pass(9000);
    add_rr_policy();
    pass(7000);
    kill_agent("g1");  // its EIPs move
    pass(9000);
    content->remove(Kind::kEgressPolicy, {"default", "web"});
    pass(7000);
    content->remove(Kind::kEgressGateway, {"", "egw"});  // waits for the other policy
    pass(7000);
    json held = summary();
    content->remove(Kind::kEgressPolicy, {"default", "rr"});
    pass(15'000);
    return {{"held", std::move(held)}, {"end", summary()}};
  }
  [[nodiscard]] int writes() const { return count_; }
  [[nodiscard]] bool happened() const { return fault_ == Fault::kNone; }
  ~FaultsTest() override = default;

 private:
  void lead(const std::string& identity) {
    ControllerRig& rig = start_controller(identity);
    leader_ = identity;
    const auto strike = [this](const host::WriteRequest&) -> std::optional<Error> {
      if (fault_ == Fault::kNone || count_ != at_) return std::nullopt;
      const Fault fault = std::exchange(fault_, Fault::kNone);
      if (fault == Fault::kConflict) return Error{Errc::kConflict, "x", "changed", 0};
      if (fault == Fault::kTimeout) return Error{Errc::kTimeout, "x", "no answer", 0};
      dies_ = fault != Fault::kUnavailable;
      return Error{Errc::kUnavailable, "x", "away", 0};
    };
    rig.store.refuse = [this, strike](const host::WriteRequest& request) -> std::optional<Error> {
      if (dies_) return Error{Errc::kUnavailable, "x", "the process is gone", 0};
      if (request.kind == Kind::kEvent) return std::nullopt;
      ++count_;
      const bool later = fault_ == Fault::kTimeout || fault_ == Fault::kKilledAfter;
      return later ? std::nullopt : strike(request);
    };
    rig.store.lose_answer = [this, strike](const host::WriteRequest& request) {
      const bool now = fault_ == Fault::kTimeout || fault_ == Fault::kKilledAfter;
      return now && request.kind != Kind::kEvent ? strike(request) : std::nullopt;
    };
  }
  void pass(std::int64_t ms) {
    for (std::int64_t t = 0; t < ms; t += 250) {
      loop.advance(250);
      if (!dies_) continue;
      controllers[leader_]->store.disconnect();
      controllers[leader_]->controller->stop();
      loop.settle();
      dies_ = false;
      lead("c" + std::to_string(controllers.size() + 1));
    }
  }
  void add_rr_policy() {
    json policy = make(kApi, "EgressPolicy", "rr",
                       {{"egressGatewayName", "egw"},
                        {"egressIP", {{"allocatorPolicy", "rr"}}},
                        {"appliedTo", {{"podSelector", {{"matchLabels", {{"app", "web"}}}}}}},
                        {"priority", 5}});
    policy["metadata"]["namespace"] = "default";
    content->put(Kind::kEgressPolicy, policy);
  }

  // Kind, name -> what stays the same whatever has happened on the way.
  [[nodiscard]] json summary() const {
    json out = json::object();
    for (const auto& [place, object] : content->objects) {
      if (place.first == Kind::kEvent) continue;
      json document = object.document;
      if (place.first == Kind::kEgressEndpointSlice) {
        add_slice(out, place.second.to_string(), document["endpoints"]);
        continue;
      }
      json& status = document["status"];
      for (const char* counter : {"term", "leader", "nextEgressId", "retired", "lastHeartbeatTime",
                                  "realised", "roundRobinLast"}) {
        if (status.is_object()) status.erase(counter);
      }
      json conditions = json::object();
      if (status.is_object() && status.contains("conditions")) {
        for (const auto& c : status["conditions"]) {
          if (c["type"] == "LastMove") continue;
          conditions[c["type"].get<std::string>()] = {c["status"], c.value("reason", "")};
        }
        status.erase("conditions");
      }
      if (status.is_object()) {
        for (const char* list : {"nodeList", "unplaced"}) forget_numbers(status, list);
      }
      out[std::string(model::info(place.first).kind) + " " + place.second.to_string()] = {
          {"spec", document.value("spec", json())},
          {"status", status},
          {"conditions", conditions},
          {"finalizers", document["metadata"].value("finalizers", json())},
          {"annotations", document["metadata"].value("annotations", json())}};
    }
    return out;
  }
  // Which of a policy's slices a pod stands in follows from the order in which the leader met it.
  static void add_slice(json& out, const std::string& name, const json& endpoints) {
    EXPECT_LE(endpoints.size(), 2U) << name;
    json& all = out["slices " + name.substr(0, name.rfind('-'))];
    if (all.is_null()) all = {{"count", 0}, {"pods", json::array()}};
    all["count"] = all["count"].get<int>() + 1;
    json& pods = all["pods"];
    for (const json& endpoint : endpoints) pods.push_back(endpoint);
    std::sort(pods.begin(), pods.end());
  }
  static void forget_numbers(json& status, const char* list) {
    if (!status.contains(list)) return;
    for (auto& entry : status[list]) {
      entry.erase("id");
      entry.erase("epoch");
      if (!entry.contains("eips")) continue;
      for (auto& eip : entry["eips"]) {
        eip.erase("id");
        eip.erase("epoch");
      }
    }
  }

  Fault fault_ = Fault::kNone;
  int at_ = 0;
  int count_ = 0;
  bool dies_ = false;
  std::string leader_;
};

class ControllerFaults : public testing::TestWithParam<std::pair<Fault, const char*>> {};

TEST_P(ControllerFaults, AtAnyWriteChangeNothingInTheEnd) {
  const auto [fault, name] = GetParam();
  json expected;
  int writes = 0;
  {
    FaultsTest calm;
    expected = calm.run(Fault::kNone, 0);
    writes = calm.writes();
  }
  ASSERT_GE(writes, 20) << "the history makes writes of every sort";
  ASSERT_TRUE(expected["held"].contains("EgressGateway egw")) << expected.dump(1);
  ASSERT_FALSE(expected["end"].contains("EgressGateway egw")) << expected.dump(1);
  EXPECT_EQ(expected["held"]["EgressGateway egw"]["conditions"]["Realised"][0], "True");
  EXPECT_EQ(expected["held"]["EgressPolicy default/rr"]["conditions"]["Realised"][0], "True");
  int missed = 0;
  for (int at = 1; at <= writes; ++at) {
    FaultsTest cluster;
    const json found = cluster.run(fault, at);
    missed += cluster.happened() ? 0 : 1;
    ASSERT_EQ(found, expected) << name << " at write " << at << ": "
                               << json::diff(expected, found).dump(1);
  }
  EXPECT_EQ(missed, 0) << name;
}

INSTANTIATE_TEST_SUITE_P(, ControllerFaults, testing::ValuesIn(kFaults));

}  // namespace
}  // namespace egw::test
