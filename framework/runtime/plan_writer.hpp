// PlanWriter: makes the writes of one core::Plan in the store. Called by the controller.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "egw/core/plan.hpp"
#include "egw/host/state_store.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/logging.hpp"
#include "egw/runtime/metrics.hpp"
#include "egw/runtime/refusals.hpp"
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
  kDone,         // every write was made (or needs no making any more, or was refused)
  kInterrupted,  // may_go_on() said no, or something more urgent has arrived
  kConflict,     // an object has changed meanwhile: its event brings the next plan; what did not
                 // rely on it has been written
  kStaleTerm,    // somebody with a higher term has led
  kUnavailable,  // the store does not take writes now: two in a row have failed
};

class PlanWriter {
 public:
  using Written = std::function<void(const core::Write&, std::int64_t took_ms)>;
  // Policies' statuses are for people, and metadata may wait: after so many of either in one batch,
  // a new event goes first. A conflict of one of them holds no other up.
  static constexpr int kPatientPerBatch = 16;

  PlanWriter(Clock& clock, Logger& log, Metrics& metrics, WorldSync& sync, host::StateStore& store)
      : clock_(clock), log_(log), metrics_(metrics), sync_(sync), store_(store) {}

  // may_go_on: asked before each write. written: called after each that was made, with the
  // milliseconds that it took.
  boost::asio::awaitable<BatchEnd> run(const core::Plan& plan, std::uint64_t term,
                                       std::function<bool()> may_go_on, Written written);
  // Of the last batch: how many writes were made, and the steady time at which one that the store
  // has refused is to be tried again (0: none).
  [[nodiscard]] std::size_t made() const { return made_; }
  [[nodiscard]] std::int64_t retry_at_ms() const { return retry_at_ms_; }
  // It has come to its end: every write was tried.
  [[nodiscard]] bool complete() const { return complete_; }
  // Whose status the store does not take.
  [[nodiscard]] std::set<std::string> refused_gateways() const;
  // The store has been away: what has failed is made again at once.
  void store_is_back() { refusals_.store_is_back(); }

 private:
  using OneWrite = std::pair<WriteTarget, std::size_t>;  // with the alternative of core::Write
  [[nodiscard]] static OneWrite write_of(const core::Write& write);
  void tell(LogLevel level, std::string_view message, const core::Write& write,
            std::string_view error = {});
  [[nodiscard]] static std::size_t content(const core::Write& write);
  [[nodiscard]] std::vector<const core::Write*> in_turn(const core::Plan& plan) const;
  void forget_refusals(const core::Plan& plan);
  bool held_back(const core::Write& write);
  void look_again(std::int64_t at_ms);
  std::optional<BatchEnd> failed(const core::Write& write, const Error& error);
  void hold_back(const core::Write& write, const std::string& why, bool failed);
  [[nodiscard]] bool written_from_newest(const core::Write& write) const;
  boost::asio::awaitable<bool> unreadable(const core::Write& write);
  boost::asio::awaitable<Result<void>> make(const core::Write& write, std::uint64_t term);
  boost::asio::awaitable<Result<host::WriteRequest>> request_for(const core::Write& write);

  Clock& clock_;
  Logger& log_;
  Metrics& metrics_;
  WorldSync& sync_;
  host::StateStore& store_;
  std::string last_failure_;
  std::optional<model::Key> last_policy_;  // the last that an unfinished batch has tried to write
  Refusals<OneWrite> refusals_;
  // Of those that wait because the stored version cannot be read: the last one that could be.
  std::map<OneWrite, std::uint64_t> outdated_;
  std::size_t made_ = 0;
  bool complete_ = false;
  int failed_in_a_row_ = 0;  // of the last batch
  std::int64_t retry_at_ms_ = 0;
};

}  // namespace egw::runtime
