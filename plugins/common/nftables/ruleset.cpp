#include "ruleset.hpp"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4.h>

#include <bit>

#include "expressions.hpp"
#include "text.hpp"

namespace egw::common {
namespace {

// Before everybody's raw rules (-300), after defragmentation (-400): reverse path checks of others
// there (Calico, firewalld at -140) must see the marks of tunnelled packets.
constexpr std::int32_t kRawPriority = -310;
// Just after destination NAT (-100): judged is where a packet really goes.
constexpr std::int32_t kClassifyPriority = -90;
// Before everybody's source NAT (100): the first binding of a connection wins.
constexpr std::int32_t kNatPriority = 90;
// After the hook in which source NAT happens (100): sees the final source address.
constexpr std::int32_t kLeavePriority = 200;
constexpr std::int32_t kRoutePriority = -150;

}  // namespace

std::uint64_t Chain::fingerprint() const {
  std::string all;
  if (hook) {
    all = hook->type + ' ' + hook->hook + ' ' + std::to_string(hook->priority) + ' ' + hook->device;
  }
  for (const std::string& rule : rules) all += '\n' + rule;
  all += raw;
  return common::fingerprint(all);
}

Ruleset::Ruleset(const sdk::NodeConfig& node, std::uint32_t tunnel_mtu, bool programs)
    : node_(node), marks_(node.slot_mask, node.ct_mask), mtu_(tunnel_mtu), programs_(programs) {}

std::string Ruleset::mark_is(Slot s) const {
  return "meta mark & " + mark_text(marks_.slot_mask()) + " == " + mark_text(marks_.value(s));
}

std::string Ruleset::to_eip(Table t) {
  return std::string(keyword(t)) + " daddr @eips " + counted("to_eip", "drop");
}

std::string Ruleset::set_mark(std::uint32_t cleared, std::uint32_t value) const {
  std::string out = "meta mark set meta mark & " + mark_text(~cleared);
  if (value != 0) out += " | " + mark_text(value);
  return out;
}

std::vector<Chain> Ruleset::fixed_chains(Table t) const {
  if (t != Table::kNetdev) return ip_chains(t);
  std::vector<Chain> out;
  if (device_ && !programs_) add_tunnel_egress(out);
  if (ingress()) add_ingress(out);
  return out;
}

std::string Ruleset::set_inner() const {
  return "meta mark set " + mark_text(marks_.value(Slot::kInner));
}

std::string Ruleset::to_tunnel_port() const {
  // Most packets have another number there: it is compared before the protocol.
  return "@th,16,16 " + std::to_string(node_.tunnel_port) + " meta l4proto udp goto from_wire";
}

std::vector<Chain> Ruleset::ip_chains(Table t) const {
  std::vector<Chain> out;
  add_prerouting(t, out);
  if (enabled(t)) add_postrouting(t, out);
  if (carries(t)) {
    const std::string f(keyword(t));
    // The outer packet: its mark, the id, is nobody else's business.
    out.push_back({"raw_out",
                   Hook{"filter", "output", NF_INET_LOCAL_OUT, kRawPriority, {}},
                   {f + " saddr " + node_.underlay.text() + " udp dport " +
                    std::to_string(node_.tunnel_port) + " meta mark set 0 notrack"}});
  }
  return out;
}

void Ruleset::add_prerouting(Table t, std::vector<Chain>& out) const {
  add_raw(t, out);
  if (!enabled(t)) return;
  out.push_back(classify(t));
  if (programs_) add_marked(out);
  add_from_tunnel(t, out);
  add_to_peer(out);
  add_judgement(t, out);
}

// The tunnel's packets on the wire, and what comes out of the device.
void Ruleset::add_raw(Table t, std::vector<Chain>& out) const {
  const std::string f(keyword(t));
  const bool raw_in = !ingress() || !enabled(t);
  const std::string inner = set_inner() + " accept";
  const std::string id = "meta mark & " + mark_text(kIdMask);
  if (enabled(t) && raw_in) {
    out.push_back({"unwrap",
                   {},
                   {"ct original zone set " + id + " map @zone " + inner, id + " == 0 " + inner,
                    counted("unknown_id", "drop")}});
  }
  Chain raw{"raw_in", Hook{"filter", "prerouting", NF_INET_PRE_ROUTING, kRawPriority, {}}, {}};
  raw.rules.push_back(enabled(t) ? "iifgroup " + mark_text(kTunnelGroup) + " goto unwrap"
                                 : "iifname " + quoted(node_.tunnel_device) + " " +
                                       counted("family", "drop"));
  if (carries(t)) {
    raw.rules.push_back(to_tunnel_port());
    // The inner source MAC stands 22 bytes behind the start of the UDP header: 8 UDP, 8 VXLAN, 6
    // destination MAC.
    out.push_back({"from_wire",
                   {},
                   {"iifname != " + quoted(node_.parent_device) + " " + counted("forged", "drop"),
                    f + " daddr != " + node_.underlay.text() + " " + counted("forged", "drop"),
                    f + " saddr . @th,176,48 @outer meta mark set 0 notrack accept",
                    counted("forged", "drop")}});
  }
  if (raw_in) out.push_back(std::move(raw));
}

void Ruleset::add_from_tunnel(Table t, std::vector<Chain>& out) const {
  const std::string f(keyword(t));
  Chain tunnel{"from_tunnel", {}, {}};
  if (ingress()) {
    // Nobody has unwrapped it in time: the device is new, or somebody has written over the mark.
    out.push_back({"unwrap_late",
                   {},
                   {"meta mark & " + mark_text(kIdMask) + " != 0 " + counted("unknown_id", "drop"),
                    set_inner()}});
    tunnel.rules.push_back("meta mark & " + mark_text(marks_.slot_mask()) +
                           " != " + mark_text(marks_.value(Slot::kInner)) + " jump unwrap_late");
  }
  tunnel.rules.push_back("ct direction reply ct state established,related accept");
  // All but the first packet of a connection that still comes from the same peer.
  tunnel.rules.push_back("ct state established ether saddr . ( ct mark & " +
                         mark_text(marks_.ct_mask()) + " ) @known accept");
  tunnel.rules.push_back("ct state invalid,untracked " + counted("invalid", "drop"));
  const sdk::Prefix& own = t == Table::kIp ? node_.tunnel_v4 : node_.tunnel_v6;
  if (own) {
    tunnel.rules.push_back(
        "ct original zone 0 " + f + " daddr " + own.address.text() +
        (t == Table::kIp ? " icmp type echo-request" : " icmpv6 type echo-request") + " accept");
  }
  tunnel.rules.push_back("ct original zone 0 " + counted("without_id", "drop"));
  tunnel.rules.push_back("fib daddr type local " + counted("to_host", "drop"));
  tunnel.rules.push_back("jump note_peer");
  tunnel.rules.push_back(counted("forged", "drop"));
  out.push_back(std::move(tunnel));
  out.push_back(note_peer());
}

// Answers to peers.
void Ruleset::add_to_peer(std::vector<Chain>& out) const {
  std::string number = "ct mark & " + mark_text(marks_.ct_mask());
  if (marks_.ct_shift() != 0) number = "(" + number + ") >> " + std::to_string(marks_.ct_shift());
  const std::string no_peer = programs_ ? "goto answer" : "accept";
  const std::string mine = "ct mark & " + mark_text(marks_.ct_mask()) + " == ";
  out.push_back(
      {"to_peer",
       {},
       {"ct original zone 0 " + no_peer, mine + "0 " + no_peer,
        // Of a pod of this node (judge).
        mine + mark_text(marks_.ct_mask()) + " " + no_peer,
        "meta mark set " + number + " | " + mark_text(marks_.value(Slot::kBack)) + " accept"}});
  // ICMP errors that this node itself makes for a translated connection.
  if (serves_) {
    out.push_back({"errors",
                   Hook{"route", "output", NF_INET_LOCAL_OUT, kRoutePriority, {}},
                   {"ct direction reply goto to_peer"}});
  }
}

Chain Ruleset::classify(Table t) const {
  const std::string f(keyword(t));
  Chain out{"classify",
            Hook{"filter", "prerouting", NF_INET_PRE_ROUTING, kClassifyPriority, {}},
            {"iifgroup " + mark_text(kTunnelGroup) + " goto from_tunnel"}};
  if (ingress() && carries(t)) out.rules.push_back(to_tunnel_port());
  out.rules.emplace_back("ct direction reply goto to_peer");
  // The tunnel's outer packets, and what else is for this node: judged by nobody below.
  const std::string here = f + " daddr " + node_.underlay.text() + " accept";
  // Somebody has taken the tunnel device out of its group: nothing may leave here untranslated.
  const std::string no_group =
      "iifname " + quoted(node_.tunnel_device) + " " + counted("forged", "drop");
  if (!programs_) {
    if (carries(t) && !ingress()) out.rules.push_back(here);
    out.rules.push_back("meta priority set " + f + " saddr map @endpoints goto judge");
    if (serves_) {
      out.rules.push_back(to_eip(t));
      out.rules.push_back(no_group);
    }
    return out;
  }
  if (serves_) {
    if (carries(t)) out.rules.push_back(here);
    out.rules.push_back(to_eip(t));
    out.rules.push_back(no_group);
  }
  out.rules.push_back("meta mark & " + mark_text(marks_.slot_mask()) + " == 0 accept");
  // Looked at before (judge), neither DNAT nor a translation of its own, no mark bits of others:
  // where the program has seen it go it goes.
  const std::string seen = mark_text(marks_.ct_mask());
  out.rules.push_back("meta mark " + mark_text(marks_.value(Slot::kEarly)) + " ct mark & " + seen +
                      " == " + seen + " ct status & (snat | dnat) == 0 goto early");
  out.rules.emplace_back("goto unpack");
  return out;
}

// What programs have left on packets of endpoints.
void Ruleset::add_marked(std::vector<Chain>& out) const {
  const std::string cleared = set_mark(marks_.slot_mask(), 0);
  Expressions id;
  id.load_meta(NFT_META_PRIORITY, 0).shift_right(0, 0, kEarlyShift);
  Expressions early = id;
  early.mask(0, 0, kIdMask, marks_.value(Slot::kSteer)).store_meta(NFT_META_MARK, 0);
  early.constant(0, 0).store_meta(NFT_META_PRIORITY, 0).accept();
  out.push_back({"early", {}, {}, early.bytes()});
  out.push_back({"early_id", {}, {}, id.store_meta(NFT_META_PRIORITY, 0).bytes()});
  const std::string own_number = "meta priority & " + mark_text(kMaxClass);
  // The number, as netlink's map of endpoints gives it.
  out.push_back({std::string(kUnpackChain),
                 {},
                 {mark_is(Slot::kLate) + " " + cleared + " goto judge",
                  mark_is(Slot::kEarly) + " " + cleared + " goto unpack_early",
                  counted("no_egress", "drop")}});
  out.push_back({"unpack_early",
                 {},
                 {own_number + " == 0 goto unpack_id",
                  "meta priority set " + own_number + " map @numbers goto judge",
                  counted("no_egress", "drop")}});
  out.push_back({"unpack_id", {}, {"jump early_id", "goto judge"}});
  // Answers of pods to connections from outside: what the program has put on them goes.
  out.push_back({"answer", {}, {"meta priority set 0 " + cleared + " accept"}});
}

// What happens to packets of endpoints. A number travels from one map to the next in the packet's
// priority, which routing overwrites (IPv4) or we clear: in maps of verdicts, or in chains per
// policy, the kernel would look at every single one in every transaction.
void Ruleset::add_judgement(Table t, std::vector<Chain>& out) const {
  const std::string f(keyword(t));
  out.push_back({"leave_alone", {}, {"meta priority set 0 accept"}});
  // IPv6: "unicast" would ask for a route to the destination, and a client node may have none.
  const std::string local = t == Table::kIp ? "fib daddr type != unicast" : "fib daddr type local";
  // Where a connection goes to does not change: it is looked at once. A packet without connection
  // is looked at each time, because the first rule does not match it.
  const std::string seen = mark_text(marks_.ct_mask());
  Chain judge{"judge", {}, {"ct mark & " + seen + " == " + seen + " goto judged"}};
  if (serves_) judge.rules.push_back(to_eip(t));
  for (const std::string& rule :
       {local + " goto leave_alone", f + " daddr @cluster goto leave_alone",
        "ct mark set ct mark | " + seen, std::string("goto judged")}) {
    judge.rules.push_back(rule);
  }
  out.push_back(std::move(judge));
  out.push_back({"judged",
                 {},
                 {"meta priority & " + mark_text(kShapeMask) + " vmap @shapes", "goto egress"}});
  add_egress(t, out);
  const sdk::Address& parent = t == Table::kIp ? node_.parent_v4 : node_.parent_v6;
  out.push_back({std::string(kNodeIpName), {}, node_ip_rules(t, parent)});
}

// A connection keeps its translation until its entry is deleted (flows.hpp). Until then it goes on
// by the way that fits the translation: by the tunnel with the pod's address, else from here with
// the EIP. So nothing is lost, and nothing enters the tunnel under an EIP, when an EIP moves.
void Ruleset::add_egress(Table t, std::vector<Chain>& out) const {
  const std::string f(keyword(t));
  const auto special = [](std::uint32_t number, const std::string& chain) {
    return mark_text(number) + " : goto " + chain;
  };
  // The program at the tunnel device knows which ids go by it, and drops the others: nearly all are
  // such, and need no element here.
  const std::string steered = programs_ ? "meta priority & " + mark_text(~kIdMask) + " == 0"
                                        : std::string("meta priority @steered");
  Chain egress{
      "egress",
      {},
      {// The id is needed for the first packet only; foreign bits of the others stay.
       "ct status snat ct reply " + f + " daddr . meta priority @served " + "meta priority set 0 " +
           set_mark(marks_.slot_mask(), marks_.value(Slot::kOwn)) + " accept",
       "meta priority @owned goto own", steered + " goto steer",
       "meta priority vmap { " + special(kBypassNumber, "leave_alone") + ", " +
           special(kNodeIpNumber, std::string(kNodeIpName)) + " }",
       counted("no_egress", "drop")}};
  if (programs_) {
    egress.rules.insert(egress.rules.begin() + 1,
                        "meta priority @dropped " + counted("no_egress", "drop"));
  } else {
    std::swap(egress.rules[1], egress.rules[2]);  // the commonest first
  }
  out.push_back(std::move(egress));
  out.push_back({"own",
                 {},
                 {// Bound to another source before its policy: dropped until its entry is gone.
                  "ct status snat " + counted("other_source", "drop"),
                  "ct status confirmed goto steer", "goto own_first"}});
  out.push_back(with_id("steer", Slot::kSteer));
  out.push_back(with_id("own_first", Slot::kOwn));
}

// The id goes from the priority into the mark.
Chain Ruleset::with_id(const std::string& name, Slot slot) const {
  Expressions e;
  e.load_meta(NFT_META_MARK, 0).load_meta(NFT_META_PRIORITY, 1);
  e.insert(0, 1, {0, static_cast<unsigned>(std::popcount(kIdMask))}, 2);
  e.mask(2, 2, ~marks_.slot_mask(), marks_.value(slot)).store_meta(NFT_META_MARK, 2);
  e.constant(0, 0).store_meta(NFT_META_PRIORITY, 0).accept();
  return {name, {}, {}, e.bytes()};
}

// Ends without a verdict when the MAC is no peer's.
Chain Ruleset::note_peer() const {
  constexpr std::uint32_t kSourceMac = 6;
  Expressions e;
  e.load_link_layer(kSourceMac, 6, 0).look_up("peers", 0, 2).load_ct(NFT_CT_MARK, 3);
  const unsigned width = static_cast<unsigned>(std::popcount(marks_.ct_mask()));
  e.insert(3, 2, {marks_.ct_shift(), width}, 4).store_ct(NFT_CT_MARK, 4).accept();
  return {"note_peer", {}, {}, e.bytes()};
}

std::vector<std::string> Ruleset::node_ip_rules(Table t, const sdk::Address& address) const {
  if (!address) return {counted("no_address", "drop")};
  const std::uint32_t slot = marks_.slot_mask();
  const std::uint32_t own = marks_.value(Slot::kOwn);
  return {// Bound to another source before its policy: dropped until its entry is gone.
          "ct status snat ct reply " + std::string(keyword(t)) + " daddr != " + address.text() +
              " " + counted("other_source", "drop"),
          // The id is needed for the first packet only; foreign bits of the others stay.
          "ct state established,related meta priority set 0 " + set_mark(slot, own) + " accept",
          "meta priority set 0 " + set_mark(slot | kIdMask, own) + " accept"};
}

void Ruleset::add_postrouting(Table t, std::vector<Chain>& out) const {
  const std::string f(keyword(t));
  const std::string device = quoted(node_.tunnel_device);
  const std::uint32_t slot = marks_.slot_mask();
  out.push_back({"translate",
                 Hook{"nat", "postrouting", NF_INET_POST_ROUTING, kNatPriority, {}},
                 // Binding a connection to itself keeps later masquerade rules off it.
                 {"oifname " + device + " snat to " + f + " saddr",
                  mark_is(Slot::kOwn) + " goto translate_own",
                  mark_is(Slot::kInner) + " goto translate_inner"}});
  Chain own{"translate_own", {}, {}};
  const sdk::Address& parent = t == Table::kIp ? node_.parent_v4 : node_.parent_v6;
  const std::string id = "meta mark & " + mark_text(kIdMask);
  if (parent) own.rules.push_back(id + " == 0 snat to " + parent.text());
  own.rules.push_back("snat to " + id + " map @idnat");
  own.rules.push_back(counted("no_address", "drop"));
  out.push_back(std::move(own));
  out.push_back({"translate_inner",
                 {},
                 {"snat to ct original zone map @zonenat", counted("no_address", "drop")}});

  const auto leads = [this](Slot s, const std::string& chain) {
    return mark_text(marks_.value(s)) + " : goto " + chain;
  };
  out.push_back(
      {"leave",
       Hook{"filter", "postrouting", NF_INET_POST_ROUTING, kLeavePriority, {}},
       // The commonest by comparison, which is cheaper than a look-up.
       {"meta mark & " + mark_text(slot) + " == 0 accept",
        mark_is(Slot::kSteer) + " goto leave_steered", mark_is(Slot::kInner) + " goto leave_inner",
        "meta mark & " + mark_text(slot) + " vmap { " + leads(Slot::kBack, "leave_tunnel") + ", " +
            leads(Slot::kOwn, "leave_own") + " }"}});
  // The owner would translate a translated packet to another port: the connection's end.
  out.push_back({"leave_steered",
                 {},
                 {"ct status snat " + counted("other_source", "drop"), "goto leave_tunnel"}});
  out.push_back(
      {"leave_tunnel",
       {},
       {"oifgroup " + mark_text(kTunnelGroup) + " accept", counted("not_by_tunnel", "drop")}});
  out.push_back(
      {"leave_inner",
       {},
       {"ct direction original " + f + " saddr != @own " + counted("not_translated", "drop"),
        set_mark(slot, 0)}});
  out.push_back({"leave_own",
                 {},
                 {f + " saddr != @own " + counted("not_translated", "drop"),
                  "ct state new " + set_mark(slot | kIdMask, 0) + " accept", set_mark(slot, 0)}});
}

Chain Ruleset::lengths_chain(Table t, const std::string& name, const Lengths& lengths) const {
  const std::string f(keyword(t));
  Chain out{name, {}, {}};
  for (const std::uint8_t length : lengths) {
    const SetSpec map = prefix_map(t, length);
    sdk::Address ones;
    ones.family = t == Table::kIp ? 4 : 6;
    ones.bytes.fill(0xff);
    const std::string mask = sdk::Prefix(ones, length).first().text();
    std::string key = "meta priority";
    if (length == ones.bits()) key += " . " + f + " daddr";
    if (length != 0 && length != ones.bits()) key += " . ( " + f + " daddr & " + mask + " )";
    out.rules.push_back("meta priority set " + key + " map @" + map.name + " goto egress");
  }
  // What no prefix covers is left alone. But the number that a program has given may be that of a
  // class that has gone since: nobody knows what it covered.
  if (programs_) {
    out.rules.push_back("meta priority set meta priority & " + mark_text(kMaxClass) +
                        " map @numbers goto leave_alone");
    out.rules.push_back(counted("no_egress", "drop"));
  } else {
    out.rules.emplace_back("goto leave_alone");
  }
  return out;
}

std::vector<std::string> Ruleset::counters(Table t) const {
  if (t == Table::kNetdev && programs_) return {};
  if (t == Table::kNetdev) return {"not_steered", "no_owner", "no_peer"};
  return {"forged",    "unknown_id", "to_eip",        "invalid",        "without_id",   "to_host",
          "no_egress", "no_address", "not_by_tunnel", "not_translated", "other_source", "family"};
}

}  // namespace egw::common
