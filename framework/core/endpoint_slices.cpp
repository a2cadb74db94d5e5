// Policies and their slices (endpoint_slices.hpp).
#include "egw/core/endpoint_slices.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <tuple>
#include <utility>

namespace egw::core {
namespace {

using model::EgressEndpointSlice;
using model::Endpoint;
using model::Key;

constexpr std::size_t kNameKept = 230;  // of 253; a hash and a number follow
constexpr std::size_t kMaxLabel = 63;

class Hash {
 public:
  void add(std::string_view text) {
    for (const char c : text) step(static_cast<std::uint8_t>(c));
    step(0);
  }
  void add(const std::vector<std::string>& texts) {
    for (const std::string& text : texts) add(text);
    step(1);
  }
  [[nodiscard]] std::uint64_t value() const { return value_; }

 private:
  void step(std::uint8_t byte) { value_ = (value_ ^ byte) * 1099511628211ULL; }  // FNV-1a
  std::uint64_t value_ = 14695981039346656037ULL;
};

std::uint64_t hash_of(const EgressEndpointSlice& slice) {
  Hash hash;
  hash.add(slice.policy_uid);
  for (const Endpoint& e : slice.endpoints) {
    for (const std::string* text : {&e.pod, &e.ns, &e.node}) hash.add(*text);
    hash.add(e.ipv4);
    hash.add(e.ipv6);
  }
  return hash.value();
}

// Without what a name may not end with, so that the whole stays a name.
std::string cut(const std::string& name, std::size_t most) {
  std::string out = name.substr(0, most);
  while (!out.empty() && (out.back() == '.' || out.back() == '-')) out.pop_back();
  return out;
}

// The N of slice_name(policy, N); 0: it is no such name.
std::uint32_t number_of(const std::string& name, const std::string& policy) {
  const std::size_t dash = name.rfind('-');
  if (dash == std::string::npos) return 0;
  std::uint32_t number = 0;
  const char* end = name.data() + name.size();
  const auto [stop, problem] = std::from_chars(name.data() + dash + 1, end, number);
  if (problem != std::errc() || stop != end) return 0;
  return number != 0 && slice_name(policy, number) == name ? number : 0;
}

}  // namespace

std::string slice_name(const std::string& policy, std::uint32_t number) {
  Hash hash;
  hash.add(policy);
  return fmt::format("{}-{:010x}-{}", cut(policy, kNameKept), hash.value() & 0xffffffffffULL,
                     number);
}

EndpointSlices::EndpointSlices(std::size_t most) : most_(std::max<std::size_t>(most, 1)) {}

// ---- policies ----------------------------------------------------------------------------------

void EndpointSlices::follow(const model::World& world) {
  const auto delta = policies_.reconcile(world.policies);
  policies_.clear_dirty();
  follow_owners(world);
  const bool relabelled = follow_namespaces(world);
  if (!delta.selection && !relabelled) return;
  groups_.clear();
  queue_all_pods();
}

void EndpointSlices::follow_owners(const model::World& world) {
  for (Owner& owner : owners_) owner.present = false;
  for (const auto& [key, policy] : world.policies) {
    Owner& owner = owners_[owner_of(key)];
    owner.present = true;
    if (owner.uid == policy.meta.uid) continue;
    owner.uid = policy.meta.uid;
    for (const std::uint32_t slice : owner.slices) queue_slice(slice);
  }
  const auto& slots = policies_.slots();
  owner_by_slot_.assign(slots.size(), 0);
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    if (!slots[slot].used) continue;
    owner_by_slot_[slot] = owner_of({slots[slot].ref.ns, slots[slot].ref.name});
  }
  for (std::uint32_t i = 0; i < owners_.size(); ++i) {
    Owner& owner = owners_[i];
    if (!owner.used || owner.present || !owner.slices.empty()) continue;
    owner_by_key_.erase(owner.key);
    owner = {};
    free_owners_.push_back(i);
  }
}

bool EndpointSlices::follow_namespaces(const model::World& world) {
  bool changed = false;
  for (const auto& [name, ns] : world.namespaces) {
    const auto known = namespaces_.find(name);
    model::Labels labels = model::namespace_labels(&ns, name);
    if (known != namespaces_.end() && known->second == labels) continue;
    namespaces_[name] = std::move(labels);
    changed = true;
  }
  if (namespaces_.size() == world.namespaces.size()) return changed;
  // Gone, or never stored and known by its name alone.
  const std::size_t gone = std::erase_if(
      namespaces_, [&](const auto& known) { return !world.namespaces.contains(known.first); });
  return changed || gone > 0;
}

const model::Labels& EndpointSlices::namespace_labels(const std::string& name) {
  const auto known = namespaces_.find(name);
  if (known != namespaces_.end()) return known->second;
  return namespaces_.emplace(name, model::namespace_labels(nullptr, name)).first->second;
}

std::uint32_t EndpointSlices::owner_of(const Key& policy) {
  const auto [found, added] = owner_by_key_.try_emplace(policy, 0);
  if (!added) return found->second;
  if (free_owners_.empty()) {
    found->second = static_cast<std::uint32_t>(owners_.size());
    owners_.emplace_back();
  } else {
    found->second = free_owners_.back();
    free_owners_.pop_back();
  }
  Owner& owner = owners_[found->second];
  owner.key = policy;
  owner.used = true;
  return found->second;
}

// ---- slices ------------------------------------------------------------------------------------

std::uint32_t EndpointSlices::make_slice(std::uint32_t policy, std::uint32_t number) {
  std::uint32_t index = 0;
  if (free_slices_.empty()) {
    index = static_cast<std::uint32_t>(slices_.size());
    slices_.emplace_back();
  } else {
    index = free_slices_.back();
    free_slices_.pop_back();
  }
  slices_[index].policy = policy;
  slices_[index].number = number;
  owners_[policy].slices.push_back(index);
  slice_by_key_.emplace(key_of(slices_[index]), index);
  return index;
}

void EndpointSlices::free_slice(std::uint32_t slice) {
  Owner& owner = owners_[slices_[slice].policy];
  std::erase(owner.slices, slice);
  owner.room_from = 0;
  slice_by_key_.erase(key_of(slices_[slice]));
  slices_[slice] = {};
  free_slices_.push_back(slice);
}

std::uint32_t EndpointSlices::slice_with_room(std::uint32_t policy) {
  Owner& owner = owners_[policy];
  for (; owner.room_from < owner.slices.size(); ++owner.room_from) {
    const std::uint32_t slice = owner.slices[owner.room_from];
    if (slices_[slice].pods.size() < most_) return slice;
  }
  std::vector<bool> taken(owner.slices.size() + 2, false);
  for (const std::uint32_t slice : owner.slices) {
    const std::uint32_t number = slices_[slice].number;
    if (number < taken.size()) taken[number] = true;
  }
  std::uint32_t number = 1;
  while (taken[number]) ++number;
  return make_slice(policy, number);
}

void EndpointSlices::queue_slice(std::uint32_t slice) {
  if (slices_[slice].queued) return;
  slices_[slice].queued = true;
  slices_to_do_.push_back(slice);
}

void EndpointSlices::join(std::uint32_t pod, std::uint32_t slice) {
  slices_[slice].pods.push_back(pod);
  queue_slice(slice);
}

void EndpointSlices::leave(std::uint32_t pod, const Member& member) {
  auto& pods = slices_[member.slice].pods;
  const auto at = std::find(pods.begin(), pods.end(), pod);
  *at = pods.back();
  pods.pop_back();
  Owner& owner = owners_[member.policy];
  const auto place = std::find(owner.slices.begin(), owner.slices.end(), member.slice);
  owner.room_from =
      std::min(owner.room_from, static_cast<std::size_t>(place - owner.slices.begin()));
  queue_slice(member.slice);
}

Key EndpointSlices::key_of(const Slice& slice) const {
  const Key& policy = owners_[slice.policy].key;
  return {policy.ns, slice_name(policy.name, slice.number)};
}

EgressEndpointSlice EndpointSlices::document(const Slice& slice) const {
  const Owner& owner = owners_[slice.policy];
  EgressEndpointSlice out;
  const Key key = key_of(slice);
  out.meta.ns = key.ns;
  out.meta.name = key.name;
  out.meta.labels.emplace(model::kPolicyNameLabel, cut(owner.key.name, kMaxLabel));
  out.meta.annotations.emplace(model::kPolicyNameLabel, owner.key.name);
  out.policy = owner.key.name;
  out.policy_uid = owner.uid;
  out.endpoints.reserve(slice.pods.size());
  for (const std::uint32_t index : slice.pods) {
    const Row& row = pods_[index];
    Endpoint& endpoint = out.endpoints.emplace_back();
    endpoint.pod = row.name_view();
    endpoint.ns = texts_.text(row.ns);
    endpoint.node = texts_.text(row.node);
    for (const model::Address& address : row.addresses) {
      if (!has(row, address)) continue;
      (address.is_v4() ? endpoint.ipv4 : endpoint.ipv6).push_back(address.to_string());
    }
  }
  std::sort(out.endpoints.begin(), out.endpoints.end(), [](const Endpoint& a, const Endpoint& b) {
    return std::tie(a.ns, a.pod) < std::tie(b.ns, b.pod);
  });
  return out;
}

// ---- what the store holds ----------------------------------------------------------------------

// Takes over a slice that a former leader has written. False: it belongs to no policy.
bool EndpointSlices::adopt(const EgressEndpointSlice& slice) {
  const std::uint32_t number = number_of(slice.meta.name, slice.policy);
  const auto found = owner_by_key_.find(Key{slice.meta.ns, slice.policy});
  if (number == 0 || found == owner_by_key_.end() || !owners_[found->second].present) return false;
  const std::uint32_t policy = found->second;
  const std::uint32_t index = make_slice(policy, number);
  if (!loaded_) {
    for (const Endpoint& endpoint : slice.endpoints) {
      if (slices_[index].pods.size() >= most_) break;
      const std::uint32_t pod = add_pod(endpoint.ns, endpoint.pod);
      auto& members = pods_[pod].members;
      const auto at =
          std::lower_bound(members.begin(), members.end(), policy,
                           [](const Member& m, std::uint32_t value) { return m.policy < value; });
      if (at != members.end() && at->policy == policy) continue;
      members.insert(at, {policy, index});
      slices_[index].pods.push_back(pod);
    }
  }
  return true;
}

void EndpointSlices::stored(const EgressEndpointSlice& slice) {
  const Key key = slice.meta.key();
  auto known = slice_by_key_.find(key);
  if (known == slice_by_key_.end() && adopt(slice)) known = slice_by_key_.find(key);
  if (known == slice_by_key_.end()) {
    const bool managed =
        !slice.policy.empty() || slice.meta.labels.contains(std::string(model::kPolicyNameLabel));
    // One that says of no policy that it is that one's is somebody's own.
    if (managed && slice.meta.deleted_ms == 0 && strangers_.emplace(key, true).second) {
      strangers_to_do_.push_back(key);
    }
    return;
  }
  Slice& here = slices_[known->second];
  if (here.is_stored && slice.meta.revision != 0 && slice.meta.revision < here.revision) return;
  here.is_stored = true;
  here.revision = slice.meta.revision;
  here.hash = hash_of(slice);
  queue_slice(known->second);
}

void EndpointSlices::not_stored(const Key& key) {
  strangers_.erase(key);
  const auto known = slice_by_key_.find(key);
  if (known == slice_by_key_.end()) return;
  Slice& slice = slices_[known->second];
  slice.is_stored = false;
  queue_slice(known->second);
}

std::vector<Key> EndpointSlices::all_stored() const {
  std::vector<Key> out;
  for (const auto& [key, index] : slice_by_key_) {
    if (slices_[index].is_stored) out.push_back(key);
  }
  for (const auto& [key, queued] : strangers_) out.push_back(key);
  return out;
}

EndpointSlices::Step EndpointSlices::next() {
  while (!strangers_to_do_.empty()) {
    Key key = std::move(strangers_to_do_.front());
    strangers_to_do_.pop_front();
    const auto known = strangers_.find(key);
    if (known == strangers_.end() || !known->second) continue;
    known->second = false;
    return {false, Job{std::move(key), std::nullopt}};
  }
  if (slices_to_do_.empty()) return {true, std::nullopt};
  const std::uint32_t index = slices_to_do_.front();
  slices_to_do_.pop_front();
  Slice& slice = slices_[index];
  slice.queued = false;
  if (slice.number == 0) return {};
  const Key key = key_of(slice);
  if (slice.pods.empty()) {
    if (slice.is_stored) return {false, Job{key, std::nullopt}};
    free_slice(index);
    return {};
  }
  EgressEndpointSlice wanted = document(slice);
  if (slice.is_stored && slice.hash == hash_of(wanted)) return {};
  return {false, Job{key, std::move(wanted), slice.is_stored}};
}

void EndpointSlices::again(const Key& key) {
  if (const auto stranger = strangers_.find(key); stranger != strangers_.end()) {
    if (!std::exchange(stranger->second, true)) strangers_to_do_.push_back(key);
    return;
  }
  const auto known = slice_by_key_.find(key);
  if (known != slice_by_key_.end()) queue_slice(known->second);
}

}  // namespace egw::core
