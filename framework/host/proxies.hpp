// The three proxies: an interface of this module implemented by a plugin's table of operations.
// Called by plugin_host.cpp only. Each opens the plugin on the worker's thread and blocks for at
// most the deadline for it.
#pragma once

#include <memory>
#include <string>

#include "egw/host/library.hpp"
#include "egw/host/worker.hpp"

namespace egw::host {

struct Opening {
  std::shared_ptr<Worker> worker;
  boost::asio::any_io_executor executor;
  const void* ops = nullptr;
  std::string config;  // JSON text
  Deadlines deadlines;
};

[[nodiscard]] Result<std::unique_ptr<StateStore>> open_state_store(const Opening& opening,
                                                                   AdmitFn admit, StoreUse use);
[[nodiscard]] Result<std::unique_ptr<LeaderElection>> open_leader_election(
    const Opening& opening, const std::string& identity);
struct DatapathOpening {
  std::string state_dir;
  std::string layout, layout_dir;  // empty: none
  bool delta = false;              // the plugin offers EGW_CAP_DELTA
};
[[nodiscard]] Result<std::unique_ptr<Datapath>> open_datapath(const Opening& opening,
                                                              const DatapathOpening& datapath);

// Runs a plugin's open operation on the worker's thread. The handle, or why there is none; an open
// that comes back too late is closed where it comes back.
[[nodiscard]] Result<void*> open_instance(
    const Opening& opening,
    const std::function<std::int32_t(void** handle, const egw_error_sink* error)>& open,
    void (*close)(void* handle));

// The egw_host of an instance; ctx is the worker.
[[nodiscard]] egw_host host_services(Worker& worker);

}  // namespace egw::host
