#include "upkeep.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

namespace egw::common {
namespace {

constexpr std::chrono::milliseconds kReadAgain{500};

}  // namespace

void need_settings(const sdk::DatapathState& held, sdk::SysctlSink& out) {
  out.need("net/netfilter/nf_conntrack_tcp_be_liberal", "1",
           "replies may reach a former owner after an egress IP has moved");
  out.need("net/netfilter/nf_conntrack_tcp_loose", "1",
           "connections go on at a new owner that has not seen their beginning");
  const bool known = held.valid();
  const sdk::NodeConfig& node = held.state().node;
  if (!known || node.enable_ipv4) {
    out.need("net/ipv4/ip_forward", "1", "pods' packets are routed by this node", true);
  }
  if (known && node.enable_ipv6) {
    out.need("net/ipv6/conf/all/forwarding", "1", "pods' packets are routed by this node", true);
  }
}

sdk::Status tunnel_health(NetlinkSocket& route, const sdk::DatapathState& held) {
  const bool known = held.valid();
  const std::string name = known ? held.state().node.tunnel_device : std::string();
  const auto link = known ? find_link(route, name) : find_tunnel(route);
  if (!link) {
    return sdk::fail(sdk::Code::kUnavailable, "the tunnel device does not exist", name);
  }
  if (!link->up) return sdk::fail(sdk::Code::kUnavailable, "the tunnel device is down", name);
  return sdk::ok();
}

std::vector<TunnelPeer> tunnel_peers(const sdk::State& state, const Plan& plan) {
  std::vector<TunnelPeer> out;
  for (const auto& [name, peer] : plan.peers()) {
    const sdk::Peer& p = state.peers.find(name)->second;
    out.push_back({name, p.underlay, p.tunnel_v4, p.tunnel_v6, p.mac});
  }
  return out;
}

Monitor::Watched watched_tunnel(const sdk::State& state, const Plan& plan, int device,
                                std::uint32_t route_table, const NetlinkSocket& route,
                                const std::vector<TunnelNextHop>& hops) {
  Monitor::Watched w;
  w.device = state.node.tunnel_device;
  w.index = device;
  w.route_table = route_table;
  w.ports.insert(route.port());
  for (const auto& p : tunnel_peers(state, plan)) {
    w.fdb[p.mac] = p.underlay;
    if (p.v4) w.neighbours[p.v4] = p.mac;
    if (p.v6) w.neighbours[p.v6] = p.mac;
  }
  for (const auto& hop : hops) w.neighbours[hop.address] = hop.mac;
  return w;
}

sdk::Status forget_flows(const SweepHint& hint, std::string what,
                         const std::function<Fate(const Flow&)>& judge) {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return socket.status();
  const int n = sweep(*socket, hint, judge);
  if (n >= 0) return sdk::ok();
  return sdk::fail(sdk::Code::kUnavailable, "connection tracking cannot be read", std::move(what),
                   -n);
}

sdk::Status forget_bound(Bound& held) {
  sdk::Status s = forget_flows({}, "purge", bound_by(held));
  if (!s.ok()) {  // the next purge may be another process's, which knows nothing of them
    std::this_thread::sleep_for(kReadAgain);
    s = forget_flows({}, "purge", bound_by(held));
  }
  if (s.ok()) held = {};
  return s;
}

sdk::Status forget_eip(const sdk::Address& eip) {
  if (!eip) return sdk::fail(sdk::Code::kInvalid, "no address");
  SweepHint hint;
  hint.translated = eip;
  // A connection of the host itself, or one from outside, is not ours to end.
  return forget_flows(hint, eip.text(), [eip](const Flow& flow) {
    Fate fate;
    if (flow.translated == eip && flow.source != eip) fate.kind = Fate::Kind::kRemove;
    return fate;
  });
}

bool was_unjudged(const Repairs& repairs) {
  return std::any_of(repairs.begin(), repairs.end(), [](const auto& repair) {
    const std::string& what = repair.first;
    return what.starts_with("nftables ") || what == "iptables chain" || what == "ipset element" ||
           what == "BPF program" || what == "BPF map element";
  });
}

sdk::Status remove_routing(NetlinkSocket& route) {
  sdk::Status first;
  const auto failed = [&](const char* what, int err) {
    if (first.ok()) first = sdk::fail(sdk::Code::kInternal, what, "purge", err);
  };
  for (const Table t : kFamilies) {
    std::vector<Message> messages;
    for (const auto& r : our_rules(route, address_family(t))) messages.push_back(remove(r));
    for (const auto& r : our_routes(route, address_family(t))) messages.push_back(remove(r));
    for (const int err : route.requests(messages)) {
      if (err != 0 && err != ENOENT && err != ESRCH)
        failed("a rule or route cannot be removed", err);
    }
  }
  if (const int err = remove_tunnels(route); err != 0) {
    failed("the tunnel device cannot be removed", err);
  }
  return first;
}

bool no_routing(NetlinkSocket& route) {
  return !find_tunnel(route) && std::all_of(kFamilies.begin(), kFamilies.end(), [&](Table t) {
    return our_rules(route, address_family(t)).empty() &&
           our_routes(route, address_family(t)).empty();
  });
}

}  // namespace egw::common
