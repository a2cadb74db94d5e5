// Node, Pod, Namespace and Event: the parts of the core kinds that egw reads, in their Kubernetes
// shape.
#include "egw/model/codec_support.hpp"

namespace egw::model {
namespace {

using detail::put;
using nlohmann::json;

void read_node(const Cursor& c, Node& out) {
  const Cursor spec = c["spec"];
  spec["podCIDRs"].get(out.pod_cidrs);
  if (out.pod_cidrs.empty()) {
    std::string single;
    spec["podCIDR"].get(single);
    if (!single.empty()) out.pod_cidrs.push_back(std::move(single));
  }
  const Cursor status = c["status"];
  status["addresses"].each([&out](const Cursor& a) {
    std::string type;
    std::string address;
    a["type"].get(type);
    a["address"].get(address);
    if (type == "InternalIP" && !address.empty()) out.internal_ips.push_back(std::move(address));
  });
  status["conditions"].each([&out](const Cursor& condition) {
    std::string type;
    std::string value;
    condition["type"].get(type);
    condition["status"].get(value);
    if (type == "Ready") out.ready = value == "True";
  });
}

void read_ips(const Cursor& status, std::vector<Address>& out) {
  const Cursor list = status["podIPs"];
  const std::size_t count = list.present() && list.value()->is_array() ? list.value()->size() : 0;
  out.reserve(std::min<std::size_t>(count, 2));  // one per family
  list.each([&out](const Cursor& entry) {
    Address ip;
    entry["ip"].get(ip);
    if (ip) out.push_back(ip);
  });
  if (out.empty() && status["podIP"].present() && *status["podIP"].value() != "") {
    Address ip;
    status["podIP"].get(ip);
    if (ip) out.push_back(ip);
  }
}

void read_pod(const Cursor& c, Pod& out) {
  const Cursor spec = c["spec"];
  spec["nodeName"].get(out.node_name);
  spec["hostNetwork"].get(out.host_network);
  const Cursor status = c["status"];
  std::string phase;
  status["phase"].get(phase);
  out.finished = phase == "Succeeded" || phase == "Failed";
  read_ips(status, out.ips);
  // Assigning what is empty would keep their memory.
  std::string().swap(out.meta.uid);
  Labels().swap(out.meta.annotations);
  std::vector<std::string>().swap(out.meta.finalizers);
}

void read_prefixes(const Cursor& c, ClusterPrefixes& out) {
  std::string cidr;
  c["spec"]["cidrs"].get(out.cidrs);
  c["spec"]["cidr"].get(cidr);
  if (!cidr.empty()) out.cidrs.push_back(std::move(cidr));
}

void read_event(const Cursor& c, Event& out) {
  const Cursor about = c["regarding"];
  about["apiVersion"].get(out.about_api_version);
  about["kind"].get(out.about_kind);
  about["namespace"].get(out.about.ns);
  about["name"].get(out.about.name);
  about["uid"].get(out.about_uid);
  std::string type;
  c["type"].get(type);
  out.warning = type == "Warning";
  c["action"].get(out.action);
  c["reason"].get(out.reason);
  c["note"].get(out.message);
  c["reportingController"].get(out.component);
  c["reportingInstance"].get(out.host);
  c["eventTime"].get_time(out.first_ms);
  out.last_ms = out.first_ms;
  c["series"]["count"].get_int(out.count, 0);
  c["series"]["lastObservedTime"].get_time(out.last_ms);
}

}  // namespace

template <>
CalicoIpPool decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<CalicoIpPool>(document, faults, read_prefixes);
}

template <>
ServiceCidr decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<ServiceCidr>(document, faults, read_prefixes);
}

template <>
Node decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<Node>(document, faults, read_node);
}

template <>
json encode(const Node& resource) {
  json out = detail::document_of(info(Kind::kNode), resource.meta);
  json spec = json::object();
  if (!resource.pod_cidrs.empty()) spec["podCIDR"] = resource.pod_cidrs[0];
  put(spec, "podCIDRs", resource.pod_cidrs);
  out["spec"] = std::move(spec);
  json status{{"conditions", {{{"type", "Ready"}, {"status", resource.ready ? "True" : "False"}}}}};
  for (const std::string& ip : resource.internal_ips) {
    status["addresses"].push_back({{"type", "InternalIP"}, {"address", ip}});
  }
  out["status"] = std::move(status);
  return out;
}

template <>
Pod decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<Pod>(document, faults, read_pod);
}

template <>
json encode(const Pod& resource) {
  json out = detail::document_of(info(Kind::kPod), resource.meta);
  json spec = json::object();
  put(spec, "nodeName", resource.node_name);
  put(spec, "hostNetwork", resource.host_network);
  out["spec"] = std::move(spec);
  json status = json::object();
  // Which of the two end phases it was is not kept; both mean that the address is free again.
  if (resource.finished) status["phase"] = "Succeeded";
  for (const Address& ip : resource.ips) {
    status["podIPs"].push_back({{"ip", ip.to_string()}});
  }
  if (!resource.ips.empty()) status["podIP"] = resource.ips[0].to_string();
  detail::put_object(out, "status", std::move(status));
  return out;
}

template <>
Namespace decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<Namespace>(document, faults, [](const Cursor&, Namespace&) {});
}

template <>
json encode(const Namespace& resource) {
  return detail::document_of(info(Kind::kNamespace), resource.meta);
}

template <>
Event decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<Event>(document, faults, read_event);
}

template <>
json encode(const Event& resource) {
  json out = detail::document_of(info(Kind::kEvent), resource.meta);
  json about = json::object();
  put(about, "apiVersion", resource.about_api_version);
  put(about, "kind", resource.about_kind);
  put(about, "namespace", resource.about.ns);
  put(about, "name", resource.about.name);
  put(about, "uid", resource.about_uid);
  out["regarding"] = std::move(about);
  out["type"] = resource.warning ? "Warning" : "Normal";
  put(out, "action", resource.action);
  put(out, "reason", resource.reason);
  put(out, "note", resource.message);
  put(out, "reportingController", resource.component);
  put(out, "reportingInstance", resource.host);
  out["eventTime"] = format_micro_time(resource.first_ms);
  if (resource.count > 1) {
    out["series"] = {{"count", resource.count},
                     {"lastObservedTime", format_micro_time(resource.last_ms)}};
  }
  return out;
}

}  // namespace egw::model
