// Text in messages: what comes from outside, and numbers of things.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace egw::model {

// The same with '?' for control characters: what a document holds must not begin a line of its own
// in what is said of it.
[[nodiscard]] inline std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return text;
}

// "1 node", "2 nodes"; `one`: what takes an s.
[[nodiscard]] inline std::string counted(std::size_t count, std::string_view one) {
  return std::to_string(count) + " " + std::string(one) + (count == 1 ? "" : "s");
}

}  // namespace egw::model
