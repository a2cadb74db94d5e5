// Field and label selectors: what they match and what they refuse.
#include "filter.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace egw::local {
namespace {

const char* const kDocument =
    R"({"metadata":{"name":"p","labels":{"app":"web","tier":"front","a/b":"c.d"}},)"
    R"("spec":{"nodeName":"n1","priority":5,"on":true,"quote":"a\"b"},"status":{"phase":"Running"}})";

bool fields(const char* text) {
  return Filter::parse(text, "").value().matches(std::string_view(kDocument));
}
bool labels(const char* text) {
  return Filter::parse("", text).value().matches(std::string_view(kDocument));
}

TEST(Filter, Fields) {
  EXPECT_TRUE(fields(""));
  EXPECT_TRUE(fields("spec.nodeName=n1"));
  EXPECT_TRUE(fields("spec.nodeName==n1"));
  EXPECT_FALSE(fields("spec.nodeName=n"));
  EXPECT_FALSE(fields("spec.nodeName=n11"));
  EXPECT_TRUE(fields("spec.nodeName!=n2"));
  EXPECT_FALSE(fields("spec.nodeName!=n1"));
  EXPECT_TRUE(fields("spec.priority=5"));
  EXPECT_TRUE(fields("spec.on=true"));
  EXPECT_TRUE(fields("spec.quote=a\"b"));
  EXPECT_TRUE(fields("spec.missing="));
  EXPECT_FALSE(fields("spec.missing=x"));
  EXPECT_TRUE(fields("spec.missing!=x"));
  EXPECT_TRUE(fields("spec.nodeName=n1, status.phase!=Failed,status.phase!=Succeeded"));
  EXPECT_FALSE(fields("spec.nodeName=n1,metadata.name=q"));
  EXPECT_FALSE(fields("metadata.name.deeper=p"));
}

TEST(Filter, Labels) {
  EXPECT_TRUE(labels("app=web,tier=front"));
  EXPECT_TRUE(labels("app == web"));
  EXPECT_FALSE(labels("app=web,tier=back"));
  EXPECT_TRUE(labels("a/b=c.d"));
  EXPECT_TRUE(labels("app!=db"));
  EXPECT_TRUE(labels("none!=x"));
  EXPECT_TRUE(labels("app in (db, web)"));
  EXPECT_TRUE(labels("app in (db,web),tier"));
  EXPECT_FALSE(labels("app notin (db,web)"));
  EXPECT_TRUE(labels("none notin (a)"));
  EXPECT_TRUE(labels("tier"));
  EXPECT_FALSE(labels("none"));
  EXPECT_TRUE(labels("!none"));
  EXPECT_FALSE(labels("!app"));
  EXPECT_FALSE(labels("none="));
}

TEST(Filter, DocumentsWithoutLabels) {
  const Filter f = Filter::parse("", "a!=b,!c").value();
  EXPECT_TRUE(f.matches(std::string_view(R"({"metadata":{}})")));
  EXPECT_FALSE(Filter::parse("", "a").value().matches(std::string_view(R"({"metadata":{}})")));
}

// Texts that the quick look must leave to the parser, and ends of all kinds.
TEST(Filter, TheTextIsJudgedAsTheParserWould) {
  const char* const queries[] = {"spec.nodeName=n1", "spec.nodeName!=n1", "spec.nodeName=",
                                 "spec.nodeName!=",  "spec=n1",           "a.b.c=n1"};
  const char* const documents[] = {
      R"({"spec":{"nodeName":"n1"}})",
      R"({ "spec" : { "nodeName" : "n1" } })",
      R"({"metadata":{"annotations":{"x":"{\"spec\":{\"nodeName\":\"n2\"}}"}},"spec":{"nodeName":"n1"}})",
      R"({"metadata":{"q\"":1},"spec":{"nodeName":"n1"}})",
      R"({"list":[{"spec":{}},"]}",[[]],{}],"spec":{"containers":[{"nodeName":"n2"}],"nodeName":"n1"}})",
      R"({"spec":{"nodeName":null}})",
      R"({"spec":{"nodeName":["n1"]}})",
      R"({"spec":{"nodeName":{"n1":"n1"}}})",
      R"({"spec":{}})",
      R"({"spec":"n1"})",
      R"({"a":{"b":{"c":"n1"}},"spec":[]})",
      R"({"a":{"b":"c"}})",
      R"({})",
      R"([])",
      R"("n1")",
  };
  for (const char* query : queries) {
    const Filter filter = Filter::parse(query, "").value();
    for (const char* text : documents) {
      const auto parsed = nlohmann::json::parse(text);
      EXPECT_EQ(filter.matches(std::string_view(text)),
                parsed.is_object() && filter.matches(parsed))
          << query << " of " << text;
    }
  }
  const std::string whole = documents[2];
  const Filter filter = Filter::parse("spec.nodeName=n1", "").value();
  for (std::size_t size = 0; size + 4 < whole.size(); ++size) {
    EXPECT_FALSE(filter.matches(std::string_view(whole).substr(0, size))) << size;
  }
}

TEST(Filter, WhatCannotBeReadIsNamed) {
  for (const char* bad : {"novalue", "=x", "a..b=c", "a=b,,c=d"}) {
    const auto f = Filter::parse(bad, "");
    ASSERT_FALSE(f.ok()) << bad;
    EXPECT_EQ(f.status().code, sdk::Code::kInvalid);
    EXPECT_NE(f.status().message.find("field selector"), std::string::npos);
  }
  for (const char* bad : {"a b", "a in b", "a in (b", "!", "a=b c", "in (a)", "a=b,", "a=(b)"}) {
    EXPECT_FALSE(Filter::parse("", bad).ok()) << bad;
  }
  EXPECT_FALSE(Filter::parse(std::string(5000, 'a') + "=b", "").ok());
}

}  // namespace
}  // namespace egw::local
