// What the three tables shall hold for a node's desired state, as values that can be compared with
// what the kernel holds. Pure: no kernel, no clock. Used by datapath.cpp; its tests need no root.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/plan.hpp"
#include "ruleset.hpp"

namespace egw::common {

// Sorted by key. Keys and data are the bytes that stand in nftables' registers; the data of a
// verdict map is the name of the chain to go to; of a set, empty.
using Elements = std::vector<std::pair<std::string, std::string>>;

// The data of a key; nullptr: absent.
[[nodiscard]] const std::string* find_element(const Elements& elements, const std::string& key);

[[nodiscard]] std::string register_u32(std::uint32_t v);  // host byte order, as marks are
[[nodiscard]] std::string register_u16(std::uint16_t v);
[[nodiscard]] std::string register_address(const sdk::Address& a);
[[nodiscard]] std::string register_mac(const sdk::Mac& mac);
[[nodiscard]] sdk::Address register_to_address(const std::string& bytes);

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

// By length; appended, not sorted.
void add_elements(const ClassTable& table, std::map<std::uint8_t, Elements>& out);

class Desired : public Plan {
 public:
  explicit Desired(bool programs = false) : programs_(programs) {}  // Ruleset::programs()

  void build(const sdk::State& state, std::uint32_t tunnel_mtu, Numbering& numbers,
             std::vector<ObjectFailure>& failures);
  void update(const sdk::State& state, const sdk::Change& change, Numbering& numbers,
              std::vector<ObjectFailure>& failures);

  // Without the tunnel device the netdev table has no chain; the rest stays, and drops.
  // Another MTU of the tunnel device than the one given to build().
  void set_mtu(std::uint32_t tunnel_mtu);
  void set_device(bool present) { ruleset_.set_device(present); }
  void set_ingress(bool possible) { ruleset_.set_ingress(possible); }

  [[nodiscard]] const Ruleset& ruleset() const { return ruleset_; }
  // Of every set but kSource.
  [[nodiscard]] Lists elements() const;
  // Lengths for which there are maps, and what these hold.
  [[nodiscard]] std::set<std::uint8_t> lengths(Table t) const;
  [[nodiscard]] std::map<std::uint8_t, Elements> prefix_elements(Table t) const;
  [[nodiscard]] Elements source_elements(const sdk::State& state, Table t) const;
  // Every chain that the table shall have, fixed ones first.
  void each_chain(Table t, const std::function<void(Chain)>& each) const;
  // Elements of what differs between two states of one node, as they were and as they shall be.
  struct Changed {
    Lists had, wants;
  };
  [[nodiscard]] static Changed changed(const Desired& before, const Desired& after);

 private:
  void add_egress(std::uint32_t id, const EgressPlan& plan, Lists& out) const;
  void add_owner(std::uint32_t id, const EgressPlan& plan, Lists& out) const;
  void add_peer(const PeerPlan& peer, Lists& out) const;
  void add_shapes(Lists& out) const;
  void add_number(Table t, const ClassTable& table, Lists& out) const;
  void spare_shared(Changed& lists) const;

  bool programs_ = false;
  Ruleset ruleset_;
};

}  // namespace egw::common
