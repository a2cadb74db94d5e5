// Allocation: which EIP each policy gets. What a policy has it keeps while that is still its due;
// then policies that share (default or by name), oldest first; then round-robin ones, oldest first.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "egw/core/plan_pairs.hpp"
#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

using model::Address;
using model::EgressPolicy;
using model::EipStatus;

constexpr std::string_view kNoEgressId = "no egress id is free; see EgressClusterInfo default";

// Where the status has a policy.
struct Recorded {
  int entry = kNobody;
  std::string_view uid;  // into the world
};

Address parse_or_none(const std::string& text) {
  if (text.empty()) return {};
  const auto address = Address::parse(text);
  return address ? *address : Address{};
}

// One gateway's EIPs.
class Allocator {
 public:
  Allocator(Draft& d, GatewayDraft& g, std::vector<bool>& ids_seen)
      : d_(d),
        g_(g),
        pairs_(g.v4, g.v6, parse_or_none(g.gateway->spec.ippools.ipv4_default_eip),
               parse_or_none(g.gateway->spec.ippools.ipv6_default_eip), d.settings.enable_ipv4) {
    for (const model::GatewayNode& n : g.gateway->status.node_list) {
      for (const EipStatus& eip : n.eips) read_entry(eip, n.name, ids_seen);
    }
    for (const EipStatus& eip : g.gateway->status.unplaced) read_entry(eip, {}, ids_seen);
    complete_pairs();
  }

  void run(std::vector<const EgressPolicy*>& policies);

 private:
  struct Answer {
    int entry = kNobody;
    std::string_view reason;
    std::string message;
  };
  static Answer no(std::string_view reason, std::string message) {
    return {kNobody, reason, std::move(message)};
  }

  void read_entry(const EipStatus& eip, std::string_view owner, std::vector<bool>& ids_seen);
  void complete_pairs();
  [[nodiscard]] bool namespace_allowed(const EgressPolicy& p) const;
  // The entry that the policy has and keeps; kNobody: it has none, or is due another.
  [[nodiscard]] int kept_entry(const EgressPolicy& p) const;
  [[nodiscard]] int find(const Address& a) const {
    const auto it = by_address_.find(a);
    return it == by_address_.end() ? kNobody : it->second;
  }
  void join(const EgressPolicy& p, int entry);
  Answer refuse(const EgressPolicy& p) const;
  Answer share(const EgressPolicy& p);
  Answer by_name(const EgressPolicy& p);
  Answer by_default();
  Answer node_address();
  Answer round_robin();
  [[nodiscard]] Answer empty_pool() const;
  Answer make(const Pair& pair, bool use_node_ip);
  Answer not_in_pool(const Address& a, const std::string& text) const;
  void free_vacant();
  void drop_vacant();

  Draft& d_;
  GatewayDraft& g_;
  PairSpace pairs_;
  std::unordered_map<Address, int> by_address_;
  std::unordered_map<model::Key, Recorded, model::KeyHash> recorded_;
  std::vector<std::uint32_t> dropped_ids_;
  int node_entry_ = kNobody;
  std::size_t served_ = 0;
};

void Allocator::read_entry(const EipStatus& eip, std::string_view owner,
                           std::vector<bool>& ids_seen) {
  Entry e;
  e.eip.id = eip.id;
  e.bad_id = eip.id == 0 || eip.id > kMaxEgressId || ids_seen[eip.id];
  const auto drop = [&] {
    if (!e.bad_id) dropped_ids_.push_back(eip.id);
  };
  if (!e.bad_id) ids_seen[eip.id] = true;
  e.v4 = parse_or_none(eip.ipv4);
  e.v6 = parse_or_none(eip.ipv6);
  e.recorded = true;
  e.owner_before = owner;
  e.eip.epoch = eip.epoch;
  e.eip.moving_from = eip.moving_from;
  e.eip.unserved_since_ms = eip.unserved_since_ms;
  e.eip.unserved = eip.unserved;
  e.eip.left_node = eip.left_node;
  e.eip.left_why = eip.left_why;
  e.eip.use_node_ip = eip.use_node_ip;
  const int index = static_cast<int>(g_.entries.size());
  if (eip.use_node_ip) {
    if (node_entry_ != kNobody) return drop();
    e.v4 = e.v6 = {};
    node_entry_ = index;
  } else {
    e.taken = g_.taken_v4.contains(e.v4) || g_.taken_v6.contains(e.v6);
    const auto of_pool = [](const Address& a, const model::IpPool& free,
                            const model::IpPool& taken) {
      return !a || free.contains(a) || taken.contains(a);
    };
    const bool fits = (e.v4 || e.v6) && of_pool(e.v4, g_.v4, g_.taken_v4) &&
                      of_pool(e.v6, g_.v6, g_.taken_v6) && find(e.v4) == kNobody &&
                      find(e.v6) == kNobody;
    if (!fits) return drop();
    if (e.v4) by_address_.emplace(e.v4, index);
    if (e.v6) by_address_.emplace(e.v6, index);
    pairs_.take({e.v4, e.v6});
    e.eip.ipv4 = e.v4.to_string();
    e.eip.ipv6 = e.v6.to_string();
  }
  for (const model::PolicyRef& ref : eip.policies) {
    recorded_.emplace(model::Key{ref.ns, ref.name}, Recorded{index, ref.uid});
  }
  g_.entries.push_back(std::move(e));
}

// An EIP of a time when there were fewer addresses of the other family (it was switched off) gets
// its partner as soon as there is one.
void Allocator::complete_pairs() {
  if (!d_.settings.enable_ipv4 || !d_.settings.enable_ipv6) return;
  for (std::size_t i = 0; i < g_.entries.size(); ++i) {
    Entry& e = g_.entries[i];
    if (e.eip.use_node_ip || (e.v4 && e.v6)) continue;
    const Address partner = pairs_.late_partner(e.v4 ? e.v4 : e.v6);
    if (!partner) continue;
    (e.v4 ? e.v6 : e.v4) = partner;
    pairs_.take({e.v4, e.v6});
    by_address_.emplace(partner, static_cast<int>(i));
    e.eip.ipv4 = e.v4.to_string();
    e.eip.ipv6 = e.v6.to_string();
  }
}

bool Allocator::namespace_allowed(const EgressPolicy& p) const {
  const auto& allowed = g_.gateway->spec.allowed_namespaces;
  if (!allowed || p.meta.ns.empty()) return true;
  const auto ns = d_.world.namespaces.find(p.meta.ns);
  return allowed->matches(
      model::namespace_labels(ns == d_.world.namespaces.end() ? nullptr : &ns->second, p.meta.ns));
}

int Allocator::kept_entry(const EgressPolicy& p) const {
  const auto has = recorded_.find(p.meta.key());
  if (has == recorded_.end() || !namespace_allowed(p)) return kNobody;
  const Recorded& was = has->second;
  // One made anew under a name that was in use is due what its own spec says.
  if (!model::may_be_same(was.uid, p.meta.uid)) return kNobody;
  const Entry& e = g_.entries[static_cast<std::size_t>(was.entry)];
  const EgressPolicy::Spec::EgressIp& want = p.spec.egress_ip;
  if (want.use_node_ip != e.eip.use_node_ip) return kNobody;
  const auto fits = [](const std::string& wanted, const std::string& text, const Address& has_it) {
    return wanted.empty() || wanted == text || parse_or_none(wanted) == has_it;
  };
  return fits(want.ipv4, e.eip.ipv4, e.v4) && fits(want.ipv6, e.eip.ipv6, e.v6) ? was.entry
                                                                                : kNobody;
}

void Allocator::join(const EgressPolicy& p, int entry) {
  g_.entries[static_cast<std::size_t>(entry)].eip.policies.push_back(p.ref());
  ++served_;
}

// Reasons that have nothing to do with addresses.
Allocator::Answer Allocator::refuse(const EgressPolicy& p) const {
  if (!namespace_allowed(p)) {
    return no("NamespaceNotAllowed",
              fmt::format("gateway {} does not allow namespace {} (spec.allowedNamespaces)",
                          g_.gateway->meta.name, p.meta.ns));
  }
  if (g_.gateway->meta.deleted_ms != 0 && p.meta.created_ms > g_.gateway->meta.deleted_ms) {
    return no("GatewayDeleting", fmt::format("gateway {} is being deleted and takes no new policy",
                                             g_.gateway->meta.name));
  }
  if (served_ >= kMaxPoliciesPerGateway) {
    return no("GatewayFull", fmt::format("gateway {} serves {} policies, its most; use another one",
                                         g_.gateway->meta.name, kMaxPoliciesPerGateway));
  }
  return {};
}

Allocator::Answer Allocator::not_in_pool(const Address& a, const std::string& text) const {
  const model::IpPools& pools = g_.gateway->spec.ippools;
  if (a && !g_.pool_conflict.empty() &&
      model::IpPool::parse_valid(a.family(), a.is_v4() ? pools.ipv4 : pools.ipv6, "", nullptr)
          .contains(a)) {
    return no("PoolConflict", g_.pool_conflict);
  }
  return no("EipNotInPool",
            fmt::format("{} is not in a pool of gateway {}", a ? a.to_string() : "\"" + text + "\"",
                        g_.gateway->meta.name));
}

Allocator::Answer Allocator::make(const Pair& pair, bool use_node_ip) {
  const bool half = !use_node_ip && (!pair.v4 || !pair.v6) && g_.total_v4 > 0 && g_.total_v6 > 0;
  if (half && !g_.pool_conflict.empty()) return no("PoolConflict", g_.pool_conflict);
  Entry e;
  e.eip.id = d_.ids.take();
  if (e.eip.id == 0) {
    g_.no_id = true;
    return no("NoEgressId", std::string(kNoEgressId));
  }
  g_.ids_changed = true;
  e.eip.use_node_ip = use_node_ip;
  e.v4 = pair.v4;
  e.v6 = pair.v6;
  e.eip.ipv4 = e.v4.to_string();
  e.eip.ipv6 = e.v6.to_string();
  const int index = static_cast<int>(g_.entries.size());
  pairs_.take(pair);
  if (e.v4) by_address_[e.v4] = index;
  if (e.v6) by_address_[e.v6] = index;
  g_.entries.push_back(std::move(e));
  return {index, {}, {}};
}

Allocator::Answer Allocator::node_address() {
  if (node_entry_ == kNobody) {
    Answer made = make({}, true);
    node_entry_ = made.entry;
    return made;
  }
  return {node_entry_, {}, {}};
}

Allocator::Answer Allocator::by_name(const EgressPolicy& p) {
  const EgressPolicy::Spec::EgressIp& want = p.spec.egress_ip;
  const Address v4 = parse_or_none(want.ipv4);
  const Address v6 = parse_or_none(want.ipv6);
  if (!want.ipv4.empty() && (!v4 || !g_.v4.contains(v4))) return not_in_pool(v4, want.ipv4);
  if (!want.ipv6.empty() && (!v6 || !g_.v6.contains(v6))) return not_in_pool(v6, want.ipv6);
  const int has4 = v4 ? find(v4) : kNobody;
  const int has6 = v6 ? find(v6) : kNobody;
  const auto conflict = [&] {
    return no("PairConflict",
              fmt::format("{} and {} are not a pair of gateway {}: one of them is paired with "
                          "another address",
                          v4.to_string(), v6.to_string(), g_.gateway->meta.name));
  };
  if (has4 != kNobody || has6 != kNobody) {
    if (v4 && v6 && has4 != has6) return conflict();
    return {has4 != kNobody ? has4 : has6, {}, {}};
  }
  if (v4 && v6 && !pairs_.may_pair(v4, v6)) return conflict();
  return make(v4 && v6 ? Pair{v4, v6} : pairs_.pair_of(v4 ? v4 : v6), false);
}

Allocator::Answer Allocator::empty_pool() const {
  return no("EmptyPool",
            fmt::format("gateway {} has no addresses; only policies with useNodeIP can "
                        "use it",
                        g_.gateway->meta.name));
}

Allocator::Answer Allocator::by_default() {
  const model::IpPools& pools = g_.gateway->spec.ippools;
  for (const std::string& text : {pools.ipv4_default_eip, pools.ipv6_default_eip}) {
    const Address half = parse_or_none(text);
    // Lost to the cluster's own or to another gateway: its partner would get another one for good.
    if (half && !(half.is_v4() ? g_.v4 : g_.v6).contains(half)) return not_in_pool(half, text);
  }
  const Pair& pair = pairs_.default_pair();
  for (const Address& a : {pair.v4, pair.v6}) {
    if (a && find(a) != kNobody) return {find(a), {}, {}};
  }
  if (pair) return make(pair, false);
  if (pools.ipv4.empty() && pools.ipv6.empty()) return empty_pool();
  const std::string& text =
      pools.ipv4_default_eip.empty() ? pools.ipv6_default_eip : pools.ipv4_default_eip;
  return not_in_pool(parse_or_none(text), text);
}

Allocator::Answer Allocator::share(const EgressPolicy& p) {
  const EgressPolicy::Spec::EgressIp& want = p.spec.egress_ip;
  if (want.use_node_ip) return node_address();
  if (!want.ipv4.empty() || !want.ipv6.empty()) return by_name(p);
  return by_default();
}

Allocator::Answer Allocator::round_robin() {
  const Pair pair = pairs_.next_free(parse_or_none(g_.round_robin_last));
  if (!pair && g_.v4.empty() && g_.v6.empty()) {
    const model::IpPools& pools = g_.gateway->spec.ippools;
    if (pools.ipv4.empty() && pools.ipv6.empty()) return empty_pool();
    if (!g_.pool_conflict.empty()) return no("PoolConflict", g_.pool_conflict);
  }
  if (!pair) {
    return no("NoFreeEip", fmt::format("every EIP of gateway {} is held by a policy; this one is "
                                       "served when one is free",
                                       g_.gateway->meta.name));
  }
  // An EIP whose last policy has just gone lives on under its id.
  const int vacant = find(pair.v4 ? pair.v4 : pair.v6);
  Answer answer{vacant, {}, {}};
  if (vacant != kNobody) {
    const Entry& e = g_.entries[static_cast<std::size_t>(vacant)];
    if (e.v4 != pair.v4 || e.v6 != pair.v6) answer = make(pair, false);
  } else {
    answer = make(pair, false);
  }
  if (answer.entry == kNobody) return answer;
  pairs_.take(pair);
  g_.round_robin_last = (pair.v4 ? pair.v4 : pair.v6).to_string();
  return answer;
}

void Allocator::free_vacant() {
  for (const Entry& e : g_.entries) {
    if (!e.eip.policies.empty()) continue;
    pairs_.give_back(
        {g_.v4.contains(e.v4) ? e.v4 : Address{}, g_.v6.contains(e.v6) ? e.v6 : Address{}});
  }
}

void Allocator::drop_vacant() {
  std::vector<int> now_at(g_.entries.size(), kNobody);
  std::vector<Entry> kept;
  for (std::size_t i = 0; i < g_.entries.size(); ++i) {
    Entry& e = g_.entries[i];
    if (e.eip.policies.empty()) {
      if (e.recorded && !e.bad_id) dropped_ids_.push_back(e.eip.id);
      continue;
    }
    if (e.bad_id) {  // a copy restored by hand: the EIP stays where it is, under a new id
      e.eip.id = d_.ids.take();
      g_.ids_changed = true;
      if (e.eip.id == 0) {
        g_.no_id = true;
        continue;
      }
    }
    std::sort(e.eip.policies.begin(), e.eip.policies.end());
    now_at[i] = static_cast<int>(kept.size());
    kept.push_back(std::move(e));
  }
  g_.entries = std::move(kept);
  for (Outcome& o : g_.policies) {
    if (o.entry == kNobody) continue;
    o.entry = now_at[static_cast<std::size_t>(o.entry)];
    if (o.entry == kNobody) {
      o.reason = "NoEgressId";
      o.message = kNoEgressId;
    }
  }
  for (const std::uint32_t id : dropped_ids_) d_.ids.retire(id);
  g_.ids_changed = g_.ids_changed || !dropped_ids_.empty();
}

void Allocator::run(std::vector<const EgressPolicy*>& policies) {
  std::vector<const EgressPolicy*> sharing;
  std::vector<const EgressPolicy*> alone;
  g_.policies.reserve(policies.size());
  const auto put = [&](const EgressPolicy* p, Answer answer) {
    if (answer.entry != kNobody) join(*p, answer.entry);
    g_.policies.push_back({p, answer.entry, answer.reason, std::move(answer.message)});
  };
  for (const EgressPolicy* p : policies) {
    if (const int kept = kept_entry(*p); kept != kNobody) {
      put(p, {kept, {}, {}});
      continue;
    }
    const EgressPolicy::Spec::EgressIp& want = p->spec.egress_ip;
    const bool exclusive = want.allocator == model::AllocatorPolicy::kRoundRobin &&
                           !want.use_node_ip && want.ipv4.empty() && want.ipv6.empty();
    (exclusive ? alone : sharing).push_back(p);
  }
  for (auto* list : {&sharing, &alone}) {
    std::sort(list->begin(), list->end(), [](const EgressPolicy* a, const EgressPolicy* b) {
      return std::tie(a->meta.created_ms, a->meta.ns, a->meta.name) <
             std::tie(b->meta.created_ms, b->meta.ns, b->meta.name);
    });
    if (list == &alone) free_vacant();
    for (const EgressPolicy* p : *list) {
      Answer refused = refuse(*p);
      if (!refused.reason.empty()) {
        put(p, std::move(refused));
      } else {
        put(p, list == &alone ? round_robin() : share(*p));
      }
    }
  }
  drop_vacant();
}

// Too many status writes lately. A move waits for nothing.
bool has_to_wait(Draft& d, GatewayDraft& g) {
  const auto held = d.in.held.find(g.gateway->meta.name);
  if (held == d.in.held.end() || held->second <= d.in.now_ms) return false;
  if (g.gateway->meta.annotations.contains(std::string(model::kMoveAnnotation)) ||
      will_move(d, g)) {
    return false;
  }
  d.wake_at(held->second);
  return true;
}

}  // namespace

void allocate(Draft& d) {
  std::vector<bool> ids_seen(kMaxEgressId + 1, false);
  for (std::size_t i = 0; i < d.gateways.size(); ++i) {
    GatewayDraft& g = d.gateways[i];
    if (g.quiet != nullptr) {
      const std::vector<std::uint32_t>& ids = g.quiet->ids;
      if (std::none_of(ids.begin(), ids.end(), [&](auto id) { return ids_seen[id]; })) {
        for (const std::uint32_t id : ids) ids_seen[id] = true;
        continue;
      }
      wake_gateway(d, g);  // another gateway has come to hold an id of its
    }
    Allocator allocator(d, g, ids_seen);
    g.held = has_to_wait(d, g);
    if (!g.held) allocator.run(d.users[i]);
  }
}

}  // namespace egw::core::parts
