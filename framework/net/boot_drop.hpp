// BootDrop: routing rules that drop what this node's pods send to the outside, from when the agent
// has read the store until the node has been programmed for the first time since it booted
// (agent.bootDrop).
// Called by framework/runtime.
//
// Two rules per family and prefix, marked as ours by their protocol number and told from the
// datapath's by their preference: pods to the cluster's own prefixes go on as ever, pods to
// anywhere else are dropped. Only packets from pod addresses are looked at; rp_filter is not
// touched.
#pragma once

#include <cstdint>
#include <vector>

#include "egw/model/address.hpp"
#include "egw/model/result.hpp"

namespace egw::net {

inline constexpr std::uint32_t kBootRulePreference = 20;  // and the next one
inline constexpr std::uint8_t kBootRuleProtocol = 0x65;   // rtm_protocol; 'e'

// Makes the rules; those that are there already stay. pods: this node's pod prefixes; inside: what
// they may reach meanwhile.
[[nodiscard]] Result<void> raise_boot_drop(const std::vector<model::Prefix>& pods,
                                           const std::vector<model::Prefix>& inside);
// Takes away all rules of ours, whoever made them; without any it does nothing. Returns how many.
[[nodiscard]] Result<unsigned> lower_boot_drop();

}  // namespace egw::net
