// Node configuration, peers and egresses: see compile_gateway.hpp.
#include "egw/core/compile_gateway.hpp"

#include <algorithm>

#include "egw/core/compile_table.hpp"
#include "egw/model/node_state_codec.hpp"

namespace egw::core::detail {

namespace {

constexpr std::uint32_t kMinEgressId = 1;
constexpr std::uint32_t kMaxEgressId = 16383;  // EGW_EGRESS_ID_MAX

// None unless `text` is an address of `family`: stored objects come from outside.
model::Address address_or_none(const std::string& text, model::Family family) {
  if (text.empty()) return {};
  const auto parsed = model::Address::parse(text);
  return parsed && parsed->family() == family ? *parsed : model::Address{};
}

void add_prefix(std::vector<model::Prefix>& out, const std::string& text) {
  if (auto parsed = model::Prefix::parse(text)) out.push_back(*parsed);
}

void add_prefixes(std::vector<model::Prefix>& out, const std::vector<std::string>& texts) {
  for (const auto& text : texts) add_prefix(out, text);
}

std::vector<model::Prefix> cluster_prefixes(const model::World& world,
                                            const model::Settings& settings) {
  std::vector<model::Prefix> all;
  if (settings.tunnel_v4.family() != model::Family::kNone) all.push_back(settings.tunnel_v4);
  if (settings.tunnel_v6.family() != model::Family::kNone) all.push_back(settings.tunnel_v6);
  const auto info = world.cluster_infos.find(std::string(model::kClusterInfoName));
  if (info != world.cluster_infos.end()) {
    const auto& status = info->second.status;
    const auto add = [&all](const model::EgressClusterInfo::Addresses& addresses) {
      add_prefixes(all, addresses.ipv4);
      add_prefixes(all, addresses.ipv6);
    };
    add(status.cluster_ip);
    for (const auto& [node, addresses] : status.node_ip) add(addresses);
    for (const auto& [node, addresses] : status.pod_cidr) add(addresses);
    add_prefixes(all, status.extra_cidr);
  }
  return minimal_cover(std::move(all));
}

bool usable(const model::Peer& peer) {
  return peer.underlay && (peer.tunnel_v4 || peer.tunnel_v6) && peer.mac != model::Mac{};
}

// Builds the table gateway by gateway.
class EgressBuilder {
 public:
  EgressBuilder(const model::Settings& settings, const std::string& node,
                const std::map<std::string, model::Peer>& peers, EgressTable& out)
      : settings_(settings), node_(node), peers_(peers), out_(out) {}

  void add(const std::string& name, const model::EgressGateway& gateway) {
    auto& facts = out_.gateways[name];
    facts.pool_v4 = !gateway.spec.ippools.ipv4.empty();
    facts.pool_v6 = !gateway.spec.ippools.ipv6.empty();
    const auto& nodes = gateway.status.node_list;
    const bool may_serve = std::any_of(nodes.begin(), nodes.end(),
                                       [this](const auto& node) { return node.name == node_; });
    for (const auto& node : nodes) {
      for (const auto& eip : node.eips) {
        if (add_eip(name, node.name, eip, may_serve)) add_placements(facts, eip, true);
      }
    }
    for (const auto& eip : gateway.status.unplaced) add_placements(facts, eip, false);
  }

 private:
  void add_placements(GatewayFacts& facts, const model::EipStatus& eip, bool placed) const {
    for (const auto& policy : eip.policies) {
      facts.placements.emplace(model::Key{policy.ns, policy.name},
                               Placement{policy.uid, eip.id, families(eip), eip.unserved, placed});
    }
  }

  bool add_eip(const std::string& gateway, const std::string& node, const model::EipStatus& eip,
               bool may_serve) {
    const auto described = [&] {
      return "EgressGateway " + gateway + ", node " + node + ": the entry of EIP " +
             (eip.use_node_ip ? "useNodeIP" : eip.ipv4 + (eip.ipv6.empty() ? "" : " " + eip.ipv6));
    };
    if (eip.id < kMinEgressId || eip.id > kMaxEgressId) {
      report(eip, "InvalidEgressId",
             described() + " has id " + std::to_string(eip.id) +
                 ", which is not in 1..16383; it is ignored until the controller gives it one");
      return false;
    }
    model::Egress egress;
    egress.id = eip.id;
    egress.kind = eip.use_node_ip ? model::EgressKind::kNode : model::EgressKind::kAddress;
    // Until a planned move is over, the former owner serves even if it is no longer one of the
    // gateway's nodes: replies, and clients that have not turned yet, still come to it.
    egress.may_serve = may_serve || eip.moving_from == node_;
    if (!eip.use_node_ip) {
      if (settings_.enable_ipv4) egress.v4 = address_or_none(eip.ipv4, model::Family::kV4);
      if (settings_.enable_ipv6) egress.v6 = address_or_none(eip.ipv6, model::Family::kV6);
      if (!egress.v4 && !egress.v6) {
        report(
            eip, "InvalidEgressAddress",
            described() + " has no valid address of a family that is switched on; it is ignored");
        return false;
      }
    }
    if (node == node_) {
      egress.owner = model::Owner::kSelf;
    } else if (peers_.count(node) != 0) {
      egress.owner = model::Owner::kPeer;
      egress.owner_peer = node;
    }
    if (!out_.egresses.emplace(eip.id, std::move(egress)).second) {
      report(eip, "DuplicateEgressId",
             described() + " has id " + std::to_string(eip.id) +
                 ", which another entry has too; this one is ignored");
      return false;
    }
    if (!eip.moving_from.empty() && eip.moving_from != node) out_.moving_in.insert(eip.id);
    return true;
  }

  [[nodiscard]] std::uint8_t families(const model::EipStatus& eip) const {
    const auto has = [&eip](const std::string& text, model::Family family) {
      return eip.use_node_ip || address_or_none(text, family);
    };
    const bool v4 = settings_.enable_ipv4 && has(eip.ipv4, model::Family::kV4);
    const bool v6 = settings_.enable_ipv6 && has(eip.ipv6, model::Family::kV6);
    return static_cast<std::uint8_t>((v4 ? kHasV4 : 0) | (v6 ? kHasV6 : 0));
  }

  void report(const model::EipStatus& eip, const std::string& reason, const std::string& message) {
    if (eip.policies.empty()) out_.findings.push_back({{}, reason, message});
    for (const auto& policy : eip.policies) out_.findings.push_back({policy, reason, message});
  }

  const model::Settings& settings_;
  const std::string& node_;
  const std::map<std::string, model::Peer>& peers_;
  EgressTable& out_;
};

}  // namespace

bool prefixes_known(const model::World& world) {
  const auto info = world.cluster_infos.find(std::string(model::kClusterInfoName));
  return info != world.cluster_infos.end() && info->second.status.prefixes_known();
}

model::NodeConfig node_config(const model::World& world, const model::Settings& settings,
                              const LocalNode& local) {
  model::NodeConfig config;
  config.enable_ipv4 = settings.enable_ipv4;
  config.enable_ipv6 = settings.enable_ipv6;
  config.disable_checksum_offload = settings.vxlan_disable_checksum_offload;
  config.name = local.name;
  config.tunnel_device = settings.vxlan_name;
  config.tunnel_vni = settings.vxlan_id;
  config.tunnel_port = settings.vxlan_port;
  config.tunnel_mac = local.tunnel_mac;
  if (const auto tunnel = world.tunnels.find(local.name); tunnel != world.tunnels.end()) {
    const auto& status = tunnel->second.status;
    if (settings.enable_ipv4) config.tunnel_v4 = address_or_none(status.ipv4, model::Family::kV4);
    if (settings.enable_ipv6) config.tunnel_v6 = address_or_none(status.ipv6, model::Family::kV6);
  }
  if (config.tunnel_v4) {
    config.tunnel_v4_length = static_cast<std::uint8_t>(settings.tunnel_v4.length());
  }
  if (config.tunnel_v6) {
    config.tunnel_v6_length = static_cast<std::uint8_t>(settings.tunnel_v6.length());
  }
  config.parent_device = local.parent_device;
  config.parent_v4 = local.parent_v4;
  config.parent_v6 = local.parent_v6;
  config.underlay = settings.underlay == model::Family::kV6 ? local.parent_v6 : local.parent_v4;
  config.slot_mask = settings.slot_mask;
  config.ct_mask = settings.ct_mask;
  config.cluster_prefixes = cluster_prefixes(world, settings);
  return config;
}

std::map<std::string, model::Peer> peers(const model::World& world, const model::Settings& settings,
                                         const LocalNode& local) {
  std::map<std::string, model::Peer> out;
  for (const auto& [name, info] : world.cluster_infos) {
    for (const auto& row : info.status.peers) {
      if (row.name.empty() || row.name == local.name) continue;
      model::Peer peer;
      peer.name = row.name;
      peer.underlay = settings.underlay == model::Family::kV6
                          ? address_or_none(row.underlay_v6, model::Family::kV6)
                          : address_or_none(row.underlay_v4, model::Family::kV4);
      if (settings.enable_ipv4) {
        peer.tunnel_v4 = address_or_none(row.tunnel_v4, model::Family::kV4);
      }
      if (settings.enable_ipv6) {
        peer.tunnel_v6 = address_or_none(row.tunnel_v6, model::Family::kV6);
      }
      peer.mac = model::parse_mac(row.mac).value_or(model::Mac{});
      add_prefixes(peer.pod_cidrs, row.pod_cidrs);
      peer.pod_cidrs = minimal_cover(std::move(peer.pod_cidrs));
      if (usable(peer)) out.emplace(row.name, std::move(peer));
    }
  }
  return out;
}

EgressTable egress_table(const model::World& world, const model::Settings& settings,
                         const std::string& node, const std::map<std::string, model::Peer>& peers) {
  EgressTable table;
  EgressBuilder builder(settings, node, peers, table);
  for (const auto& [name, gateway] : world.gateways) builder.add(name, gateway);
  return table;
}

}  // namespace egw::core::detail
