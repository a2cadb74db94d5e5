#include "egw/host/plugin_host.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "egw/host/config_check.hpp"
#include "egw/host/descriptor.hpp"
#include "egw/host/library.hpp"
#include "egw/host/own_folder.hpp"
#include "egw/host/proxies.hpp"

namespace egw::host {
namespace {

// A folder of the plugin's own: made if missing, refused if others may write it.
Result<void> prepare_state_dir(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(Errc::kUnavailable, path.string(),
                "the state folder cannot be made: check --state-dir", errno);
  }
  return check_own_folder(path);
}

}  // namespace

struct PluginHost::Impl {
  std::filesystem::path folder;
  boost::asio::any_io_executor executor;
  LogFn log;
  Deadlines deadlines;

  struct Prepared {
    Opening opening;
    PluginInfo info;
  };

  // Everything up to the plugin's open operation.
  Result<Prepared> prepare(PluginKind kind, const std::string& name, const nlohmann::json& config) {
    auto library = load_library(folder, kind, name, deadlines.entry);
    if (!library) return tl::unexpected<Error>(std::move(library.error()));
    if (auto ok = check_config(library->info.config_schema, config, config_key(kind) + ".config");
        !ok) {
      return tl::unexpected<Error>(std::move(ok.error()));
    }
    Prepared out;
    out.opening.worker =
        Worker::start(std::string(to_string(kind)) + " plugin " + name, executor, log);
    out.opening.executor = executor;
    out.opening.deadlines = deadlines;
    out.opening.ops = library->ops;
    out.opening.config = config.is_null() ? "{}" : config.dump();
    out.info = std::move(library->info);
    return out;
  }
};

PluginHost::PluginHost(std::filesystem::path plugin_dir, boost::asio::any_io_executor executor,
                       LogFn log, Deadlines deadlines)
    : impl_(std::make_unique<Impl>()) {
  impl_->folder = std::move(plugin_dir);
  impl_->executor = std::move(executor);
  impl_->log = std::move(log);
  impl_->deadlines = deadlines;
}

PluginHost::~PluginHost() = default;

std::vector<PluginInfo> PluginHost::list() const {
  return list_libraries(impl_->folder, impl_->deadlines.entry);
}

Result<PluginInfo> PluginHost::inspect(PluginKind kind, const std::string& name) const {
  return try_by_name(impl_->folder, kind, name, impl_->deadlines.entry);
}

Result<std::unique_ptr<StateStore>> PluginHost::open_state_store(const std::string& name,
                                                                 const nlohmann::json& config,
                                                                 AdmitFn admit, StoreUse use) {
  auto prepared = impl_->prepare(PluginKind::kStateStore, name, config);
  if (!prepared) return tl::unexpected<Error>(std::move(prepared.error()));
  return host::open_state_store(prepared->opening, std::move(admit), use);
}

Result<std::unique_ptr<LeaderElection>> PluginHost::open_leader_election(
    const std::string& name, const nlohmann::json& config, const std::string& identity) {
  auto prepared = impl_->prepare(PluginKind::kLeaderElection, name, config);
  if (!prepared) return tl::unexpected<Error>(std::move(prepared.error()));
  return host::open_leader_election(prepared->opening, identity);
}

Result<std::unique_ptr<Datapath>> PluginHost::open_datapath(const std::string& name,
                                                            const nlohmann::json& config,
                                                            const std::filesystem::path& state_dir,
                                                            const std::filesystem::path& layouts) {
  auto prepared = impl_->prepare(PluginKind::kDatapath, name, config);
  if (!prepared) return tl::unexpected<Error>(std::move(prepared.error()));
  if (auto made = prepare_state_dir(state_dir); !made) {
    return tl::unexpected<Error>(std::move(made.error()));
  }
  DatapathOpening opening;
  opening.state_dir = state_dir.string();
  opening.delta = (prepared->info.capabilities & EGW_CAP_DELTA) != 0;
  opening.layout = prepared->info.layout;
  if (!opening.layout.empty()) {
    const auto dir = (layouts.empty() ? state_dir : layouts) / ("layout-" + opening.layout);
    if (auto made = prepare_state_dir(dir); !made) {
      return tl::unexpected<Error>(std::move(made.error()));
    }
    opening.layout_dir = dir.string();
  }
  return host::open_datapath(prepared->opening, opening);
}

}  // namespace egw::host
