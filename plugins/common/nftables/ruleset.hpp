// The nftables text of the packet path: chains, sets and counters of our three tables for one node.
// Pure: same node, same text. README.md explains every chain. Used by desired.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/layout.hpp"
#include "common/prefixes.hpp"
#include "egw/sdk/datapath_state.hpp"

namespace egw::common {

struct Hook {
  std::string type, hook;  // "filter", "prerouting"
  std::uint32_t hook_number = 0;
  std::int32_t priority = 0;
  std::string device;  // netdev
  friend bool operator==(const Hook&, const Hook&) = default;
};

struct Chain {
  std::string name;
  std::optional<Hook> hook;
  std::vector<std::string> rules;
  std::string raw{};  // instead of rules: one rule as the kernel's expressions (expressions.hpp)
  // Of hook and rules: what the rules' comments carry, so that a restarted agent recognises them.
  [[nodiscard]] std::uint64_t fingerprint() const;
  [[nodiscard]] std::size_t rule_count() const { return raw.empty() ? rules.size() : 1; }
};

// Sets and maps whose elements are written one by one (by netlink, not as text).
enum class Dyn : std::uint8_t {
  kSource,    // ip, ip6: endpoint -> number: egress id, class, drop, node's address
  kNumber,    // ip, ip6: a class's own number -> its number; only with programs()
  kShape,     // ip, ip6: class bit and shape of such a number -> verdict
  kSteered,   // ip, ip6: ids that go into the tunnel; not with programs()
  kDropped,   // ip, ip6: ids that do not, nor are owned here; only with programs()
  kOwned,     // ip, ip6: ids that this node owns
  kServed,    // ip, ip6: address . id that translated connections of this node's pods may keep
  kGuarded,   // ip, ip6: EIPs that this node may serve: nobody connects to them
  kOwn,       // ip, ip6: addresses that translated packets may leave with
  kIdNat,     // ip, ip6: mark (id) -> address
  kZoneNat,   // ip, ip6: conntrack zone (id) -> address
  kZone,      // ip, ip6: mark (id) -> conntrack zone
  kPeer,      // ip, ip6: inner source MAC -> the peer's number
  kKnown,     // ip, ip6: inner source MAC . connection mark that names it
  kOuter,     // family of the underlay: outer source . inner source MAC
  kOwnerMac,  // netdev: mark (id) -> MAC of the owner
  kBackMac,   // netdev: mark (peer number) -> MAC of the peer
};
inline constexpr std::size_t kDynCount = 17;

struct SetSpec {
  std::string name;
  bool map = false;
  std::string header;  // "type ipv4_addr : verdict"
  std::uint32_t key_length = 0;
  std::uint32_t data_length = 0;  // 0 for verdicts and plain sets
  bool verdict = false;
  bool interval = false;
};

class Ruleset {
 public:
  Ruleset() = default;
  Ruleset(const sdk::NodeConfig& node, std::uint32_t tunnel_mtu, bool programs = false);

  // Whether BPF programs look endpoints up and direct what enters the tunnel (Programs in
  // datapath.hpp): then there is no map of endpoints and nothing at the tunnel device.
  [[nodiscard]] bool programs() const { return programs_; }
  void set_device(bool present) { device_ = present; }
  // Whether chains can stand at the ingress of the tunnel device and of its parent. On a node that
  // may serve nothing they take the place of a hook that every packet passes.
  void set_ingress(bool possible) { can_ingress_ = possible; }
  // Whether there is an egress id that this node may serve: only then do packets meet the guard of
  // the EIPs and the chain for ICMP errors.
  void set_serves(bool any) { serves_ = any; }
  [[nodiscard]] bool serves() const { return serves_; }
  [[nodiscard]] bool enabled(Table t) const { return enables(node_, t); }
  [[nodiscard]] bool carries(Table t) const { return common::carries(node_, t); }
  [[nodiscard]] std::vector<Chain> fixed_chains(Table t) const;
  // Asks the maps of these lengths, longest first (prefixes.hpp).
  [[nodiscard]] Chain lengths_chain(Table t, const std::string& name, const Lengths& lengths) const;
  [[nodiscard]] std::vector<std::pair<Dyn, SetSpec>> sets(Table t) const;
  [[nodiscard]] static SetSpec prefix_map(Table t, std::uint8_t length);
  [[nodiscard]] static SetSpec cluster_set(Table t);
  [[nodiscard]] std::vector<std::string> counters(Table t) const;
  [[nodiscard]] const Marks& marks() const { return marks_; }

  static constexpr std::string_view kUnpackChain = "unpack";  // with programs() alone
  static constexpr std::string_view kClusterSet = "cluster";
  static constexpr std::string_view kPrefixMaps = "m";  // and the length

 private:
  [[nodiscard]] std::vector<Chain> ip_chains(Table t) const;
  [[nodiscard]] bool ingress() const { return can_ingress_ && !serves_; }
  void add_tunnel_egress(std::vector<Chain>& out) const;
  void add_ingress(std::vector<Chain>& out) const;
  [[nodiscard]] std::string set_inner() const;
  [[nodiscard]] std::string to_tunnel_port() const;
  void add_prerouting(Table t, std::vector<Chain>& out) const;
  void add_raw(Table t, std::vector<Chain>& out) const;
  void add_from_tunnel(Table t, std::vector<Chain>& out) const;
  void add_to_peer(std::vector<Chain>& out) const;
  void add_postrouting(Table t, std::vector<Chain>& out) const;
  [[nodiscard]] std::string mark_is(Slot s) const;
  // "meta mark set meta mark & keep | value", foreign bits kept but for `cleared`.
  [[nodiscard]] std::string set_mark(std::uint32_t cleared, std::uint32_t value) const;
  // Marks what leaves by this node with `address`: action nodeip.
  [[nodiscard]] std::vector<std::string> node_ip_rules(Table t, const sdk::Address& address) const;
  void add_judgement(Table t, std::vector<Chain>& out) const;
  void add_egress(Table t, std::vector<Chain>& out) const;
  [[nodiscard]] Chain classify(Table t) const;
  void add_marked(std::vector<Chain>& out) const;
  // Nobody connects to an EIP.
  [[nodiscard]] static std::string to_eip(Table t);
  [[nodiscard]] Chain with_id(const std::string& name, Slot slot) const;
  [[nodiscard]] Chain note_peer() const;

  sdk::NodeConfig node_;
  Marks marks_;
  std::uint32_t mtu_ = 1450;
  bool device_ = true;
  bool can_ingress_ = false;
  bool serves_ = false;
  bool programs_ = false;
};

}  // namespace egw::common
