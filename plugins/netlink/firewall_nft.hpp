// Reading nftables tables of others by netlink. Called by probe.cpp.
#pragma once

#include "common/netlink.hpp"
#include "firewall.hpp"

namespace egw::netlink {

// All tables but ours. Throws sdk::Failure when the kernel does not answer.
[[nodiscard]] std::vector<FirewallTable> read_nftables(common::NetlinkSocket& nfnetlink,
                                                       common::NetlinkSocket& route);

// A rule's text as nft prints it, "" when it cannot be had.
[[nodiscard]] std::string rule_text(const FirewallTable& table, std::string_view chain,
                                    const FirewallRule& rule);

}  // namespace egw::netlink
