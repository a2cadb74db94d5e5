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
  // What the sets hold of a class: its prefixes but /0.
  [[nodiscard]] static common::ClassEntries content_of(const common::ClassEntries& entries);
  // Before the first place(): what the kernel's sets hold, by the class's content.
  void learn(const common::ClassEntries& content, ClassPlace place);
  ClassPlace place(const std::string& name, const common::ClassEntries& entries);
  // Forgets the classes that are not in `wanted`.
  void keep(const std::map<std::string, common::ClassTables>& wanted);
  [[nodiscard]] bool empty() const { return places_.empty(); }

 private:
  using Ranges = std::map<sdk::Address, sdk::Address>;  // first -> last, not overlapping
  static bool overlaps(const Ranges& taken, const std::vector<sdk::Prefix>& outermost);

  struct Place {
    ClassPlace at;
    std::vector<sdk::Prefix> outermost;
  };
  using Places = std::map<std::string, Place>;
  Places::iterator leave(Places::iterator at);

  Places places_;
  std::map<std::uint32_t, Ranges> taken_;  // by group
  std::map<common::ClassEntries, std::uint32_t> learned_;
  common::KeptNumbers<common::ClassEntries> numbers_;
};

}  // namespace egw::iptables
