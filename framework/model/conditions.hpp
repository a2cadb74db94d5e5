// Types of conditions that more than one module knows by name.
#pragma once

#include <string_view>

namespace egw::model {

// Of an EgressTunnel: "netlink", or "netlink; <other>: <why not>; ..." when it was chosen
// automatically.
inline constexpr std::string_view kDatapathInUse = "DatapathInUse";

}  // namespace egw::model
