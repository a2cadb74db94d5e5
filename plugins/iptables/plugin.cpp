// The plugin's entry and its configuration's schema.
#include "datapath.hpp"

namespace egw::iptables {
namespace {

constexpr std::string_view kSchemaText = R"({
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "backendMode": {
      "enum": ["auto", "legacy", "nft"], "default": "auto",
      "description": "Which iptables: legacy, nft, or the one that holds Kubernetes' chains, else the one with more rules of others."
    },
    "nftables": {
      "enum": ["auto", "no-egress", "never"], "default": "auto",
      "description": "Whether what iptables has no hook for is done in nftables tables of our own, where the kernel takes them; no-egress: but not at the tunnel device."
    },
    "rulePreference": {
      "type": "integer", "minimum": 1, "maximum": 32000, "default": 1,
      "description": "The first of nine preferences of ip rules; must come before other people's rules."
    },
    "treePreference": {
      "type": "integer", "minimum": 32768, "maximum": 2000000000, "default": 50000,
      "description": "The first of 262144 preferences that only packets with our marks are sent to; behind everybody else's."
    },
    "routeTable": {
      "type": "integer", "minimum": 256, "maximum": 4294934527, "default": 6645623,
      "description": "The first of 32769 routing tables; nobody else's."
    }
  }
})";

}  // namespace
}  // namespace egw::iptables

EGW_DATAPATH_PLUGIN(egw::iptables::IptablesDatapath, "iptables", "0.1.0",
                    egw::iptables::kSchemaText);
