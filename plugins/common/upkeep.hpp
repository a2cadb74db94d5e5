// What every datapath of ours does in the same way for the parts of the kernel that they have in
// common: the tunnel and its peers, routes and rules, connections, the host's settings. Called by
// datapath plugins.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "conntrack.hpp"
#include "egw/sdk/datapath.hpp"
#include "egw/sdk/datapath_state.hpp"
#include "flows.hpp"
#include "monitor.hpp"
#include "netlink.hpp"
#include "plan.hpp"
#include "rtnl.hpp"
#include "tunnel.hpp"

namespace egw::common {

// For sysctls(). Before the first apply: those of IPv4.
void need_settings(const sdk::DatapathState& held, sdk::SysctlSink& out);

// For health(): whether the tunnel device is there and up. Before the first apply: one that a
// predecessor has left.
[[nodiscard]] sdk::Status tunnel_health(NetlinkSocket& route, const sdk::DatapathState& held);

// The plan's peers as the tunnel has them.
[[nodiscard]] std::vector<TunnelPeer> tunnel_peers(const sdk::State& state, const Plan& plan);
// What the monitor is told of the tunnel; nftables and sockets besides `route` are the caller's.
[[nodiscard]] Monitor::Watched watched_tunnel(const sdk::State& state, const Plan& plan, int device,
                                              std::uint32_t route_table, const NetlinkSocket& route,
                                              const std::vector<TunnelNextHop>& hops);

// Judges connections now. what: for the message when they cannot be read.
sdk::Status forget_flows(const SweepHint& hint, std::string what,
                         const std::function<Fate(const Flow&)>& judge);
// For purge(): those that `held` may have bound, which is then forgotten. After a failure it is
// what the next purge needs: the kernel has not what it was read from any more.
sdk::Status forget_bound(Bound& held);
// For forget(): the connections of pods that leave with the address.
sdk::Status forget_eip(const sdk::Address& eip);

// Whether something that judges packets was away, or another: until it was repaired, connections
// may have begun in any way.
[[nodiscard]] bool was_unjudged(const Repairs& repairs);

// For purge(): rules, routes and tunnel devices of ours, whoever left them. The first failure; it
// goes on after one.
sdk::Status remove_routing(NetlinkSocket& route);
// Whether there is none of those.
[[nodiscard]] bool no_routing(NetlinkSocket& route);

}  // namespace egw::common
