// Trees of chains: walked as the kernel walks them, every key finds its rule by few comparisons,
// and no other key finds one.
#include "iptables/radix.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <set>

#include "iptables/layout.hpp"

namespace egw::iptables {
namespace {

std::uint32_t number_behind(const std::string& rule, const std::string& word) {
  return static_cast<std::uint32_t>(
      std::strtoul(rule.c_str() + rule.find(word) + word.size(), nullptr, 0));
}

struct Walk {
  std::string verdict;
  std::size_t compared = 0;
};

// Rules are "-m mark --mark V/M -j WORD" or "... -g CHAIN", and a last one without match.
Walk walk(const Chains& chains, const std::string& root, std::uint32_t id) {
  Walk out;
  std::string chain = root;
  for (bool gone = true; gone;) {
    gone = false;
    for (const std::string& rule : chains.at(chain)) {
      ++out.compared;
      const auto at = rule.find("--mark ");
      if (at != std::string::npos) {
        const std::uint32_t value = number_behind(rule, "--mark ");
        const std::uint32_t mask = number_behind(rule, "/");
        if ((id & mask) != value) continue;
      }
      const auto jump = rule.find("-g ");
      if (jump == std::string::npos) {
        out.verdict = rule.substr(rule.find("-j ") + 3);
        return out;
      }
      chain = rule.substr(jump + 3);
      gone = true;
      break;
    }
  }
  return out;
}

Chains tree_of(const std::set<std::uint32_t>& ids) {
  std::vector<RadixLeaf> leaves;
  for (const std::uint32_t id : ids) {
    leaves.push_back({id_key(id), 16, id_match(id_key(id), 16) + " -j T" + std::to_string(id)});
  }
  Chains out;
  add_radix("EGW-T", leaves, {id_match, "-g", {"-j LOST"}}, out);
  return out;
}

RC_GTEST_PROP(Radix, EveryIdFindsItsOwn, ()) {
  const auto ids = *rc::gen::container<std::set<std::uint32_t>>(rc::gen::inRange(1U, 16384U));
  const Chains tree = tree_of(ids);
  for (std::uint32_t id = 0; id < 16384; id += 7) {
    RC_ASSERT(walk(tree, "EGW-T", id).verdict ==
              (ids.count(id) != 0 ? "T" + std::to_string(id) : "LOST"));
  }
  for (const std::uint32_t id : ids) {
    RC_ASSERT(walk(tree, "EGW-T", id).verdict == "T" + std::to_string(id));
  }
}

TEST(Radix, FewAreAListAndManyAreFoundByFewComparisons) {
  EXPECT_EQ(tree_of({1, 2, 3}).size(), 1U);
  std::set<std::uint32_t> all;
  for (std::uint32_t id = 1; id < 16384; ++id) all.insert(id);
  const Chains tree = tree_of(all);
  std::size_t most = 0;
  for (const std::uint32_t id : all) most = std::max(most, walk(tree, "EGW-T", id).compared);
  EXPECT_LE(most, 64U);
  for (const auto& [name, rules] : tree) {
    EXPECT_LE(rules.size(), 17U) << name;
    EXPECT_LE(name.size(), 28U) << "the kernel's names of chains are shorter";
  }
}

RC_GTEST_PROP(Radix, BlocksCoverTheIdsAndNothingElse, ()) {
  const auto ids = *rc::gen::container<std::set<std::uint32_t>>(rc::gen::inRange(1U, 600U));
  std::set<std::uint32_t> covered;
  for (const auto& [first, length] : id_blocks({ids.begin(), ids.end()})) {
    const std::uint32_t size = 1U << (16 - length);
    RC_ASSERT(first % size == 0);
    for (std::uint32_t id = first; id < first + size; ++id) RC_ASSERT(covered.insert(id).second);
  }
  RC_ASSERT(covered == ids);
}

}  // namespace
}  // namespace egw::iptables
