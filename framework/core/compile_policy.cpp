// Policies, their order, index and decisions: see compile_policy.hpp.
#include "egw/core/compile_policy.hpp"

#include <algorithm>
#include <functional>
#include <tuple>

namespace egw::core::detail {

namespace {

constexpr std::uint32_t kMaxPoliciesPerGateway = 5000;

using Op = model::Requirement::Op;

// Texts that are no prefixes are left out: admission refuses them, and one that came past it must
// not widen what the policy selects.
std::vector<model::Prefix> parse_prefixes(const std::vector<std::string>& texts) {
  std::vector<model::Prefix> out;
  out.reserve(texts.size());
  for (const auto& text : texts) {
    if (auto prefix = model::Prefix::parse(text)) out.push_back(*prefix);
  }
  return minimal_cover(std::move(out));
}

// The requirement that fewest label sets meet; nullptr: none that can be looked up.
const model::Requirement* most_selective(const model::LabelSelector& selector) {
  const model::Requirement* best = nullptr;
  for (const auto& requirement : selector.requirements) {
    if (requirement.op == Op::kIn) {
      if (best == nullptr || best->op != Op::kIn ||
          requirement.values.size() < best->values.size()) {
        best = &requirement;
      }
    } else if (requirement.op == Op::kExists && best == nullptr) {
      best = &requirement;
    }
  }
  return best;
}

Policy parse(const model::Key& key, const model::EgressPolicy& source) {
  Policy out;
  out.used = true;
  out.ref = {key.name, key.ns, source.meta.uid};
  out.revision = source.meta.revision;
  out.created_ms = source.meta.created_ms;
  const auto& spec = source.spec;
  out.node_ip = spec.egress_ip.use_node_ip;
  out.all_destinations = spec.dest_subnet.empty();
  out.by_subnet = !spec.pod_subnet.empty();
  out.failure = spec.failure_policy;
  out.refused = out.failure == model::FailurePolicy::kNodeIp && source.is_refused();
  out.gateway = spec.gateway;
  out.priority = spec.priority;
  out.pod_selector = spec.pod_selector;
  if (key.ns.empty()) out.namespace_selector = spec.namespace_selector;
  out.destinations = parse_prefixes(spec.dest_subnet);
  out.pod_subnets = parse_prefixes(spec.pod_subnet);
  return out;
}

// Selects the same pods, at the same place in the order.
bool same_selection(const Policy& a, const Policy& b) {
  return a.created_ms == b.created_ms && a.priority == b.priority && a.by_subnet == b.by_subnet &&
         a.pod_selector == b.pod_selector && a.namespace_selector == b.namespace_selector &&
         a.pod_subnets == b.pod_subnets;
}

bool same_effect(const Policy& a, const Policy& b) {
  return a.node_ip == b.node_ip && a.all_destinations == b.all_destinations &&
         a.failure == b.failure && a.refused == b.refused && a.gateway == b.gateway &&
         a.destinations == b.destinations;
}

std::uint32_t label_hash(const std::string& label) {
  return static_cast<std::uint32_t>(std::hash<std::string>{}(label));
}

bool selects_by_labels(const Policy& policy) {
  return policy.pod_selector || policy.namespace_selector;
}

}  // namespace

bool Policy::has_family(model::Family family) const {
  if (all_destinations) return true;
  return std::any_of(destinations.begin(), destinations.end(),
                     [family](const model::Prefix& prefix) { return prefix.family() == family; });
}

void SelectorIndex::add(std::uint32_t slot, const model::LabelSelector* selector) {
  const auto* requirement = selector == nullptr ? nullptr : most_selective(*selector);
  if (requirement == nullptr) {
    always_.push_back(slot);
  } else if (requirement->op == Op::kExists) {
    add(slot, requirement->key);
  } else {
    for (const auto& value : requirement->values) add(slot, requirement->key + '\0' + value);
  }
}

void SelectorIndex::add(std::uint32_t slot, const std::string& label) {
  by_label_.push_back({label_hash(label), slot});
}

void SelectorIndex::seal() {
  std::sort(by_label_.begin(), by_label_.end());
  by_label_.shrink_to_fit();
}

void SelectorIndex::candidates(const model::Labels& labels, std::string& scratch,
                               std::vector<std::uint32_t>& out) const {
  out.insert(out.end(), always_.begin(), always_.end());
  if (by_label_.empty()) return;
  const auto find = [&] {
    const std::uint32_t hash = label_hash(scratch);
    auto at = std::lower_bound(by_label_.begin(), by_label_.end(), Entry{hash, 0});
    for (; at != by_label_.end() && at->hash == hash; ++at) out.push_back(at->slot);
  };
  for (const auto& [key, value] : labels) {
    scratch = key;
    find();
    scratch += '\0';
    scratch += value;
    find();
  }
}

std::uint32_t PolicyStore::new_slot() {
  if (!free_.empty()) {
    const auto slot = free_.back();
    free_.pop_back();
    return slot;
  }
  slots_.emplace_back();
  dirty_.push_back(false);
  return static_cast<std::uint32_t>(slots_.size() - 1);
}

bool PolicyStore::slot_of(const model::Key& key, std::uint32_t& slot) {
  const auto hash = model::KeyHash{}(key);
  const bool known = by_key_.find(hash, [&](std::uint32_t candidate) {
    const auto& ref = slots_[candidate].ref;
    slot = candidate;
    return ref.name == key.name && ref.ns == key.ns;
  });
  if (known) return true;
  slot = new_slot();
  slots_[slot].ref = {key.name, key.ns};
  by_key_.insert(hash, slot);
  return false;
}

// Policies that the round did not name are gone.
void PolicyStore::drop_unseen() {
  for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
    auto& policy = slots_[slot];
    if (!policy.used || policy.seen == round_) continue;
    by_key_.erase(model::KeyHash{}({policy.ref.ns, policy.ref.name}), slot);
    policy = Policy{};
    free_.push_back(slot);
  }
}

void PolicyStore::mark_dirty(std::uint32_t slot) {
  dirty_[slot] = true;
  any_dirty_ = true;
}

void PolicyStore::clear_dirty() {
  if (!any_dirty_) return;
  std::fill(dirty_.begin(), dirty_.end(), false);
  any_dirty_ = false;
}

PolicyStore::Delta PolicyStore::reconcile(
    const std::map<model::Key, model::EgressPolicy>& policies) {
  Delta delta;
  ++round_;
  // Later ones come one by one: to reserve for each would copy all each time.
  if (slots_.empty()) slots_.reserve(policies.size());
  for (const auto& [key, source] : policies) {
    std::uint32_t slot = 0;
    const bool added = !slot_of(key, slot);
    auto& policy = slots_[slot];
    // Statuses are written more often than specs: most revisions are known.
    const bool known = !added && policy.revision != 0 && policy.revision == source.meta.revision;
    if (!known) {
      auto now = parse(key, source);
      const bool same = !added && same_selection(policy, now);
      if (!same) delta.selection = true;
      if (same && same_effect(policy, now)) {
        policy.revision = now.revision;
        policy.ref = std::move(now.ref);
      } else {
        now.rank = policy.rank;
        now.v4 = policy.v4;
        now.v6 = policy.v6;
        policy = std::move(now);
        mark_dirty(slot);
      }
    }
    policy.seen = round_;
  }
  if (by_key_.size() != policies.size()) {
    delta.selection = true;
    drop_unseen();
  }
  if (delta.selection) {
    sort_all();
    delta.label_keys = rebuild_index();
  }
  return delta;
}

void PolicyStore::sort_all() {
  ordered_.clear();
  for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].used) ordered_.push_back(slot);
  }
  std::sort(ordered_.begin(), ordered_.end(), [this](std::uint32_t left, std::uint32_t right) {
    const auto& a = slots_[left];
    const auto& b = slots_[right];
    return std::forward_as_tuple(a.priority, a.ref.ns.empty(), a.created_ms, a.ref.name, a.ref.ns) <
           std::forward_as_tuple(b.priority, b.ref.ns.empty(), b.created_ms, b.ref.name, b.ref.ns);
  });
  for (std::uint32_t rank = 0; rank < ordered_.size(); ++rank) slots_[ordered_[rank]].rank = rank;
}

void PolicyStore::index_policy(std::uint32_t slot) {
  const auto& policy = slots_[slot];
  const bool cluster_wide = policy.ref.ns.empty();
  if (policy.pod_selector) {
    for (const auto& requirement : policy.pod_selector->requirements) {
      label_keys_.insert(requirement.key);
    }
  }
  if (policy.by_subnet) {
    for (const auto& prefix : policy.pod_subnets) subnets_[prefix].push_back(slot);
    return;
  }
  if (!selects_by_labels(policy)) return;
  if (!cluster_wide) {
    by_namespace_[policy.ref.ns].add(slot, &*policy.pod_selector);
  } else if (policy.pod_selector && most_selective(*policy.pod_selector) != nullptr) {
    by_pod_.add(slot, &*policy.pod_selector);
  } else {
    by_ns_.add(slot, policy.namespace_selector ? &*policy.namespace_selector : nullptr);
  }
}

bool PolicyStore::rebuild_index() {
  by_namespace_.clear();
  by_pod_ = {};
  by_ns_ = {};
  subnets_.clear();
  const auto old_keys = std::move(label_keys_);
  label_keys_ = {};
  for (const auto slot : ordered_) index_policy(slot);
  by_pod_.seal();
  by_ns_.seal();
  for (auto& [ns, index] : by_namespace_) index.seal();
  for (auto& lengths : subnet_lengths_) lengths.clear();
  for (const auto& [prefix, slots] : subnets_) {
    auto& lengths = subnet_lengths_[prefix.family() == model::Family::kV6 ? 1 : 0];
    const auto length = static_cast<std::uint8_t>(prefix.length());
    if (std::find(lengths.begin(), lengths.end(), length) == lengths.end()) {
      lengths.push_back(length);
    }
  }
  return old_keys != label_keys_;
}

void PolicyStore::mark_full_gateways(const EgressTable& gateways) {
  // What the gateway's status already holds stays; the rest follows in the policies' order.
  std::unordered_map<std::string, std::uint32_t> held;
  const auto count = [&](bool placed) {
    for (const auto slot : ordered_) {
      auto& policy = slots_[slot];
      const auto gateway = gateways.gateways.find(policy.gateway);
      const bool has_place =
          gateway != gateways.gateways.end() &&
          gateway->second.placements.count({policy.ref.ns, policy.ref.name}) != 0;
      if (has_place == placed) {
        policy.gateway_full = ++held[policy.gateway] > kMaxPoliciesPerGateway;
      }
    }
  };
  count(true);
  count(false);
}

void PolicyStore::decide(const EgressTable& gateways, const model::Settings& settings,
                         bool prefixes_known) {
  if (ordered_.size() > kMaxPoliciesPerGateway) {
    mark_full_gateways(gateways);
  } else {
    for (const auto slot : ordered_) slots_[slot].gateway_full = false;
  }
  for (const auto slot : ordered_) {
    const auto& policy = slots_[slot];
    const auto gateway = gateways.gateways.find(policy.gateway);
    const GatewayFacts* facts = gateway == gateways.gateways.end() ? nullptr : &gateway->second;
    const Placement* placement = nullptr;
    if (facts != nullptr && !policy.gateway_full) {
      const auto found = facts->placements.find({policy.ref.ns, policy.ref.name});
      // A policy made anew does not take over what its predecessor of that name had.
      if (found != facts->placements.end() &&
          model::may_be_same(found->second.policy_uid, policy.ref.uid)) {
        placement = &found->second;
      }
    }
    decide_one(slot, facts, placement, settings, prefixes_known);
  }
}

void PolicyStore::decide_one(std::uint32_t slot, const GatewayFacts* gateway,
                             const Placement* placement, const model::Settings& settings,
                             bool prefixes_known) {
  auto& policy = slots_[slot];
  policy.waits_for_prefixes = policy.all_destinations && !prefixes_known;
  policy.uncovered = 0;
  const bool to_node = policy.failure == model::FailurePolicy::kNodeIp;
  const Decision failure{to_node ? model::ActionKind::kNodeIp : model::ActionKind::kDrop, 0};
  const auto answer = [&](std::uint8_t family, bool enabled, bool pool) -> Decision {
    if (!enabled || policy.waits_for_prefixes) return {};
    if (placement != nullptr && (placement->families & family) != 0) {
      if (to_node && placement->unserved) return failure;
      if (!placement->placed) return {model::ActionKind::kDrop, 0};
      return {model::ActionKind::kEgress, placement->id};
    }
    // A gateway that is not there may yet turn out to have the family: nothing leaks meanwhile.
    if (gateway == nullptr || pool || policy.node_ip) {
      // NodeIP waits for the leader's word: it may be about to place it.
      const bool judged = placement != nullptr || policy.refused || policy.gateway_full;
      return judged ? failure : Decision{model::ActionKind::kDrop, 0};
    }
    policy.uncovered = static_cast<std::uint8_t>(policy.uncovered | family);
    return {};
  };
  const Decision v4 = answer(kHasV4, settings.enable_ipv4, gateway != nullptr && gateway->pool_v4);
  const Decision v6 = answer(kHasV6, settings.enable_ipv6, gateway != nullptr && gateway->pool_v6);
  if (v4 == policy.v4 && v6 == policy.v6) return;
  policy.v4 = v4;
  policy.v6 = v6;
  mark_dirty(slot);
}

bool PolicyStore::selects(std::uint32_t slot, const std::string& ns, const model::Labels& ns_labels,
                          const model::Labels& labels) const {
  const auto& policy = slots_[slot];
  if (policy.ref.ns.empty()) {
    if (policy.namespace_selector && !policy.namespace_selector->matches(ns_labels)) return false;
  } else if (policy.ref.ns != ns) {
    return false;
  }
  return !policy.pod_selector || policy.pod_selector->matches(labels);
}

void PolicyStore::sort_by_rank(std::vector<std::uint32_t>& slots) const {
  std::sort(slots.begin(), slots.end(),
            [this](auto a, auto b) { return slots_[a].rank < slots_[b].rank; });
  slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
}

std::vector<std::uint32_t> PolicyStore::select(const std::string& ns,
                                               const model::Labels& ns_labels,
                                               const model::Labels& labels) const {
  std::vector<std::uint32_t> slots;
  std::string scratch;
  if (const auto own = by_namespace_.find(ns); own != by_namespace_.end()) {
    own->second.candidates(labels, scratch, slots);
  }
  by_pod_.candidates(labels, scratch, slots);
  by_ns_.candidates(ns_labels, scratch, slots);
  slots.erase(std::remove_if(slots.begin(), slots.end(),
                             [&](auto slot) { return !selects(slot, ns, ns_labels, labels); }),
              slots.end());
  sort_by_rank(slots);
  slots.shrink_to_fit();
  return slots;
}

std::vector<std::uint32_t> PolicyStore::select_by_address(
    const std::string& ns, const model::Labels& ns_labels, const model::Labels& labels,
    std::span<const model::Address> addresses) const {
  std::vector<std::uint32_t> slots;
  for (const auto& address : addresses) {
    for (const auto length : subnet_lengths_[address.is_v6() ? 1 : 0]) {
      const auto found = subnets_.find(model::Prefix(address, length));
      if (found == subnets_.end()) continue;
      for (const auto slot : found->second) {
        if (selects(slot, ns, ns_labels, labels)) slots.push_back(slot);
      }
    }
  }
  sort_by_rank(slots);
  return slots;
}

model::ClassTable PolicyStore::table(const std::vector<std::uint32_t>& slots) const {
  static const model::Prefix all_v4(model::Address::v4({}), 0);
  static const model::Prefix all_v6(model::Address::v6({}), 0);
  std::vector<RankedRule> rules;
  std::uint32_t rank = 0;
  const auto add = [&](const model::Prefix& destination, const Decision& decision) {
    if (decision.action == model::ActionKind::kBypass) return;
    rules.push_back({{destination, decision.action, decision.id}, rank});
  };
  for (const auto slot : slots) {
    const auto& policy = slots_[slot];
    if (policy.all_destinations) {
      add(all_v4, policy.v4);
      add(all_v6, policy.v6);
    }
    for (const auto& prefix : policy.destinations) {
      add(prefix, prefix.family() == model::Family::kV4 ? policy.v4 : policy.v6);
    }
    ++rank;
  }
  return resolve(rules);
}

}  // namespace egw::core::detail
