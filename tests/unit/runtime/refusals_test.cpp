// Objects that the store does not take: each is told once and tried again now and then, and holds
// nobody else up.
#include "egw/runtime/refusals.hpp"

#include <algorithm>

#include "cluster.hpp"
#include "egw/runtime/plan_writer.hpp"

namespace egw::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class RefusalsTest : public ClusterTest {
 protected:
  // What the log says meanwhile.
  std::string log_of(std::int64_t ms) {
    testing::internal::CaptureStderr();
    loop.advance(ms);
    return testing::internal::GetCapturedStderr();
  }
  static long count(const std::string& text, const std::string& words) {
    long found = 0;
    for (auto at = text.find(words); at != std::string::npos; at = text.find(words, at + 1)) {
      ++found;
    }
    return found;
  }
  [[nodiscard]] bool has_eip(const std::string& policy) const {
    const json stored = content->read(Kind::kEgressPolicy, {"default", policy});
    return !stored.value("/status/eip/ipv4"_json_pointer, "").empty();
  }
  static bool is_bad_policy(const host::WriteRequest& request) {
    return request.kind == Kind::kEgressPolicy && request.key.name.starts_with("bad");
  }
  // From now on what `is` names is refused; counts.
  void refuse(std::function<bool(const host::WriteRequest&)> is, Errc code) {
    controllers["c1"]->store.refuse =
        [this, is = std::move(is),
         code](const host::WriteRequest& request) -> std::optional<Error> {
      if (!is(request)) return std::nullopt;
      ++refused;
      return Error{code, request.key.to_string(), "not this one", 0};
    };
  }
  // Beside "egw", with one EIP.
  void add_other_gateway() {
    json other = make(kApi, "EgressGateway", "other",
                      content->read(Kind::kEgressGateway, {"", "egw"})["spec"]);
    other["spec"]["clusterDefault"] = false;
    other["spec"]["ippools"] = {{"ipv4", {"10.6.1.70"}}, {"ipv4DefaultEIP", "10.6.1.70"}};
    content->put(Kind::kEgressGateway, other);
  }
  void add_policy_of_other(const std::string& name) {
    json policy = make(kApi, "EgressPolicy", name,
                       {{"egressGatewayName", "other"},
                        {"appliedTo", {{"podSelector", {{"matchLabels", {{"app", "web"}}}}}}}});
    policy["metadata"]["namespace"] = "default";
    policy["spec"]["destSubnet"] = {"203.0.113.0/24"};
    content->put(Kind::kEgressPolicy, policy);
  }
  [[nodiscard]] std::string owner_of_other() const {
    const json gateway = content->read(Kind::kEgressGateway, {"", "other"});
    for (const auto& node : gateway["status"]["nodeList"]) {
      if (!node.value("eips", json::array()).empty()) return node["name"];
    }
    return "";
  }
  // As a hand in the database would, past the webhook.
  void make_unreadable() {
    json gateway = content->read(Kind::kEgressGateway, {"", "egw"});
    gateway["spec"]["ippools"]["ipv4"] = 7;
    content->put_raw(Kind::kEgressGateway, {"", "egw"}, gateway);
  }
  int refused = 0;
};

TEST_F(RefusalsTest, AnObjectThatTheSchemaRefusesIsToldOnceAndTriedLessAndLess) {
  start_cluster();
  refuse(is_bad_policy, Errc::kInvalid);
  add_policy("bad-1");
  add_policy("bad-2");
  const std::string first = log_of(10'000);
  EXPECT_EQ(count(first, "a write was refused"), 2) << first;
  EXPECT_THAT(first, HasSubstr("object=default/bad-1 verb=\"update status\""));
  EXPECT_THAT(first, Not(HasSubstr("plans do not settle")));
  EXPECT_LE(refused, 2 * 5) << "at 0, 1, 3 and 7 s";
  add_policy("good");
  loop.advance(1000);
  EXPECT_TRUE(has_eip("good")) << "nobody else waits";
  refused = 0;
  EXPECT_EQ(log_of(600'000), "");
  EXPECT_LE(refused, 2 * 12) << "once a minute";
  EXPECT_GE(refused, 2 * 8);
  // What would be written is another thing now: at once.
  controllers["c1"]->store.refuse = nullptr;
  loop.advance(61'000);
  EXPECT_TRUE(has_eip("bad-1") && has_eip("bad-2"));
}

// Plans leave the policies of a gateway out that was written to often, for a moment.
TEST_F(RefusalsTest, APolicyOfAGatewayThatRestsIsToldOnce) {
  start_cluster();
  refuse(is_bad_policy, Errc::kInvalid);
  std::string told;
  for (const char* name : {"bad-1", "good-1", "good-2", "good-3", "good-4", "good-5", "good-6"}) {
    add_policy(name);
    told += log_of(60);
  }
  told += log_of(8000);
  EXPECT_TRUE(has_eip("good-6"));
  EXPECT_EQ(count(told, "a write was refused"), 1) << told;
  EXPECT_LE(refused, 6) << "at 0, 1, 3 and 7 s, and what differs by then";
}

TEST_F(RefusalsTest, AnotherContentIsTriedAtOnce) {
  start_cluster();
  refuse(
      [](const host::WriteRequest& request) {
        return request.kind == Kind::kEgressPolicy &&
               request.document.dump().find("GatewayNotFound") != std::string::npos;
      },
      Errc::kInvalid);
  json policy = make(kApi, "EgressPolicy", "bad", {{"egressGatewayName", "nowhere"}});
  policy["metadata"]["namespace"] = "default";
  content->put(Kind::kEgressPolicy, policy);
  loop.advance(300'000);
  EXPECT_GE(refused, 5);
  policy["spec"]["egressGatewayName"] = "egw";
  policy["spec"]["appliedTo"] = {{"podSelector", {{"matchLabels", {{"app", "web"}}}}}};
  content->put(Kind::kEgressPolicy, policy);
  loop.advance(500);
  EXPECT_TRUE(has_eip("bad"));
}

TEST_F(RefusalsTest, AForbiddenVerbIsToldOnce) {
  start_cluster();
  refuse(
      [](const host::WriteRequest& request) {
        return request.kind == Kind::kEgressTunnel && request.op == host::WriteRequest::Op::kCreate;
      },
      Errc::kDenied);
  add_node("n3", false);
  const std::string told = log_of(20'000);
  EXPECT_EQ(count(told, "ERROR"), 1) << told;
  EXPECT_THAT(told, HasSubstr("kind=EgressTunnel object=n3 verb=create"));
  EXPECT_LE(refused, 6);
  controllers["c1"]->store.refuse = nullptr;
  loop.advance(61'000);
  EXPECT_FALSE(tunnel("n3").is_null());
}

// As an API server does that fails at one object alone (500), or does not answer for it.
TEST_F(RefusalsTest, ObjectsThatTheStoreFailsAtHoldNobodyUp) {
  start_cluster();
  refuse(is_bad_policy, Errc::kUnavailable);
  add_policy("bad-1");
  const std::string one = log_of(10'000);
  EXPECT_EQ(count(one, "a write failed and is tried again later; other objects go on"), 1) << one;
  EXPECT_LE(refused, 7) << "at 0, 0.2, 0.6, 1.4, 3 and 6.2 s";
  add_policy("bad-2");
  add_policy("bad-3");
  add_policy("good");
  loop.advance(2000);
  EXPECT_TRUE(has_eip("good")) << "three that fail, one after the other, before it";
  refused = 0;
  loop.advance(60'000);
  EXPECT_LE(refused, 3 * 60);
  controllers["c1"]->store.refuse = nullptr;
  loop.advance(61'000);
  EXPECT_TRUE(has_eip("bad-1") && has_eip("bad-2") && has_eip("bad-3"));
}

// What failed because the store was away does not wait for longer when it is back.
TEST_F(RefusalsTest, AStoreThatIsBackIsWrittenToAtOnce) {
  start_cluster();
  refuse([](const host::WriteRequest& request) { return request.key.name == "late"; },
         Errc::kUnavailable);
  add_policy("late");
  loop.advance(40'000);
  controllers["c1"]->store.disconnect();
  loop.advance(1000);
  controllers["c1"]->store.refuse = nullptr;
  controllers["c1"]->store.reconnect();
  loop.advance(500);
  EXPECT_TRUE(has_eip("late"));
}

// A new leader's term comes to every gateway before anything moves; one that cannot be written is
// not waited for.
TEST_F(RefusalsTest, ANewLeaderServesTheOthersThoughAGatewaysStatusIsRefused) {
  start_cluster();
  add_other_gateway();
  loop.advance(2000);
  for (const Errc code : {Errc::kInvalid, Errc::kUnavailable}) {
    const std::string name = "c2-" + std::to_string(static_cast<int>(code));
    start_controller(name).store.refuse =
        [code](const host::WriteRequest& request) -> std::optional<Error> {
      if (request.key.name != "egw") return std::nullopt;
      return Error{code, "egw", "not this one", 0};
    };
    controllers[office.holder]->controller->stop();
    loop.settle();
    ASSERT_EQ(office.holder, name);
    add_policy_of_other("after-" + name);
    loop.advance(3000);
    EXPECT_TRUE(has_eip("after-" + name)) << static_cast<int>(code);
  }
}

// The leader knows the last good version alone, and cannot write from that.
TEST_F(RefusalsTest, AGatewayThatNobodyCanReadHoldsNoOthersMoveUp) {
  start_cluster();
  const std::string node = owner();
  kill_agent(other(node));
  loop.advance(4000);
  add_other_gateway();
  add_policy_of_other("second");
  loop.advance(500);
  start_agent(other(node));
  loop.advance(3000);
  ASSERT_EQ(owner_of_other(), node);
  const json good = content->read(Kind::kEgressGateway, {"", "egw"});
  make_unreadable();
  loop.advance(1000);
  kill_agent(node);
  loop.advance(3200);
  EXPECT_EQ(owner_of_other(), other(node));
  EXPECT_EQ(owner(), node);
  const std::string told = log_of(60'000);
  EXPECT_EQ(told, "");
  content->put(Kind::kEgressGateway, good);
  loop.advance(100);
  EXPECT_EQ(owner(), other(node)) << "at once, not after the pause of a refusal";
}

TEST_F(RefusalsTest, ANewLeaderServesTheOthersThoughAGatewayCannotBeRead) {
  start_cluster();
  add_other_gateway();
  start_controller("c2");
  loop.advance(2000);
  make_unreadable();
  loop.advance(1000);
  controllers["c1"]->controller->stop();
  loop.settle();
  ASSERT_EQ(office.holder, "c2");
  add_policy_of_other("second");
  loop.advance(3000);
  EXPECT_TRUE(has_eip("second"));
}

// What does not go into EgressClusterInfo default of a large cluster's peers.
TEST_F(RefusalsTest, ARefusedListOfPeersHoldsNoMoveUp) {
  start_cluster();
  auto refused_op = host::WriteRequest::Op::kCreate;
  refuse(
      [&](const host::WriteRequest& request) {
        return request.kind == Kind::kEgressClusterInfo && request.key.name == "peers-1" &&
               request.op == refused_op;
      },
      Errc::kDenied);
  for (int i = 1; i <= 200; ++i) {
    const std::string name = "m" + std::to_string(i);
    content->put(Kind::kNode, make("v1", "Node", name, json::object()));
    loop.settle();
    json status = tunnel(name)["status"];
    status["tunnel"]["parent"] = {{"ipv4", "10.7.0." + std::to_string(i)}};
    content->put_status(Kind::kEgressTunnel, {"", name}, status);
  }
  loop.settle();
  ASSERT_GE(refused, 1);
  const std::string node = owner();
  kill_agent(node);
  loop.advance(4000);
  EXPECT_EQ(owner(), other(node));

  start_agent(node);
  refused = 0;
  refused_op = host::WriteRequest::Op::kUpdateStatus;
  EXPECT_THAT(log_of(61'000), Not(HasSubstr("the others wait for it")));
  ASSERT_GE(refused, 1);
  kill_agent(other(node));
  loop.advance(3200);
  EXPECT_EQ(owner(), node) << "at once, not after a pause";
  controllers["c1"]->store.refuse = nullptr;
}

// Tenants whose policies are always written to between the plan and the write.
TEST_F(RefusalsTest, PoliciesThatKeepChangingHoldNobodyElseUp) {
  start_cluster();
  add_other_gateway();  // plans come to its policies last
  const int busy = runtime::PlanWriter::kPatientPerBatch + 4;
  const int often = 40 * busy;
  for (int i = 0; i < busy; ++i) {
    add_policy("aaa-" + std::to_string(i));
    add_policy("zzz-" + std::to_string(i));
  }
  for (int i = 0; i < 40; ++i) {
    add_policy("mmm-" + std::to_string(i));
    add_policy_of_other("nnn-" + std::to_string(i));
  }
  json bare = tunnel("g1");
  bare["metadata"]["finalizers"] = json::array();
  content->put(Kind::kEgressTunnel, bare);
  int meddled = 0;
  controllers["c1"]->store.before_write = [&](const host::WriteRequest& request) {
    const std::string& name = request.key.name;
    if (request.kind != Kind::kEgressPolicy || meddled == often) return;
    if (!name.starts_with("aaa") && !name.starts_with("zzz")) return;
    json document = content->read(request.kind, request.key);
    document["metadata"]["annotations"]["by"] = std::to_string(++meddled);
    content->put(request.kind, document);
    if (meddled < often) return;
    int served = 0;
    for (int i = 0; i < 40; ++i) {
      served += has_eip("mmm-" + std::to_string(i)) ? 1 : 0;
      served += has_eip("nnn-" + std::to_string(i)) ? 1 : 0;
    }
    EXPECT_EQ(served, 80);
    EXPECT_FALSE(tunnel("g1")["metadata"]["finalizers"].empty());
  };
  loop.advance(2000);
  EXPECT_EQ(meddled, often);
  EXPECT_TRUE(has_eip("aaa-0"));
  controllers["c1"]->store.before_write = nullptr;
}

TEST(RefusedContent, TimesAndRevisionsAreNoOtherContent) {
  const json before = {
      {"metadata", {{"resourceVersion", "1"}, {"name", "a"}}},
      {"status", {{"conditions", {{{"lastTransitionTime", "x"}, {"type", "t"}}}}}}};
  json after = before;
  after["metadata"]["resourceVersion"] = "2";
  after["status"]["conditions"][0]["lastTransitionTime"] = "y";
  EXPECT_EQ(runtime::content_of(before), runtime::content_of(after));
  after["status"]["conditions"][0]["type"] = "u";
  EXPECT_NE(runtime::content_of(before), runtime::content_of(after));
}

}  // namespace
}  // namespace egw::test
