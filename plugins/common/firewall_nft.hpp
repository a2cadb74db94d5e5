// Reading nftables tables of others by netlink. Called by probe.cpp.
#pragma once

#include "firewall.hpp"
#include "netlink.hpp"

namespace egw::common {

// All tables but ours. Throws sdk::Failure when the kernel does not answer.
[[nodiscard]] std::vector<FirewallTable> read_nftables(NetlinkSocket& nfnetlink,
                                                       NetlinkSocket& route);

// A rule's text as nft prints it, "" when it cannot be had.
[[nodiscard]] std::string rule_text(const FirewallTable& table, std::string_view chain,
                                    const FirewallRule& rule);

}  // namespace egw::common
