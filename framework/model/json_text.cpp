// See json_text.hpp.
#include "egw/model/json_text.hpp"

namespace egw::model {
namespace {

// A character that stands in a string for itself and does not end it.
constexpr std::array<bool, 256> kPlain = [] {
  std::array<bool, 256> plain{};
  for (std::size_t c = 0x20; c < 0x80; ++c) plain[c] = c != '"' && c != '\\';
  return plain;
}();

bool is_plain(char c) { return kPlain[static_cast<unsigned char>(c)]; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// What stands behind a backslash; 0: it is no escape, or half of a character beyond 16 bits.
std::size_t escape_size(std::string_view rest) {
  constexpr std::string_view kShort = "\"\\/bfnrt";
  constexpr std::string_view kHex = "0123456789abcdefABCDEF";
  if (rest.empty()) return 0;
  if (kShort.find(rest[0]) != std::string_view::npos) return 1;
  constexpr std::size_t kLong = 5;
  if (rest[0] != 'u' || rest.size() < kLong) return 0;
  const std::string_view digits = rest.substr(1, kLong - 1);
  const bool half = (digits[0] == 'd' || digits[0] == 'D') && digits[1] >= '8';
  return half || digits.find_first_not_of(kHex) != std::string_view::npos ? 0 : kLong;
}

}  // namespace

std::string_view JsonText::string() {
  expect('"');
  const char* begin = at_;
  while (at_ != end_ && is_plain(*at_)) ++at_;
  const std::string_view text(begin, static_cast<std::size_t>(at_ - begin));
  if (at_ == end_ || *at_ != '"') {
    fail();
    return {};
  }
  ++at_;
  return text;
}

std::string_view JsonText::skip_string() {
  expect('"');
  const char* begin = at_;
  while (at_ != end_ && *at_ != '"') {
    if (is_plain(*at_)) {
      ++at_;
      continue;
    }
    const std::string_view rest(at_ + 1, static_cast<std::size_t>(end_ - at_) - 1);
    const std::size_t escape = *at_ == '\\' ? escape_size(rest) : 0;
    if (escape == 0) {
      fail();
    } else {
      at_ += 1 + escape;
    }
  }
  if (at_ == end_) {
    fail();
    return {};
  }
  return {begin, static_cast<std::size_t>(at_++ - begin)};
}

bool JsonText::word(std::string_view wanted) {
  const std::string_view rest(at_, static_cast<std::size_t>(end_ - at_));
  if (!rest.starts_with(wanted)) {
    fail();
    return false;
  }
  at_ += wanted.size();
  return true;
}

bool JsonText::boolean() {
  const bool value = peek() == 't';
  word(value ? "true" : "false");
  return value && good_;
}

std::int64_t JsonText::whole() {
  constexpr int kMaxDigits = 18;
  const bool negative = take('-');
  const char* begin = at_;
  std::int64_t value = 0;
  while (at_ != end_ && is_digit(*at_) && at_ - begin < kMaxDigits) {
    value = value * 10 + (*at_++ - '0');
  }
  const auto digits = at_ - begin;
  const bool more = at_ != end_ && is_digit(*at_);
  if (digits == 0 || more || (digits > 1 && *begin == '0')) {
    fail();
    return 0;
  }
  return negative ? -value : value;
}

std::string_view JsonText::skip() {
  skip_space();
  const char* begin = at_;
  skip_value();
  return {begin, static_cast<std::size_t>(at_ - begin)};
}

void JsonText::skip_value() {
  switch (peek()) {
    case '{':
      return members([this](std::string_view) { skip_value(); });
    case '[':
      return elements([this] { skip_value(); });
    case '"':
      static_cast<void>(skip_string());
      return;
    case 't':
    case 'f':
      static_cast<void>(boolean());
      return;
    case 'n':
      static_cast<void>(null());
      return;
    default:
      static_cast<void>(whole());
  }
}

}  // namespace egw::model
