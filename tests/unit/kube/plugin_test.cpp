// The two libraries as a host sees them, their configuration, and a Lease as a candidate writes it.
#include "egw/abi/plugin.h"

#include <dlfcn.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <random>

#include "config.hpp"
#include "egw/abi/leader_election.h"
#include "egw/sdk/views.hpp"
#include "lease.hpp"
#include "schema.hpp"
#include "watch_events.hpp"

namespace egw::kube {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;
using testing::HasSubstr;

const egw_plugin_descriptor* load(const char* file) {
  const auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();
  void* library = ::dlopen((folder / "lib/egw/plugins" / file).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    ADD_FAILURE() << ::dlerror();
    return nullptr;
  }
  const auto entry =
      reinterpret_cast<egw_plugin_entry_fn>(::dlsym(library, EGW_PLUGIN_ENTRY_SYMBOL));
  return entry == nullptr ? nullptr : entry();
}

std::string no_kubeconfig() { return json{{"kubeconfig", "/does/not/exist"}}.dump(); }

// What an opening is refused with.
struct Refusal {
  std::string text;
  egw_error_sink sink{this, [](void* ctx, std::int32_t, egw_str what, egw_str message) {
                        static_cast<Refusal*>(ctx)->text =
                            std::string(sdk::view(what)) + ": " + std::string(sdk::view(message));
                      }};
};

TEST(KubePlugin, StateStore) {
  const egw_plugin_descriptor* d = load("egw-statestore-kube.so");
  ASSERT_NE(d, nullptr);
  EXPECT_EQ(d->kind, EGW_KIND_STATE_STORE);
  EXPECT_EQ(sdk::view(d->name), "kube");
  EXPECT_EQ(d->capabilities, 0U) << "it serves any number of machines";
  EXPECT_TRUE(json::parse(sdk::view(d->config_schema))["properties"].contains("termLease"));
  const auto* ops = static_cast<const egw_state_store_ops*>(d->ops);
  Refusal refusal;
  void* instance = nullptr;
  const std::string config = no_kubeconfig();
  EXPECT_EQ(ops->open(sdk::str(config), nullptr, &instance, &refusal.sink), EGW_INVALID);
  EXPECT_THAT(refusal.text, HasSubstr("/does/not/exist"));
}

TEST(KubePlugin, LeaderElection) {
  const egw_plugin_descriptor* d = load("egw-leaderelection-kube.so");
  ASSERT_NE(d, nullptr);
  EXPECT_EQ(d->kind, EGW_KIND_LEADER_ELECTION);
  const json schema = json::parse(sdk::view(d->config_schema));
  EXPECT_TRUE(schema["properties"].contains("leaseDuration"));
  EXPECT_TRUE(schema["properties"].contains("kubeconfig"));
  const auto* ops = static_cast<const egw_leader_election_ops*>(d->ops);
  Refusal refusal;
  void* instance = nullptr;
  EXPECT_EQ(ops->open(sdk::str(R"({"leaseDuration": 10})"), sdk::str("me"), nullptr, &instance,
                      &refusal.sink),
            EGW_INVALID);
  EXPECT_THAT(refusal.text, HasSubstr("config.leaseDuration: wanted more than renewDeadline"));
}

std::string refused(const char* config) {
  try {
    (void)parse_election_config(config);
    return "accepted";
  } catch (const sdk::Failure& failure) {
    return failure.what();
  }
}

TEST(KubeConfig, RelationsOfClientGoAreChecked) {
  const ElectionConfig c = parse_election_config("");
  EXPECT_EQ(c.lease_duration, 15s);
  EXPECT_EQ(c.renew_deadline, 10s);
  EXPECT_EQ(c.retry_period, 2s);
  EXPECT_THAT(refused(R"({"renewDeadline": 15})"), HasSubstr("config.leaseDuration"));
  EXPECT_THAT(refused(R"({"retryPeriod": 8.4})"), HasSubstr("config.renewDeadline"));
  EXPECT_EQ(refused(R"({"retryPeriod": 8.3})"), "accepted");
  EXPECT_THAT(refused(R"({"leaseDuration": 15.5})"), HasSubstr("whole seconds"));
  EXPECT_THAT(refused(R"({"retryPeriod": "2"})"), HasSubstr("config.retryPeriod"));
  EXPECT_THAT(refused(R"({"retryperiod": 2})"), HasSubstr("no such key"));
  EXPECT_THAT(refused(R"({"lease": ""})"), HasSubstr("config.lease"));
  EXPECT_THAT(refused("[]"), HasSubstr("object"));
}

TEST(KubeConfig, SchemasSayTheDefaults) {
  const json store = json::parse(kStoreSchema)["properties"];
  const StoreConfig s = parse_store_config("", true);
  EXPECT_EQ(store["requestTimeout"]["default"], s.connection.request_timeout / 1s);
  EXPECT_EQ(store["serviceAccountFolder"]["default"], kServiceAccountFolder);
  EXPECT_EQ(store["termLease"]["default"], s.term_lease);
  const json webhook = store["webhook"]["properties"];
  EXPECT_EQ(webhook["enabled"]["default"], s.webhook.enabled);
  EXPECT_EQ(webhook["address"]["default"], s.webhook.address);
  EXPECT_EQ(webhook["port"]["default"], s.webhook.port);
  EXPECT_EQ(webhook["service"]["default"], s.webhook.service);
  EXPECT_EQ(webhook["configuration"]["default"], s.webhook.configuration);
  EXPECT_EQ(webhook["secret"]["default"], s.webhook.secret);
  EXPECT_EQ(webhook["certificate"]["default"], "selfSigned");
  const json election = json::parse(kElectionSchema)["properties"];
  const ElectionConfig e = parse_election_config("");
  EXPECT_EQ(election["lease"]["default"], e.lease);
  EXPECT_EQ(election["leaseDuration"]["default"], e.lease_duration / 1s);
  EXPECT_EQ(election["renewDeadline"]["default"], e.renew_deadline / 1s);
  EXPECT_EQ(election["retryPeriod"]["default"], e.retry_period / 1s);
}

TEST(KubeLease, IsWrittenAsOthersReadIt) {
  const auto time = std::chrono::system_clock::from_time_t(1'700'000'000) + 42us;
  EXPECT_EQ(micro_time(time), "2023-11-14T22:13:20.000042Z");
  json lease = new_lease("ns", "l");
  lease["metadata"]["annotations"]["theirs"] = "kept";
  lease = taken(std::move(lease), "me", 3, 15s, micro_time(time));
  const json spec = {{"holderIdentity", "me"},
                     {"leaseDurationSeconds", 15},
                     {"acquireTime", micro_time(time)},
                     {"renewTime", micro_time(time)},
                     {"leaseTransitions", 3}};
  EXPECT_EQ(lease["spec"], spec);
  lease = renewed(std::move(lease), micro_time(time + 1s));
  EXPECT_EQ(lease["spec"]["acquireTime"], micro_time(time));
  EXPECT_EQ(lease["spec"]["renewTime"], micro_time(time + 1s));
  lease = released(std::move(lease), micro_time(time + 2s));
  EXPECT_EQ(read_lease(lease).holder, "");
  EXPECT_EQ(read_lease(lease).transitions, 3U);
  EXPECT_EQ(read_lease(lease).duration, 1s);
  EXPECT_EQ(lease["metadata"]["annotations"]["theirs"], "kept");
}

TEST(KubeWatchEvents, AreTheSameHoweverTheBytesAreCut) {
  const std::string text = R"({"type":"ADDED","object":{"a":"\n}"}})"
                           "\n\n"
                           R"({"type":"BOOKMARK","object":{}})"
                           "\n"
                           R"({"type":"DELETED","object":{"b":1}})"
                           "\n";
  for (std::size_t cut = 1; cut < text.size(); ++cut) {
    WatchEvents events;
    std::vector<WatchEvent> seen;
    const auto take = [&](WatchEvent e) {
      seen.push_back(std::move(e));
      return true;
    };
    for (std::size_t at = 0; at < text.size(); at += cut) {
      ASSERT_TRUE(events.feed(std::string_view(text).substr(at, cut), take).ok());
    }
    ASSERT_EQ(seen.size(), 3U) << cut;
    EXPECT_EQ(seen[0].type, WatchEvent::Type::kUpsert);
    EXPECT_EQ(seen[0].object["a"], "\n}");
    EXPECT_EQ(seen[1].type, WatchEvent::Type::kBookmark);
    EXPECT_EQ(seen[2].type, WatchEvent::Type::kDelete);
  }
}

// Bytes of a watch, changed and cut at random: the reader takes them or says what is wrong, and is
// done.
TEST(KubeWatchEvents, RandomBytesAreTakenOrRefused) {
  const std::string good =
      R"({"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"5"},"x":[1,{"y":null}]}})"
      "\n"
      R"({"type":"ERROR","object":{"code":410}})"
      "\n";
  std::mt19937 random(7);
  int taken = 0, refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text = good + good;
    for (auto i = random() % 6; i > 0; --i) {
      text[random() % text.size()] = static_cast<char>(random());
    }
    text.resize(random() % (text.size() + 1));
    WatchEvents events;
    sdk::Status status;
    while (!text.empty() && status.ok()) {
      const std::size_t cut = 1 + random() % text.size();
      status = events.feed(text.substr(0, cut), [&](const WatchEvent& event) {
        EXPECT_TRUE(event.object.is_object());
        ++taken;
        return random() % 50 != 0;
      });
      text.erase(0, cut);
    }
    if (!status.ok()) {
      ++refused;
      EXPECT_EQ(status.code, sdk::Code::kInternal);
      EXPECT_EQ(status.message.find('\n'), std::string::npos);
    }
  }
  EXPECT_GT(taken, 1000);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace egw::kube
