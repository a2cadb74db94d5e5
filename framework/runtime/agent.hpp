// Agent: the loops of `egw agent` on one node. Called by process.cpp, which gives it plugins and
// sockets, and by tests, which give it stores, datapaths and clocks of their own.
//
// store events -> WorldSync -> Programmer (compile, apply) -> EipKeeper -> announcer
//                                        \-> TunnelReporter -> own EgressTunnel's status
//
// Without the store everything stays as it is. One thread: the executor's.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "egw/host/datapath.hpp"
#include "egw/host/state_store.hpp"
#include "egw/model/settings.hpp"
#include "egw/net/announcer.hpp"
#include "egw/net/uplink.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/datapath_record.hpp"
#include "egw/runtime/eip_keeper.hpp"
#include "egw/runtime/logging.hpp"
#include "egw/runtime/metrics.hpp"
#include "egw/runtime/reachability.hpp"

namespace egw::runtime {

struct AgentOptions {
  model::Settings settings;
  std::string node_name;
  std::string identity;  // agent_identity(); empty: not told, and no other agent is noticed
  std::filesystem::path state_dir;
  std::filesystem::path sysctl_root = "/proc/sys";
  std::int64_t drain_timeout_ms = 30'000;
};

struct AgentPorts {
  host::StateStore& store;
  host::Datapath& datapath;
  AnnouncerPort& announcer;
  // Follow the uplink found by `method` (net::UplinkWatch) from now on, with Agent::on_uplink;
  // called again when the method changes.
  std::function<void(const std::string& method)> watch_uplink;
  // The kernel has been programmed for the first time since the start.
  std::function<void()> on_programmed;
  // agent.bootDrop: the node has not been programmed yet; its pods (by these prefixes) shall reach
  // nothing but `inside` until on_programmed. Called once; absent: not wanted.
  std::function<void(const std::vector<model::Prefix>& pods,
                     const std::vector<model::Prefix>& inside)>
      hold_pods = nullptr;
  // The datapath has been purged (`egw uninstall`): takes the rest of what the process has left.
  std::function<Result<void>()> on_purged = nullptr;
  // nullptr: not told.
  std::function<DatapathInUse()> datapath_in_use = nullptr;
  // Asks the owners of EIPs through the tunnel; nullptr: nobody does.
  Pinger* pinger = nullptr;
};

class Agent {
 public:
  Agent(boost::asio::any_io_executor executor, Clock& clock, Logger& log, Metrics& metrics,
        AgentOptions options, AgentPorts ports);
  ~Agent();

  // Returns after stop() (and the hand-over, when draining).
  boost::asio::awaitable<void> run();
  // drain: have the EIPs moved away first, at most drain_timeout_ms; a second call stops at once.
  void stop(bool drain);

  void on_uplink(const net::UplinkState& state);
  void on_claim(const net::Claim& claim);
  void on_ports();  // of the announcer
  // As the datapath was given it last.
  [[nodiscard]] model::NodeConfig node() const;
  // Has the datapath compare and program everything again.
  void apply_all();

  [[nodiscard]] bool started() const;  // the first apply is done
  [[nodiscard]] bool ready() const;    // started, its Node is there, the datapath well

  // Admin API (docs: GET /state, /observe, /counters).
  [[nodiscard]] nlohmann::json state() const;
  [[nodiscard]] nlohmann::json desired() const;  // the NodeState that the datapath was given
  boost::asio::awaitable<Result<nlohmann::json>> observe();
  boost::asio::awaitable<Result<nlohmann::json>> counters();
  // Copies the datapath's and the announcer's counters into the metrics.
  boost::asio::awaitable<void> refresh_metrics();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace egw::runtime
