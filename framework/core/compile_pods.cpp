// Pods, groups and policy sets: see compile_pods.hpp.
#include "egw/core/compile_pods.hpp"

#include <algorithm>
#include <utility>

#include "egw/core/pod_claims.hpp"

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

std::uint64_t hash_name(std::uint32_t ns, std::string_view name) {
  return std::hash<std::string_view>{}(name) ^ (ns * 0x9e3779b97f4a7c15ULL);
}

bool eligible(const model::Pod& pod, const std::string& node) {
  return pod.node_name == node && may_claim(pod);
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
  const auto addresses = record.addresses();
  const std::size_t known = touched_addresses_.size();
  // A new pod's addresses and its set are touched one after the other.
  if (known >= addresses.size() &&
      std::equal(addresses.begin(), addresses.end(),
                 touched_addresses_.end() - static_cast<std::ptrdiff_t>(addresses.size()))) {
    return;
  }
  touched_addresses_.insert(touched_addresses_.end(), addresses.begin(), addresses.end());
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
    auto slots = policies.select_by_address(ns.name, ns.labels, group.labels, record.addresses());
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

void PodIndex::set_addresses(std::uint32_t pod, std::vector<model::Address> addresses) {
  auto& record = pods_[pod];
  const auto old = record.addresses();
  if (std::equal(old.begin(), old.end(), addresses.begin(), addresses.end())) return;
  touch_addresses(record);
  for (const auto& address : old) claims_.erase(std::hash<model::Address>{}(address), pod);
  record.more.reset();
  record.count = static_cast<std::uint8_t>(std::min<std::size_t>(addresses.size(), 3));
  if (addresses.size() > record.first.size()) {
    record.more = std::make_unique<std::vector<model::Address>>(std::move(addresses));
  } else {
    std::copy(addresses.begin(), addresses.end(), record.first.begin());
  }
  for (const auto& address : record.addresses()) {
    claims_.insert(std::hash<model::Address>{}(address), pod);
  }
  touch_addresses(record);
}

std::uint32_t PodIndex::find(std::uint32_t ns, std::string_view name) const {
  std::uint32_t found = kNoPod;
  pods_by_name_.find(hash_name(ns, name), [&](std::uint32_t pod) {
    if (pods_[pod].ns != ns || pods_[pod].name_view() != name) return false;
    found = pod;
    return true;
  });
  return found;
}

std::uint32_t PodIndex::add(std::uint32_t ns, const std::string& name) {
  std::uint32_t pod = 0;
  if (free_pods_.empty()) {
    pod = static_cast<std::uint32_t>(pods_.size());
    pods_.emplace_back();
  } else {
    pod = free_pods_.back();
    free_pods_.pop_back();
  }
  auto& record = pods_[pod];
  record.used = true;
  record.ns = ns;
  record.name = std::make_unique<char[]>(name.size());
  record.name_size = static_cast<std::uint32_t>(name.size());
  std::copy(name.begin(), name.end(), record.name.get());
  pods_by_name_.insert(hash_name(ns, name), pod);
  ++namespaces_[ns].pods;
  return pod;
}

void PodIndex::upsert(const model::World& world, const PolicyStore& policies,
                      const model::Pod& pod) {
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

  const auto ns = intern_namespace(pod.meta.ns);
  auto index = find(ns, pod.meta.name);
  if (index == kNoPod) index = add(ns, pod.meta.name);
  auto& record = pods_[index];
  record.seen = round_;
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
  set_addresses(index, std::move(addresses));

  const auto group = group_of(world, policies, ns, pod.meta.labels);
  if (group != record.group) {
    ++groups_[group].pods;
    leave_group(record.group);
    record.group = group;
  }
  assign(record, record.count == 0 ? 0 : hold_set_of(policies, record));
}

void PodIndex::remove(std::uint32_t pod) {
  auto& record = pods_[pod];
  set_addresses(pod, {});
  assign(record, 0);
  leave_group(record.group);
  if (record.disabled_family) --disabled_family_pods_;
  pods_by_name_.erase(hash_name(record.ns, record.name_view()), pod);
  leave_namespace(record.ns);
  record = Record{};
  free_pods_.push_back(pod);
}

void PodIndex::update(const model::World& world, const PolicyStore& policies,
                      const std::string& node, const model::Key& key) {
  const auto source = world.pods.find(key);
  if (source != world.pods.end() && eligible(source->second, node)) {
    upsert(world, policies, source->second);
    return;
  }
  const auto ns = namespace_by_name_.find(key.ns);
  if (ns == namespace_by_name_.end()) return;
  if (const auto pod = find(ns->second, key.name); pod != kNoPod) remove(pod);
}

// Groups as they are now are told apart by label keys that no longer are the ones that matter.
void PodIndex::regroup() {
  for (auto& record : pods_) {
    leave_group(record.group);
    record.group = 0;
  }
  for (auto& ns : namespaces_) ns.labels_read = false;
}

void PodIndex::drop_unseen() {
  for (std::uint32_t pod = 0; pod < pods_.size(); ++pod) {
    if (pods_[pod].used && pods_[pod].seen != round_) remove(pod);
  }
}

void PodIndex::update_all(const model::World& world, const PolicyStore& policies,
                          const std::string& node) {
  ++round_;
  regroup();
  pods_by_name_.reserve(world.pods.size());
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
  for (auto& record : pods_) {
    if (!record.used || (ns != nullptr && record.ns != only)) continue;
    assign(record, record.count == 0 ? 0 : hold_set_of(policies, record));
  }
}

void PodIndex::touch_pods_of(const std::vector<bool>& sets) {
  for (const auto& record : pods_) {
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
  const Record* best = nullptr;
  const auto claim = [this](const Record& pod) {
    return PodClaim{pod.created_ms, pod.terminating, namespaces_[pod.ns].name, pod.name_view()};
  };
  claims_.find(std::hash<model::Address>{}(address), [&](std::uint32_t pod) {
    const auto& record = pods_[pod];
    const auto addresses = record.addresses();
    if (std::find(addresses.begin(), addresses.end(), address) != addresses.end() &&
        (best == nullptr || outranks(claim(record), claim(*best)))) {
      best = &record;
    }
    return false;
  });
  return best == nullptr ? 0 : best->set;
}

}  // namespace egw::core::detail
