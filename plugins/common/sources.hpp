// The endpoints that a change touches, with what they are given before and after it. Pure. Called
// by datapaths around the merge of a change.
#pragma once

#include <string>
#include <vector>

#include "egw/sdk/datapath.hpp"
#include "plan.hpp"

namespace egw::common {

// What an address of a class is given: a name as Plan::target() has them; "": nothing.
[[nodiscard]] std::string verdict(const Plan& plan, const sdk::Address& a, std::uint32_t class_id);

// Before the merge: endpoints that the change may touch, with the verdict that they have now.
[[nodiscard]] std::vector<SourceChange> touched_sources(const Plan& plan, const sdk::State& state,
                                                        const sdk::Change& change);
// The other half, after the merge. Those that keep their verdict are left out.
void settle_sources(const Plan& plan, const sdk::State& state, std::vector<SourceChange>& changes);

// Endpoints that the change brings without their class.
void check_endpoints(const sdk::Change& change, const sdk::State& state,
                     std::vector<ObjectFailure>& failures);

}  // namespace egw::common
