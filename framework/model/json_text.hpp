// JsonText: reads JSON from front to back without making a tree of it, for what is read by the ten
// thousand. It reads what programs write and, of the rest, says that it cannot (good() is false):
// escapes in a string that is wanted, anything but ASCII, numbers that are not short and whole.
// The caller then parses the document. What it reads without a word is well-formed. Used by the
// codecs of this folder.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace egw::model {

class JsonText {
 public:
  explicit JsonText(std::string_view text) : at_(text.data()), end_(at_ + text.size()) {}

  [[nodiscard]] bool good() const { return good_; }
  // Everything has been read, and as it was wanted.
  [[nodiscard]] bool done() {
    skip_space();
    return good_ && at_ == end_;
  }
  void fail() {
    good_ = false;
    at_ = end_;
  }

  // Takes a null, if the next value is one.
  bool null() { return peek() == 'n' && word("null"); }
  // A string without escapes. Valid as long as the text.
  std::string_view string();
  bool boolean();
  // Of at most 18 digits.
  std::int64_t whole();
  // f(key) takes the value. The key is as it is written: one with escapes has a backslash in it.
  template <class F>
  void members(F&& f) {
    open('{');
    if (!take('}')) {
      do {
        const std::string_view key = skip_string();
        expect(':');
        if (good_) f(key);
      } while (take(','));
      expect('}');
    }
    --depth_;
  }
  // f() takes the element.
  template <class F>
  void elements(F&& f) {
    open('[');
    if (!take(']')) {
      do {
        f();
      } while (good_ && take(','));
      expect(']');
    }
    --depth_;
  }
  // Over any value, which it answers with as it is written.
  std::string_view skip();
  // Over a string, which it answers with as it is written, escapes and all.
  std::string_view skip_string();

 private:
  static constexpr int kMaxDepth = 64;

  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
  }
  [[nodiscard]] char peek() {
    skip_space();
    return at_ == end_ ? '\0' : *at_;
  }
  bool take(char c) {
    if (peek() != c || at_ == end_) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail();
  }
  void open(char bracket) {
    if (++depth_ > kMaxDepth) fail();
    expect(bracket);
  }
  bool word(std::string_view wanted);
  void skip_value();

  const char* at_;
  const char* end_;
  int depth_ = 0;
  bool good_ = true;
};

// Finds the place of a member's name in a list of those that are read. One that comes a second time
// spoils the text: a tree would keep its last.
template <std::size_t N>
class MemberNames {
 public:
  constexpr explicit MemberNames(const std::array<std::string_view, N>& names) : names_(names) {}
  // N: it is none of them.
  std::size_t find(JsonText& in, std::string_view key) {
    for (std::size_t i = 0; i < N; ++i) {
      if (key != names_[i]) continue;
      if (seen_[i]) in.fail();
      seen_[i] = true;
      return i;
    }
    if (key.find("\\u") != std::string_view::npos) in.fail();  // it may be one of them
    return N;
  }

 private:
  const std::array<std::string_view, N>& names_;
  std::array<bool, N> seen_{};
};

}  // namespace egw::model
