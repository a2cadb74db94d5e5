// How deeply a JSON text is nested, seen before it is parsed: bounds the recursion of everything
// that walks the document later. Used by the state stores; needs nothing.
#pragma once

#include <cstddef>
#include <string_view>

namespace egw::common {

// Objects and arrays within each other.
inline bool nested_deeper_than(std::string_view text, int levels) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > levels) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

}  // namespace egw::common
