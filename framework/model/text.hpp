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

// At most so many bytes of it, and no character of UTF-8 in part (RFC 3629): half of one would be
// stored as another text than was meant, and be written again and again.
[[nodiscard]] inline std::string shortened(std::string_view text, std::size_t bytes) {
  if (text.size() <= bytes) return std::string(text);
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0U) == 0x80U) --bytes;
  return std::string(text.substr(0, bytes));
}

// "1 node", "2 nodes"; `one`: what takes an s.
[[nodiscard]] inline std::string counted(std::size_t count, std::string_view one) {
  return std::to_string(count) + " " + std::string(one) + (count == 1 ? "" : "s");
}

}  // namespace egw::model
