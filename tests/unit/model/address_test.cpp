// Addresses, prefixes and ranges: what parses, what it says, and the arithmetic at the edges.
#include "egw/model/address.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <unordered_set>

namespace egw::model {
namespace {

using testing::HasSubstr;

Address A(std::string_view text) {
  auto a = Address::parse(text);
  EXPECT_TRUE(a) << (a ? "" : a.error().message);
  return a.value_or(Address());
}
Prefix P(std::string_view text) {
  auto p = Prefix::parse(text);
  EXPECT_TRUE(p) << (p ? "" : p.error().message);
  return p.value_or(Prefix());
}

TEST(AddressParse, CanonicalText) {
  const std::pair<const char*, const char*> cases[] = {
      {"10.6.1.55", "10.6.1.55"},
      {"0.0.0.0", "0.0.0.0"},
      {"255.255.255.255", "255.255.255.255"},
      {"fd00::55", "fd00::55"},
      {"FD00:0:0:0:0:0:0:55", "fd00::55"},
      {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},  // RFC 5952, 4.2.2: one group stays
      {"2001:0:0:1:0:0:0:1", "2001:0:0:1::1"},           // 4.2.3: the longest run
      {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},     // 4.2.3: the first of equals
      {"::", "::"},
      {"::1", "::1"},
      {"1::", "1::"},
      {"64:ff9b::1.2.3.4", "64:ff9b::102:304"},
      {"0:1:2:3:4:5:6:7", "0:1:2:3:4:5:6:7"},
  };
  for (const auto& [text, want] : cases) EXPECT_EQ(A(text).to_string(), want) << text;
}

TEST(AddressParse, RefusesWithReason) {
  const std::pair<std::string_view, const char*> cases[] = {
      {"", "empty"},
      {"10.6.1", "four numbers"},
      {"10.6.1.1.1", "four numbers"},
      {"10.6.1.256", "0 to 255"},
      {"10.6.1.-1", "0 to 255"},
      {"10.6.1. 1", "there is a space in it"},
      {"10.6.01.1", "leading zeros"},
      {"010.6.1.1", "leading zeros"},
      {"1.2.3.4 ", "there is a space in it"},
      {"fe80::1%eth0", "zone"},
      {"::ffff:10.6.1.55", "write 10.6.1.55"},
      {"::ffff:a06:137", "write 10.6.1.55"},
      {"fd00:::1", "text form"},
      {"fd00::1::2", "text form"},
      {"fd00::12345", "text form"},
      {"1:2:3:4:5:6:7:8:9", "text form"},
      {std::string_view("fd00::1\0junk", 12), "text form"},
      {"11111111111111111111111111111111111111111111111111111111111111111111", "too long"},
      {"example.com", "0 to 255"},
  };
  for (const auto& [text, why] : cases) {
    auto a = Address::parse(text);
    ASSERT_FALSE(a) << text;
    EXPECT_EQ(a.error().code, Errc::kInvalid);
    EXPECT_THAT(a.error().message, HasSubstr(why)) << text;
  }
}

TEST(Address, OrderIsFamilyThenNumber) {
  EXPECT_LT(Address(), A("0.0.0.0"));
  EXPECT_LT(A("255.255.255.255"), A("::"));
  EXPECT_LT(A("9.255.255.255"), A("10.0.0.0"));
  EXPECT_LT(A("10.0.0.9"), A("10.0.0.10"));
  EXPECT_LT(A("fd00::9"), A("fd00::10"));
}

RC_GTEST_PROP(AddressProperty, TextAndNumberRoundTrip, (std::uint64_t high, std::uint64_t low)) {
  // Sparse values, so that runs of zero groups are common.
  const auto sparse = [](std::uint64_t x) { return x & (x << 7) & 0xffff0000ffff0000ULL; };
  const unsigned __int128 n = static_cast<unsigned __int128>(sparse(high) | 1) << 64 | sparse(low);
  const Address v6 = Address::from_value(Family::kV6, n);
  RC_ASSERT(v6.value() == n);
  RC_ASSERT(Address::parse(v6.to_string()).value() == v6);
  const Address v4 = Address::from_value(Family::kV4, high & 0xffffffffU);
  RC_ASSERT(static_cast<std::uint64_t>(v4.value()) == (high & 0xffffffffU));
  RC_ASSERT(Address::parse(v4.to_string()).value() == v4);
}

TEST(Prefix, NormalisesHostBits) {
  EXPECT_EQ(P("10.6.1.55/16").to_string(), "10.6.0.0/16");
  EXPECT_EQ(P("10.6.1.55").to_string(), "10.6.1.55/32");
  EXPECT_EQ(P("fd00::55/64").to_string(), "fd00::/64");
  EXPECT_EQ(P("fd00::55").to_string(), "fd00::55/128");
  EXPECT_EQ(P("1.2.3.4/0").to_string(), "0.0.0.0/0");
  EXPECT_EQ(P("fd00::1/0").to_string(), "::/0");
  EXPECT_EQ(Prefix(A("10.0.0.1"), 99).length(), 32U);
}

TEST(Prefix, FirstLastContains) {
  EXPECT_EQ(P("10.6.0.0/16").last(), A("10.6.255.255"));
  EXPECT_EQ(P("0.0.0.0/0").last(), A("255.255.255.255"));
  EXPECT_EQ(P("::/0").last(), A("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
  EXPECT_EQ(P("fd00::/64").last(), A("fd00::ffff:ffff:ffff:ffff"));
  EXPECT_TRUE(P("10.0.0.0/8").contains(A("10.255.0.1")));
  EXPECT_FALSE(P("10.0.0.0/8").contains(A("11.0.0.0")));
  EXPECT_FALSE(P("0.0.0.0/0").contains(A("fd00::1")));
  EXPECT_FALSE(P("::/0").contains(A("1.1.1.1")));
  EXPECT_FALSE(Prefix().contains(Address()));
  EXPECT_TRUE(P("10.0.0.0/8").contains(P("10.6.0.0/16")));
  EXPECT_TRUE(P("10.0.0.0/8").contains(P("10.0.0.0/8")));
  EXPECT_FALSE(P("10.6.0.0/16").contains(P("10.0.0.0/8")));
  EXPECT_FALSE(P("0.0.0.0/0").contains(P("::/0")));
}

TEST(Prefix, RefusesWithReason) {
  for (const char* text : {"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/08", "fd00::/129",
                           "fd00::/64/64", "/8", "", "10.0.0/8", "10.0.0.0/1x"}) {
    auto p = Prefix::parse(text);
    ASSERT_FALSE(p) << text;
    EXPECT_THAT(p.error().message, HasSubstr("prefix")) << text;
  }
}

TEST(Range, Parses) {
  const auto check = [](const char* text, const char* first, const char* last) {
    auto r = Range::parse(text);
    ASSERT_TRUE(r) << text;
    EXPECT_EQ(r->first, A(first)) << text;
    EXPECT_EQ(r->last, A(last)) << text;
  };
  check("10.6.1.55", "10.6.1.55", "10.6.1.55");
  check("10.6.1.55-10.6.1.60", "10.6.1.55", "10.6.1.60");
  check("10.6.1.55-10.6.1.55", "10.6.1.55", "10.6.1.55");
  check("10.6.1.55/30", "10.6.1.52", "10.6.1.55");
  check("fd00::1-fd00::ff", "fd00::1", "fd00::ff");
  check("fd00::/64", "fd00::", "fd00::ffff:ffff:ffff:ffff");
}

TEST(Range, RefusesWithReason) {
  const std::pair<const char*, const char*> cases[] = {
      {"10.6.1.60-10.6.1.55", "write 10.6.1.55-10.6.1.60"},
      {"10.6.1.60-fd00::1", "one family"},
      {"10.6.1.55-", "empty"},
      {"-10.6.1.55", "empty"},
      {"10.6.1.55-60", "four numbers"},
      {"10.6.1.0/24-10.6.2.0/24", "it is a prefix, and one address"},
      {"10.6.1.1 - 10.6.1.2", "there is a space in it"},
  };
  for (const auto& [text, why] : cases) {
    auto r = Range::parse(text);
    ASSERT_FALSE(r) << text;
    EXPECT_THAT(r.error().message, HasSubstr(why)) << text;
  }
}

TEST(AddressKinds, WhyNotASource) {
  const std::pair<const char*, const char*> cases[] = {
      {"0.0.0.0", "unspecified"}, {"0.1.2.3", "reserved"},
      {"127.0.0.1", "loopback"},  {"169.254.1.1", "link-local"},
      {"224.0.0.1", "multicast"}, {"239.255.255.255", "multicast"},
      {"240.0.0.1", "reserved"},  {"255.255.255.255", "broadcast"},
      {"::", "unspecified"},      {"::1", "loopback"},
      {"fe80::1", "link-local"},  {"febf::1", "link-local"},
      {"ff02::1", "multicast"},   {"::1.2.3.4", "reserved"},
      {"fec0::1", "reserved"},    {"10.6.1.55", ""},
      {"100.64.0.1", ""},         {"192.0.2.1", ""},
      {"223.255.255.255", ""},    {"fd00::55", ""},
      {"2001:db8::1", ""},        {"169.253.255.255", ""},
      {"128.0.0.1", ""},
  };
  for (const auto& [text, why] : cases) EXPECT_EQ(why_not_a_source(A(text)), why) << text;
  EXPECT_EQ(why_not_a_source(Address()), "unspecified");
}

TEST(Address, HashTellsNeighboursApart) {
  std::unordered_set<std::size_t> seen;
  for (unsigned i = 0; i < 65536; ++i) {
    seen.insert(std::hash<Address>{}(Address::from_value(Family::kV4, 0x0a000000U + i)));
    seen.insert(std::hash<Address>{}(Address::from_value(Family::kV6, i)));
  }
  EXPECT_EQ(seen.size(), 131072U);
  EXPECT_NE(std::hash<Prefix>{}(P("10.0.0.0/8")), std::hash<Prefix>{}(P("10.0.0.0/9")));
}

TEST(Error, TextLeavesOutWhatIsEmpty) {
  EXPECT_EQ((Error{Errc::kInternal, "", "", 0}).to_string(), "");
  EXPECT_EQ((Error{Errc::kInternal, "file", "is gone", 0}).to_string(), "file: is gone");
  EXPECT_EQ((Error{Errc::kInternal, "", "is gone", 2}).to_string(),
            "is gone (No such file or directory)");
  EXPECT_EQ((Error{Errc::kInternal, "file", "", 2}).to_string(),
            "file (No such file or directory)");
}

}  // namespace
}  // namespace egw::model
