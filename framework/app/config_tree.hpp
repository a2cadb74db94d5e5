// The configuration as one JSON tree in its short spelling, with the source of every key. Part of
// config.hpp; apart because merging knows nothing of what the keys mean.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "egw/model/result.hpp"

namespace egw::app {

class ConfigTree {
 public:
  // Checks `document` against the schema, rewrites old spellings to the short ones (both given and
  // different: an error) and lays it over what is there.
  Result<void> add(nlohmann::json document, const std::string& source);

  [[nodiscard]] const nlohmann::json& root() const { return root_; }
  // The value at a dotted path, or null.
  [[nodiscard]] const nlohmann::json& at(const std::string& path) const;
  [[nodiscard]] bool has(const std::string& path) const { return !at(path).is_null(); }
  // "SOURCE: path", for messages about a value.
  [[nodiscard]] std::string where(const std::string& path) const;
  // Keys without effect, by the reason that the schema gives.
  [[nodiscard]] const std::map<std::string, std::vector<std::string>>& ignored() const {
    return ignored_;
  }

 private:
  void merge(nlohmann::json& into, nlohmann::json from, const std::string& path,
             const std::string& source);
  nlohmann::json root_ = nlohmann::json::object();
  std::map<std::string, std::string> sources_;  // dotted path of a leaf -> source
  std::map<std::string, std::vector<std::string>> ignored_;
};

// "a.b.c=VALUE" as the document {a: {b: {c: VALUE}}}.
[[nodiscard]] Result<nlohmann::json> parse_set(const std::string& text);

}  // namespace egw::app
