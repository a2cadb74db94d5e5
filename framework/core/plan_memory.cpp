// Gateways that need nothing as long as nothing changes for them. Most plans follow the change of
// one policy or one gateway; the others are recognised by a fingerprint of everything that decides
// about them, and left out of the passes.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

// splitmix64.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31U);
}

// Order counts.
void add(std::uint64_t& hash, std::uint64_t value) { hash = mix(hash ^ value); }

std::uint64_t nodes_fingerprint(const Draft& d) {
  std::uint64_t hash = 0;
  for (const NodeView& n : d.nodes) {
    add(hash, std::hash<std::string>{}(n.name()));
    for (const auto& [key, value] : n.node->meta.labels) {
      add(hash, std::hash<std::string>{}(key));
      add(hash, std::hash<std::string>{}(value));
    }
    add(hash, n.node->meta.labels.size());
    add(hash, static_cast<std::uint64_t>(n.phase) << 8U | (n.ready ? 1U : 0U) |
                  (n.stale ? 2U : 0U) | (n.unreachable ? 4U : 0U) | (n.draining ? 8U : 0U) |
                  (n.lost ? 16U : 0U) | (n.tunnel == nullptr ? 32U : 0U) |
                  (n.node->ready ? 64U : 0U));
    for (const model::Prefix& lost : n.lost_subnets) {
      add(hash, std::hash<model::Address>{}(lost.address()));
      add(hash, lost.length());
    }
  }
  add(hash, (d.suspect ? 1U : 0U) | (d.prefixes_unknown.empty() ? 0U : 2U));
  add(hash, d.in.term);
  for (const model::IpPool* taken : {&d.taken_v4, &d.taken_v6}) {
    for (const model::Range& r : taken->ranges()) {
      add(hash, std::hash<model::Address>{}(r.first));
      add(hash, std::hash<model::Address>{}(r.last));
    }
  }
  return hash;
}

bool has_settled(const model::Conditions& conditions) {
  const model::Condition* c = find_condition(conditions, "Realised");
  return c == nullptr || c->status || c->reason == kNothingToProgram;
}

// Nothing of the gateway waits for time, for an answer of the nodes, or for what others do.
bool is_quiet(const Draft& d, const GatewayDraft& g) {
  const model::EgressGateway& gateway = *g.gateway;
  const bool own = !g.held && !g.differs && !g.meta_write && !g.policy_writes && !g.no_id &&
                   !g.ids_changed && !g.moved && !g.overlaps && gateway.meta.deleted_ms == 0 &&
                   gateway.meta.revision != 0 && !gateway.spec.allowed_namespaces &&
                   !gateway.meta.annotations.contains(std::string(model::kMoveAnnotation)) &&
                   has_settled(gateway.status.conditions);
  return own &&
         std::all_of(g.entries.begin(), g.entries.end(),
                     [&](const Entry& e) {
                       return e.owner != kNobody && d.node(e.owner).ready && !e.bad_id &&
                              e.eip.moving_from.empty();
                     }) &&
         std::all_of(g.policies.begin(), g.policies.end(), [](const Outcome& o) {
           return o.policy->meta.revision != 0 && has_settled(o.policy->status.conditions);
         });
}

QuietGateway record(const GatewayDraft& g) {
  QuietGateway out;
  out.inputs = g.inputs;
  out.v4 = g.v4;
  out.v6 = g.v6;
  out.nodes = g.nodes;
  std::map<int, std::uint32_t> loads;
  for (const Entry& e : g.entries) {
    out.ids.push_back(e.eip.id);
    ++loads[e.owner];
  }
  out.loads.assign(loads.begin(), loads.end());
  return out;
}

void note_ids(Draft& d, const model::EgressGateway::Status& status) {
  for (const model::GatewayNode& node : status.node_list) {
    for (const model::EipStatus& eip : node.eips) d.ids.in_use(eip.id);
  }
  for (const model::EipStatus& eip : status.unplaced) d.ids.in_use(eip.id);
}

}  // namespace

void recall(Draft& d) {
  const std::size_t count = d.world.gateways.size();
  std::unordered_map<std::string_view, std::size_t> index;
  index.reserve(count);
  d.gateways.reserve(count);
  d.users.resize(count);
  for (const auto& [name, gateway] : d.world.gateways) {
    index.emplace(name, d.gateways.size());
    d.gateways.emplace_back().gateway = &gateway;
  }
  for (const auto& [key, policy] : d.world.policies) {
    const auto it = index.find(policy.spec.gateway);
    if (it != index.end()) {
      d.users[it->second].push_back(&policy);
      // Revisions are the store's: no two writes have the same.
      d.gateways[it->second].inputs += mix(policy.meta.revision);
      continue;
    }
    // It is there, and serves by what the agents know: the policy's status stays as it is.
    if (d.world.unreadable_gateways.contains(policy.spec.gateway)) continue;
    d.orphans.push_back({&policy, kNobody, "GatewayNotFound",
                         fmt::format("there is no EgressGateway \"{}\"", policy.spec.gateway)});
  }
  const std::uint64_t nodes = nodes_fingerprint(d);
  for (std::size_t i = 0; i < count; ++i) {
    GatewayDraft& g = d.gateways[i];
    if (d.memory != nullptr) {
      for (const std::uint64_t value : {g.gateway->meta.revision, d.users[i].size(), nodes}) {
        add(g.inputs, value);
      }
      const auto known = d.memory->quiet.find(g.gateway->meta.name);
      if (known != d.memory->quiet.end() && known->second.inputs == g.inputs) {
        g.quiet = &known->second;
      }
    }
    if (g.quiet == nullptr) {
      note_ids(d, g.gateway->status);
    } else {
      for (const std::uint32_t id : g.quiet->ids) d.ids.in_use(id);
    }
  }
  for (const auto& [name, gateway] : d.world.unreadable_gateways) note_ids(d, gateway.status);
}

void remember(Draft& d) {
  if (d.memory == nullptr) return;
  auto& quiet = d.memory->quiet;
  for (const GatewayDraft& g : d.gateways) {
    if (g.quiet != nullptr) continue;
    if (is_quiet(d, g)) {
      quiet[g.gateway->meta.name] = record(g);
    } else {
      quiet.erase(g.gateway->meta.name);
    }
  }
  if (quiet.size() <= d.world.gateways.size()) return;
  std::erase_if(quiet, [&](const auto& q) { return !d.world.gateways.contains(q.first); });
}

}  // namespace egw::core::parts
