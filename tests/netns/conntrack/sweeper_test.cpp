// How often the Sweeper looks through the kernel's table, and how soon.
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "common/conntrack.hpp"

namespace egw::common {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

struct Passes {
  std::atomic<int> begun{0};
  std::atomic<int> newest{0};           // the newest request that a finished look has covered
  std::atomic<Clock::time_point> last;  // when the last one began
};

// A question to a big table: a look takes `longer` than the dump of the empty one.
class Slow final : public Sweep {
 public:
  Slow(Passes& passes, int number, std::chrono::milliseconds longer = 10ms)
      : passes_(passes), number_(number), longer_(longer) {}
  [[nodiscard]] SweepHint hint() const override {
    ++passes_.begun;
    passes_.last = Clock::now();
    std::this_thread::sleep_for(longer_);
    passes_.newest = number_;
    return {};
  }
  [[nodiscard]] Fate judge(const Flow& /*flow*/) const override { return {}; }
  void absorb(Sweep& later) override { number_ = static_cast<Slow&>(later).number_; }

 private:
  Passes& passes_;
  int number_;
  std::chrono::milliseconds longer_;
};

class SweeperTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << "these tests need root"; }
  Passes passes;
  Sweeper sweeper{sdk::Host()};
};

// New pods by the hundred, each with a request of its own: half of a core at most goes into looks.
TEST_F(SweeperTest, AStormOfRequestsIsFewPasses) {
  const auto begin = Clock::now();
  int number = 0;
  while (Clock::now() - begin < 1s) {
    sweeper.add(std::make_unique<Slow>(passes, ++number, 30ms));
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_LE(passes.begun, 21);  // each with a pause of 20 ms behind it
  EXPECT_GE(passes.begun, 5);
  ASSERT_TRUE(sweeper.drain(1s));
  EXPECT_EQ(passes.newest, number);
}

// The pause is for storms: one who comes alone does not wait.
TEST_F(SweeperTest, OneRequestIsAnsweredAtOnce) {
  auto quickest = Clock::duration::max();  // others may have the cores for a while
  for (int number = 1; number <= 10; ++number) {
    const auto begin = Clock::now();
    sweeper.add(std::make_unique<Slow>(passes, number));
    ASSERT_TRUE(sweeper.drain(1s));
    if (number > 1) quickest = std::min<Clock::duration>(quickest, passes.last.load() - begin);
    EXPECT_EQ(passes.newest, number);
  }
  EXPECT_LT(quickest, 5ms);
}

// In the middle of a storm a request is answered within two looks and the pause between them.
TEST_F(SweeperTest, ARequestInAStormWaitsForOnePause) {
  std::vector<Clock::duration> took;
  for (int number = 1; number <= 21; ++number) {
    sweeper.add(std::make_unique<Slow>(passes, number));
    const auto begin = Clock::now();
    while (passes.newest < number && Clock::now() - begin < 1s) std::this_thread::yield();
    took.push_back(Clock::now() - begin);
  }
  std::sort(took.begin(), took.end());
  EXPECT_LT(took[10], 50ms);
}

TEST_F(SweeperTest, EndsInAPause) {
  for (int number = 1; number <= 3; ++number) {
    sweeper.add(std::make_unique<Slow>(passes, number));
    std::this_thread::sleep_for(5ms);
  }
  // ~Sweeper() returns: the suite's time limit would tell.
}

}  // namespace
}  // namespace egw::common
