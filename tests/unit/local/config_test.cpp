// Configuration of both plugins: defaults, values, and refusals that name the key.
#include "config.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "egw/sdk/status.hpp"

namespace egw::local {
namespace {

using nlohmann::json;

template <class Parse>
std::string refusal(Parse parse, const json& config) {
  try {
    (void)parse(config.dump());
  } catch (const sdk::Failure& failure) {
    EXPECT_EQ(failure.status().code, sdk::Code::kInvalid);
    return failure.status().what;
  }
  return "accepted";
}

TEST(Config, Defaults) {
  for (const char* text : {"", "{}", "null"}) {
    EXPECT_EQ(parse_store_config(text).path, "/var/lib/egw/egw.db");
    EXPECT_EQ(parse_store_config(text).gate, "");
    EXPECT_EQ(parse_election_config(text).stamp_timeout, std::chrono::seconds(15));
  }
}

TEST(Config, Values) {
  const StoreConfig s =
      parse_store_config(R"({"path": "/x/y.db", "gate": "/g", "keptRevisions": 50})");
  EXPECT_EQ(s.path, "/x/y.db");
  EXPECT_EQ(s.gate, "/g");
  EXPECT_EQ(s.kept_revisions, 50U);
  EXPECT_EQ(parse_election_config(R"({"stampTimeout": 2.5})").stamp_timeout,
            std::chrono::milliseconds(2500));
}

TEST(Config, RefusalsNameTheKey) {
  EXPECT_EQ(refusal(parse_store_config, {{"paht", "/x"}}), "config.paht");
  EXPECT_EQ(refusal(parse_store_config, {{"path", 1}}), "config.path");
  EXPECT_EQ(refusal(parse_store_config, {{"path", "relative"}}), "config.path");
  EXPECT_EQ(refusal(parse_store_config, {{"path", "/folder/"}}), "config.path");
  EXPECT_EQ(refusal(parse_store_config, {{"path", ""}}), "config.path");
  EXPECT_EQ(refusal(parse_store_config, {{"keptRevisions", 1}}), "config.keptRevisions");
  EXPECT_EQ(refusal(parse_election_config, {{"keptRevisions", 100}}), "config.keptRevisions");
  EXPECT_EQ(refusal(parse_election_config, {{"stampTimeout", "15"}}), "config.stampTimeout");
  EXPECT_EQ(refusal(parse_election_config, {{"stampTimeout", 0.1}}), "config.stampTimeout");
  EXPECT_EQ(refusal(parse_store_config, json::array()), "");
}

TEST(Config, SchemasSayTheDefaults) {
  const StoreConfig store;
  const json of_store = json::parse(kStoreSchema)["properties"];
  EXPECT_EQ(of_store["path"]["default"], store.path);
  EXPECT_EQ(of_store["gate"]["default"], store.gate);
  EXPECT_EQ(of_store["keptRevisions"]["default"], store.kept_revisions);
  EXPECT_EQ(json::parse(kElectionSchema)["properties"]["stampTimeout"]["default"],
            ElectionConfig{}.stamp_timeout / std::chrono::seconds(1));
}

}  // namespace
}  // namespace egw::local
