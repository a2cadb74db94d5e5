// Strings that come from a plugin, made fit for logs and messages.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "egw/abi/types.h"

namespace egw::host {

[[nodiscard]] inline egw_str to_abi(std::string_view s) { return {s.data(), s.size()}; }

// A longer text than this has no end: it is not looked at.
inline constexpr std::size_t kMostText = 64U << 20U;

// As it is; a NULL pointer reads as empty.
[[nodiscard]] inline std::string_view raw_view(egw_str s) {
  return s.data == nullptr ? std::string_view() : std::string_view(s.data, s.len);
}

// A copy of at most `limit` bytes on one line: control characters become spaces, what is no UTF-8
// becomes '?'; what is cut ends in "...".
[[nodiscard]] std::string plain_text(std::string_view s, std::size_t limit = 4096);
// The same, but ends of lines stay: reasons of a denial, one on each.
[[nodiscard]] std::string plain_lines(std::string_view s, std::size_t limit);
[[nodiscard]] inline std::string plain_text(egw_str s, std::size_t limit = 4096) {
  if (s.len > kMostText) return "(a text of " + std::to_string(s.len) + " bytes)";
  return plain_text(raw_view(s), limit);
}

// "5 s", "2.3 s", "200 ms".
[[nodiscard]] std::string duration_text(std::chrono::nanoseconds d);

}  // namespace egw::host
