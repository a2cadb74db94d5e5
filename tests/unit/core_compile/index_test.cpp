// HashIndex against std::multimap.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "egw/core/compile_index.hpp"

namespace egw::core::detail {
namespace {

RC_GTEST_PROP(HashIndexProperty, HoldsWhatAMultimapHolds, ()) {
  HashIndex index;
  std::multimap<std::uint64_t, std::uint32_t> model;
  // Few hashes and many steps: chains, gaps in the middle of chains, growth.
  for (int step = *rc::gen::inRange(0, 400); step > 0; --step) {
    const auto hash = *rc::gen::inRange<std::uint64_t>(0, 24);
    const auto value = *rc::gen::inRange<std::uint32_t>(0, 6);
    if (*rc::gen::inRange(0, 5) < 3) {
      index.insert(hash, value);
      model.emplace(hash, value);
    } else {
      index.erase(hash, value);
      const auto [begin, end] = model.equal_range(hash);
      for (auto it = begin; it != end; ++it) {
        if (it->second == value) {
          model.erase(it);
          break;
        }
      }
    }
  }
  RC_ASSERT(index.size() == model.size());
  for (std::uint64_t hash = 0; hash < 24; ++hash) {
    std::multiset<std::uint32_t> found, wanted;
    index.find(hash, [&](std::uint32_t value) {
      found.insert(value);
      return false;
    });
    const auto [begin, end] = model.equal_range(hash);
    for (auto it = begin; it != end; ++it) wanted.insert(it->second);
    RC_ASSERT(found == wanted);
  }
}

TEST(HashIndex, StopsWhenToldAndHoldsMany) {
  HashIndex index;
  EXPECT_FALSE(index.find(1, [](auto) { return true; }));
  index.erase(1, 1);
  index.reserve(100000);
  for (std::uint32_t i = 0; i < 100000; ++i) index.insert(i, i);
  for (std::uint32_t i = 0; i < 100000; i += 2) index.erase(i, i);
  EXPECT_EQ(index.size(), 50000U);
  for (std::uint32_t i = 0; i < 100000; ++i) {
    ASSERT_EQ(index.find(i, [i](auto value) { return value == i; }), i % 2 == 1) << i;
  }
}

}  // namespace
}  // namespace egw::core::detail
