// Checks a document against a JSON Schema and says in one line what is wrong. Used by the
// configuration; the judge is valijson, the words are made here from the schema's own text.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "egw/model/result.hpp"

namespace egw::app {

// config/egw.schema.json as it was when this binary was built.
[[nodiscard]] std::string_view config_schema_text();

// The first fault, as "SOURCE: key.path: what it is; expected ...".
[[nodiscard]] Result<void> check_schema(const nlohmann::json& document,
                                        const nlohmann::json& schema, const std::string& source);

// The subschema of a dotted path through `properties`; null where there is none.
[[nodiscard]] const nlohmann::json* find_subschema(const nlohmann::json& schema,
                                                   const std::vector<std::string>& path);

// The candidate that a mistyped word most likely means; empty when none is near.
[[nodiscard]] std::string nearest(std::string_view word,
                                  const std::vector<std::string>& candidates);

}  // namespace egw::app
