// EventRecorder: tells people what happened to an object, as core/v1 Events in the state store
// (`egw get events`). Called by controller and agent.
//
// The same thing again raises the count of the stored event. Nothing waits for an event and nothing
// fails with one: record() puts it into a bounded list, run() writes at most kPerSecond, after the
// caller's own writes; what does not fit, or is refused, is dropped and counted. While the store is
// away the list waits.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <deque>
#include <string>

#include "egw/host/state_store.hpp"
#include "egw/model/resources.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/logging.hpp"
#include "egw/runtime/metrics.hpp"

namespace egw::runtime {

struct Happening {
  model::Kind kind = model::Kind::kEgressGateway;
  model::Key key;
  bool warning = false;
  std::string reason;   // CamelCase, stable
  std::string message;  // with object and reason: what makes it the same thing again
  std::string detail;   // what differs each time; stands behind the message
};

class EventRecorder {
 public:
  static constexpr std::size_t kWaiting = 200;
  static constexpr double kPerSecond = 10;
  static constexpr double kBurst = 20;

  // component: "egw-controller", "egw-agent"; host: node or identity.
  EventRecorder(const boost::asio::any_io_executor& executor, Clock& clock, Logger& log,
                Metrics& metrics, host::StateStore& store, std::string component, std::string host);

  void record(const Happening& what);
  // The caller writes what matters now; events wait.
  void busy(bool on);
  boost::asio::awaitable<void> run();  // until stop()
  void stop();

 private:
  boost::asio::awaitable<Result<void>> write(model::Event event);
  [[nodiscard]] model::Event event_of(const Happening& what) const;
  [[nodiscard]] std::int64_t take_token();

  Clock& clock_;
  Logger& log_;
  Metrics& metrics_;
  host::StateStore& store_;
  std::string component_, host_;
  Wakeup wakeup_;
  std::deque<model::Event> waiting_;
  double tokens_ = kBurst;
  std::int64_t tokens_at_ms_;
  bool busy_ = false;
  bool stopping_ = false;
};

}  // namespace egw::runtime
