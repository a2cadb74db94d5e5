// Why a pod's packets leave as they do (explain.hpp).
#include "egw/core/explain.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "egw/core/compile_policy.hpp"

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
  LocalNode local;
  local.name = pod.node_name;
  detail::PolicyStore store;
  store.reconcile(world.policies);
  const auto gateways =
      detail::egress_table(world, settings, pod.node_name, detail::peers(world, settings, local));
  store.decide(gateways, settings, detail::prefixes_known(world));
  const auto slots = selecting(store, world, pod);
  out.table = store.table(slots);

  if (destination) {
    const auto own = detail::node_config(world, settings, local).cluster_prefixes;
    const auto inside = std::find_if(own.begin(), own.end(),
                                     [&](const auto& p) { return p.contains(*destination); });
    if (inside != own.end()) {
      out.left_alone = fmt::format("it is in {}, which is the cluster's own", inside->to_string());
      out.table.clear();
    }
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
