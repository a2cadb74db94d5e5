// EgressPolicy and EgressClusterPolicy to and from JSON: one shape, two kinds.
#include "egw/model/codec_support.hpp"

namespace egw::model {
namespace {

using detail::put;
using detail::put_object;
using nlohmann::json;

constexpr std::pair<std::string_view, AllocatorPolicy> kAllocators[] = {
    {"default", AllocatorPolicy::kDefault}, {"rr", AllocatorPolicy::kRoundRobin}};
constexpr std::pair<std::string_view, FailurePolicy> kFailurePolicies[] = {
    {"Drop", FailurePolicy::kDrop}, {"NodeIP", FailurePolicy::kNodeIp}};

void read_policy(const Cursor& c, EgressPolicy& out) {
  const Cursor spec = c["spec"];
  spec["egressGatewayName"].get(out.spec.gateway);
  const Cursor ip = spec["egressIP"];
  ip["ipv4"].get(out.spec.egress_ip.ipv4);
  ip["ipv6"].get(out.spec.egress_ip.ipv6);
  ip["useNodeIP"].get(out.spec.egress_ip.use_node_ip);
  detail::read_word(ip["allocatorPolicy"], out.spec.egress_ip.allocator, kAllocators);
  const Cursor applied = spec["appliedTo"];
  detail::read_selector(applied["podSelector"], out.spec.pod_selector);
  detail::read_selector(applied["namespaceSelector"], out.spec.namespace_selector);
  applied["podSubnet"].get(out.spec.pod_subnet);
  spec["destSubnet"].get(out.spec.dest_subnet);
  spec["priority"].get_int(out.spec.priority);
  detail::read_word(spec["failurePolicy"], out.spec.failure_policy, kFailurePolicies);

  const Cursor status = c["status"];
  const Cursor eip = status["eip"];
  eip["ipv4"].get(out.status.ipv4);
  eip["ipv6"].get(out.status.ipv6);
  status["node"].get(out.status.node);
  detail::read_conditions(status["conditions"], out.status.conditions);
}

json spec_json(const EgressPolicy::Spec& spec) {
  json ip{{"allocatorPolicy",
           spec.egress_ip.allocator == AllocatorPolicy::kRoundRobin ? "rr" : "default"},
          {"useNodeIP", spec.egress_ip.use_node_ip}};
  put(ip, "ipv4", spec.egress_ip.ipv4);
  put(ip, "ipv6", spec.egress_ip.ipv6);
  json applied = json::object();
  if (spec.pod_selector) applied["podSelector"] = encode_selector(*spec.pod_selector);
  if (spec.namespace_selector) {
    applied["namespaceSelector"] = encode_selector(*spec.namespace_selector);
  }
  put(applied, "podSubnet", spec.pod_subnet);
  json out{{"egressIP", std::move(ip)}, {"appliedTo", std::move(applied)}};
  put(out, "egressGatewayName", spec.gateway);
  put(out, "destSubnet", spec.dest_subnet);
  put(out, "priority", spec.priority);
  out["failurePolicy"] = spec.failure_policy == FailurePolicy::kNodeIp ? "NodeIP" : "Drop";
  return out;
}

json status_json(const EgressPolicy& policy) {
  const EgressPolicy::Status& status = policy.status;
  json eip = json::object();
  put(eip, "ipv4", status.ipv4);
  put(eip, "ipv6", status.ipv6);
  json out = json::object();
  put_object(out, "eip", std::move(eip));
  put(out, "node", status.node);
  put_object(out, "conditions", detail::conditions_json(status.conditions));
  detail::restore_unknown(Kind::kEgressPolicy, policy.unknown_status, out);
  return out;
}

json policy_json(Kind kind, const EgressPolicy& policy) {
  json out = detail::document_of(info(kind), policy.meta);
  out["spec"] = spec_json(policy.spec);
  put_object(out, "status", status_json(policy));
  return out;
}

}  // namespace

template <>
EgressPolicy decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<EgressPolicy>(document, faults, read_policy);
}
template <>
EgressClusterPolicy decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<EgressClusterPolicy>(document, faults, read_policy);
}
template <>
json encode(const EgressPolicy& resource) {
  return policy_json(resource.meta.ns.empty() ? Kind::kEgressClusterPolicy : Kind::kEgressPolicy,
                     resource);
}
template <>
json encode(const EgressClusterPolicy& resource) {
  return policy_json(Kind::kEgressClusterPolicy, resource);
}
template <>
json encode_status(const EgressPolicy& resource) {
  return status_json(resource);
}
template <>
json encode_status(const EgressClusterPolicy& resource) {
  return status_json(resource);
}

}  // namespace egw::model
