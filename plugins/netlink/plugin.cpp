// The plugin's entry and configuration: a datapath on nftables without additions.
#include <nlohmann/json.hpp>

#include "common/config.hpp"
#include "common/nftables/datapath.hpp"

namespace egw::netlink {
namespace {

constexpr std::string_view kSchemaText = R"({
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "rulePreference": {
      "type": "integer", "minimum": 1, "maximum": 32000, "default": 1,
      "description": "The first of five preferences of ip rules; must come before other people's rules."
    },
    "routeTable": {
      "type": "integer", "minimum": 1, "maximum": 4294967295, "default": 6645623,
      "description": "The routing table of the tunnel; nobody else's."
    }
  }
})";

common::Numbers numbers_of(std::string_view config) {
  return common::parse_numbers(common::parse_config(config, {"rulePreference", "routeTable"}));
}

class NetlinkDatapath : public common::NftDatapath {
 public:
  NetlinkDatapath(std::string_view config, std::string_view /*state_dir*/, sdk::DatapathHost host)
      : NftDatapath("netlink", numbers_of(config), host) {}
  static sdk::Status probe(std::string_view config, const sdk::NodeConfig& node,
                           sdk::ProbeSink& out) {
    return common::probe_nftables("netlink", numbers_of(config), true, node, out);
  }
};

}  // namespace
}  // namespace egw::netlink

EGW_DATAPATH_PLUGIN(egw::netlink::NetlinkDatapath, "netlink", "0.1.0", egw::netlink::kSchemaText);
