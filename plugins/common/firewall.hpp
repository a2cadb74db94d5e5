// Other people's packet filters, read for probe(): which of their rules use our mark bits, and
// whether their FORWARD and INPUT chains drop the tunnel. Nothing is changed and no program is run:
// nftables (and iptables-nft) by netlink, iptables-legacy by getsockopt. Called by probe.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "netlink.hpp"

namespace egw::common {

inline constexpr std::uint32_t kWhole = 0xffffffff;  // a mask of every bit of a mark

// What a rule does with packet marks or with connection marks.
struct MarkUse {
  std::uint32_t tested = 0;  // bits that decide whether it matches
  std::uint32_t set = 0;     // bits that it changes on purpose
  bool overwritten = false;  // it writes the whole mark, also the bits that it does not mean
  void operator|=(const MarkUse& other);
  [[nodiscard]] bool uses(std::uint32_t bits) const { return ((tested | set) & bits) != 0; }
};
// A comparison of (mark & mask) with value.
[[nodiscard]] MarkUse mark_test(std::uint32_t mask, std::uint32_t value, bool inverted);
// mark = (mark & ~mask) ^ value.
[[nodiscard]] MarkUse mark_write(std::uint32_t mask, std::uint32_t value);

// A question that a rule asks of a packet.
struct Condition {
  enum class Field : std::uint8_t { kIn, kOut, kState, kFamily, kProtocol, kPort, kOther };
  Field field = Field::kOther;
  bool inverted = false;
  std::vector<std::string> names;  // kIn, kOut: interfaces; "veth*" is a prefix
  std::vector<std::pair<std::uint32_t, std::uint32_t>> numbers;  // others: ranges, both ends in
  std::uint32_t bits = 0;                                        // kState: any of them
};

enum class Verdict : std::uint8_t { kNone, kAccept, kDrop, kReturn, kJump, kGoto, kUnclear };

struct FirewallRule {
  std::string name;  // "rule handle 7", "rule 3"
  std::uint64_t handle = 0;
  std::vector<Condition> conditions;  // all must hold
  Verdict verdict = Verdict::kNone;
  std::string target;  // of jump and goto
  MarkUse mark, ct_mark;
};

enum class FilterHook : std::uint8_t { kNone, kInput, kForward };  // of filter chains; others: none

struct FirewallChain {
  FilterHook hook = FilterHook::kNone;
  bool policy_drop = false;
  std::vector<FirewallRule> rules;
};

struct FirewallTable {
  std::string kind;    // "nftables", "iptables-legacy", "ip6tables-legacy"
  std::string family;  // nft's word: "ip", "inet" ...
  std::string name;
  bool v4 = false, v6 = false;  // which packets its FORWARD and INPUT see
  std::map<std::string, FirewallChain> chains;
  // "nftables table inet filter, chain forward"
  [[nodiscard]] std::string where(std::string_view chain) const;
};

[[nodiscard]] std::vector<FirewallTable> read_legacy_iptables();  // firewall_xt.cpp

// A packet of the tunnel. What is not known stays open.
struct TunnelPacket {
  FilterHook hook = FilterHook::kForward;
  std::uint8_t family = 4;
  std::string device;                  // the tunnel's
  std::optional<std::string> in, out;  // an interface by name; none: any but the tunnel device
  std::uint32_t state = 0;             // NF_CT_STATE_BIT of its connection
  std::optional<std::uint32_t> protocol, port;
};

// Where `packet` is dropped for certain: whatever else it is, no rule could have accepted it
// before.
struct Dropped {
  std::string chain;
  std::string by;  // "its policy", "rule handle 7"
  const FirewallRule* rule = nullptr;
};
[[nodiscard]] std::optional<Dropped> where_dropped(const FirewallTable& table,
                                                   const TunnelPacket& packet);

// xtables matches and targets, which iptables-nft wraps in nftables rules; adds to `rule`.
void read_xt_match(std::string_view name, unsigned revision, std::string_view info,
                   FirewallRule& rule);
void read_xt_target(std::string_view name, unsigned revision, std::string_view info,
                    FirewallRule& rule);

}  // namespace egw::common
