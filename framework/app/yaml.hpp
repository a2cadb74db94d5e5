// YAML text to JSON and back, with bounds. Used by the configuration and by the verbs that read
// manifests (`apply`, `delete -f`) or print objects (`get -o yaml`).
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "egw/model/result.hpp"

namespace egw::app {

// All documents of `text` that are not empty, in order. Scalars follow the YAML 1.2 core schema
// (`yes` is a string, 0x1f and 0o17 are integers); a quoted scalar is a string. Text that begins
// with '{' and is one valid JSON document without a key that is given twice is read as JSON.
// `source` names the text in messages ("FILE:LINE: ..."). Refused: more than max_bytes, nesting
// over 64 levels, a key given twice, a key that is not a string, and aliases that expand to more
// nodes than the text has bytes.
[[nodiscard]] Result<std::vector<nlohmann::json>> read_yaml(std::string_view text,
                                                            const std::string& source,
                                                            std::size_t max_bytes);

// The same, with the documents before a mistake beside it. The last of them is left out where no
// line "---" stands between it and the mistake: it may be half of what was meant.
struct YamlText {
  std::vector<nlohmann::json> documents;
  std::optional<Error> mistake;
};
[[nodiscard]] YamlText read_yaml_documents(std::string_view text, const std::string& source,
                                           std::size_t max_bytes);

// One YAML value ("--set key=VALUE"). Empty text is an empty string.
[[nodiscard]] Result<nlohmann::json> read_yaml_value(std::string_view text,
                                                     const std::string& source);

// Block style, keys in the document's order, a final newline. Quotes every string that YAML 1.1 or
// 1.2 would read as something else.
[[nodiscard]] std::string write_yaml(const nlohmann::json& document);

// `-o json`: indented, a final newline; bytes that are no UTF-8 are replaced.
[[nodiscard]] std::string write_json(const nlohmann::json& document);

// Whole file, or stdin for "-". Refuses more than max_bytes, and what is not a regular file or
// pipe.
[[nodiscard]] Result<std::string> read_text(const std::string& path, std::size_t max_bytes);

}  // namespace egw::app
