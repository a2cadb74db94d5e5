// Names and numbers of the iptables datapath beyond those that all datapaths share
// (common/layout.hpp): what README.md describes. Pure. Used by everything in this folder.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string>

#include "common/layout.hpp"

namespace egw::iptables {

using common::kIdMask;
using common::Marks;
using common::Slot;
using common::Table;

// Besides Slot's values, what a mark says within slot_mask. None of them meets a routing decision
// but kPending.
enum class Kind : std::uint32_t {
  kDropped = 0x1,  // a policy drops it
  kPending = 0x2,  // first packet of a connection that a service may still turn elsewhere
  kClass = 0x3,    // the low 14 bits are the number of a class with prefixes
  // From iptables' chains to the nftables tables beside them (companion_rules.hpp), where there are
  // such; until then none of the above.
  kSaved = 0x1,  // kPending, with the id in the packet's priority
};
[[nodiscard]] inline std::uint32_t value(const Marks& marks, Kind kind) {
  return static_cast<std::uint32_t>(kind) << std::countr_zero(marks.slot_mask());
}

enum class Backend : std::uint8_t { kAuto, kLegacy, kNft };
[[nodiscard]] std::string_view word(Backend backend);  // "auto", "legacy", "nft"

// How much of nf_tables is used beside iptables (companion_rules.hpp).
enum class Nftables : std::uint8_t { kAuto, kNoEgress, kNever };
[[nodiscard]] std::string_view word(Nftables choice);  // "auto", "no-egress", "never"

// The operator's choices (the plugin's configuration).
struct Config {
  std::uint32_t rule_preference = 1;       // first of kFrontRules preferences in a row
  std::uint32_t tree_preference = 50000;   // first of the preferences of the tree: behind "default"
  std::uint32_t route_table = 0x00656777;  // first of kRouteTables numbers in a row
  Backend backend = Backend::kAuto;
  Nftables nftables = Nftables::kAuto;
};
inline constexpr std::uint32_t kFrontRules = 9;
// One for reverse path checks, then one per egress id, then one per peer's number.
inline constexpr std::uint32_t kRouteTables = 0x8001;
inline constexpr std::uint32_t kTreePreferences = 0x40000;

// The chains' prefix in iptables, the sets' in ipset.
inline constexpr std::string_view kChainPrefix = "EGW-";
inline const std::string kTemporarySet = "EGW-new";  // swapped with another, and gone
[[nodiscard]] std::string set_name(Table t, std::string_view what);  // "EGW4-pods"
[[nodiscard]] bool is_our_set(std::string_view name);

// A next hop for an egress id or a peer's number: an address that exists on the tunnel device
// alone, as a neighbour entry with the MAC of the node.
enum class Hop : std::uint8_t { kEgress, kPeer };
[[nodiscard]] sdk::Address hop_address(Table t, Hop hop, std::uint32_t number);
[[nodiscard]] inline std::uint32_t hop_table(const Config& config, Hop hop, std::uint32_t number) {
  return config.route_table + (hop == Hop::kEgress ? 1U : 0x4001U) + number;
}

}  // namespace egw::iptables
