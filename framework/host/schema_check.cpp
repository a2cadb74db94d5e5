// Checks a document against a JSON Schema and says in words what is wrong (schema_check.hpp).
#include "egw/host/schema_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <regex>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

namespace egw::host {
namespace {

using nlohmann::json;

std::string join(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

// "\"abc\"" shortened, for messages.
std::string shown(const json& value) {
  if (value.is_object()) return "a map";
  if (value.is_array()) return "a list";
  if (value.is_null()) return "nothing";
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

bool has_type(const json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  return type == "null" && value.is_null();
}

std::string range_text(const json& schema) {
  if (schema.contains("minimum") && schema.contains("maximum")) {
    return fmt::format(" from {} to {}", schema["minimum"].dump(), schema["maximum"].dump());
  }
  return "";
}

// What a subschema wants, in words.
std::string expected(const json& schema) {
  if (schema.contains("x-egw-expected")) return schema["x-egw-expected"].get<std::string>();
  if (schema.contains("enum")) {
    std::string words;
    for (const auto& item : schema["enum"]) {
      words += (words.empty() ? "" : ", ") + (item.is_string() && !item.get<std::string>().empty()
                                                  ? item.get<std::string>()
                                                  : item.dump());
    }
    return "one of " + words;
  }
  const std::string type = schema.value("type", "");
  if (type == "object") return "a map";
  if (type == "array") return "a list";
  if (type == "boolean") return "true or false";
  if (type == "integer") return "an integer" + range_text(schema);
  if (type == "number") return "a number" + range_text(schema);
  if (type == "string") {
    if (schema.contains("pattern")) {
      return "a string that matches " + schema["pattern"].get<std::string>();
    }
    if (schema.contains("minLength") && schema.contains("maxLength")) {
      return fmt::format("a string of {} to {} characters", schema["minLength"].get<int>(),
                         schema["maxLength"].get<int>());
    }
    return "a string";
  }
  return "another value";
}

std::optional<SchemaFault> find_fault(const json& value, const json& schema,
                                      const std::string& path);

std::string unknown_key(const std::string& key, const json& properties) {
  std::vector<std::string> names;
  std::string all;
  for (const auto& [name, sub] : properties.items()) {
    names.push_back(name);
    if (!sub.contains("x-egw-ignored")) all += (all.empty() ? "" : ", ") + name;
  }
  const std::string guess = nearest(key, names);
  if (!guess.empty()) return fmt::format("unknown key; did you mean \"{}\"?", guess);
  return "unknown key; known here: " + all;
}

std::optional<SchemaFault> fault_in_object(const json& value, const json& schema,
                                           const std::string& path) {
  static const json kNone = json::object();
  const json& properties = schema.contains("properties") ? schema["properties"] : kNone;
  for (const auto& [key, item] : value.items()) {
    const auto sub = properties.find(key);
    if (sub == properties.end()) {
      if (schema.value("additionalProperties", json(true)) == json(false) &&
          !schema.contains("patternProperties")) {
        return SchemaFault{join(path, key), unknown_key(key, properties)};
      }
      continue;
    }
    if (auto fault = find_fault(item, *sub, join(path, key))) return fault;
  }
  if (schema.contains("required")) {
    for (const auto& key : schema["required"]) {
      if (!value.contains(key.get<std::string>())) {
        return SchemaFault{join(path, key.get<std::string>()), "missing; it is required here"};
      }
    }
  }
  return std::nullopt;
}

bool scalar_fits(const json& value, const json& schema) {
  if (schema.contains("type") && !has_type(value, schema["type"].get<std::string>())) return false;
  if (schema.contains("enum")) {
    const auto& words = schema["enum"];
    if (std::find(words.begin(), words.end(), value) == words.end()) return false;
  }
  if (value.is_number()) {
    if (schema.contains("minimum") && value < schema["minimum"]) return false;
    if (schema.contains("maximum") && value > schema["maximum"]) return false;
  }
  if (value.is_string()) {
    const auto& s = value.get_ref<const std::string&>();
    if (schema.contains("minLength") && s.size() < schema["minLength"].get<std::size_t>())
      return false;
    if (schema.contains("maxLength") && s.size() > schema["maxLength"].get<std::size_t>())
      return false;
    if (schema.contains("pattern") &&
        !std::regex_search(s, std::regex(schema["pattern"].get<std::string>()))) {
      return false;
    }
  }
  if (value.is_array() && schema.contains("maxItems") &&
      value.size() > schema["maxItems"].get<std::size_t>()) {
    return false;
  }
  if (schema.contains("anyOf")) {
    const auto& choices = schema["anyOf"];
    return std::any_of(choices.begin(), choices.end(),
                       [&](const json& choice) { return scalar_fits(value, choice); });
  }
  return true;
}

std::optional<SchemaFault> find_fault(const json& value, const json& schema,
                                      const std::string& path) {
  if (!scalar_fits(value, schema)) {
    if (value.is_array() && schema.contains("maxItems") && schema.value("type", "") == "array") {
      return SchemaFault{path, fmt::format("has {} items; expected at most {}", value.size(),
                                           schema["maxItems"].dump())};
    }
    return SchemaFault{path, fmt::format("is {}; expected {}", shown(value), expected(schema))};
  }
  if (value.is_object()) return fault_in_object(value, schema, path);
  if (value.is_array() && schema.contains("items")) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (auto fault = find_fault(value[i], schema["items"], fmt::format("{}[{}]", path, i))) {
        return fault;
      }
    }
  }
  return std::nullopt;
}

// Edits (insert, delete, replace, swap of neighbours) between two words, case ignored.
std::size_t distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
          lower(a[i - 2]) == lower(b[j - 1])) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

// valijson's context is {"<root>", "[path]", "[0]"}: made "path[0]".
std::string path_of(const std::vector<std::string>& context) {
  std::string out;
  for (std::size_t i = 1; i < context.size(); ++i) {
    const std::string& part = context[i];
    const bool bracketed = part.size() > 2 && part.front() == '[' && part.back() == ']';
    const std::string inner = bracketed ? part.substr(1, part.size() - 2) : part;
    const bool index = inner.find_first_not_of("0123456789") == std::string::npos;
    out = index ? out + "[" + inner + "]" : join(out, inner);
  }
  return out;
}

}  // namespace

std::optional<SchemaFault> find_schema_fault(const json& document, const json& schema) {
  valijson::Schema compiled;
  valijson::SchemaParser parser(valijson::SchemaParser::kDraft7);
  parser.populateSchema(valijson::adapters::NlohmannJsonAdapter(schema), compiled);
  valijson::Validator validator;
  valijson::ValidationResults results;
  const valijson::adapters::NlohmannJsonAdapter target(document);
  if (validator.validate(compiled, target, &results)) return std::nullopt;
  try {
    if (auto fault = find_fault(document, schema, "")) return fault;
  } catch (const std::exception&) {  // a form of a keyword that the words here do not know
  }
  // No words for it: the deepest of valijson's findings.
  valijson::ValidationResults::Error error;
  valijson::ValidationResults::Error deepest;
  while (results.popError(error)) {
    if (deepest.description.empty() || error.context.size() > deepest.context.size())
      deepest = error;
  }
  return SchemaFault{path_of(deepest.context), deepest.description};
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.size() > 64) return "";
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    const std::size_t d = distance(word, candidate);
    if (d < best_distance) {
      best_distance = d;
      best = candidate;
    }
  }
  return best;
}

}  // namespace egw::host
