// What a restarted agent learns from the kernel: which numbers peers, classes and shapes have
// there. Called by datapath.cpp before its first state.
#pragma once

#include "nft.hpp"
#include "numbers.hpp"
#include "ruleset.hpp"

namespace egw::netlink {

void learn_numbers(Nft& nft, const Ruleset& rules, Numbering& out);

}  // namespace egw::netlink
