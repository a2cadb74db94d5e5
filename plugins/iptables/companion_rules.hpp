// What the nftables tables beside our iptables chains shall hold: the places in a packet's way that
// iptables has no hook for. Behind iptables' mangle chain: the egress id is put where others' rules
// do not write. After destination NAT: a mark that leads somewhere. Before everybody's source NAT:
// the translation. At the tunnel device: the owner's MAC. On nodes that may serve nothing also the
// guard of the tunnel port. README.md, "Beside iptables". Pure. Used
// by companion.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/nftables/desired.hpp"
#include "layout.hpp"

namespace egw::iptables {

inline constexpr std::string_view kCompanionTable = common::kTableBesideIptables;

struct CompanionTable {
  std::vector<common::Chain> chains;
  std::vector<std::pair<common::SetSpec, common::Elements>> sets;  // elements sorted
  std::vector<std::string> counters;
  [[nodiscard]] bool empty() const { return chains.empty() && sets.empty(); }
};
using CompanionTables = std::array<CompanionTable, 3>;  // by common::Table

struct CompanionInput {
  const common::Plan& plan;
  std::uint32_t mtu = 1450;  // of the tunnel device
  bool egress = false;       // the device's egress hook is ours to use
  bool device = false;       // it is there
  // Chains stand at the ingress of the device and of its parent, on a node that may serve nothing:
  // then iptables' raw table holds nothing of ours.
  bool ingress = false;
};
[[nodiscard]] CompanionTables companion_tables(const CompanionInput& in);
// The one that has to be there before iptables' chain for mangle; empty.
[[nodiscard]] common::Chain companion_first_chain();
// Something of every kind, for Nft::try_out().
[[nodiscard]] std::string companion_trial(bool egress);

inline constexpr const char* kSources = "idnat";  // ip, ip6: egress id -> source
inline constexpr const char* kServed = "served";  // ip, ip6: its keys
inline constexpr const char* kOwned = "owned";    // ip, ip6: ids of this node; with the hook
// ip, ip6: source . egress id that translated connections of this node's pods may keep
inline constexpr const char* kBound = "bound";
inline constexpr const char* kOwners = "owner";  // netdev: egress id -> MAC

// What the elements of a set were and shall be, as far as they differ. Sorted.
struct CompanionChange {
  common::Table table;
  std::string set;
  common::Elements had, wants;
};
// Where nothing but egresses differs, and the node may serve some before and after, or none.
[[nodiscard]] std::vector<CompanionChange> companion_changes(const common::Plan& before,
                                                             const common::Plan& after,
                                                             bool egress);
// From the elements of kSources.
[[nodiscard]] std::vector<std::pair<std::uint32_t, sdk::Address>> sources_in(
    const common::Elements& elements);
// Of an element's key, and data.
[[nodiscard]] std::uint32_t number_in(const std::string& bytes);
[[nodiscard]] sdk::Mac mac_in(const std::string& bytes);

}  // namespace egw::iptables
