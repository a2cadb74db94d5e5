// What a former instance, or a purge, can learn from what the kernel holds of ours: numbers that
// must not change under running connections, and what has been bound. Pure. Called by datapath.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/flows.hpp"
#include "groups.hpp"
#include "sets.hpp"
#include "xtables.hpp"

namespace egw::iptables {

// Tunnel MAC -> value of the connection mark, from the chains that note the peer.
[[nodiscard]] std::vector<std::pair<sdk::Mac, std::uint32_t>> peers_in(const Chains& mangle);

// Entries -> place, from the sets of groups and of pods.
[[nodiscard]] std::vector<std::pair<common::ClassEntries, ClassPlace>> classes_in(
    Table t, const SetContents& sets, const Marks& marks);

// Classes that a pod's element may give: the sets hold their prefixes, and the chains lead to those
// sets.
[[nodiscard]] ClassGroups classes_ruled(Table t, const Chains& mangle, const SetContents& sets,
                                        const Marks& marks);

// Egress id -> its source, from the chains that translate.
[[nodiscard]] std::map<std::uint32_t, sdk::Address> sources_in(const Chains& nat);

// The action that an element's mark stands for, as common::Plan numbers actions.
[[nodiscard]] std::uint32_t action_in(std::uint32_t mark, const Marks& marks);

}  // namespace egw::iptables
