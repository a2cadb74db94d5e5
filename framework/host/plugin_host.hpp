// PluginHost: finds, checks and opens plugins. Every refusal is one sentence that names the file
// and says what is wrong with it and what to do.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "egw/host/datapath.hpp"
#include "egw/host/leader_election.hpp"
#include "egw/host/state_store.hpp"

namespace egw::host {

enum class PluginKind : std::uint32_t { kStateStore = 1, kLeaderElection = 2, kDatapath = 3 };
[[nodiscard]] std::string_view to_string(PluginKind kind);  // "statestore", "leaderelection", ...

struct PluginInfo {
  std::filesystem::path file;
  PluginKind kind{};
  std::string name, version, build_tag, config_schema;
  std::string layout;  // of a datapath, see egw_plugin_descriptor; empty: none
  std::uint16_t abi_major = 0, abi_minor = 0;
  std::uint64_t capabilities = 0;
  // Empty: usable. Else why not, as the rest of a sentence that begins with the file ("is no ELF
  // file: ..."); the other fields may be empty then.
  std::string problem;
};

using LogFn = std::function<void(int level, std::string_view plugin, std::string_view message)>;

// The host's side of admission, called by a state store inside its write transaction, from the
// store's thread: must be thread-safe. Fills `object` when it admits. It must own all that it
// touches: a question under way may outlive the store.
struct AdmitRequest {
  enum class Op { kCreate, kUpdate, kDelete } op;
  model::Kind kind;
  nlohmann::json old_object, new_object;  // null where there is none
  // nullptr: not there. Shared with other questions where the same text was read before.
  std::function<std::shared_ptr<const nlohmann::json>(model::Kind, const model::Key&)> get;
  // Calls visit with each object of the kind as it is read; it is gone after the call.
  std::function<void(model::Kind, const std::function<void(const nlohmann::json&)>& visit)> each;
};
struct AdmitReply {
  bool admitted = true;
  nlohmann::json object;
  std::vector<std::string> warnings, denials;
};
using AdmitFn = std::function<AdmitReply(const AdmitRequest&)>;

// How long the host waits: for an operation, for the end of a closed plugin, for a library's entry.
struct Deadlines {
  std::chrono::milliseconds apply{30000};  // also purge
  std::chrono::milliseconds call{5000};    // every other operation
  std::chrono::milliseconds open{10000};
  std::chrono::milliseconds close{2000};
  std::chrono::milliseconds entry{5000};
};

class PluginHost {
 public:
  // executor: where all callbacks and completions run; its context must outlive everything opened
  // here. log: thread-safe.
  PluginHost(std::filesystem::path plugin_dir, boost::asio::any_io_executor executor, LogFn log,
             Deadlines deadlines = {});
  ~PluginHost();

  // All libraries in the folder, usable or not, sorted by kind and name.
  [[nodiscard]] std::vector<PluginInfo> list() const;
  [[nodiscard]] Result<PluginInfo> inspect(PluginKind kind, const std::string& name) const;

  // config: the value of plugins.<kind>.config, checked against the plugin's schema.
  // use: whether a store may be made, and whether it may ask `admit` for writes of others.
  Result<std::unique_ptr<StateStore>> open_state_store(const std::string& name,
                                                       const nlohmann::json& config, AdmitFn admit,
                                                       StoreUse use = StoreUse::kWrites);
  Result<std::unique_ptr<LeaderElection>> open_leader_election(const std::string& name,
                                                               const nlohmann::json& config,
                                                               const std::string& identity);
  // state_dir: made with mode 0700 if missing. layouts: where the folders are that plugins of one
  // layout have in common; empty: nothing is in common, it lies in state_dir.
  Result<std::unique_ptr<Datapath>> open_datapath(const std::string& name,
                                                  const nlohmann::json& config,
                                                  const std::filesystem::path& state_dir,
                                                  const std::filesystem::path& layouts = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace egw::host
