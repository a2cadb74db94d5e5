// What a datapath can do wrong while it is called, beside datapath_test.cpp: raw from the C table,
// around a good one.
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "abi/support.hpp"
#include "egw/host/log_budget.hpp"
#include "egw/host/text.hpp"
#include "egw/runtime/descriptors.hpp"

namespace egw::host::test {
namespace {

using testing::HasSubstr;

class Faults : public testing::Test {
 protected:
  void open(Deadlines deadlines = {}) {
    bench.emplace(deadlines);
    bench->folder().add("datapath-faulty");
    const nlohmann::json config = {
        {"library", (fs::path(ABI_PLUGINS) / "egw-datapath-plain.so").string()},
        {"fault", file().string()}};
    auto opened = bench->host().open_datapath("faulty", config, bench->folder().path() / "state");
    ASSERT_TRUE(opened) << opened.error().to_string();
    datapath = std::move(*opened);
  }
  [[nodiscard]] fs::path file() { return bench->folder().path() / "fault"; }
  // "" ends it. Replaced at once, so that the plugin reads the old or the new one.
  void fault(const std::string& what) {
    std::ofstream(file().string() + ".new") << what;
    fs::rename(file().string() + ".new", file());
  }
  Result<ApplyOutcome> apply() {
    model::Change change;
    change.full = true;
    change.generation = 1;
    change.node.emplace();
    return bench->await(datapath->apply(std::move(change)));
  }

  std::optional<Bench> bench;
  std::unique_ptr<Datapath> datapath;
};

TEST_F(Faults, WhatIsThrownThroughC) {
  open();
  fault("apply throw");
  auto applied = apply();
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().code, Errc::kInternal);
  EXPECT_EQ(applied.error().message, "threw an exception: the card is on fire");
  fault("apply throw-number");
  applied = apply();
  ASSERT_FALSE(applied);
  EXPECT_THAT(applied.error().message, HasSubstr("no std::exception"));
  fault("");
  EXPECT_TRUE(apply());
}

TEST_F(Faults, AThreadThatEndsIsReplaced) {
  open();
  for (int round = 0; round < 5; ++round) {
    fault("apply end-thread");
    const auto applied = apply();
    ASSERT_FALSE(applied);
    EXPECT_EQ(applied.error().code, Errc::kInternal);
    EXPECT_EQ(applied.error().message, "ended its thread (pthread_exit)");
    EXPECT_TRUE(bench->await(datapath->health()));
    fault("");
    EXPECT_TRUE(apply());
  }
  EXPECT_THAT(bench->log(), HasSubstr("ended the thread of its instance in apply"));
  datapath.reset();  // closes on the last one
}

TEST_F(Faults, AThreadThatEndsWhileTheInstanceIsClosed) {
  open();
  fault("apply end-thread");
  for (int i = 0; i < 3; ++i) {
    model::Change change;
    change.full = true;
    change.node.emplace();
    boost::asio::co_spawn(bench->io(), datapath->apply(std::move(change)),
                          [](std::exception_ptr, const Result<ApplyOutcome>&) {});
  }
  bench->io().poll();
  datapath.reset();
}

TEST_F(Faults, NumbersAndTextsWithoutEnd) {
  open();
  fault("apply status");
  auto applied = apply();
  ASSERT_FALSE(applied);
  EXPECT_THAT(applied.error().to_string(),
              HasSubstr("apply answered with the unknown status 4711"));
  fault("apply absurd");
  applied = apply();
  ASSERT_TRUE(applied);
  EXPECT_EQ(applied->failures.size(), 1001U);  // 1,000, and how many more there were
  EXPECT_THAT(applied->failures[0].object, HasSubstr("object (a text of 18446744073709551615"));
  EXPECT_LE(applied->repaired.size(), 1000U);
  fault("observe absurd");
  const auto observed = bench->await(datapath->observe());
  ASSERT_FALSE(observed);
  EXPECT_THAT(observed.error().message, HasSubstr("observe gave no readable JSON"));
  fault("apply need-full");
  applied = apply();
  ASSERT_FALSE(applied);
  EXPECT_THAT(applied.error().message, HasSubstr("asked for everything when it was given"));
}

TEST_F(Faults, ASinkThatIsFilledWithoutEnd) {
  open(quick());
  fault("counters flood");
  const auto counters = bench->await(datapath->counters());
  ASSERT_FALSE(counters);
  EXPECT_EQ(counters.error().code, Errc::kTimeout);
  const auto ill = bench->await(datapath->health());
  ASSERT_FALSE(ill);
  EXPECT_THAT(ill.error().message, HasSubstr("Degraded: still busy with counters"));
  fault("");
  ASSERT_TRUE(bench->until([&] { return apply().has_value(); }));
}

// One for each of 5,000 egresses is no fault.
TEST_F(Faults, CountersOfManyEgressesAreAllKept) {
  open(quick());
  fault("counters many");
  const auto counters = bench->await(datapath->counters());
  ASSERT_TRUE(counters);
  EXPECT_EQ(std::count_if(counters->begin(), counters->end(),
                          [](const auto& c) { return c.name == "steered_packets_total"; }),
            5000);
}

// The first probe is run in a child: what crashes there is refused, and nothing else happens.
TEST_F(Faults, AProbeThatCrashes) {
  open();
  model::NodeConfig node;
  node.name = "n1";
  fault("probe crash");
  auto probed = bench->await(datapath->probe(node));
  ASSERT_FALSE(probed);
  EXPECT_EQ(probed.error().message,
            "crashed with signal 11 (SIGSEGV) in probe: correct the plugin");
  fault("probe end-thread");
  probed = bench->await(datapath->probe(node));
  ASSERT_FALSE(probed);
  EXPECT_THAT(probed.error().message, HasSubstr("in probe"));
  fault("probe throw");
  probed = bench->await(datapath->probe(node));
  ASSERT_FALSE(probed);
  fault("");
  probed = bench->await(datapath->probe(node));
  ASSERT_TRUE(probed) << probed.error().to_string();
  EXPECT_EQ((*probed)[0].code, "PlainC");
  EXPECT_EQ((*probed)[0].message, "n1");
  EXPECT_TRUE(apply());
}

TEST_F(Faults, AProbeThatHangs) {
  open(quick());
  fault("probe block");
  const auto probed = bench->await(datapath->probe({}));
  ASSERT_FALSE(probed);
  fault("");
  ASSERT_TRUE(bench->until([&] { return apply().has_value(); }));
}

TEST_F(Faults, DescriptorsThatAreLeakedAreSeen) {
  open();
  runtime::DescriptorWatch watch;
  ASSERT_TRUE(watch.look(runtime::open_descriptors()));
  fault("health leak");
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(bench->await(datapath->health()));
  const auto seen = watch.look(runtime::open_descriptors());
  for (int fd = 3; fd < 1024; ++fd) {  // what the plugin has leaked
    char target[64];
    const auto n =
        readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof(target));
    if (n == 9 && std::string_view(target, 9) == "/dev/null") close(fd);
  }
  ASSERT_FALSE(seen);
  EXPECT_THAT(seen.error().message, HasSubstr("are of /dev/null: a plugin leaks them"));
}

TEST(DescriptorWatch, AGoodProcessIsLeftAlone) {
  runtime::DescriptorWatch watch;
  runtime::OpenDescriptors now;
  now.limit = 1024;
  EXPECT_TRUE(watch.look(now));  // nothing is known
  for (const std::size_t count : {40U, 90U, 239U, 60U, 20U, 219U}) {
    now.count = count;
    now.by_target = {{"socket", count}};
    EXPECT_TRUE(watch.look(now)) << count;
  }
  now.count = 220;
  EXPECT_FALSE(watch.look(now));
  now.count = 30;
  EXPECT_TRUE(watch.look(now));
  now.limit = 60;
  EXPECT_FALSE(watch.look(now));
}

TEST(LogBudget, ABurstPassesAndAFloodIsCounted) {
  LogBudget budget;
  auto now = LogBudget::Clock::now();
  for (std::uint64_t i = 0; i < LogBudget::kBurst; ++i) ASSERT_TRUE(budget.take(now).allowed) << i;
  EXPECT_FALSE(budget.take(now - std::chrono::seconds(1)).allowed)
      << "a thread that read the clock before the last one did";
  for (int i = 1; i < 1000; ++i) EXPECT_FALSE(budget.take(now).allowed);
  now += std::chrono::seconds(1);
  const auto answer = budget.take(now);
  EXPECT_TRUE(answer.allowed);
  EXPECT_EQ(answer.left_out, 1000U);
  std::uint64_t allowed = 1;
  while (budget.take(now).allowed) ++allowed;
  EXPECT_EQ(allowed, LogBudget::kPerSecond);
  now += std::chrono::hours(1);
  allowed = 0;
  while (budget.take(now).allowed) ++allowed;
  EXPECT_EQ(allowed, LogBudget::kBurst);
}

TEST(PlainText, OfATextWithoutEndSaysSo) {
  EXPECT_EQ(plain_text(egw_str{"x", SIZE_MAX}), "(a text of 18446744073709551615 bytes)");
  EXPECT_EQ(plain_text(egw_str{nullptr, 7}), "");
}

}  // namespace
}  // namespace egw::host::test
