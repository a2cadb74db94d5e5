// The parts of a NodeState that do not depend on pods: this node, peers, egresses; and where each
// policy has been placed. Pure functions, used by core::Compiler only.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "egw/core/compile.hpp"

namespace egw::core::detail {

using model::KeyHash;

// The controller has told which prefixes are the cluster's own.
[[nodiscard]] bool prefixes_known(const model::World& world);

[[nodiscard]] model::NodeConfig node_config(const model::World& world,
                                            const model::Settings& settings,
                                            const LocalNode& local);

// From every EgressClusterInfo, but this node. A row without underlay address of the tunnel's
// family, tunnel address or MAC is left out: its agent has not reported yet and nothing can be sent
// there.
[[nodiscard]] std::map<std::string, model::Peer> peers(const model::World& world,
                                                       const model::Settings& settings,
                                                       const LocalNode& local);

// What a gateway's status says of one policy.
struct Placement {
  std::string policy_uid;  // empty: not recorded
  std::uint32_t id = 0;
  std::uint8_t families = 0;  // kHasV4 | kHasV6: those that the egress can translate
  bool unserved = false;      // the leader says that nobody has served it for one timeout
  bool placed = true;         // some node owns it
};

struct GatewayFacts {
  bool pool_v4 = false, pool_v6 = false;
  std::unordered_map<model::Key, Placement, KeyHash> placements;  // by policy
};

struct EgressTable {
  std::map<std::uint32_t, model::Egress> egresses;
  std::set<std::uint32_t> moving_in;  // ids in a planned move to their present owner
  std::map<std::string, GatewayFacts> gateways;
  std::vector<CompileFinding> findings;
};

[[nodiscard]] EgressTable egress_table(const model::World& world, const model::Settings& settings,
                                       const std::string& node,
                                       const std::map<std::string, model::Peer>& peers);

}  // namespace egw::core::detail
