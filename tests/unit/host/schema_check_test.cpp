// Words for schema faults, also of schemas that egw did not write (plugins').
#include "egw/host/schema_check.hpp"

#include <gtest/gtest.h>

namespace egw::host {
namespace {

using nlohmann::json;

std::string fault(const char* schema, const char* document) {
  const auto found = find_schema_fault(json::parse(document), json::parse(schema));
  return found ? found->path + ": " + found->message : "(fits)";
}

TEST(SchemaFaults, FirstFaultWithItsPath) {
  const char* schema = R"({"type": "object", "additionalProperties": false, "required": ["a"],
      "properties": {"a": {"type": "array", "maxItems": 2, "items": {"type": "integer"}}}})";
  EXPECT_EQ(fault(schema, R"({"a": [1, 2]})"), "(fits)");
  EXPECT_EQ(fault(schema, R"({"a": [1, "x"]})"), "a[1]: is \"x\"; expected an integer");
  EXPECT_EQ(fault(schema, R"({"a": [1, 2, 3]})"), "a: has 3 items; expected at most 2");
  EXPECT_EQ(fault(schema, R"({})"), "a: missing; it is required here");
  EXPECT_EQ(fault(schema, R"({"a": [], "b": 1})"), "b: unknown key; did you mean \"a\"?");
  EXPECT_EQ(fault(schema, R"([])"), ": is a list; expected a map");
}

TEST(SchemaFaults, KeywordsWithoutWordsStillNameThePlace) {
  EXPECT_EQ(
      fault(R"({"properties": {"a": {"type": ["string", "null"]}}})", R"({"a": 1})").find("a: "),
      0U);
  EXPECT_EQ(fault(R"({"properties": {"a": {"items": {"multipleOf": 2}}}})", R"({"a": [2, 3]})")
                .find("a[1]: "),
            0U);
  EXPECT_EQ(fault(R"({"patternProperties": {"^x": {"type": "integer"}},
      "additionalProperties": false})",
                  R"({"x1": 1})"),
            "(fits)");
}

TEST(SchemaFaults, LongValuesAreCut) {
  const std::string text = "\"" + std::string(500, 'x') + "\"";
  EXPECT_LT(fault(R"({"type": "integer"})", text.c_str()).size(), 120U);
}

TEST(Nearest, FindsTypos) {
  EXPECT_EQ(nearest("tunelPort", {"tunnelPort", "other"}), "tunnelPort");
  EXPECT_EQ(nearest("PORT", {"port"}), "port");
  EXPECT_EQ(nearest("form", {"from", "port"}), "from");
  EXPECT_EQ(nearest("colour", {"level", "format"}), "");
  EXPECT_EQ(nearest(std::string(1000, 'x'), {"x"}), "");
}

}  // namespace
}  // namespace egw::host
