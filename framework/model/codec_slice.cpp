// EgressEndpointSlice and EgressClusterEndpointSlice to and from JSON.
#include "egw/model/codec_support.hpp"

namespace egw::model {
namespace {

using detail::put;
using nlohmann::json;

void read_slice(const Cursor& c, EgressEndpointSlice& out) {
  detail::read_owner(c["metadata"], info(Kind::kEgressPolicy), info(Kind::kEgressClusterPolicy),
                     out.policy, out.policy_uid);
  c["endpoints"].each([&out](const Cursor& e) {
    Endpoint& endpoint = out.endpoints.emplace_back();
    e["pod"].get(endpoint.pod);
    e["ns"].get(endpoint.ns);
    e["node"].get(endpoint.node);
    e["ipv4"].get(endpoint.ipv4);
    e["ipv6"].get(endpoint.ipv6);
  });
}

}  // namespace

template <>
EgressEndpointSlice decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<EgressEndpointSlice>(document, faults, read_slice);
}

template <>
EgressClusterEndpointSlice decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<EgressClusterEndpointSlice>(document, faults, read_slice);
}

template <>
json encode(const EgressEndpointSlice& resource) {
  const bool cluster_wide = resource.meta.ns.empty();
  json out = detail::document_of(
      info(cluster_wide ? Kind::kEgressClusterEndpointSlice : Kind::kEgressEndpointSlice),
      resource.meta);
  const KindInfo& owner = info(cluster_wide ? Kind::kEgressClusterPolicy : Kind::kEgressPolicy);
  if (!resource.policy.empty()) {
    detail::write_owner(out["metadata"], owner, resource.policy, resource.policy_uid);
  }
  json& endpoints = out["endpoints"] = json::array();
  for (const Endpoint& e : resource.endpoints) {
    json endpoint = {{"pod", e.pod}, {"ns", e.ns}, {"node", e.node}};
    put(endpoint, "ipv4", e.ipv4);
    put(endpoint, "ipv6", e.ipv6);
    endpoints.push_back(std::move(endpoint));
  }
  return out;
}

}  // namespace egw::model
