// core::Compiler: puts the parts together and tells the step. See compile.hpp for the contract;
// compile_gateway (node, peers, egresses), compile_policy (order, index, decisions), compile_pods
// (who selects whom), compile_table (tables and class ids) do the work.
#include "egw/core/compile.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "egw/core/compile_gateway.hpp"
#include "egw/core/compile_pods.hpp"
#include "egw/core/compile_policy.hpp"
#include "egw/core/compile_table.hpp"

namespace egw::core {

struct Compiler::Impl {
  Impl(model::Settings s, LocalNode l)
      : settings(std::move(s)), local(std::move(l)), pods(settings), classes(state.classes) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  model::Change update(const model::World& world, const model::Changes& changes);
  void update_node(const model::World& world, model::Change& change);
  void update_peers(const model::World& world, model::Change& change);
  void update_egresses(const model::World& world, model::Change& change);
  void update_selection(const model::World& world, const model::Changes& changes, bool all,
                        detail::PolicyStore::Delta delta);
  void update_classes(model::Change& change);
  void update_endpoints(model::Change& change);
  void add_policy_findings(const detail::Policy& policy, bool in_use,
                           std::vector<CompileFinding>& out) const;
  [[nodiscard]] std::vector<bool> slots_in_use() const;
  [[nodiscard]] model::Change full() const;

  model::Settings settings;
  LocalNode local;
  bool everything = true;  // the next update compares everything
  bool prefixes_known = false;
  std::uint64_t generation = 0;
  model::NodeState state;
  detail::EgressTable egress_table;
  detail::PolicyStore policies;
  detail::PodIndex pods;
  detail::ClassPool classes;
};

namespace {

// Replaces `old` by `now` and records what differs.
template <class Map, class OnUpsert, class OnDelete>
void replace(Map& old, Map now, OnUpsert upsert, OnDelete remove) {
  for (const auto& [key, value] : now) {
    const auto found = old.find(key);
    if (found == old.end() || !(found->second == value)) upsert(value);
  }
  for (const auto& [key, value] : old) {
    if (now.count(key) == 0) remove(key);
  }
  old = std::move(now);
}

}  // namespace

void Compiler::Impl::update_node(const model::World& world, model::Change& change) {
  auto config = detail::node_config(world, settings, local);
  if (generation == 0 || !(config == state.node)) {
    state.node = config;
    change.node = std::move(config);
  }
}

void Compiler::Impl::update_peers(const model::World& world, model::Change& change) {
  replace(
      state.peers, detail::peers(world, settings, local),
      [&](const model::Peer& peer) { change.peers.push_back(peer); },
      [&](const std::string& name) { change.deleted_peers.push_back(name); });
  prefixes_known = detail::prefixes_known(world);
}

void Compiler::Impl::update_egresses(const model::World& world, model::Change& change) {
  egress_table = detail::egress_table(world, settings, local.name, state.peers);
  replace(
      state.egresses, std::exchange(egress_table.egresses, {}),
      [&](const model::Egress& egress) { change.egresses.push_back(egress); },
      [&](std::uint32_t id) { change.deleted_egresses.push_back(id); });
}

void Compiler::Impl::update_selection(const model::World& world, const model::Changes& changes,
                                      bool all, detail::PolicyStore::Delta delta) {
  if (all || delta.label_keys) {
    pods.update_all(world, policies, local.name);
    return;
  }
  if (delta.selection) pods.rematch(world, policies, nullptr);
  for (const auto& ns : changes.namespaces) pods.rematch(world, policies, &ns);
  for (const auto& key : changes.pods) pods.update(world, policies, local.name, key);
}

// Two passes, so that a set whose content changes can keep its class id once nobody else uses it,
// and sets that become equal find each other.
void Compiler::Impl::update_classes(model::Change& change) {
  auto& sets = pods.sets();
  if (policies.any_dirty()) {
    for (std::uint32_t index = 1; index < sets.size(); ++index) {
      const auto& slots = sets[index].slots;
      if (sets[index].pods != 0 && std::any_of(slots.begin(), slots.end(), [this](auto slot) {
            return policies.dirty(slot);
          })) {
        pods.touch_set(index);
      }
    }
    policies.clear_dirty();
  }
  struct Pending {
    std::uint32_t set, old_id;
    model::ClassTable table;
    std::uint64_t hash;
  };
  std::vector<Pending> pending;
  for (const auto index : pods.touched_sets()) {
    auto& set = sets[index];
    auto table = set.pods == 0 ? model::ClassTable{} : policies.table(set.slots);
    if (set.class_id != 0) {
      if (classes.has(set.class_id, table)) continue;
      classes.drop_user(set.class_id);
    }
    const auto hash = detail::hash_table(table);
    pending.push_back({index, std::exchange(set.class_id, 0), std::move(table), hash});
  }
  const auto adopt_equal = [&](const Pending& item) {
    const auto id = classes.find(item.table, item.hash);
    if (id != 0) classes.add_user(id);
    return id;
  };
  for (const auto& item : pending) {
    if (!item.table.empty()) sets[item.set].class_id = adopt_equal(item);
  }
  std::vector<bool> moved(sets.size(), false);
  bool any_moved = false;
  for (auto& item : pending) {
    auto& set = sets[item.set];
    if (set.class_id == 0 && !item.table.empty()) {
      set.class_id = adopt_equal(item);
      if (set.class_id == 0 && item.old_id != 0 && classes.unused(item.old_id)) {
        classes.replace(item.old_id, std::move(item.table), item.hash);
        set.class_id = item.old_id;
      } else if (set.class_id == 0) {
        set.class_id = classes.create(std::move(item.table), item.hash);
      }
    }
    const auto families = set.class_id == 0 ? std::uint8_t{0} : classes.families(set.class_id);
    if (set.known && set.pods != 0 && (set.class_id != item.old_id || families != set.families)) {
      moved[item.set] = true;
      any_moved = true;
    }
    set.families = families;
  }
  if (any_moved) pods.touch_pods_of(moved);
  classes.end(change);
}

void Compiler::Impl::update_endpoints(model::Change& change) {
  auto& endpoints = state.endpoints;
  const auto touched = pods.take_touched_addresses();
  if (endpoints.empty()) endpoints.reserve(touched.size());
  for (const auto& address : touched) {
    const auto& set = pods.sets()[pods.set_of(address)];
    const bool applies = (set.families & detail::family_bit(address.family())) != 0;
    const auto found = endpoints.find(address);
    if (applies) {
      if (found == endpoints.end()) {
        endpoints.emplace(address, set.class_id);
      } else if (found->second != set.class_id) {
        found->second = set.class_id;
      } else {
        continue;
      }
      change.endpoints.emplace_back(address, set.class_id);
    } else if (found != endpoints.end()) {
      endpoints.erase(found);
      change.deleted_endpoints.push_back(address);
    }
  }
}

model::Change Compiler::Impl::update(const model::World& world, const model::Changes& changes) {
  const bool first = generation == 0;
  const bool all = everything || changes.everything;
  everything = false;
  model::Change change;
  classes.begin();

  const bool infos = all || changes.cluster_infos;
  if (infos || changes.tunnels) update_node(world, change);
  if (infos) update_peers(world, change);
  if (infos || changes.gateways) update_egresses(world, change);
  detail::PolicyStore::Delta delta;
  if (all || changes.policies) delta = policies.reconcile(world.policies);
  if (infos || changes.gateways || changes.policies) {
    policies.decide(egress_table, settings, prefixes_known);
  }
  update_selection(world, changes, all, delta);
  update_classes(change);
  update_endpoints(change);
  pods.end();

  if (!change.empty()) {
    change.full = first;
    change.base = generation;
    change.generation = ++generation;
  } else {
    change.base = change.generation = generation;
  }
  return change;
}

model::Change Compiler::Impl::full() const {
  auto change = diff(model::NodeState{}, state);
  change.node = state.node;
  change.full = true;
  change.generation = generation;
  return change;
}

std::vector<bool> Compiler::Impl::slots_in_use() const {
  std::vector<bool> used(policies.slots().size(), false);
  for (const auto& set : pods.sets()) {
    if (set.pods == 0) continue;
    for (const auto slot : set.slots) used[slot] = true;
  }
  return used;
}

void Compiler::Impl::add_policy_findings(const detail::Policy& policy, bool in_use,
                                         std::vector<CompileFinding>& out) const {
  const auto& gateway = policy.gateway;
  if (policy.gateway_full) {
    out.push_back({policy.ref, "GatewayFull",
                   "EgressGateway " + gateway +
                       " holds 5,000 policies, the most it can; this one follows its "
                       "failurePolicy. Use another gateway or delete policies"});
  }
  if (policy.waits_for_prefixes) {
    out.push_back({policy.ref, "ClusterPrefixesUnknown",
                   "destSubnet is empty, which means everything outside the cluster, and the "
                   "cluster's own prefixes are not known: EgressClusterInfo default has no status, "
                   "or no IPPool in it where podCidrMode is calico; the policy waits for it"});
  }
  const auto check = [&](model::Family family, const char* name, bool enabled) {
    if (!policy.has_family(family)) return;
    std::string why;
    if (!enabled) {
      // An empty destSubnet asks for the family only where pods have such addresses.
      if (policy.all_destinations && !(in_use && pods.pods_with_disabled_family() != 0)) {
        return;
      }
      why = std::string("is switched off (feature.enable") + name + ")";
    } else if ((policy.uncovered & detail::family_bit(family)) != 0) {
      why = "has no pool in EgressGateway " + gateway;
    } else {
      return;
    }
    out.push_back({policy.ref, "FamilyNotCovered",
                   std::string(name) + " " + why +
                       "; the policy's destinations of this family are left alone"});
  };
  check(model::Family::kV4, "IPv4", settings.enable_ipv4);
  check(model::Family::kV6, "IPv6", settings.enable_ipv6);
}

Compiler::Compiler(model::Settings settings, LocalNode local)
    : impl_(std::make_unique<Impl>(std::move(settings), std::move(local))) {}
Compiler::~Compiler() = default;
Compiler::Compiler(Compiler&&) noexcept = default;
Compiler& Compiler::operator=(Compiler&&) noexcept = default;

model::Change Compiler::update(const model::World& world, const model::Changes& changes) {
  return impl_->update(world, changes);
}

model::Change Compiler::full() const { return impl_->full(); }

void Compiler::set_local(LocalNode local) {
  impl_->local = std::move(local);
  impl_->everything = true;
}

const model::NodeState& Compiler::state() const { return impl_->state; }

std::uint64_t Compiler::generation() const { return impl_->generation; }

std::vector<OwnedEip> Compiler::owned() const {
  std::vector<OwnedEip> out;
  for (const auto& [id, egress] : impl_->state.egresses) {
    if (egress.owner != model::Owner::kSelf || egress.kind != model::EgressKind::kAddress) continue;
    const bool moving = impl_->egress_table.moving_in.count(id) != 0;
    if (egress.v4) out.push_back({egress.v4, id, moving});
    if (egress.v6) out.push_back({egress.v6, id, moving});
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<CompileFinding> Compiler::findings() const {
  auto out = impl_->egress_table.findings;
  const auto in_use = impl_->slots_in_use();
  for (std::size_t slot = 0; slot < in_use.size(); ++slot) {
    const auto& policy = impl_->policies.slots()[slot];
    if (policy.used) impl_->add_policy_findings(policy, in_use[slot], out);
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const auto& a, const auto& b) { return a.policy < b.policy; });
  return out;
}

std::vector<model::PolicyRef> Compiler::policies_in_use() const {
  std::vector<model::PolicyRef> out;
  const auto in_use = impl_->slots_in_use();
  for (std::size_t slot = 0; slot < in_use.size(); ++slot) {
    if (in_use[slot]) out.push_back(impl_->policies.slots()[slot].ref);
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace egw::core
