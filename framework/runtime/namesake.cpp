// Who reports for a node (namesake.hpp).
#include "egw/runtime/namesake.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "egw/model/conditions.hpp"
#include "egw/runtime/datapath_record.hpp"

namespace egw::runtime {

namespace {

std::string id_of(const std::string& identity) { return identity.substr(0, identity.find(' ')); }

}  // namespace

std::string agent_identity() {
  struct stat ns {};
  const std::string boot = this_boot();
  if (boot.empty() || ::stat("/proc/self/ns/net", &ns) != 0) return {};
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  return boot.substr(0, boot.find('-')) + "-" + std::to_string(ns.st_ino) + " on " + host.data();
}

Namesake::Namesake(std::string identity, std::int64_t period_ms)
    : identity_(std::move(identity)), period_ms_(period_ms) {}

void Namesake::reported() {
  reported_ = true;
  other_.clear();
}

Namesake::Part Namesake::look(const model::EgressTunnel::Status& stored, bool heard,
                              std::int64_t steady_ms, std::int64_t wall_ms) {
  if (identity_.empty()) return part_;
  const auto* told = model::find_condition(stored.conditions, model::kDuplicateAgent);
  const std::string message = told != nullptr && told->status ? told->message : "";
  if (message != told_ || !heard) told_at_ms_ = steady_ms;
  told_ = message;
  disputed_ = !told_.empty() || (disputed_ && steady_ms - told_at_ms_ <= kAbsentMs);
  part_ = judge(stored, heard, steady_ms, wall_ms);
  if (part_ == Part::kAside) reported_ = false;
  return part_;
}

Namesake::Part Namesake::judge(const model::EgressTunnel::Status& stored, bool heard,
                               std::int64_t steady_ms, std::int64_t wall_ms) {
  const auto* by = model::find_condition(stored.conditions, model::kReportedBy);
  if (by == nullptr || id_of(by->message) == id_of(identity_)) {
    other_.clear();
    return Part::kReports;
  }
  const bool is_new = by->message != other_;
  const bool beats = is_new || stored.last_heartbeat_ms != beat_ms_;
  if (beats) {
    other_ = by->message;
    beat_ms_ = stored.last_heartbeat_ms;
  }
  if (beats || !heard) beat_at_ms_ = steady_ms;
  const std::int64_t patience = kPeriods * period_ms_;
  if (beats && reported_) {  // over a status of ours: it lives
    return id_of(identity_) < id_of(other_) ? Part::kReports : Part::kAside;
  }
  // By the two machines' clocks; where they differ, both report for once, and the above decides.
  if (is_new) return wall_ms - beat_ms_ > patience ? Part::kReports : Part::kWaits;
  if (beats) return Part::kAside;
  const std::int64_t silent_ms = steady_ms - beat_at_ms_;
  return silent_ms > (part_ == Part::kAside ? kAbsentMs : patience) ? Part::kReports : part_;
}

}  // namespace egw::runtime
