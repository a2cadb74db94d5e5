// The agent and its uplink: which interface it is, whether it works, what of it the kernel and the
// node's status need (agent.hpp).
#include <algorithm>
#include <utility>

#include "egw/model/ip_pool.hpp"
#include "egw/runtime/agent_impl.hpp"

namespace egw::runtime {

model::Address Agent::Impl::underlay() const { return underlay_of(uplink); }

model::Address Agent::Impl::underlay_of(const net::UplinkState& state) const {
  return options.settings.underlay == model::Family::kV6 ? state.ipv6 : state.ipv4;
}

// The first rule whose selector matches this node's labels names the interface.
void Agent::Impl::choose_uplink() {
  std::string method = options.settings.tunnel_detect_method;
  if (!options.settings.tunnel_detect_custom.empty()) {
    const auto own = sync.world().nodes.find(options.node_name);
    if (own == sync.world().nodes.end()) return;
    for (const auto& rule : options.settings.tunnel_detect_custom) {
      if (!rule.node_selector.matches(own->second.meta.labels)) continue;
      method = "interface=" + rule.interface_name;
      break;
    }
  }
  if (method == uplink_method) return;
  uplink_method = method;
  ports.watch_uplink(method);
}

std::string Agent::Impl::why_lost(const net::UplinkState& state) const {
  if (uplink_without_address) return "it has no address of the tunnel's underlay";
  if (!state.name.empty()) return "gone, down or no carrier";
  return "none was found by tunnelDetectMethod " + uplink_method +
         ": check the default route or name the interface";
}

void Agent::Impl::on_uplink(const net::UplinkState& state) {
  const bool has_address = static_cast<bool>(underlay_of(state));
  const bool works = state.present && state.carrier && has_address;
  uplink_without_address = state.present && state.carrier && !has_address;
  const bool news = works != uplink_works || !uplink_known;
  uplink_works = works;
  uplink_known = true;
  if (news) {
    mute();  // first of all: nobody must be drawn to a dead link
    if (works) {
      log.info("uplink works", {{"interface", state.name}});
    } else {
      log.warn("uplink lost", {{"interface", state.name}, {"reason", why_lost(state)}});
    }
  }
  // An interface that goes away keeps its last addresses here: the kernel's state stays valid for
  // when it comes back.
  if (works) {
    const bool changed = state.name != uplink.name || state.ipv4 != uplink.ipv4 ||
                         state.ipv6 != uplink.ipv6 || state.mac != uplink.mac;
    note_other_family(state);
    uplink = state;
    if (changed) {
      core::LocalNode local;
      local.name = options.node_name;
      local.parent_device = uplink.name;
      local.parent_v4 = uplink.ipv4;
      local.parent_v6 = uplink.ipv6;
      local.tunnel_mac = tunnel_mac(underlay(), options.node_name);
      programmer.set_local(std::move(local));
    }
  } else if (uplink.name.empty()) {
    uplink.name = state.name;
  }
  reporter.wake();
}

// EIPs may be on other interfaces than the uplink.
void Agent::Impl::on_ports() {
  programmer.count_eips();
  reporter.wake();
}

// Those that gateways which select this node have EIPs in.
std::vector<net::LostSubnet> Agent::Impl::lost_subnets() const {
  auto lost = ports.announcer.lost_subnets();
  const auto own = sync.world().nodes.find(options.node_name);
  if (lost.empty() || own == sync.world().nodes.end()) return {};
  std::vector<model::IpPool> pools;
  for (const auto& [name, gateway] : sync.world().gateways) {
    if (!gateway.spec.node_selector.matches(own->second.meta.labels)) continue;
    const auto& entries = gateway.spec.ippools;
    pools.push_back(model::IpPool::parse_valid(model::Family::kV4, entries.ipv4, {}, nullptr));
    pools.push_back(model::IpPool::parse_valid(model::Family::kV6, entries.ipv6, {}, nullptr));
  }
  std::erase_if(lost, [&](const net::LostSubnet& l) {
    const auto range = model::IpPool::of(l.subnet.family(), {{l.subnet.first(), l.subnet.last()}});
    return std::none_of(pools.begin(), pools.end(),
                        [&](const model::IpPool& pool) { return pool.overlaps(range); });
  });
  return lost;
}

// The family that the tunnel does not use: EIPs of it need a way out of their own.
void Agent::Impl::note_other_family(const net::UplinkState& state) {
  const bool v4 = options.settings.underlay == model::Family::kV6;
  if (!(v4 ? options.settings.enable_ipv4 : options.settings.enable_ipv6)) return;
  const model::Address& now = v4 ? state.ipv4 : state.ipv6;
  const model::Address& before = v4 ? uplink.ipv4 : uplink.ipv6;
  const std::string lost = before && !now ? before.to_string() : std::string();
  if (now || !lost.empty()) lost_address = lost;
  if (!lost.empty()) {
    log.warn("the uplink has lost its address of the other family",
             {{"interface", state.name}, {"address", lost}});
  }
}

}  // namespace egw::runtime
