// The ABI's value types for C++: strings, strided arrays, addresses, prefixes, and flatten() for
// datapaths whose kernel tables know intervals but no longest-prefix match.
#pragma once

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "egw/abi/types.h"

namespace egw::sdk {

[[nodiscard]] constexpr std::string_view view(egw_str s) {
  return s.len == 0 ? std::string_view() : std::string_view(s.data, s.len);
}
// Borrows: the text must outlive the call that carries the result.
[[nodiscard]] constexpr egw_str str(std::string_view s) { return {s.data(), s.size()}; }

// The version rule of abi/types.h: what lies beyond the writer's size reads as zero.
template <class T>
[[nodiscard]] T read_struct(const void* data, std::size_t available) {
  static_assert(std::is_trivially_copyable_v<T>);
  T out{};
  std::memcpy(&out, data, std::min(available, sizeof(T)));
  return out;
}
template <class T>
requires requires(T t) { t.struct_size; }
[[nodiscard]] T read_struct(const T* data) {
  return data == nullptr ? T{} : read_struct<T>(data, data->struct_size);
}

// An egw_span as a range of T by value. Records of a shorter (older) or longer (newer) writer are
// read by the version rule, so T may differ in size from the stride.
template <class T>
class Strided {
 public:
  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = const T*;
    using reference = T;

    iterator() = default;
    iterator(const std::byte* at, std::size_t stride) : at_(at), stride_(stride) {}
    T operator*() const { return Strided::load(at_, stride_); }
    iterator& operator++() {
      at_ += stride_;
      return *this;
    }
    iterator operator++(int) {
      iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const iterator& a, const iterator& b) { return a.at_ == b.at_; }

   private:
    const std::byte* at_ = nullptr;
    std::size_t stride_ = 0;
  };

  Strided() = default;
  explicit Strided(const egw_span& span)
      : data_(static_cast<const std::byte*>(span.data)),
        count_(span.data == nullptr || span.stride == 0 ? 0 : span.count),
        stride_(span.stride) {}

  [[nodiscard]] std::size_t size() const { return count_; }
  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] T operator[](std::size_t i) const { return load(data_ + i * stride_, stride_); }
  [[nodiscard]] iterator begin() const { return {data_, stride_}; }
  [[nodiscard]] iterator end() const {
    return {count_ == 0 ? data_ : data_ + count_ * stride_, stride_};
  }

 private:
  static T load(const std::byte* at, std::size_t stride) {
    if constexpr (requires(T t) { t.struct_size; }) {
      std::uint32_t size = 0;
      if (stride >= sizeof(size)) std::memcpy(&size, at, sizeof(size));
      return read_struct<T>(at, std::min<std::size_t>(size, stride));
    } else {
      return read_struct<T>(at, stride);
    }
  }

  const std::byte* data_ = nullptr;
  std::size_t count_ = 0;
  std::size_t stride_ = 0;
};

// Borrows the container, whose elements lie next to each other.
template <class Container>
[[nodiscard]] egw_span span_of(const Container& c) {
  return {std::data(c), std::size(c), sizeof(*std::data(c))};
}

// An IP address as a value: none (default), IPv4 in bytes[0..3] or IPv6, network byte order; bytes
// that the family does not use are zero. Order: none, IPv4, IPv6, then numeric.
struct Address {
  std::uint8_t family = 0;  // 0, 4 or 6
  std::array<std::uint8_t, 16> bytes{};

  Address() = default;
  // A family other than 4 and 6 gives none.
  explicit Address(const egw_addr& a) : family(a.family == 4 || a.family == 6 ? a.family : 0) {
    std::memcpy(bytes.data(), a.bytes, size());
  }
  [[nodiscard]] static Address v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
    Address out;
    out.family = 4;
    out.bytes = {a, b, c, d};
    return out;
  }
  // What inet_pton(3) takes; nullopt: neither IPv4 nor IPv6.
  [[nodiscard]] static std::optional<Address> parse(const std::string& text) {
    Address out;
    if (inet_pton(AF_INET, text.c_str(), out.bytes.data()) == 1) {
      out.family = 4;
    } else if (inet_pton(AF_INET6, text.c_str(), out.bytes.data()) == 1) {
      out.family = 6;
    } else {
      return std::nullopt;
    }
    return out;
  }

  [[nodiscard]] bool is_v4() const { return family == 4; }
  [[nodiscard]] bool is_v6() const { return family == 6; }
  explicit operator bool() const { return family != 0; }
  [[nodiscard]] std::size_t size() const { return is_v4() ? 4U : is_v6() ? 16U : 0U; }  // bytes
  [[nodiscard]] unsigned bits() const { return static_cast<unsigned>(size()) * 8U; }
  [[nodiscard]] int af() const { return is_v4() ? AF_INET : is_v6() ? AF_INET6 : AF_UNSPEC; }
  // Canonical (RFC 5952); empty for none.
  [[nodiscard]] std::string text() const {
    char buffer[INET6_ADDRSTRLEN] = {};
    return family != 0 && inet_ntop(af(), bytes.data(), buffer, sizeof(buffer)) != nullptr ? buffer
                                                                                           : "";
  }
  [[nodiscard]] egw_addr abi() const {
    egw_addr out{};
    out.family = family;
    std::memcpy(out.bytes, bytes.data(), bytes.size());
    return out;
  }
  // The next or previous address; false when there is none (the value is then unchanged).
  bool increment() {
    const Address before = *this;
    for (std::size_t i = size(); i-- > 0;) {
      if (++bytes[i] != 0) return true;
    }
    *this = before;
    return false;
  }
  bool decrement() {
    const Address before = *this;
    for (std::size_t i = size(); i-- > 0;) {
      if (bytes[i]-- != 0) return true;
    }
    *this = before;
    return false;
  }
  friend auto operator<=>(const Address&, const Address&) = default;
};

// len: 0..address.bits(). Host bits may be set where the ABI says so (a tunnel address).
struct Prefix {
  Address address;
  std::uint8_t len = 0;

  Prefix() = default;
  Prefix(const Address& a, unsigned length)
      : address(a), len(static_cast<std::uint8_t>(std::min(length, a.bits()))) {}
  explicit Prefix(const egw_prefix& p) : Prefix(Address(p.addr), p.len) {}
  // "10.0.0.0/8" or an address (its full length).
  [[nodiscard]] static std::optional<Prefix> parse(const std::string& text) {
    const auto slash = text.find('/');
    const auto address = Address::parse(text.substr(0, slash));
    if (!address) return std::nullopt;
    if (slash == std::string::npos) return Prefix(*address, address->bits());
    const std::string digits = text.substr(slash + 1);
    if (digits.empty() || digits.size() > 3 ||
        digits.find_first_not_of("0123456789") != std::string::npos ||
        std::stoul(digits) > address->bits()) {
      return std::nullopt;
    }
    return Prefix(*address, static_cast<unsigned>(std::stoul(digits)));
  }

  explicit operator bool() const { return static_cast<bool>(address); }
  [[nodiscard]] Address first() const { return fill(0x00); }
  [[nodiscard]] Address last() const { return fill(0xff); }
  [[nodiscard]] bool contains(const Address& a) const {
    return a.family == address.family && first() <= a && a <= last();
  }
  // "10.0.0.0/8", host bits as they are; empty for none.
  [[nodiscard]] std::string text() const {
    return address ? address.text() + "/" + std::to_string(len) : "";
  }
  [[nodiscard]] egw_prefix abi() const {
    egw_prefix out{};
    out.addr = address.abi();
    out.len = len;
    return out;
  }
  friend auto operator<=>(const Prefix&, const Prefix&) = default;

 private:
  [[nodiscard]] Address fill(std::uint8_t host) const {
    Address out = address;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto start = static_cast<unsigned>(i) * 8U;
      const unsigned kept = len <= start ? 0U : std::min(8U, len - start);
      const auto mask = static_cast<std::uint8_t>(0xff00U >> kept);
      out.bytes[i] = static_cast<std::uint8_t>((out.bytes[i] & mask) | (host & ~mask));
    }
    return out;
  }
};

[[nodiscard]] inline std::vector<Prefix> prefixes(const egw_span& span) {
  std::vector<Prefix> out;
  const Strided<egw_prefix> view(span);
  out.reserve(view.size());
  for (const egw_prefix p : view) out.emplace_back(p);
  return out;
}

// Inclusive, one family.
template <class V>
struct FlatRange {
  Address first;
  Address last;
  V value;
  friend bool operator==(const FlatRange&, const FlatRange&) = default;
};

// A table in which the longest prefix wins, as disjoint ranges in ascending order: nftables refuses
// intervals that overlap. Of two equal prefixes the later one wins; neighbouring
// ranges with equal values become one; prefixes without an address are left out. O(n log n).
template <class V>
[[nodiscard]] std::vector<FlatRange<V>> flatten(std::vector<std::pair<Prefix, V>> table) {
  std::erase_if(table, [](const auto& entry) { return !entry.first; });
  std::stable_sort(table.begin(), table.end(), [](const auto& a, const auto& b) {
    const Address af = a.first.first();
    const Address bf = b.first.first();
    return af != bf ? af < bf : a.first.len < b.first.len;
  });
  std::vector<FlatRange<V>> out;
  const auto emit = [&out](const Address& first, const Address& last, const V& value) {
    if (last < first) return;
    if constexpr (std::equality_comparable<V>) {
      if (!out.empty() && out.back().value == value) {
        Address next = out.back().last;
        if (next.increment() && next == first) {
          out.back().last = last;
          return;
        }
      }
    }
    out.push_back({first, last, value});
  };

  struct Open {
    Address last;
    const V* value;
  };
  std::vector<Open> open;  // the prefixes around the cursor, outermost first
  Address cursor;          // where the innermost open prefix goes on
  bool exhausted = false;  // the cursor has passed the family's last address
  const auto close_top = [&] {
    if (!exhausted) emit(cursor, open.back().last, *open.back().value);
    if (!exhausted && cursor <= open.back().last) {
      cursor = open.back().last;
      exhausted = !cursor.increment();
    }
    open.pop_back();
  };
  for (const auto& [prefix, value] : table) {
    const Address first = prefix.first();
    while (!open.empty() && open.back().last < first) close_top();
    if (!open.empty() && cursor < first) {
      Address before = first;
      before.decrement();
      emit(cursor, before, *open.back().value);
    }
    cursor = first;
    exhausted = false;
    open.push_back({prefix.last(), &value});
  }
  while (!open.empty()) close_top();
  return out;
}

}  // namespace egw::sdk

template <>
struct std::hash<egw::sdk::Address> {
  std::size_t operator()(const egw::sdk::Address& a) const noexcept {
    return std::hash<std::string_view>()(
               std::string_view(reinterpret_cast<const char*>(a.bytes.data()), a.bytes.size())) ^
           a.family;
  }
};
template <>
struct std::hash<egw::sdk::Prefix> {
  std::size_t operator()(const egw::sdk::Prefix& p) const noexcept {
    return std::hash<egw::sdk::Address>()(p.address) * 131U + p.len;
  }
};
