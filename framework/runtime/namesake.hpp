// Namesake: does another agent report for this node, too (a wrong nodeName, a cloned machine)? Told
// from the node's EgressTunnel, in which each agent says which one it is (condition ReportedBy).
// An agent belongs to a kernel: restarted, it is the same. Called by the agent; knows no clock.
//
// Who comes second stands aside: it has seen the other's heartbeat. Should both have reported, the
// one with the lower id goes on, so that they never take turns (docs/adr/0033-two-agents.md).
#pragma once

#include <cstdint>
#include <string>

#include "egw/model/resources.hpp"

namespace egw::runtime {

// "1f0a2b3c-4026531840 on gw4": the boot and the network namespace that this agent programs, which
// are its id, and the host's name for people. Empty when the kernel does not tell.
[[nodiscard]] std::string agent_identity();

class Namesake {
 public:
  enum class Part {
    kReports,  // this agent is the node's
    kWaits,    // another one has reported last, and may be gone
    kAside     // another one lives
  };
  // Heartbeats that a dead agent misses before another takes its place.
  static constexpr std::int64_t kPeriods = 3;
  // One that has been seen alive gets the time of a reboot, lest a namesake takes its node
  // meanwhile.
  static constexpr std::int64_t kAbsentMs = 300'000;

  // identity: empty: nobody is told apart. period_ms: between two heartbeats.
  Namesake(std::string identity, std::int64_t period_ms);

  // The status as the store has it now. heard: the store's events come; else nobody's silence
  // counts.
  Part look(const model::EgressTunnel::Status& stored, bool heard, std::int64_t steady_ms,
            std::int64_t wall_ms);
  void reported();  // a status of this agent has been stored

  [[nodiscard]] Part part() const { return part_; }
  [[nodiscard]] const std::string& identity() const { return identity_; }
  [[nodiscard]] const std::string& other() const { return other_; }  // empty: there is none
  // What one that stands aside has said in the status (condition DuplicateAgent); empty: nobody
  // does.
  [[nodiscard]] const std::string& told() const { return told_; }
  // Somebody has said it, and not been silent since for as long as one that has been seen alive is
  // waited for: a word that comes late is no second dispute.
  [[nodiscard]] bool disputed() const { return disputed_; }
  // It has not been said again for long.
  [[nodiscard]] bool told_long_ago(std::int64_t steady_ms) const {
    return !told_.empty() && steady_ms - told_at_ms_ > kPeriods * period_ms_;
  }

 private:
  [[nodiscard]] Part judge(const model::EgressTunnel::Status& stored, bool heard,
                           std::int64_t steady_ms, std::int64_t wall_ms);

  std::string identity_;
  std::int64_t period_ms_;
  Part part_ = Part::kReports;
  bool reported_ = false;
  std::string other_;
  std::int64_t beat_ms_ = 0;     // its last one, by its clock
  std::int64_t beat_at_ms_ = 0;  // when that was seen
  std::string told_;
  std::int64_t told_at_ms_ = 0;
  bool disputed_ = false;
};

}  // namespace egw::runtime
