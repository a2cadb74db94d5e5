// NodeState and Change as JSON, version 1: what the conformance kit and the network tests feed to a
// datapath, and what the agent's admin API shows.
//
// {"version": 1, "full": bool, "generation": n, "base": n,
//  "node": {"name", "enableIPv4", "enableIPv6", "disableChecksumOffload", "tunnelDevice", "vni",
//  "port",
//           "mac", "tunnelIPv4": "172.31.0.1/16", "tunnelIPv6", "parentDevice", "underlay",
//           "parentIPv4", "parentIPv6", "slotMask", "ctMask", "clusterPrefixes": []},
//  "peers": [{"name", "underlay", "tunnelIPv4", "tunnelIPv6", "mac", "podCIDRs": []}],
//  "egresses": [{"id", "kind": "address"|"node", "owner": "none"|"self"|"peer", "ownerPeer",
//  "mayServe",
//                "ipv4", "ipv6"}],
//  "classes": [{"id", "rules": [{"destination", "action": "egress"|"drop"|"nodeip"|"bypass",
//  "egressID"}]}], "endpoints": [{"address", "class"}], "deleted": {"peers": [], "egresses": [],
//  "classes": [], "endpoints": []}}
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "egw/model/node_state.hpp"
#include "egw/model/result.hpp"

namespace egw::model {

// Errors name the field. Missing lists are empty, missing addresses none.
[[nodiscard]] Result<Change> decode_change(const nlohmann::json& document);
[[nodiscard]] Result<NodeConfig> decode_node_config(const nlohmann::json& document);
// As a full change.
[[nodiscard]] nlohmann::json encode_node_state(const NodeState& state, std::uint64_t generation);
// "02:ee:0a:06:00:01"; parse takes either case.
[[nodiscard]] std::string format_mac(const Mac& mac);
[[nodiscard]] Result<Mac> parse_mac(std::string_view text);

}  // namespace egw::model
