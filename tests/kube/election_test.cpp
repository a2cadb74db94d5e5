// Leader election on a Lease of a real API server.
#include "election.hpp"

#include <gmock/gmock.h>

#include <condition_variable>
#include <deque>

#include "kube/support/backend.hpp"

namespace egw::kube::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using testing::HasSubstr;

const char* const kLease = "/apis/coordination.k8s.io/v1/namespaces/d/leases/egw-controller";

// A candidate that remembers what it was told: "elected 1", "lost ...", "observed a 1".
class Candidate {
 public:
  explicit Candidate(const std::string& name, const std::string& user = "admin",
                     json more = json::object())
      : election_(config(user, std::move(more)), name, sdk::Host()) {
    const egw_election_sink sink{
        this,
        [](void* ctx, std::uint64_t epoch) {
          static_cast<Candidate*>(ctx)->told("elected " + std::to_string(epoch));
        },
        [](void* ctx, egw_str why) {
          static_cast<Candidate*>(ctx)->told("lost " + std::string(sdk::view(why)));
        },
        [](void* ctx, egw_str holder, std::uint64_t epoch) {
          static_cast<Candidate*>(ctx)->told("observed " + std::string(sdk::view(holder)) + " " +
                                             std::to_string(epoch));
        }};
    EXPECT_TRUE(election_.campaign(sdk::ElectionSink(sink)).ok());
  }
  // The next news that begins so; empty: none came in time.
  std::string wait(const std::string& begin, std::chrono::milliseconds longest = 5s) {
    std::unique_lock lock(mutex_);
    std::string found;
    wake_.wait_for(lock, longest, [&] {
      while (found.empty() && !news_.empty()) {
        if (news_.front().rfind(begin, 0) == 0) found = news_.front();
        news_.pop_front();
      }
      return !found.empty();
    });
    return found;
  }
  KubeElection& election() { return election_; }

 private:
  static std::string config(const std::string& user, json more) {
    more["kubeconfig"] = ApiServer::shared().kubeconfig(user);
    more["namespace"] = "d";
    more.emplace("leaseDuration", 3);
    more.emplace("renewDeadline", 1.6);
    more.emplace("retryPeriod", 0.4);
    return more.dump();
  }
  void told(std::string text) {
    const std::lock_guard lock(mutex_);
    news_.push_back(std::move(text));
    wake_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::string> news_;
  KubeElection election_;  // last: tells nothing after it has gone
};

class KubeElectionTest : public testing::Test {
 protected:
  ApiServer& server = ApiServer::shared();
  void SetUp() override { server.clear("/apis/coordination.k8s.io/v1/leases"); }
};

TEST_F(KubeElectionTest, OneLeadsAndHandsOverWhenItResigns) {
  Candidate a("a");
  ASSERT_EQ(a.wait("elected"), "elected 1");
  Candidate b("b");
  ASSERT_EQ(b.wait("observed"), "observed a 1");
  const json spec = server.request("GET", kLease)["spec"];
  EXPECT_EQ(spec["holderIdentity"], "a");
  EXPECT_EQ(spec["leaseDurationSeconds"], 3);
  EXPECT_EQ(spec["leaseTransitions"], 0);
  EXPECT_EQ(spec["renewTime"].get<std::string>().size(), 27U) << "a MicroTime";
  EXPECT_EQ(b.wait("elected", 1s), "");
  const auto begin = steady_clock::now();
  a.election().resign();
  EXPECT_EQ(b.wait("elected"), "elected 2");
  EXPECT_LT(steady_clock::now() - begin, 1500ms) << "did not wait for the lease to run out";
  EXPECT_EQ(server.request("GET", kLease)["spec"]["leaseTransitions"], 1);
}

TEST_F(KubeElectionTest, ALeaderThatCannotRenewGivesUpBeforeAnotherMayTakeIt) {
  Candidate a("a");
  ASSERT_EQ(a.wait("elected"), "elected 1");
  const auto begin = steady_clock::now();
  server.stop();
  EXPECT_THAT(a.wait("lost"), HasSubstr("could not be renewed"));
  const auto lost = steady_clock::now() - begin;
  EXPECT_GE(lost, 1s);
  EXPECT_LT(lost, 2500ms) << "renewDeadline is 1.6 s";
  server.go_on();
  EXPECT_EQ(a.wait("elected", 15s), "elected 2") << "an epoch never comes twice";
}

TEST_F(KubeElectionTest, AHolderThatIsGoneIsSucceededWhenItsLeaseRunsOut) {
  json lease = new_lease("d", "egw-controller");
  lease = taken(std::move(lease), "gone", 6, 3s,
                micro_time(std::chrono::system_clock::now() + std::chrono::hours(5)));
  server.request("POST", "/apis/coordination.k8s.io/v1/namespaces/d/leases", lease);
  const auto begin = steady_clock::now();
  Candidate a("a");
  EXPECT_EQ(a.wait("observed"), "observed gone 7");
  EXPECT_EQ(a.wait("elected"), "elected 8");
  const auto waited = steady_clock::now() - begin;
  EXPECT_GE(waited, 3s) << "judged by the candidate's own clock, whatever the renewTime says";
  EXPECT_LT(waited, 3s + 400ms + 500ms) << "the lease and one retry";
}

TEST_F(KubeElectionTest, WhoeverIsOverwrittenStepsDown) {
  Candidate a("a");
  ASSERT_EQ(a.wait("elected"), "elected 1");
  json lease = server.request("GET", kLease);
  lease["metadata"].erase("resourceVersion");
  server.request("PATCH", kLease,
                 {{"spec", {{"holderIdentity", "thief"}, {"leaseTransitions", 4}}}});
  EXPECT_THAT(a.wait("lost"), HasSubstr("thief"));
  EXPECT_EQ(a.wait("elected", 8s), "elected 6");
}

TEST_F(KubeElectionTest, ARemovedLeaseDoesNotBringAnEpochBack) {
  Candidate a("a");
  ASSERT_EQ(a.wait("elected"), "elected 1");
  server.request("DELETE", kLease);
  EXPECT_NE(a.wait("lost"), "");
  EXPECT_EQ(a.wait("elected", 8s), "elected 2");
}

// leaseTransitions is an int32. Whoever wrote its last value there stops nobody.
TEST_F(KubeElectionTest, AfterTheLastTransitionTheEpochGoesOnGrowing) {
  json lease = taken(new_lease("d", "egw-controller"), "gone", kMostTransitions, 1s,
                     micro_time(std::chrono::system_clock::now()));
  lease["metadata"]["annotations"] = {{kTransitionsAnnotation, "18446744073709551615"}};
  server.request("POST", "/apis/coordination.k8s.io/v1/namespaces/d/leases", lease);
  Candidate a("a");
  EXPECT_EQ(a.wait("observed"), "observed gone 2147483648");
  EXPECT_EQ(a.wait("elected"), "elected 2147483649");
  Candidate b("b");
  EXPECT_EQ(b.wait("observed"), "observed a 2147483649");
  a.election().resign();
  EXPECT_EQ(b.wait("elected"), "elected 2147483650");
  lease = server.request("GET", kLease);
  EXPECT_EQ(lease["spec"]["leaseTransitions"], kMostTransitions);
  EXPECT_EQ(lease["metadata"]["annotations"][kTransitionsAnnotation], "2147483649");
  // Removed, or mended by hand, while somebody leads: he goes on from what he has seen.
  server.request("PATCH", kLease,
                 {{"spec", {{"leaseTransitions", 0}, {"holderIdentity", ""}}},
                  {"metadata", {{"annotations", nullptr}}}});
  EXPECT_NE(b.wait("lost"), "");
  EXPECT_EQ(b.wait("elected", 8s), "elected 2147483651");
}

TEST_F(KubeElectionTest, OfManyExactlyOneLeads) {
  std::vector<std::unique_ptr<Candidate>> all;
  for (int i = 0; i < 5; ++i) all.push_back(std::make_unique<Candidate>("c" + std::to_string(i)));
  int leaders = 0;
  for (auto& c : all) leaders += c->wait("elected", 1s).empty() ? 0 : 1;
  EXPECT_EQ(leaders, 1);
}

TEST_F(KubeElectionTest, WithoutPermissionItSaysSoAndDoesNotLead) {
  Candidate a("a", "nobody");
  EXPECT_EQ(a.wait("elected", 1s), "");
  EXPECT_TRUE(a.election().health().ok()) << "the server is well";
}

}  // namespace
}  // namespace egw::kube::test
