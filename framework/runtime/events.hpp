// EventRecorder: tells people what happened to an object, as events.k8s.io/v1 Events in the state
// store (`egw get events`). Called by controller and agent.
//
// The same thing again within kSeriesMs is counted in the series of the stored event, as client-go
// does it (tools/events/event_broadcaster.go); later, it is a new event. What differs each time is
// told the first time only: the API lets nobody change it. Nothing waits for an event and nothing
// fails with one: record() puts it into a bounded list, run() writes at most kPerSecond, after the
// caller's own writes; what does not fit, or is refused, is dropped and counted. While the store is
// away the list waits.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <deque>
#include <map>
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
  std::string action;   // what its writer did, CamelCase
  std::string reason;   // CamelCase, stable
  std::string message;  // with object and reason: what makes it the same thing again
  std::string detail;   // what differs each time; stands behind the message
  std::string uid;      // of the object: `kubectl describe` finds its events by that
};

class EventRecorder {
 public:
  static constexpr std::size_t kWaiting = 200;
  static constexpr std::size_t kSeriesKept = 1000;
  static constexpr std::int64_t kSeriesMs = 6 * 60'000;
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
  // The stored event of something that may happen again.
  struct Series {
    std::string event;         // its name
    std::int64_t last_ms = 0;  // steady clock
  };

  boost::asio::awaitable<Result<void>> write(model::Event event);
  model::Event event_of(const Happening& what);
  // Of the event that stands for it: that of its series, or a new one.
  std::string name_of(const Happening& what);
  [[nodiscard]] std::int64_t take_token();

  Clock& clock_;
  Logger& log_;
  Metrics& metrics_;
  host::StateStore& store_;
  std::string component_, host_;
  Wakeup wakeup_;
  std::deque<model::Event> waiting_;
  bool refused_ = false;  // the last one was, and it is told
  std::map<std::string, Series> series_;
  double tokens_ = kBurst;
  std::int64_t tokens_at_ms_;
  bool busy_ = false;
  bool stopping_ = false;
};

}  // namespace egw::runtime
