// How deeply a JSON text is nested and how many values it has, seen before it is parsed: bounds the
// recursion of everything that walks the document later, and its memory. Used by the state stores;
// needs nothing.
#pragma once

#include <cstddef>
#include <string_view>

namespace egw::common {

namespace detail {

// Whether `found` says yes to any character outside of strings.
template <class Found>
bool any_outside_strings(std::string_view text, Found found) {
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (found(c)) {
      return true;
    }
  }
  return false;
}

}  // namespace detail

// Objects and arrays within each other.
inline bool nested_deeper_than(std::string_view text, int levels) {
  int depth = 0;
  return detail::any_outside_strings(text, [&](char c) {
    if (c == '}' || c == ']') --depth;
    return (c == '{' || c == '[') && ++depth > levels;
  });
}

// Objects, arrays, strings, numbers and so on; an empty object or array counts twice.
inline bool more_values_than(std::string_view text, std::size_t most) {
  std::size_t values = 1;
  return detail::any_outside_strings(
      text, [&](char c) { return (c == ',' || c == '{' || c == '[') && ++values > most; });
}

}  // namespace egw::common
