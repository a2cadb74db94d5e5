#include "egw/model/node_state_codec.hpp"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <string_view>

#include "egw/model/json_reader.hpp"

namespace egw::model {
namespace {

using nlohmann::json;

// An address with a prefix length whose host bits are kept: "172.31.0.1/16".
void get_interface(const Cursor& at, Address& address, std::uint8_t& length) {
  std::string text;
  at.get(text);
  if (text.empty()) return;
  const auto slash = text.find('/');
  unsigned bits = 0;
  const auto parsed = Address::parse(std::string_view(text).substr(0, slash));
  const bool length_ok =
      slash != std::string::npos &&
      std::from_chars(text.data() + slash + 1, text.data() + text.size(), bits).ec == std::errc();
  if (!parsed || !length_ok || bits > parsed->bits()) {
    at.mismatch("an address with its prefix length, e.g. \"172.31.0.1/16\"");
    return;
  }
  address = *parsed;
  length = static_cast<std::uint8_t>(bits);
}

void get_mac(const Cursor& at, Mac& mac) {
  std::string text;
  at.get(text);
  if (text.empty()) return;
  if (const auto parsed = parse_mac(text)) {
    mac = *parsed;
  } else {
    at.mismatch("a MAC address, e.g. \"02:ee:0a:00:00:01\"");
  }
}

void get_prefix(const Cursor& at, Prefix& prefix) {
  std::string text;
  at.get(text);
  if (const auto parsed = Prefix::parse(text)) {
    prefix = *parsed;
  } else {
    at.mismatch("a prefix, e.g. \"10.0.0.0/8\"");
  }
}

void get_prefixes(const Cursor& at, std::vector<Prefix>& prefixes) {
  at.each([&](const Cursor& element) { get_prefix(element, prefixes.emplace_back()); });
}

// `names[i]` stands for the value i + first.
template <class E, std::size_t N>
void get_enum(const Cursor& at, E& value, const std::string_view (&names)[N], int first) {
  std::string text;
  at.get(text);
  for (std::size_t i = 0; i < N; ++i) {
    if (text == names[i]) {
      value = static_cast<E>(static_cast<int>(i) + first);
      return;
    }
  }
  if (!text.empty()) at.mismatch(fmt::format("one of {}", fmt::join(names, ", ")));
}

constexpr std::string_view kEgressKinds[] = {"address", "node"};
constexpr std::string_view kOwners[] = {"none", "self", "peer"};
constexpr std::string_view kActions[] = {"egress", "drop", "nodeip", "bypass"};

void get_node(const Cursor& at, NodeConfig& node) {
  at["name"].get(node.name);
  at["enableIPv4"].get(node.enable_ipv4);
  at["enableIPv6"].get(node.enable_ipv6);
  at["disableChecksumOffload"].get(node.disable_checksum_offload);
  at["tunnelDevice"].get(node.tunnel_device);
  at["vni"].get_uint(node.tunnel_vni, 0xffffff);
  std::uint32_t port = 0;
  at["port"].get_uint(port, 0xffff);
  node.tunnel_port = static_cast<std::uint16_t>(port);
  get_mac(at["mac"], node.tunnel_mac);
  get_interface(at["tunnelIPv4"], node.tunnel_v4, node.tunnel_v4_length);
  get_interface(at["tunnelIPv6"], node.tunnel_v6, node.tunnel_v6_length);
  at["parentDevice"].get(node.parent_device);
  at["underlay"].get(node.underlay);
  at["parentIPv4"].get(node.parent_v4);
  at["parentIPv6"].get(node.parent_v6);
  at["slotMask"].get_uint(node.slot_mask, 0xffffffff);
  at["ctMask"].get_uint(node.ct_mask, 0xffffffff);
  get_prefixes(at["clusterPrefixes"], node.cluster_prefixes);
}

void get_peer(const Cursor& at, Peer& peer) {
  at["name"].get(peer.name);
  at["underlay"].get(peer.underlay);
  at["tunnelIPv4"].get(peer.tunnel_v4);
  at["tunnelIPv6"].get(peer.tunnel_v6);
  get_mac(at["mac"], peer.mac);
  get_prefixes(at["podCIDRs"], peer.pod_cidrs);
}

void get_egress(const Cursor& at, Egress& egress) {
  at["id"].get_uint(egress.id, 16383);
  get_enum(at["kind"], egress.kind, kEgressKinds, 0);
  get_enum(at["owner"], egress.owner, kOwners, 0);
  at["ownerPeer"].get(egress.owner_peer);
  at["mayServe"].get(egress.may_serve);
  at["ipv4"].get(egress.v4);
  at["ipv6"].get(egress.v6);
}

void get_class(const Cursor& at, std::pair<std::uint32_t, ClassTable>& cls) {
  at["id"].get_uint(cls.first, 0xffffffff);
  at["rules"].each([&](const Cursor& element) {
    ClassRule& rule = cls.second.emplace_back();
    get_prefix(element["destination"], rule.destination);
    get_enum(element["action"], rule.action, kActions, 1);
    element["egressID"].get_uint(rule.egress_id, 16383);
  });
}

json prefixes_json(const std::vector<Prefix>& prefixes) {
  json out = json::array();
  for (const auto& p : prefixes) out.push_back(p.to_string());
  return out;
}

std::string interface_text(const Address& address, std::uint8_t length) {
  return address ? fmt::format("{}/{}", address.to_string(), length) : std::string();
}

json node_json(const NodeConfig& n) {
  return {{"name", n.name},
          {"enableIPv4", n.enable_ipv4},
          {"enableIPv6", n.enable_ipv6},
          {"disableChecksumOffload", n.disable_checksum_offload},
          {"tunnelDevice", n.tunnel_device},
          {"vni", n.tunnel_vni},
          {"port", n.tunnel_port},
          {"mac", format_mac(n.tunnel_mac)},
          {"tunnelIPv4", interface_text(n.tunnel_v4, n.tunnel_v4_length)},
          {"tunnelIPv6", interface_text(n.tunnel_v6, n.tunnel_v6_length)},
          {"parentDevice", n.parent_device},
          {"underlay", n.underlay.to_string()},
          {"parentIPv4", n.parent_v4.to_string()},
          {"parentIPv6", n.parent_v6.to_string()},
          {"slotMask", n.slot_mask},
          {"ctMask", n.ct_mask},
          {"clusterPrefixes", prefixes_json(n.cluster_prefixes)}};
}

json class_json(std::uint32_t id, const ClassTable& table) {
  json rules = json::array();
  for (const auto& r : table) {
    json rule = {{"destination", r.destination.to_string()},
                 {"action", kActions[static_cast<std::size_t>(r.action) - 1]}};
    if (r.action == ActionKind::kEgress) rule["egressID"] = r.egress_id;
    rules.push_back(std::move(rule));
  }
  return {{"id", id}, {"rules", std::move(rules)}};
}

}  // namespace

std::string format_mac(const Mac& mac) { return fmt::format("{:02x}", fmt::join(mac, ":")); }

Result<Mac> parse_mac(std::string_view text) {
  Mac mac{};
  if (text.size() != 17) return fail(Errc::kInvalid, std::string(text), "not a MAC address");
  for (std::size_t i = 0; i < 6; ++i) {
    const char* at = text.data() + i * 3;
    const auto [end, error] = std::from_chars(at, at + 2, mac[i], 16);
    if (error != std::errc() || end != at + 2 || (i < 5 && at[2] != ':')) {
      return fail(Errc::kInvalid, std::string(text), "not a MAC address");
    }
  }
  return mac;
}

Result<NodeConfig> decode_node_config(const json& document) {
  std::vector<Error> faults;
  NodeConfig node;
  get_node(Cursor(document, faults), node);
  if (!faults.empty()) return tl::unexpected<Error>(std::move(faults.front()));
  return node;
}

Result<Change> decode_change(const json& document) {
  std::vector<Error> faults;
  const Cursor at(document, faults);
  Change c;
  at["full"].get(c.full);
  at["generation"].get_uint(c.generation);
  at["base"].get_uint(c.base);
  if (at["node"].present()) get_node(at["node"], c.node.emplace());
  at["peers"].each([&](const Cursor& e) { get_peer(e, c.peers.emplace_back()); });
  at["egresses"].each([&](const Cursor& e) { get_egress(e, c.egresses.emplace_back()); });
  at["classes"].each([&](const Cursor& e) { get_class(e, c.classes.emplace_back()); });
  at["endpoints"].each([&](const Cursor& e) {
    auto& [address, cls] = c.endpoints.emplace_back();
    e["address"].get(address);
    e["class"].get_uint(cls, 0xffffffff);
  });
  const Cursor deleted = at["deleted"];
  deleted["peers"].get(c.deleted_peers);
  deleted["egresses"].each(
      [&](const Cursor& e) { e.get_uint(c.deleted_egresses.emplace_back(), 16383); });
  deleted["classes"].each(
      [&](const Cursor& e) { e.get_uint(c.deleted_classes.emplace_back(), 0xffffffff); });
  deleted["endpoints"].each([&](const Cursor& e) { e.get(c.deleted_endpoints.emplace_back()); });
  if (!faults.empty()) return tl::unexpected<Error>(std::move(faults.front()));
  return c;
}

json encode_node_state(const NodeState& state, std::uint64_t generation) {
  json out = {
      {"version", 1}, {"full", true}, {"generation", generation}, {"node", node_json(state.node)}};
  out["peers"] = json::array();
  for (const auto& [name, p] : state.peers) {
    out["peers"].push_back({{"name", name},
                            {"underlay", p.underlay.to_string()},
                            {"tunnelIPv4", p.tunnel_v4.to_string()},
                            {"tunnelIPv6", p.tunnel_v6.to_string()},
                            {"mac", format_mac(p.mac)},
                            {"podCIDRs", prefixes_json(p.pod_cidrs)}});
  }
  out["egresses"] = json::array();
  for (const auto& [id, e] : state.egresses) {
    out["egresses"].push_back({{"id", id},
                               {"kind", kEgressKinds[static_cast<std::size_t>(e.kind)]},
                               {"owner", kOwners[static_cast<std::size_t>(e.owner)]},
                               {"ownerPeer", e.owner_peer},
                               {"mayServe", e.may_serve},
                               {"ipv4", e.v4.to_string()},
                               {"ipv6", e.v6.to_string()}});
  }
  out["classes"] = json::array();
  for (const auto& [id, table] : state.classes) out["classes"].push_back(class_json(id, table));
  out["endpoints"] = json::array();
  for (const auto& [address, cls] : state.endpoints) {
    out["endpoints"].push_back({{"address", address.to_string()}, {"class", cls}});
  }
  return out;
}

}  // namespace egw::model
