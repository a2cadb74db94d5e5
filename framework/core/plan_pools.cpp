// The gateways' drafts: which nodes a gateway selects and which addresses it may give: those that
// it lists without what others have (of the cluster itself: plan_taken.cpp). Two gateways with an
// address in common were stored at once past admission: the younger loses it, unless it is the one
// that has already given it (decision: two writers at once cannot both pass).
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

using model::Address;
using model::Family;
using model::IpPool;

// Selectors are few and gateways many: each different selector is matched once.
class SelectorCache {
 public:
  explicit SelectorCache(const Draft& d) : d_(d) {}

  const std::vector<int>& match(const model::LabelSelector& selector) {
    const auto [it, first] = known_.try_emplace(text(selector));
    if (first && !selector.empty()) {  // an empty nodeSelector selects nothing
      for (std::size_t i = 0; i < d_.nodes.size(); ++i) {
        if (selector.matches(d_.nodes[i].node->meta.labels)) {
          it->second.push_back(static_cast<int>(i));
        }
      }
    }
    return it->second;
  }

 private:
  static std::string text(const model::LabelSelector& selector) {
    std::string out;
    for (const model::Requirement& r : selector.requirements) {
      out += r.key;
      out += static_cast<char>('0' + static_cast<int>(r.op));
      for (const std::string& v : r.values) out += '=' + v;
      out += ';';
    }
    return out;
  }

  const Draft& d_;
  std::unordered_map<std::string, std::vector<int>> known_;
};

void read_pools(GatewayDraft& g) {
  std::vector<Error> errors;
  const model::IpPools& pools = g.gateway->spec.ippools;
  g.v4 = IpPool::parse_valid(Family::kV4, pools.ipv4, "spec.ippools.ipv4", &errors);
  g.v6 = IpPool::parse_valid(Family::kV6, pools.ipv6, "spec.ippools.ipv6", &errors);
  g.total_v4 = g.v4.count();
  g.total_v6 = g.v6.count();
  if (!errors.empty()) g.pool_problem = errors.front().to_string();
}

bool is_older(const GatewayDraft* a, const GatewayDraft* b) {
  const model::ObjectMeta& x = a->gateway->meta;
  const model::ObjectMeta& y = b->gateway->meta;
  return std::tie(x.created_ms, x.name) < std::tie(y.created_ms, y.name);
}

// The cluster has one default: the oldest of those that say so.
void settle_defaults(Draft& d) {
  std::vector<GatewayDraft*> defaults;
  for (GatewayDraft& g : d.gateways) {
    if (g.gateway->spec.cluster_default) defaults.push_back(&g);
  }
  if (defaults.size() < 2) return;
  std::sort(defaults.begin(), defaults.end(), is_older);
  for (GatewayDraft* g : defaults) {
    wake_gateway(d, *g);
    g->overlaps = true;
    if (g == defaults.front()) continue;
    g->default_conflict = fmt::format(
        "EgressGateway {} is the cluster's default and is older; policies that name no gateway get "
        "that one: take clusterDefault from one of the two",
        defaults.front()->gateway->meta.name);
  }
}

// Gateways with an address in common with another one, by one sweep over all intervals.
std::vector<GatewayDraft*> overlapping(Draft& d) {
  struct Piece {
    model::Range range;
    GatewayDraft* owner;
  };
  std::vector<Piece> pieces;
  for (GatewayDraft& g : d.gateways) {
    for (const IpPool* pool : {&g.v4, &g.v6}) {
      for (const model::Range& r : pool->ranges()) pieces.push_back({r, &g});
    }
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.range.first < b.range.first; });
  std::vector<GatewayDraft*> out;
  const Piece* widest = nullptr;  // of those begun, the one that ends last
  for (const Piece& p : pieces) {
    if (widest != nullptr && widest->range.first.family() == p.range.first.family() &&
        p.range.first <= widest->range.last) {
      out.push_back(widest->owner);
      out.push_back(p.owner);
    }
    if (widest == nullptr || widest->range.last < p.range.last ||
        widest->range.first.family() != p.range.first.family()) {
      widest = &p;
    }
  }
  std::sort(out.begin(), out.end(), is_older);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

template <class F>
void each_recorded_address(const model::EgressGateway& gateway, F&& f) {
  const auto visit = [&](const model::EipStatus& eip) {
    for (const std::string* text : {&eip.ipv4, &eip.ipv6}) {
      if (text->empty()) continue;
      if (const auto address = Address::parse(*text)) f(*address);
    }
  };
  for (const model::GatewayNode& node : gateway.status.node_list) {
    for (const model::EipStatus& eip : node.eips) visit(eip);
  }
  for (const model::EipStatus& eip : gateway.status.unplaced) visit(eip);
}

IpPool with(const IpPool& a, const IpPool& b) {
  std::vector<model::Range> ranges = a.ranges();
  ranges.insert(ranges.end(), b.ranges().begin(), b.ranges().end());
  return IpPool::of(a.family(), std::move(ranges));
}

// What a gateway lists, whatever it may give of it.
struct Listed {
  GatewayDraft* gateway;
  IpPool v4, v6;
  [[nodiscard]] bool contains(const Address& a) const { return v4.contains(a) || v6.contains(a); }
};

using Given = std::unordered_map<Address, GatewayDraft*>;  // the elder of those that have given it

// Why the last gateway of the list may not give an address of its own.
std::string conflict_of(const std::vector<Listed>& elders_and_own, const Given& given) {
  const Listed& own = elders_and_own.back();
  const IpPool lost4 = own.v4.minus(own.gateway->v4);
  const IpPool lost6 = own.v6.minus(own.gateway->v6);
  if (lost4.empty() && lost6.empty()) return {};
  const Address a = lost4.empty() ? lost6.first() : lost4.first();
  const auto giver = given.find(a);
  const bool is_given = giver != given.end();
  const GatewayDraft* other =
      is_given ? giver->second
               : std::find_if(elders_and_own.begin(), elders_and_own.end(), [&](const Listed& l) {
                   return l.contains(a);
                 })->gateway;
  return fmt::format(
      "{} is in the pool of EgressGateway {} too, which {}; this one does not give it: take it out "
      "of one of the two",
      a.to_string(), other->gateway->meta.name, is_given ? "has given it already" : "is older");
}

void settle_overlaps(const std::vector<GatewayDraft*>& gateways) {
  Given given;
  for (GatewayDraft* g : gateways) {
    each_recorded_address(*g->gateway, [&](const Address& a) {
      if (g->v4.contains(a) || g->v6.contains(a)) given.emplace(a, g);
    });
  }
  std::vector<Listed> listed;
  IpPool taken4(Family::kV4);
  IpPool taken6(Family::kV6);
  for (GatewayDraft* g : gateways) {
    listed.push_back({g, g->v4, g->v6});
    const Listed& own = listed.back();
    g->v4 = own.v4.minus(taken4);
    g->v6 = own.v6.minus(taken6);
    taken4 = with(taken4, own.v4);
    taken6 = with(taken6, own.v6);
    for (const auto& [a, owner] : given) {
      IpPool& pool = a.is_v4() ? g->v4 : g->v6;
      if (owner != g) {
        pool.erase(a);
      } else if (own.contains(a)) {
        pool.insert(a);
      }
    }
    g->pool_conflict = conflict_of(listed, given);
  }
}

bool has_given(const model::EgressGateway& gateway, const Address& address) {
  bool found = false;
  each_recorded_address(gateway, [&](const Address& a) { found = found || a == address; });
  return found;
}

// Agents go on with the last version that they could read.
void leave_unreadable(Draft& d) {
  for (const auto& [name, unreadable] : d.world.unreadable_gateways) {
    each_recorded_address(unreadable, [&, &holder = name](const Address& a) {
      for (GatewayDraft& g : d.gateways) {
        if (!(a.is_v4() ? g.v4 : g.v6).contains(a) || has_given(*g.gateway, a)) continue;
        wake_gateway(d, g);
        g.overlaps = true;
        (a.is_v4() ? g.v4 : g.v6).erase(a);
        g.pool_conflict = fmt::format(
            "{} is held by EgressGateway {}, which cannot be read; this one does not give it: mend "
            "that one, or take it out of this one",
            a.to_string(), holder);
      }
    });
  }
}

}  // namespace

void draft_gateways(Draft& d) {
  SelectorCache selectors(d);
  for (GatewayDraft& g : d.gateways) {
    g.round_robin_last = g.gateway->status.round_robin_last;
    if (g.quiet != nullptr) {
      g.nodes = g.quiet->nodes;
      g.v4 = g.quiet->v4;
      g.v6 = g.quiet->v6;
    } else {
      g.nodes = selectors.match(g.gateway->spec.node_selector);
      read_pools(g);
    }
  }
  const std::vector<GatewayDraft*> together = overlapping(d);
  for (GatewayDraft* g : together) {
    wake_gateway(d, *g);
    g->overlaps = true;
  }
  settle_overlaps(together);
  leave_unreadable(d);
  for (GatewayDraft& g : d.gateways) {
    if (g.quiet == nullptr) leave_taken(d, g);
  }
  settle_defaults(d);
}

void wake_gateway(const Draft& d, GatewayDraft& g) {
  if (g.quiet == nullptr) return;
  g.quiet = nullptr;
  g.nodes = SelectorCache(d).match(g.gateway->spec.node_selector);
  read_pools(g);
}

}  // namespace egw::core::parts
