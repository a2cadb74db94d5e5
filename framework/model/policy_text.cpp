// See policy_text.hpp.
#include "egw/model/policy_text.hpp"

#include "egw/model/json_text.hpp"

namespace egw::model {

std::optional<std::string> policy_without_status(std::string_view json) {
  static constexpr std::array kNames{std::string_view("spec"), std::string_view("status")};
  static constexpr std::array kSpecNames{std::string_view("failurePolicy")};
  JsonText in(json);
  MemberNames names(kNames);
  MemberNames spec_names(kSpecNames);
  std::string_view status;
  bool drops = true;
  in.members([&](std::string_view key) {
    const std::size_t member = names.find(in, key);
    if (member == 0 && !in.null()) {
      in.members([&](std::string_view name) {
        const bool decides = spec_names.find(in, name) == 0;
        const std::string_view value = in.skip();
        if (decides) drops = value == "\"Drop\"" || value == "null";
      });
    } else if (member != 0) {
      const std::string_view value = in.skip();
      if (member == 1) status = value;
    }
  });
  if (!in.done() || !drops || status.empty()) return std::nullopt;
  const auto begin = static_cast<std::size_t>(status.data() - json.data());
  std::string out(json.substr(0, begin));
  out.append("null").append(json.substr(begin + status.size()));
  return out;
}

}  // namespace egw::model
