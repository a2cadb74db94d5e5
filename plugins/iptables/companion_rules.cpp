#include "companion_rules.hpp"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

#include "common/nftables/expressions.hpp"

namespace egw::iptables {
namespace {

using common::Chain;
using common::Elements;
using common::Hook;
using common::mark_text;

// Before iptables' raw (-300).
constexpr std::int32_t kRawPriority = -310;
// iptables' mangle. Who is registered later comes first, and our iptables chains come after this
// one: so this is behind them, and before whoever had rules there first.
constexpr std::int32_t kSavePriority = -150;
// After destination NAT (-100) and others' reverse path checks (firewalld: -140): what is judged is
// where a packet really goes, and nobody looks up a route by our marks who is not to.
constexpr std::int32_t kLatePriority = -90;
// Before everybody's source NAT (100): the first binding of a connection wins.
constexpr std::int32_t kNatPriority = 90;

std::string counted(const char* counter) {
  return "counter name \"" + std::string(counter) + "\" drop";
}

using ByName = std::map<std::string, Elements>;  // by the set's name

// What an egress is in the sets of a table.
void add_egress(Table t, std::uint32_t id, const common::EgressPlan& egress, ByName& out) {
  const std::string key = common::register_u32(id);
  if (t == Table::kNetdev) {
    if (egress.owner != sdk::Mac{}) {
      out[kOwners].emplace_back(key, common::register_mac(egress.owner));
    }
    return;
  }
  const sdk::Address& a = egress.address[static_cast<std::size_t>(t)];
  if (egress.serve && a) {
    out[kSources].emplace_back(key, common::register_address(a));
    out[kServed].emplace_back(key, "");
    if (egress.mode[static_cast<std::size_t>(t)] != common::Mode::kDrop) {
      out[kBound].emplace_back(common::register_address(a) + key, "");
    }
  }
  if (egress.mode[static_cast<std::size_t>(t)] == common::Mode::kOwn) {
    out[kOwned].emplace_back(key, "");
  }
}

ByName sorted(ByName sets) {
  for (auto& [name, elements] : sets) std::sort(elements.begin(), elements.end());
  return sets;
}

class Builder {
 public:
  Builder(Table t, const CompanionInput& in)
      : t_(t), in_(in), node_(in.plan.node()), marks_(in.plan.marks()) {}

  CompanionTable build() {
    out_.counters = {"no_address"};
    save();
    late();
    if (in_.ingress) wire();
    translate();
    elements();
    return std::move(out_);
  }

 private:
  void chain(std::string name, std::vector<std::string> rules, std::optional<Hook> hook = {}) {
    out_.chains.push_back({std::move(name), std::move(hook), std::move(rules)});
  }
  void chain(std::string name, const common::Expressions& rule, std::optional<Hook> hook = {}) {
    out_.chains.push_back({std::move(name), std::move(hook), {}, rule.bytes()});
  }
  [[nodiscard]] std::string is(std::uint32_t value) const {
    return "meta mark & " + mark_text(marks_.slot_mask()) + " == " + mark_text(value);
  }
  [[nodiscard]] std::string is(Slot s) const { return is(marks_.value(s)); }
  [[nodiscard]] std::string is(Kind k) const { return is(value(marks_, k)); }
  [[nodiscard]] std::string is_bare(std::uint32_t value) const {
    return "meta mark & " + mark_text(marks_.slot_mask() | kIdMask) + " == " + mark_text(value);
  }
  // Other bits are kept.
  static std::string set(std::uint32_t cleared, std::uint32_t value) {
    const std::string with = value == 0 ? "" : " | " + mark_text(value);
    return "meta mark set meta mark & " + mark_text(~cleared) + with;
  }
  [[nodiscard]] bool carries() const { return common::carries(node_, t_); }
  [[nodiscard]] std::string port() const { return std::to_string(node_.tunnel_port); }
  static std::string id() { return "meta mark & " + mark_text(kIdMask); }

  void save();
  void late();
  void bound();
  void wire();
  void translate();
  void elements();

  Table t_;
  const CompanionInput& in_;
  const sdk::NodeConfig& node_;
  Marks marks_;
  CompanionTable out_;
};

// A pod's packet that EGW-PRE has found worth a look, and nothing else, is kPending, with its id.
void Builder::save() {
  Chain first = companion_first_chain();
  first.rules = {is(Kind::kPending) + " goto save_id"};
  out_.chains.push_back(std::move(first));
  common::Expressions save;
  save.load_meta(NFT_META_MARK, 0).mask(0, 1, kIdMask, 0).store_meta(NFT_META_PRIORITY, 1);
  save.mask(0, 0, ~(marks_.slot_mask() | kIdMask), value(marks_, Kind::kSaved));
  chain("save_id", save.store_meta(NFT_META_MARK, 0));
  common::Expressions restore;
  restore.load_meta(NFT_META_MARK, 0).load_meta(NFT_META_PRIORITY, 1);
  restore.insert(0, 1, {0, static_cast<unsigned>(std::popcount(kIdMask))}, 2);
  restore.store_meta(NFT_META_MARK, 2).constant(0, 0).store_meta(NFT_META_PRIORITY, 0);
  chain("restore_id", restore);
}

void Builder::late() {
  const std::string unmarked = "meta mark & " + mark_text(marks_.slot_mask()) + " == 0 ";
  const std::string peer = "ct mark & " + mark_text(marks_.ct_mask());
  std::vector<std::string> late{is(Kind::kSaved) + " jump restore_id",
                                is(Kind::kSaved) + " goto pod", is(Kind::kPending) + " goto pod"};
  if (in_.plan.serves()) {
    late = {is(Kind::kPending) + " jump save_id", is(Kind::kSaved) + " goto saved"};
    chain("saved", {"ct status snat goto bound", "jump restore_id", "goto pod"});
  }
  if (in_.ingress) {
    // A node that may serve nothing has no replies to peers.
    late.insert(late.begin(),
                unmarked + "iifgroup != " + mark_text(common::kTunnelGroup) + " accept");
    // Most packets have another number there: it is compared before the protocol.
    if (carries())
      late.insert(late.begin(), "@th,16,16 " + port() + " meta l4proto udp goto from_wire");
    late.push_back(unmarked + "goto unmarked");
  } else {
    late.insert(late.begin(), unmarked + peer + " == 0 accept");
    if (in_.plan.serves()) late.push_back(is(Slot::kInner) + " goto arrived");
    late.push_back(unmarked + "goto answer");
  }
  late.push_back(is(Slot::kOwn) + " goto node_ip");
  chain("late", std::move(late),
        Hook{"filter", "prerouting", NF_INET_PRE_ROUTING, kLatePriority, {}});
  // What a service has turned elsewhere is left alone, with nothing of ours for rules of others to
  // take for theirs. No id: this node's address.
  const std::string own = set(marks_.slot_mask(), marks_.value(Slot::kOwn)) + " accept";
  std::vector<std::string> pod{"ct status dnat " + set(marks_.slot_mask() | kIdMask, 0) + " accept",
                               id() + " == 0 goto node_ip"};
  if (in_.egress && in_.plan.serves()) pod.push_back(id() + " @" + kOwned + " " + own);
  pod.push_back(set(marks_.slot_mask(), marks_.value(Slot::kSteer)));
  chain("pod", std::move(pod));
  bound();
  if (in_.ingress) return;
  if (in_.plan.serves()) {
    // A first packet out of the tunnel needs an id that gets an address here.
    chain("arrived", {"ct status confirmed accept", id() + " == 0 accept",
                      id() + " != @" + kServed + " " + counted("unknown_id")});
    out_.counters.emplace_back("unknown_id");
  }
  std::string number = peer;
  if (marks_.ct_shift() != 0) number = "(" + number + ") >> " + std::to_string(marks_.ct_shift());
  chain("answer",
        {"ct direction original accept", peer + " == " + mark_text(marks_.ct_mask()) + " accept",
         "meta mark set " + number + " | " + mark_text(marks_.value(Slot::kBack))});
}

// A connection keeps its translation until its entry is deleted, and goes by the way that fits it.
// What is bound to another source, before its policy or by an older one, is dropped until then.
void Builder::bound() {
  const std::string source = "ct reply " + std::string(common::keyword(t_)) + " daddr ";
  const std::string own = set(marks_.slot_mask(), marks_.value(Slot::kOwn)) + " accept";
  const std::string other = counted("other_source");
  out_.counters.emplace_back("other_source");
  const sdk::Address& parent = t_ == Table::kIp ? node_.parent_v4 : node_.parent_v6;
  const std::string not_ours = parent ? source + "!= " + parent.text() + " " : "";
  chain("node_ip", {"ct status snat " + not_ours + other, own});
  if (!in_.plan.serves()) return;
  // The id is needed for the first packet only; foreign bits of the others stay.
  chain("bound", {"meta priority 0 goto node_ip",
                  source + ". meta priority @" + kBound + " meta priority set 0 " + own, other});
}

// In place of iptables' raw table, which every packet of the node passes: what goes to the tunnel
// port, and, if nobody has marked it (the device is new, or somebody has written over the mark),
// what has come out of the tunnel.
void Builder::wire() {
  const std::string f(common::keyword(t_));
  chain("unmarked", {"ct direction reply ct state established,related accept", counted("invalid")});
  out_.counters.emplace_back("invalid");
  if (!carries()) return;
  out_.counters.emplace_back("forged");
  // The inner source MAC stands 22 bytes behind the start of the UDP header: 8 UDP, 8 VXLAN, 6
  // destination MAC. What has come out of the tunnel has been looked at in its outer packet.
  chain("from_wire", {"iifgroup " + mark_text(common::kTunnelGroup) + " accept",
                      "iifname != \"" + node_.parent_device + "\" " + counted("forged"),
                      f + " daddr != " + node_.underlay.text() + " " + counted("forged"),
                      f + " saddr . @th,176,48 @outer meta mark set 0 accept", counted("forged")});
  // The outer packet's mark is the id; it is nobody else's business.
  chain(
      "raw_out",
      {f + " saddr " + node_.underlay.text() + " udp dport " + port() + " meta mark set 0 notrack"},
      Hook{"filter", "output", NF_INET_LOCAL_OUT, kRawPriority, {}});
  Elements outer;
  for (const auto& [name, peer] : in_.plan.peers()) {
    // A field of a key begins at a multiple of four bytes.
    outer.emplace_back(common::register_address(peer.underlay) + common::register_mac(peer.mac) +
                           std::string(2, '\0'),
                       "");
  }
  std::sort(outer.begin(), outer.end());
  out_.sets.emplace_back(common::SetSpec{"outer", false, "typeof " + f + " saddr . @th,176,48",
                                         t_ == Table::kIp ? 12U : 24U, 0, false, false},
                         std::move(outer));
}

// First packets only.
void Builder::translate() {
  const std::string f(common::keyword(t_));
  const std::uint32_t own = marks_.value(Slot::kOwn);
  chain(
      "translate",
      {// Bound to itself: no masquerade rule touches it.
       "oifname \"" + node_.tunnel_device + "\" snat to " + f + " saddr",
       "meta mark & " + mark_text(marks_.slot_mask()) + " == 0 accept",
       is_bare(own) + " goto translate_node",
       // The slot means a way through this node; the id is needed below.
       set(marks_.slot_mask(), 0), "snat to " + id() + " map @" + kSources, counted("no_address")},
      Hook{"nat", "postrouting", NF_INET_POST_ROUTING, kNatPriority, {}});
  std::vector<std::string> node{set(marks_.slot_mask(), 0)};
  const sdk::Address& parent = t_ == Table::kIp ? node_.parent_v4 : node_.parent_v6;
  node.push_back(parent ? "snat to " + parent.text() : counted("no_address"));
  chain("translate_node", std::move(node));
}

void Builder::elements() {
  const bool v4 = t_ == Table::kIp;
  ByName sets;
  for (const auto& [number, egress] : in_.plan.egresses()) add_egress(t_, number, egress, sets);
  sets = sorted(std::move(sets));
  out_.sets.emplace_back(
      common::SetSpec{kSources, true,
                      std::string("type mark : ") + (v4 ? "ipv4" : "ipv6") + "_addr", 4,
                      v4 ? 4U : 16U, false, false},
      std::move(sets[kSources]));
  const auto marks = [&](const char* name) {
    out_.sets.emplace_back(common::SetSpec{name, false, "type mark", 4, 0, false, false},
                           std::move(sets[name]));
  };
  marks(kServed);
  if (in_.egress) marks(kOwned);
  out_.sets.emplace_back(
      common::SetSpec{kBound, false,
                      std::string("type ") + (v4 ? "ipv4" : "ipv6") + "_addr . classid",
                      v4 ? 8U : 20U, 0, false, false},
      std::move(sets[kBound]));
}

// As the datapaths on nftables have it.
CompanionTable netdev_table(const CompanionInput& in) {
  CompanionTable out;
  common::Ruleset rules(in.plan.node(), in.mtu);
  rules.set_device(in.device);
  rules.set_ingress(in.ingress);
  out.chains = rules.fixed_chains(Table::kNetdev);
  for (common::Chain& c : out.chains) {
    if (c.name != "unwrap") continue;
    // EGW-TUNNEL finds by the mark what it judges, also what comes with an id.
    c.rules = {"meta mark set meta mark & " + mark_text(kIdMask) + " | " +
               mark_text(in.plan.marks().value(Slot::kInner))};
  }
  out.counters = rules.counters(Table::kNetdev);
  for (const auto& [dyn, spec] : rules.sets(Table::kNetdev)) {
    Elements elements;
    if (dyn == common::Dyn::kOwnerMac) {
      ByName sets;
      for (const auto& [id, egress] : in.plan.egresses()) {
        add_egress(Table::kNetdev, id, egress, sets);
      }
      elements = std::move(sets[kOwners]);
    } else {
      for (const auto& [name, peer] : in.plan.peers()) {
        elements.emplace_back(common::register_u32(peer.number), common::register_mac(peer.mac));
      }
    }
    std::sort(elements.begin(), elements.end());
    out.sets.emplace_back(spec, std::move(elements));
  }
  return out;
}

}  // namespace

Chain companion_first_chain() {
  return {"save", Hook{"filter", "prerouting", NF_INET_PRE_ROUTING, kSavePriority, {}}, {}};
}

CompanionTables companion_tables(const CompanionInput& in) {
  CompanionTables out;
  for (const Table t : common::kFamilies) {
    if (in.plan.enabled(t)) out[static_cast<std::size_t>(t)] = Builder(t, in).build();
  }
  if (in.egress) out[static_cast<std::size_t>(Table::kNetdev)] = netdev_table(in);
  return out;
}

std::vector<CompanionChange> companion_changes(const common::Plan& before,
                                               const common::Plan& after, bool egress) {
  std::vector<CompanionChange> out;
  for (const Table t : common::kTables) {
    if (t == Table::kNetdev ? !egress : !after.enabled(t)) continue;
    ByName had, wants;
    common::each_difference(
        before.egresses(), after.egresses(),
        [&](std::uint32_t id, const common::EgressPlan* was, const common::EgressPlan* is) {
          if (was != nullptr) add_egress(t, id, *was, had);
          if (is != nullptr) add_egress(t, id, *is, wants);
        });
    had = sorted(std::move(had));
    wants = sorted(std::move(wants));
    for (const char* name : {kOwners, kSources, kServed, kOwned, kBound}) {
      if (name == kOwned && !egress) continue;
      if (had[name] != wants[name]) out.push_back({t, name, had[name], wants[name]});
    }
  }
  return out;
}

// Each kind of object and expression that the tables are made of. What the raw rules do came to the
// kernel with the shift, or before.
std::string companion_trial(bool egress) {
  std::string out;
  for (const Table t : common::kFamilies) {
    const std::string table = std::string(common::keyword(t)) + " egw-try";
    const std::string address = t == Table::kIp ? "ipv4_addr" : "ipv6_addr";
    out += "add table " + table + "\nadd map " + table + " m { type mark : " + address +
           "; }\nadd set " + table + " s { type " + address + " . classid; }\nadd counter " +
           table + " c\nadd chain " + table +
           " p { type filter hook prerouting priority -90; }\nadd rule " + table +
           " p ct status dnat meta mark set (ct mark & 0xff00) >> 8 | 0x10000\nadd rule " + table +
           " p ct reply " + std::string(common::keyword(t)) +
           " daddr . meta priority @s accept\nadd chain " + table +
           " n { type nat hook postrouting priority 90; }\nadd rule " + table +
           " n snat to meta mark & 0x3fff map @m\nadd rule " + table + " n " + counted("c") + "\n";
  }
  if (egress) {
    const std::string table = "netdev egw-try";
    out += "add table " + table + "\nadd map " + table +
           " m { type mark : ether_addr; }\nadd counter " + table + " c\nadd chain " + table +
           " e { type filter hook egress device \"lo\" priority 0; }\nadd rule " + table +
           " e tcp flags & (syn|rst) == syn meta protocol ip tcp option maxseg size set 1400\n"
           "add rule " +
           table + " e ether daddr set meta mark & 0x3fff map @m\nadd rule " + table + " e " +
           counted("c") + "\n";
  }
  return out;
}

std::vector<std::pair<std::uint32_t, sdk::Address>> sources_in(const Elements& elements) {
  std::vector<std::pair<std::uint32_t, sdk::Address>> out;
  for (const auto& [key, address] : elements) {
    out.emplace_back(number_in(key), common::register_to_address(address));
  }
  return out;
}

std::uint32_t number_in(const std::string& bytes) {
  std::uint32_t out = 0;
  if (bytes.size() == sizeof(out)) std::memcpy(&out, bytes.data(), sizeof(out));
  return out;
}

sdk::Mac mac_in(const std::string& bytes) {
  sdk::Mac out{};
  if (bytes.size() == out.size()) std::copy(bytes.begin(), bytes.end(), out.begin());
  return out;
}

}  // namespace egw::iptables
