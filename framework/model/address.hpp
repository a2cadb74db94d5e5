// IP addresses, prefixes and ranges as values: parsing with reasons, canonical text (RFC 5952),
// total order (IPv4 before IPv6, then numeric).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "egw/model/result.hpp"

namespace egw::model {

enum class Family : std::uint8_t { kNone = 0, kV4 = 4, kV6 = 6 };

// An IPv4 (bytes[0..3]) or IPv6 address in network byte order, or none (default).
class Address {
 public:
  Address() = default;
  static Address v4(std::array<std::uint8_t, 4> bytes);
  static Address v6(std::array<std::uint8_t, 16> bytes);

  // Strict: dotted quad without leading zeros, or RFC 4291 text without zone; v4-mapped IPv6 is
  // refused (write the IPv4 address).
  static Result<Address> parse(std::string_view text);

  [[nodiscard]] Family family() const { return family_; }
  [[nodiscard]] bool is_v4() const { return family_ == Family::kV4; }
  [[nodiscard]] bool is_v6() const { return family_ == Family::kV6; }
  explicit operator bool() const { return family_ != Family::kNone; }
  [[nodiscard]] const std::array<std::uint8_t, 16>& bytes() const { return bytes_; }
  [[nodiscard]] unsigned bits() const { return is_v4() ? 32U : is_v6() ? 128U : 0U; }
  // Numeric value; IPv4 in the low 32 bits.
  [[nodiscard]] unsigned __int128 value() const;
  static Address from_value(Family family, unsigned __int128 value);
  // Empty for none.
  [[nodiscard]] std::string to_string() const;

  friend auto operator<=>(const Address&, const Address&) = default;

 private:
  Family family_ = Family::kNone;
  std::array<std::uint8_t, 16> bytes_{};
};

// Host bits are always zero (normalised by the constructor and by parse).
class Prefix {
 public:
  Prefix() = default;
  // length is clamped to the family's bits.
  Prefix(const Address& address, unsigned length);
  // "10.0.0.0/8" or a plain address (full length).
  static Result<Prefix> parse(std::string_view text);

  [[nodiscard]] const Address& address() const { return address_; }
  [[nodiscard]] unsigned length() const { return length_; }
  [[nodiscard]] Family family() const { return address_.family(); }
  [[nodiscard]] Address first() const { return address_; }
  [[nodiscard]] Address last() const;
  [[nodiscard]] bool contains(const Address& address) const;
  [[nodiscard]] bool contains(const Prefix& other) const;
  [[nodiscard]] std::string to_string() const;

  friend auto operator<=>(const Prefix&, const Prefix&) = default;

 private:
  Address address_;
  std::uint8_t length_ = 0;
};

// Inclusive, first <= last, one family.
struct Range {
  Address first;
  Address last;
  // An address, "a-b" or a CIDR (all its addresses).
  static Result<Range> parse(std::string_view text);
  [[nodiscard]] bool contains(const Address& a) const { return first <= a && a <= last; }
  [[nodiscard]] std::string to_string() const;
  friend auto operator<=>(const Range&, const Range&) = default;
};

// nullopt-like: empty string when the address can be a source; else the reason ("loopback",
// "link-local", "multicast", "unspecified", "broadcast", "reserved").
[[nodiscard]] std::string_view why_not_a_source(const Address& address);
// The blocks of which why_not_a_source speaks, by one family.
[[nodiscard]] std::vector<Range> ranges_without_sources(Family family);

}  // namespace egw::model

template <>
struct std::hash<egw::model::Address> {
  std::size_t operator()(const egw::model::Address& a) const noexcept;
};
template <>
struct std::hash<egw::model::Prefix> {
  std::size_t operator()(const egw::model::Prefix& p) const noexcept;
};
