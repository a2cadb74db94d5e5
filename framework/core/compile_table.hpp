// Class tables: longest-prefix resolution of several policies' prefixes, and the pool that gives
// equal tables one class id. Used by core::Compiler only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "egw/model/node_state.hpp"

namespace egw::core::detail {

// Families for which a table has a rule.
inline constexpr std::uint8_t kHasV4 = 1;
inline constexpr std::uint8_t kHasV6 = 2;

[[nodiscard]] constexpr std::uint8_t family_bit(model::Family family) {
  return family == model::Family::kV4 ? kHasV4 : family == model::Family::kV6 ? kHasV6 : 0;
}

// rank: position of the rule's policy in the class, 0 wins.
struct RankedRule {
  model::ClassRule rule;
  std::uint32_t rank = 0;
};

// A table in which the longest prefix is the answer: a rule inside a prefix of a better rank is
// removed, of equal prefixes the better rank stays, and a rule that says the same as the one around
// it is left out. Reorders `rules`.
[[nodiscard]] model::ClassTable resolve(std::vector<RankedRule>& rules);

// Sorted, without duplicates and without prefixes that another one contains.
[[nodiscard]] std::vector<model::Prefix> minimal_cover(std::vector<model::Prefix> prefixes);

[[nodiscard]] std::uint64_t hash_table(const model::ClassTable& table);

// The classes of a NodeState with the number of policy sets that use each. Remembers what it
// changed since begin(), so that the step can be told.
class ClassPool {
 public:
  explicit ClassPool(std::map<std::uint32_t, model::ClassTable>& classes) : classes_(classes) {}

  void begin() { before_.clear(); }
  // 0: no class has this content.
  [[nodiscard]] std::uint32_t find(const model::ClassTable& table, std::uint64_t hash) const;
  [[nodiscard]] bool has(std::uint32_t id, const model::ClassTable& table) const;
  void add_user(std::uint32_t id) { ++infos_.at(id).users; }
  void drop_user(std::uint32_t id);
  [[nodiscard]] bool unused(std::uint32_t id) const;
  // Gives an unused class other content.
  void replace(std::uint32_t id, model::ClassTable table, std::uint64_t hash);
  // A new class, with one user. Takes the next id that was never used, and only after all of them
  // one that was freed.
  [[nodiscard]] std::uint32_t create(model::ClassTable table, std::uint64_t hash);
  [[nodiscard]] std::uint8_t families(std::uint32_t id) const { return infos_.at(id).families; }
  // Removes classes without users; then tells what has changed since begin().
  void end(model::Change& change);

 private:
  struct Info {
    std::uint64_t hash = 0;
    std::uint32_t users = 0;
    std::uint8_t families = 0;
  };
  void remember(std::uint32_t id);
  void insert(std::uint32_t id, model::ClassTable table, std::uint64_t hash);
  void forget_hash(std::uint32_t id, std::uint64_t hash);
  [[nodiscard]] std::uint32_t free_id();

  std::map<std::uint32_t, model::ClassTable>& classes_;
  std::unordered_map<std::uint32_t, Info> infos_;
  std::unordered_multimap<std::uint64_t, std::uint32_t> by_hash_;
  std::map<std::uint32_t, std::optional<model::ClassTable>> before_;
  std::vector<std::uint32_t> dropped_;  // lost a user since begin()
  std::uint32_t next_id_ = 1;
};

}  // namespace egw::core::detail
