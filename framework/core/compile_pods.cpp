// Pods, groups and policy sets: see compile_pods.hpp.
#include "egw/core/compile_pods.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

namespace egw::core::detail {

namespace {

// Set by the API server on every namespace (KEP-2161); a store without it means the same.
constexpr const char* kNamespaceNameLabel = "kubernetes.io/metadata.name";

std::size_t hash_slots(const std::vector<std::uint32_t>& slots) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const auto slot : slots) {
    hash = (hash ^ slot) * 0x100000001b3ULL;
    hash ^= hash >> 31U;
  }
  return static_cast<std::size_t>(hash);
}

bool eligible(const model::Pod& pod, const std::string& node) {
  return pod.node_name == node && !pod.host_network && !pod.finished && !pod.ips.empty();
}

}  // namespace

void PodIndex::touch_set(std::uint32_t set) {
  if (set == 0 || sets_[set].touched) return;
  sets_[set].touched = true;
  touched_sets_.push_back(set);
}

std::uint32_t PodIndex::hold_set(std::vector<std::uint32_t> slots) {
  if (slots.empty()) return 0;
  const auto hash = hash_slots(slots);
  const auto [begin, end] = set_by_hash_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (sets_[it->second].slots == slots) {
      ++sets_[it->second].holders;
      return it->second;
    }
  }
  std::uint32_t index = 0;
  if (free_sets_.empty()) {
    index = static_cast<std::uint32_t>(sets_.size());
    sets_.emplace_back();
  } else {
    index = free_sets_.back();
    free_sets_.pop_back();
  }
  sets_[index].slots = std::move(slots);
  sets_[index].holders = 1;
  set_by_hash_.emplace(hash, index);
  touch_set(index);
  return index;
}

void PodIndex::release_set(std::uint32_t set) {
  if (set != 0 && --sets_[set].holders == 0) touch_set(set);
}

void PodIndex::end() {
  for (const auto index : touched_sets_) {
    auto& set = sets_[index];
    set.touched = false;
    set.known = set.pods != 0;
    if (set.holders != 0) continue;
    const auto [begin, end] = set_by_hash_.equal_range(hash_slots(set.slots));
    for (auto it = begin; it != end; ++it) {
      if (it->second == index) {
        set_by_hash_.erase(it);
        break;
      }
    }
    set = PolicySet{};
    free_sets_.push_back(index);
  }
  touched_sets_.clear();
}

// The caller holds `set` once for the record; the record's former set is released.
void PodIndex::assign(Record& record, std::uint32_t set) {
  if (record.set == set) {
    release_set(set);
    return;
  }
  if (record.set != 0 && --sets_[record.set].pods == 0) touch_set(record.set);
  release_set(record.set);
  record.set = set;
  if (set != 0 && sets_[set].pods++ == 0) touch_set(set);
  touch_addresses(record);
}

void PodIndex::touch_addresses(const Record& record) {
  touched_addresses_.insert(touched_addresses_.end(), record.addresses.begin(),
                            record.addresses.end());
}

std::uint32_t PodIndex::intern_namespace(const std::string& name) {
  const auto [found, added] = namespace_by_name_.try_emplace(name, 0);
  if (!added) return found->second;
  if (free_namespaces_.empty()) {
    found->second = static_cast<std::uint32_t>(namespaces_.size());
    namespaces_.emplace_back();
  } else {
    found->second = free_namespaces_.back();
    free_namespaces_.pop_back();
  }
  namespaces_[found->second].name = name;
  return found->second;
}

void PodIndex::leave_namespace(std::uint32_t ns) {
  if (--namespaces_[ns].pods != 0) return;
  namespace_by_name_.erase(namespaces_[ns].name);
  namespaces_[ns] = Namespace{};
  free_namespaces_.push_back(ns);
}

const PodIndex::Namespace& PodIndex::read_namespace(const model::World& world, std::uint32_t ns) {
  auto& info = namespaces_[ns];
  if (!info.labels_read) {
    info.labels_read = true;
    info.labels.clear();
    if (const auto found = world.namespaces.find(info.name); found != world.namespaces.end()) {
      info.labels = found->second.meta.labels;
    }
    info.labels[kNamespaceNameLabel] = info.name;
  }
  return info;
}

std::uint32_t PodIndex::group_of(const model::World& world, const PolicyStore& policies,
                                 std::uint32_t ns, const model::Labels& labels) {
  std::string key(reinterpret_cast<const char*>(&ns), sizeof ns);
  for (const auto& [name, value] : labels) {
    if (!policies.label_key_matters(name)) continue;
    key += name;
    key += '\0';
    key += value;
    key += '\0';
  }
  const auto [found, added] = group_by_key_.try_emplace(std::move(key), 0);
  if (!added) return found->second;
  if (free_groups_.empty()) {
    found->second = static_cast<std::uint32_t>(groups_.size());
    groups_.emplace_back();
  } else {
    found->second = free_groups_.back();
    free_groups_.pop_back();
  }
  auto& group = groups_[found->second];
  group.ns = ns;
  group.key = &found->first;
  for (const auto& [name, value] : labels) {
    if (policies.label_key_matters(name)) group.labels.emplace(name, value);
  }
  const auto& info = read_namespace(world, ns);
  group.set = hold_set(policies.select(info.name, info.labels, group.labels));
  return found->second;
}

void PodIndex::leave_group(std::uint32_t group) {
  if (group == 0 || --groups_[group].pods != 0) return;
  release_set(groups_[group].set);
  group_by_key_.erase(group_by_key_.find(*groups_[group].key));
  groups_[group] = Group{};
  free_groups_.push_back(group);
}

std::uint32_t PodIndex::hold_set_of(const PolicyStore& policies, const Record& record) {
  const auto& group = groups_[record.group];
  if (policies.uses_subnets()) {
    const auto& ns = namespaces_[group.ns];
    auto slots = policies.select_by_address(ns.name, ns.labels, group.labels, record.addresses);
    if (!slots.empty()) {
      const auto& base = sets_[group.set].slots;
      slots.insert(slots.end(), base.begin(), base.end());
      policies.sort_by_rank(slots);
      return hold_set(std::move(slots));
    }
  }
  if (group.set != 0) ++sets_[group.set].holders;
  return group.set;
}

void PodIndex::set_addresses(Pods::value_type& pod, std::vector<model::Address> addresses) {
  auto& record = pod.second;
  if (record.addresses == addresses) return;
  touch_addresses(record);
  for (const auto& address : record.addresses) {
    const auto [begin, end] = claims_.equal_range(address);
    for (auto it = begin; it != end; ++it) {
      if (it->second == &pod) {
        claims_.erase(it);
        break;
      }
    }
  }
  record.addresses = std::move(addresses);
  for (const auto& address : record.addresses) claims_.emplace(address, &pod);
  touch_addresses(record);
}

void PodIndex::upsert(const model::World& world, const PolicyStore& policies,
                      const model::Pod& pod) {
  const auto ns = intern_namespace(pod.meta.ns);
  const auto [found, added] = pods_.try_emplace(Name{ns, pod.meta.name});
  auto& record = found->second;
  if (added) ++namespaces_[ns].pods;
  record.seen = round_;

  std::vector<model::Address> addresses;
  addresses.reserve(pod.ips.size());
  bool disabled = false;
  for (const auto& address : pod.ips) {
    if (!address) continue;
    const bool enabled = address.is_v4() ? settings_.enable_ipv4 : settings_.enable_ipv6;
    if (enabled) addresses.push_back(address);
    disabled |= !enabled;
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  if (disabled != record.disabled_family) {
    record.disabled_family = disabled;
    if (disabled) {
      ++disabled_family_pods_;
    } else {
      --disabled_family_pods_;
    }
  }
  const bool terminating = pod.meta.deleted_ms != 0;
  if (record.created_ms != pod.meta.created_ms || record.terminating != terminating) {
    record.created_ms = pod.meta.created_ms;
    record.terminating = terminating;
    touch_addresses(record);  // decides who has an address that two pods claim
  }
  set_addresses(*found, std::move(addresses));

  const auto group = group_of(world, policies, ns, pod.meta.labels);
  if (group != record.group) {
    ++groups_[group].pods;
    leave_group(record.group);
    record.group = group;
  }
  assign(record, record.addresses.empty() ? 0 : hold_set_of(policies, record));
}

void PodIndex::remove(Pods::iterator pod) {
  auto& record = pod->second;
  set_addresses(*pod, {});
  assign(record, 0);
  leave_group(record.group);
  if (record.disabled_family) --disabled_family_pods_;
  leave_namespace(pod->first.ns);
  pods_.erase(pod);
}

PodIndex::Pods::iterator PodIndex::find(const model::Key& key) {
  const auto ns = namespace_by_name_.find(key.ns);
  return ns == namespace_by_name_.end() ? pods_.end() : pods_.find(Name{ns->second, key.name});
}

void PodIndex::update(const model::World& world, const PolicyStore& policies,
                      const std::string& node, const model::Key& key) {
  const auto source = world.pods.find(key);
  if (source != world.pods.end() && eligible(source->second, node)) {
    upsert(world, policies, source->second);
  } else if (const auto pod = find(key); pod != pods_.end()) {
    remove(pod);
  }
}

// Groups as they are now are told apart by label keys that no longer are the ones that matter.
void PodIndex::regroup() {
  for (auto& [name, record] : pods_) {
    leave_group(record.group);
    record.group = 0;
  }
  for (auto& ns : namespaces_) ns.labels_read = false;
}

void PodIndex::drop_unseen() {
  for (auto it = pods_.begin(); it != pods_.end();) {
    const auto next = std::next(it);
    if (it->second.seen != round_) remove(it);
    it = next;
  }
}

void PodIndex::update_all(const model::World& world, const PolicyStore& policies,
                          const std::string& node) {
  ++round_;
  regroup();
  pods_.reserve(world.pods.size());
  claims_.reserve(world.pods.size());
  for (const auto& [key, pod] : world.pods) {
    if (eligible(pod, node)) upsert(world, policies, pod);
  }
  drop_unseen();
}

void PodIndex::rematch(const model::World& world, const PolicyStore& policies,
                       const std::string* ns) {
  std::uint32_t only = UINT32_MAX;
  if (ns != nullptr) {
    const auto found = namespace_by_name_.find(*ns);
    if (found == namespace_by_name_.end()) return;
    only = found->second;
    namespaces_[only].labels_read = false;
  }
  for (auto& group : groups_) {
    if (group.pods == 0 || (ns != nullptr && group.ns != only)) continue;
    const auto& info = read_namespace(world, group.ns);
    const auto set = hold_set(policies.select(info.name, info.labels, group.labels));
    release_set(group.set);
    group.set = set;
  }
  for (auto& [name, record] : pods_) {
    if (ns != nullptr && name.ns != only) continue;
    assign(record, record.addresses.empty() ? 0 : hold_set_of(policies, record));
  }
}

void PodIndex::touch_pods_of(const std::vector<bool>& sets) {
  for (const auto& [name, record] : pods_) {
    if (record.set != 0 && sets[record.set]) touch_addresses(record);
  }
}

std::vector<model::Address> PodIndex::take_touched_addresses() {
  std::sort(touched_addresses_.begin(), touched_addresses_.end());
  touched_addresses_.erase(std::unique(touched_addresses_.begin(), touched_addresses_.end()),
                           touched_addresses_.end());
  return std::exchange(touched_addresses_, {});
}

std::uint32_t PodIndex::set_of(const model::Address& address) const {
  const Pods::value_type* best = nullptr;
  const auto rank = [this](const Pods::value_type& pod) {
    return std::tuple<std::int64_t, bool, const std::string&, const std::string&>(
        pod.second.created_ms, !pod.second.terminating, namespaces_[pod.first.ns].name,
        pod.first.name);
  };
  const auto [begin, end] = claims_.equal_range(address);
  for (auto it = begin; it != end; ++it) {
    if (best == nullptr || rank(*best) < rank(*it->second)) best = it->second;
  }
  return best == nullptr ? 0 : best->second.set;
}

}  // namespace egw::core::detail
