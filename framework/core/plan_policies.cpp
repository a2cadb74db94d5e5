// EgressPolicy.status: for people. Follows from the gateways' drafts; written only where it
// differs.
#include <utility>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

using model::Condition;
using model::EgressPolicy;

bool same(const model::Conditions& conditions, const Condition& wanted) {
  const Condition* c = find_condition(conditions, wanted.type);
  return c != nullptr && c->status == wanted.status && c->reason == wanted.reason &&
         c->message == wanted.message;
}

void write(Draft& d, const EgressPolicy& policy, const std::string& v4, const std::string& v6,
           const std::string& node, Condition allocated, Condition placed) {
  const EgressPolicy::Status& before = policy.status;
  const bool same_allocated = same(before.conditions, allocated);
  if (before.ipv4 == v4 && before.ipv6 == v6 && before.node == node && same_allocated &&
      same(before.conditions, placed)) {
    return;
  }
  if (!allocated.status && !same_allocated) {
    const auto kind =
        policy.meta.ns.empty() ? model::Kind::kEgressClusterPolicy : model::Kind::kEgressPolicy;
    d.notice(Notice::Level::kWarning, kind, policy.meta.key(), allocated.reason, allocated.message);
  }
  EgressPolicy out = policy;
  out.status.ipv4 = v4;
  out.status.ipv6 = v6;
  out.status.node = node;
  set_condition(out.status.conditions, std::move(allocated), d.in.wall_ms);
  set_condition(out.status.conditions, std::move(placed), d.in.wall_ms);
  d.policies.emplace_back(WritePolicy{std::move(out)});
}

void finish(Draft& d, const GatewayDraft* g, const Outcome& o) {
  if (o.entry == kNobody) {
    write(d, *o.policy, {}, {}, {}, {"Allocated", false, std::string(o.reason), o.message, 0},
          {"Placed", false, "NotAllocated", "", 0});
    return;
  }
  const Entry& e = g->entries[static_cast<std::size_t>(o.entry)];
  Condition placed{"Placed", true, "Placed", "", 0};
  std::string node;
  if (e.owner == kNobody) {
    placed = {"Placed", false, "NoReadyNode", "no node of the gateway can take the EIP", 0};
  } else {
    const NodeView& owner = d.node(e.owner);
    node = owner.name();
    if (!owner.ready) {
      placed = {"Placed", false, "OwnerNotReady",
                "the EIP's node is not Ready and no other Ready node can take it", 0};
    }
  }
  write(d, *o.policy, e.eip.ipv4, e.eip.ipv6, node, {"Allocated", true, "Allocated", "", 0},
        std::move(placed));
}

}  // namespace

void finish_policies(Draft& d) {
  for (const GatewayDraft& g : d.gateways) {
    if (g.held) continue;
    for (const Outcome& o : g.policies) finish(d, &g, o);
  }
  for (const Outcome& o : d.orphans) finish(d, nullptr, o);
}

}  // namespace egw::core::parts
