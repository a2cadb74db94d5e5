// The part of observe() that all datapaths have: the tunnel device, routes and rules as the kernel
// holds them. Field names: docs/write-a-datapath.md. Called by datapath plugins.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "netlink.hpp"

namespace egw::common {

// Adds "tunnel" (if there is one), "routes" and "rules".
void observe_tunnel(NetlinkSocket& route, nlohmann::json& out);

}  // namespace egw::common
