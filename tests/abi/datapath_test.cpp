// Datapath plugins through the host: what crosses, and what a misbehaving one can do.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "abi/support.hpp"
#include "egw/abi/types.h"

namespace egw::host::test {
namespace {

using model::Address;
using model::Prefix;
using testing::HasSubstr;

std::unique_ptr<Datapath> open(Bench& bench, const std::string& name,
                               const nlohmann::json& config = {}) {
  auto opened = bench.host().open_datapath(name, config, bench.folder().path() / "state");
  if (!opened) throw std::runtime_error(opened.error().to_string());
  return std::move(*opened);
}

model::Change full_change(std::uint32_t endpoints) {
  model::Change c;
  c.full = true;
  c.generation = 5;
  c.node.emplace();
  c.node->name = "n1";
  c.node->tunnel_device = "egress.vxlan";
  for (std::uint8_t i = 1; i <= 3; ++i) {
    model::Peer p;
    p.name = "peer" + std::to_string(i);
    p.underlay = Address::v4({10, 0, 0, i});
    p.mac = {0, 0, 0, 0, 0, i};
    for (std::uint8_t k = 0; k < i; ++k) {
      p.pod_cidrs.emplace_back(Address::v4({10, 1, k, 0}), 24);
    }
    c.peers.push_back(p);
  }
  model::Egress e;
  e.id = 7;
  e.owner = model::Owner::kPeer;
  e.owner_peer = "peer1";
  c.egresses.push_back(e);
  const model::ClassRule rule{Prefix(Address::v4({0, 0, 0, 0}), 0), model::ActionKind::kEgress, 7};
  c.classes.emplace_back(1, model::ClassTable{rule, rule});
  c.classes.emplace_back(2, model::ClassTable{rule});
  for (std::uint32_t i = 0; i < endpoints; ++i) {
    c.endpoints.emplace_back(
        Address::v4({10, static_cast<std::uint8_t>(i >> 16U), static_cast<std::uint8_t>(i >> 8U),
                     static_cast<std::uint8_t>(i)}),
        1);
  }
  return c;
}

model::Change step(std::uint64_t generation, std::uint64_t base) {
  model::Change c;
  c.generation = generation;
  c.base = base;
  c.endpoints.emplace_back(Address::v4({10, 9, 9, 9}), 2);
  return c;
}

TEST(PlainC, EverythingCrosses) {
  Bench bench;
  bench.folder().add("datapath-plain");
  auto datapath = open(bench, "plain");
  model::NodeConfig node;
  node.name = "n1";
  const auto found = bench.await(datapath->probe(node));
  ASSERT_TRUE(found) << found.error().to_string();
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ((*found)[0].code, "PlainC");
  EXPECT_EQ((*found)[0].message, "n1");

  auto applied = bench.await(datapath->apply(full_change(10)));
  ASSERT_TRUE(applied) << applied.error().to_string();
  EXPECT_FALSE(applied->need_full);
  auto observed = bench.await(datapath->observe());
  ASSERT_TRUE(observed);
  EXPECT_EQ(observed->dump(),
            R"({"addresses":45,"cidrs":6,"classes":2,"egresses":1,"endpoints":10,"generation":5,)"
            R"("macs":6,"node":"n1","peers":3,"rules":3})");

  applied = bench.await(datapath->apply(step(6, 4)));
  ASSERT_TRUE(applied);
  EXPECT_TRUE(applied->need_full);
  applied = bench.await(datapath->apply(step(6, 5)));
  ASSERT_TRUE(applied);
  EXPECT_FALSE(applied->need_full);
  observed = bench.await(datapath->observe());
  EXPECT_EQ((*observed)["addresses"], 54);

  model::Change unlucky = step(7, 6);
  unlucky.egresses.emplace_back();
  unlucky.egresses[0].id = 13;
  applied = bench.await(datapath->apply(unlucky));
  ASSERT_TRUE(applied);
  ASSERT_EQ(applied->failures.size(), 1U);
  EXPECT_EQ(applied->failures[0].object, "egress 13");
  EXPECT_EQ(applied->failures[0].sys_errno, 5);

  const auto sysctls = bench.await(datapath->sysctls());
  ASSERT_TRUE(sysctls);
  EXPECT_EQ((*sysctls)[0].key, "net/ipv4/ip_forward");
  EXPECT_TRUE((*sysctls)[0].forwarding);
  const auto counters = bench.await(datapath->counters());
  ASSERT_TRUE(counters);
  EXPECT_EQ((*counters)[0].value, 7U);
  EXPECT_TRUE(bench.await(datapath->health()));

  const auto purged = bench.await(datapath->purge());
  ASSERT_FALSE(purged);
  EXPECT_EQ(purged.error().code, Errc::kNotFound);
  EXPECT_EQ(purged.error().message, "nothing to? purge");  // fit for a log line
  EXPECT_THAT(bench.log(), HasSubstr("datapath plugin plain: opened"));
}

TEST(PlainC, DriftIsToldOnTheExecutor) {
  Bench bench;
  bench.folder().add("datapath-plain");
  auto datapath = open(bench, "plain");
  std::string drifted;
  datapath->on_drift([&](std::string what) {
    drifted = std::move(what);
    datapath->on_drift(nullptr);  // a callback may replace itself
  });
  ASSERT_TRUE(bench.await(datapath->forget(Address::v4({192, 0, 2, 1}))));
  ASSERT_TRUE(bench.until([&] { return !drifted.empty(); }));
  EXPECT_EQ(drifted, "element");
  const auto v6 = bench.await(datapath->forget(*Address::parse("fd00::1")));
  ASSERT_FALSE(v6);
  EXPECT_EQ(v6.error().code, Errc::kUnsupported);
}

TEST(Drift, AFloodIsOneNotice) {
  Bench bench;
  bench.folder().add("datapath-scripted");
  auto datapath = open(bench, "scripted");
  int notices = 0;
  datapath->on_drift([&](const std::string&) { ++notices; });
  EXPECT_TRUE(bench.await(datapath->health()));
  ASSERT_TRUE(bench.until([&] { return notices > 0; }));
  EXPECT_LT(notices, 1000);
}

TEST(Example, IsAWorkingDatapath) {
  Bench bench;
  fs::copy_file(ABI_EXAMPLE, bench.folder().path() / "egw-datapath-example.so");
  auto datapath = open(bench, "example");
  ASSERT_TRUE(bench.await(datapath->apply(full_change(4))));
  auto observed = bench.await(datapath->observe());
  EXPECT_EQ((*observed)["lines"], 1 + 3 + 1 + 2 + 4);
  // Somebody else's hand in our kernel.
  std::ofstream(bench.folder().path() / "state" / "kernel") << "nonsense\n";
  auto again = full_change(4);
  again.generation = 6;
  const auto applied = bench.await(datapath->apply(again));
  ASSERT_TRUE(applied);
  ASSERT_EQ(applied->repaired.size(), 1U);
  EXPECT_EQ(applied->repaired[0].second, 11U);
  // A restart adopts: not one write.
  datapath.reset();
  datapath = open(bench, "example");
  ASSERT_TRUE(bench.await(datapath->apply(full_change(4))));
  EXPECT_EQ((*bench.await(datapath->counters()))[0].value, 0U);
  ASSERT_TRUE(bench.await(datapath->purge()));
  EXPECT_FALSE(fs::exists(bench.folder().path() / "state" / "kernel"));
}

// It knows neither layout nor hand_over, and what it is given is longer than what it knows.
TEST(Versions, BuiltWithTheFirstHeaderWorks) {
  Bench bench;
  bench.folder().add("datapath-v1-0");
  const auto info = bench.host().inspect(PluginKind::kDatapath, "v1-0");
  ASSERT_TRUE(info);
  EXPECT_EQ(info->problem, "");
  EXPECT_EQ(info->abi_minor, 0);
  EXPECT_GT(EGW_ABI_MINOR, 0) << "this header is the first: nothing is tested";
  auto datapath = open(bench, "v1-0");
  ASSERT_TRUE(bench.await(datapath->apply(full_change(10))));
  EXPECT_EQ((*bench.await(datapath->observe()))["addresses"], 45);
  ASSERT_TRUE(bench.await(datapath->apply(step(6, 5))));
  EXPECT_EQ((*bench.await(datapath->observe()))["endpoints"], 11);
  EXPECT_EQ(datapath->layout(), "");
  EXPECT_FALSE(datapath->hands_over_to(""));
  const auto handed = bench.await(datapath->hand_over({}));  // purges instead
  ASSERT_FALSE(handed);
  EXPECT_EQ(handed.error().message, "nothing to? purge");
}

TEST(Versions, NewerMinorWorks) {
  Bench bench;
  bench.folder().add("datapath-newer-minor");
  auto datapath = open(bench, "newer-minor");
  EXPECT_TRUE(bench.await(datapath->apply(full_change(1))));
}

TEST(Versions, WithoutDeltaOnlyFullIsSent) {
  Bench bench;
  bench.folder().add("datapath-no-delta");
  auto datapath = open(bench, "no-delta");
  ASSERT_TRUE(bench.await(datapath->apply(full_change(1))));
  const auto applied = bench.await(datapath->apply(step(6, 5)));
  ASSERT_TRUE(applied);
  EXPECT_TRUE(applied->need_full);
  EXPECT_EQ((*bench.await(datapath->observe()))["generation"], 5);
}

TEST(Misbehaving, ConstructorThrows) {
  Bench bench;
  bench.folder().add("datapath-scripted");
  const auto state = bench.folder().path() / "state";
  const auto thrown = bench.host().open_datapath("scripted", {{"open", "throw"}}, state);
  ASSERT_FALSE(thrown);
  EXPECT_EQ(thrown.error().code, Errc::kInternal);
  EXPECT_EQ(thrown.error().to_string(), "datapath plugin scripted: cannot begin");
  const auto failed = bench.host().open_datapath("scripted", {{"open", "failure"}}, state);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::kUnsupported);
  EXPECT_EQ(failed.error().object, "vxlan");
  EXPECT_EQ(failed.error().sys_errno, ENOTSUP);
}

TEST(Misbehaving, OperationsThrow) {
  Bench bench;
  bench.folder().add("datapath-scripted");
  auto datapath = open(bench, "scripted", {{"apply", "throw"}});
  const auto applied = bench.await(datapath->apply(full_change(1)));
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().code, Errc::kInternal);
  EXPECT_EQ(applied.error().message, "netlink said no");
  const auto sysctls = bench.await(datapath->sysctls());
  ASSERT_FALSE(sysctls);
  EXPECT_THAT(sysctls.error().message, HasSubstr("no std::exception"));
  const auto observed = bench.await(datapath->observe());
  ASSERT_FALSE(observed);
  EXPECT_THAT(observed.error().message, HasSubstr("no readable JSON"));
  const auto counters = bench.await(datapath->counters());
  ASSERT_FALSE(counters);
  EXPECT_THAT(counters.error().message, HasSubstr("gave no reason"));
  const auto probed = bench.await(datapath->probe({}));
  ASSERT_TRUE(probed);  // the findings say more than the status
  EXPECT_FALSE((*probed)[1].ok);
}

// A fifo that a call of the plugin reads from: the call ends when the test says so.
class Gate {
 public:
  explicit Gate(Bench& bench) : path_((bench.folder().path() / "fifo").string()) {
    if (mkfifo(path_.c_str(), 0600) != 0) throw std::runtime_error("mkfifo");
  }
  ~Gate() {
    if (fd_ >= 0) close(fd_);
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  // Until the plugin stands at the gate.
  void wait() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (fd_ < 0 && std::chrono::steady_clock::now() < end) {
      fd_ = ::open(path_.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);  // ENXIO: no reader yet
      if (fd_ < 0) std::this_thread::yield();
    }
    ASSERT_GE(fd_, 0) << "the plugin did not come to the gate";
  }
  void open() {
    wait();
    EXPECT_EQ(write(fd_, "x", 1), 1);
  }

 private:
  std::string path_;
  int fd_ = -1;
};

model::Change generation(std::uint64_t n) {
  auto c = full_change(1);
  c.generation = n;
  return c;
}

TEST(Deadline, MissedThenDegradedThenBack) {
  Bench bench(quick());
  bench.folder().add("datapath-scripted");
  Gate gate(bench);
  auto datapath = open(bench, "scripted", {{"apply", "wait"}, {"fifo", gate.path()}});
  const auto late = bench.await(datapath->apply(generation(1)));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Errc::kTimeout);
  EXPECT_THAT(late.error().message, HasSubstr("apply did not come back within 150 ms"));
  EXPECT_GE(datapath->missed_deadlines(), 1U);

  const auto began = std::chrono::steady_clock::now();
  const auto refused = bench.await(datapath->apply(generation(2)));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kUnavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("still busy with apply"));
  const auto ill = bench.await(datapath->health());
  ASSERT_FALSE(ill);
  EXPECT_THAT(ill.error().message, HasSubstr("Degraded"));
  EXPECT_LT(std::chrono::steady_clock::now() - began, milliseconds(100));  // at once

  // One that goes on counts once for every deadline.
  ASSERT_TRUE(bench.until([&] { return datapath->missed_deadlines() >= 3; }));

  gate.open();
  ASSERT_TRUE(
      bench.until([&] { return bench.log().find("apply came back after") != std::string::npos; }));
  const auto convalescent = bench.await(datapath->health());
  ASSERT_FALSE(convalescent);
  EXPECT_THAT(convalescent.error().message, HasSubstr("Degraded: apply missed its deadline"));
  ASSERT_TRUE(bench.await(datapath->apply(generation(2))));
  EXPECT_TRUE(bench.await(datapath->health()));
  EXPECT_EQ(datapath->missed_deadlines(), 0U);
}

// Calls that wait behind a slow one that is within its deadline are told so and are not run.
TEST(Deadline, WaitingCallsAreWithdrawn) {
  auto deadlines = quick();
  deadlines.apply = milliseconds(2000);
  Bench bench(deadlines);
  bench.folder().add("datapath-scripted");
  Gate gate(bench);
  auto datapath = open(bench, "scripted", {{"apply", "wait"}, {"fifo", gate.path()}});
  std::optional<Result<ApplyOutcome>> first;
  boost::asio::co_spawn(bench.io(), datapath->apply(generation(1)),
                        [&](std::exception_ptr, Result<ApplyOutcome> r) { first = std::move(r); });
  const auto second = bench.await(datapath->forget(Address::v4({192, 0, 2, 1})));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kUnavailable);
  EXPECT_THAT(second.error().message, HasSubstr("was not begun in time: busy with apply"));
  gate.open();
  ASSERT_TRUE(bench.until([&] { return first.has_value(); }));
  EXPECT_TRUE(*first);
  EXPECT_EQ(*bench.await(datapath->observe()), 1);
}

TEST(Deadline, OpenThatComesBackLateIsClosed) {
  Bench bench(quick());
  bench.folder().add("datapath-scripted");
  Gate gate(bench);
  const auto opened = bench.host().open_datapath(
      "scripted", {{"open", "wait"}, {"fifo", gate.path()}}, bench.folder().path() / "state");
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::kTimeout);
  EXPECT_THAT(opened.error().message, HasSubstr("open did not come back within 300 ms"));
  gate.open();
}

TEST(Close, IsBoundedWhenThePluginBlocks) {
  Bench bench(quick());
  bench.folder().add("datapath-scripted");
  Gate gate(bench);
  auto datapath = open(bench, "scripted", {{"apply", "wait"}, {"fifo", gate.path()}});
  std::optional<Result<ApplyOutcome>> answer;
  boost::asio::co_spawn(bench.io(), datapath->apply(generation(1)),
                        [&](std::exception_ptr, Result<ApplyOutcome> r) { answer = std::move(r); });
  bench.io().restart();
  bench.io().poll();
  gate.wait();
  const auto began = std::chrono::steady_clock::now();
  datapath.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - began, milliseconds(1500));
  EXPECT_THAT(bench.log(), HasSubstr("its thread is left to itself"));
  ASSERT_TRUE(bench.until([&] { return answer.has_value(); }));
  ASSERT_FALSE(*answer);
  EXPECT_EQ(answer->error().code, Errc::kUnavailable);
  gate.open();  // the thread that was left goes on, closes its instance, and touches nothing of
                // ours
}

TEST(Close, WithCallsUnderWayAndWaiting) {
  Bench bench;
  bench.folder().add("datapath-plain");
  int answers = 0;
  for (int round = 0; round < 20; ++round) {
    auto datapath = open(bench, "plain");
    answers = 0;
    for (int i = 0; i < 10; ++i) {
      boost::asio::co_spawn(bench.io(), datapath->apply(full_change(100)),
                            [&](std::exception_ptr, const Result<ApplyOutcome>&) { ++answers; });
    }
    bench.io().restart();
    for (int i = 0; i < round; ++i) bench.io().run_one_for(milliseconds(1));
    datapath.reset();
    ASSERT_TRUE(bench.until([&] { return answers == 10; })) << round;
  }
}

// The process ends while coroutines wait: their frames go with the io_context, the plugin's thread
// must find nothing of theirs.
TEST(Close, WithTheIoContextGoneMidCall) {
  for (int round = 0; round < 20; ++round) {
    Bench bench;
    bench.folder().add("datapath-plain");
    auto datapath = open(bench, "plain");
    for (int i = 0; i < 3; ++i) {
      boost::asio::co_spawn(bench.io(), datapath->apply(full_change(5000)),
                            [](std::exception_ptr, const Result<ApplyOutcome>&) {});
    }
    bench.io().poll();
    datapath.reset();
  }
}

TEST(Cost, FiftyThousandEndpointsCrossQuickly) {
  Bench bench;
  bench.folder().add("datapath-plain");
  auto datapath = open(bench, "plain");
  const auto applied = bench.await(datapath->apply(full_change(50000)));
  ASSERT_TRUE(applied);
  EXPECT_EQ((*bench.await(datapath->observe()))["endpoints"], 50000);
  RecordProperty("microseconds", static_cast<int>(applied->took.count()));
  EXPECT_LT(applied->took, milliseconds(250));  // a sanitizer's build too; 4 ms in release
}

}  // namespace
}  // namespace egw::host::test
