#include "observe.hpp"

#include <nlohmann/json.hpp>

#include "layout.hpp"
#include "rtnl.hpp"
#include "tunnel.hpp"

namespace egw::common {

void observe_tunnel(NetlinkSocket& route, nlohmann::json& out) {
  using nlohmann::json;
  if (const auto link = find_tunnel(route)) {
    json peers = json::array();
    for (const auto& n : neighbours(route, AF_BRIDGE, link->index)) {
      peers.push_back({{"mac", mac_text(n.mac)}, {"underlay", n.address.text()}});
    }
    json near = json::array();
    for (const int family : {AF_INET, AF_INET6}) {
      for (const auto& n : neighbours(route, static_cast<std::uint8_t>(family), link->index)) {
        near.push_back({{"address", n.address.text()}, {"mac", mac_text(n.mac)}});
      }
    }
    json own = json::array();
    for (const auto& a : addresses(route, link->index)) {
      own.push_back(a.prefix.text());
    }
    out["tunnel"] = {{"name", link->name},
                     {"up", link->up},
                     {"mtu", link->mtu},
                     {"vni", link->vni},
                     {"port", link->port},
                     {"mac", mac_text(link->mac)},
                     {"underlay", link->local.text()},
                     {"addresses", own},
                     {"fdb", peers},
                     {"neighbours", near}};
  }
  json routes = json::array(), rules = json::array();
  for (const Table t : kFamilies) {
    const std::string prefix = t == Table::kIp ? "" : "-6 ";
    for (const auto& r : our_routes(route, address_family(t))) {
      routes.push_back(prefix + r.text());
    }
    for (const auto& r : our_rules(route, address_family(t))) {
      rules.push_back(prefix + r.text());
    }
  }
  out["routes"] = routes;
  out["rules"] = rules;
}

}  // namespace egw::common
