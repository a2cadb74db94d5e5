// IpPool: the rules of ippools entries, and set arithmetic against a plain std::set as the model.
#include "egw/model/ip_pool.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <limits>
#include <set>

namespace egw::model {
namespace {

using testing::HasSubstr;

Address addr(const std::string& text) { return Address::parse(text).value(); }

IpPool pool4(const std::vector<std::string>& entries) {
  return IpPool::parse(Family::kV4, entries, "spec.ippools.ipv4").value();
}
IpPool pool6(const std::vector<std::string>& entries) {
  return IpPool::parse(Family::kV6, entries, "spec.ippools.ipv6").value();
}

TEST(IpPool, PrefixOf30OrShorterLeavesOutItsEnds) {
  EXPECT_EQ(pool4({"10.6.1.0/30"}).to_string(), "10.6.1.1-10.6.1.2");
  EXPECT_EQ(pool4({"10.6.1.0/24"}).to_string(), "10.6.1.1-10.6.1.254");
  EXPECT_EQ(pool4({"0.0.0.0/0"}).to_string(), "0.0.0.1-255.255.255.254");
  EXPECT_EQ(pool4({"10.6.1.0/31"}).to_string(), "10.6.1.0-10.6.1.1");
  EXPECT_EQ(pool4({"10.6.1.7/32"}).to_string(), "10.6.1.7");
}

TEST(IpPool, EndsOfAPrefixCountWhenListedSingly) {
  EXPECT_EQ(pool4({"10.6.1.0/30", "10.6.1.0", "10.6.1.3"}).to_string(), "10.6.1.0-10.6.1.3");
}

TEST(IpPool, RangesAndIpv6PrefixesLeaveOutNothing) {
  EXPECT_EQ(pool4({"10.6.1.0-10.6.1.255"}).count(), 256);
  EXPECT_EQ(pool6({"fd00::/126"}).to_string(), "fd00::-fd00::3");
  EXPECT_EQ(pool6({"fd00::/126"}).count(), 4);
}

TEST(IpPool, HostBitsAreNormalised) {
  EXPECT_EQ(pool4({"10.6.1.77/30"}).to_string(), "10.6.1.77-10.6.1.78");
}

TEST(IpPool, DuplicatesAndNeighboursMerge) {
  EXPECT_EQ(pool4({"10.0.0.5", "10.0.0.1-10.0.0.4", "10.0.0.3-10.0.0.6", "10.0.0.9"}).to_string(),
            "10.0.0.1-10.0.0.6, 10.0.0.9");
}

TEST(IpPool, ErrorNamesTheEntry) {
  const auto bad =
      IpPool::parse(Family::kV4, {"10.0.0.1", "10.0.0.9-10.0.0.2"}, "spec.ippools.ipv4");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().object, "spec.ippools.ipv4[1]");
  EXPECT_THAT(bad.error().message, HasSubstr("10.0.0.9-10.0.0.2"));
  const auto other = IpPool::parse(Family::kV4, {"fd00::1"}, "spec.ippools.ipv4");
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("fd00::1\" is not IPv4"));
  for (const char* text : {"", "10.0.0.1/33", "10.0.0", "a-b", "10.0.0.1-fd00::1", "10.0.0.1-"}) {
    EXPECT_FALSE(IpPool::parse(Family::kV4, {text}, "p")) << text;
  }
}

TEST(IpPool, ParseValidKeepsTheGoodEntries) {
  std::vector<Error> errors;
  const IpPool pool = IpPool::parse_valid(Family::kV4, {"x", "10.0.0.1", "fd00::1"}, "p", &errors);
  EXPECT_EQ(pool.to_string(), "10.0.0.1");
  ASSERT_EQ(errors.size(), 2U);
  EXPECT_EQ(errors[0].object, "p[0]");
  EXPECT_EQ(errors[1].object, "p[2]");
}

TEST(IpPool, HugePoolsCostNothing) {
  const IpPool all = pool6({"::/0"});
  EXPECT_EQ(all.count(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(all.first(), addr("::"));
  EXPECT_EQ(all.nth(1), addr("::1"));
  EXPECT_EQ(all.rank(addr("::5")), 5U);
  EXPECT_EQ(all.rank(addr("ffff::")), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(all.next_after(addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")), addr("::"));
  EXPECT_EQ(all.minus(pool6({"fd00::/64"})).to_string(),
            "::-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff, "
            "fd00:0:0:1::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
  EXPECT_TRUE(all.minus(all).empty());
  const IpPool net = pool6({"fd00::/64"});
  EXPECT_EQ(net.count(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(net.next_free_after({}, {addr("fd00::"), addr("fd00::1")}), addr("fd00::2"));
  EXPECT_EQ(pool6({"fd00::/66"}).count(), std::int64_t{1} << 62);
}

TEST(IpPool, NextGoesRound) {
  const IpPool pool = pool4({"10.0.0.1-10.0.0.3", "10.0.0.7"});
  EXPECT_EQ(pool.next_after({}), addr("10.0.0.1"));
  EXPECT_EQ(pool.next_after(addr("10.0.0.3")), addr("10.0.0.7"));
  EXPECT_EQ(pool.next_after(addr("10.0.0.7")), addr("10.0.0.1"));
  EXPECT_EQ(pool.next_after(addr("255.255.255.255")), addr("10.0.0.1"));
  EXPECT_EQ(pool.next_free_after(addr("10.0.0.2"), {addr("10.0.0.3"), addr("10.0.0.7")}),
            addr("10.0.0.1"));
  EXPECT_EQ(pool4({"10.0.0.1"}).next_free_after({}, {addr("10.0.0.1")}), Address{});
  EXPECT_EQ(IpPool(Family::kV4).next_after({}), Address{});
}

TEST(IpPool, OverlapNamesTheFirstCommonAddress) {
  EXPECT_EQ(pool4({"10.0.0.1-10.0.0.9"}).first_common(pool4({"10.0.0.0", "10.0.0.8-10.0.0.20"})),
            addr("10.0.0.8"));
  EXPECT_FALSE(pool4({"10.0.0.1"}).overlaps(pool4({"10.0.0.2"})));
  EXPECT_FALSE(pool4({"10.0.0.1"}).overlaps(pool6({"::/0"})));
}

// ---- against a set of small numbers ----------------------------------------------------------
Address small(unsigned n) { return Address::from_value(Family::kV4, 0x0a000000U + n); }

rc::Gen<std::vector<Range>> some_ranges() {
  return rc::gen::container<std::vector<Range>>(rc::gen::apply(
      [](unsigned from, unsigned length) {
        return Range{small(from), small(from + length)};
      },
      rc::gen::inRange(0U, 60U), rc::gen::inRange(0U, 6U)));
}

std::set<Address> expand(const std::vector<Range>& ranges) {
  std::set<Address> out;
  for (const Range& r : ranges) {
    for (auto v = r.first.value(); v <= r.last.value(); ++v) {
      out.insert(Address::from_value(Family::kV4, v));
    }
  }
  return out;
}

void same(const IpPool& pool, const std::set<Address>& model) {
  RC_ASSERT(expand(pool.ranges()) == model);
  RC_ASSERT(static_cast<std::size_t>(pool.count()) == model.size());
  for (std::size_t i = 1; i < pool.ranges().size(); ++i) {  // disjoint and not adjacent
    RC_ASSERT(pool.ranges()[i - 1].last.value() + 1 < pool.ranges()[i].first.value());
  }
}

RC_GTEST_PROP(IpPoolProperty, BehavesLikeASet, ()) {
  const auto ranges = *some_ranges();
  const auto others = *some_ranges();
  IpPool pool = IpPool::of(Family::kV4, ranges);
  const IpPool other = IpPool::of(Family::kV4, others);
  std::set<Address> model = expand(ranges);
  const std::set<Address> other_model = expand(others);
  same(pool, model);

  std::set<Address> rest;
  std::set<Address> common;
  for (const Address& a : model) (other_model.count(a) != 0 ? common : rest).insert(a);
  same(pool.minus(other), rest);
  RC_ASSERT(pool.first_common(other) == (common.empty() ? Address{} : *common.begin()));
  RC_ASSERT(pool.overlaps(other) == !common.empty());

  std::uint64_t n = 0;
  for (const Address& a : model) {
    RC_ASSERT(pool.nth(n) == a);
    RC_ASSERT(pool.rank(a) == n);
    ++n;
  }
  RC_ASSERT(pool.nth(n) == Address{});
  for (const unsigned probe :
       *rc::gen::container<std::vector<unsigned>>(rc::gen::inRange(0U, 70U))) {
    const Address a = small(probe);
    RC_ASSERT(pool.contains(a) == (model.count(a) != 0));
    auto next = model.upper_bound(a);
    if (next == model.end()) next = model.begin();
    RC_ASSERT(pool.next_after(a) == (next == model.end() ? Address{} : *next));
    if (probe % 2 == 0) {
      RC_ASSERT(pool.erase(a) == (model.erase(a) != 0));
    } else {
      RC_ASSERT(pool.insert(a) == model.insert(a).second);
    }
    same(pool, model);
  }
}

}  // namespace
}  // namespace egw::model
