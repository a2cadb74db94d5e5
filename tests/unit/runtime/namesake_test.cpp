// Two agents of one name: who reports, who stands aside, and what both say (docs/adr/0033).
#include "egw/runtime/namesake.hpp"

#include "cluster.hpp"
#include "egw/model/conditions.hpp"

namespace egw::test {
namespace {

using runtime::Namesake;
using testing::HasSubstr;
using testing::IsEmpty;
using Part = Namesake::Part;

constexpr std::int64_t kPeriod = 1000;
constexpr std::int64_t kPatience = Namesake::kPeriods * kPeriod;

model::EgressTunnel::Status by(const std::string& identity, std::int64_t heartbeat) {
  model::EgressTunnel::Status status;
  model::Condition condition;
  condition.type = model::kReportedBy;
  condition.status = true;
  condition.message = identity;
  status.conditions.push_back(std::move(condition));
  status.last_heartbeat_ms = heartbeat;
  return status;
}

TEST(Namesake, ARestartedAgentIsTheSameWhateverItsHostIsCalled) {
  EXPECT_FALSE(runtime::agent_identity().empty());
  EXPECT_EQ(runtime::agent_identity(), runtime::agent_identity());
  Namesake one("b-1 on new-name", kPeriod);
  EXPECT_EQ(one.look(by("b-1 on old-name", 100'000), true, 5, 100'000), Part::kReports);
  EXPECT_EQ(one.look({}, true, 6, 100'000), Part::kReports) << "an agent that does not tell";
}

TEST(Namesake, AfterABootThatLastedNobodyIsWaitedFor) {
  Namesake one("b-1 on h", kPeriod);
  EXPECT_EQ(one.look(by("a-1 on h", 100'000), true, 5, 100'001 + kPatience), Part::kReports);
  EXPECT_EQ(one.look(by("a-1 on h", 100'000), true, 6, 100'001 + kPatience), Part::kReports);
}

TEST(Namesake, OneThatIsSilentIsReplacedOneThatBeatsIsNot) {
  Namesake one("b-1 on h", kPeriod);
  EXPECT_EQ(one.look(by("a-1 on g", 100'000), true, 0, 100'500), Part::kWaits);
  EXPECT_EQ(one.look(by("a-1 on g", 100'000), true, kPatience, 103'500), Part::kWaits);
  EXPECT_EQ(one.look(by("a-1 on g", 100'000), true, kPatience + 1, 103'501), Part::kReports);
  EXPECT_EQ(one.look(by("a-1 on g", 100'000), true, kPatience + 2, 103'502), Part::kReports);

  Namesake two("b-1 on h", kPeriod);
  EXPECT_EQ(two.look(by("a-1 on g", 100'000), true, 0, 100'500), Part::kWaits);
  EXPECT_EQ(two.look(by("a-1 on g", 101'000), true, 900, 101'400), Part::kAside);
  EXPECT_EQ(two.look(by("a-1 on g", 101'000), true, 900 + Namesake::kAbsentMs, 0), Part::kAside);
  EXPECT_EQ(two.look(by("a-1 on g", 101'000), true, 901 + Namesake::kAbsentMs, 0), Part::kReports);
}

TEST(Namesake, WithoutTheStoreNobodysSilenceCounts) {
  Namesake one("b-1 on h", kPeriod);
  EXPECT_EQ(one.look(by("a-1 on g", 100'000), true, 0, 100'500), Part::kWaits);
  EXPECT_EQ(one.look(by("a-1 on g", 100'000), false, 50'000, 150'500), Part::kWaits);
  EXPECT_EQ(one.look(by("a-1 on g", 100'000), true, 50'000 + kPatience, 0), Part::kWaits);
  EXPECT_EQ(one.look(by("a-1 on g", 100'000), true, 50'001 + kPatience, 0), Part::kReports);
}

TEST(Namesake, OfTwoThatHaveBothReportedTheLowerGoesOn) {
  Namesake low("a-1 on g", kPeriod);
  Namesake high("b-1 on h", kPeriod);
  low.reported();
  high.reported();
  EXPECT_EQ(low.look(by("b-1 on h", 100'000), true, 0, 100'000), Part::kReports);
  EXPECT_EQ(low.look(by("b-1 on h", 101'000), true, 1000, 101'000), Part::kReports);
  EXPECT_EQ(high.look(by("a-1 on g", 100'000), true, 0, 900'000), Part::kAside);
  EXPECT_EQ(high.look(by("a-1 on g", 101'000), true, 1000, 0), Part::kAside);
}

model::EgressTunnel::Status told(const std::string& word) {
  model::EgressTunnel::Status status;
  model::Condition condition;
  condition.type = model::kDuplicateAgent;
  condition.status = !word.empty();
  condition.message = word;
  status.conditions.push_back(std::move(condition));
  return status;
}

TEST(Namesake, AWordThatComesLateIsNoSecondDispute) {
  Namesake one("a-1 on g", kPeriod);
  std::int64_t now = 0;
  const auto disputed = [&](const std::string& word, std::int64_t later) {
    one.look(told(word), true, now += later, 0);
    return one.disputed();
  };
  EXPECT_FALSE(disputed("", 1));
  EXPECT_TRUE(disputed("at 1", 1));
  EXPECT_TRUE(disputed("", kPatience + 1)) << "it has been taken off";
  EXPECT_TRUE(disputed("at 2", 1));
  EXPECT_TRUE(disputed("", kPatience + 1));
  EXPECT_TRUE(disputed("", Namesake::kAbsentMs));
  EXPECT_FALSE(disputed("", 1));
  EXPECT_TRUE(disputed("at 3", 1));
}

class NamesakeTest : public ClusterTest {
 protected:
  // A second agent for the node g; what ran there before is given back.
  std::unique_ptr<AgentRig> start_second(const std::string& g, const std::string& identity,
                                         bool empty_kernel = false) {
    auto first = std::move(agents.at(g));
    agents.erase(g);
    identities[g] = identity;
    start_agent(g, empty_kernel);
    return first;
  }
  void start_with_identities() {
    for (const char* name : {"n1", "g1", "g2"})
      identities[name] = std::string("m-") + name + " on x";
    start_cluster();
  }
};

TEST_F(NamesakeTest, ASecondAgentStandsAsideAndBothSaySo) {
  start_with_identities();
  const std::string g = owner();
  auto first = start_second(g, "a-lower on y");
  AgentRig& second = *agents[g];
  const auto writes = first->store.writes.size();
  loop.advance(20'000);
  EXPECT_EQ(owner(), g);
  EXPECT_EQ(phase(g), "Ready");
  EXPECT_TRUE(first->announces(kEip));
  EXPECT_TRUE(first->agent->ready());
  EXPECT_FALSE(second.announces(kEip));
  EXPECT_FALSE(second.agent->ready());
  EXPECT_THAT(second.datapath.applies, IsEmpty()) << "its kernel held something: kept as it is";
  EXPECT_EQ((*condition(g, "ReportedBy"))["message"], "m-" + g + " on x");
  ASSERT_TRUE(condition_true(g, "DuplicateAgent"));
  EXPECT_THAT((*condition(g, "DuplicateAgent"))["message"], HasSubstr("a-lower on y"));
  EXPECT_LE(second.store.writes.size(), 21U);
  EXPECT_LE(first->store.writes.size(), writes + 21);
  EXPECT_EQ(second.agent->state()["otherAgent"], "m-" + g + " on x");
  second.agent->stop(true);  // no drain of the other's EIPs
  loop.settle();
  EXPECT_TRUE(second.ended);
  loop.advance(5000);
  EXPECT_FALSE(condition_true(g, "DuplicateAgent"));
  EXPECT_EQ(owner(), g);
  EXPECT_FALSE(tunnel(g)["metadata"].contains("annotations"));
  dead.push_back(std::move(agents[g]));
  agents[g] = std::move(first);
}

TEST_F(NamesakeTest, AWordThatMeetsTheOthersHeartbeatIsSaidAgain) {
  start_with_identities();
  const std::string g = owner();
  auto first = start_second(g, "a-lower on y");
  MemoryStore& store = agents[g]->store;
  int attempts = 0;
  store.before_write = [&](const host::WriteRequest& request) {
    if (request.kind == Kind::kEgressTunnel && attempts++ % 2 == 0) {
      content->put_status(Kind::kEgressTunnel, request.key, tunnel(g)["status"]);
    }
  };
  loop.advance(10'000);
  EXPECT_TRUE(condition_true(g, "DuplicateAgent"));
  EXPECT_GE(attempts, 10);
  EXPECT_LE(store.writes.size(), 11U) << "once per heartbeat";
  store.before_write = nullptr;
  dead.push_back(std::move(agents[g]));
  agents[g] = std::move(first);
}

TEST_F(NamesakeTest, ARestartTakesOverAtOnceAndSoDoesABootedNode) {
  start_with_identities();
  const std::string g = owner();
  kill_agent(g);
  start_agent(g);
  EXPECT_TRUE(agents[g]->announces(kEip)) << "no time passes";
  EXPECT_EQ(phase(g), "Ready");
  kill_agent(g);
  identities[g] = "booted on x";
  loop.advance(6000);  // longer than the other is waited for: its EIP has moved
  EXPECT_EQ(owner(), other(g));
  AgentRig& booted = start_agent(g, true);
  booted.datapath.open_gate();
  loop.advance(100);
  EXPECT_EQ(phase(g), "Ready");
  EXPECT_TRUE(booted.agent->ready());
}

TEST_F(NamesakeTest, AReplacedMachineIsProgrammedAtOnceAndReportsWhenTheFormerIsKnownToBeGone) {
  start_with_identities();
  kill_agent("n1");
  identities["n1"] = "new on z";
  AgentRig& fresh = start_agent("n1", true);
  fresh.datapath.open_gate();
  loop.advance(500);
  EXPECT_EQ(fresh.datapath.state.endpoints.size(), 1U) << "its pods wait for nobody";
  EXPECT_FALSE(fresh.agent->ready());
  loop.advance(4500);
  EXPECT_TRUE(fresh.agent->ready());
  EXPECT_EQ((*condition("n1", "ReportedBy"))["message"], "new on z");
  EXPECT_EQ(phase("n1"), "Ready");
}

}  // namespace
}  // namespace egw::test
