// Text to and from address values. Parsing is stricter than inet_pton's callers expect: one address
// has one accepted spelling for IPv4, and a v4-mapped IPv6 address is refused, so that the same
// address can never be configured twice under two names.
#include "egw/model/address.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "egw/model/text.hpp"

namespace egw::model {
namespace {

using Value = unsigned __int128;

constexpr std::size_t kMaxText = 64;  // longer than any address, prefix of one, or range end

// What was given, cut so that a message stays one line whatever arrives.
std::string quoted(std::string_view text) {
  return '"' + one_line(shortened(text, 100)) + (text.size() > 100 ? "...\"" : "\"");
}

// The reason alone; the callers say what the text was meant to be.
tl::unexpected<Error> bad(std::string reason) {
  return fail(Errc::kInvalid, "", std::move(reason));
}

// Decimal without leading zeros, at most `max`; -1 otherwise.
int parse_decimal(std::string_view text, int max) {
  if (text.empty() || text.size() > 3 || (text.size() > 1 && text[0] == '0')) return -1;
  int value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return -1;
    value = value * 10 + (c - '0');
  }
  return value <= max ? value : -1;
}

Result<Address> parse_v4(std::string_view text) {
  std::array<std::uint8_t, 4> bytes{};
  std::string_view rest = text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::size_t dot = rest.find('.');
    if ((dot == std::string_view::npos) != (i == 3)) {
      return bad("IPv4 has four numbers separated by dots");
    }
    const std::string_view part = rest.substr(0, dot);
    const int value = parse_decimal(part, 255);
    if (value < 0) {
      const bool leading_zero =
          part.size() > 1 && part[0] == '0' && part.find_first_not_of("0123456789") == part.npos;
      return bad(leading_zero ? "a number with leading zeros is ambiguous"
                              : "each number is 0 to 255");
    }
    bytes[i] = static_cast<std::uint8_t>(value);
    rest = dot == std::string_view::npos ? std::string_view() : rest.substr(dot + 1);
  }
  return Address::v4(bytes);
}

Result<Address> parse_v6(std::string_view text) {
  if (text.find('%') != std::string_view::npos) {
    return bad("an address with a zone is valid on one machine only");
  }
  std::array<char, kMaxText + 1> buffer{};
  std::memcpy(buffer.data(), text.data(), text.size());
  std::array<std::uint8_t, 16> bytes{};
  if (text.find('\0') != std::string_view::npos ||
      inet_pton(AF_INET6, buffer.data(), bytes.data()) != 1) {
    return bad("not the text form of an IPv6 address");
  }
  constexpr std::array<std::uint8_t, 12> kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (std::equal(kMapped.begin(), kMapped.end(), bytes.begin())) {
    const Address v4 = Address::v4({bytes[12], bytes[13], bytes[14], bytes[15]});
    return bad("it is an IPv4 address written as IPv6; write " + v4.to_string());
  }
  return Address::v6(bytes);
}

Result<Address> parse_any(std::string_view text) {
  if (text.empty()) return bad("it is empty");
  if (text.size() > kMaxText) return bad("it is too long");
  if (text.find_first_of(" \t\r\n") != std::string_view::npos) {
    return bad("there is a space in it: take it out");
  }
  if (text.find('/') != std::string_view::npos) {
    return bad("it is a prefix, and one address is wanted: leave out what begins with the '/'");
  }
  return text.find(':') != std::string_view::npos ? parse_v6(text) : parse_v4(text);
}

std::string v6_text(const std::array<std::uint8_t, 16>& bytes) {
  std::array<unsigned, 8> groups{};
  for (std::size_t i = 0; i < 8; ++i) {
    groups[i] = static_cast<unsigned>(bytes[2 * i] << 8) | bytes[2 * i + 1];
  }
  // RFC 5952, 4.2: the longest run of at least two zero groups, the first of equals.
  std::size_t best = 8;
  std::size_t best_length = 1;
  for (std::size_t i = 0; i < 8;) {
    std::size_t end = i;
    while (end < 8 && groups[end] == 0) ++end;
    if (end - i > best_length) {
      best = i;
      best_length = end - i;
    }
    i = end + 1;
  }
  std::string out;
  for (std::size_t i = 0; i < 8; ++i) {
    if (i == best) {
      out += "::";
      i += best_length - 1;
      continue;
    }
    if (!out.empty() && out.back() != ':') out += ':';
    fmt::format_to(std::back_inserter(out), "{:x}", groups[i]);
  }
  return out;
}

Value host_mask(unsigned bits, unsigned length) {
  const unsigned host = bits - length;
  return host >= 128 ? ~Value{0} : (Value{1} << host) - 1;
}

std::size_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9e3779b97f4a7c15ULL ^ (b + 0x7f4a7c159e3779b9ULL);
  x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ULL;
  x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ULL;
  return static_cast<std::size_t>(x ^ (x >> 32));
}

}  // namespace

Address Address::v4(std::array<std::uint8_t, 4> bytes) {
  Address a;
  a.family_ = Family::kV4;
  std::copy(bytes.begin(), bytes.end(), a.bytes_.begin());
  return a;
}

Address Address::v6(std::array<std::uint8_t, 16> bytes) {
  Address a;
  a.family_ = Family::kV6;
  a.bytes_ = bytes;
  return a;
}

Result<Address> Address::parse(std::string_view text) {
  auto address = parse_any(text);
  if (address) return address;
  return bad(fmt::format("{} is not an IP address (like 10.6.1.55 or fd00::55): {}", quoted(text),
                         address.error().message));
}

unsigned __int128 Address::value() const {
  Value v = 0;
  for (unsigned i = 0; i < bits() / 8; ++i) v = v << 8 | bytes_[i];
  return v;
}

Address Address::from_value(Family family, unsigned __int128 value) {
  Address a;
  a.family_ = family;
  for (unsigned i = a.bits() / 8; i-- > 0; value >>= 8) {
    a.bytes_[i] = static_cast<std::uint8_t>(value & 0xff);
  }
  return a;
}

std::string Address::to_string() const {
  if (is_v4()) return fmt::format("{}.{}.{}.{}", bytes_[0], bytes_[1], bytes_[2], bytes_[3]);
  return is_v6() ? v6_text(bytes_) : std::string();
}

Prefix::Prefix(const Address& address, unsigned length)
    : length_(static_cast<std::uint8_t>(std::min(length, address.bits()))) {
  const unsigned bits = address.bits();
  address_ = Address::from_value(address.family(), address.value() & ~host_mask(bits, length_));
}

Result<Prefix> Prefix::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = parse_any(text.substr(0, slash));
  if (!address) {
    return bad(fmt::format("{} is not a prefix (like 10.6.0.0/16 or fd00::/64) or an address: {}",
                           quoted(text), address.error().message));
  }
  if (slash == std::string_view::npos) return Prefix(*address, address->bits());
  const int max = static_cast<int>(address->bits());
  const int length = parse_decimal(text.substr(slash + 1), max);
  if (length < 0) {
    return fail(Errc::kInvalid, "",
                fmt::format("{} is not a prefix: its length must be a number from 0 to {}",
                            quoted(text), max));
  }
  return Prefix(*address, static_cast<unsigned>(length));
}

Address Prefix::last() const {
  return Address::from_value(family(), address_.value() | host_mask(address_.bits(), length_));
}

bool Prefix::contains(const Address& address) const {
  return address && address.family() == family() && address_ <= address && address <= last();
}

bool Prefix::contains(const Prefix& other) const {
  return other.length_ >= length_ && contains(other.address_);
}

std::string Prefix::to_string() const {
  return address_ ? fmt::format("{}/{}", address_.to_string(), length_) : std::string();
}

Result<Range> Range::parse(std::string_view text) {
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos) {
    if (text.find('/') == std::string_view::npos) {
      auto address = Address::parse(text);
      if (!address) return tl::unexpected(address.error());
      return Range{*address, *address};
    }
    auto prefix = Prefix::parse(text);
    if (!prefix) return tl::unexpected(prefix.error());
    return Range{prefix->first(), prefix->last()};
  }
  const auto first = Address::parse(text.substr(0, dash));
  const auto last = Address::parse(text.substr(dash + 1));
  if (!first || !last) {
    return fail(
        Errc::kInvalid, "",
        fmt::format("{} is not a range: {}", quoted(text), (first ? last : first).error().message));
  }
  if (first->family() != last->family()) {
    return fail(Errc::kInvalid, "",
                quoted(text) + " is not a range: both ends must be of one family");
  }
  if (*last < *first) {
    return fail(Errc::kInvalid, "",
                fmt::format("{} is a reversed range; write {}-{}", quoted(text), last->to_string(),
                            first->to_string()));
  }
  return Range{*first, *last};
}

std::string Range::to_string() const {
  return first == last ? first.to_string() : first.to_string() + "-" + last.to_string();
}

namespace {

// IANA's special-purpose registries (RFC 6890), the blocks that can never be a source on a wire;
// of two that contain an address the first names the reason. 100.64.0.0/10, 192.0.2.0/24 and the
// like can be one: labs and carriers use them.
struct Block {
  std::string_view first;
  unsigned length;
  std::string_view reason;
};
constexpr Block kNotASource[] = {
    {"0.0.0.0", 32, "unspecified"},
    {"255.255.255.255", 32, "broadcast"},
    {"0.0.0.0", 8, "reserved"},
    {"127.0.0.0", 8, "loopback"},
    {"169.254.0.0", 16, "link-local"},
    {"224.0.0.0", 4, "multicast"},
    {"240.0.0.0", 4, "reserved"},
    {"::", 128, "unspecified"},
    {"::1", 128, "loopback"},
    {"::", 80, "reserved"},  // IPv4-compatible (deprecated) and IPv4-mapped
    {"fe80::", 10, "link-local"},
    {"fec0::", 10, "reserved"},  // site-local (deprecated)
    {"ff00::", 8, "multicast"},
};

Prefix prefix_of(const Block& block) { return {Address::parse(block.first).value(), block.length}; }

}  // namespace

std::string_view why_not_a_source(const Address& address) {
  if (!address) return "unspecified";
  for (const Block& block : kNotASource) {
    if (prefix_of(block).contains(address)) return block.reason;
  }
  return {};
}

std::vector<Range> ranges_without_sources(Family family) {
  std::vector<Range> out;
  for (const Block& block : kNotASource) {
    const Prefix prefix = prefix_of(block);
    if (prefix.family() == family) out.push_back({prefix.first(), prefix.last()});
  }
  return out;
}

}  // namespace egw::model

std::size_t std::hash<egw::model::Address>::operator()(
    const egw::model::Address& a) const noexcept {
  std::uint64_t halves[2];
  std::memcpy(halves, a.bytes().data(), sizeof halves);
  return egw::model::mix(halves[0] ^ static_cast<std::uint64_t>(a.family()), halves[1]);
}

std::size_t std::hash<egw::model::Prefix>::operator()(const egw::model::Prefix& p) const noexcept {
  return egw::model::mix(std::hash<egw::model::Address>{}(p.address()), p.length());
}
