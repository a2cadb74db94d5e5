// An election at an API server that answers nonsense or fails.
#include "election.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "hostile_server.hpp"
#include "hostile_store.hpp"

namespace egw::kube::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using Exchange = HostileServer::Exchange;

constexpr auto kRetry = 200ms;
constexpr auto kJitter = kRetry / 10;

// A candidate that counts how often it was elected.
class Candidate {
 public:
  explicit Candidate(const std::string& url, const sdk::Host& host = {})
      : file_(url),
        election_(nlohmann::json{{"kubeconfig", file_.path()},
                                 {"retryPeriod", std::chrono::duration<double>(kRetry).count()},
                                 {"renewDeadline", 0.5},
                                 {"leaseDuration", 1}}
                      .dump(),
                  "me", host) {
    const egw_election_sink sink{this,
                                 [](void* ctx, std::uint64_t) {
                                   auto* self = static_cast<Candidate*>(ctx);
                                   const std::lock_guard lock(self->mutex_);
                                   ++self->elected_;
                                   self->news_.notify_all();
                                 },
                                 [](void*, egw_str) {}, [](void*, egw_str, std::uint64_t) {}};
    EXPECT_TRUE(election_.campaign(sdk::ElectionSink(sink)).ok());
  }
  bool elected_within(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return news_.wait_for(lock, time, [this] { return elected_ > 0; });
  }
  void resign() { election_.resign(); }

 private:
  Kubeconfig file_;
  std::mutex mutex_;
  std::condition_variable news_;
  int elected_ = 0;
  KubeElection election_;  // last: tells nothing after it has gone
};

TEST(KubeHostile, ElectionOverNonsenseElectsNobody) {
  std::atomic<int> asked{0};
  HostileServer server([&](Exchange& e) {
    const char* bodies[] = {"{", R"({"spec":[]})", R"({"spec":{"leaseTransitions":-1}})", "[]",
                            R"({"spec":{"holderIdentity":{},"leaseDurationSeconds":1e300}})"};
    if (e.line().rfind("GET", 0) == 0) return e.send(ok(bodies[asked++ % 5]));
    return e.send(status(500, "{"));
  });
  Candidate candidate(server.url());
  const auto end = steady_clock::now() + 5s;
  while (asked < 10 && steady_clock::now() < end) std::this_thread::sleep_for(10ms);
  const auto begin = steady_clock::now();
  candidate.resign();
  EXPECT_LT(steady_clock::now() - begin, 1800ms);
  EXPECT_GE(asked, 10);
  EXPECT_FALSE(candidate.elected_within(0ms));
}

// Whoever reads the Lease every other time only has still seen that nobody renews it.
TEST(KubeHostile, ADeadLeaderIsReplacedThoughEverySecondReadFails) {
  const auto lease = [](const char* holder, const char* revision) {
    return ok(std::string(R"({"metadata":{"name":"egw-controller","resourceVersion":")") +
              revision + R"("},"spec":{"holderIdentity":")" + holder +
              R"(","leaseDurationSeconds":1,"leaseTransitions":3}})");
  };
  std::atomic<int> asked{0};
  HostileServer server([&](Exchange& e) {
    if (e.line().rfind("GET", 0) != 0) return e.send(lease("me", "8"));
    return e.send(asked++ % 2 == 0 ? lease("gone", "7") : status(500, "{}"));
  });
  Candidate candidate(server.url());
  // Its duration, and then the reads: one that fails, one that does not.
  EXPECT_TRUE(candidate.elected_within(1s + 2 * (kRetry + kJitter) + 300ms));
  EXPECT_GE(asked, 3) << "some of the reads have failed";
}

// A right that is missing stays missing: said once, not with every attempt, and those come less and
// less often.
TEST(KubeHostile, ALeaseThatMayNotBeWrittenIsOneLine) {
  std::atomic<int> refused{0};
  HostileServer server([&](Exchange& e) {
    if (e.line().rfind("GET", 0) == 0) {
      return e.send(ok(R"({"metadata":{"name":"egw-controller","resourceVersion":"7"},)"
                       R"("spec":{"holderIdentity":"","leaseTransitions":3}})"));
    }
    ++refused;
    return e.send(status(403, R"({"message":"leases is forbidden"})"));
  });
  store_kit::TestHost host;
  Candidate candidate(server.url(), host.services());
  const auto begin = steady_clock::now();
  while (refused < 6 && steady_clock::now() < begin + 6s) std::this_thread::sleep_for(10ms);
  EXPECT_GE(refused, 6);
  EXPECT_GE(steady_clock::now() - begin, 2s) << "at least 0.2, 0.4 and three times 0.5 s";
  const auto lines = host.logged();
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(),
                          [](const std::string& line) {
                            return line.find("no permission to update leases") != std::string::npos;
                          }),
            1);
  candidate.resign();
}

}  // namespace
}  // namespace egw::kube::test
