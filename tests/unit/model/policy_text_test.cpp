// The text of a policy without its status.
#include "egw/model/policy_text.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace egw::model {
namespace {

using nlohmann::json;

TEST(PolicyText, NothingButTheStatusIsMissing) {
  for (const char* text :
       {R"({"metadata":{"name":"a"},"spec":{"priority":1},"status":{"conditions":[{"x":"}"}]}})",
        R"({"status": {"eip": {}}, "spec": null, "metadata": {"status": 1}})",
        R"({"status":[],"spec":{"failurePolicy":null,"status":{}}})",
        " {\n \"spec\" : {\"failurePolicy\": \"Drop\"} , \"status\" : \"none\" } "}) {
    const auto part = policy_without_status(text);
    ASSERT_TRUE(part) << text;
    json whole = json::parse(text);
    whole["status"] = nullptr;
    EXPECT_EQ(json::parse(*part), whole) << text;
  }
}

TEST(PolicyText, TheWholeIsTakenWhereTheStatusCountsOrMayBeElsewhere) {
  for (const char* text :
       {R"({"spec":{"failurePolicy":"NodeIP"},"status":{}})",
        R"({"spec":{"failurePolicy":"\u004eodeIP"},"status":{}})",
        R"({"spec":{"failure\u0050olicy":"NodeIP"},"status":{}})",
        R"({"spec":{"failurePolicy":"Drop","failurePolicy":"NodeIP"},"status":{}})",
        R"({"spec":{"failurePolicy":"Drop"},"spec":{"failurePolicy":"NodeIP"},"status":{}})",
        R"({"spec":{"failurePolicy":7},"status":{}})", R"({"spec":[],"status":{}})",
        R"({"spec":{}})", R"({"status":{},"status":{}})",
        R"({"status":{"node":"caf)"
        "\xc3\xa9\"}}",
        R"({"status":{)", R"({"status":{}}})", "[]", ""}) {
    EXPECT_FALSE(policy_without_status(text)) << text;
  }
}

}  // namespace
}  // namespace egw::model
