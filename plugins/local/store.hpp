// The state store of the plugin: Kubernetes' write semantics over the tables. Reads and writes run
// on the caller's one thread; subscriptions are served by a Watcher with a thread and a connection
// of its own.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "config.hpp"
#include "database.hpp"
#include "document.hpp"
#include "egw/sdk/state_store.hpp"
#include "watcher.hpp"

namespace egw::local {

class LocalStore : public sdk::StateStore {
 public:
  static constexpr std::uint64_t kCapabilities = EGW_CAP_SINGLE_MACHINE;

  LocalStore(std::string_view config_json, sdk::StoreHost host);

  sdk::Outcome<std::uint64_t> subscribe(const sdk::Query& query, sdk::EventSink sink) override;
  void unsubscribe(std::uint64_t subscription) override;
  sdk::Status get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
                  const sdk::ObjectSink& out) override;
  sdk::Status list(const sdk::Query& query, const sdk::ObjectSink& out) override;
  sdk::Status write(const sdk::Write& write, const sdk::ObjectSink& out) override;
  sdk::Status health() override;

 private:
  struct Step;
  sdk::Status write_in(Session& session, const sdk::Write& write, const nlohmann::json& wanted,
                       const sdk::ObjectSink& out, bool& changed);
  sdk::Status prepare(const sdk::Write& write, const nlohmann::json& wanted, Step& step);
  sdk::Status admit(Session& session, const sdk::Write& write, Step& step,
                    const sdk::ObjectSink& out);
  std::uint64_t store(Session& session, const sdk::Write& write, const CounterValues& counters,
                      Step& step);
  static void forget_events(Session& session, std::uint64_t term, std::uint64_t revision);

  const StoreConfig config_;
  const sdk::StoreHost host_;
  Database database_;
  std::unique_ptr<Watcher> watcher_;
};

}  // namespace egw::local
