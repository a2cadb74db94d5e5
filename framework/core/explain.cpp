// Why a pod's packets leave as they do (explain.hpp).
#include "egw/core/explain.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "egw/core/compile_policy.hpp"
#include "egw/core/pod_claims.hpp"

namespace egw::core {
namespace {

using detail::Policy;
using model::Address;

std::string excluded(const model::Pod& pod) {
  if (pod.host_network) return "it has hostNetwork: its packets are the node's own";
  if (pod.finished) return "it is in phase Succeeded or Failed";
  if (pod.node_name.empty()) return "it is on no node yet (spec.nodeName)";
  if (pod.ips.empty()) return "it has no address yet (status.podIPs)";
  return {};
}

// The best of the other pods of its node that have the address rather than this one; nullptr: none.
const model::Pod* holder(const model::World& world, const model::Pod& pod, const Address& address) {
  const auto claim = [](const model::Pod& p) {
    return detail::PodClaim{p.meta.created_ms, p.meta.deleted_ms != 0, p.meta.ns, p.meta.name};
  };
  const model::Pod* best = &pod;
  for (const auto& [key, other] : world.pods) {
    if (other.node_name != pod.node_name || !detail::may_claim(other)) continue;
    if (std::find(other.ips.begin(), other.ips.end(), address) == other.ips.end()) continue;
    if (detail::outranks(claim(other), claim(*best))) best = &other;
  }
  return best == &pod ? nullptr : best;
}

// What the pod has lost to others of the addresses of a family, and whether it has one left there.
struct Lost {
  std::string text;
  bool all = false;
};
Lost lost_addresses(const model::World& world, const model::Pod& pod, model::Family family) {
  Lost out;
  std::size_t left = 0;
  for (const auto& address : pod.ips) {
    if (address.family() != family) continue;
    const model::Pod* other = holder(world, pod, address);
    if (other == nullptr) {
      ++left;
    } else {
      out.text +=
          fmt::format("{}another pod ({}/{}) has this address: {}", out.text.empty() ? "" : "; ",
                      other->meta.ns, other->meta.name, address.to_string());
    }
  }
  out.all = left == 0 && !out.text.empty();
  return out;
}

// Empty: it has an address from which it can send there, or anywhere.
std::string excluded_by(const Lost& v4, const Lost& v6, const model::Pod& pod,
                        const std::optional<Address>& destination) {
  if (destination) {
    const Lost& lost = destination->is_v6() ? v6 : v4;
    return lost.all ? lost.text : "";
  }
  const auto has_any = [&pod](model::Family family) {
    return std::any_of(pod.ips.begin(), pod.ips.end(),
                       [&](const auto& a) { return a.family() == family; });
  };
  if (has_any(model::Family::kV4) && !v4.all) return {};
  if (has_any(model::Family::kV6) && !v6.all) return {};
  return v4.text + (v4.text.empty() || v6.text.empty() ? "" : "; ") + v6.text;
}

std::string destinations_of(const Policy& policy) {
  if (policy.all_destinations) return "all";
  std::string out;
  for (const auto& prefix : policy.destinations) {
    out += (out.empty() ? "" : ",") + prefix.to_string();
  }
  return out;
}

bool covers(const Policy& policy, const Address& destination) {
  return policy.all_destinations ||
         std::any_of(policy.destinations.begin(), policy.destinations.end(),
                     [&](const auto& p) { return p.contains(destination); });
}

// Empty: the policy says something about the destination's family.
std::string mute(const Policy& policy, const Address& destination,
                 const model::Settings& settings) {
  const auto& decision = destination.is_v6() ? policy.v6 : policy.v4;
  if (decision.action != model::ActionKind::kBypass) return {};
  if (policy.waits_for_prefixes)
    return "waits: the cluster's own prefixes are not known (EgressClusterInfo default)";
  const char* family = destination.is_v6() ? "IPv6" : "IPv4";
  if (!(destination.is_v6() ? settings.enable_ipv6 : settings.enable_ipv4)) {
    return fmt::format("{} is switched off (feature.enable{})", family, family);
  }
  return fmt::format("EgressGateway {} has no {} addresses", policy.gateway, family);
}

std::vector<std::uint32_t> selecting(const detail::PolicyStore& store, const model::World& world,
                                     const model::Pod& pod) {
  const auto ns = world.namespaces.find(pod.meta.ns);
  const auto ns_labels =
      model::namespace_labels(ns == world.namespaces.end() ? nullptr : &ns->second, pod.meta.ns);
  auto slots = store.select(pod.meta.ns, ns_labels, pod.meta.labels);
  const auto more = store.select_by_address(pod.meta.ns, ns_labels, pod.meta.labels, pod.ips);
  slots.insert(slots.end(), more.begin(), more.end());
  store.sort_by_rank(slots);
  return slots;
}

// Empty: it is not.
std::string inside_cluster(const std::vector<model::Prefix>& own, const Address& destination) {
  const auto inside =
      std::find_if(own.begin(), own.end(), [&](const auto& p) { return p.contains(destination); });
  if (inside == own.end()) return {};
  return fmt::format("it is in {}, which is the cluster's own", inside->to_string());
}

// The rule that counts for the destination.
void narrow(model::ClassTable& table, const Address& destination) {
  const model::ClassRule* best = nullptr;
  for (const auto& rule : table) {
    if (!rule.destination.contains(destination)) continue;
    if (best == nullptr || rule.destination.length() > best->destination.length()) best = &rule;
  }
  table = best == nullptr ? model::ClassTable{} : model::ClassTable{*best};
}

// The best policy that covers all of the rule's destination and says something about it.
model::PolicyRef policy_of(const model::ClassRule& rule, const detail::PolicyStore& store,
                           const std::vector<std::uint32_t>& slots) {
  for (const auto slot : slots) {
    const Policy& policy = store.slots()[slot];
    const auto& decision = rule.destination.address().is_v6() ? policy.v6 : policy.v4;
    if (decision.action == model::ActionKind::kBypass) continue;
    const auto contains = [&rule](const model::Prefix& p) {
      return p.contains(rule.destination.first()) && p.length() <= rule.destination.length();
    };
    const auto& list = policy.destinations;
    if (policy.all_destinations || std::any_of(list.begin(), list.end(), contains)) {
      return policy.ref;
    }
  }
  return {};
}

}  // namespace

Explanation explain(const model::World& world, const model::Settings& settings,
                    const model::Pod& pod, const std::optional<Address>& destination) {
  Explanation out;
  out.excluded = excluded(pod);
  if (!out.excluded.empty()) return out;
  const Lost v4 = lost_addresses(world, pod, model::Family::kV4);
  const Lost v6 = lost_addresses(world, pod, model::Family::kV6);
  out.excluded = excluded_by(v4, v6, pod, destination);
  if (!out.excluded.empty()) return out;
  LocalNode local;
  local.name = pod.node_name;
  detail::PolicyStore store;
  store.reconcile(world.policies);
  const auto gateways =
      detail::egress_table(world, settings, pod.node_name, detail::peers(world, settings, local));
  store.decide(gateways, settings, detail::prefixes_known(world));
  const auto slots = selecting(store, world, pod);
  out.table = store.table(slots);
  std::erase_if(out.table, [&](const model::ClassRule& rule) {
    return rule.destination.family() == model::Family::kV6 ? v6.all : v4.all;
  });

  if (destination) {
    const auto own = detail::node_config(world, settings, local).cluster_prefixes;
    out.left_alone = inside_cluster(own, *destination);
    if (!out.left_alone.empty()) out.table.clear();
    narrow(out.table, *destination);
  }
  const Policy* decides = nullptr;
  std::string first_mute;  // why the best policy that covers the destination says nothing about it
  for (const auto slot : slots) {
    const Policy& policy = store.slots()[slot];
    ExplainedPolicy row{policy.ref, policy.priority, destinations_of(policy), {}};
    if (destination && out.left_alone.empty()) {
      if (!covers(policy, *destination)) {
        row.verdict = "does not cover the destination";
      } else if (auto why = mute(policy, *destination, settings); !why.empty()) {
        if (first_mute.empty()) first_mute = why;
        row.verdict = std::move(why);
      } else if (decides == nullptr) {
        row.verdict = "decides";
        decides = &policy;
      } else {
        row.verdict = "comes after the one that decides";
      }
    }
    out.policies.push_back(std::move(row));
  }
  for (const auto& rule : out.table) {
    out.rule_policies.push_back(decides != nullptr ? decides->ref : policy_of(rule, store, slots));
  }
  if (destination && out.left_alone.empty() && decides == nullptr) {
    out.left_alone = slots.empty() ? "no policy selects the pod"
                     : !first_mute.empty()
                         ? first_mute
                         : "no policy that selects the pod covers the destination";
  }
  return out;
}

}  // namespace egw::core
