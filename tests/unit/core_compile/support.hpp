// Worlds for the compiler's tests, and a slow compiler written from the rules alone to compare
// with.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "egw/core/compile.hpp"

namespace egw::core::test {

inline model::Address ip(const std::string& text) { return model::Address::parse(text).value(); }
inline model::Prefix net(const std::string& text) { return model::Prefix::parse(text).value(); }

inline model::LabelSelector labelled(const std::string& text) {
  return model::LabelSelector::parse_text(text).value();
}

inline model::Settings dual_stack() {
  model::Settings settings;
  settings.enable_ipv6 = true;
  settings.tunnel_v4 = net("172.31.0.0/16");
  settings.tunnel_v6 = net("fd11::/112");
  return settings;
}

inline LocalNode local_node(const std::string& name = "n1") {
  LocalNode local;
  local.name = name;
  local.parent_device = "eth0";
  local.parent_v4 = ip("10.6.0.1");
  local.parent_v6 = ip("fd00:6::1");
  local.tunnel_mac = {2, 0xee, 10, 6, 0, 1};
  return local;
}

inline model::EgressPolicy policy(const std::string& ns, const std::string& name,
                                  const std::string& gateway) {
  model::EgressPolicy out;
  out.meta.ns = ns;
  out.meta.name = name;
  out.meta.created_ms = 1000;
  out.spec.gateway = gateway;
  return out;
}

inline model::Pod pod(const std::string& ns, const std::string& name,
                      const std::vector<std::string>& addresses, const model::Labels& labels = {}) {
  model::Pod out;
  out.meta.ns = ns;
  out.meta.name = name;
  out.meta.created_ms = 1000;
  out.meta.labels = labels;
  out.node_name = "n1";
  for (const auto& address : addresses) out.ips.push_back(ip(address));
  return out;
}

inline void put(model::World& world, model::EgressPolicy policy) {
  const auto key = policy.meta.key();
  world.policies[key] = std::move(policy);
}
inline void put(model::World& world, model::Pod pod) {
  const auto key = pod.meta.key();
  world.pods[key] = std::move(pod);
}

inline model::EipStatus eip(std::uint32_t id, const std::string& v4, const std::string& v6,
                            std::vector<model::PolicyRef> policies) {
  model::EipStatus out;
  out.id = id;
  out.ipv4 = v4;
  out.ipv6 = v6;
  out.policies = std::move(policies);
  return out;
}

inline model::PeerInfo peer_row(const std::string& name, int number) {
  const auto n = std::to_string(number);
  model::PeerInfo row;
  row.name = name;
  row.underlay_v4 = "10.6.0." + n;
  row.underlay_v6 = "fd00:6::" + n;
  row.tunnel_v4 = "172.31.0." + n;
  row.tunnel_v6 = "fd11::" + n;
  row.mac = "02:ee:0a:06:00:0" + n;
  row.pod_cidrs = {"10.244." + n + ".0/24"};
  return row;
}

// Nodes n1 (this one), n2, n3; known cluster prefixes; gateway "gw" with pools of both families on
// n2 and n3, Ready.
inline model::World small_world() {
  model::World world;
  auto& info = world.cluster_infos["default"];
  info.meta.name = "default";
  info.status.present = true;
  info.status.cluster_ip.ipv4 = {"10.96.0.0/12"};
  info.status.node_ip["n1"].ipv4 = {"10.6.0.1"};
  info.status.pod_cidr["n1"].ipv4 = {"10.244.1.0/24"};
  info.status.peers = {peer_row("n1", 1), peer_row("n2", 2), peer_row("n3", 3)};
  auto& tunnel = world.tunnels["n1"];
  tunnel.meta.name = "n1";
  tunnel.status.ipv4 = "172.31.0.1";
  tunnel.status.ipv6 = "fd11::1";
  auto& gateway = world.gateways["gw"];
  gateway.meta.name = "gw";
  gateway.spec.ippools.ipv4 = {"10.6.1.55-10.6.1.60"};
  gateway.spec.ippools.ipv6 = {"fd00:6:1::55-fd00:6:1::60"};
  gateway.status.node_list = {{"n2", "Ready", {}}, {"n3", "Ready", {}}};
  return world;
}

inline model::Changes everything() {
  model::Changes changes;
  changes.everything = true;
  return changes;
}

inline model::Change compile(Compiler& compiler, const model::World& world) {
  return compiler.update(world, everything());
}

// The answer for a destination: the longest prefix of a table.
inline std::pair<model::ActionKind, std::uint32_t> look_up(const model::ClassTable& table,
                                                           const model::Address& destination) {
  const model::ClassRule* best = nullptr;
  for (const auto& rule : table) {
    if (rule.destination.contains(destination) &&
        (best == nullptr || best->destination.length() < rule.destination.length())) {
      best = &rule;
    }
  }
  if (best == nullptr) return {model::ActionKind::kBypass, 0};
  return {best->action, best->egress_id};
}

inline std::pair<model::ActionKind, std::uint32_t> look_up(const model::NodeState& state,
                                                           const std::string& source,
                                                           const std::string& destination) {
  const auto endpoint = state.endpoints.find(ip(source));
  if (endpoint == state.endpoints.end()) return {model::ActionKind::kBypass, 0};
  return look_up(state.classes.at(endpoint->second), ip(destination));
}

// What a datapath holds after a step.
inline void apply(model::NodeState& state, const model::Change& change) {
  if (change.full) state = {};
  if (change.node) state.node = *change.node;
  for (const auto& name : change.deleted_peers) state.peers.erase(name);
  for (const auto id : change.deleted_egresses) state.egresses.erase(id);
  for (const auto id : change.deleted_classes) state.classes.erase(id);
  for (const auto& address : change.deleted_endpoints) state.endpoints.erase(address);
  for (const auto& peer : change.peers) state.peers[peer.name] = peer;
  for (const auto& egress : change.egresses) state.egresses[egress.id] = egress;
  for (const auto& [id, table] : change.classes) state.classes[id] = table;
  for (const auto& [address, id] : change.endpoints) state.endpoints[address] = id;
}

inline bool same(const model::NodeState& a, const model::NodeState& b) {
  return a.node == b.node && a.peers == b.peers && a.egresses == b.egresses &&
         a.classes == b.classes && a.endpoints == b.endpoints;
}

// A state without class ids: the tables there are, and each endpoint's.
struct Content {
  model::NodeConfig node;
  std::map<std::string, model::Peer> peers;
  std::map<std::uint32_t, model::Egress> egresses;
  std::vector<model::ClassTable> tables;
  std::map<model::Address, model::ClassTable> endpoints;
  friend bool operator==(const Content&, const Content&) = default;
};

inline Content content(const model::NodeState& state) {
  Content out{state.node, state.peers, state.egresses, {}, {}};
  for (const auto& [id, table] : state.classes) out.tables.push_back(table);
  std::sort(out.tables.begin(), out.tables.end());
  for (const auto& [address, id] : state.endpoints) out.endpoints[address] = state.classes.at(id);
  return out;
}

}  // namespace egw::core::test
