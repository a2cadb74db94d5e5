// Placement: which node owns each EIP. An EIP stays where it is unless its owner is lost and
// another node can take it, or the owner left the selector or is gone, or a person wants it
// elsewhere. What has to move goes to the node with the fewest EIPs,
// ties by name.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

enum class Verdict : std::uint8_t { kStay, kMoveIfPossible, kMustLeave, kNew };

std::string_view why_lost(const NodeView& n) {
  if (n.unreachable) return "TunnelUnreachable";
  return n.node->ready ? to_string(n.phase) : to_string(model::TunnelPhase::kNodeNotReady);
}

Verdict judge(const Draft& d, const GatewayDraft& g, Entry& e) {
  if (e.owner_before.empty()) return Verdict::kNew;
  const int owner = d.find_node(e.owner_before);
  if (owner == kNobody) {
    e.why = "NodeDeleted";
    return Verdict::kMustLeave;
  }
  const NodeView& node = d.node(owner);
  const bool alive = node.ready && !node.stale;
  if (e.taken) {
    e.why = "PoolConflict";
    return Verdict::kMustLeave;
  }
  if (!std::binary_search(g.nodes.begin(), g.nodes.end(), owner)) {
    e.why = "NodeNotSelected";
    e.planned = alive;
    return Verdict::kMustLeave;
  }
  e.owner = owner;
  if (e.request != kNobody && e.request != owner) {
    e.why = "Requested";
    e.planned = alive;
    return Verdict::kMoveIfPossible;
  }
  if (node.lost) {
    e.why = why_lost(node);
    return Verdict::kMoveIfPossible;
  }
  if (node.draining) {
    e.why = "Drain";
    e.planned = alive;
    return Verdict::kMoveIfPossible;
  }
  if (!node.reaches(e.eip)) {
    e.why = "SubnetLost";
    return Verdict::kMoveIfPossible;
  }
  return Verdict::kStay;
}

// The former owner of a planned move still answers: for how long.
void end_planned_move(Draft& d, const GatewayDraft& g, Entry& e) {
  if (e.eip.moving_from.empty()) return;
  const int from = d.find_node(e.eip.moving_from);
  const auto known = d.in.moving.find({g.gateway->meta.name, e.eip.id, e.eip.epoch});
  const std::int64_t since = known == d.in.moving.end() ? d.in.now_ms : known->second;
  const bool everybody_knows = d.min_realised != 0 && d.min_realised >= g.gateway->meta.revision;
  if (from == kNobody || !d.node(from).ready || from == e.owner || everybody_knows ||
      d.in.now_ms - since >= kPlannedMoveMs) {
    e.eip.moving_from.clear();
  } else {
    d.wake_at(since + kPlannedMoveMs);
  }
}

std::int64_t silence_of(const Draft& d, const std::string& node) {
  const auto seen = d.in.heartbeats.find(node);
  return seen == d.in.heartbeats.end() ? -1 : d.in.now_ms - seen->second.changed_ms;
}

std::int64_t unserved_for(const Draft& d, const GatewayDraft& g, const Entry& e) {
  const auto since = d.in.unserved.find({g.gateway->meta.name, e.eip.id});
  return since == d.in.unserved.end() ? 0 : d.in.now_ms - since->second;
}

void record(Draft& d, GatewayDraft& g, Move move) {
  const bool placed = !move.to.empty();
  std::string text =
      placed ? fmt::format("{} moves from {} to {}: {}", move.eip, move.from, move.to, move.why)
             : fmt::format("{} leaves {}: {}; no other node can take it now", move.eip, move.from,
                           move.why);
  d.notice(placed ? Notice::Level::kInfo : Notice::Level::kWarning, model::Kind::kEgressGateway,
           g.gateway->meta.key(), placed ? "EipMoved" : "EipUnplaced", std::move(text));
  g.moves.push_back(d.out.moves.size());
  d.out.moves.push_back(std::move(move));
}

// Nobody owns it from now on.
void unplace(Draft& d, GatewayDraft& g, Entry& e) {
  e.owner = kNobody;
  e.eip.moving_from.clear();
  if (e.owner_before.empty()) return;
  e.eip.left_node = e.owner_before;
  e.eip.left_why = e.why;
  record(d, g,
         {g.gateway->meta.name, eip_text(e.eip), e.eip.left_node, "", e.eip.left_why, e.eip.epoch,
          false, silence_of(d, e.eip.left_node), unserved_for(d, g, e)});
}

void settle(Draft& d, GatewayDraft& g, Entry& e, int target) {
  // Of one that was unplaced the last owner counts.
  const std::string from(e.owner_before.empty() ? e.eip.left_node : e.owner_before);
  const std::string why(e.owner_before.empty() ? e.eip.left_why : e.why);
  e.eip.left_node.clear();
  e.eip.left_why.clear();
  e.owner = target;
  ++d.node(target).load;
  ++e.eip.epoch;
  e.eip.moving_from = e.planned ? from : std::string();
  g.moved = true;
  if (from.empty()) return;  // placed for the first time: not a move
  record(d, g,
         {g.gateway->meta.name, eip_text(e.eip), from, d.node(target).name(), why, e.eip.epoch,
          e.planned, silence_of(d, from), unserved_for(d, g, e)});
}

struct Mover {
  GatewayDraft* gateway;
  Entry* entry;
  Verdict verdict;
};

void move(Draft& d, const Mover& m) {
  Entry& e = *m.entry;
  const int target = e.taken ? kNobody
                     : e.request != kNobody && e.request != e.owner
                         ? e.request
                         : best_node(d, *m.gateway, e.eip);
  if (target != kNobody && target != e.owner) {
    settle(d, *m.gateway, e, target);
    return;
  }
  if (m.verdict != Verdict::kMoveIfPossible) {
    unplace(d, *m.gateway, e);
    return;
  }
  ++d.node(e.owner).load;
  end_planned_move(d, *m.gateway, e);
}

// failurePolicy: NodeIP acts when the EIP has had no Ready owner for one timeout and
// nobody else can take it, whether it has an owner or never had one. Agents read it in the
// gateway's status; the time stands there for the next leader.
void judge_service(Draft& d, const GatewayDraft& g, Entry& e) {
  if (d.suspect) return;
  const bool placed = e.owner != kNobody && d.node(e.owner).ready;
  if (placed || (!e.taken && best_node(d, g, e.eip) != kNobody)) {
    e.eip.unserved = false;
    e.eip.unserved_since_ms = 0;
    return;
  }
  if (e.eip.unserved_since_ms == 0) e.eip.unserved_since_ms = d.in.wall_ms;
  if (e.eip.unserved) return;
  const std::int64_t acts_at =
      d.in.now_ms - unserved_for(d, g, e) + d.settings.eip_eviction_timeout.count();
  e.eip.unserved = d.in.now_ms >= acts_at;
  if (!e.eip.unserved) d.wake_at(acts_at);
}

}  // namespace

bool NodeView::reaches(const model::EipStatus& eip) const {
  if (lost_subnets.empty()) return true;
  const auto inside = [this](const std::string& text) {
    const auto address = model::Address::parse(text);
    return address && std::any_of(lost_subnets.begin(), lost_subnets.end(),
                                  [&](const auto& subnet) { return subnet.contains(*address); });
  };
  return !inside(eip.ipv4) && !inside(eip.ipv6);
}

int best_node(const Draft& d, const GatewayDraft& g, const model::EipStatus& eip) {
  int best = kNobody;
  for (const int i : g.nodes) {  // in the order of names
    if (!d.node(i).may_take() || !d.node(i).reaches(eip)) continue;
    if (best == kNobody || d.node(i).load < d.node(best).load) best = i;
  }
  return best;
}

bool will_move(const Draft& d, GatewayDraft& g) {
  return std::any_of(g.entries.begin(), g.entries.end(), [&](Entry& e) {
    if (!e.eip.moving_from.empty()) return true;
    const Verdict verdict = judge(d, g, e);
    return verdict == Verdict::kMustLeave ||
           (verdict != Verdict::kStay && !e.taken && best_node(d, g, e.eip) != kNobody);
  });
}

void place(Draft& d) {
  std::vector<Mover> movers;
  for (GatewayDraft& g : d.gateways) {
    if (g.quiet != nullptr) {
      for (const auto& [node, eips] : g.quiet->loads) d.node(node).load += eips;
      continue;
    }
    for (Entry& e : g.entries) {
      const Verdict verdict = judge(d, g, e);
      if (verdict == Verdict::kStay) {
        ++d.node(e.owner).load;
        end_planned_move(d, g, e);
      } else {
        movers.push_back({&g, &e, verdict});
      }
    }
  }
  for (const Mover& m : movers) move(d, m);
  for (GatewayDraft& g : d.gateways) {
    for (Entry& e : g.entries) judge_service(d, g, e);
  }
}

}  // namespace egw::core::parts
