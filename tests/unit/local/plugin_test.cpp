// The two libraries as a host sees them: one symbol, the descriptor, the table of operations.
#include "egw/abi/plugin.h"

#include <dlfcn.h>
#include <gmock/gmock.h>

#include <filesystem>

#include "egw/abi/leader_election.h"
#include "support.hpp"

namespace egw::local::test {
namespace {

const egw_plugin_descriptor* load(const char* file) {
  const auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();
  void* library = ::dlopen((folder / "lib/egw/plugins" / file).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    ADD_FAILURE() << ::dlerror();
    return nullptr;
  }
  EXPECT_EQ(::dlsym(library, "_ZTVN3egw5local10LocalStoreE"), nullptr) << "only the entry is out";
  const auto entry =
      reinterpret_cast<egw_plugin_entry_fn>(::dlsym(library, EGW_PLUGIN_ENTRY_SYMBOL));
  return entry == nullptr ? nullptr : entry();
}

struct Failed {
  std::string what, message;
  egw_error_sink sink{this, [](void* ctx, std::int32_t, egw_str w, egw_str m) {
                        static_cast<Failed*>(ctx)->what = sdk::view(w);
                        static_cast<Failed*>(ctx)->message = sdk::view(m);
                      }};
};

TEST(Plugin, StateStore) {
  const Folder folder;
  const egw_plugin_descriptor* d = load("egw-statestore-local.so");
  ASSERT_NE(d, nullptr);
  EXPECT_EQ(d->kind, EGW_KIND_STATE_STORE);
  EXPECT_EQ(sdk::view(d->name), "local");
  EXPECT_EQ(d->capabilities, EGW_CAP_SINGLE_MACHINE);
  EXPECT_EQ(json::parse(sdk::view(d->config_schema))["type"], "object");
  const auto* ops = static_cast<const egw_state_store_ops*>(d->ops);

  Failed failed;
  void* instance = nullptr;
  EXPECT_EQ(ops->open(sdk::str(R"({"path": "relative"})"), nullptr, &instance, &failed.sink),
            EGW_INVALID);
  EXPECT_EQ(failed.what, "config.path");

  const std::string config = json{{"path", folder.db()}}.dump();
  egw_store_host host{};
  host.struct_size = sizeof(host);
  host.base.struct_size = sizeof(host.base);
  host.admit = [](void*, std::uint32_t, const egw_object_kind*, egw_str, egw_str after,
                  const egw_reader*, const egw_admission_sink* out) {
    out->object(out->ctx, after);
    return std::int32_t{EGW_OK};
  };
  ASSERT_EQ(ops->open(sdk::str(config), &host, &instance, &failed.sink), EGW_OK) << failed.message;
  egw_write w{};
  w.struct_size = sizeof(w);
  w.op = EGW_WRITE_CREATE;
  w.kind = gateway().abi();
  w.name = sdk::str("g");
  w.object = sdk::str(R"({"spec": {"x": 1}})");
  std::string stored;
  const egw_object_sink out{&stored,
                            [](void* ctx, std::uint64_t, egw_str text) {
                              *static_cast<std::string*>(ctx) = sdk::view(text);
                            },
                            [](void*, egw_str) {}};
  EXPECT_EQ(ops->write(instance, &w, &out, &failed.sink), EGW_OK) << failed.message;
  EXPECT_EQ(json::parse(stored)["metadata"]["generation"], 1);
  EXPECT_EQ(ops->write(instance, &w, &out, &failed.sink), EGW_EXISTS);
  EXPECT_EQ(failed.what, "EgressGateway g");
  EXPECT_EQ(ops->health(instance, &failed.sink), EGW_OK);
  ops->close(instance);
}

TEST(Plugin, LeaderElection) {
  const Folder folder;
  const egw_plugin_descriptor* d = load("egw-leaderelection-local.so");
  ASSERT_NE(d, nullptr);
  EXPECT_EQ(d->kind, EGW_KIND_LEADER_ELECTION);
  const auto* ops = static_cast<const egw_leader_election_ops*>(d->ops);
  Failed failed;
  void* instance = nullptr;
  const std::string config = json{{"path", folder.db()}}.dump();
  ASSERT_EQ(ops->open(sdk::str(config), sdk::str("me"), nullptr, &instance, &failed.sink), EGW_OK)
      << failed.message;
  struct News {
    std::mutex mutex;
    std::condition_variable changed;
    std::uint64_t epoch = 0;
  } news;
  const egw_election_sink sink{&news,
                               [](void* ctx, std::uint64_t epoch) {
                                 auto* n = static_cast<News*>(ctx);
                                 const std::lock_guard lock(n->mutex);
                                 n->epoch = epoch;
                                 n->changed.notify_all();
                               },
                               [](void*, egw_str) {}, [](void*, egw_str, std::uint64_t) {}};
  ASSERT_EQ(ops->campaign(instance, &sink, &failed.sink), EGW_OK);
  {
    std::unique_lock lock(news.mutex);
    EXPECT_TRUE(news.changed.wait_for(lock, 5s, [&] { return news.epoch != 0; }));
  }
  EXPECT_EQ(news.epoch, 1U);
  ops->resign(instance);
  EXPECT_EQ(ops->health(instance, &failed.sink), EGW_NOT_FOUND) << "nobody leads any more";
  ops->close(instance);
}

}  // namespace
}  // namespace egw::local::test
