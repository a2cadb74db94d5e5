#include "routing.hpp"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

#include <array>
#include <bit>

namespace egw::iptables {
namespace {

using common::Mode;
using common::Rule;

constexpr std::uint32_t kRouteMetric = 1024, kLastMetric = 0xffffffff;

// A number has 14 bits: 5 at the root, then 3 per level.
constexpr std::array<unsigned, 4> kBelow{9, 6, 3, 0};  // bits below what a level compares
// Preferences of a level's nodes: ten per node of 8 (a head, to which goto leads, the digits, and
// an end), 40 for the root.
constexpr std::array<std::uint32_t, 4> kLevelBase{0, 0x40, 0x200, 0x1000};
constexpr std::uint32_t kNodeSpan = 10, kRootSpan = 40;
constexpr std::uint32_t kTreeSpan = 0x10000;

class Rules {
 public:
  Rules(Table t, const RoutingInput& in)
      : t_(t),
        in_(in),
        marks_(in.plan.marks()),
        unit_(marks_.slot_mask() & (~marks_.slot_mask() + 1)) {}

  std::set<Rule> build() {
    const std::uint32_t slot = marks_.slot_mask();
    const std::uint32_t first = in_.config.rule_preference, end = first + kFrontRules - 1;
    const std::uint32_t tree = in_.config.tree_preference;
    const std::string& device = in_.plan.node().tunnel_device;
    const std::uint32_t inner = marks_.value(Slot::kInner);
    // (`first` was a rule of earlier versions.) Out of the tunnel: without an id as the host
    // routes; with one, to the outside. No other rule than ours sees the id. The third is for
    // reverse path checks of what goes into the tunnel.
    add(first + 1, inner, slot | kIdMask, device, FR_ACT_GOTO, end);
    add(first + 2, inner, slot, device, FR_ACT_TO_TBL, RT_TABLE_MAIN);
    add(first + 3, 0, 0, device, FR_ACT_GOTO, end);
    look(first + 4, unit_ << 2, unit_ << 2, RT_TABLE_MAIN);
    if (!in_.companion) look(first + 5, value(marks_, Kind::kPending), slot, RT_TABLE_MAIN);
    add(end, 0, 0, device, FR_ACT_NOP, 0);
    if (in_.egress) {
      look(first + 6, unit_ << 3, unit_ << 3, in_.config.route_table);
      return std::move(out_);
    }
    go(first + 6, unit_ << 3, unit_ << 3, tree);

    const std::uint32_t last = tree + kTreePreferences - 1;
    go(tree, 0, unit_ << 3, last);
    std::set<std::uint32_t> ids, peers;
    const auto family = static_cast<std::size_t>(t_);
    if (in_.plan.enabled(t_)) {
      for (const auto& [id, plan] : in_.plan.egresses()) {
        if (plan.mode[family] != Mode::kDrop) ids.insert(id);
      }
      for (const auto& [name, peer] : in_.plan.peers()) peers.insert(peer.number);
      // Reverse path checks of what came out of the tunnel.
      look(tree + 1, inner, slot, in_.config.route_table);
      // The same of packets that have got their mark before the check: replies, which come in by
      // the uplink, and pods' packets, none of which is steered to the cluster.
      const auto check = [&](std::uint32_t preference, Slot kind, const sdk::Prefix& to,
                             const std::string& oif) {
        out_.insert(Rule{common::address_family(t_),
                         preference,
                         marks_.value(kind),
                         slot,
                         {},
                         FR_ACT_TO_TBL,
                         RT_TABLE_MAIN,
                         false,
                         to,
                         oif});
      };
      check(tree + 2, Slot::kBack, {}, in_.plan.node().parent_device);
      for (const sdk::Prefix& p : in_.plan.node().cluster_prefixes) {
        if (!p || common::table_of(p.address) != t_ || p.len == p.address.bits()) continue;
        check(tree + 3, Slot::kSteer, sdk::Prefix(p.first(), p.len), {});
      }
    }
    add_tree(tree + 0x10, Hop::kEgress, ids);
    add_tree(tree + 0x20, Hop::kPeer, peers);
    go(tree + 0x30, unit_ << 3, unit_ << 3, last - 1);
    add(last - 1, unit_ << 3, unit_ << 3, {}, FR_ACT_BLACKHOLE, 0);
    add(last, 0, 0, {}, FR_ACT_NOP, 0);
    return std::move(out_);
  }

 private:
  void add(std::uint32_t preference, std::uint32_t mark, std::uint32_t mask, std::string iif,
           std::uint8_t action, std::uint32_t target) {
    out_.insert(Rule{common::address_family(t_), preference, mark, mask, std::move(iif), action,
                     target, false});
  }
  void go(std::uint32_t preference, std::uint32_t mark, std::uint32_t mask, std::uint32_t target) {
    add(preference, mark, mask, {}, FR_ACT_GOTO, target);
  }
  void look(std::uint32_t preference, std::uint32_t mark, std::uint32_t mask, std::uint32_t table) {
    add(preference, mark, mask, {}, FR_ACT_TO_TBL, table);
  }

  static std::uint32_t node(std::uint32_t base, std::size_t level, std::uint32_t number) {
    return base + kLevelBase[level] + (level == 0 ? 0 : (number >> kBelow[level - 1]) * kNodeSpan);
  }

  void add_tree(std::uint32_t entrance, Hop hop, const std::set<std::uint32_t>& numbers) {
    if (numbers.empty()) return;
    const std::uint32_t base =
        in_.config.tree_preference + 0x100 + (hop == Hop::kEgress ? 0 : kTreeSpan);
    const std::uint32_t kind = marks_.value(hop == Hop::kEgress ? Slot::kSteer : Slot::kBack);
    const std::uint32_t slot = marks_.slot_mask();
    const std::uint32_t blackhole = in_.config.tree_preference + kTreePreferences - 2;
    // No level above the one that tells the numbers apart.
    std::size_t root = 3;
    while (root > 0 && *numbers.rbegin() >> kBelow[root - 1] != 0) --root;
    // The kernel takes no second rule that differs from another in nothing but where it goes to:
    // each root has an entrance of its own.
    go(entrance + static_cast<std::uint32_t>(root), kind, slot, node(base, root, 0));
    for (const std::uint32_t number : numbers) {
      for (std::size_t level = root; level < kBelow.size(); ++level) {
        const std::uint32_t start = node(base, level, number);
        const std::uint32_t digit =
            1 + (level == 0 ? number >> kBelow[0] : number >> kBelow[level] & 7U);
        add(start, 0, 0, {}, FR_ACT_NOP, 0);
        const std::uint32_t mask = slot | (kIdMask & ~((1U << kBelow[level]) - 1));
        const std::uint32_t mark = (kind | number) & mask;
        if (level + 1 < kBelow.size()) {
          go(start + digit, mark, mask, node(base, level + 1, number));
        } else {
          leaf(start + digit, mark, mask, hop, number);
        }
        go(start + (level == 0 ? kRootSpan : kNodeSpan) - 1, unit_ << 3, unit_ << 3, blackhole);
      }
    }
  }

  void leaf(std::uint32_t preference, std::uint32_t mark, std::uint32_t mask, Hop hop,
            std::uint32_t number) {
    bool here = false;
    if (hop == Hop::kEgress) {
      here = in_.plan.egresses().at(number).mode[static_cast<std::size_t>(t_)] == Mode::kOwn;
    }
    look(preference, mark, mask, here ? RT_TABLE_MAIN : hop_table(in_.config, hop, number));
  }

  Table t_;
  const RoutingInput& in_;
  Marks marks_;
  std::uint32_t unit_;
  std::set<Rule> out_;
};

}  // namespace

std::set<Rule> rules_of(Table t, const RoutingInput& in) {
  if (!in.plan.enabled(t) && !in.plan.carries(t)) return {};
  return Rules(t, in).build();
}

std::set<common::Route> routes_of(Table t, const RoutingInput& in) {
  std::set<common::Route> out;
  if (!in.plan.enabled(t)) return out;
  if (in.egress) {
    const sdk::Address hop = common::next_hop(t);
    const std::uint32_t table = in.config.route_table;
    const std::uint8_t af = common::address_family(t);
    if (in.device != 0) {
      out.insert({af, table, {}, RTN_UNICAST, kRouteMetric, hop, in.device, t == Table::kIp});
    }
    out.insert({af, table, {}, RTN_BLACKHOLE, kLastMetric, {}, 0, false});
    return out;
  }
  if (in.device == 0) return out;
  const auto via = [&](std::uint32_t table, const sdk::Address& hop) {
    out.insert(common::Route{common::address_family(t),
                             table,
                             {},
                             RTN_UNICAST,
                             kRouteMetric,
                             hop,
                             in.device,
                             hop && t == Table::kIp});
  };
  via(in.config.route_table, {});
  for (const auto& [id, plan] : in.plan.egresses()) {
    if (plan.mode[static_cast<std::size_t>(t)] != Mode::kSteer) continue;
    via(hop_table(in.config, Hop::kEgress, id), hop_address(t, Hop::kEgress, id));
  }
  for (const auto& [name, peer] : in.plan.peers()) {
    via(hop_table(in.config, Hop::kPeer, peer.number), hop_address(t, Hop::kPeer, peer.number));
  }
  return out;
}

std::vector<common::TunnelNextHop> hops_of(const common::Plan& plan, bool egress) {
  std::vector<common::TunnelNextHop> out;
  for (const Table t : common::kFamilies) {
    if (!plan.enabled(t)) continue;
    if (egress) {
      out.push_back({common::next_hop(t), common::kNextHopMac});
      continue;
    }
    for (const auto& [id, target] : plan.egresses()) {
      if (target.mode[static_cast<std::size_t>(t)] != Mode::kSteer) continue;
      out.push_back({hop_address(t, Hop::kEgress, id), target.owner});
    }
    for (const auto& [name, peer] : plan.peers()) {
      out.push_back({hop_address(t, Hop::kPeer, peer.number), peer.mac});
    }
  }
  return out;
}

bool same_ways(const common::Plan& a, const common::Plan& b) {
  if (a.egresses().size() != b.egresses().size()) return false;
  auto other = b.egresses().begin();
  for (const auto& [id, plan] : a.egresses()) {
    if (other->first != id || other->second.mode != plan.mode) return false;
    ++other;
  }
  return a.same_peers(b);
}

std::vector<common::Message> messages_to_add(const std::set<Rule>& wanted,
                                             const std::set<Rule>& actual,
                                             std::vector<Rule>& added) {
  std::vector<common::Message> out;
  for (const bool leaves : {false, true}) {
    for (auto at = wanted.rbegin(); at != wanted.rend(); ++at) {
      if (actual.count(*at) != 0 || (at->action == FR_ACT_TO_TBL) != leaves) continue;
      out.push_back(common::add(*at));
      added.push_back(*at);
    }
  }
  return out;
}

}  // namespace egw::iptables
