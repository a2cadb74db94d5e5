// Several processes at once, and processes that are killed.
#include <gmock/gmock.h>
#include <signal.h>

#include <sstream>

#include "support.hpp"

namespace egw::local::test {
namespace {

TEST(Processes, EightWritersLoseNothing) {
  const Folder folder;
  TestStore s(folder.db());
  ASSERT_TRUE(s.create(gateway(), "", "g", {{"spec", {{"n", 0}}}}).ok());
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::unique_ptr<Process>> writers;
  for (int i = 0; i < 8; ++i) {
    writers.push_back(
        std::make_unique<Process>(std::vector<std::string>{"increment", folder.db(), "g", "40"}));
  }
  int conflicts = 0;
  for (auto& w : writers) {
    const std::string line = w->line(30s);
    ASSERT_EQ(line.substr(0, 10), "conflicts ");
    conflicts += std::stoi(line.substr(10));
    EXPECT_EQ(w->wait(), 0);
  }
  const Answer a = s.get(gateway(), "", "g");
  EXPECT_EQ(a.object["spec"]["n"], 8 * 40);
  EXPECT_EQ(a.revision, 1U + 8 * 40);
  std::printf(
      "8 writers, 320 increments, %d conflicts: %.0f ms\n", conflicts,
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
}

TEST(Processes, FirstOpeningsAtOnceMakeOneDatabase) {
  for (int round = 0; round < 3; ++round) {
    const Folder folder;
    std::vector<std::unique_ptr<Process>> watchers;
    for (int i = 0; i < 6; ++i) {
      watchers.push_back(std::make_unique<Process>(std::vector<std::string>{"watch", folder.db()}));
    }
    for (auto& w : watchers) ASSERT_EQ(w->line(), "synced");
    for (auto& w : watchers) {
      w->say("end");
      EXPECT_EQ(w->wait(), 0);
    }
  }
}

TEST(Processes, KilledInTheMiddleOfWritesLosesNothingAcknowledged) {
  const Folder folder;
  std::uint64_t last_value = 0, last_revision = 0;
  for (int round = 0; round < 50; ++round) {
    Process writer({"write", folder.db(), "g"});
    // A different number of acknowledged writes each time, then the kill falls where it falls.
    for (int i = 0; i <= round % 5; ++i) ASSERT_FALSE(writer.line().empty()) << "round " << round;
    writer.signal(SIGKILL);
    std::istringstream rest(writer.rest());
    EXPECT_EQ(writer.wait(), 128 + SIGKILL);
    for (std::string line; std::getline(rest, line) && !rest.eof();) {
      std::istringstream(line) >> last_value >> last_revision;
    }
    TestStore s(folder.db());
    const Answer a = s.get(gateway(), "", "g");
    ASSERT_TRUE(a.ok()) << a.status.text();
    EXPECT_GE(a.object["spec"]["n"].get<std::uint64_t>(), last_value);
    EXPECT_GE(a.revision, last_revision);
    EXPECT_LE(a.revision, last_revision + 8) << "nothing was made up";
    last_value = a.object["spec"]["n"].get<std::uint64_t>();
    last_revision = a.revision;
  }
  Connection c(folder.db());
  EXPECT_EQ(c.query_text("PRAGMA integrity_check"), "ok");
  EXPECT_EQ(static_cast<std::uint64_t>(c.query_int("SELECT max(revision) FROM changes")),
            last_revision);
}

}  // namespace
}  // namespace egw::local::test
