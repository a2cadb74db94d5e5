// How often the Sweeper looks through the kernel's table, and how soon; answers that come late.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
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

class All final : public Sweep {
 public:
  [[nodiscard]] SweepHint hint() const override { return {}; }
  [[nodiscard]] Fate judge(const Flow& /*flow*/) const override {
    return {Fate::Kind::kRemove, {}, 0};
  }
  void absorb(Sweep& /*later*/) override {}
};

sockaddr_in place(std::uint32_t address, std::uint16_t port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_addr.s_addr = htonl(address);
  out.sin_port = htons(port);
  return out;
}

constexpr std::uint32_t kPod = 0x7f000001, kServer = 0x7f000002;

void send_datagram(const sockaddr_in& from, const sockaddr_in& to) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof(from)), 0);
  ASSERT_EQ(::sendto(fd, "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 1);
  ::close(fd);
}

class LateAnswer : public SweeperTest {
 protected:
  // A connection of the pod's is removed while the answer is on its way.
  void SetUp() override {
    ASSERT_EQ(std::system("ip link set lo up && nft 'add table inet seen; add chain inet seen in "
                          "{ type filter hook input priority 0; }; add rule inet seen in ct state "
                          "new accept'"),
              0);
    send_datagram(place(kPod, 4000), place(kServer, 5000));
    sweeper.add(std::make_unique<All>());
    ASSERT_TRUE(sweeper.drain(1s));
    ASSERT_EQ(sweeper.deleted(), 1U);
  }
  void TearDown() override { EXPECT_EQ(std::system("nft delete table inet seen"), 0); }
  void answer() { send_datagram(place(kServer, 5000), place(kPod, 4000)); }
  // In two seconds, which is more than half of the rounds' time.
  bool follows() {
    const auto begin = Clock::now();
    while (sweeper.deleted() < 2 && Clock::now() - begin < 2s) std::this_thread::sleep_for(1ms);
    return sweeper.deleted() == 2;
  }
};

TEST_F(LateAnswer, WhatItBeginsIsRemoved) {
  answer();
  EXPECT_TRUE(follows());
}

// After a purge a connection from outside is nobody's of ours.
TEST_F(LateAnswer, WhoIsNoLongerExpectedIsLeftAlone) {
  sweeper.forget_late();
  ASSERT_TRUE(sweeper.drain(1s));
  answer();
  EXPECT_FALSE(follows());
  sweeper.add(std::make_unique<All>());  // for the next test
  ASSERT_TRUE(sweeper.drain(1s));
}

Message question() { return Message(0, 0, 64); }

// A round that cannot be asked comes back later, not at once; and ends.
TEST(LateAnswersTest, ARoundThatFailsIsPutOff) {
  LateAnswers late;
  late.add(question(), sdk::Address::v4(192, 0, 2, 1));
  late.begin(Clock::now());
  int rounds = 0;
  while (const auto due = late.due()) {
    late.postpone(*due);
    ASSERT_TRUE(!late.due() || *late.due() > *due);
    ++rounds;
  }
  EXPECT_EQ(rounds, 10);
}

TEST(LateAnswersTest, WhatALookBeganWithIsForgottenWhenItStartsOver) {
  LateAnswers late;
  late.add(question(), sdk::Address::v4(192, 0, 2, 1));
  late.start_over();
  late.begin(Clock::now());
  EXPECT_FALSE(late.due());
}

}  // namespace
}  // namespace egw::common
