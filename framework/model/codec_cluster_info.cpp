// EgressClusterInfo to and from JSON: the cluster's own prefixes, the memory of egress ids, and the
// peer table.
#include "egw/model/codec_support.hpp"

namespace egw::model {
namespace {

using detail::put;
using detail::put_object;
using nlohmann::json;

void read_addresses(const Cursor& c, EgressClusterInfo::Addresses& out) {
  c["ipv4"].get(out.ipv4);
  c["ipv6"].get(out.ipv6);
}

void read_by_node(const Cursor& c, std::map<std::string, EgressClusterInfo::Addresses>& out) {
  c.members([&out](const std::string& node, const Cursor& a) { read_addresses(a, out[node]); });
}

void read_peer(const Cursor& c, PeerInfo& out) {
  c["name"].get(out.name);
  c["underlayIPv4"].get(out.underlay_v4);
  c["underlayIPv6"].get(out.underlay_v6);
  c["tunnelIPv4"].get(out.tunnel_v4);
  c["tunnelIPv6"].get(out.tunnel_v6);
  c["mac"].get(out.mac);
  c["parentMAC"].get(out.parent_mac);
  c["podCIDRs"].get(out.pod_cidrs);
  c["macs"].get(out.macs);
}

void read_info(const Cursor& c, EgressClusterInfo& out) {
  const Cursor spec = c["spec"];
  const Cursor detect = spec["autoDetect"];
  // "" is a mode of its own (look at nothing), so read_word does not fit.
  std::string mode = out.spec.pod_cidr_mode;
  detect["podCidrMode"].get(mode);
  if (mode == "auto" || mode == "k8s" || mode == "calico" || mode.empty()) {
    out.spec.pod_cidr_mode = mode;
  } else {
    detect["podCidrMode"].mismatch("one of auto, k8s, calico or an empty string");
  }
  detect["clusterIP"].get(out.spec.cluster_ip);
  detect["nodeIP"].get(out.spec.node_ip);
  spec["extraCidr"].get(out.spec.extra_cidr);

  const Cursor status = c["status"];
  out.status.present = status.present() && !status.value()->empty();
  status["podCidrMode"].get(out.status.pod_cidr_mode);
  read_addresses(status["clusterIP"], out.status.cluster_ip);
  read_by_node(status["nodeIP"], out.status.node_ip);
  read_by_node(status["podCIDR"], out.status.pod_cidr);
  status["extraCidr"].get(out.status.extra_cidr);
  status["nextEgressId"].get_uint(out.status.next_egress_id, detail::kMaxEgressId + 1);
  status["retired"].each([&out](const Cursor& r) {
    RetiredId& retired = out.status.retired.emplace_back();
    r["id"].get_uint(retired.id, detail::kMaxEgressId);
    r["revision"].get_uint(retired.revision);
  });
  status["term"].get_uint(out.status.term);
  status["leader"].get(out.status.leader);
  status["peers"].each([&out](const Cursor& p) { read_peer(p, out.status.peers.emplace_back()); });
  detail::read_conditions(status["conditions"], out.status.conditions);
}

json addresses_json(const EgressClusterInfo::Addresses& a) {
  json out = json::object();
  put(out, "ipv4", a.ipv4);
  put(out, "ipv6", a.ipv6);
  return out;
}

json by_node_json(const std::map<std::string, EgressClusterInfo::Addresses>& map) {
  json out = json::object();
  for (const auto& [node, addresses] : map) out[node] = addresses_json(addresses);
  return out;
}

json peer_json(const PeerInfo& p) {
  json out{{"name", p.name}};
  put(out, "underlayIPv4", p.underlay_v4);
  put(out, "underlayIPv6", p.underlay_v6);
  put(out, "tunnelIPv4", p.tunnel_v4);
  put(out, "tunnelIPv6", p.tunnel_v6);
  put(out, "mac", p.mac);
  put(out, "parentMAC", p.parent_mac);
  put(out, "podCIDRs", p.pod_cidrs);
  put(out, "macs", p.macs);
  return out;
}

json status_json(const EgressClusterInfo::Status& s) {
  json out = json::object();
  if (s == EgressClusterInfo::Status{}) return out;
  put(out, "podCidrMode", s.pod_cidr_mode);
  put_object(out, "clusterIP", addresses_json(s.cluster_ip));
  put_object(out, "nodeIP", by_node_json(s.node_ip));
  put_object(out, "podCIDR", by_node_json(s.pod_cidr));
  put(out, "extraCidr", s.extra_cidr);
  out["nextEgressId"] = s.next_egress_id;  // always: its presence says that the status was written
  for (const RetiredId& r : s.retired) {
    out["retired"].push_back({{"id", r.id}, {"revision", r.revision}});
  }
  put(out, "term", s.term);
  put(out, "leader", s.leader);
  for (const PeerInfo& p : s.peers) out["peers"].push_back(peer_json(p));
  put_object(out, "conditions", detail::conditions_json(s.conditions));
  return out;
}

}  // namespace

template <>
EgressClusterInfo decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<EgressClusterInfo>(document, faults, read_info);
}

template <>
json encode_status(const EgressClusterInfo& resource) {
  json out = status_json(resource.status);
  detail::restore_unknown(Kind::kEgressClusterInfo, resource.unknown_status, out);
  return out;
}

template <>
json encode(const EgressClusterInfo& resource) {
  json out = detail::document_of(info(Kind::kEgressClusterInfo), resource.meta);
  json spec{{"autoDetect",
             {{"podCidrMode", resource.spec.pod_cidr_mode},
              {"clusterIP", resource.spec.cluster_ip},
              {"nodeIP", resource.spec.node_ip}}}};
  put(spec, "extraCidr", resource.spec.extra_cidr);
  out["spec"] = std::move(spec);
  put_object(out, "status", encode_status(resource));
  return out;
}

}  // namespace egw::model
