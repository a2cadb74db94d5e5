// Longest prefix match out of exact matches: one hash map per prefix length, shared by all classes;
// a key is the class's number and the masked destination. A class asks the maps of its own lengths
// only, longest first: classes with the same lengths (their *shape*) share the chain that asks.
// Pure. Used by desired.cpp (what to write), ruleset.cpp (chains), adoption.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "layout.hpp"

namespace egw::common {

struct ClassEntry {
  sdk::Prefix prefix;  // host bits are zero
  std::uint32_t action = 0;
  friend auto operator<=>(const ClassEntry&, const ClassEntry&) = default;
};
using ClassEntries = std::vector<ClassEntry>;

// One family's rules without those that change nothing: of two equal prefixes the later one counts,
// and what says the same as the prefix around it (outside of all: kBypassNumber) is left out.
// Sorted by address, then length.
[[nodiscard]] ClassEntries reduce(ClassEntries rules);

// Prefixes lengthened to multiples of `step`, by as many longer ones as that takes.
[[nodiscard]] ClassEntries expand(const ClassEntries& entries, unsigned step);

// What the maps answer for a destination: the action of the longest prefix, kBypassNumber for none.
[[nodiscard]] std::uint32_t match(const ClassEntries& entries, const sdk::Address& destination);

// Descending.
using Lengths = std::vector<std::uint8_t>;
[[nodiscard]] Lengths lengths_of(const ClassEntries& entries);

// Beyond so many lengths in one class, or so many shapes in all, a class is written in the ladder's
// lengths and asks them all. So the number of chains and the cost of a packet are bounded.
inline constexpr std::size_t kMaxLengths = 12;
inline constexpr std::uint32_t kMaxShapes = 64;
[[nodiscard]] unsigned ladder_step(Table t);
[[nodiscard]] Lengths ladder(Table t);
inline constexpr std::uint32_t kLadderShape = 0x7f;

[[nodiscard]] std::string shape_chain(const Lengths& lengths);  // "l24_8"
inline const std::string kLadderChain = "ladder";

// 14 hex digits: equal for equal entries, and seldom for others.
[[nodiscard]] std::string content_of(const ClassEntries& entries);

}  // namespace egw::common
