// diff: the step between two NodeStates. Used by tests and by whoever holds two states.
#include <algorithm>

#include "egw/core/compile.hpp"

namespace egw::core {

namespace {

// Walks two sorted maps side by side.
template <class Map, class OnUpsert, class OnDelete>
void compare(const Map& from, const Map& to, OnUpsert upsert, OnDelete remove) {
  auto old = from.begin();
  for (const auto& [key, value] : to) {
    for (; old != from.end() && old->first < key; ++old) remove(old->first);
    const bool same_key = old != from.end() && old->first == key;
    if (!same_key || !(old->second == value)) upsert(key, value);
    if (same_key) ++old;
  }
  for (; old != from.end(); ++old) remove(old->first);
}

}  // namespace

model::Change diff(const model::NodeState& from, const model::NodeState& to) {
  model::Change change;
  if (!(from.node == to.node)) change.node = to.node;
  compare(
      from.peers, to.peers, [&](const auto&, const auto& peer) { change.peers.push_back(peer); },
      [&](const auto& name) { change.deleted_peers.push_back(name); });
  compare(
      from.egresses, to.egresses,
      [&](auto, const auto& egress) { change.egresses.push_back(egress); },
      [&](auto id) { change.deleted_egresses.push_back(id); });
  compare(
      from.classes, to.classes,
      [&](auto id, const auto& table) { change.classes.emplace_back(id, table); },
      [&](auto id) { change.deleted_classes.push_back(id); });
  for (const auto& [address, class_id] : to.endpoints) {
    const auto old = from.endpoints.find(address);
    if (old == from.endpoints.end() || old->second != class_id) {
      change.endpoints.emplace_back(address, class_id);
    }
  }
  for (const auto& [address, class_id] : from.endpoints) {
    if (to.endpoints.count(address) == 0) change.deleted_endpoints.push_back(address);
  }
  std::sort(change.endpoints.begin(), change.endpoints.end());
  std::sort(change.deleted_endpoints.begin(), change.deleted_endpoints.end());
  return change;
}

}  // namespace egw::core
