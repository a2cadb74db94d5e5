// EgressGateway to and from JSON.
#include "egw/model/codec_support.hpp"

namespace egw::model {
namespace {

using detail::put;
using detail::put_object;
using nlohmann::json;

void read_eip(const Cursor& c, EipStatus& out) {
  c["ipv4"].get(out.ipv4);
  c["ipv6"].get(out.ipv6);
  c["useNodeIP"].get(out.use_node_ip);
  c["id"].get_uint(out.id, detail::kMaxEgressId);
  c["epoch"].get_uint(out.epoch);
  c["movingFrom"].get(out.moving_from);
  c["unservedSince"].get_time(out.unserved_since_ms);
  c["unserved"].get(out.unserved);
  c["leftNode"].get(out.left_node);
  c["leftWhy"].get(out.left_why);
  c["policies"].each([&out](const Cursor& p) {
    PolicyRef& ref = out.policies.emplace_back();
    p["name"].get(ref.name);
    p["namespace"].get(ref.ns);
    p["uid"].get(ref.uid);
  });
}

void read_eips(const Cursor& list, std::vector<EipStatus>& out) {
  list.each([&out](const Cursor& c) { read_eip(c, out.emplace_back()); });
}

json eips_json(const std::vector<EipStatus>& eips) {
  json out = json::array();
  for (const EipStatus& e : eips) {
    json& j = out.emplace_back(json::object());
    put(j, "ipv4", e.ipv4);
    put(j, "ipv6", e.ipv6);
    put(j, "useNodeIP", e.use_node_ip);
    put(j, "id", std::uint64_t{e.id});
    put(j, "epoch", e.epoch);
    put(j, "movingFrom", e.moving_from);
    if (e.unserved_since_ms != 0) j["unservedSince"] = format_micro_time(e.unserved_since_ms);
    put(j, "unserved", e.unserved);
    put(j, "leftNode", e.left_node);
    put(j, "leftWhy", e.left_why);
    for (const PolicyRef& p : e.policies) {
      json ref{{"name", p.name}};
      put(ref, "namespace", p.ns);
      put(ref, "uid", p.uid);
      j["policies"].push_back(std::move(ref));
    }
  }
  return out;
}

void read_spec(const Cursor& c, EgressGateway::Spec& out) {
  c["clusterDefault"].get(out.cluster_default);
  const Cursor pools = c["ippools"];
  pools["ipv4"].get(out.ippools.ipv4);
  pools["ipv6"].get(out.ippools.ipv6);
  pools["ipv4DefaultEIP"].get(out.ippools.ipv4_default_eip);
  pools["ipv6DefaultEIP"].get(out.ippools.ipv6_default_eip);
  const Cursor nodes = c["nodeSelector"];
  std::optional<LabelSelector> selector;
  detail::read_selector(nodes["selector"], selector);
  if (selector) out.node_selector = std::move(*selector);
  nodes["policy"].get(out.node_selector_policy);
  detail::read_selector(c["allowedNamespaces"], out.allowed_namespaces);
}

void read_status(const Cursor& c, EgressGateway::Status& out) {
  c["term"].get_uint(out.term);
  c["nodeList"].each([&out](const Cursor& n) {
    GatewayNode& node = out.node_list.emplace_back();
    n["name"].get(node.name);
    n["status"].get(node.status);
    read_eips(n["eips"], node.eips);
  });
  read_eips(c["unplaced"], out.unplaced);
  const Cursor usage = c["ipUsage"];
  usage["ipv4Total"].get_int(out.ip_usage.ipv4_total, 0);
  usage["ipv4Free"].get_int(out.ip_usage.ipv4_free, 0);
  usage["ipv6Total"].get_int(out.ip_usage.ipv6_total, 0);
  usage["ipv6Free"].get_int(out.ip_usage.ipv6_free, 0);
  c["roundRobinLast"].get(out.round_robin_last);
  detail::read_conditions(c["conditions"], out.conditions);
}

json spec_json(const EgressGateway::Spec& spec) {
  json pools = json::object();
  put(pools, "ipv4", spec.ippools.ipv4);
  put(pools, "ipv6", spec.ippools.ipv6);
  put(pools, "ipv4DefaultEIP", spec.ippools.ipv4_default_eip);
  put(pools, "ipv6DefaultEIP", spec.ippools.ipv6_default_eip);
  json nodes{{"selector", encode_selector(spec.node_selector)}};
  put(nodes, "policy", spec.node_selector_policy);
  json out{{"nodeSelector", std::move(nodes)}};
  put(out, "clusterDefault", spec.cluster_default);
  put_object(out, "ippools", std::move(pools));
  if (spec.allowed_namespaces) {
    out["allowedNamespaces"] = encode_selector(*spec.allowed_namespaces);
  }
  return out;
}

}  // namespace

template <>
EgressGateway decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<EgressGateway>(document, faults,
                                              [](const Cursor& c, EgressGateway& out) {
                                                read_spec(c["spec"], out.spec);
                                                read_status(c["status"], out.status);
                                              });
}

template <>
json encode_status(const EgressGateway& resource) {
  const EgressGateway::Status& status = resource.status;
  json out = json::object();
  put(out, "term", status.term);
  for (const GatewayNode& n : status.node_list) {
    json node{{"name", n.name}};
    put(node, "status", n.status);
    put_object(node, "eips", eips_json(n.eips));
    out["nodeList"].push_back(std::move(node));
  }
  put_object(out, "unplaced", eips_json(status.unplaced));
  if (status.ip_usage != IpUsage{}) {
    out["ipUsage"] = {{"ipv4Total", status.ip_usage.ipv4_total},
                      {"ipv4Free", status.ip_usage.ipv4_free},
                      {"ipv6Total", status.ip_usage.ipv6_total},
                      {"ipv6Free", status.ip_usage.ipv6_free}};
  }
  put(out, "roundRobinLast", status.round_robin_last);
  put_object(out, "conditions", detail::conditions_json(status.conditions));
  detail::restore_unknown(Kind::kEgressGateway, resource.unknown_status, out);
  return out;
}

template <>
json encode(const EgressGateway& resource) {
  json out = detail::document_of(info(Kind::kEgressGateway), resource.meta);
  out["spec"] = spec_json(resource.spec);
  put_object(out, "status", encode_status(resource));
  return out;
}

}  // namespace egw::model
