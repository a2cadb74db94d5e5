// Types of conditions that more than one module knows by name.
#pragma once

#include <string_view>

namespace egw::model {

// Of an EgressTunnel: "netlink", or "netlink; <other>: <why not>; ..." when it was chosen
// automatically.
inline constexpr std::string_view kDatapathInUse = "DatapathInUse";

// Of an EgressTunnel: which agent has written it; the message is that agent's identity.
inline constexpr std::string_view kReportedBy = "ReportedBy";

// Of an EgressTunnel: another agent has the node's name, and stands aside.
inline constexpr std::string_view kDuplicateAgent = "DuplicateAgent";

// Of an EgressTunnel: its agent keeps to the store that it was programmed from, and this is
// another.
inline constexpr std::string_view kStoreReplaced = "StoreReplaced";

}  // namespace egw::model
