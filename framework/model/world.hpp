// World: the typed content of the state store as one process sees it. Plain data; the runtime fills
// it from store events, core reads it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>

#include "egw/model/resources.hpp"

namespace egw::model {

struct World {
  std::map<std::string, EgressGateway> gateways;
  // Those whose spec cannot be read and of which no good version is known, with what can be read of
  // them: nothing that they hold is given to others.
  std::map<std::string, EgressGateway> unreadable_gateways;
  std::map<Key, EgressPolicy> policies;         // both kinds; Key.ns empty: EgressClusterPolicy
  std::map<std::string, EgressTunnel> tunnels;  // agents: their own only
  std::map<std::string, EgressClusterInfo> cluster_infos;
  std::map<std::string, Node> nodes;  // agents: their own only
  std::map<std::string, Namespace> namespaces;
  // Controller only, where the store has them; known: all that there are have been read once.
  std::map<std::string, ClusterPrefixes> ip_pools, service_cidrs;
  bool ip_pools_known = false, service_cidrs_known = false;
  std::map<Key, Pod> pods;     // agents: of their node; controller: none
  std::uint64_t revision = 0;  // the newest seen
};

// What changed since the last look, by kind; `everything` after a resync.
struct Changes {
  bool everything = false;
  bool gateways = false, policies = false, cluster_infos = false, nodes = false, tunnels = false;
  bool placements = false;              // of gateways: their spec, EIPs or owners, not conditions
  std::vector<std::string> namespaces;  // names
  std::vector<Key> pods;
  [[nodiscard]] bool any() const {
    return everything || gateways || policies || cluster_infos || nodes || tunnels ||
           !namespaces.empty() || !pods.empty();
  }
};

}  // namespace egw::model
