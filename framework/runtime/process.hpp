// A whole process: event loop, plugins, sockets, signals around the agent and the controller.
// Called by framework/app's verbs `agent`, `controller` and `purge`.
#pragma once

#include <string>

#include "egw/model/result.hpp"
#include "egw/runtime/config.hpp"

namespace egw::host {
struct AdmitRequest;
struct AdmitReply;
}  // namespace egw::host

namespace egw::runtime {

// Both run until SIGTERM or SIGINT, log to stderr, and return the exit code: 0 stopped as asked, 1
// something needed was not there (already running, store unusable), 2 the configuration or a plugin
// was refused. What went wrong has then been logged in one line. The kernel is left as it is.
int run_agent(const RuntimeConfig& config);
int run_controller(const RuntimeConfig& config);

// Removes everything that a datapath has left in this node's kernel and restores the settings of
// the host that the agent changed. datapath: a plugin's name, or "all"; empty: the one that
// programmed the node last (else the configured one) and those before it whose state is still
// there. A former one alone leaves what it shares with the one that still serves, and the settings.
// Refuses while an agent runs with this state folder.
Result<void> run_purge(const RuntimeConfig& config, const std::string& datapath);

// core::admit behind the host's interface, for PluginHost::open_state_store. Thread-safe.
host::AdmitReply admit_with(const model::Settings& settings, const host::AdmitRequest& request);

}  // namespace egw::runtime
