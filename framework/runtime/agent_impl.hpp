// The parts of an Agent; shared by the agent*.cpp only.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "egw/runtime/agent.hpp"
#include "egw/runtime/agent_status.hpp"
#include "egw/runtime/descriptors.hpp"
#include "egw/runtime/events.hpp"
#include "egw/runtime/heap_trimmer.hpp"
#include "egw/runtime/lasting_failure.hpp"
#include "egw/runtime/namesake.hpp"
#include "egw/runtime/plugin_health.hpp"
#include "egw/runtime/programmer.hpp"
#include "egw/runtime/store_record.hpp"
#include "egw/runtime/tunnel_reporter.hpp"

namespace egw::runtime {

struct Agent::Impl {
  Impl(boost::asio::any_io_executor the_executor, Clock& the_clock, Logger& the_log,
       Metrics& the_metrics, AgentOptions the_options, AgentPorts the_ports);

  boost::asio::any_io_executor executor;
  Clock& clock;
  Logger& log;
  Metrics& metrics;
  AgentOptions options;
  AgentPorts ports;
  EipKeeper keeper;
  Sysctls sysctls;
  WorldSync sync;
  Programmer programmer;
  TunnelReporter reporter;
  EventRecorder events;
  PluginHealth health;
  Namesake namesake;
  LastingFailure lasting;
  DescriptorWatch descriptors;
  Wakeup upkeep_wakeup, forget_wakeup, drain_wakeup, reach_wakeup, uninstall_wakeup, done;
  Reachability reachability;

  bool stopping = false;
  bool draining = false;
  bool was_connected = false;
  std::int64_t behind_since = 0;  // steady: some kinds are heard of, others are not; 0: not so
  bool node_known = false;        // the store has had it
  bool node_gone = false;
  bool told_programmed = false;
  bool pods_held = false;
  bool told_cannot_hold = false;
  bool stands_aside = false;  // nothing is programmed: another agent has this node
  bool kernel_intact = false;
  std::string told_other_store;
  ServedRecord noted_served;    // likewise
  std::string noted_store;      // in the state folder, see store_record.hpp
  std::string uninstall_asked;  // since when, as the request says; empty: it has not been
  bool purged = false;
  std::string purge_trouble;
  int loops = 0;
  bool uplink_known = false;
  bool uplink_works = false;
  bool uplink_without_address = false;
  std::string lost_address;  // of the uplink, of the family that the tunnel does not use
  net::UplinkState uplink;
  std::string uplink_method;
  std::vector<model::Mac> gateway_macs;
  std::map<model::Address, Conflict> conflicts;
  HeapTrimmer trimmer;
  std::int64_t confirm_at_ms = 0;

  [[nodiscard]] TunnelReporter::Options reporter_options();
  [[nodiscard]] AgentView view();
  [[nodiscard]] model::Address underlay() const;
  [[nodiscard]] model::Address underlay_of(const net::UplinkState& state) const;
  [[nodiscard]] std::string why_lost(const net::UplinkState& state) const;
  [[nodiscard]] bool owns_anything() const;
  [[nodiscard]] const model::EgressTunnel* own_tunnel() const;
  [[nodiscard]] const model::Condition* nobody_takes_over() const;

  void on_world(std::optional<model::Kind> kind);
  void on_status();
  void on_health();
  boost::asio::awaitable<Result<void>> datapath_health();
  boost::asio::awaitable<Result<void>> descriptors_held();
  void on_written(model::TunnelPhase before, const model::EgressTunnel& own);
  void on_uplink(const net::UplinkState& state);
  void note_other_family(const net::UplinkState& state);
  void on_claim(const net::Claim& claim);
  void on_ports();
  [[nodiscard]] std::vector<net::LostSubnet> lost_subnets() const;
  void choose_uplink();
  void update_gateway_macs();
  void hold_pods();
  [[nodiscard]] bool keeps_store() const;
  [[nodiscard]] std::string other_store_text() const;
  void look_at_store();
  void note_store();
  void note_served();
  void serve_as_before();
  void look_for_uninstall();
  Namesake::Part look_for_namesake();
  void tell_of_namesake(Namesake::Part before, const std::string& other, bool disputed_before);
  void mute();
  void look_for_node();
  std::int64_t expire_conflicts();
  void halt();

  static boost::asio::awaitable<void> run(std::shared_ptr<Impl> self);
  static void start(std::shared_ptr<Impl> self, boost::asio::awaitable<void> loop);
  static boost::asio::awaitable<void> counted(std::shared_ptr<Impl> self,
                                              boost::asio::awaitable<void> loop);
  static boost::asio::awaitable<void> upkeep(std::shared_ptr<Impl> self);
  static boost::asio::awaitable<void> forget_former(std::shared_ptr<Impl> self);
  static boost::asio::awaitable<void> confirm(std::shared_ptr<Impl> self);
  static boost::asio::awaitable<void> reach(std::shared_ptr<Impl> self);
  static boost::asio::awaitable<void> uninstall(std::shared_ptr<Impl> self);
  static boost::asio::awaitable<void> undrain(std::shared_ptr<Impl> self);
  static boost::asio::awaitable<void> drain(std::shared_ptr<Impl> self);
};

}  // namespace egw::runtime
