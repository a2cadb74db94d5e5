// A pool of addresses of one family as a sorted set of disjoint intervals: ::/0 costs as much as
// one address. Used by admission (checks of ippools) and by plan (allocation).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "egw/model/address.hpp"

namespace egw::model {

class IpPool {
 public:
  IpPool() = default;
  explicit IpPool(Family family) : family_(family) {}

  // Entries: an address, "a-b" or a CIDR, all of `family`. An IPv4 prefix of /30 or shorter leaves
  // out its first and last address (listed singly they count); ranges and IPv6 prefixes leave out
  // nothing. Addresses that stand twice are merged. The error names the first bad entry as
  // "<path>[<index>]", e.g. "spec.ippools.ipv4[2]".
  static Result<IpPool> parse(Family family, const std::vector<std::string>& entries,
                              std::string_view path);
  // The same from the entries that are valid; one error per bad entry goes to `errors` (may be
  // null).
  static IpPool parse_valid(Family family, const std::vector<std::string>& entries,
                            std::string_view path, std::vector<Error>* errors);
  // One entry, by the same rules.
  static Result<Range> parse_entry(Family family, std::string_view entry, std::string_view path);
  // Any ranges of `family` in any order; others are ignored.
  static IpPool of(Family family, std::vector<Range> ranges);

  [[nodiscard]] Family family() const { return family_; }
  [[nodiscard]] bool empty() const { return ranges_.empty(); }
  // Sorted, disjoint, not adjacent.
  [[nodiscard]] const std::vector<Range>& ranges() const { return ranges_; }

  [[nodiscard]] bool contains(const Address& address) const;
  [[nodiscard]] bool overlaps(const IpPool& other) const;
  // The first address that is in both; none if there is none.
  [[nodiscard]] Address first_common(const IpPool& other) const;
  // How many addresses; INT64_MAX stands for that many and more (as in
  // EgressGateway.status.ipUsage).
  [[nodiscard]] std::int64_t count() const;

  // None when empty.
  [[nodiscard]] Address first() const;
  // n-th in order from 0; none past the end.
  [[nodiscard]] Address nth(std::uint64_t n) const;
  // How many addresses of the pool are before `address` (which need not be in it); saturates at
  // UINT64_MAX.
  [[nodiscard]] std::uint64_t rank(const Address& address) const;
  // The smallest address of the pool above `address`; past the last it begins again with the first.
  // `address` none: the first. None when the pool is empty.
  [[nodiscard]] Address next_after(const Address& address) const;
  // The same, leaving out those in `used` (of this family, in any order).
  [[nodiscard]] Address next_free_after(const Address& address,
                                        const std::vector<Address>& used) const;

  // Addresses of this pool that `other` does not have.
  [[nodiscard]] IpPool minus(const IpPool& other) const;
  // Takes one address out / puts one in; false when there was nothing to do. O(intervals).
  bool erase(const Address& address);
  bool insert(const Address& address);

  // Canonical: the intervals in order as "a" or "a-b", separated by ", ".
  [[nodiscard]] std::string to_string() const;

  friend bool operator==(const IpPool&, const IpPool&) = default;

 private:
  // The interval that contains `address`, else the first above it.
  [[nodiscard]] std::size_t find(const Address& address) const;

  Family family_ = Family::kNone;
  std::vector<Range> ranges_;
};

// Whether no address of the family is outside the prefixes.
[[nodiscard]] bool cover_everything(Family family, const std::vector<Prefix>& prefixes);

}  // namespace egw::model
