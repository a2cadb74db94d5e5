// Rules of EgressPolicy and EgressClusterPolicy.
#include <fmt/format.h>

#include <algorithm>

#include "egw/core/admission_support.hpp"
#include "egw/model/codec.hpp"
#include "egw/model/text.hpp"

namespace egw::core::detail {
namespace {

using model::Address;
using model::EgressGateway;
using model::EgressPolicy;
using model::Family;
using model::IpPool;
using model::Kind;
using nlohmann::json;

bool namespaced(const Review& review) { return review.kind == Kind::kEgressPolicy; }

EgressPolicy decode_policy(Kind kind, const json& doc, std::vector<Error>& faults) {
  if (kind == Kind::kEgressPolicy) return model::decode<EgressPolicy>(doc, faults);
  return model::decode<model::EgressClusterPolicy>(doc, faults);
}

// The gateway for a policy that names none; empty, and denied, if there is none.
std::string default_gateway(Review& review) {
  if (namespaced(review)) {
    const auto labels =
        namespace_labels(review.reader, text_at(review.doc, {"metadata", "namespace"}));
    const auto it = labels.find(std::string(model::kNamespaceDefaultLabel));
    if (it != labels.end() && !it->second.empty()) return it->second;
  }
  // Of two that were stored at once the older is it, as the leader has it; times as texts compare.
  std::pair<std::string, std::string> oldest;
  review.reader.each(Kind::kEgressGateway, [&](const json& gateway) {
    if (!is_cluster_default(gateway)) return;
    std::pair of{text_at(gateway, {"metadata", "creationTimestamp"}),
                 text_at(gateway, {"metadata", "name"})};
    if (oldest.second.empty() || of < oldest) oldest = std::move(of);
  });
  std::string found = std::move(oldest.second);
  if (found.empty()) {
    review.deny("spec.egressGatewayName",
                fmt::format("empty, and there is no default; want the name of an EgressGateway, "
                            "{}or one with clusterDefault: true",
                            namespaced(review) ? fmt::format("the label {} on the namespace, ",
                                                             model::kNamespaceDefaultLabel)
                                               : std::string()));
  }
  return found;
}

// What cannot change is taken over from the stored object where it is not given; constants and the
// gateway are filled in at creation.
void fill_in(Review& review) {
  json& spec = object_at(review.doc, "spec");
  if (!review.clean("spec.egressGatewayName") || review.spoilt.contains("spec.egressIP")) return;
  json& ip = object_at(spec, "egressIP");
  if (!review.creating() && review.old_doc.contains("spec")) {
    const json& old_spec = review.old_doc["spec"];
    inherit(spec, old_spec, "egressGatewayName");
    if (old_spec.is_object() && old_spec.contains("egressIP")) {
      for (const char* key : {"ipv4", "ipv6", "useNodeIP", "allocatorPolicy"}) {
        inherit(ip, old_spec["egressIP"], key);
      }
    }
  }
  const json constants{{"allocatorPolicy", "default"}, {"useNodeIP", false}};
  inherit(ip, constants, "allocatorPolicy");
  inherit(ip, constants, "useNodeIP");
  if (text_at(spec, {"egressGatewayName"}).empty()) {
    const std::string name = default_gateway(review);
    if (!name.empty()) spec["egressGatewayName"] = name;
  }
}

void review_immutables(Review& review, const EgressPolicy& policy) {
  std::vector<Error> unreadable;
  const auto old = decode_policy(review.kind, without_status(review.old_doc), unreadable);
  if (!unreadable.empty()) return;  // what cannot be read cannot be kept either
  const auto denied = [&review](const char* path, std::string_view was, std::string_view now) {
    if (!review.clean(path)) return;
    review.deny(path, fmt::format("\"{}\": cannot be changed, it is \"{}\"; delete the policy and "
                                  "create it anew",
                                  now, was));
  };
  const auto& a = old.spec;
  const auto& b = policy.spec;
  const auto word = [](bool value) { return value ? "true" : "false"; };
  const auto allocator = [](model::AllocatorPolicy p) {
    return p == model::AllocatorPolicy::kRoundRobin ? "rr" : "default";
  };
  if (!a.gateway.empty() && a.gateway != b.gateway) {
    denied("spec.egressGatewayName", a.gateway, b.gateway);
  }
  if (!same_address(a.egress_ip.ipv4, b.egress_ip.ipv4)) {
    denied("spec.egressIP.ipv4", a.egress_ip.ipv4, b.egress_ip.ipv4);
  }
  if (!same_address(a.egress_ip.ipv6, b.egress_ip.ipv6)) {
    denied("spec.egressIP.ipv6", a.egress_ip.ipv6, b.egress_ip.ipv6);
  }
  if (a.egress_ip.use_node_ip != b.egress_ip.use_node_ip) {
    denied("spec.egressIP.useNodeIP", word(a.egress_ip.use_node_ip), word(b.egress_ip.use_node_ip));
  }
  if (a.egress_ip.allocator != b.egress_ip.allocator) {
    denied("spec.egressIP.allocatorPolicy", allocator(a.egress_ip.allocator),
           allocator(b.egress_ip.allocator));
  }
}

void review_applied_to(Review& review, const EgressPolicy::Spec& spec) {
  const bool by_namespace = spec.namespace_selector.has_value();
  if (namespaced(review) && by_namespace) {
    review.deny("spec.appliedTo.namespaceSelector",
                fmt::format("an EgressPolicy selects pods of its own namespace, {}; leave it out, "
                            "or make an EgressClusterPolicy",
                            text_at(review.doc, {"metadata", "namespace"})));
  }
  if (spec.pod_selector && !spec.pod_subnet.empty()) {
    review.deny("spec.appliedTo",
                fmt::format("podSelector and podSubnet ({}{}); want one of the two",
                            spec.pod_subnet.front(), spec.pod_subnet.size() > 1 ? ", ..." : ""));
  }
  if (!spec.pod_selector && spec.pod_subnet.empty() && (namespaced(review) || !by_namespace) &&
      review.clean("spec.appliedTo")) {
    review.deny("spec.appliedTo",
                namespaced(review)
                    ? "neither podSelector nor podSubnet; want one of them (podSelector: {} is "
                      "every pod of the namespace)"
                    : "neither podSelector, podSubnet nor namespaceSelector; want one of them "
                      "(podSelector: {} is every pod)");
  }
  read_prefixes(review, "spec.appliedTo.podSubnet", spec.pod_subnet);
}

void review_destinations(Review& review, const EgressPolicy::Spec& spec) {
  const auto prefixes = read_prefixes(review, "spec.destSubnet", spec.dest_subnet);
  if (prefixes.empty()) return;
  const std::vector<OwnPrefix> own = cluster_prefixes(review.reader);
  for (const auto& [index, prefix] : prefixes) {
    const auto it = std::find_if(
        own.begin(), own.end(), [&p = prefix](const OwnPrefix& o) { return o.prefix.contains(p); });
    if (it == own.end()) continue;
    review.warn(fmt::format("spec.destSubnet[{}]", index),
                fmt::format("{} has no effect: it lies in {} ({}), and traffic inside the cluster "
                            "keeps its way",
                            prefix.to_string(), it->what, it->prefix.to_string()));
  }
}

// An EIP by itself, whatever the gateway has. None: not given, or denied.
Address read_eip(Review& review, Family family, const std::string& text, const char* path) {
  if (text.empty()) return {};
  const auto address = Address::parse(text);
  if (!address) {
    review.deny(path, address.error().message);
    return {};
  }
  if (address->family() != family) {
    review.deny(path, fmt::format("{} is not {}; want an address of that family", text,
                                  family_name(family)));
    return {};
  }
  if (const auto why = why_not_a_source(*address); !why.empty()) {
    review.deny(path, fmt::format("{} is {} and cannot be a source; want an address of the "
                                  "gateway's pool",
                                  text, why));
    return {};
  }
  if (!family_on(review.settings, family)) {
    deny_switched_off(review, path, text, family);
    return {};
  }
  return *address;
}

void review_in_pool(Review& review, const EgressGateway& gateway, const Address& address,
                    const char* path) {
  if (!address) return;
  const auto& pools = gateway.spec.ippools;
  const IpPool pool =
      IpPool::parse_valid(address.family(), address.is_v4() ? pools.ipv4 : pools.ipv6, "", nullptr);
  if (pool.contains(address)) return;
  std::string has = pool.to_string();
  if (has.size() > 200) has = model::shortened(has, 197) + "...";
  review.deny(path, fmt::format("{} is not in the {} pool of EgressGateway {}; want one of {}",
                                address.to_string(), family_name(address.family()),
                                gateway.meta.name, has.empty() ? "an empty pool: none" : has));
}

void review_allowed(Review& review, const EgressGateway& gateway) {
  const auto& allowed = gateway.spec.allowed_namespaces;
  if (!namespaced(review) || !allowed) return;
  const std::string ns = text_at(review.doc, {"metadata", "namespace"});
  if (allowed->matches(namespace_labels(review.reader, ns))) return;
  review.deny("spec.egressGatewayName",
              fmt::format("{} does not serve namespace {} (its spec.allowedNamespaces does not "
                          "match the namespace's labels); want another gateway, or ask who runs "
                          "it to allow the namespace",
                          gateway.meta.name, ns));
}

// Destinations of a family of which the gateway has no addresses.
void warn_of_uncovered(Review& review, const EgressPolicy::Spec& spec,
                       const EgressGateway& gateway) {
  for (const Family family : {Family::kV4, Family::kV6}) {
    const auto& pools = gateway.spec.ippools;
    const bool has = !(family == Family::kV4 ? pools.ipv4 : pools.ipv6).empty();
    if (has || !family_on(review.settings, family)) continue;
    const auto text = fmt::format(
        "EgressGateway {} has no {} addresses; such packets are left "
        "alone and leave with the source that they have without a policy",
        gateway.meta.name, family_name(family));
    if (spec.dest_subnet.empty()) {
      review.warn("spec.destSubnet",
                  fmt::format("empty, which is every destination, but {}", text));
    }
    for (std::size_t i = 0; i < spec.dest_subnet.size(); ++i) {
      const auto prefix = model::Prefix::parse(spec.dest_subnet[i]);
      if (!prefix || prefix->family() != family) continue;
      review.warn(fmt::format("spec.destSubnet[{}]", i),
                  fmt::format("{} has no effect: {}", spec.dest_subnet[i], text));
    }
  }
}

// What a new policy asks of its gateway.
void review_gateway_of(Review& review, const EgressPolicy& policy, const Address& v4,
                       const Address& v6) {
  const std::string& name = policy.spec.gateway;
  if (!model::is_subdomain(name)) {
    review.deny("spec.egressGatewayName",
                fmt::format("\"{}\": want the name of an EgressGateway: {}",
                            model::shortened(name, 100), model::kSubdomain));
    return;
  }
  const auto doc = review.reader.get(Kind::kEgressGateway, {"", name});
  if (!doc) {
    const bool drop = policy.spec.failure_policy == model::FailurePolicy::kDrop;
    review.warn("spec.egressGatewayName",
                fmt::format("EgressGateway {} does not exist; the policy waits for it, and until "
                            "then the packets that it covers {}",
                            name,
                            drop ? "are dropped (failurePolicy Drop)"
                                 : "leave with their node's address (failurePolicy NodeIP)"));
    return;
  }
  if (being_deleted(*doc)) {
    review.deny("spec.egressGatewayName",
                fmt::format("EgressGateway {} is being deleted; want another one", name));
    return;
  }
  const auto gateway = model::decode<EgressGateway>(without_status(*doc));
  if (!gateway) {
    review.warn("spec.egressGatewayName",
                fmt::format("EgressGateway {} cannot be read ({}); the policy waits until it is "
                            "repaired",
                            name, gateway.error().to_string()));
    return;
  }
  review_allowed(review, *gateway);
  if (policy.spec.egress_ip.use_node_ip) return;
  const auto& pools = gateway->spec.ippools;
  const bool known = review.clean("spec.egressIP.useNodeIP");
  if (known && pools.ipv4.empty() && pools.ipv6.empty()) {
    review.deny("spec.egressIP.useNodeIP",
                fmt::format("false, but EgressGateway {} has no addresses; want useNodeIP: true, "
                            "or a gateway with ippools",
                            name));
    return;
  }
  if (known) warn_of_uncovered(review, policy.spec, *gateway);
  review_in_pool(review, *gateway, v4, "spec.egressIP.ipv4");
  review_in_pool(review, *gateway, v6, "spec.egressIP.ipv6");
  if (!v4 || !v6) return;
  const std::vector<Pair> pairs = known_pairs(*doc);
  if (const Pair* other = contradiction(pairs, v4, v6)) {
    review.deny(
        "spec.egressIP",
        fmt::format("{} and {} are not a pair: {} and {} are one already; want both "
                    "addresses of one pair, or one address: then its pair comes with it",
                    v4.to_string(), v6.to_string(), other->v4.to_string(), other->v6.to_string()));
  }
}

// An update's destinations, if they are others than before.
void warn_of_new_destinations(Review& review, const EgressPolicy& policy) {
  if (policy.spec.egress_ip.use_node_ip || !review.clean("spec.destSubnet") ||
      texts_at(review.old_doc, {"spec", "destSubnet"}) == policy.spec.dest_subnet) {
    return;
  }
  const auto doc = review.reader.get(Kind::kEgressGateway, {"", policy.spec.gateway});
  if (!doc) return;
  const auto gateway = model::decode<EgressGateway>(without_status(*doc));
  if (gateway) warn_of_uncovered(review, policy.spec, *gateway);
}

void review_egress_ip(Review& review, const EgressPolicy& policy) {
  const auto& ip = policy.spec.egress_ip;
  const bool named = !ip.ipv4.empty() || !ip.ipv6.empty();
  if (ip.use_node_ip && named) {
    review.deny("spec.egressIP",
                fmt::format("useNodeIP: true with {}{}{}; want the node's address (leave ipv4 and "
                            "ipv6 out) or an EIP (useNodeIP: false)",
                            ip.ipv4, ip.ipv4.empty() || ip.ipv6.empty() ? "" : " and ", ip.ipv6));
  }
  if (ip.allocator == model::AllocatorPolicy::kRoundRobin && (named || ip.use_node_ip)) {
    review.warn("spec.egressIP.allocatorPolicy",
                fmt::format("rr has no effect beside {}", named ? "an address" : "useNodeIP"));
  }
  // An update cannot change these; the pool keeps what policies use.
  if (!review.creating()) return warn_of_new_destinations(review, policy);
  const Address v4 = read_eip(review, Family::kV4, ip.ipv4, "spec.egressIP.ipv4");
  const Address v6 = read_eip(review, Family::kV6, ip.ipv6, "spec.egressIP.ipv6");
  if (!policy.spec.gateway.empty()) review_gateway_of(review, policy, v4, v6);
}

}  // namespace

void review_policy(Review& review) {
  fill_in(review);
  std::vector<Error> told;
  const auto policy = decode_policy(review.kind, review.doc, told);
  if (!review.creating()) review_immutables(review, policy);
  review_applied_to(review, policy.spec);
  review_destinations(review, policy.spec);
  review_egress_ip(review, policy);
  json& spec = object_at(review.doc, "spec");
  make_canonical(spec, "destSubnet");
  for (const auto& [part, key] : {std::pair{"egressIP", "ipv4"}, std::pair{"egressIP", "ipv6"},
                                  std::pair{"appliedTo", "podSubnet"}}) {
    if (spec.is_object() && spec.contains(part)) make_canonical(spec[part], key);
  }
}

}  // namespace egw::core::detail
