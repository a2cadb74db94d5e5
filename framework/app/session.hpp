// A verb's connection to the configured state store: the awaitable interface of the host, made
// synchronous for commands that do one thing after another.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "egw/app/config.hpp"
#include "egw/app/console.hpp"
#include "egw/host/state_store.hpp"
#include "egw/model/result.hpp"

namespace egw::host {
class PluginHost;
}

namespace egw::app {

// Why a watch has ended.
enum class WatchEnd {
  kSeen,         // on_event had what it wanted
  kTimeOver,     // the limit
  kInterrupted,  // SIGINT or SIGTERM, or stdout has no reader any more
};

class Session {
 public:
  // Opens the configured store. Errors: the plugin or its configuration refused (kInvalid,
  // kUnsupported), the store unusable (kUnavailable).
  static Result<std::unique_ptr<Session>> open(const Config& config, Console& console,
                                               host::StoreUse use);
  ~Session();

  // Asks the configured election, without standing in it. kNotFound: nobody leads who lives; any
  // other error: it does not say.
  Result<void> led(const Config& config);
  Result<host::StoredObject> get(model::Kind kind, model::Key key);
  Result<std::vector<host::StoredObject>> list(host::Query query);
  Result<host::WriteOutcome> write(host::WriteRequest request);
  // Follows the queries' objects until on_event returns false, SIGINT or SIGTERM arrives, the
  // reader of stdout goes away, or `limit` has passed (0: no limit). `index` is the query's place
  // in the list.
  Result<WatchEnd> watch(std::vector<host::Query> queries,
                         std::function<bool(std::size_t index, const host::StoreEvent&)> on_event,
                         std::chrono::milliseconds limit = {});

 private:
  Session();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The plugin host alone, for `plugin list`; its messages go to the console from the level on that
// the configuration asks for. The executor given to it is never run.
class PluginFolder {
 public:
  explicit PluginFolder(const Config& config);
  ~PluginFolder();
  [[nodiscard]] const host::PluginHost& host() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// 1 for what may pass (a store that cannot be reached), 2 for what the operator has to put right;
// as run_agent and run_controller have it.
[[nodiscard]] int exit_code_of(const Error& opening);

}  // namespace egw::app
