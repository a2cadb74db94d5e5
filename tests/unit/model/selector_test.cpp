// Label selectors against Kubernetes' meaning, in JSON and in text.
#include "egw/model/selector.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace egw::model {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const Labels kLabels{{"app", "web"}, {"tier", "front"}, {"egress.io/on", ""}};

LabelSelector text(std::string_view t) {
  auto s = LabelSelector::parse_text(t);
  EXPECT_TRUE(s) << t << ": " << (s ? "" : s.error().message);
  return s.value_or(LabelSelector());
}

TEST(SelectorText, Matches) {
  const std::pair<const char*, bool> cases[] = {
      {"", true},
      {"app=web", true},
      {"app==web", true},
      {"app=db", false},
      {"app!=db", true},
      {"app!=web", false},
      {"missing!=x", true},  // a label that is not there is not equal
      {"app in (db, web)", true},
      {"app in (db)", false},
      {"missing in (x)", false},
      {"app notin (db,cache)", true},
      {"app notin (web)", false},
      {"missing notin (x)", true},
      {"app", true},
      {"missing", false},
      {"!app", false},
      {"! missing", true},
      {"egress.io/on=", true},
      {"egress.io/on", true},
      {"app=web,tier=front", true},
      {"app=web,tier=back", false},
      {" app = web , tier in ( front , x ) , !y ", true},
      {"app in (web),app notin (db)", true},
  };
  for (const auto& [t, want] : cases) EXPECT_EQ(text(t).matches(kLabels), want) << t;
  EXPECT_TRUE(text("").empty());
}

TEST(SelectorText, Refused) {
  const std::pair<const char*, const char*> cases[] = {
      {"app=web,", "ends with a comma"},
      {",app", "missing"},
      {"app in web", "brackets"},
      {"app in (web", "not closed"},
      {"app>1", "label key"},
      {"app web", "comes ="},
      {"a b c", "comes ="},
      {"=x", "missing"},
      {"app=web tier=x", "commas"},
      {"-app=x", "label key"},
      {"app=we b", "commas"},
      {"app=-x", "\"-x\": want a label value"},
      {"/x=y", "label key"},
      {"Ex.io/x/y=y", "label key"},
      {"ex..io/x=y", "label key"},
      {"ex.-a.io/x=y", "label key"},
      {"ex_io/x=y", "label key"},
      {"!", "label key"},
  };
  for (const auto& [t, why] : cases) {
    auto s = LabelSelector::parse_text(t);
    ASSERT_FALSE(s) << t;
    EXPECT_THAT(s.error().message, HasSubstr(why)) << t;
  }
}

TEST(SelectorJson, MeansTheSameAsText) {
  const json j = json::parse(R"({"matchLabels": {"app": "web"}, "matchExpressions": [
    {"key": "tier", "operator": "In", "values": ["front", "back"]},
    {"key": "old", "operator": "DoesNotExist"},
    {"key": "egress.io/on", "operator": "Exists"},
    {"key": "zone", "operator": "NotIn", "values": ["b", "a", "a"]}]})");
  const LabelSelector s = decode_selector(j, "spec.x").value();
  EXPECT_EQ(s, text("zone notin (a,b),egress.io/on,!old,tier in (back,front),app=web"));
  EXPECT_TRUE(s.matches(kLabels));
  EXPECT_EQ(decode_selector(encode_selector(s), "x").value(), s);
}

TEST(SelectorJson, EmptyAndNullMatchEverything) {
  for (const char* t : {"{}", "null", R"({"matchLabels": null})", R"({"matchExpressions": []})"}) {
    const LabelSelector s = decode_selector(json::parse(t), "x").value();
    EXPECT_TRUE(s.empty()) << t;
    EXPECT_TRUE(s.matches({})) << t;
  }
  EXPECT_EQ(encode_selector({}), json::object());
}

TEST(SelectorJson, ContradictionIsKept) {
  const LabelSelector s = text("app=web,app=db");
  EXPECT_FALSE(s.matches({{"app", "web"}}));
  EXPECT_EQ(decode_selector(encode_selector(s), "x").value(), s);
}

TEST(SelectorJson, ErrorsNameThePath) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {R"([])", "spec.x", "an object"},
      {R"({"matchLabels": ["a"]})", "spec.x.matchLabels", "an object"},
      {R"({"matchLabels": {"a": 1}})", "spec.x.matchLabels.a", "a string"},
      {R"({"matchLabels": {"a": null}})", "spec.x.matchLabels.a", "a string"},
      {R"({"matchLabels": {"a b": "x"}})", "spec.x.matchLabels.a b", "label key"},
      {R"({"matchLabels": {"a": "x y"}})", "spec.x.matchLabels.a", "\"x y\": want a label value"},
      {R"({"matchExpressions": {}})", "spec.x.matchExpressions", "a list"},
      {R"({"matchExpressions": [null]})", "spec.x.matchExpressions[0]", "not null"},
      {R"({"matchExpressions": [{"key": "a", "operator": "Near"}]})",
       "spec.x.matchExpressions[0].operator", "DoesNotExist"},
      {R"({"matchExpressions": [{"key": "a", "operator": "In"}]})",
       "spec.x.matchExpressions[0].values", "at least one value"},
      {R"({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]})",
       "spec.x.matchExpressions[0].values", "[b]: want no values"},
      {R"({"matchExpressions": [{"operator": "Exists"}]})", "spec.x.matchExpressions[0].key",
       "\"\": want a label key"},
      {R"({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c d"]}]})",
       "spec.x.matchExpressions[0].values[1]", "\"c d\": want a label value"},
      {R"({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", 3]}]})",
       "spec.x.matchExpressions[0].values[1]", "a string"},
  };
  for (const auto& [t, path, want] : cases) {
    auto s = decode_selector(json::parse(t), "spec.x");
    ASSERT_FALSE(s) << t;
    EXPECT_EQ(s.error().object, path) << t;
    EXPECT_THAT(s.error().message, HasSubstr(want)) << t;
  }
}

}  // namespace
}  // namespace egw::model
