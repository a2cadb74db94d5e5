// What the three tables shall hold for a node's desired state, as values that can be compared with
// what the kernel holds. Pure: no kernel, no clock. Used by datapath.cpp; its tests need no root.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "egw/sdk/datapath.hpp"
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

using VerdictRange = sdk::FlatRange<std::string>;  // value: chain to go to
using VerdictRanges = std::vector<VerdictRange>;

// A class as the kernel knows it: for each family the chain that its endpoints go to; empty: the
// class says nothing about the family.
struct ClassTarget {
  std::array<std::string, 2> chain;
  friend bool operator==(const ClassTarget&, const ClassTarget&) = default;
};

struct ClassTables {
  VerdictRanges ranges;
  std::uint32_t number = 0;  // what endpoints are given
  std::uint32_t users = 0;   // classes
};

// An egress as the kernel of this node knows it.
struct EgressPlan {
  std::array<Mode, 2> mode{Mode::kDrop, Mode::kDrop};
  sdk::Mac owner{};  // kSteer; kOwn: the former owner, for connections not yet deleted; may be none
  bool serve = false;
  bool guarded = false;
  std::array<sdk::Address, 2> address;  // source that translated packets get here; may be none
  friend bool operator==(const EgressPlan&, const EgressPlan&) = default;
};

struct ObjectFailure {
  sdk::ObjectType type;
  std::string key;
  std::string message;
};

// Numbers of peers: what stands in the connection's mark on a gateway. Kept over the life of the
// node (a restarted agent learns them from the kernel), so that replies of running connections find
// their peer; freed ones are used again last.
class PeerNumbers {
 public:
  // From the kernel's map of MACs to numbers; only before the first assign().
  void learn(const sdk::Mac& mac, std::uint32_t number);
  // 0: none is free.
  std::uint32_t assign(const std::string& name, const sdk::Mac& mac, std::uint32_t max);
  void release(const std::string& name);
  [[nodiscard]] std::vector<std::string> names() const;
  [[nodiscard]] bool empty() const { return by_name_.empty(); }

 private:
  std::map<std::string, std::uint32_t> by_name_;
  std::map<sdk::Mac, std::uint32_t> learned_;
  std::set<std::uint32_t> used_;
  std::uint32_t last_ = 0;
};

class Desired {
 public:
  // Everything anew. Failures of single objects are appended; such objects are left out, and what
  // refers to them is dropped rather than sent on (fail closed).
  void build(const sdk::State& state, std::uint32_t tunnel_mtu, PeerNumbers& numbers,
             std::vector<ObjectFailure>& failures);
  // The state has changed in what `change` names; `change` carries no node.
  void update(const sdk::State& state, const sdk::Change& change, PeerNumbers& numbers,
              std::vector<ObjectFailure>& failures);

  // Without the tunnel device the netdev table has no chain; the rest stays, and drops.
  void set_device(bool present) { ruleset_.set_device(present); }

  [[nodiscard]] const Ruleset& ruleset() const { return ruleset_; }
  [[nodiscard]] const sdk::NodeConfig& node() const { return node_; }
  [[nodiscard]] const std::map<std::uint32_t, EgressPlan>& egresses() const { return egresses_; }
  [[nodiscard]] const std::map<std::string, ClassTables>& class_tables(Table t) const {
    return tables_[static_cast<std::size_t>(t)];
  }
  [[nodiscard]] const std::vector<sdk::FlatRange<std::string>>& cluster(Table t) const {
    return cluster_[static_cast<std::size_t>(t)];
  }
  // All but kSource.
  [[nodiscard]] const Elements& elements(Table t, Dyn d) const {
    return elements_[static_cast<std::size_t>(t)][static_cast<std::size_t>(d)];
  }
  // The chain for an endpoint of that class; empty: none. An unknown class gives the drop chain.
  [[nodiscard]] const std::string& target(std::uint32_t class_id, Table t) const;
  [[nodiscard]] Elements source_elements(const sdk::State& state, Table t) const;
  [[nodiscard]] const std::map<std::string, std::uint32_t>& peer_numbers() const {
    return peer_numbers_;
  }
  // The number by which endpoints name a chain, and back; 0 and "" for none.
  [[nodiscard]] std::uint32_t chain_number(Table t, const std::string& chain) const;
  [[nodiscard]] std::string chain_name(Table t, std::uint32_t number) const;
  // Every chain that the table shall have, fixed ones first.
  void each_chain(Table t, const std::function<void(Chain)>& each) const;
  [[nodiscard]] Chain egress_chain(Table t, std::uint32_t id) const;
  // Ids with a chain: what classes refer to.
  [[nodiscard]] std::set<std::uint32_t> chain_ids() const;
  // Names of peers that the datapath does without.
  [[nodiscard]] const std::set<std::string>& bad_peers() const { return bad_peers_; }

 private:
  void build_cluster();
  void add_class(std::uint32_t id, const sdk::ClassTable& table, const sdk::State& state,
                 std::vector<ObjectFailure>& failures);
  void remove_class(std::uint32_t id);
  void build_peers(const sdk::State& state, PeerNumbers& numbers,
                   std::vector<ObjectFailure>& failures);
  void build_egresses(const sdk::State& state, std::vector<ObjectFailure>& failures);
  void build_elements(const sdk::State& state);
  void build_judges();

  sdk::NodeConfig node_;
  Ruleset ruleset_;
  std::unordered_map<std::uint32_t, ClassTarget> classes_;
  std::unordered_map<std::uint32_t, std::vector<std::uint32_t>> class_ids_;  // class -> egress ids
  std::array<std::map<std::string, ClassTables>, 2> tables_;
  std::map<std::uint32_t, std::uint32_t> references_;  // egress id -> class tables that name it
  std::map<std::uint32_t, EgressPlan> egresses_;
  std::map<std::string, std::uint32_t> peer_numbers_;
  std::set<std::string> bad_peers_;
  std::array<std::vector<sdk::FlatRange<std::string>>, 2> cluster_;
  std::array<std::array<Elements, kDynCount>, 3> elements_;
};

// "element = { ... }" texts of interval sets and maps; verdict "" for sets.
[[nodiscard]] std::string range_text(const VerdictRange& range, bool verdict);

}  // namespace egw::netlink
