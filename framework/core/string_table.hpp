// StringTable: texts that many rows share, by number; a text nobody holds any more is forgotten.
// Used by core::EndpointSlices for what a hundred thousand pods have in common.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace egw::core::detail {

class StringTable {
 public:
  // The text's number, held once more for the caller.
  std::uint32_t hold(std::string_view text) {
    if (const auto known = numbers_.find(text); known != numbers_.end()) {
      ++entries_[known->second].holders;
      return known->second;
    }
    std::uint32_t number = 0;
    if (free_.empty()) {
      number = static_cast<std::uint32_t>(entries_.size());
      entries_.emplace_back();
    } else {
      number = free_.back();
      free_.pop_back();
    }
    entries_[number] = {std::string(text), 1};
    numbers_.emplace(entries_[number].text, number);
    return number;
  }
  void release(std::uint32_t number) {
    Entry& entry = entries_[number];
    if (--entry.holders != 0) return;
    numbers_.erase(entry.text);
    entry = {};
    free_.push_back(number);
  }
  [[nodiscard]] const std::string& text(std::uint32_t number) const {
    return entries_[number].text;
  }

 private:
  struct Entry {
    std::string text;
    std::uint32_t holders = 0;
  };
  std::deque<Entry> entries_;  // never moved: the keys of numbers_ lie in them
  std::vector<std::uint32_t> free_;
  std::unordered_map<std::string_view, std::uint32_t> numbers_;
};

}  // namespace egw::core::detail
