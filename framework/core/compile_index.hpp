// HashIndex: from a hash to small numbers (places in some table), several per hash. Eight bytes per
// entry; the caller compares what the numbers stand for. Used by core::Compiler for its pods.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace egw::core::detail {

class HashIndex {
 public:
  [[nodiscard]] std::size_t size() const { return size_; }

  // value: any but UINT32_MAX.
  void insert(std::uint64_t hash, std::uint32_t value) {
    if ((size_ + 1) * 4 > entries_.size() * 3) grow();
    place({value + 1, fold(hash)});
    ++size_;
  }

  // Removes one entry that was inserted as (hash, value); does nothing when there is none.
  void erase(std::uint64_t hash, std::uint32_t value) {
    if (entries_.empty()) return;
    const Entry wanted{value + 1, fold(hash)};
    std::size_t at = home(wanted.hash);
    for (; entries_[at].value != 0; at = after(at)) {
      if (entries_[at].value == wanted.value && entries_[at].hash == wanted.hash) break;
    }
    if (entries_[at].value == 0) return;
    --size_;
    // Entries behind the gap move into it unless they are at or after their own place.
    for (std::size_t next = after(at); entries_[next].value != 0; next = after(next)) {
      const std::size_t from_home = (next - home(entries_[next].hash)) & (entries_.size() - 1);
      const std::size_t from_gap = (next - at) & (entries_.size() - 1);
      if (from_home < from_gap) continue;
      entries_[at] = entries_[next];
      at = next;
    }
    entries_[at] = {};
  }

  // Calls visit(value) for the entries that may have this hash, until it returns true.
  template <class Visit>
  bool find(std::uint64_t hash, Visit visit) const {
    if (entries_.empty()) return false;
    const auto folded = fold(hash);
    for (std::size_t at = home(folded); entries_[at].value != 0; at = after(at)) {
      if (entries_[at].hash == folded && visit(entries_[at].value - 1)) return true;
    }
    return false;
  }

  // Room for `count` entries.
  void reserve(std::size_t count) {
    while (count * 4 > entries_.size() * 3) grow();
  }

 private:
  struct Entry {
    std::uint32_t value = 0;  // 0: free; else the number + 1
    std::uint32_t hash = 0;
  };
  static std::uint32_t fold(std::uint64_t hash) {
    return static_cast<std::uint32_t>((hash * 0x9e3779b97f4a7c15ULL) >> 32U);
  }
  [[nodiscard]] std::size_t home(std::uint32_t hash) const { return hash & (entries_.size() - 1); }
  [[nodiscard]] std::size_t after(std::size_t at) const { return (at + 1) & (entries_.size() - 1); }
  void place(Entry entry) {
    std::size_t at = home(entry.hash);
    while (entries_[at].value != 0) at = after(at);
    entries_[at] = entry;
  }
  void grow() {
    std::vector<Entry> old(entries_.empty() ? 16 : entries_.size() * 2);
    old.swap(entries_);
    for (const auto& entry : old) {
      if (entry.value != 0) place(entry);
    }
  }

  std::vector<Entry> entries_;  // a power of two
  std::size_t size_ = 0;
};

}  // namespace egw::core::detail
