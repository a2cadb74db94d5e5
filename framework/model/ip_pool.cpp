// IpPool: sorted disjoint intervals. Arithmetic is done on 128-bit values; sizes are kept as
// "distance" (last - first), which cannot overflow where a size of 2^128 would.
#include "egw/model/ip_pool.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace egw::model {
namespace {

using Value = unsigned __int128;

Address step(const Address& a, int by) {
  return Address::from_value(a.family(), by > 0 ? a.value() + 1 : a.value() - 1);
}

Value top(Family family) { return family == Family::kV4 ? Value{0xffffffff} : ~Value{0}; }

std::string_view name(Family family) { return family == Family::kV4 ? "IPv4" : "IPv6"; }

}  // namespace

Result<Range> IpPool::parse_entry(Family family, std::string_view entry, std::string_view path) {
  const auto wrong_family = [&] {
    return fail(
        Errc::kInvalid, std::string(path),
        fmt::format("\"{}\" is not {}; write it under the other family's list or take it out",
                    entry, name(family)));
  };
  const auto named = [&](Error error) {
    error.object = std::string(path);
    return tl::unexpected<Error>(std::move(error));
  };
  if (entry.find('/') == std::string_view::npos) {
    auto range = Range::parse(entry);
    if (!range) return named(std::move(range.error()));
    if (range->first.family() != family) return wrong_family();
    return *range;
  }
  auto prefix = Prefix::parse(entry);
  if (!prefix) return named(std::move(prefix.error()));
  if (prefix->family() != family) return wrong_family();
  Range range{prefix->first(), prefix->last()};
  if (family == Family::kV4 && prefix->length() <= 30) {
    range = {step(range.first, 1), step(range.last, -1)};
  }
  return range;
}

IpPool IpPool::parse_valid(Family family, const std::vector<std::string>& entries,
                           std::string_view path, std::vector<Error>* errors) {
  std::vector<Range> ranges;
  ranges.reserve(entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    auto range = parse_entry(family, entries[i], path);
    if (range) {
      ranges.push_back(*range);
    } else if (errors != nullptr) {
      range.error().object = fmt::format("{}[{}]", path, i);
      errors->push_back(std::move(range.error()));
    }
  }
  return of(family, std::move(ranges));
}

Result<IpPool> IpPool::parse(Family family, const std::vector<std::string>& entries,
                             std::string_view path) {
  std::vector<Error> errors;
  IpPool pool = parse_valid(family, entries, path, &errors);
  if (!errors.empty()) return tl::unexpected<Error>(std::move(errors.front()));
  return pool;
}

IpPool IpPool::of(Family family, std::vector<Range> ranges) {
  IpPool pool(family);
  ranges.erase(std::remove_if(ranges.begin(), ranges.end(),
                              [&](const Range& r) { return r.first.family() != family; }),
               ranges.end());
  std::sort(ranges.begin(), ranges.end());
  for (const Range& r : ranges) {
    if (!pool.ranges_.empty()) {
      Range& last = pool.ranges_.back();
      if (last.last.value() == top(family)) break;
      if (r.first <= step(last.last, 1)) {
        last.last = std::max(last.last, r.last);
        continue;
      }
    }
    pool.ranges_.push_back(r);
  }
  return pool;
}

std::size_t IpPool::find(const Address& address) const {
  const auto it = std::partition_point(ranges_.begin(), ranges_.end(),
                                       [&](const Range& r) { return r.last < address; });
  return static_cast<std::size_t>(it - ranges_.begin());
}

bool IpPool::contains(const Address& address) const {
  if (address.family() != family_) return false;
  const std::size_t i = find(address);
  return i < ranges_.size() && ranges_[i].first <= address;
}

Address IpPool::first_common(const IpPool& other) const {
  if (family_ != other.family_) return {};
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < ranges_.size() && j < other.ranges_.size()) {
    const Range& a = ranges_[i];
    const Range& b = other.ranges_[j];
    const Address from = std::max(a.first, b.first);
    if (from <= std::min(a.last, b.last)) return from;
    if (a.last < b.last) {
      ++i;
    } else {
      ++j;
    }
  }
  return {};
}

bool IpPool::overlaps(const IpPool& other) const { return static_cast<bool>(first_common(other)); }

std::int64_t IpPool::count() const {
  constexpr Value kMost = static_cast<Value>(std::numeric_limits<std::int64_t>::max());
  Value sum = 0;
  for (const Range& r : ranges_) {
    const Value distance = r.last.value() - r.first.value();
    if (distance >= kMost || sum + distance + 1 >= kMost) return static_cast<std::int64_t>(kMost);
    sum += distance + 1;
  }
  return static_cast<std::int64_t>(sum);
}

Address IpPool::first() const { return ranges_.empty() ? Address{} : ranges_.front().first; }

Address IpPool::nth(std::uint64_t n) const {
  Value left = n;
  for (const Range& r : ranges_) {
    const Value distance = r.last.value() - r.first.value();
    if (left <= distance) return Address::from_value(family_, r.first.value() + left);
    left -= distance + 1;
  }
  return {};
}

std::uint64_t IpPool::rank(const Address& address) const {
  constexpr Value kMost = std::numeric_limits<std::uint64_t>::max();
  Value sum = 0;
  for (const Range& r : ranges_) {
    if (address <= r.first) break;
    // address > first, so neither branch can be the whole of ::/0 plus one.
    const Value part =
        r.last < address ? r.last.value() - r.first.value() : address.value() - r.first.value() - 1;
    if (part >= kMost || sum + part + 1 >= kMost) return static_cast<std::uint64_t>(kMost);
    sum += part + 1;
  }
  return static_cast<std::uint64_t>(sum);
}

Address IpPool::next_after(const Address& address) const {
  if (ranges_.empty()) return {};
  if (address.family() != family_ || address.value() == top(family_)) return first();
  const Address from = step(address, 1);
  const std::size_t i = find(from);
  if (i == ranges_.size()) return first();
  return std::max(from, ranges_[i].first);
}

Address IpPool::next_free_after(const Address& address, const std::vector<Address>& used) const {
  std::vector<Range> taken;
  taken.reserve(used.size());
  for (const Address& a : used) taken.push_back({a, a});
  return minus(of(family_, std::move(taken))).next_after(address);
}

IpPool IpPool::minus(const IpPool& other) const {
  if (family_ != other.family_) return *this;
  IpPool out(family_);
  std::size_t j = 0;
  for (Range r : ranges_) {
    while (j < other.ranges_.size() && other.ranges_[j].last < r.first) ++j;
    bool whole_gone = false;
    for (std::size_t k = j; k < other.ranges_.size() && other.ranges_[k].first <= r.last; ++k) {
      const Range& cut = other.ranges_[k];
      if (r.first < cut.first) out.ranges_.push_back({r.first, step(cut.first, -1)});
      if (cut.last >= r.last) {
        whole_gone = true;
        break;
      }
      r.first = step(cut.last, 1);
      j = k + 1;
    }
    if (!whole_gone) out.ranges_.push_back(r);
  }
  return out;
}

bool IpPool::erase(const Address& address) {
  if (!contains(address)) return false;
  const auto i = ranges_.begin() + static_cast<std::ptrdiff_t>(find(address));
  if (i->first == i->last) {
    ranges_.erase(i);
  } else if (address == i->first) {
    i->first = step(address, 1);
  } else if (address == i->last) {
    i->last = step(address, -1);
  } else {
    const Range upper{step(address, 1), i->last};
    i->last = step(address, -1);
    ranges_.insert(i + 1, upper);
  }
  return true;
}

bool IpPool::insert(const Address& address) {
  if (address.family() != family_ || contains(address)) return false;
  const std::size_t at = find(address);  // the first interval above
  const bool joins_below =
      at > 0 && ranges_[at - 1].last.value() + 1 == address.value();  // below: last < address
  const bool joins_above = at < ranges_.size() && address.value() + 1 == ranges_[at].first.value();
  const auto here = ranges_.begin() + static_cast<std::ptrdiff_t>(at);
  if (joins_below && joins_above) {
    ranges_[at - 1].last = here->last;
    ranges_.erase(here);
  } else if (joins_below) {
    ranges_[at - 1].last = address;
  } else if (joins_above) {
    here->first = address;
  } else {
    ranges_.insert(here, {address, address});
  }
  return true;
}

std::string IpPool::to_string() const {
  std::string out;
  for (const Range& r : ranges_) {
    if (!out.empty()) out += ", ";
    out += r.first.to_string();
    if (r.first != r.last) out += "-" + r.last.to_string();
  }
  return out;
}

bool cover_everything(Family family, const std::vector<Prefix>& prefixes) {
  std::vector<Range> ranges;
  for (const Prefix& prefix : prefixes) ranges.push_back({prefix.first(), prefix.last()});
  const IpPool pool = IpPool::of(family, std::move(ranges));
  const Prefix all(family == Family::kV4 ? Address::v4({}) : Address::v6({}), 0);
  return pool.ranges().size() == 1 && pool.ranges()[0] == Range{all.first(), all.last()};
}

}  // namespace egw::model
