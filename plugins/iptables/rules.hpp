// The iptables rules of one node and family: chains, and the jumps into them. The same node, the
// same rules; what grows with policies, endpoints and peers are elements of sets, `ip rule`s
// (routing.hpp) and, for what no set can answer, trees of chains. README.md explains every chain.
// Pure. Used by datapath.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/plan.hpp"
#include "groups.hpp"
#include "xtables.hpp"

namespace egw::iptables {

struct RuleInput {
  sdk::NodeConfig node;
  std::uint32_t mtu = 1450;  // of the tunnel device
  bool serves = false;       // some egress may be translated here
  // What nftables tables of ours do (companion_rules.hpp), and these rules leave to them: what a
  // pod's packet is given, and translation; what enters the tunnel.
  bool companion = false, egress = false;
  // And on a node that may serve nothing, what comes by the wire and out of the tunnel until it is
  // marked.
  bool ingress = false;
  std::vector<std::pair<std::uint32_t, sdk::Address>> sources;  // of ids served, sorted by id
  std::vector<common::PeerPlan> peers;
  // Those with prefixes; also of before this change, for pods that have not got others yet.
  ClassGroups classes;
};

using FamilyRules = std::array<XtRules, 3>;  // by Xt
[[nodiscard]] FamilyRules rules_for(Table t, const RuleInput& in);

}  // namespace egw::iptables
