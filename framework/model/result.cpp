// Error's text. Used wherever an error reaches a person: logs, verbs, conditions.
#include "egw/model/result.hpp"

#include <system_error>

namespace egw {

std::string Error::to_string() const {
  std::string out = object;
  if (!message.empty()) {
    if (!out.empty()) out += ": ";
    out += message;
  }
  if (sys_errno != 0) {
    const std::string text = std::generic_category().message(sys_errno);
    out += out.empty() ? text : " (" + text + ")";
  }
  return out;
}

}  // namespace egw
