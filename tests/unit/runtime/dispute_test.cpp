// Two elections over the same objects: one leads, the other says so and waits.
#include <set>

#include "cluster.hpp"

namespace egw::test {
namespace {

using testing::HasSubstr;

class DisputeTest : public ClusterTest {
 protected:
  [[nodiscard]] json info() const {
    return content->read(Kind::kEgressClusterInfo, {"", "default"});
  }
  [[nodiscard]] std::uint64_t term() const { return info()["status"]["term"].get<std::uint64_t>(); }
  [[nodiscard]] std::set<std::string> leading() const {
    std::set<std::string> out;
    for (const auto& [name, rig] : controllers) {
      if (rig->controller->leading()) out.insert(name);
    }
    return out;
  }
  [[nodiscard]] std::vector<json> told() const {
    std::vector<json> out;
    for (const auto& [place, object] : content->objects) {
      if (place.first == Kind::kEvent && object.document.value("reason", "") == "TwoLeaders") {
        out.push_back(object.document);
      }
    }
    return out;
  }
  void TearDown() override {  // while there is the second office
    for (auto& [name, rig] : controllers) rig->controller->stop();
    loop.settle();
  }
  Office second{loop.executor()};
};

TEST_F(DisputeTest, TheOtherOneIsNamedAndLeftAlone) {
  start_cluster();
  const std::uint64_t before = term();
  start_controller("d1", second);  // leads by an office of its own, with a higher term
  loop.advance(20'000);
  EXPECT_EQ(leading(), std::set<std::string>{"d1"});
  EXPECT_EQ(office.holder, "c1") << "so that none of its replicas comes forward";
  testing::internal::CaptureStderr();
  loop.advance(570'000);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "told once in ten minutes";
  EXPECT_EQ(leading(), std::set<std::string>{"d1"});
  EXPECT_EQ(term(), before + 1) << "nobody has taken it since";
  const std::vector<json> events = told();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_THAT(events[0]["note"].get<std::string>(),
              HasSubstr("d1 writes with a higher term, so c1 stands back although it holds its own "
                        "office"));
  EXPECT_EQ(controllers["c1"]->controller->state()["otherLeader"], "d1");
  EXPECT_FALSE(info()["metadata"]
                   .value("annotations", json::object())
                   .contains(std::string(model::kWhoLeadsAnnotation)));
}

TEST_F(DisputeTest, WhenTheOtherOneGoesItTakesOffice) {
  start_cluster();
  start_controller("d1", second);
  loop.advance(30'000);
  ASSERT_EQ(leading(), std::set<std::string>{"d1"});
  const std::uint64_t before = term();
  loop.advance(300'000);  // questions are as far apart as they get
  controllers["d1"]->controller->stop();
  loop.advance(16'000);
  EXPECT_EQ(leading(), std::set<std::string>{"c1"});
  EXPECT_GT(term(), before);
}

TEST_F(DisputeTest, ASuccessorOfTheSameElectionIsNoDispute) {
  start_cluster();
  start_controller("c2");
  office.depose();
  loop.advance(20'000);
  EXPECT_EQ(leading(), std::set<std::string>{"c2"});
  EXPECT_TRUE(told().empty());
}

// The election has told that office is lost while a write was under way.
TEST_F(DisputeTest, AWriteThatASuccessorOvertakesIsNoDispute) {
  start_cluster();
  start_controller("c2");
  loop.advance(2000);
  auto& store = controllers["c1"]->store;
  store.before_write = [this](const host::WriteRequest& request) {
    if (request.kind == Kind::kEgressGateway && office.holder == "c1") office.depose();
  };
  bool overtaken = false;
  store.refuse = [&](const host::WriteRequest& request) -> std::optional<Error> {
    if (request.kind != Kind::kEgressPolicy) return std::nullopt;
    overtaken = !controllers["c1"]->controller->leading();
    return Error{Errc::kStaleTerm, "x", "a higher term has begun", 0};
  };
  add_policy("later");
  loop.settle();
  ASSERT_TRUE(overtaken);
  store.before_write = nullptr;
  store.refuse = nullptr;
  store.writes.clear();
  loop.advance(20'000);
  EXPECT_EQ(leading(), std::set<std::string>{"c2"});
  EXPECT_TRUE(told().empty());
  for (const auto& write : store.writes) {
    EXPECT_NE(write.kind, Kind::kEgressClusterInfo) << "it asks nobody who leads";
  }
  controllers["c2"]->controller->stop();
  loop.advance(1000);
  EXPECT_EQ(leading(), std::set<std::string>{"c1"});
}

// Terms of objects that are gone: the store remembers them, nobody else leads.
TEST_F(DisputeTest, ATermThatTheStoreAloneKnowsIsPassed) {
  start_cluster();
  const std::uint64_t high = term() + 700;
  controllers["c1"]->store.refuse =
      [high](const host::WriteRequest& request) -> std::optional<Error> {
    if (request.term == 0 || request.term >= high) return std::nullopt;
    return Error{Errc::kStaleTerm, "x", "a higher term has begun", 0};
  };
  add_policy("later");
  loop.advance(10'000);
  EXPECT_EQ(leading(), std::set<std::string>{"c1"});
  EXPECT_GE(term(), high);
}

}  // namespace
}  // namespace egw::test
