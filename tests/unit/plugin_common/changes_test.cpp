// A big load goes in portions, in an order in which nothing leads to what is not there yet.
#include "common/nftables/changes.hpp"

#include <gtest/gtest.h>

#include <set>

namespace egw::common {
namespace {

Elements numbered(std::uint32_t n) {
  Elements out;
  for (std::uint32_t i = 0; i < n; ++i) out.emplace_back(register_u32(i), "");
  return out;
}

TEST(Changes, AnOrdinaryChangeIsOneTransaction) {
  TableChanges changes;
  changes[0].push_back(
      {"owner", false, numbered(3000), numbered(3000)});  // replaced: all or nothing
  changes[1].push_back({"endpoints", false, {}, numbered(kPortion)});
  EXPECT_EQ(portions(changes, "endpoints").size(), 1U);
  EXPECT_TRUE(portions({}, "endpoints").empty());
}

TEST(Changes, ABigLoadGoesInPortionsEndpointsLast) {
  TableChanges changes;
  changes[0].push_back({"endpoints", false, {}, numbered(2 * kPortion + 1)});
  changes[0].push_back({"m24", false, {}, numbered(kPortion + 1)});
  changes[1].push_back({"shapes", true, {}, numbered(3)});
  const auto out = portions(changes, "endpoints");
  ASSERT_EQ(out.size(), 6U);
  EXPECT_EQ(out[0][0].at(0).set, "m24");
  EXPECT_EQ(out[1][0].at(0).add.size(), 1U);
  EXPECT_EQ(out[2][1].at(0).set, "shapes");
  std::set<std::string> endpoints;
  for (std::size_t i = 3; i < out.size(); ++i) {
    EXPECT_EQ(out[i][0].at(0).set, "endpoints");
    EXPECT_LE(out[i][0].at(0).add.size(), kPortion);
    for (const auto& [key, data] : out[i][0].at(0).add) endpoints.insert(key);
  }
  EXPECT_EQ(endpoints.size(), 2 * kPortion + 1);
}

TEST(Changes, DifferenceReplacesInOneTransaction) {
  const SetSpec spec{"x", true, {}, 4, 4, false, false};
  ElementChange put, drop;
  difference(spec, {{"a", "1"}, {"b", "1"}, {"c", "1"}}, {{"b", "2"}, {"c", "1"}, {"d", "1"}}, put,
             drop, {});
  EXPECT_EQ(put.remove, (Elements{{"b", "1"}}));
  EXPECT_EQ(put.add, (Elements{{"b", "2"}, {"d", "1"}}));
  EXPECT_EQ(drop.remove, (Elements{{"a", "1"}}));
  EXPECT_TRUE(drop.add.empty());
}

}  // namespace
}  // namespace egw::common
