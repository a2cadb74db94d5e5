// The value at a path of a stored JSON text, found without parsing the rest: a selector judges
// 50,000 documents by one member. Reads what this store writes (compact, see document.cpp) and says
// of everything else that it cannot. Used by filter.cpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace egw::local {

struct MemberText {
  bool readable = false;    // false: parse the document
  std::string_view string;  // of a string without escapes; empty: there is no such member
};

namespace detail {

class JsonWalk {
 public:
  explicit JsonWalk(std::string_view text) : rest_(text) {}

  bool take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  // A string; false: it has escapes, or is none.
  bool plain_string(std::string_view& out) {
    if (!take('"')) return false;
    std::size_t end = 0;  // find_first_of() calls a function for each character
    while (end < rest_.size() && rest_[end] != '"' && rest_[end] != '\\') ++end;
    if (end == rest_.size() || rest_[end] == '\\') return false;
    out = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return true;
  }
  // Over a value, to the ',' or the bracket behind it.
  bool skip_value() {
    int depth = 0;
    bool quoted = false;
    for (std::size_t i = 0; i < rest_.size(); ++i) {
      const char c = rest_[i];
      if (quoted) {
        if (c == '\\') ++i;
        if (c == '"') quoted = false;
      } else if (c == '"') {
        quoted = true;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (depth == 0 && (c == ',' || c == '}' || c == ']')) {
        rest_.remove_prefix(i);
        return true;
      } else if (c == '}' || c == ']') {
        --depth;
      }
    }
    return false;
  }

 private:
  std::string_view rest_;
};

}  // namespace detail

inline MemberText member_text(std::string_view document, const std::vector<std::string>& path) {
  detail::JsonWalk walk(document);
  for (const std::string& step : path) {
    if (!walk.take('{')) return {};
    if (walk.take('}')) return {true, {}};
    while (true) {
      std::string_view key;
      if (!walk.plain_string(key) || !walk.take(':')) return {};
      if (key == step) break;
      if (!walk.skip_value()) return {};
      if (walk.take('}')) return {true, {}};
      if (!walk.take(',')) return {};
    }
  }
  MemberText out;
  out.readable = walk.plain_string(out.string);
  return out;
}

}  // namespace egw::local
