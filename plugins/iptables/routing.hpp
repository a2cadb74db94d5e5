// `ip rule`s and routes: what leads an egress id to its owner and a peer's number to the peer. Two
// trees of goto rules, entered only by packets that carry our marks; a leaf leads to a table with
// one route, whose next hop is a neighbour entry: moving an egress IP from one peer to another
// changes that entry and nothing else. Pure. Used by datapath.cpp.
#pragma once

#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "common/plan.hpp"
#include "common/rtnl.hpp"
#include "common/tunnel.hpp"
#include "layout.hpp"

namespace egw::iptables {

struct RoutingInput {
  const common::Plan& plan;
  const Config& config;
  int device = 0;  // the tunnel device; 0: there is none
  // What nftables tables of ours do (companion_rules.hpp): ids come here after destination NAT;
  // owner and peer are found at the device, and one route leads there.
  bool companion = false, egress = false;
};

[[nodiscard]] std::set<common::Rule> rules_of(Table t, const RoutingInput& in);
[[nodiscard]] std::set<common::Route> routes_of(Table t, const RoutingInput& in);
[[nodiscard]] std::vector<common::TunnelNextHop> hops_of(const common::Plan& plan, bool egress);

// Whether rules and routes are the same for both: egresses have only gone from peer to peer.
[[nodiscard]] bool same_ways(const common::Plan& a, const common::Plan& b);

// In the order in which the kernel takes them fastest. It searches the list of rules from the front
// for the place of a new one: so the last come first. With each IPv6 rule it walks all routing
// tables, and a rule makes the table that it leads to: so those that lead to tables come after all
// others.
[[nodiscard]] std::vector<common::Message> messages_to_add(const std::set<common::Rule>& wanted,
                                                           const std::set<common::Rule>& actual,
                                                           std::vector<common::Rule>& added);

}  // namespace egw::iptables
