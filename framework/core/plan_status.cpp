// EgressGateway.status as decided, its conditions, and the metadata that follows: the finalizer of
// a gateway that nobody uses any more, the annotation of a request that is answered.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

using model::Condition;
using model::Conditions;
using model::EgressGateway;
using model::Kind;

void sort_entries(std::vector<Entry*>& entries) {
  std::sort(entries.begin(), entries.end(), [](const Entry* a, const Entry* b) {
    return std::tie(a->v4, a->v6, a->eip.id) < std::tie(b->v4, b->v6, b->eip.id);
  });
}

void list_nodes(const Draft& d, GatewayDraft& g) {
  std::map<int, std::vector<Entry*>> by_owner;
  for (Entry& e : g.entries) by_owner[e.owner].push_back(&e);
  EgressGateway::Status& s = g.status;
  s.node_list.reserve(g.nodes.size());
  for (const int i : g.nodes) {
    const NodeView& n = d.node(i);
    model::GatewayNode& node = s.node_list.emplace_back();
    node.name = n.name();
    node.status = n.unreachable                ? "Unreachable"
                  : n.node->ready || d.suspect ? to_string(n.phase)
                                               : to_string(model::TunnelPhase::kNodeNotReady);
    const auto entries = by_owner.find(i);
    if (entries == by_owner.end()) continue;
    sort_entries(entries->second);
    for (const Entry* e : entries->second) node.eips.push_back(e->eip);
  }
  std::vector<Entry*>& unplaced = by_owner[kNobody];
  sort_entries(unplaced);
  for (const Entry* e : unplaced) s.unplaced.push_back(e->eip);
}

std::int64_t left(std::int64_t count, std::int64_t used) {
  return count == std::numeric_limits<std::int64_t>::max()
             ? count
             : std::max<std::int64_t>(0, count - used);
}

void count_addresses(GatewayDraft& g) {
  std::int64_t used4 = 0;
  std::int64_t used6 = 0;
  for (const Entry& e : g.entries) {
    used4 += g.v4.contains(e.v4) ? 1 : 0;
    used6 += g.v6.contains(e.v6) ? 1 : 0;
  }
  g.status.ip_usage = {g.total_v4, left(g.v4.count(), used4), g.total_v6,
                       left(g.v6.count(), used6)};
}

// ---- conditions ------------------------------------------------------------------------------

// There while `message` is not empty.
void set_or_remove(Conditions& conditions, std::string_view type, std::string_view reason,
                   std::string message, std::int64_t wall_ms) {
  if (message.empty()) {
    remove_condition(conditions, type);
  } else {
    set_condition(conditions, {std::string(type), true, std::string(reason), std::move(message), 0},
                  wall_ms);
  }
}

Condition readiness(const Draft& d, const GatewayDraft& g) {
  if (g.nodes.empty()) {
    return {"Ready", false, "NoNodeSelected", "spec.nodeSelector matches no node", 0};
  }
  const bool ready =
      std::any_of(g.nodes.begin(), g.nodes.end(), [&](int i) { return d.node(i).ready; });
  if (!ready) return {"Ready", false, "NoNodeReady", "no selected node is Ready", 0};
  return {"Ready", true, "NodeReady", "", 0};
}

std::string without_owner(const Draft& d, const GatewayDraft& g) {
  std::vector<std::string> eips;
  bool unserved = false;
  for (const Entry& e : g.entries) {
    if (e.taken) continue;  // PoolConflict
    unserved = unserved || e.eip.unserved;
    if (e.owner == kNobody) {
      eips.push_back(eip_text(e.eip));
    } else if (!d.node(e.owner).ready) {
      eips.push_back(fmt::format("{} on {}", eip_text(e.eip), d.node(e.owner).name()));
    }
  }
  if (eips.empty()) return {};
  return fmt::format(
      "no other Ready node can take {}{}", some_of(eips),
      unserved ? "; policies with failurePolicy NodeIP use their node's address now" : "");
}

// What agents program is as it was; a planned move that has ended needs nothing new.
bool same_egresses(const EgressGateway::Status& a, const EgressGateway::Status& b) {
  using Row = std::tuple<std::string, std::uint32_t, std::uint64_t, std::string, std::string, bool,
                         std::vector<model::PolicyRef>>;
  const auto rows = [](const EgressGateway::Status& s) {
    std::vector<Row> out;
    const auto add = [&out](const std::string& node, const std::vector<model::EipStatus>& eips) {
      for (const model::EipStatus& e : eips) {
        out.emplace_back(node, e.id, e.epoch, e.ipv4, e.ipv6, e.unserved, e.policies);
      }
    };
    for (const model::GatewayNode& node : s.node_list) add(node.name, node.eips);
    add({}, s.unplaced);
    return out;
  };
  return a.node_list == b.node_list && a.unplaced == b.unplaced ? true : rows(a) == rows(b);
}

// The first trouble that keeps policies from what they are promised.
Condition degraded(const Conditions& conditions) {
  for (const char* type : {"OwnerNotReady", "NoEgressId", "PoolConflict", "InvalidPool"}) {
    const Condition* c = find_condition(conditions, type);
    if (c != nullptr && c->status) return {"Degraded", true, c->type, c->message, 0};
  }
  return {"Degraded", false, "", "", 0};
}

std::string users(const GatewayDraft& g) {
  if (g.gateway->meta.deleted_ms == 0 || g.policies.empty()) return {};
  std::vector<std::string> names;
  for (const Outcome& o : g.policies) names.push_back(o.policy->meta.key().to_string());
  std::sort(names.begin(), names.end());
  return fmt::format("waits until these policies are gone: {}", some_of(names));
}

// Finalizers of others, when nothing else holds it.
std::string holders(const GatewayDraft& g) {
  std::vector<std::string> names = g.gateway->meta.finalizers;
  std::erase(names, model::kGatewayFinalizer);
  if (g.gateway->meta.deleted_ms == 0 || !g.policies.empty() || names.empty()) return {};
  return fmt::format("waits until these finalizers are taken off: {}", some_of(names));
}

void record_moves(const Draft& d, const GatewayDraft& g, Conditions& conditions) {
  struct Way {
    std::vector<std::string> eips;
    std::int64_t unserved_ms = 0;  // the longest
  };
  std::map<std::string, Way> by_way;
  for (const std::size_t i : g.moves) {
    const Move& m = d.out.moves[i];
    const std::string to = m.to.empty() ? "no node" : m.to;
    Way& way = by_way[fmt::format("from {} to {} ({}", m.from, to, m.why)];
    way.eips.push_back(m.eip);
    way.unserved_ms = std::max(way.unserved_ms, m.unserved_ms);
  }
  std::string message;
  for (const auto& [text, way] : by_way) {
    if (!message.empty()) message += "; ";
    message += some_of(way.eips) + " " + text;
    if (way.unserved_ms > 0) message += fmt::format(", unserved for {} ms", way.unserved_ms);
    message += ")";
    if (message.size() > 1000) break;
  }
  if (message.empty()) return;
  // Each batch of moves is news: the time is that of the last one.
  remove_condition(conditions, "LastMove");
  set_condition(conditions, {"LastMove", true, "EipMoved", std::move(message), 0}, d.in.wall_ms);
}

void set_conditions(Draft& d, GatewayDraft& g) {
  Conditions& c = g.status.conditions;
  const std::int64_t wall = d.in.wall_ms;
  set_condition(c, readiness(d, g), wall);
  set_or_remove(c, "OwnerNotReady", "OwnerNotReady", without_owner(d, g), wall);
  set_or_remove(c, "InvalidPool", "InvalidPool", g.pool_problem, wall);
  if (const Condition* told = find_condition(c, "PoolConflict");
      !g.pool_conflict.empty() && (told == nullptr || told->message != g.pool_conflict)) {
    d.notice(Notice::Level::kWarning, Kind::kEgressGateway, g.gateway->meta.key(), "PoolConflict",
             g.pool_conflict);
  }
  set_or_remove(c, "PoolConflict", "PoolConflict", g.pool_conflict, wall);
  set_or_remove(c, "DefaultConflict", "DefaultConflict", g.default_conflict, wall);
  set_or_remove(c, "NoEgressId", "NoEgressId",
                g.no_id ? "no egress id is free; see EgressClusterInfo default" : "", wall);
  const std::string used = users(g);
  set_or_remove(c, "Deleting", used.empty() ? "HeldByFinalizers" : "InUse",
                used.empty() ? holders(g) : used, wall);
  const Condition trouble = degraded(c);
  set_or_remove(c, "Degraded", trouble.reason, trouble.message, wall);
  if (g.entries.empty()) {
    remove_condition(c, "Realised");
  } else {
    const EgressGateway::Status& before = g.gateway->status;
    set_condition(
        c,
        realised_now(d, before.conditions, g.gateway->meta, same_egresses(before, g.status), true),
        wall);
  }
  record_moves(d, g, c);
  if (g.answer) {
    remove_condition(c, g.answer->type == "MoveDone" ? "MoveRefused" : "MoveDone");
    set_condition(c, *g.answer, wall);
  }
}

void finish_meta(Draft& d, GatewayDraft& g) {
  const model::ObjectMeta& meta = g.gateway->meta;
  SetMeta set{Kind::kEgressGateway, meta.key(), meta.revision, meta.finalizers, meta.annotations};
  bool changed = g.answer && set.annotations.erase(std::string(model::kMoveAnnotation)) > 0;
  if (meta.deleted_ms != 0 && g.policies.empty()) {
    changed = std::erase(set.finalizers, model::kGatewayFinalizer) > 0 || changed;
  }
  // One that admission has not seen, or that an uninstall has let go.
  if (meta.deleted_ms == 0 && std::find(set.finalizers.begin(), set.finalizers.end(),
                                        model::kGatewayFinalizer) == set.finalizers.end()) {
    set.finalizers.emplace_back(model::kGatewayFinalizer);
    changed = true;
  }
  g.meta_write = changed;
  if (changed) d.metas.emplace_back(std::move(set));
}

}  // namespace

void finish_gateways(Draft& d) {
  for (GatewayDraft& g : d.gateways) {
    if (g.held || g.quiet != nullptr) continue;
    const EgressGateway::Status& before = g.gateway->status;
    g.status.term = d.in.term;
    g.status.round_robin_last = g.round_robin_last;
    g.status.conditions = before.conditions;
    list_nodes(d, g);
    count_addresses(g);
    set_conditions(d, g);
    g.differs = g.status != before || g.gateway->status_damaged;
    // Metadata carries the revision in the world, so it waits until the status is written.
    if (!g.differs) finish_meta(d, g);
  }
}

}  // namespace egw::core::parts
