// PlanWriter: makes the writes of one core::Plan in the store. Called by the controller.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <string>

#include "egw/core/plan.hpp"
#include "egw/host/state_store.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/logging.hpp"
#include "egw/runtime/metrics.hpp"
#include "egw/runtime/world_sync.hpp"

namespace egw::runtime {

// Whom a write concerns.
struct WriteTarget {
  model::Kind kind = model::Kind::kEgressGateway;
  model::Key key;
  friend auto operator<=>(const WriteTarget&, const WriteTarget&) = default;
};
[[nodiscard]] WriteTarget target_of(const core::Write& write);

enum class BatchEnd {
  kDone,         // every write was made (or needs no making any more)
  kInterrupted,  // may_go_on() said no, or something more urgent has arrived
  kConflict,     // an object has changed meanwhile: its event brings the next plan
  kStaleTerm,    // somebody with a higher term has led
  kUnavailable,  // the store does not take writes now
};

class PlanWriter {
 public:
  using Written = std::function<void(const core::Write&, std::int64_t took_ms)>;
  // Policies' statuses are for people: after so many in one batch, a new event goes first.
  static constexpr int kPoliciesPerBatch = 16;

  PlanWriter(Clock& clock, Logger& log, Metrics& metrics, WorldSync& sync, host::StateStore& store)
      : clock_(clock), log_(log), metrics_(metrics), sync_(sync), store_(store) {}

  // may_go_on: asked before each write. written: called after each that was made, with the
  // milliseconds that it took.
  boost::asio::awaitable<BatchEnd> run(const core::Plan& plan, std::uint64_t term,
                                       std::function<bool()> may_go_on, Written written);

 private:
  boost::asio::awaitable<Result<void>> make(const core::Write& write, std::uint64_t term);
  boost::asio::awaitable<Result<host::WriteRequest>> request_for(const core::Write& write);

  Clock& clock_;
  Logger& log_;
  Metrics& metrics_;
  WorldSync& sync_;
  host::StateStore& store_;
  std::string last_refusal_;
};

}  // namespace egw::runtime
