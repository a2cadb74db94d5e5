// Field and label selectors over documents, with Kubernetes' text forms. Used by store.cpp (list)
// and watcher.cpp (subscriptions).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "egw/sdk/status.hpp"

namespace egw::local {

class Filter {
 public:
  // fields: "path=value,path!=value" with dots between the steps of a path; a path that is not
  // there has the empty value. labels: "a=b,c!=d,e in (f,g),h notin (i),j,!k". Each at most 4096
  // bytes. kInvalid names what cannot be read.
  static sdk::Outcome<Filter> parse(std::string_view fields, std::string_view labels);

  // Whether anything is restricted at all.
  [[nodiscard]] bool empty() const { return fields_.empty() && labels_.empty(); }
  [[nodiscard]] bool matches(std::string_view document) const;
  [[nodiscard]] bool matches(const nlohmann::json& document) const;

 private:
  // By the text alone; nullopt: it has to be parsed.
  [[nodiscard]] std::optional<bool> judge_text(std::string_view document) const;
  struct FieldTerm {
    std::vector<std::string> path;
    std::string value;
    bool equal = true;
  };
  struct LabelTerm {
    enum class Op { kIn, kNotIn, kExists, kMissing } op = Op::kExists;
    std::string key;
    std::vector<std::string> values;
  };
  static sdk::Outcome<FieldTerm> parse_field(std::string_view term);
  static sdk::Outcome<LabelTerm> parse_label(std::string_view term);
  void collect_needles();

  std::vector<FieldTerm> fields_;
  std::vector<LabelTerm> labels_;
  // Texts without which a document cannot match: spares parsing the many that do not.
  std::vector<std::string> needles_;
};

}  // namespace egw::local
