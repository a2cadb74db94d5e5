// Label selectors with Kubernetes' meaning (apimachinery, labels.Selector): matchLabels and
// matchExpressions with In, NotIn, Exists, DoesNotExist; all requirements must hold.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "egw/model/meta.hpp"

namespace egw::model {

// As Kubernetes has them; what is wanted, for messages.
[[nodiscard]] bool is_label_key(std::string_view text);
[[nodiscard]] bool is_label_value(std::string_view text);
inline constexpr std::string_view kWantLabelKey =
    "a label key: up to 63 letters, digits, '-', '_', '.', with an optional DNS prefix and '/'";
inline constexpr std::string_view kWantLabelValue =
    "a label value: up to 63 letters, digits, '-', '_', '.'";

struct Requirement {
  enum class Op : std::uint8_t { kIn, kNotIn, kExists, kDoesNotExist };
  std::string key;
  Op op = Op::kExists;
  std::vector<std::string> values;  // sorted
  friend bool operator==(const Requirement&, const Requirement&) = default;
};

// Empty (no requirement) matches everything.
class LabelSelector {
 public:
  std::vector<Requirement> requirements;
  [[nodiscard]] bool matches(const Labels& labels) const;
  [[nodiscard]] bool empty() const { return requirements.empty(); }
  // The text form of `kubectl -l`: "a=b,c!=d,e in (f,g),h,!i".
  static Result<LabelSelector> parse_text(std::string_view text);
  friend bool operator==(const LabelSelector&, const LabelSelector&) = default;
};

class Cursor;
// Requirements that do not fit are faults of the document, and left out.
[[nodiscard]] LabelSelector read_selector(const Cursor& c);
// The first fault is the error. path: for its message, e.g. "spec.appliedTo.podSelector".
[[nodiscard]] Result<LabelSelector> decode_selector(const nlohmann::json& j, std::string_view path);
[[nodiscard]] nlohmann::json encode_selector(const LabelSelector& selector);

}  // namespace egw::model
