// Small numbers for things that the kernel knows by number: peers (in a connection's mark), classes
// with prefixes and their shapes (in a packet's priority). Kept over the life of the node: a
// restarted agent learns them from the kernel, so that nothing changes there. Used by desired.cpp
// (assigns) and adoption.cpp (learns).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "egw/sdk/datapath_state.hpp"
#include "prefixes.hpp"

namespace egw::common {

// Alias: what the kernel's objects tell about the owner of a number. Freed numbers are used again
// last: what still refers to one for a moment must not meet somebody else.
// kReturns: one that is released is as learned, for its owner if that comes back (a node that was
// away finds the connections that its number marks).
template <class Alias, bool kReturns = false>
class KeptNumbers {
 public:
  KeptNumbers() = default;
  KeptNumbers(const KeptNumbers&) = delete;  // reserved_ points into learned_
  KeptNumbers& operator=(const KeptNumbers&) = delete;
  KeptNumbers(KeptNumbers&&) noexcept = default;
  KeptNumbers& operator=(KeptNumbers&&) noexcept = default;
  ~KeptNumbers() = default;

  // Before the first assign().
  void learn(const Alias& alias, std::uint32_t number) {
    if (number == 0) return;
    reserve(alias, number);
    last_ = std::max(last_, number);
  }
  // 1..max, the same for the same name; 0: none is free.
  std::uint32_t assign(const std::string& name, const Alias& alias, std::uint32_t max) {
    if (const auto at = by_name_.find(name); at != by_name_.end()) {
      if constexpr (kReturns) aliases_.insert_or_assign(at->second, alias);
      return at->second;
    }
    std::uint32_t number = 0;
    if (const auto at = learned_.find(alias);
        at != learned_.end() && at->second <= max && used_.count(at->second) == 0) {
      number = at->second;  // its owner has come
    }
    // Walks the space, so that a freed number rests as long as possible. A learned one is taken
    // from an owner that has not come when nothing else is left.
    for (const bool reserved : {false, true}) {
      for (std::uint32_t step = 1; number == 0 && step <= max && used_.size() < max; ++step) {
        const std::uint32_t candidate = (last_ + step - 1) % max + 1;
        if (used_.count(candidate) != 0) continue;
        if (reserved || reserved_.count(candidate) == 0) number = candidate;
      }
    }
    if (number == 0) return 0;
    forget(number);  // learned of another owner, or of this one
    if constexpr (kReturns) aliases_.insert_or_assign(number, alias);
    used_.insert(number);
    by_name_.emplace(name, number);
    last_ = std::max(last_ % max, number);
    return number;
  }
  void release(const std::string& name) {
    const auto at = by_name_.find(name);
    if (at == by_name_.end()) return;
    const std::uint32_t number = at->second;
    used_.erase(number);
    by_name_.erase(at);
    if constexpr (kReturns) {
      reserve(aliases_.extract(number).mapped(), number);
    }
  }
  // Releases the names that `wanted` does not hold (anything with count()).
  template <class Container>
  void keep(const Container& wanted) {
    std::vector<std::string> gone;
    for (const auto& [name, number] : by_name_) {
      if (wanted.count(name) == 0) gone.push_back(name);
    }
    for (const std::string& name : gone) release(name);
  }
  [[nodiscard]] bool empty() const { return by_name_.empty(); }

 private:
  using Learned = std::map<Alias, std::uint32_t>;

  // The first alias of a number keeps it, as the first number of an alias does.
  void reserve(const Alias& alias, std::uint32_t number) {
    if (reserved_.count(number) != 0) return;
    const auto [at, fresh] = learned_.emplace(alias, number);
    if (fresh) reserved_.emplace(number, at);
  }
  void forget(std::uint32_t number) {
    const auto at = reserved_.find(number);
    if (at == reserved_.end()) return;
    learned_.erase(at->second);
    reserved_.erase(at);
  }

  std::map<std::string, std::uint32_t> by_name_;
  Learned learned_;
  std::map<std::uint32_t, typename Learned::iterator> reserved_;  // learned, owner not seen yet
  std::set<std::uint32_t> used_;
  std::map<std::uint32_t, Alias> aliases_;  // of those in use; kReturns
  std::uint32_t last_ = 0;
};

struct Numbering {
  KeptNumbers<sdk::Mac, true> peers;
  std::array<KeptNumbers<std::string>, 2> shapes;    // by family; alias: the chain's name
  std::array<KeptNumbers<ClassEntries>, 2> classes;  // alias: its elements
  [[nodiscard]] bool empty() const {
    return peers.empty() && classes[0].empty() && classes[1].empty();
  }
};

}  // namespace egw::common
