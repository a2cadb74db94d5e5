// Checks a document against a JSON Schema and says in words what is wrong: the judge is valijson,
// the words are made from the schema's own text. Used for the plugins' configuration
// (config_check.hpp) and for egw's own (framework/app).
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace egw::host {

struct SchemaFault {
  std::string path;     // "vxlan.port", "list[2].name"; empty: the document itself
  std::string message;  // "is 70000; expected an integer from 1 to 65535"
};

// The first fault; nullopt: none. A subschema's "x-egw-expected" replaces the words after
// "expected"; keys under "x-egw-ignored" are not suggested. Throws std::exception when the schema
// is no schema.
[[nodiscard]] std::optional<SchemaFault> find_schema_fault(const nlohmann::json& document,
                                                           const nlohmann::json& schema);

// The candidate that a mistyped word most likely means; empty when none is near.
[[nodiscard]] std::string nearest(std::string_view word,
                                  const std::vector<std::string>& candidates);

}  // namespace egw::host
