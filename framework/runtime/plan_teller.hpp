// Tells what a plan found and moved: to the log, the metrics, the events, and to /state of the
// admin socket. Used by the Controller: a plan's notices are true once the write that they belong
// to has been made, so they are told then.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "egw/core/plan.hpp"
#include "egw/model/world.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/events.hpp"
#include "egw/runtime/logging.hpp"
#include "egw/runtime/metrics.hpp"
#include "egw/runtime/plan_writer.hpp"

namespace egw::runtime {

class PlanTeller {
 public:
  // The world is the one that plans are made from.
  PlanTeller(Logger& log, Metrics& metrics, EventRecorder& events, Clock& clock,
             const model::World& world);

  // A write of the plan has been made. planned_ms: when the plan was made, by the clock's steady
  // time.
  void tell_made(const core::Plan& plan, const WriteTarget& target, std::int64_t planned_ms);
  // The notices that belong to none of the plan's writes come with every plan: the same words are
  // told once a minute.
  void tell_rest(const core::Plan& plan, const std::set<WriteTarget>& targets);
  // The last 100 moves, newest first.
  [[nodiscard]] nlohmann::json moves() const;

 private:
  struct PastMove {
    std::int64_t wall_ms = 0;
    core::Move move;
    std::int64_t took_ms = 0;  // from the decision to the stored status
  };
  // The EIPs of a gateway that went the same way for the same reason: one event.
  struct Way {
    std::vector<std::string> eips;
    const core::Move* move = nullptr;
    std::int64_t unserved_ms = 0;  // the longest
  };

  void say(const core::Notice& notice);
  void tell_moves(const core::Plan& plan, const std::string& gateway, std::int64_t took_ms);
  void record(const Way& way, std::int64_t took_ms);
  [[nodiscard]] std::string uid_of(model::Kind kind, const model::Key& key) const;

  Logger& log_;
  Metrics& metrics_;
  EventRecorder& events_;
  Clock& clock_;
  const model::World& world_;
  std::deque<PastMove> moves_;                   // newest first
  std::map<std::string, std::int64_t> noticed_;  // words -> when
};

}  // namespace egw::runtime
