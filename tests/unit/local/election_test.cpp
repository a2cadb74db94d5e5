// The leader election with real processes: killed, stopped, cut off, resigning.
#include "election.hpp"

#include <gmock/gmock.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "support.hpp"

namespace egw::local::test {
namespace {

using std::chrono::steady_clock;
using testing::HasSubstr;
using testing::StartsWith;

double ms_since(steady_clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(steady_clock::now() - begin).count();
}

class Candidate : public Process {
 public:
  Candidate(const std::string& db, const std::string& id, const std::string& timeout = "15",
            const std::string& gate = {})
      : Process(gate.empty() ? std::vector<std::string>{"campaign", db, id, timeout}
                             : std::vector<std::string>{"campaign", db, id, timeout, gate}) {}
  // Skips lines until one begins so; empty if none comes.
  std::string until(const std::string& begin, std::chrono::milliseconds longest = 10s) {
    const auto end = steady_clock::now() + longest;
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - steady_clock::now());
      const std::string next = line(left);
      if (next.empty() || next.substr(0, begin.size()) == begin) return next;
    }
  }
};

class Election : public testing::Test {
 protected:
  Folder folder;
};

TEST_F(Election, TheFirstLeadsAndTheOthersObserveIt) {
  Candidate a(folder.db(), "a");
  EXPECT_EQ(a.line(), "elected 1");
  EXPECT_EQ(a.line(), "observed a 1");
  Candidate b(folder.db(), "b");
  EXPECT_EQ(b.line(), "observed a 1");
  EXPECT_EQ(b.line(50ms), "") << "not elected too";
}

TEST_F(Election, ResigningHandsOverAtOnce) {
  Candidate a(folder.db(), "a");
  ASSERT_EQ(a.until("elected"), "elected 1");
  Candidate b(folder.db(), "b");
  ASSERT_EQ(b.line(), "observed a 1");
  const auto begin = steady_clock::now();
  a.say("resign");
  EXPECT_EQ(b.until("elected"), "elected 2");
  std::printf("after a resignation: %.1f ms\n", ms_since(begin));
  EXPECT_LT(ms_since(begin), 500);
  EXPECT_EQ(a.until("resigned"), "resigned");
  EXPECT_EQ(a.line(50ms), "") << "no call after resign has returned";
}

TEST_F(Election, AKilledLeaderIsSucceededAtOnce) {
  std::vector<std::unique_ptr<Candidate>> candidates;
  for (int i = 0; i < 3; ++i) {
    candidates.push_back(
        std::make_unique<Candidate>(folder.db(), std::string(1, static_cast<char>('a' + i))));
    ASSERT_EQ(candidates.back()->until("observed"), "observed a 1");
  }
  std::vector<double> took;
  std::size_t leader = 0;
  for (std::uint64_t epoch = 2; epoch < 12; ++epoch) {
    const auto begin = steady_clock::now();
    candidates[leader]->signal(SIGKILL);
    candidates[leader]->wait();
    // Each survivor observes exactly one successor, and one of them is it.
    std::string successor;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (i == leader) continue;
      const std::string line = candidates[i]->until("observed");
      ASSERT_THAT(line, StartsWith("observed "));
      ASSERT_EQ(line.substr(11), std::to_string(epoch));
      EXPECT_TRUE(successor.empty() || line.substr(9, 1) == successor) << line;
      successor = line.substr(9, 1);
    }
    took.push_back(ms_since(begin));
    const std::size_t dead = leader;
    leader = static_cast<std::size_t>(successor[0] - 'a');
    candidates[dead] =
        std::make_unique<Candidate>(folder.db(), std::string(1, static_cast<char>('a' + dead)));
    ASSERT_EQ(candidates[dead]->line(), "observed " + successor + " " + std::to_string(epoch));
  }
  std::printf("takeover after kill -9, seen by all: p50 %.1f ms, max %.1f ms\n",
              quantile(took, 0.5), quantile(took, 1));
  EXPECT_LT(quantile(took, 0.5), 100);
}

TEST_F(Election, AStoppedLeaderIsSucceededAndItsWritesAreRefused) {
  TestStore store(folder.db());
  ASSERT_TRUE(store.create(gateway(), "", "g", json::object()).ok());
  Candidate a(folder.db(), "a", "0.5");
  ASSERT_EQ(a.until("observed"), "observed a 1");
  a.say("write 1");
  ASSERT_EQ(a.line(), "wrote 0");
  Candidate b(folder.db(), "b", "0.5");
  ASSERT_EQ(b.line(), "observed a 1");
  const auto begin = steady_clock::now();
  a.stop();
  EXPECT_EQ(b.until("elected"), "elected 2");
  EXPECT_GE(ms_since(begin), 350) << "not before the stamp timeout";
  EXPECT_LT(ms_since(begin), 3000);
  ASSERT_EQ(b.until("observed"), "observed b 2");
  Candidate c(folder.db(), "c", "0.5");
  ASSERT_EQ(c.line(), "observed b 2");

  a.say("write 1");
  a.signal(SIGCONT);
  // It writes and it learns that it has lost, in whatever order.
  std::string lines;
  for (int i = 0; i < 3; ++i) lines += a.line() + "\n";
  EXPECT_THAT(lines, HasSubstr("wrote " + std::to_string(EGW_STALE_TERM)));
  EXPECT_THAT(lines, HasSubstr("lost b has the office, epoch 2"));
  EXPECT_THAT(lines, HasSubstr("observed b 2"));
  EXPECT_FALSE(store.get(gateway(), "", "g").object["spec"]["by"] == "b");

  // The lock that comes free now is b's, who leads without it; a and c wait.
  EXPECT_EQ(c.line(700ms), "");
  EXPECT_EQ(b.line(1ms), "");
  // And as b has it now, its death is seen at once again.
  const auto killed = steady_clock::now();
  b.signal(SIGKILL);
  EXPECT_THAT(c.until("observed"), testing::EndsWith(" 3"));
  EXPECT_LT(ms_since(killed), 400);
}

TEST_F(Election, ALeaderCutFromTheStoreLoses) {
  const std::string gate = folder.file("gate");
  std::ofstream(gate) << "";
  Candidate a(folder.db(), "a", "0.5", gate);
  ASSERT_EQ(a.until("elected"), "elected 1");
  Candidate b(folder.db(), "b", "0.5");
  ASSERT_EQ(b.line(), "observed a 1");
  std::filesystem::remove(gate);
  EXPECT_THAT(a.until("lost"), HasSubstr(gate));
  EXPECT_EQ(b.until("elected"), "elected 2");
  EXPECT_EQ(a.line(50ms), "") << "who is cut off sees nothing";
  std::ofstream(gate) << "";
  EXPECT_EQ(a.until("observed"), "observed b 2");
}

TEST_F(Election, TheEpochIsAboveEveryTermWritten) {
  TestStore store(folder.db());
  TestStore::Options options;
  options.term = 41;
  ASSERT_TRUE(store.write(sdk::WriteOp::kCreate, gateway(), "", "g", json::object(), options).ok());
  Candidate a(folder.db(), "a");
  EXPECT_EQ(a.until("elected"), "elected 42");
  EXPECT_EQ(store.write(sdk::WriteOp::kUpdate, gateway(), "", "g", {{"spec", {{"x", 1}}}}, options)
                .status.code,
            sdk::Code::kStaleTerm);
}

TEST_F(Election, EightAtOnceMakeOneLeader) {
  std::vector<std::unique_ptr<Candidate>> candidates;
  for (int i = 0; i < 8; ++i) {
    candidates.push_back(
        std::make_unique<Candidate>(folder.db(), std::string(1, static_cast<char>('a' + i))));
  }
  int elected = 0;
  std::string leader;
  for (auto& c : candidates) {
    std::string line = c->line();
    while (line.substr(0, 10) == "observed  ") line = c->line();  // before anybody was elected
    if (line.substr(0, 7) == "elected") {
      ++elected;
      EXPECT_EQ(line, "elected 1");
      line = c->line();
    }
    if (leader.empty()) leader = line;
    EXPECT_EQ(line, leader);
  }
  EXPECT_EQ(elected, 1);
}

// The lock file is removed while its holder stands still, so another one gets the new file's lock:
// the row in the database tells the old holder at its next stamp.
TEST_F(Election, ARemovedLockFileNeverMakesTwoLeadersOfOneEpoch) {
  Candidate a(folder.db(), "a");
  ASSERT_EQ(a.until("observed"), "observed a 1");
  Candidate b(folder.db(), "b");
  ASSERT_EQ(b.line(), "observed a 1");
  a.stop();
  std::filesystem::remove(folder.db() + "-leader");
  EXPECT_EQ(b.until("elected"), "elected 2");
  a.signal(SIGCONT);
  EXPECT_THAT(a.line(), StartsWith("lost b has the office, epoch 2"));
  EXPECT_EQ(a.line(), "observed b 2");
}

TEST_F(Election, WhoDoesNotStandIsToldWhetherSomebodyLeads) {
  LocalElection asks(json{{"path", folder.db()}}.dump(), "asks", sdk::Host());
  EXPECT_EQ(asks.health().code, sdk::Code::kUnavailable) << "no word on who leads";
  EXPECT_FALSE(std::filesystem::exists(folder.db())) << "asking makes nothing";
  Candidate a(folder.db(), "a");
  EXPECT_EQ(a.until("elected"), "elected 1");
  Candidate b(folder.db(), "b");
  EXPECT_TRUE(asks.health().ok());
  EXPECT_TRUE(asks.health().ok()) << "asking takes nothing";
  a.signal(SIGKILL);
  EXPECT_EQ(b.until("elected"), "elected 2");
  EXPECT_TRUE(asks.health().ok());
  b.signal(SIGKILL);
  const auto nobody = [&] { return asks.health().code == sdk::Code::kNotFound; };
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!nobody() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_TRUE(nobody()) << "the row names b for ever";
}

TEST_F(Election, OneCampaignAtATime) {
  LocalElection e(json{{"path", folder.db()}}.dump(), "a", sdk::Host());
  std::atomic<int> elected{0};
  const egw_election_sink sink{
      &elected, [](void* ctx, std::uint64_t) { ++*static_cast<std::atomic<int>*>(ctx); },
      [](void*, egw_str) {}, [](void*, egw_str, std::uint64_t) {}};
  ASSERT_TRUE(e.campaign(sdk::ElectionSink(sink)).ok());
  EXPECT_EQ(e.campaign(sdk::ElectionSink(sink)).code, sdk::Code::kInvalid);
  e.resign();
  e.resign();
  ASSERT_TRUE(e.campaign(sdk::ElectionSink(sink)).ok());
  EXPECT_TRUE(e.health().ok());
  EXPECT_THROW(LocalElection("{}", "", sdk::Host()), sdk::Failure);
}

}  // namespace
}  // namespace egw::local::test
