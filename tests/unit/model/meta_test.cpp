// Kinds by every name, conditions, times.
#include "egw/model/meta.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <set>

#include "egw/model/names.hpp"
#include "egw/model/resources.hpp"

namespace egw::model {
namespace {

TEST(Kinds, TableIsIndexedByKindAndNamesAreUnique) {
  std::set<std::string_view> names;
  std::size_t count = 0;
  for (const KindInfo& k : all_kinds()) {
    EXPECT_EQ(&info(k.id), &k);
    for (const std::string_view name : {k.plural, k.singular, k.short_name}) {
      EXPECT_TRUE(names.insert(name).second) << name;
    }
    ++count;
  }
  EXPECT_EQ(count, 13U);
}

TEST(Kinds, FoundByEveryNameInAnyCase) {
  for (const char* name : {"EgressGateway", "egressgateway", "egressgateways", "egw", "EGW",
                           "egressgateways.egressgateway.spidernet.io"}) {
    const KindInfo* k = find_kind(name);
    ASSERT_NE(k, nullptr) << name;
    EXPECT_EQ(k->id, Kind::kEgressGateway);
  }
  EXPECT_EQ(find_kind("egcp")->id, Kind::kEgressClusterPolicy);
  EXPECT_EQ(find_kind("po")->id, Kind::kPod);
  EXPECT_EQ(find_kind("services"), nullptr);
  EXPECT_EQ(find_kind(""), nullptr);
  EXPECT_EQ(find_kind("pods.egressgateway.spidernet.io"), nullptr);
  EXPECT_EQ(find_kind("egressgateways.example.com"), nullptr);
}

TEST(Kinds, ScopeAndApiVersion) {
  EXPECT_EQ(info(Kind::kEgressGateway).api_version(), "egressgateway.spidernet.io/v1beta1");
  EXPECT_EQ(info(Kind::kPod).api_version(), "v1");
  EXPECT_TRUE(info(Kind::kEgressPolicy).namespaced);
  EXPECT_TRUE(info(Kind::kEgressEndpointSlice).namespaced);
  EXPECT_TRUE(info(Kind::kPod).namespaced);
  for (const Kind k : {Kind::kEgressGateway, Kind::kEgressClusterPolicy, Kind::kEgressTunnel,
                       Kind::kEgressClusterEndpointSlice, Kind::kEgressClusterInfo, Kind::kNode,
                       Kind::kNamespace}) {
    EXPECT_FALSE(info(k).namespaced) << info(k).kind;
  }
}

TEST(Names, SubdomainsAndLabels) {
  const std::string part(63, 'a');
  for (const std::string& good : {std::string("a"), std::string("0"), std::string("a.b-c.d"),
                                  std::string("a--b"), part + "." + part, std::string(253, 'a')}) {
    EXPECT_TRUE(is_subdomain(good)) << good;
  }
  for (const char* bad : {"", ".", "a.", ".a", "a..b", "-a", "a-", "a-.b", "a.-b", "A", "a_b",
                          "a b", "a\n", "\xc3\xa4"}) {
    EXPECT_FALSE(is_subdomain(bad)) << bad;
    EXPECT_FALSE(is_label(bad)) << bad;
  }
  EXPECT_FALSE(is_subdomain(std::string(254, 'a')));
  EXPECT_TRUE(is_label(part));
  EXPECT_FALSE(is_label(part + "a"));
  EXPECT_FALSE(is_label("a.b"));
}

TEST(Conditions, TransitionTimeChangesWithTheStatusOnly) {
  Conditions c;
  EXPECT_TRUE(set_condition(c, {"Ready", true, "Up", "all good", 0}, 10500));
  ASSERT_EQ(c.size(), 1U);
  EXPECT_EQ(c[0].transition_ms, 10000);  // whole seconds, as stored
  EXPECT_FALSE(set_condition(c, {"Ready", true, "Up", "all good", 0}, 20000));
  EXPECT_TRUE(set_condition(c, {"Ready", true, "Up", "still good", 0}, 30000));
  EXPECT_EQ(c[0].transition_ms, 10000);
  EXPECT_EQ(c[0].message, "still good");
  EXPECT_TRUE(set_condition(c, {"Ready", false, "Down", "", 0}, 40000));
  EXPECT_EQ(c[0].transition_ms, 40000);
  EXPECT_TRUE(set_condition(c, {"Ready", ConditionStatus::unknown(), "Down", "", 0}, 45000));
  EXPECT_EQ(c[0].transition_ms, 45000);
  EXPECT_FALSE(set_condition(c, {"Ready", ConditionStatus::unknown(), "Down", "", 0}, 46000));
  EXPECT_TRUE(set_condition(c, {"Ready", false, "Down", "", 0}, 47000));
  EXPECT_TRUE(set_condition(c, {"Other", true, "X", "", 0}, 50000));
  EXPECT_EQ(find_condition(c, "Other")->reason, "X");
  EXPECT_EQ(find_condition(c, "None"), nullptr);
  EXPECT_TRUE(remove_condition(c, "Ready"));
  EXPECT_FALSE(remove_condition(c, "Ready"));
  EXPECT_EQ(c.size(), 1U);
}

TEST(Namespaces, HaveTheirNameAsLabel) {
  EXPECT_EQ(namespace_labels(nullptr, "shop"), (Labels{{"kubernetes.io/metadata.name", "shop"}}));
  Namespace ns;
  ns.meta.labels = {{"team", "a"}};
  EXPECT_EQ(namespace_labels(&ns, "shop"),
            (Labels{{"kubernetes.io/metadata.name", "shop"}, {"team", "a"}}));
  ns.meta.labels = {{"kubernetes.io/metadata.name", "other"}};
  EXPECT_EQ(namespace_labels(&ns, "shop"), (Labels{{"kubernetes.io/metadata.name", "shop"}}));
}

TEST(Times, KnownValues) {
  EXPECT_EQ(format_time(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(format_time(1714564800123), "2024-05-01T12:00:00Z");
  EXPECT_EQ(format_micro_time(1714564800123), "2024-05-01T12:00:00.123000Z");
  EXPECT_EQ(format_micro_time(-1), "1969-12-31T23:59:59.999000Z");
  EXPECT_EQ(parse_time("2024-05-01T12:00:00Z").value(), 1714564800000);
  EXPECT_EQ(parse_time("2024-05-01T12:00:00.123456Z").value(), 1714564800123);
  EXPECT_EQ(parse_time("2024-05-01T12:00:00.5Z").value(), 1714564800500);
  EXPECT_EQ(parse_time("2024-05-01T14:00:00+02:00").value(), 1714564800000);
  EXPECT_EQ(parse_time("2024-05-01T06:30:00-05:30").value(), 1714564800000);
  EXPECT_EQ(parse_time("2024-02-29T00:00:00Z").value(), 1709164800000);
}

TEST(Times, Refused) {
  for (const char* text :
       {"", "2024-05-01", "2024-05-01T12:00:00", "2024-13-01T12:00:00Z", "2023-02-29T00:00:00Z",
        "2024-05-01T24:00:00Z", "2024-05-01T12:00:00.Z", "2024-05-01T12:00:00Zx",
        "2024-05-01 12:00:00Z", "2024-05-01T12:00:00+0200", "1714564800",
        "2024-05-01T12:00:00.1234567890Z"}) {
    EXPECT_FALSE(parse_time(text)) << text;
  }
}

RC_GTEST_PROP(TimesProperty, RoundTrip, ()) {
  const auto ms = *rc::gen::inRange<std::int64_t>(-62167219200000, 253402300800000);
  RC_ASSERT(parse_time(format_micro_time(ms)).value() == ms);
  RC_ASSERT(parse_time(format_time(ms)).value() == ms - (ms % 1000 + 1000) % 1000);
}

TEST(Times, BeyondTheCalendarIsClampedNotUndefined) {
  EXPECT_EQ(format_time(std::numeric_limits<std::int64_t>::max()), "9999-12-31T23:59:59Z");
  EXPECT_EQ(format_time(std::numeric_limits<std::int64_t>::min()), "0000-01-01T00:00:00Z");
}

}  // namespace
}  // namespace egw::model
