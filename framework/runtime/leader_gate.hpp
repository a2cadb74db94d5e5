// LeaderGate: this process's part in the election. Called by the controller, which asks leading()
// before every write. Campaigns again after a failure; the plugin goes on by itself after a loss.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "egw/host/leader_election.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/logging.hpp"

namespace egw::runtime {

class LeaderGate {
 public:
  // on_change: leading() or holder() changed.
  LeaderGate(boost::asio::any_io_executor executor, Clock& clock, Logger& log,
             host::LeaderElection& election, std::function<void()> on_change);
  ~LeaderGate();

  void start();
  // Gives the office up at once; no on_change afterwards.
  boost::asio::awaitable<void> stop();

  [[nodiscard]] bool leading() const;
  [[nodiscard]] std::uint64_t epoch() const;        // of the present office, else 0
  [[nodiscard]] const std::string& holder() const;  // who leads as far as is known; may be empty

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace egw::runtime
