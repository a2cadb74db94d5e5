// Classes with prefixes, for sets that know no class: hash:net finds the longest prefix of a
// destination, but not of one class among several. Classes whose prefixes do not overlap share a
// group, that is a pair of sets; what a set answers says whose prefix it is. A class's /0 is not in
// the sets: it is the answer when nothing of its own is found. Pure. Used by datapath.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/plan.hpp"

namespace egw::iptables {

struct ClassPlace {
  std::uint32_t number = 0;  // 1..kIdMask; 0: none is free
  std::uint32_t group = 0;
};

// Class number -> group, sorted: what the rules know of classes.
using ClassGroups = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

// Of one family. Keeps the place of a class as long as it exists; freed numbers rest longest.
class Groups {
 public:
  // Before the first place(): what the kernel holds of a class, with its /0. Until the first keep()
  // nothing else gets its place.
  void learn(const common::ClassEntries& entries, ClassPlace place);
  ClassPlace place(const std::string& name, const common::ClassEntries& entries);
  // Forgets the classes that are not in `wanted`.
  void keep(const std::map<std::string, common::ClassTables>& wanted);
  [[nodiscard]] bool empty() const { return places_.empty(); }

 private:
  using Ranges = std::map<sdk::Address, sdk::Address>;  // first -> last, not overlapping
  using Prefixes = std::vector<sdk::Prefix>;
  static bool overlaps(const Ranges& taken, const Prefixes& outermost);
  void take(std::uint32_t group, const Prefixes& outermost);
  void free(std::uint32_t group, const Prefixes& outermost);
  [[nodiscard]] std::uint32_t find_group(const Prefixes& outermost);

  struct Place {
    ClassPlace at;
    Prefixes outermost;
  };
  using Places = std::map<std::string, Place>;
  Places::iterator leave(Places::iterator at);

  Places places_;
  std::map<std::uint32_t, Ranges> taken_;                  // by group
  std::map<common::ClassEntries, std::uint32_t> learned_;  // -> group, taken for it
  common::KeptNumbers<common::ClassEntries> numbers_;
};

}  // namespace egw::iptables
