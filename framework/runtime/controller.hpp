// Controller: the loop of `egw controller`. Called by process.cpp and by tests.
//
// Every replica follows the store, so that it can take over at once; only the leader plans and
// writes. One plan at a time: after each change, when the plan itself asks for it, and every
// tunnelMonitorPeriod; what changes while its writes run is in the next plan. A write that meets a
// conflict ends the batch. Every write carries the leader's term. A gateway whose status was
// written often lately is held back, unless an EIP of it moves (write_pace.hpp).
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "egw/host/leader_election.hpp"
#include "egw/host/state_store.hpp"
#include "egw/model/settings.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/logging.hpp"
#include "egw/runtime/metrics.hpp"

namespace egw::runtime {

struct ControllerOptions {
  model::Settings settings;
  std::string identity;  // as given to the election
};

class Controller {
 public:
  Controller(boost::asio::any_io_executor executor, Clock& clock, Logger& log, Metrics& metrics,
             ControllerOptions options, host::StateStore& store, host::LeaderElection& election);
  ~Controller();

  // Returns after stop(), with the office given up.
  boost::asio::awaitable<void> run();
  void stop();

  [[nodiscard]] bool synced() const;
  [[nodiscard]] bool ready() const;  // synced, and the store says that it is well
  [[nodiscard]] bool leading() const;
  // Admin API: leader, term, the last moves (newest first), store.
  [[nodiscard]] nlohmann::json state() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace egw::runtime
