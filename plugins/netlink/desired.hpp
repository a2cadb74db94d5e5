// What the three tables shall hold for a node's desired state, as values that can be compared with
// what the kernel holds. Pure: no kernel, no clock. Used by datapath.cpp; its tests need no root.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
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
#include "ruleset.hpp"

namespace egw::netlink {

// Sorted by key. Keys and data are the bytes that stand in nftables' registers; the data of a
// verdict map is the name of the chain to go to; of a set, empty.
using Elements = std::vector<std::pair<std::string, std::string>>;

// The data of a key; nullptr: absent.
[[nodiscard]] const std::string* find_element(const Elements& elements, const std::string& key);

[[nodiscard]] std::string register_u32(std::uint32_t v);  // host byte order, as marks are
[[nodiscard]] std::string register_u16(std::uint16_t v);
[[nodiscard]] std::string register_address(const sdk::Address& a);
[[nodiscard]] std::string register_mac(const sdk::Mac& mac);

using AddressRange = sdk::FlatRange<std::string>;  // value: always empty
using AddressRanges = std::vector<AddressRange>;

// A class as the kernel knows it: for each family what its endpoints are given; empty: the class
// says nothing about the family. "e7", "drop_it", "node_ip", or "c" and a content: equal tables are
// one.
struct ClassTarget {
  std::array<std::string, 2> name;
  std::array<std::uint32_t, 2> number{};
};

// A class's prefixes of one family, as they are written.
struct ClassTable {
  ClassEntries entries;
  std::uint32_t number = 0;  // what endpoints are given
  [[nodiscard]] std::uint32_t shape() const { return (number & ~kClassBit) >> kShapeShift; }
  // By length; appended, not sorted.
  void elements(std::map<std::uint8_t, Elements>& out) const;
};
struct ClassTables {
  std::shared_ptr<const ClassTable> table;
  std::uint32_t users = 0;  // classes
  // For two of one name, that is of one content.
  friend bool operator==(const ClassTables& a, const ClassTables& b) {
    return a.table->number == b.table->number;
  }
};

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

// Elements by table and Dyn, sorted.
class Lists {
 public:
  [[nodiscard]] Elements& at(Table t, Dyn d) {
    return lists_[static_cast<std::size_t>(t)][static_cast<std::size_t>(d)];
  }
  [[nodiscard]] const Elements& at(Table t, Dyn d) const {
    return lists_[static_cast<std::size_t>(t)][static_cast<std::size_t>(d)];
  }
  void sort();

 private:
  std::array<std::array<Elements, kDynCount>, 3> lists_;
};

struct ObjectFailure {
  sdk::ObjectType type;
  std::string key;
  std::string message;
};

class Desired {
 public:
  // Former owners are remembered for connections that still go to them. Before build().
  void know(const Desired& before) { egresses_ = before.egresses_; }
  // Everything anew. Failures of single objects are appended; such objects are left out, and what
  // refers to them is dropped rather than sent on (fail closed).
  void build(const sdk::State& state, std::uint32_t tunnel_mtu, Numbering& numbers,
             std::vector<ObjectFailure>& failures);
  // The state has changed in what `change` names; `change` carries no node.
  void update(const sdk::State& state, const sdk::Change& change, Numbering& numbers,
              std::vector<ObjectFailure>& failures);

  // Without the tunnel device the netdev table has no chain; the rest stays, and drops.
  void set_device(bool present) { ruleset_.set_device(present); }

  [[nodiscard]] const Ruleset& ruleset() const { return ruleset_; }
  [[nodiscard]] const sdk::NodeConfig& node() const { return node_; }
  [[nodiscard]] const std::map<std::uint32_t, EgressPlan>& egresses() const { return *egresses_; }
  [[nodiscard]] const std::map<std::string, ClassTables>& class_tables(Table t) const {
    return classes_->tables[static_cast<std::size_t>(t)];
  }
  [[nodiscard]] const AddressRanges& cluster(Table t) const {
    return cluster_[static_cast<std::size_t>(t)];
  }
  // Of every set but kSource.
  [[nodiscard]] Lists elements() const;
  // Lengths for which there are maps, and what these hold.
  [[nodiscard]] std::set<std::uint8_t> lengths(Table t) const;
  [[nodiscard]] std::map<std::uint8_t, Elements> prefix_elements(Table t) const;
  // Chains that ask the maps of some lengths, by shape.
  [[nodiscard]] const std::map<std::uint32_t, Lengths>& shapes(Table t) const {
    return classes_->shapes[static_cast<std::size_t>(t)];
  }
  // What an endpoint of that class is given; empty: nothing. An unknown class is dropped.
  [[nodiscard]] const std::string& target(std::uint32_t class_id, Table t) const;
  [[nodiscard]] std::uint32_t number(std::uint32_t class_id, Table t) const;  // of that; 0: nothing
  [[nodiscard]] Elements source_elements(const sdk::State& state, Table t) const;
  [[nodiscard]] const std::map<std::string, PeerPlan>& peers() const { return *peers_; }
  // The number for such a name; 0: none.
  [[nodiscard]] std::uint32_t number_of(Table t, const std::string& target) const;
  [[nodiscard]] bool same_classes(const Desired& other) const { return classes_ == other.classes_; }
  // Names of classes with prefixes by their number.
  [[nodiscard]] std::unordered_map<std::uint32_t, std::string> class_names(Table t) const;
  // Every chain that the table shall have, fixed ones first.
  void each_chain(Table t, const std::function<void(Chain)>& each) const;
  [[nodiscard]] static std::string chain_of(std::uint32_t shape, const Lengths& lengths);
  // Elements of what differs between two states of one node, as they were and as they shall be.
  struct Changed {
    Lists had, wants;
  };
  [[nodiscard]] static Changed changed(const Desired& before, const Desired& after);
  // Names of peers that the datapath does without.
  [[nodiscard]] const std::set<std::string>& bad_peers() const { return bad_peers_; }

 private:
  void build_cluster();
  void add_class(std::uint32_t id, const sdk::ClassTable& table, const sdk::State& state,
                 Numbering& numbers, std::vector<ObjectFailure>& failures);
  void remove_class(std::uint32_t id);
  void update_classes(const sdk::State& state, const sdk::Change& change, Numbering& numbers,
                      std::vector<ObjectFailure>& failures);
  void build_peers(const sdk::State& state, Numbering& numbers,
                   std::vector<ObjectFailure>& failures);
  void build_egresses(const sdk::State& state, std::vector<ObjectFailure>& failures);
  void build_shapes();
  void add_egress(std::uint32_t id, const EgressPlan& plan, Lists& out) const;
  void add_peer(const PeerPlan& peer, Lists& out) const;
  void add_shapes(Lists& out) const;
  void spare_shared(Changed& lists) const;

  sdk::NodeConfig node_;
  Ruleset ruleset_;
  // Parts that two desired states share when nothing in them has changed.
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

}  // namespace egw::netlink
