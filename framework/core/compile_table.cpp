// Class tables and class ids: see compile_table.hpp.
#include "egw/core/compile_table.hpp"

#include <algorithm>

namespace egw::core::detail {

namespace {

bool same_action(const model::ClassRule& a, const model::ClassRule& b) {
  return a.action == b.action && a.egress_id == b.egress_id;
}

std::uint8_t families_of(const model::ClassTable& table) {
  std::uint8_t bits = 0;
  for (const auto& rule : table) {
    bits = static_cast<std::uint8_t>(bits | family_bit(rule.destination.family()));
  }
  return bits;
}

}  // namespace

model::ClassTable resolve(std::vector<RankedRule>& rules) {
  // Address before length puts a prefix right before those inside it, so the prefixes around the
  // present one are a stack.
  std::sort(rules.begin(), rules.end(), [](const RankedRule& a, const RankedRule& b) {
    if (a.rule.destination != b.rule.destination) return a.rule.destination < b.rule.destination;
    return a.rank < b.rank;
  });
  model::ClassTable table;
  table.reserve(rules.size());
  std::vector<const RankedRule*> around;
  for (const auto& candidate : rules) {
    const auto& destination = candidate.rule.destination;
    while (!around.empty() && !around.back()->rule.destination.contains(destination)) {
      around.pop_back();
    }
    // The innermost one around has the best rank of all around: a worse one was not pushed.
    if (!around.empty() && around.back()->rank <= candidate.rank) continue;
    if (around.empty() || !same_action(around.back()->rule, candidate.rule)) {
      table.push_back(candidate.rule);
    }
    around.push_back(&candidate);
  }
  table.shrink_to_fit();
  return table;
}

std::vector<model::Prefix> minimal_cover(std::vector<model::Prefix> prefixes) {
  std::sort(prefixes.begin(), prefixes.end());
  std::vector<model::Prefix> out;
  for (const auto& prefix : prefixes) {
    if (out.empty() || !out.back().contains(prefix)) out.push_back(prefix);
  }
  out.shrink_to_fit();
  return out;
}

std::uint64_t hash_table(const model::ClassTable& table) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  const auto mix = [&hash](std::uint64_t value) { hash = (hash ^ value) * 0x100000001b3ULL; };
  for (const auto& rule : table) {
    const auto value = rule.destination.address().value();
    mix(static_cast<std::uint64_t>(value));
    mix(static_cast<std::uint64_t>(value >> 64U));
    mix((static_cast<std::uint64_t>(rule.egress_id) << 24U) |
        (static_cast<std::uint64_t>(rule.destination.family()) << 16U) |
        (static_cast<std::uint64_t>(rule.action) << 8U) | rule.destination.length());
    hash ^= hash >> 29U;
  }
  return hash;
}

std::uint32_t ClassPool::find(const model::ClassTable& table, std::uint64_t hash) const {
  const auto [begin, end] = by_hash_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (classes_.at(it->second) == table) return it->second;
  }
  return 0;
}

bool ClassPool::has(std::uint32_t id, const model::ClassTable& table) const {
  const auto found = classes_.find(id);
  return found != classes_.end() && found->second == table;
}

void ClassPool::drop_user(std::uint32_t id) {
  if (--infos_.at(id).users == 0) dropped_.push_back(id);
}

bool ClassPool::unused(std::uint32_t id) const {
  const auto found = infos_.find(id);
  return found != infos_.end() && found->second.users == 0;
}

void ClassPool::remember(std::uint32_t id) {
  if (before_.count(id) != 0) return;
  const auto found = classes_.find(id);
  before_.emplace(id, found == classes_.end() ? std::nullopt : std::optional(found->second));
}

void ClassPool::forget_hash(std::uint32_t id, std::uint64_t hash) {
  const auto [begin, end] = by_hash_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (it->second == id) {
      by_hash_.erase(it);
      return;
    }
  }
}

void ClassPool::insert(std::uint32_t id, model::ClassTable table, std::uint64_t hash) {
  remember(id);
  infos_[id] = Info{hash, 1, families_of(table)};
  by_hash_.emplace(hash, id);
  classes_[id] = std::move(table);
}

void ClassPool::replace(std::uint32_t id, model::ClassTable table, std::uint64_t hash) {
  forget_hash(id, infos_.at(id).hash);
  insert(id, std::move(table), hash);
}

std::uint32_t ClassPool::free_id() {
  while (next_id_ == 0 || classes_.count(next_id_) != 0) ++next_id_;
  return next_id_++;
}

std::uint32_t ClassPool::create(model::ClassTable table, std::uint64_t hash) {
  const std::uint32_t id = free_id();
  insert(id, std::move(table), hash);
  return id;
}

void ClassPool::end(model::Change& change) {
  for (const auto id : dropped_) {
    if (!unused(id)) continue;
    remember(id);
    forget_hash(id, infos_.at(id).hash);
    infos_.erase(id);
    classes_.erase(id);
  }
  dropped_.clear();
  for (const auto& [id, old] : before_) {
    const auto now = classes_.find(id);
    if (now == classes_.end()) {
      if (old) change.deleted_classes.push_back(id);
    } else if (!old || *old != now->second) {
      change.classes.emplace_back(id, now->second);
    }
  }
  before_.clear();
}

}  // namespace egw::core::detail
