// Classes that share a group do not overlap: what a group's set answers by longest prefix is, for
// each class, what the class alone would answer.
#include "iptables/groups.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "iptables/sets.hpp"

namespace egw::iptables {
namespace {

common::ClassEntries entries(const std::vector<std::string>& prefixes) {
  common::ClassEntries out;
  std::uint32_t action = 1;
  for (const std::string& p : prefixes) out.push_back({*sdk::Prefix::parse(p), action++});
  return common::reduce(std::move(out));
}

TEST(Groups, ApartTogetherOverlappingApart) {
  Groups groups;
  const ClassPlace a = groups.place("a", entries({"10.1.0.0/16", "10.1.2.0/24"}));
  const ClassPlace b = groups.place("b", entries({"10.2.0.0/16"}));
  const ClassPlace inside = groups.place("c", entries({"10.1.2.0/25"}));
  const ClassPlace around = groups.place("d", entries({"10.0.0.0/8", "0.0.0.0/0"}));
  EXPECT_EQ(a.group, b.group);
  EXPECT_NE(inside.group, a.group);
  EXPECT_NE(around.group, a.group);
  EXPECT_NE(around.group, inside.group);
  EXPECT_EQ(groups.place("a", entries({"10.1.0.0/16", "10.1.2.0/24"})).number, a.number);
}

TEST(Groups, APlaceIsFreeAgainWhenItsClassIsGone) {
  Groups groups;
  const ClassPlace a = groups.place("a", entries({"10.1.0.0/16"}));
  groups.keep({});
  const ClassPlace b = groups.place("b", entries({"10.1.2.0/24"}));
  EXPECT_EQ(b.group, a.group);
  EXPECT_NE(b.number, a.number) << "a freed number is used again last";
}

TEST(Groups, WhatTheKernelHoldsIsKept) {
  Groups groups;
  const auto table = entries({"10.1.0.0/16", "0.0.0.0/0"});
  groups.learn(table, {77, 5});
  const ClassPlace a = groups.place("a", table);
  EXPECT_EQ(a.number, 77U);
  EXPECT_EQ(a.group, 5U);
}

// Whichever name comes first.
TEST(Groups, NobodyElseGetsAPlaceThatTheKernelHolds) {
  Groups groups;
  const auto held = entries({"10.1.0.0/16"}), fresh = entries({"10.1.2.0/24"});
  groups.learn(held, {1, 0});
  EXPECT_NE(groups.place("a", fresh).group, 0U);
  const ClassPlace b = groups.place("b", held);
  EXPECT_EQ(b.number, 1U);
  EXPECT_EQ(b.group, 0U);
}

TEST(Groups, APlaceThatTheKernelHoldsIsFreeWhenItsClassHasNotCome) {
  Groups groups;
  groups.learn(entries({"10.1.0.0/16"}), {1, 0});
  groups.keep({});
  EXPECT_EQ(groups.place("a", entries({"10.1.2.0/24"})).group, 0U);
}

TEST(Groups, ListsThatDifferInWhatTheySayOfAllOthersKeepTheirPlaces) {
  Groups groups;
  const auto some = [](std::uint32_t of_others) {
    return common::reduce(
        {{*sdk::Prefix::parse("10.1.0.0/16"), 7}, {*sdk::Prefix::parse("0.0.0.0/0"), of_others}});
  };
  groups.learn(some(8), {1, 0});
  groups.learn(some(9), {2, 1});
  const ClassPlace b = groups.place("b", some(9)), a = groups.place("a", some(8));
  EXPECT_EQ(std::pair(a.number, a.group), std::pair(1U, 0U));
  EXPECT_EQ(std::pair(b.number, b.group), std::pair(2U, 1U));
}

TEST(Groups, ANameThatStandsForAnotherTableGetsAnotherPlace) {
  Groups groups;
  const ClassPlace a = groups.place("a", entries({"10.1.0.0/16"}));
  const ClassPlace other = groups.place("b", entries({"10.2.0.0/16"}));
  const ClassPlace now = groups.place("a", entries({"10.2.3.0/24"}));
  EXPECT_NE(now.number, a.number);
  EXPECT_NE(now.group, other.group) << "they overlap";
}

RC_GTEST_PROP(Groups, TheLongestPrefixOfAGroupIsTheClasssOwn, ()) {
  Groups groups;
  struct Class {
    common::ClassEntries entries;
    ClassPlace place;
  };
  std::vector<Class> classes;
  const auto count = *rc::gen::inRange(1, 12);
  for (int i = 0; i < count; ++i) {
    common::ClassEntries table;
    for (int k = *rc::gen::inRange(1, 5); k > 0; --k) {
      const auto third = static_cast<std::uint8_t>(*rc::gen::inRange(0, 4));
      const auto last = static_cast<std::uint8_t>(*rc::gen::inRange(0, 256));
      const auto length = static_cast<unsigned>(*rc::gen::inRange(14, 33));
      table.push_back({sdk::Prefix(sdk::Address::v4(10, 1, third, last), length),
                       static_cast<std::uint32_t>(*rc::gen::inRange(1, 5))});
    }
    table = common::reduce(std::move(table));
    if (table.empty()) continue;
    const ClassPlace place = groups.place("class" + std::to_string(i), table);
    classes.push_back({std::move(table), place});
  }
  const auto asked = sdk::Address::v4(10, 1, static_cast<std::uint8_t>(*rc::gen::inRange(0, 4)),
                                      static_cast<std::uint8_t>(*rc::gen::inRange(0, 256)));
  for (const Class& c : classes) {
    // The longest of all prefixes in the group, and whether it is this class's.
    const common::ClassEntry* best = nullptr;
    std::uint32_t owner = 0;
    for (const Class& other : classes) {
      if (other.place.group != c.place.group) continue;
      for (const common::ClassEntry& e : other.entries) {
        if (e.prefix.contains(asked) && (best == nullptr || e.prefix.len >= best->prefix.len)) {
          best = &e;
          owner = other.place.number;
        }
      }
    }
    const std::uint32_t found =
        best != nullptr && owner == c.place.number ? best->action : common::kBypassNumber;
    RC_ASSERT(found == common::match(c.entries, asked));
  }
}

TEST(Prefixes, RangesBecomePrefixesWithoutThatOfLengthZero) {
  const auto all = prefixes_of(sdk::flatten<std::string>({{*sdk::Prefix::parse("0.0.0.0/0"), ""}}));
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].text(), "0.0.0.0/1");
  EXPECT_EQ(all[1].text(), "128.0.0.0/1");
  const auto two =
      prefixes_of(sdk::flatten<std::string>({{*sdk::Prefix::parse("10.0.0.0/24"), ""},
                                             {*sdk::Prefix::parse("10.0.1.0/24"), ""},
                                             {*sdk::Prefix::parse("10.0.2.7/32"), ""}}));
  ASSERT_EQ(two.size(), 2U);
  EXPECT_EQ(two[0].text(), "10.0.0.0/23");
  EXPECT_EQ(two[1].text(), "10.0.2.7/32");
}

}  // namespace
}  // namespace egw::iptables
