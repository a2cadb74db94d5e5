// Text that comes from outside, in messages.
#pragma once

#include <algorithm>
#include <string>

namespace egw::model {

// The same with '?' for control characters: what a document holds must not begin a line of its own
// in what is said of it.
[[nodiscard]] inline std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return text;
}

}  // namespace egw::model
