// The names, mark values and numbers of the packet path, as plugins/netlink/README.md describes
// them. Pure. Used by plan.cpp, flows.cpp and the datapath plugins.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

#include "egw/sdk/datapath_state.hpp"

namespace egw::common {

inline constexpr std::string_view kTable = "egw";
// Of the iptables datapath, beside its chains.
inline constexpr std::string_view kTableBesideIptables = "egw-iptables";
inline constexpr std::uint32_t kIdMask = 0x3fff;
// The device group of the tunnel device: rules know the device by it, which is cheaper than to
// compare names. No other device may have it.
inline constexpr std::uint32_t kTunnelGroup = 0x00656777;  // "egw"

// What a packet's priority holds on its way through our chains: an egress id, one of these, or the
// number of a class with prefixes: kClassBit, its shape in the next seven bits, its own number.
inline constexpr std::uint32_t kDropNumber = 0x40000000;
inline constexpr std::uint32_t kNodeIpNumber = 0x40000001;
inline constexpr std::uint32_t kBypassNumber = 0x40000002;
inline constexpr std::uint32_t kClassBit = 0x80000000;
inline constexpr std::uint32_t kShapeMask = 0xff000000;  // with kClassBit
inline constexpr unsigned kShapeShift = 24;
inline constexpr std::uint32_t kMaxClass = 0x0001ffff;
// With Slot::kEarly the priority holds the egress id above the class's own number (0: none).
inline constexpr unsigned kEarlyShift = 17;

enum class Table : std::uint8_t { kIp = 0, kIp6 = 1, kNetdev = 2 };
inline constexpr std::array<Table, 3> kTables{Table::kIp, Table::kIp6, Table::kNetdev};
inline constexpr std::array<Table, 2> kFamilies{Table::kIp, Table::kIp6};
// Of what is kept once for each table.
[[nodiscard]] constexpr std::size_t index(Table t) { return static_cast<std::size_t>(t); }
[[nodiscard]] std::string_view keyword(Table t);     // "ip", "ip6", "netdev"
[[nodiscard]] std::uint8_t nf_family(Table t);       // NFPROTO_*
[[nodiscard]] std::uint8_t address_family(Table t);  // AF_*; AF_UNSPEC for netdev
[[nodiscard]] inline Table table_of(const sdk::Address& a) {
  return a.is_v6() ? Table::kIp6 : Table::kIp;
}
// The family is translated.
[[nodiscard]] inline bool enables(const sdk::NodeConfig& node, Table t) {
  return t == Table::kIp ? node.enable_ipv4 : t == Table::kIp6 && node.enable_ipv6;
}
// The underlay is of this family.
[[nodiscard]] inline bool carries(const sdk::NodeConfig& node, Table t) {
  return t != Table::kNetdev && table_of(node.underlay) == t;
}
// What a class's endpoints are given when it is action nodeip for all: plan.hpp.
inline constexpr std::string_view kNodeIpName = "node_ip";

// What a packet's mark says within slot_mask. The values are chosen so that two `ip rule`s tell
// them apart: bit 3 means "the tunnel's routing table", bit 2 means "the main table".
enum class Slot : std::uint32_t {
  // Set by programs at the pod's interface, before the connection is known: no rule routes by them.
  kEarly = 0x1,  // of an endpoint, to be steered to the id in the priority (kEarlyShift)
  kLate = 0x2,   // of an endpoint: judged by the number in the priority
  kOwn = 0x4,    // leaves by this node, source made the EIP or this node's address
  kOuter = 0x5,  // the tunnel's outer packet
  kInner = 0x8,  // came out of the tunnel
  kSteer = 0x9,  // goes into the tunnel, to the owner of the id in the low 14 bits
  kBack = 0xa,   // goes into the tunnel, to the peer whose number stands in the low 14 bits
};

// The operator's choices about numbers (the plugin's configuration).
struct Numbers {
  std::uint32_t rule_preference = 1;       // first of kRules preferences in a row
  std::uint32_t route_table = 0x00656777;  // "egw"
};
inline constexpr std::uint32_t kRules = 5;

class Marks {
 public:
  Marks() = default;
  Marks(std::uint32_t slot_mask, std::uint32_t ct_mask)
      : slot_mask_(slot_mask), ct_mask_(ct_mask) {}

  // Empty, or what is wrong with the masks.
  [[nodiscard]] std::string why_invalid() const;

  [[nodiscard]] std::uint32_t slot_mask() const { return slot_mask_; }
  [[nodiscard]] std::uint32_t ct_mask() const { return ct_mask_; }
  [[nodiscard]] std::uint32_t value(Slot s) const {
    return static_cast<std::uint32_t>(s) << std::countr_zero(slot_mask_);
  }
  // A single bit of the slot: kOwn's or kInner's.
  [[nodiscard]] unsigned ct_shift() const {
    return static_cast<unsigned>(std::countr_zero(ct_mask_));
  }
  // Peer numbers 1..max. All bits of ct_mask set is no number: a connection of a pod of this node
  // whose destination has been looked at.
  [[nodiscard]] std::uint32_t max_peer_number() const;

 private:
  std::uint32_t slot_mask_ = 0xff000000, ct_mask_ = 0xfff80000;
};

// Next hop of the tunnel's routing table: an address that stands for whichever node the destination
// MAC is rewritten to in the netdev table, and a MAC that no FDB entry knows.
[[nodiscard]] sdk::Address next_hop(Table t);
inline constexpr sdk::Mac kNextHopMac{0x02, 0x65, 0x67, 0x77, 0x00, 0x00};

// 64-bit FNV-1a: names of classes by content, and marks in rule comments.
[[nodiscard]] std::uint64_t fingerprint(std::string_view text);
[[nodiscard]] std::string hex(std::uint64_t value, unsigned digits);
[[nodiscard]] std::string mark_text(std::uint32_t value);  // 0x01234567
[[nodiscard]] std::string mac_text(const sdk::Mac& mac);

}  // namespace egw::common
