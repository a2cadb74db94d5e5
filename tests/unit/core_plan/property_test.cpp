// Random histories of a cluster: policies come and go, nodes die and return, gateways change,
// leaders change, batches of writes break off. What must hold whenever the leader has come to rest.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "egw/model/ip_pool.hpp"
#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

using model::EipStatus;
using model::Family;
using model::IpPool;

struct Held {
  std::string gateway, owner;
  EipStatus eip;
  [[nodiscard]] std::string text() const {
    return gateway + " " + eip.ipv4 + "/" + eip.ipv6 + (eip.use_node_ip ? "node" : "");
  }
};

std::vector<Held> held(const model::World& world) {
  std::vector<Held> out;
  for (const auto& [name, g] : world.gateways) {
    for (const auto& n : g.status.node_list) {
      for (const auto& e : n.eips) out.push_back({name, n.name, e});
    }
    for (const auto& e : g.status.unplaced) out.push_back({name, "", e});
  }
  return out;
}

std::map<std::string, Held> by_text(const model::World& world) {
  std::map<std::string, Held> out;
  for (Held& h : held(world)) out.emplace(h.text(), std::move(h));
  return out;
}

class History {
 public:
  History() {
    c_.remembers = true;
    for (int i = 1; i <= 5; ++i) c_.node("n" + std::to_string(i));
    c_.gateway("g1", {"10.1.0.1-10.1.0.4"}, {"fd01::1-fd01::4"}, "10.1.0.2", "fd01::3");
    c_.gateway("g2", {"10.2.0.1-10.2.0.6"});
    c_.gateway("g3", {}, {"fd03::/64"});
    c_.start();
  }

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      before_ = c_.world;
      requested_ = false;
      operate(*rc::gen::inRange(0, 21));
      // Sometimes the batch breaks off (a conflict, the leader dies) and another leader goes on.
      const int cut = *rc::gen::inRange(0, 12);
      if (cut < 4) broken_off(cut);
      int rounds = 0;
      while (!step().empty()) RC_ASSERT(++rounds <= 3);
      check();
    }
  }

 private:
  void operate(int what) {
    const std::string node = "n" + std::to_string(*rc::gen::inRange(1, 6));
    const std::string gateway = "g" + std::to_string(*rc::gen::inRange(1, 4));
    if (what < 7) return add_policy(gateway);
    if (what < 10) return drop_policy();
    switch (what) {
      case 10:
        dead_.insert(node);
        break;
      case 11:
        dead_.erase(node);
        break;
      case 12:
        toggle_ready(node);
        break;
      case 13:
        toggle_label(node);
        break;
      case 14:
        toggle_node(node);
        break;
      case 15:
        change_pool(gateway);
        break;
      case 16:
        request_move(node);
        break;
      case 17:
        toggle_drain(node);
        break;
      case 18:
        new_leader();
        break;
      case 19:
        toggle_taken(node, gateway);
        break;
      default:
        walk_round();
        break;
    }
    // Time passes for everybody, at most two are dead at a time: never StoreSuspect.
    while (dead_.size() > 2) dead_.erase(dead_.begin());
    for (int t = 0; t < 17; ++t) {
      c_.pass(1000);
      c_.beat_all({dead_.begin(), dead_.end()});
      if (t % 4 == 0) step();
    }
  }

  void add_policy(const std::string& gateway) {
    const std::string name = "p" + std::to_string(++policies_);
    model::EgressPolicy& p = c_.policy("ns", name, gateway);
    auto& want = p.spec.egress_ip;
    const int n = *rc::gen::inRange(1, 6);
    switch (*rc::gen::inRange(0, 7)) {
      case 0:
        break;
      case 1:
        want.use_node_ip = true;
        break;
      case 2:
        want.ipv4 = "10." + gateway.substr(1) + ".0." + std::to_string(n);
        break;
      case 3:
        want.ipv6 = "fd0" + gateway.substr(1) + "::" + std::to_string(n);
        break;
      case 4:
        want.ipv4 = "10." + gateway.substr(1) + ".0." + std::to_string(n);
        want.ipv6 = "fd0" + gateway.substr(1) + "::" + std::to_string(*rc::gen::inRange(1, 6));
        break;
      default:
        want.allocator = model::AllocatorPolicy::kRoundRobin;
        break;
    }
  }
  void drop_policy() {
    if (c_.world.policies.empty()) return;
    auto it = c_.world.policies.begin();
    std::advance(it, *rc::gen::inRange<std::size_t>(0, c_.world.policies.size()));
    c_.world.policies.erase(it);
    ++c_.world.revision;
  }
  void toggle_ready(const std::string& node) {
    const auto it = c_.world.nodes.find(node);
    if (it == c_.world.nodes.end()) return;
    it->second.ready = !it->second.ready;
    touch(c_.world, it->second.meta);
  }
  void toggle_label(const std::string& node) {
    const auto it = c_.world.nodes.find(node);
    if (it == c_.world.nodes.end()) return;
    if (it->second.meta.labels.erase("egress") == 0) it->second.meta.labels["egress"] = "true";
    touch(c_.world, it->second.meta);
  }
  void toggle_node(const std::string& node) {
    if (c_.world.nodes.erase(node) == 0) c_.node(node);
    ++c_.world.revision;
  }
  void change_pool(const std::string& gateway) {
    model::EgressGateway& g = c_.world.gateways.at(gateway);
    const int size = *rc::gen::inRange(2, 8);
    const std::string n = gateway.substr(1);
    if (gateway != "g3") {
      g.spec.ippools.ipv4 = {"10." + n + ".0.1-10." + n + ".0." + std::to_string(size)};
    }
    if (gateway == "g1") g.spec.ippools.ipv6 = {"fd01::1-fd01::" + std::to_string(size)};
    g.spec.ippools.ipv4_default_eip = g.spec.ippools.ipv6_default_eip = "";
    touch(c_.world, g.meta);
  }
  void request_move(const std::string& node) {
    const auto all = held(c_.world);
    if (all.empty()) return;
    const Held& h = all[*rc::gen::inRange<std::size_t>(0, all.size())];
    if (h.eip.use_node_ip) return;
    model::EgressGateway& g = c_.world.gateways.at(h.gateway);
    g.meta.annotations[std::string(model::kMoveAnnotation)] =
        R"({"eip": ")" + (h.eip.ipv4.empty() ? h.eip.ipv6 : h.eip.ipv4) + R"(", "to": ")" + node +
        R"("})";
    touch(c_.world, g.meta);
    requested_ = true;
  }
  void toggle_drain(const std::string& node) {
    const auto it = c_.world.tunnels.find(node);
    if (it == c_.world.tunnels.end()) return;
    const std::string key(model::kDrainAnnotation);
    if (it->second.meta.annotations.erase(key) == 0) it->second.meta.annotations[key] = "";
    touch(c_.world, it->second.meta);
  }
  void new_leader() {
    c_.input.term += 1;
    c_.input.heartbeats.clear();
    c_.input.moving.clear();
    c_.memory = {};
    c_.input.watching_since_ms = c_.input.now_ms;
  }
  // A node has an address of a pool, or no longer.
  void toggle_taken(const std::string& node, const std::string& gateway) {
    const auto it = c_.world.nodes.find(node);
    if (it == c_.world.nodes.end()) return;
    auto& own = it->second.internal_ips;
    if (own.empty()) {
      own = {"10." + gateway.substr(1) + ".0." + std::to_string(*rc::gen::inRange(1, 6))};
    } else {
      own.clear();
    }
    touch(c_.world, it->second.meta);
  }
  [[nodiscard]] static std::set<std::string> taken(const model::World& world) {
    std::set<std::string> out;
    for (const auto& [name, n] : world.nodes) {
      out.insert(n.internal_ips.begin(), n.internal_ips.end());
    }
    return out;
  }
  void walk_round() {
    const auto info = c_.world.cluster_infos.find("default");
    if (info == c_.world.cluster_infos.end()) return;
    info->second.status.next_egress_id = 1;
    touch(c_.world, info->second.meta);
  }

  core::Plan make_plan() {
    c_.input.world = &c_.world;
    c_.input.settings = &c_.settings;
    core::observe(c_.input);
    core::Plan plan = core::plan(c_.input);
    RC_ASSERT(Cluster::text_of(core::plan(c_.input, &c_.memory)) == Cluster::text_of(plan));
    return plan;
  }
  // Applies write by write, so that the books on ids can be checked after each.
  std::vector<core::Write> step() {
    core::Plan plan = make_plan();
    for (core::Write& w : plan.writes) {
      core::Plan one;
      one.writes.push_back(w);
      RC_ASSERT(apply_plan(c_.world, one) == "");
      check_ids();
    }
    return std::move(plan.writes);
  }
  void broken_off(int writes) {
    core::Plan plan = make_plan();
    if (static_cast<std::size_t>(writes) < plan.writes.size()) {
      plan.writes.resize(static_cast<std::size_t>(writes));
    }
    for (core::Write& w : plan.writes) {
      core::Plan one;
      one.writes.push_back(w);
      RC_ASSERT(apply_plan(c_.world, one) == "");
      check_ids();
    }
    if (*rc::gen::arbitrary<bool>()) new_leader();
  }

  // At every single write: an id that means another EIP than before has been forgotten
  // by every Ready tunnel.
  void check_ids() {
    std::map<std::uint32_t, std::string> now;
    for (const Held& h : held(c_.world)) {
      RC_ASSERT(h.eip.id >= 1 && h.eip.id <= 16383);
      RC_ASSERT(now.emplace(h.eip.id, h.text()).second);  // one meaning at a time
    }
    for (const auto& [id, meaning] : now) {
      const auto last = meaning_.find(id);
      if (last == meaning_.end() || last->second == meaning) continue;
      RC_ASSERT(gone_at_.contains(id));
      for (const auto& [name, t] : c_.world.tunnels) {
        if (t.status.phase != model::TunnelPhase::kReady || !c_.world.nodes.at(name).ready)
          continue;
        RC_ASSERT(t.status.realised.revision > gone_at_.at(id));
      }
    }
    for (const auto& [id, meaning] : meaning_) {
      if (!now.contains(id)) gone_at_.try_emplace(id, c_.world.revision);
    }
    for (const auto& [id, meaning] : now) {
      meaning_[id] = meaning;
      gone_at_.erase(id);
    }
  }

  [[nodiscard]] bool ready(const std::string& node) const {
    const auto n = c_.world.nodes.find(node);
    const auto t = c_.world.tunnels.find(node);
    return n != c_.world.nodes.end() && n->second.ready && t != c_.world.tunnels.end() &&
           t->second.status.phase == model::TunnelPhase::kReady;
  }
  [[nodiscard]] bool selected(const std::string& node) const {
    const auto n = c_.world.nodes.find(node);
    return n != c_.world.nodes.end() && n->second.meta.labels.contains("egress");
  }
  [[nodiscard]] bool draining(const std::string& node) const {
    const auto t = c_.world.tunnels.find(node);
    return t != c_.world.tunnels.end() &&
           t->second.meta.annotations.contains(std::string(model::kDrainAnnotation));
  }
  [[nodiscard]] bool may_take(const std::string& node) const {
    return ready(node) && selected(node) && !draining(node);
  }
  [[nodiscard]] bool somebody_may_take() const {
    for (const auto& [name, n] : c_.world.nodes) {
      if (may_take(name)) return true;
    }
    return false;
  }

  void check() {
    check_addresses();
    check_owners();
    check_stability();
    check_policies();
  }

  void check_addresses() {  // none twice, none outside its pool, pairs whole
    std::set<std::string> seen;
    std::set<model::PolicyRef> users;
    for (const Held& h : held(c_.world)) {
      const auto& pools = c_.world.gateways.at(h.gateway).spec.ippools;
      const IpPool v4 = IpPool::parse(Family::kV4, pools.ipv4, "v4").value();
      const IpPool v6 = IpPool::parse(Family::kV6, pools.ipv6, "v6").value();
      RC_ASSERT(!h.eip.policies.empty());
      for (const auto& ref : h.eip.policies) {
        RC_ASSERT(users.insert(ref).second);
        RC_ASSERT(c_.world.policies.contains({ref.ns, ref.name}));
      }
      if (h.eip.use_node_ip) continue;
      if (!h.eip.ipv4.empty()) {
        RC_ASSERT(seen.insert(h.eip.ipv4).second);
        RC_ASSERT(v4.contains(model::Address::parse(h.eip.ipv4).value()));
      }
      if (!h.eip.ipv6.empty()) {
        RC_ASSERT(seen.insert(h.eip.ipv6).second);
        RC_ASSERT(v6.contains(model::Address::parse(h.eip.ipv6).value()));
      }
      RC_ASSERT(h.eip.ipv4.empty() == pools.ipv4.empty());
      RC_ASSERT(h.eip.ipv6.empty() == pools.ipv6.empty());
    }
  }

  void check_owners() {
    const bool takers = somebody_may_take();
    const auto cluster_has = taken(c_.world);
    for (const Held& h : held(c_.world)) {
      if (cluster_has.contains(h.eip.ipv4)) {
        RC_ASSERT(h.owner.empty());
        continue;
      }
      if (h.owner.empty()) {
        RC_ASSERT(!takers);
        continue;
      }
      RC_ASSERT(selected(h.owner));
      if (takers) RC_ASSERT(ready(h.owner) && !draining(h.owner));
      RC_ASSERT(h.eip.moving_from != h.owner);
    }
  }

  void check_stability() {  // none lost, sticky, epochs
    const auto now = by_text(c_.world);
    for (const auto& [text, old] : by_text(before_)) {
      const auto it = now.find(text);
      if (it == now.end()) continue;
      RC_ASSERT(it->second.eip.epoch >= old.eip.epoch);
      if (it->second.owner != old.owner && !it->second.owner.empty()) {
        RC_ASSERT(it->second.eip.epoch > old.eip.epoch);
      }
      const bool stayed_up =
          was_up(old.owner) && may_take(old.owner) && !taken(c_.world).contains(old.eip.ipv4);
      if (stayed_up && !requested_) RC_ASSERT(it->second.owner == old.owner);
    }
    for (const auto& [key, p] : c_.world.policies) {
      const auto old = before_.policies.find(key);
      if (old == before_.policies.end() || old->second.status.ipv4.empty()) continue;
      const auto& pools = c_.world.gateways.at(p.spec.gateway).spec.ippools;
      if (!(pools == before_.gateways.at(p.spec.gateway).spec.ippools)) continue;
      RC_ASSERT(p.status.ipv4 == old->second.status.ipv4);
      RC_ASSERT(p.status.ipv6 == old->second.status.ipv6);
    }
  }
  [[nodiscard]] bool was_up(const std::string& node) const {
    const auto t = before_.tunnels.find(node);
    return t != before_.tunnels.end() && t->second.status.phase == model::TunnelPhase::kReady &&
           !dead_.contains(node) && before_.nodes.contains(node) && before_.nodes.at(node).ready;
  }

  void check_policies() {  // everybody who can be served is served; statuses tell the truth
    std::map<std::string, std::int64_t> given;
    std::map<model::PolicyRef, Held> of;
    for (const Held& h : held(c_.world)) {
      if (!h.eip.use_node_ip) ++given[h.gateway];
      for (const auto& ref : h.eip.policies) of[ref] = h;
    }
    const auto cluster_has = taken(c_.world);
    for (const auto& [key, p] : c_.world.policies) {
      const auto mine = of.find(p.ref());
      const std::string reason = find_condition(p.status.conditions, "Allocated")->reason;
      const auto& pools = c_.world.gateways.at(p.spec.gateway).spec.ippools;
      const auto& want = p.spec.egress_ip;
      if (mine != of.end()) {
        RC_ASSERT(reason == "Allocated");
        RC_ASSERT(p.status.ipv4 == mine->second.eip.ipv4);
        RC_ASSERT(p.status.ipv6 == mine->second.eip.ipv6);
        RC_ASSERT(p.status.node == mine->second.owner);
        RC_ASSERT(want.use_node_ip == mine->second.eip.use_node_ip);
        if (!want.ipv4.empty()) RC_ASSERT(p.status.ipv4 == want.ipv4);
        if (!want.ipv6.empty()) RC_ASSERT(p.status.ipv6 == want.ipv6);
        continue;
      }
      RC_ASSERT(p.status.ipv4.empty() && p.status.ipv6.empty() && p.status.node.empty());
      const IpPool v4 = IpPool::parse(Family::kV4, pools.ipv4, "v4").value();
      const IpPool v6 = IpPool::parse(Family::kV6, pools.ipv6, "v6").value();
      if (reason == "NoFreeEip") {
        RC_ASSERT(want.allocator == model::AllocatorPolicy::kRoundRobin);
        std::int64_t unusable = 0;  // and nobody's
        for (const std::string& text : cluster_has) {
          const bool used = std::any_of(of.begin(), of.end(),
                                        [&](const auto& h) { return h.second.eip.ipv4 == text; });
          unusable += !used && v4.contains(model::Address::parse(text).value()) ? 1 : 0;
        }
        RC_ASSERT(given[p.spec.gateway] == (pools.ipv4.empty() ? v6 : v4).count() - unusable);
      } else if (reason == "PoolConflict") {
        RC_ASSERT(std::any_of(cluster_has.begin(), cluster_has.end(), [&](const auto& text) {
          return v4.contains(model::Address::parse(text).value());
        }));
      } else if (reason == "EipNotInPool") {
        const bool in4 = want.ipv4.empty() || v4.contains(model::Address::parse(want.ipv4).value());
        const bool in6 = want.ipv6.empty() || v6.contains(model::Address::parse(want.ipv6).value());
        RC_ASSERT(!in4 || !in6);
      } else {
        RC_ASSERT(reason == "PairConflict");
        RC_ASSERT(!want.ipv4.empty() && !want.ipv6.empty());
      }
    }
  }

  Cluster c_;
  model::World before_;
  std::set<std::string> dead_;
  bool requested_ = false;
  int policies_ = 0;
  std::map<std::uint32_t, std::string> meaning_;
  std::map<std::uint32_t, std::uint64_t> gone_at_;
};

RC_GTEST_PROP(PlanProperty, WhateverHappens, ()) {
  History history;
  history.run(*rc::gen::inRange(1, 25));
}

RC_GTEST_PROP(PlanProperty, TheEipsOfLostNodesSpreadEvenly, ()) {
  Cluster c;
  const int nodes = *rc::gen::inRange(3, 8);
  const int eips = *rc::gen::inRange(1, 40);
  c.nodes(nodes);
  c.gateway("g", {"10.0.0.1-10.0.0.40"});
  c.gateway("h", {"10.1.0.1-10.1.0.40"});
  for (int i = 0; i < eips; ++i) c.rr("p" + std::to_string(i), i % 3 == 0 ? "h" : "g");
  c.start();
  const auto spread = [&](const std::set<std::string>& dead) {
    std::map<std::string, int> load;
    for (const auto& [name, n] : c.world.nodes) {
      if (!dead.contains(name)) load[name] = 0;
    }
    for (const Held& h : held(c.world)) {
      RC_ASSERT(load.contains(h.owner));
      ++load[h.owner];
    }
    int least = eips;
    int most = 0;
    for (const auto& [name, n] : load) {
      least = std::min(least, n);
      most = std::max(most, n);
    }
    RC_ASSERT(most - least <= 1);
  };
  spread({});
  std::vector<std::string> alive;
  for (const auto& [name, n] : c.world.nodes) alive.push_back(name);
  std::set<std::string> dead;
  while (alive.size() > 1) {
    const auto victim = *rc::gen::inRange<std::size_t>(0, alive.size());
    c.world.nodes[alive[victim]].ready = false;
    dead.insert(alive[victim]);
    alive.erase(alive.begin() + static_cast<std::ptrdiff_t>(victim));
    c.settle();
    spread(dead);
  }
}

}  // namespace
}  // namespace egw::test
