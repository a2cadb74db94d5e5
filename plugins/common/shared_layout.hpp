// The kernel layout that netlink and ebpf have in common (egw_plugin_descriptor.layout), so that a
// node can go from one to the other without losing its connections (docs/adr/0017): `static
// constexpr std::string_view kLayout = common::kSharedLayout;`, and hand_over() beside purge().
// iptables names none: a node that goes to it or from it is purged.
//
// In common, owned by whoever applied last, left alone by hand_over():
//   - the tunnel device (tunnel.hpp: recognised by its alias), its addresses, FDB, neighbours,
//   - ip rules and routes of protocol kRouteProtocol (rtnl.hpp): an apply removes those that it
//   does
//     not want, also a predecessor's. With the same rules on both sides nothing changes here,
//   - the connection mark: a peer's number shifted under ct_mask says which node a connection came
//     from; the numbers outlive a change by the file below. All bits of ct_mask: a connection of a
//     pod of this node whose destination has been looked at,
//   - the conntrack zone of a gateway's connections, in the original direction: the egress id,
//   - connections themselves: hand_over() deletes none,
//   - among those that use them, the nftables tables called egw (nftables/): their chains tell
//     who wrote them last (NftDatapath::tables_of_another()),
//   - the settings of the host, which are the host's business (sysctls()).
// A datapath's own, removed by hand_over(): what carries its name - tables, chains, sets, programs,
// pins.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "egw/sdk/datapath_state.hpp"

namespace egw::common {

inline constexpr std::string_view kSharedLayout = "egw-1";

// Which number a peer has in connections' marks, by its tunnel MAC; in DatapathHost::layout_dir().
class PeerNumbers {
 public:
  // An empty folder (a host older than ABI 1.1): nothing is read or kept.
  explicit PeerNumbers(std::string_view layout_dir);

  // As the node's last datapath left them. What cannot be read is no number.
  [[nodiscard]] const std::map<sdk::Mac, std::uint32_t>& found() const { return kept_; }
  // Writes only what differs from what was found or written before.
  sdk::Status keep(const std::map<sdk::Mac, std::uint32_t>& numbers);

 private:
  std::string file_;
  std::map<sdk::Mac, std::uint32_t> kept_;
};

}  // namespace egw::common
