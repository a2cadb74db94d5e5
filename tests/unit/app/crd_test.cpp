// The CustomResourceDefinitions of config/crds against the model: names, and every field of a
// schema is read and written by the codec with that type. tests/static/crds.py looks the other way.
#include <gtest/gtest.h>

#include <functional>

#include "egw/app/yaml.hpp"
#include "egw/model/codec.hpp"

namespace egw {
namespace {

using model::Kind;
using nlohmann::json;

json definition_of(const model::KindInfo& kind) {
  const std::string path =
      std::string(EGW_SOURCE_DIR) + "/config/crds/" + std::string(kind.plural) + ".yaml";
  const auto text = app::read_text(path, 1 << 20);
  if (!text) throw std::runtime_error(text.error().to_string());
  const auto documents = app::read_yaml(*text, path, 1 << 20);
  if (!documents) throw std::runtime_error(documents.error().to_string());
  return documents->at(0);
}

// A value of the schema with everything in it that it allows, nothing being what absence means.
json sample(const json& schema, const std::string& name) {
  const std::string type = schema["type"];
  if (type == "object") {
    json out = json::object();
    if (schema.contains("additionalProperties")) {
      out["key"] = sample(schema["additionalProperties"], name);
    }
    const json properties = schema.value("properties", json::object());
    for (const auto& [key, value] : properties.items()) {
      out[key] = sample(value, key);
    }
    return out;
  }
  if (type == "array") return json::array({sample(schema["items"], name)});
  if (type == "integer") return schema.value("maximum", 7);
  if (type == "boolean") return !schema.value("default", false);
  if (schema.value("format", "") == "date-time") {
    const bool fine = name == "lastHeartbeatTime" || name == "unservedSince";
    return fine ? "2026-01-02T03:04:05.678000Z" : "2026-01-02T03:04:05Z";
  }
  if (!schema.contains("enum")) return "text";
  // Not what absence means, and not In of one value, which the model writes as a label.
  for (const json& word : schema["enum"]) {
    if (word != schema.value("default", json()) && word != "Pending" && word != "In") return word;
  }
  throw std::runtime_error("no word for " + name);
}

using Round = std::function<json(const json&)>;

template <class R>
json round_trip(const json& document) {
  const auto resource = model::decode<R>(document);
  if (!resource) {
    ADD_FAILURE() << resource.error().to_string();
    return {};
  }
  return model::encode(*resource);
}

// What the model keeps of a status because it does not know it.
json unknown_of(Kind kind, const json& document) {
  const auto of = [](const auto& resource) {
    return resource && !resource->unknown_status.empty() ? json::parse(resource->unknown_status)
                                                         : json();
  };
  if (kind == Kind::kEgressGateway) return of(model::decode<model::EgressGateway>(document));
  if (kind == Kind::kEgressTunnel) return of(model::decode<model::EgressTunnel>(document));
  if (kind == Kind::kEgressClusterInfo) {
    return of(model::decode<model::EgressClusterInfo>(document));
  }
  if (kind == Kind::kEgressPolicy) return of(model::decode<model::EgressPolicy>(document));
  return of(model::decode<model::EgressClusterPolicy>(document));
}

TEST(Crds, EveryFieldOfASchemaIsTheModels) {
  const std::pair<Kind, Round> kinds[] = {
      {Kind::kEgressGateway, round_trip<model::EgressGateway>},
      {Kind::kEgressPolicy, round_trip<model::EgressPolicy>},
      {Kind::kEgressClusterPolicy, round_trip<model::EgressClusterPolicy>},
      {Kind::kEgressTunnel, round_trip<model::EgressTunnel>},
      {Kind::kEgressClusterInfo, round_trip<model::EgressClusterInfo>},
  };
  for (const auto& [id, round] : kinds) {
    const model::KindInfo& kind = model::info(id);
    const json crd = definition_of(kind);
    const json& schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    json document = {{"apiVersion", kind.api_version()},
                     {"kind", kind.kind},
                     {"metadata", {{"name", "n"}}},
                     {"spec", sample(schema["spec"], "")},
                     {"status", sample(schema["status"], "")}};
    if (kind.namespaced) document["metadata"]["namespace"] = "ns";
    EXPECT_TRUE(model::unknown_fields(id, document).empty()) << kind.kind;
    const json again = round(document);
    const json kept = unknown_of(id, document);
    EXPECT_TRUE(kept.is_null()) << kind.kind << " keeps what it knows as unknown: " << kept;
    EXPECT_EQ(again["spec"], document["spec"]) << kind.kind << json::diff(document, again).dump(1);
    EXPECT_EQ(again["status"], document["status"])
        << kind.kind << json::diff(document, again).dump(1);
  }
}

TEST(Crds, NamesAreTheModels) {
  int found = 0;
  for (const model::KindInfo& kind : model::all_kinds()) {
    if (kind.group != model::kGroup) continue;
    ++found;
    const json crd = definition_of(kind);
    const json& names = crd["spec"]["names"];
    EXPECT_EQ(crd["spec"]["group"], kind.group);
    EXPECT_EQ(crd["spec"]["scope"], kind.namespaced ? "Namespaced" : "Cluster");
    EXPECT_EQ(crd["spec"]["versions"][0]["name"], kind.version);
    EXPECT_EQ(names["kind"], kind.kind);
    EXPECT_EQ(names["plural"], kind.plural);
    EXPECT_EQ(names["singular"], kind.singular);
    EXPECT_EQ(names["shortNames"][0], kind.short_name);
  }
  EXPECT_EQ(found, 7);
}

}  // namespace
}  // namespace egw
