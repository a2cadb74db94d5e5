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
