// State store and leader election plugins through the host.
#include <gmock/gmock.h>

#include <fstream>
#include <thread>

#include "abi/support.hpp"

namespace egw::host::test {
namespace {

using testing::HasSubstr;

AdmitReply admit_all(const AdmitRequest& request) {
  AdmitReply reply;
  reply.object = request.new_object;
  if (request.new_object.contains("refuse")) {
    reply.admitted = false;
    reply.denials = {"spec.refuse: is set"};
    return reply;
  }
  if (request.new_object.contains("throw")) throw std::runtime_error("cannot judge");
  // Reads through the store's reader, inside the write.
  const auto other = request.get(request.kind, {"ns", "first"});
  reply.object["seen"] = other ? (*other)["value"] : nlohmann::json();
  std::size_t count = 0;
  request.each(request.kind, [&count](const nlohmann::json&) { ++count; });
  reply.object["count"] = count;
  reply.warnings = {"mind the gap"};
  return reply;
}

std::unique_ptr<StateStore> open(Bench& bench, const std::string& name = "scripted") {
  auto opened = bench.host().open_state_store(name, {}, admit_all);
  if (!opened) throw std::runtime_error(opened.error().to_string());
  return std::move(*opened);
}

Query query(const std::string& script) {
  Query q;
  q.kind = model::Kind::kEgressPolicy;
  q.name = script;
  return q;
}

WriteRequest create(const std::string& name, nlohmann::json document) {
  WriteRequest w{};
  w.op = WriteRequest::Op::kCreate;
  w.kind = model::Kind::kEgressPolicy;
  w.key = {"ns", name};
  w.document = std::move(document);
  return w;
}

TEST(Store, WritesAskTheHostAndReadBack) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  auto store = open(bench);
  auto written = bench.await(store->write(create("first", {{"value", 42}})));
  ASSERT_TRUE(written) << written.error().to_string();
  EXPECT_EQ(written->object.revision, 1U);
  EXPECT_EQ(written->warnings, std::vector<std::string>{"mind the gap"});
  EXPECT_TRUE(written->object.document["seen"].is_null());
  written = bench.await(store->write(create("second", {{"value", 43}})));
  ASSERT_TRUE(written);
  EXPECT_EQ(written->object.document["seen"], 42);
  EXPECT_EQ(written->object.document["count"], 1);

  const auto denied = bench.await(store->write(create("third", {{"refuse", true}})));
  ASSERT_FALSE(denied);
  EXPECT_EQ(denied.error().code, Errc::kDenied);
  EXPECT_EQ(denied.error().message, "spec.refuse: is set");
  const auto thrown = bench.await(store->write(create("third", {{"throw", true}})));
  ASSERT_FALSE(thrown);
  EXPECT_EQ(thrown.error().message, "cannot judge");

  auto conflicting = create("first", {{"value", 1}});
  conflicting.op = WriteRequest::Op::kUpdate;
  conflicting.expected_revision = 99;
  const auto conflict = bench.await(store->write(conflicting));
  ASSERT_FALSE(conflict);
  EXPECT_EQ(conflict.error().code, Errc::kConflict);
  EXPECT_EQ(conflict.error().object, "ns/first");

  const auto got = bench.await(store->get(model::Kind::kEgressPolicy, {"ns", "first"}));
  ASSERT_TRUE(got);
  EXPECT_EQ(got->document["value"], 42);
  const auto all = bench.await(store->list(query("")));
  ASSERT_TRUE(all);
  EXPECT_EQ(all->size(), 2U);
}

TEST(Store, IsToldWhetherToServeAdmission) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  for (const bool serves : {false, true}) {
    auto store = bench.host().open_state_store("scripted", {}, admit_all,
                                               serves ? StoreUse::kServes : StoreUse::kWrites);
    ASSERT_TRUE(store);
    const auto got = bench.await((*store)->get(model::Kind::kEgressPolicy, {"ns", "serves"}));
    ASSERT_TRUE(got) << got.error().to_string();
    EXPECT_EQ(got->document["serves"], serves);
  }
}

TEST(Store, FailuresAreValues) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  auto store = open(bench);
  const auto get = [&](const char* name) {
    return bench.await(store->get(model::Kind::kEgressPolicy, {"ns", name})).error();
  };
  EXPECT_EQ(get("missing").code, Errc::kNotFound);
  EXPECT_EQ(get("throws").message, "disk on fire");
  EXPECT_THAT(get("silent").message, HasSubstr("get succeeded and gave no readable object"));
  EXPECT_THAT(get("garbage").message, HasSubstr("no readable object"));
  auto bad = query("");
  bad.labels = "bad";
  EXPECT_EQ(bench.await(store->list(bad)).error().object, "labels");
  EXPECT_EQ(bench.await(store->health()).error().message, "in memory only");
}

TEST(Store, EventsComeInOrderOnTheExecutor) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  auto store = open(bench);
  const auto core = std::this_thread::get_id();
  std::vector<StoreEvent> events;
  auto subscription = bench.await(store->subscribe(query("count"), [&](StoreEvent e) {
    EXPECT_EQ(std::this_thread::get_id(), core);
    events.push_back(std::move(e));
  }));
  ASSERT_TRUE(subscription) << subscription.error().to_string();
  ASSERT_TRUE(bench.until([&] { return events.size() == 1002; }));
  EXPECT_EQ(events.front().type, StoreEvent::Type::kSnapshot);
  EXPECT_EQ(events.back().type, StoreEvent::Type::kSynced);
  for (std::uint64_t i = 1; i <= 1000; ++i) {
    ASSERT_EQ(events[i].revision, i);
    ASSERT_EQ(events[i].document["i"], i);
    ASSERT_EQ(events[i].key.ns, "ns");
  }
}

TEST(Store, GarbageIsLeftOutAndNamed) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  auto store = open(bench);
  std::vector<StoreEvent> events;
  auto subscription = bench.await(
      store->subscribe(query("garbage"), [&](StoreEvent e) { events.push_back(std::move(e)); }));
  ASSERT_TRUE(bench.until(
      [&] { return !events.empty() && events.back().type == StoreEvent::Type::kDisconnected; }));
  ASSERT_EQ(events.size(), 4U);
  EXPECT_EQ(events[1].key.name, "gone");  // a delete says by its name what it has to say
  EXPECT_TRUE(events[1].document.is_null());
  EXPECT_EQ(events[2].key.name, "fine");
  EXPECT_EQ(events[3].message, "line break ?");
  EXPECT_THAT(bench.log(), HasSubstr("an event of egresspolicies (broken) was left out"));
}

// Who asks for Pods gets them read where they can be, and never what is no JSON or too large.
TEST(Store, PodsMayComeRead) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  auto store = open(bench);
  for (const bool pods_read : {false, true}) {
    for (const auto kind : {model::Kind::kPod, model::Kind::kNode}) {
      auto wanted = query("pods");
      wanted.kind = kind;
      wanted.pods_read = pods_read;
      std::vector<StoreEvent> events;
      auto subscription = bench.await(
          store->subscribe(wanted, [&](StoreEvent e) { events.push_back(std::move(e)); }));
      ASSERT_TRUE(bench.until(
          [&] { return !events.empty() && events.back().type == StoreEvent::Type::kSynced; }));
      ASSERT_EQ(events.size(), 5U);
      const bool read = pods_read && kind == model::Kind::kPod;
      ASSERT_EQ(events[1].pod.has_value(), read);
      EXPECT_EQ(events[1].document.is_null(), read);
      EXPECT_EQ(events[1].key.name, "plain");
      if (read) {
        EXPECT_EQ(events[1].pod->meta.name, "plain");
      }
      EXPECT_FALSE(events[2].pod);
      EXPECT_EQ(events[2].document["metadata"]["name"], "caf\u00e9");
      EXPECT_FALSE(events[3].pod);
      EXPECT_EQ(events[3].document["metadata"]["name"], "plain");
    }
  }
}

TEST(Store, OfATextAPartMayBeParsed) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  auto store = open(bench);
  auto wanted = query("count");
  wanted.trim = [](std::string_view text) -> std::optional<std::string> {
    if (text != R"({"i":7})") return std::nullopt;
    return R"({"part":7})";
  };
  std::vector<StoreEvent> events;
  auto subscription =
      bench.await(store->subscribe(wanted, [&](StoreEvent e) { events.push_back(std::move(e)); }));
  ASSERT_TRUE(bench.until([&] { return events.size() == 1002; }));
  EXPECT_EQ(events[7].document, nlohmann::json({{"part", 7}}));
  EXPECT_EQ(events[8].document, nlohmann::json({{"i", 8}}));
}

TEST(Store, RefusedSubscriptions) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  auto store = open(bench);
  const auto ignore = [](const StoreEvent&) {};
  EXPECT_EQ(bench.await(store->subscribe(query("refused"), ignore)).error().message, "not today");
  EXPECT_EQ(bench.await(store->subscribe(query("throws"), ignore)).error().message, "no feed");
}

TEST(Store, NothingIsDeliveredAfterTheSubscriptionHasGone) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  auto store = open(bench);
  for (int round = 0; round < 5; ++round) {
    // On the heap and freed: a late call would be a use after free.
    auto counter = std::make_unique<int>(0);
    auto subscription = bench.await(
        store->subscribe(query("flood"), [c = counter.get()](const StoreEvent&) { ++*c; }));
    ASSERT_TRUE(subscription);
    ASSERT_TRUE(bench.until([&] { return *counter > 20; }));
    subscription->reset();
    counter.reset();
    bench.io().restart();
    bench.io().run_for(milliseconds(20));
  }
  // The plugin did go on calling after unsubscribe had returned.
  const auto late = bench.await(store->get(model::Kind::kEgressPolicy, {"ns", "late-calls"}));
  ASSERT_TRUE(late);
  EXPECT_GT(late->document["calls"], 0);
}

TEST(Store, CallbackMayEndItsOwnSubscription) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  auto store = open(bench);
  std::unique_ptr<Subscription> subscription;
  int seen = 0;
  auto made = bench.await(store->subscribe(query("flood"), [&](const StoreEvent&) {
    ++seen;
    if (seen >= 10) subscription.reset();
  }));
  ASSERT_TRUE(made);
  seen = 0;
  subscription = std::move(*made);
  ASSERT_TRUE(bench.until([&] { return subscription == nullptr; }));
  const int then = seen;
  bench.io().restart();
  bench.io().run_for(milliseconds(20));
  EXPECT_EQ(seen, then);
}

TEST(Store, SubscriptionMayOutliveTheStore) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  auto store = open(bench);
  int seen = 0;
  auto subscription =
      bench.await(store->subscribe(query("flood"), [&](const StoreEvent&) { ++seen; }));
  ASSERT_TRUE(bench.until([&] { return seen > 5; }));
  store.reset();
  bench.io().restart();
  bench.io().poll();
  const int then = seen;
  bench.io().restart();
  bench.io().run_for(milliseconds(20));
  EXPECT_EQ(seen, then);
  subscription->reset();
}

TEST(Store, ClosedWhileSubscribing) {
  Bench bench;
  bench.folder().add("statestore-scripted");
  for (int round = 0; round < 20; ++round) {
    auto store = open(bench);
    bool answered = false;
    boost::asio::co_spawn(
        bench.io(), store->subscribe(query("flood"), [](const StoreEvent&) {}),
        [&](std::exception_ptr, const Result<std::unique_ptr<Subscription>>&) { answered = true; });
    bench.io().restart();
    for (int i = 0; i < round; ++i) bench.io().run_one_for(milliseconds(1));
    store.reset();
    ASSERT_TRUE(bench.until([&] { return answered; }));
  }
}

TEST(Store, OlderMinorVersionWorks) {
  Bench bench;
  bench.folder().add("statestore-old");
  auto store = open(bench, "old");
  std::vector<StoreEvent> events;
  auto subscription = bench.await(
      store->subscribe(query(""), [&](StoreEvent e) { events.push_back(std::move(e)); }));
  ASSERT_TRUE(subscription);
  ASSERT_TRUE(bench.until([&] { return events.size() == 3; }));
  EXPECT_EQ(events[0].key.name, "one");
  EXPECT_EQ(events[0].message, "");
  EXPECT_EQ(events[0].document["a"], 1);
  EXPECT_EQ(events[1].type, StoreEvent::Type::kSynced);
  EXPECT_EQ(events[1].key.name, "");
  EXPECT_EQ(events[2].revision, 9U);
  EXPECT_THAT(bench.log(), HasSubstr("the type 77 is unknown"));
  const auto got = bench.await(store->get(model::Kind::kEgressPolicy, {"ns", "x"}));
  EXPECT_THAT(got.error().message, HasSubstr("unknown status 4711"));
  const auto written = bench.await(store->write(create("x", {})));
  EXPECT_THAT(written.error().message, HasSubstr("write succeeded and gave no readable object"));
}

struct Heard {
  std::vector<std::string> words;
  ElectionEvents events() {
    return {[this](std::uint64_t epoch) { words.push_back("elected " + std::to_string(epoch)); },
            [this](const std::string& reason) { words.push_back("lost " + reason); },
            [this](const std::string& holder, std::uint64_t epoch) {
              words.push_back("observed " + holder + " " + std::to_string(epoch));
            }};
  }
};

std::unique_ptr<LeaderElection> election(Bench& bench, const std::string& identity) {
  bench.folder().add("leaderelection-scripted");
  auto opened = bench.host().open_leader_election("scripted", {}, identity);
  if (!opened) throw std::runtime_error(opened.error().to_string());
  return std::move(*opened);
}

TEST(Election, NewsComesInOrder) {
  Bench bench;
  auto office = election(bench, "me");
  auto heard = std::make_unique<Heard>();
  ASSERT_TRUE(bench.await(office->campaign(heard->events())));
  const auto twice = bench.await(office->campaign({}));
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().message, "a campaign runs already");
  ASSERT_TRUE(bench.until([&] { return heard->words.size() == 4; }));
  EXPECT_THAT(heard->words, testing::ElementsAre("observed somebody 6", "elected 7",
                                                 "lost a better one came", "elected 8"));
  EXPECT_TRUE(bench.await(office->health()));
  bench.await(office->resign());
  EXPECT_THAT(bench.log(), HasSubstr("resigned"));
  ASSERT_TRUE(bench.await(office->campaign(heard->events())));
  ASSERT_TRUE(bench.until([&] { return heard->words.size() == 8; }));
}

TEST(Election, NothingIsHeardAfterResigning) {
  Bench bench;
  auto office = election(bench, "rude");
  auto heard = std::make_unique<Heard>();
  ASSERT_TRUE(bench.await(office->campaign(heard->events())));
  ASSERT_TRUE(bench.until([&] { return heard->words.size() > 10; }));
  bench.await(office->resign());
  heard.reset();  // a late call would be a use after free
  bench.io().restart();
  bench.io().run_for(milliseconds(30));
}

TEST(Election, ClosedWithoutResigning) {
  Bench bench;
  auto office = election(bench, "rude");
  auto heard = std::make_unique<Heard>();
  ASSERT_TRUE(bench.await(office->campaign(heard->events())));
  ASSERT_TRUE(bench.until([&] { return heard->words.size() > 10; }));
  office.reset();
  heard.reset();
  bench.io().restart();
  bench.io().run_for(milliseconds(30));
}

TEST(Election, RefusedCampaign) {
  Bench bench;
  auto office = election(bench, "unwanted");
  const auto refused = bench.await(office->campaign({}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kDenied);
}

}  // namespace
}  // namespace egw::host::test
