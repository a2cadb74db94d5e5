// views.hpp: addresses, prefixes, the struct version rule, flatten() against a naive lookup.
#include "egw/sdk/views.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "egw/abi/datapath.h"

namespace egw::sdk {
namespace {

Address addr(const std::string& text) { return Address::parse(text).value(); }
Prefix pfx(const std::string& text) { return Prefix::parse(text).value(); }

TEST(Views, AddressTextAndOrder) {
  EXPECT_EQ(addr("10.0.0.1").text(), "10.0.0.1");
  EXPECT_EQ(addr("FD00:0::1").text(), "fd00::1");
  EXPECT_EQ(Address().text(), "");
  EXPECT_FALSE(Address::parse("10.0.0"));
  EXPECT_FALSE(Address::parse(""));
  EXPECT_LT(addr("9.0.0.0"), addr("10.0.0.0"));
  EXPECT_LT(addr("255.255.255.255"), addr("::"));
  EXPECT_EQ(Address(addr("fd00::5").abi()), addr("fd00::5"));
  egw_addr strange{};
  strange.family = 7;
  EXPECT_FALSE(Address(strange));
  Address top = addr("255.255.255.255");
  EXPECT_FALSE(top.increment());
  EXPECT_EQ(top, addr("255.255.255.255"));
  Address bottom = addr("0.0.0.0");
  EXPECT_FALSE(bottom.decrement());
}

TEST(Views, PrefixBounds) {
  EXPECT_EQ(pfx("10.1.2.3/8").first(), addr("10.0.0.0"));
  EXPECT_EQ(pfx("10.1.2.3/8").last(), addr("10.255.255.255"));
  EXPECT_EQ(pfx("::/0").last(), addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
  EXPECT_EQ(pfx("fd00::1").len, 128);
  EXPECT_TRUE(pfx("10.0.0.0/9").contains(addr("10.127.0.1")));
  EXPECT_FALSE(pfx("10.0.0.0/9").contains(addr("10.128.0.1")));
  EXPECT_FALSE(pfx("0.0.0.0/0").contains(addr("::1")));
  EXPECT_FALSE(Prefix::parse("10.0.0.0/33"));
  EXPECT_FALSE(Prefix::parse("10.0.0.0/"));
  EXPECT_FALSE(Prefix::parse("10.0.0.0/-1"));
}

TEST(Views, OlderWriterReadsAsZeroNewerIsCut) {
  struct Longer {
    egw_endpoint known;
    std::uint64_t extra;
  };
  std::vector<Longer> newer(3);
  for (std::uint32_t i = 0; i < 3; ++i) {
    newer[i].known.struct_size = sizeof(Longer);
    newer[i].known.class_id = i + 1;
    newer[i].extra = ~0ull;
  }
  std::uint32_t want = 0;
  for (const egw_endpoint e : Strided<egw_endpoint>(span_of(newer))) EXPECT_EQ(e.class_id, ++want);
  EXPECT_EQ(want, 3U);

  struct Shorter {
    std::uint32_t struct_size, class_id;
  };
  const std::vector<Shorter> older{{8, 7}, {8, 9}};
  const Strided<egw_endpoint> view(span_of(older));
  ASSERT_EQ(view.size(), 2U);
  EXPECT_EQ(view[1].class_id, 9U);
  EXPECT_EQ(view[1].address.family, 0);
}

TEST(Flatten, NestedEqualAndEdges) {
  using R = FlatRange<int>;
  const auto out = flatten<int>({{pfx("10.0.0.0/8"), 1},
                                 {pfx("10.1.0.0/16"), 2},
                                 {pfx("10.1.0.0/24"), 1},
                                 {pfx("10.255.255.255/32"), 3},
                                 {pfx("11.0.0.0/8"), 4},
                                 {pfx("11.0.0.0/8"), 5},
                                 {Prefix(), 9}});
  const std::vector<R> want{{addr("10.0.0.0"), addr("10.1.0.255"), 1},
                            {addr("10.1.1.0"), addr("10.1.255.255"), 2},
                            {addr("10.2.0.0"), addr("10.255.255.254"), 1},
                            {addr("10.255.255.255"), addr("10.255.255.255"), 3},
                            {addr("11.0.0.0"), addr("11.255.255.255"), 5}};
  // 10.0.0.0/16 up to 10.0.255.255 and the /24 inside 10.1/16 have the same value and touch.
  EXPECT_EQ(out, want);

  const auto both = flatten<int>({{pfx("::/0"), 1}, {pfx("0.0.0.0/0"), 1}});
  ASSERT_EQ(both.size(), 2U);
  EXPECT_EQ(both[0].last, addr("255.255.255.255"));
  EXPECT_EQ(both[1].first, addr("::"));
  EXPECT_TRUE(flatten<int>({}).empty());
}

// Few bits, so that everything nests: addresses are 10.0.0.x and fd00::x, also the families' ends.
RC_GTEST_PROP(Flatten, AnswersLikeTheLongestPrefix, ()) {
  const auto base = *rc::gen::elementOf(std::vector<std::string>{
      "10.0.0.0", "255.255.255.0", "0.0.0.0", "fd00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"});
  const Address start = addr(base);
  const std::size_t low = start.is_v4() ? 3 : 15;
  std::vector<std::pair<Prefix, int>> table;
  const auto n = *rc::gen::inRange(0, 30);
  for (int i = 0; i < n; ++i) {
    Address a = start;
    a.bytes[low] = static_cast<std::uint8_t>(*rc::gen::inRange(0, 256));
    const unsigned length = a.bits() - static_cast<unsigned>(*rc::gen::inRange(0, 9));
    table.emplace_back(Prefix(Prefix(a, length).first(), length), *rc::gen::inRange(0, 4));
  }
  const auto flat = flatten(table);
  for (std::size_t i = 0; i < flat.size(); ++i) {
    RC_ASSERT(flat[i].first <= flat[i].last);
    if (i > 0) {
      RC_ASSERT(flat[i - 1].last < flat[i].first);
      Address next = flat[i - 1].last;
      next.increment();
      RC_ASSERT(!(next == flat[i].first && flat[i - 1].value == flat[i].value));
    }
  }
  for (int x = 0; x < 256; ++x) {
    Address a = start;
    a.bytes[low] = static_cast<std::uint8_t>(x);
    std::optional<int> want;
    int best = -1;
    for (const auto& [p, v] : table) {
      if (p.contains(a) && p.len >= best) {
        best = p.len;
        want = v;
      }
    }
    std::optional<int> got;
    for (const auto& r : flat) {
      if (r.first <= a && a <= r.last) got = r.value;
    }
    RC_ASSERT(got == want);
  }
}

}  // namespace
}  // namespace egw::sdk
