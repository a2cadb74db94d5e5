// What is learned from the kernel's tables: which numbers peers, classes and shapes have there (a
// restarted agent, before its first state), and what they may have bound (before a purge). Called
// by datapath.cpp.
#pragma once

#include "common/flows.hpp"
#include "common/numbers.hpp"
#include "nft.hpp"
#include "ruleset.hpp"

namespace egw::common {

[[nodiscard]] Bound read_bound(Nft& nft);
void learn_numbers(Nft& nft, const Ruleset& rules, Numbering& out);

}  // namespace egw::common
