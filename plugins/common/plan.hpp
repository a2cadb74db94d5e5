// What a node's desired state means to a datapath whose kernel knows classes by content and
// egresses by id: usable peers and their numbers, what becomes of the packets of each id, each
// class's prefixes. Values that can be compared. Pure: no kernel, no clock. Used by flows.cpp and
// by datapath plugins; nftables/desired.cpp makes elements of it.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "egw/sdk/datapath.hpp"
#include "numbers.hpp"
#include "prefixes.hpp"

namespace egw::common {

using AddressRange = sdk::FlatRange<std::string>;  // value: always empty
using AddressRanges = std::vector<AddressRange>;

// What an egress id means to a packet of this node's pods.
enum class Mode : std::uint8_t { kDrop, kSteer, kOwn };

// A class as the kernel knows it: for each family what its endpoints are given; empty: the class
// says nothing about the family. "e7", "drop_it", "node_ip", or "c" and a content: equal tables are
// one, and different ones have different names, also in the plan before (free_name()).
struct ClassTarget {
  std::array<std::string, 2> name;
  std::array<std::uint32_t, 2> number{};
};

// A class's prefixes of one family, as they are written.
struct ClassTable {
  ClassEntries entries;
  ClassEntries named;        // what it says, if `entries` are others that say the same
  std::uint32_t number = 0;  // what endpoints are given
  [[nodiscard]] const ClassEntries& content() const { return named.empty() ? entries : named; }
  [[nodiscard]] std::uint32_t shape() const { return (number & ~kClassBit) >> kShapeShift; }
};
struct ClassTables {
  std::shared_ptr<const ClassTable> table;
  std::uint32_t users = 0;  // classes
  // For two of one name, that is of one content.
  friend bool operator==(const ClassTables& a, const ClassTables& b) {
    return a.table->number == b.table->number;
  }
};

// The name of a table with these entries: `name`, or a longer one where another table has that. A
// name is a short fingerprint, and who knows it can make two tables that have the same.
[[nodiscard]] std::string free_name(
    std::string name, const ClassEntries& entries,
    std::initializer_list<const std::map<std::string, ClassTables>*> named);

// Calls each(key, value) for what `a` holds and `b` does not hold, or holds differently.
template <class Map, class Each>
void each_surplus(const Map& a, const Map& b, const Each& each) {
  auto other = b.begin();
  for (const auto& [key, value] : a) {
    while (other != b.end() && other->first < key) ++other;
    const bool both = other != b.end() && !(key < other->first);
    if (!both || !(other->second == value)) each(key, value);
  }
}

// Calls each(key, had, has) for what differs; nullptr: one of them has none.
template <class Map, class Each>
void each_difference(const Map& before, const Map& after, const Each& each) {
  auto had = before.begin();
  auto has = after.begin();
  while (had != before.end() || has != after.end()) {
    if (has == after.end() || (had != before.end() && had->first < has->first)) {
      each(had->first, &had->second, nullptr);
      ++had;
    } else if (had == before.end() || has->first < had->first) {
      each(has->first, nullptr, &has->second);
      ++has;
    } else {
      if (!(had->second == has->second)) each(has->first, &had->second, &has->second);
      ++had;
      ++has;
    }
  }
}

// The name of an action or of an endpoint's number that is no class's: "e7", "drop_it", ...
[[nodiscard]] std::string name_of(std::uint32_t action);

// An egress as the kernel of this node knows it.
struct EgressPlan {
  std::array<Mode, 2> mode{Mode::kDrop, Mode::kDrop};
  sdk::Mac owner{};  // kSteer; kOwn: the former owner, for connections not yet deleted; may be none
  bool serve = false;
  bool guarded = false;
  std::array<sdk::Address, 2> address;  // source that translated packets get here; may be none
  friend bool operator==(const EgressPlan&, const EgressPlan&) = default;
};

// A peer that the datapath works with.
struct PeerPlan {
  std::uint32_t number = 0;
  sdk::Mac mac{};
  sdk::Address underlay;
  friend bool operator==(const PeerPlan&, const PeerPlan&) = default;
};

struct ObjectFailure {
  sdk::ObjectType type;
  std::string key;
  std::string message;
};

// An endpoint whose verdict changes: names as target() gives them; "" is none.
struct SourceChange {
  sdk::Address address;
  std::string before, after;
};

// What is wrong with a node's configuration; ok when it can be programmed.
[[nodiscard]] sdk::Status check_node(const sdk::NodeConfig& node);

class Plan {
 public:
  // Former owners are remembered for connections that still go to them, and what names mean. Before
  // build().
  void know(const Plan& before) {
    egresses_ = before.egresses_;
    classes_ = before.classes_;
  }
  // Everything anew. Failures of single objects are appended; such objects are left out, and what
  // refers to them is dropped rather than sent on (fail closed).
  void build(const sdk::State& state, Numbering& numbers, std::vector<ObjectFailure>& failures);
  // The state has changed in what `change` names; `change` carries no node.
  void update(const sdk::State& state, const sdk::Change& change, Numbering& numbers,
              std::vector<ObjectFailure>& failures);

  [[nodiscard]] bool enabled(Table t) const { return enables(node_, t); }  // is translated
  [[nodiscard]] bool carries(Table t) const {                              // the underlay is of it
    return common::carries(node_, t);
  }
  [[nodiscard]] const Marks& marks() const { return marks_; }
  // Whether there is an egress id that this node may serve.
  [[nodiscard]] bool serves() const;
  [[nodiscard]] const sdk::NodeConfig& node() const { return node_; }
  [[nodiscard]] const std::map<std::uint32_t, EgressPlan>& egresses() const { return *egresses_; }
  [[nodiscard]] const std::map<std::string, ClassTables>& class_tables(Table t) const {
    return classes_->tables[static_cast<std::size_t>(t)];
  }
  // Destinations that are never steered: the cluster's own, link-local, multicast, ...
  [[nodiscard]] const AddressRanges& cluster(Table t) const {
    return cluster_[static_cast<std::size_t>(t)];
  }
  // The same as prefixes, which may nest.
  [[nodiscard]] std::vector<sdk::Prefix> cluster_prefixes(Table t) const;
  // Sets of lengths that classes have, by shape.
  [[nodiscard]] const std::map<std::uint32_t, Lengths>& shapes(Table t) const {
    return classes_->shapes[static_cast<std::size_t>(t)];
  }
  // What an endpoint of that class is given; empty: nothing. An unknown class is dropped.
  [[nodiscard]] const std::string& target(std::uint32_t class_id, Table t) const;
  [[nodiscard]] std::uint32_t number(std::uint32_t class_id, Table t) const;  // of that; 0: nothing
  // The number for such a name; 0: none.
  [[nodiscard]] std::uint32_t number_of(Table t, const std::string& target) const;
  [[nodiscard]] const std::map<std::string, PeerPlan>& peers() const { return *peers_; }
  // Names of peers that the datapath does without.
  [[nodiscard]] const std::set<std::string>& bad_peers() const { return bad_peers_; }
  [[nodiscard]] bool same_classes(const Plan& other) const { return classes_ == other.classes_; }
  [[nodiscard]] bool same_egresses(const Plan& other) const { return egresses_ == other.egresses_; }
  [[nodiscard]] bool same_peers(const Plan& other) const { return peers_ == other.peers_; }
  // Names of classes with prefixes by their number.
  [[nodiscard]] std::unordered_map<std::uint32_t, std::string> class_names(Table t) const;
  [[nodiscard]] static std::string chain_of(std::uint32_t shape, const Lengths& lengths);

 private:
  struct Classes;
  void build_cluster();
  // before: of the plan before this one.
  void add_class(std::uint32_t id, const sdk::ClassTable& table, const sdk::State& state,
                 const Classes& before, Numbering& numbers, std::vector<ObjectFailure>& failures);
  void remove_class(std::uint32_t id);
  void update_classes(const sdk::State& state, const sdk::Change& change, Numbering& numbers,
                      std::vector<ObjectFailure>& failures);
  void build_peers(const sdk::State& state, Numbering& numbers,
                   std::vector<ObjectFailure>& failures);
  void build_egresses(const sdk::State& state, std::vector<ObjectFailure>& failures);
  void build_shapes();

  sdk::NodeConfig node_;
  Marks marks_;
  // Parts that two plans share when nothing in them has changed.
  struct Classes {
    std::unordered_map<std::uint32_t, ClassTarget> targets;
    std::array<std::map<std::string, ClassTables>, 2> tables;
    std::array<std::map<std::uint32_t, Lengths>, 2> shapes;
  };
  std::shared_ptr<Classes> classes_ = std::make_shared<Classes>();
  std::shared_ptr<const std::map<std::uint32_t, EgressPlan>> egresses_ =
      std::make_shared<std::map<std::uint32_t, EgressPlan>>();
  std::shared_ptr<const std::map<std::string, PeerPlan>> peers_ =
      std::make_shared<std::map<std::string, PeerPlan>>();
  std::set<std::string> bad_peers_;
  std::array<AddressRanges, 2> cluster_;
};

}  // namespace egw::common
