// Endpoint slices as the controller writes them: who, when, how often, and what becomes of them.
#include "cluster.hpp"

namespace egw::test {
namespace {

class SlicesTest : public ClusterTest {
 protected:
  [[nodiscard]] std::vector<json> slices(Kind kind = Kind::kEgressEndpointSlice) const {
    std::vector<json> found;
    for (const auto& [place, object] : content->objects) {
      if (place.first == kind) found.push_back(object.document);
    }
    return found;
  }
  [[nodiscard]] std::size_t endpoints() const {
    std::size_t count = 0;
    for (const json& slice : slices()) count += slice["endpoints"].size();
    return count;
  }
  [[nodiscard]] static std::size_t slice_writes(const ControllerRig& rig) {
    return static_cast<std::size_t>(
        std::count_if(rig.store.writes.begin(), rig.store.writes.end(), [](const auto& write) {
          return write.kind == Kind::kEgressEndpointSlice ||
                 write.kind == Kind::kEgressClusterEndpointSlice;
        }));
  }
  [[nodiscard]] static bool reads_pods(const ControllerRig& rig) {
    return std::any_of(rig.store.queries.begin(), rig.store.queries.end(),
                       [](const auto& query) { return query.kind == Kind::kPod; });
  }
};

TEST_F(SlicesTest, FollowPodsAndGoWithTheirPolicy) {
  settings.max_endpoints_per_slice = 2;
  start_cluster();
  loop.advance(5000);
  ASSERT_EQ(slices().size(), 1U);
  const json slice = slices()[0];
  EXPECT_EQ(slice["metadata"]["namespace"], "default");
  EXPECT_EQ(slice["metadata"]["labels"]["spidernet.io/policy-name"], "web");
  EXPECT_EQ(slice["metadata"]["ownerReferences"][0]["uid"],
            content->read(Kind::kEgressPolicy, {"default", "web"})["metadata"]["uid"]);
  EXPECT_EQ(slice["endpoints"], json::parse(R"([{"pod": "web-1", "ns": "default", "node": "n1",
                                                 "ipv4": ["10.244.1.5"]}])"));
  for (int i = 2; i <= 5; ++i) {
    add_pod("web-" + std::to_string(i), "g1", "10.244.1." + std::to_string(10 + i));
  }
  loop.advance(1000);
  EXPECT_EQ(slices().size(), 3U);
  EXPECT_EQ(endpoints(), 5U);
  const std::size_t before = slice_writes(*controllers["c1"]);
  content->remove(Kind::kPod, {"default", "web-3"});
  loop.advance(1000);
  EXPECT_EQ(endpoints(), 4U);
  EXPECT_EQ(slice_writes(*controllers["c1"]), before + 1);
  content->remove(Kind::kEgressPolicy, {"default", "web"});
  loop.advance(2000);
  EXPECT_TRUE(slices().empty());
}

TEST_F(SlicesTest, ANewLeaderWritesNothingAnew) {
  start_cluster();
  loop.advance(5000);
  start_controller("c2");
  EXPECT_FALSE(reads_pods(*controllers["c2"])) << "it does not lead";
  office.depose();
  loop.advance(10'000);
  ASSERT_EQ(office.holder, "c2");
  EXPECT_EQ(slice_writes(*controllers["c2"]), 0U);
  add_pod("web-2", "g1", "10.244.1.9");
  loop.advance(1000);
  EXPECT_EQ(slice_writes(*controllers["c2"]), 1U);
  EXPECT_EQ(endpoints(), 2U);
}

TEST_F(SlicesTest, SwitchedOffTheyGoAndNoPodIsRead) {
  start_cluster();
  loop.advance(5000);
  ASSERT_EQ(slices().size(), 1U);
  settings.endpoint_slices = false;
  start_controller("c2");
  office.depose();
  loop.advance(10'000);
  EXPECT_TRUE(slices().empty());
  EXPECT_FALSE(reads_pods(*controllers["c2"]));
}

TEST_F(SlicesTest, RefusedAndConflictingWritesAreMadeLater) {
  start_cluster();
  int conflicts = 3;
  bool deny = true;
  controllers["c1"]->store.refuse = [&](const host::WriteRequest& request) -> std::optional<Error> {
    if (request.kind != Kind::kEgressEndpointSlice) return std::nullopt;
    if (conflicts-- > 0) return Error{Errc::kConflict, request.key.name, "changed", 0};
    if (deny) return Error{Errc::kDenied, request.key.name, "the namespace is terminating", 0};
    return std::nullopt;
  };
  loop.advance(5000);
  ASSERT_EQ(slices().size(), 1U);
  add_policy("other");
  loop.advance(10'000);
  EXPECT_EQ(slices().size(), 1U);
  const int attempts = controllers["c1"]->store.attempts;
  loop.advance(20'000);
  EXPECT_EQ(controllers["c1"]->store.attempts, attempts) << "not asked again and again";
  deny = false;
  loop.advance(70'000);
  EXPECT_EQ(slices().size(), 2U);
}

TEST_F(SlicesTest, RepairedAfterAHandAndAfterAGapInTheStore) {
  start_cluster();
  loop.advance(5000);
  ASSERT_EQ(slices().size(), 1U);
  json edited = slices()[0];
  edited["endpoints"] = json::array();
  content->put(Kind::kEgressEndpointSlice, edited);
  loop.advance(1000);
  EXPECT_EQ(endpoints(), 1U);
  controllers["c1"]->store.disconnect();
  content->remove(Kind::kEgressEndpointSlice, {"default", slices()[0]["metadata"]["name"]});
  add_pod("web-2", "g1", "10.244.1.9");
  loop.advance(5000);
  controllers["c1"]->store.reconnect();
  loop.advance(5000);
  EXPECT_EQ(endpoints(), 2U);
}

}  // namespace
}  // namespace egw::test
