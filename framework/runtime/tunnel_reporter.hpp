// TunnelReporter: writes the status of this node's EgressTunnel. Called by the agent.
//
// Level-triggered: `fill` says what the status should be; what differs from the stored one is
// written at once, the heartbeat every tunnelUpdatePeriod. Each write is built from the newest
// version seen and expects it; a conflict is answered by reading the object and trying again. At
// most kWritesPerSecond over time, so that two agents with one node's name cannot flood the store.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <string>

#include "egw/model/resources.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/namesake.hpp"
#include "egw/runtime/world_sync.hpp"

namespace egw::runtime {

class TunnelReporter {
 public:
  static constexpr double kWritesPerSecond = 5;
  static constexpr double kBurst = 10;

  // Sets the agent's own fields of a status, which comes in as stored; all but lastHeartbeatTime.
  using Fill = std::function<void(model::EgressTunnel::Status&)>;

  struct Options {
    std::string node_name;
    std::int64_t period_ms = 5000;
    Fill fill;
    // A new realised revision is worth a write of its own now (else it goes with the next one).
    std::function<bool()> realised_urgent;
    // Within so many ms then, each node at a moment of its own: a change of one gateway is realised
    // by a thousand nodes at once. 0: now.
    std::function<std::int64_t()> realised_spread_ms;
    // A status has been stored, over one with the phase `before`.
    std::function<void(model::TunnelPhase before, const model::EgressTunnel& tunnel)> written;
    // Sets what to say in a store that is not the World's (WorldSync::other_store).
    Fill fill_elsewhere;
    // Whether this agent reports, or another one of its name; then what it says of that.
    std::function<Namesake::Part()> part;
    Fill fill_aside;
  };

  TunnelReporter(const boost::asio::any_io_executor& executor, Clock& clock, Logger& log,
                 Metrics& metrics, WorldSync& sync, host::StateStore& store, Options options);

  boost::asio::awaitable<void> run();  // until stop()
  void stop();
  void wake();          // something that fill() looks at, or the stored status, may have changed
  void reconnected() {  // the store is back: no waiting for the next attempt
    retry_at_ms_ = 0;
    wake();
  }

  // Sets (value not empty) or removes an annotation of the own tunnel. Retries on conflict.
  boost::asio::awaitable<Result<void>> annotate(std::string name, std::string value);

 private:
  [[nodiscard]] const model::EgressTunnel* stored() const;
  boost::asio::awaitable<void> write(model::TunnelPhase before, model::EgressTunnel tunnel);
  boost::asio::awaitable<bool> reload();
  boost::asio::awaitable<void> tell(bool elsewhere);
  [[nodiscard]] bool take_token();
  [[nodiscard]] std::int64_t realised_at_ms(const model::EgressTunnel& wanted,
                                            const model::EgressTunnel& own);

  Clock& clock_;
  Logger& log_;
  Metrics& metrics_;
  WorldSync& sync_;
  host::StateStore& store_;
  Options options_;
  Wakeup wakeup_;
  BackOff back_off_;
  bool stopping_ = false;
  std::int64_t urgent_since_ms_ = 0;  // 0: nothing is urgent
  double tokens_ = kBurst;
  std::int64_t tokens_at_ms_ = 0;
  std::int64_t beat_at_ms_ = 0;
  std::int64_t retry_at_ms_ = 0;
  unsigned conflicts_ = 0;
  std::string last_error_;
};

}  // namespace egw::runtime
