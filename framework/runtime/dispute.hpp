// Dispute: what a controller does that holds its office although another one writes with a higher
// term. Where its own election has passed on, that takes the office from it in a moment. Where it
// does not, there are two elections (two Leases) over the same objects: it stands back, keeps its
// office, so that its own replicas do not come forward, and says who leads. Called by the
// controller.
//
// It asks now and then whether that other one is still there: by an annotation of the
// EgressClusterInfo, which whoever leads takes off. Nobody else can tell: a leader with nothing to
// do writes nothing. Without an answer it takes office again.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <string>

#include "egw/host/state_store.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/events.hpp"
#include "egw/runtime/logging.hpp"
#include "egw/runtime/world_sync.hpp"

namespace egw::runtime {

class Dispute {
 public:
  static constexpr std::int64_t kFirstMs =
      2500;  // longer than an election takes to tell of its end
  // With the time for an answer about a usual lease. Each question reaches every agent twice.
  static constexpr std::int64_t kMostMs = 10'000;
  static constexpr std::int64_t kAnswerMs = 5000;

  Dispute(Clock& clock, Logger& log, EventRecorder& events, WorldSync& sync,
          host::StateStore& store, std::string identity)
      : clock_(clock),
        log_(log),
        events_(events),
        sync_(sync),
        store_(store),
        identity_(std::move(identity)) {}

  // Somebody has written with a higher term than `term`, which has been in office since then. seen:
  // an object shows it; else the store has said so.
  void begin(std::uint64_t term, std::int64_t since_ms, bool seen);
  void end() { on_ = false; }
  [[nodiscard]] bool on() const { return on_; }
  // When look() is due, at the latest; it may be called at any time. Ends the dispute when nobody
  // answers.
  [[nodiscard]] std::int64_t look_at_ms() const { return look_at_ms_; }
  boost::asio::awaitable<void> look();
  // The name of who leads as far as the objects tell; empty: they do not.
  [[nodiscard]] std::string other() const;
  // A term that is higher than this is not refused again.
  [[nodiscard]] std::uint64_t floor() const { return floor_; }

 private:
  boost::asio::awaitable<bool> ask();
  [[nodiscard]] bool answered() const;
  void tell();

  Clock& clock_;
  Logger& log_;
  EventRecorder& events_;
  WorldSync& sync_;
  host::StateStore& store_;
  const std::string identity_;
  bool on_ = false, asked_ = false;
  std::int64_t look_at_ms_ = 0, pause_ms_ = kFirstMs, told_ms_ = 0;
  std::uint64_t term_ = 0, floor_ = 0;
  std::string told_;
};

}  // namespace egw::runtime
