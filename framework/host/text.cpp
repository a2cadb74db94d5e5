#include "egw/host/text.hpp"

namespace egw::host {
namespace {

// Length of the well-formed UTF-8 sequence at the start of `s` (Unicode 15, table 3-7); 0: none.
std::size_t sequence(std::string_view s) {
  const auto byte = [&s](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  const auto tail = [&](std::size_t i, unsigned low = 0x80, unsigned high = 0xbf) {
    return i < s.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned b = byte(0);
  if (b < 0x80) return 1;
  if (b >= 0xc2 && b <= 0xdf) return tail(1) ? 2 : 0;
  if (b >= 0xe0 && b <= 0xef) {
    return tail(1, b == 0xe0 ? 0xa0 : 0x80, b == 0xed ? 0x9f : 0xbf) && tail(2) ? 3 : 0;
  }
  if (b >= 0xf0 && b <= 0xf4) {
    return tail(1, b == 0xf0 ? 0x90 : 0x80, b == 0xf4 ? 0x8f : 0xbf) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

std::string plain(std::string_view s, std::size_t limit, bool lines) {
  std::string out;
  out.reserve(s.size() < limit ? s.size() : limit);
  while (!s.empty()) {
    const std::size_t n = sequence(s);
    if (out.size() + (n == 0 ? 1 : n) > limit) return out + "...";
    if (n == 0) {
      out += '?';
    } else if (n == 1 && (static_cast<unsigned char>(s[0]) < 0x20 || s[0] == 0x7f)) {
      out += lines && s[0] == '\n' ? '\n' : ' ';
    } else {
      out.append(s.substr(0, n));
    }
    s.remove_prefix(n == 0 ? 1 : n);
  }
  return out;
}

}  // namespace

std::string plain_text(std::string_view s, std::size_t limit) { return plain(s, limit, false); }
std::string plain_lines(std::string_view s, std::size_t limit) { return plain(s, limit, true); }

std::string duration_text(std::chrono::nanoseconds d) {
  const auto ms = std::chrono::round<std::chrono::milliseconds>(d).count();
  if (ms < 1000) return std::to_string(ms) + " ms";
  const auto tenths = (ms + 50) / 100;
  return std::to_string(tenths / 10) + (tenths % 10 == 0 ? "" : "." + std::to_string(tenths % 10)) +
         " s";
}

}  // namespace egw::host
