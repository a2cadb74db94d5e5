// What one change of the datapath knows: from where to where, and what has become of it. Shared by
// datapath.cpp and program.cpp.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/sources.hpp"
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

[[nodiscard]] constexpr SetKind pod_kind(Table t) { return {SetType::kAddresses, t, true}; }

// Ids that are translated here, and to what. Sorted.
[[nodiscard]] std::vector<std::pair<std::uint32_t, sdk::Address>> served_by(
    const common::Plan& plan, Table t);

}  // namespace egw::iptables
