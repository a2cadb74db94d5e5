// What one change of the datapath knows: from where to where, and what has become of it. Shared by
// datapath.cpp and program.cpp.
#pragma once

#include <string>
#include <vector>

#include "datapath.hpp"

namespace egw::iptables {

struct IptablesDatapath::Step {
  const sdk::State& before_state;
  const sdk::State& state;
  const common::Plan* before;  // nullptr: not known
  const common::Plan& plan;
  std::vector<common::SourceChange> sources;  // endpoints whose verdict changes
  std::vector<common::ObjectFailure> failures;
  std::vector<SetFailure> refused;
  common::Tunnel::Result tunnel;
  common::Repairs repairs;
};

// What an address is given: a name as Plan::target() has them.
[[nodiscard]] inline std::string verdict(const common::Plan& plan, const sdk::Address& a,
                                         std::uint32_t class_id) {
  const Table t = common::table_of(a);
  return plan.enabled(t) ? plan.target(class_id, t) : std::string();
}

[[nodiscard]] constexpr SetKind pod_kind(Table t) { return {SetType::kAddresses, t, true}; }

}  // namespace egw::iptables
