// EgressPolicy.status: for people. Follows from the gateways' drafts; written only where it
// differs.
#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

using model::Condition;
using model::EgressPolicy;

constexpr std::string_view kNoEip = "it has no EIP: see Allocated";

bool same(const model::Conditions& conditions, const Condition& wanted) {
  const Condition* c = find_condition(conditions, wanted.type);
  return c != nullptr && c->status == wanted.status && c->reason == wanted.reason &&
         c->message == wanted.message;
}

struct Uncovered {
  std::string reason;
  std::string message;  // empty: it is not so
};

struct Wanted {
  std::string v4, v6, node;
  Condition allocated, placed;
  std::string degraded;  // why; empty: it is not so
  Uncovered uncovered;
  std::string waits;  // for the cluster's own prefixes: why they are not known
};

// Conditions that are there only while there is something to say.
void set_troubles(model::Conditions& conditions, const Wanted& wanted, std::int64_t wall_ms) {
  const auto set = [&](const char* type, const std::string& reason, const std::string& message) {
    if (message.empty()) {
      remove_condition(conditions, type);
    } else {
      set_condition(conditions, {type, true, reason, message, 0}, wall_ms);
    }
  };
  set("Degraded", wanted.allocated.status ? wanted.placed.reason : wanted.allocated.reason,
      wanted.degraded);
  set("FamilyNotCovered", wanted.uncovered.reason, wanted.uncovered.message);
  set("ClusterPrefixesUnknown", "NoUsableIPPool", wanted.waits);
}

// Whether the policy has destinations of the family.
bool names(const EgressPolicy& policy, bool v6) {
  const auto& list = policy.spec.dest_subnet;
  return list.empty() || std::any_of(list.begin(), list.end(), [&](const std::string& text) {
           return (text.find(':') != std::string::npos) == v6;
         });
}

bool has_pool(const model::EgressGateway& gateway, bool v6) {
  const model::IpPools& pools = gateway.spec.ippools;
  return !(v6 ? pools.ipv6 : pools.ipv4).empty();
}

// Destinations of a family that is switched off, if they are named, or of which the gateway has no
// addresses, or the EIP none. entry: null without EIP.
Uncovered uncovered(const Draft& d, const model::EgressGateway& gateway, const EgressPolicy& policy,
                    const Entry* entry) {
  const auto lacks = [&](bool v6) {
    const bool has =
        entry != nullptr ? static_cast<bool>(v6 ? entry->v6 : entry->v4) : has_pool(gateway, v6);
    return !policy.spec.egress_ip.use_node_ip && !has && names(policy, v6);
  };
  constexpr std::string_view kLeft =
      "destinations are left alone and leave with the source that they have without a policy";
  for (const bool v6 : {false, true}) {
    const bool on = v6 ? d.settings.enable_ipv6 : d.settings.enable_ipv4;
    const char* family = v6 ? "IPv6" : "IPv4";
    if (on && lacks(v6) && has_pool(gateway, v6)) {
      return {"NoPartner",
              fmt::format("the EIP has no {} address: the pools of EgressGateway {} differ and no "
                          "address is free; packets to {} follow failurePolicy: make the pools "
                          "equal",
                          family, gateway.meta.name, family)};
    }
    if (on && lacks(v6)) {
      return {"NoAddresses", fmt::format("EgressGateway {} has no {} addresses; packets to {} {}",
                                         gateway.meta.name, family, family, kLeft)};
    }
    if (!on && !policy.spec.dest_subnet.empty() && names(policy, v6)) {
      return {"SwitchedOff", fmt::format("{} is switched off (feature.enable{}); packets to {} {}",
                                         family, family, family, kLeft)};
    }
  }
  return {};
}

void write(Draft& d, const EgressPolicy& policy, Wanted wanted) {
  const EgressPolicy::Status& before = policy.status;
  const bool same_allocated = same(before.conditions, wanted.allocated);
  const bool same_place =
      before.ipv4 == wanted.v4 && before.ipv6 == wanted.v6 && before.node == wanted.node;
  const Condition realised = realised_now(d, before.conditions, policy.meta, same_place,
                                          static_cast<bool>(wanted.allocated.status));
  model::Conditions troubles = before.conditions;
  set_troubles(troubles, wanted, d.in.wall_ms);
  if (!policy.status_damaged && same_place && same_allocated &&
      same(before.conditions, wanted.placed) && same(before.conditions, realised) &&
      troubles == before.conditions) {
    return;
  }
  if (!wanted.allocated.status && !same_allocated) {
    const auto kind =
        policy.meta.ns.empty() ? model::Kind::kEgressClusterPolicy : model::Kind::kEgressPolicy;
    d.notice(Notice::Level::kWarning, kind, policy.meta.key(), wanted.allocated.reason,
             wanted.allocated.message);
  }
  EgressPolicy out = policy;
  out.status.ipv4 = std::move(wanted.v4);
  out.status.ipv6 = std::move(wanted.v6);
  out.status.node = std::move(wanted.node);
  set_troubles(out.status.conditions, wanted, d.in.wall_ms);
  set_condition(out.status.conditions, std::move(wanted.allocated), d.in.wall_ms);
  set_condition(out.status.conditions, std::move(wanted.placed), d.in.wall_ms);
  set_condition(out.status.conditions, realised, d.in.wall_ms);
  d.policies.emplace_back(WritePolicy{std::move(out)});
}

// What becomes of the packets of a policy without EIP, as compile has it.
std::string_view fate_without_eip(const Draft& d, const GatewayDraft* g,
                                  const EgressPolicy& policy) {
  const auto fails = [&](bool on, bool v6) {
    if (!on || !names(policy, v6)) return false;
    return g == nullptr || policy.spec.egress_ip.use_node_ip || has_pool(*g->gateway, v6);
  };
  if (!fails(d.settings.enable_ipv4, false) && !fails(d.settings.enable_ipv6, true)) {
    return "its packets are left alone and leave with the source that they have without a policy";
  }
  return policy.spec.failure_policy == model::FailurePolicy::kDrop
             ? "its packets are dropped (failurePolicy Drop)"
             : "its packets leave with their node's address (failurePolicy NodeIP)";
}

void finish_without_eip(Draft& d, const GatewayDraft* g, const Outcome& o) {
  const EgressPolicy& policy = *o.policy;
  Wanted wanted;
  wanted.allocated = {"Allocated", false, std::string(o.reason), o.message, 0};
  wanted.placed = {"Placed", false, "NotAllocated", std::string(kNoEip), 0};
  if (policy.spec.dest_subnet.empty()) wanted.waits = d.prefixes_unknown;
  if (g != nullptr) wanted.uncovered = uncovered(d, *g->gateway, policy, nullptr);
  wanted.degraded = fmt::format(
      "{}; {}", o.message,
      wanted.waits.empty()
          ? fate_without_eip(d, g, policy)
          : "its packets are left alone, because the cluster's own prefixes are not known");
  write(d, policy, std::move(wanted));
}

void finish(Draft& d, const GatewayDraft* g, const Outcome& o) {
  if (o.entry == kNobody) return finish_without_eip(d, g, o);
  const Entry& e = g->entries[static_cast<std::size_t>(o.entry)];
  Wanted wanted{e.eip.ipv4,
                e.eip.ipv6,
                {},
                {"Allocated", true, "Allocated", "", 0},
                {"Placed", true, "Placed", "", 0},
                {},
                uncovered(d, *g->gateway, *o.policy, &e),
                o.policy->spec.dest_subnet.empty() ? d.prefixes_unknown : std::string()};
  if (e.taken) {
    wanted.placed = {"Placed", false, "PoolConflict", g->pool_conflict, 0};
  } else if (e.owner == kNobody) {
    wanted.placed = {"Placed", false, "NoReadyNode", "no node of the gateway can take the EIP", 0};
  } else {
    const NodeView& owner = d.node(e.owner);
    wanted.node = owner.name();
    if (!owner.ready) {
      wanted.placed = {"Placed", false, "OwnerNotReady",
                       "the EIP's node is not Ready and no other Ready node can take it", 0};
    }
  }
  if (!wanted.placed.status) {
    const bool own = o.policy->spec.failure_policy == model::FailurePolicy::kNodeIp;
    wanted.degraded = !own ? "its packets are dropped (failurePolicy Drop)"
                      : e.eip.unserved
                          ? "its packets leave with their node's address "
                            "(failurePolicy NodeIP)"
                          : "its packets are dropped until no Ready node has had the EIP for one "
                            "eipEvictionTimeout; then failurePolicy NodeIP acts";
  }
  write(d, *o.policy, std::move(wanted));
}

}  // namespace

// What a Ready node reports as realised includes everything up to there.
Condition realised_now(const Draft& d, const model::Conditions& before,
                       const model::ObjectMeta& meta, bool same_as_stored, bool is_something) {
  if (!is_something)
    return {"Realised", false, std::string(kNothingToProgram), std::string(kNoEip), 0};
  Condition out{"Realised", false, "Programming", "generation " + std::to_string(meta.generation),
                0};
  const Condition* c = find_condition(before, out.type);
  // What has changed gets its revision by this write; until then nobody can have programmed it.
  if (c == nullptr || !same_as_stored || c->message != out.message) return out;
  if (!c->status && (d.min_realised == 0 || d.min_realised < meta.revision)) return out;
  out.status = true;
  out.reason = "AllNodes";
  return out;
}

void finish_policies(Draft& d) {
  for (GatewayDraft& g : d.gateways) {
    if (g.held || g.quiet != nullptr) continue;
    const std::size_t before = d.policies.size();
    for (const Outcome& o : g.policies) finish(d, &g, o);
    g.policy_writes = d.policies.size() != before;
  }
  for (const Outcome& o : d.orphans) finish(d, nullptr, o);
}

}  // namespace egw::core::parts
