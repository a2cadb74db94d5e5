#include "ruleset.hpp"

#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>

namespace egw::netlink {
namespace {

// Before everybody's raw rules (-300), after defragmentation (-400): reverse path checks of others
// there (Calico, firewalld at -140) must see the marks of tunnelled packets.
constexpr std::int32_t kRawPriority = -310;
// Just after destination NAT (-100): judged is where a packet really goes (decisions 9).
constexpr std::int32_t kClassifyPriority = -90;
// Before everybody's source NAT (100): the first binding of a connection wins.
constexpr std::int32_t kNatPriority = 90;
// After the hook in which source NAT happens (100): sees the final source address.
constexpr std::int32_t kLeavePriority = 200;
constexpr std::int32_t kRoutePriority = -150;

std::string address_type(Table t) { return t == Table::kIp ? "ipv4_addr" : "ipv6_addr"; }
std::uint32_t address_length(Table t) { return t == Table::kIp ? 4U : 16U; }
std::string quoted(const std::string& s) { return '"' + s + '"'; }
std::string counted(const std::string& counter, const std::string& verdict) {
  return "counter name " + quoted(counter) + " " + verdict;
}

}  // namespace

std::uint64_t Chain::fingerprint() const {
  std::string all;
  if (hook) {
    all = hook->type + ' ' + hook->hook + ' ' + std::to_string(hook->priority) + ' ' + hook->device;
  }
  for (const std::string& rule : rules) all += '\n' + rule;
  return netlink::fingerprint(all);
}

Ruleset::Ruleset(const sdk::NodeConfig& node, std::uint32_t tunnel_mtu)
    : node_(node), marks_(node.slot_mask, node.ct_mask), mtu_(tunnel_mtu) {}

bool Ruleset::enabled(Table t) const {
  return t == Table::kIp ? node_.enable_ipv4 : t == Table::kIp6 && node_.enable_ipv6;
}
bool Ruleset::carries(Table t) const {
  return t != Table::kNetdev && table_of(node_.underlay) == t;
}

std::string Ruleset::mark_is(Slot s) const {
  return "meta mark & " + mark_text(marks_.slot_mask()) + " == " + mark_text(marks_.value(s));
}

std::string Ruleset::set_mark(std::uint32_t cleared, std::uint32_t value) const {
  std::string out = "meta mark set meta mark & " + mark_text(~cleared);
  if (value != 0) out += " | " + mark_text(value);
  return out;
}

std::vector<Chain> Ruleset::fixed_chains(Table t) const {
  if (t == Table::kNetdev) return device_ ? netdev_chains() : std::vector<Chain>();
  return ip_chains(t);
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
  const std::string f(keyword(t));
  const std::string device = quoted(node_.tunnel_device);
  Chain raw{"raw_in", Hook{"filter", "prerouting", NF_INET_PRE_ROUTING, kRawPriority, {}}, {}};
  raw.rules.push_back("iifname " + device + (enabled(t) ? " goto unwrap" : " drop"));
  if (carries(t)) {
    raw.rules.push_back("udp dport " + std::to_string(node_.tunnel_port) + " goto from_wire");
    // The inner source MAC stands 22 bytes behind the start of the UDP header: 8 UDP, 8 VXLAN, 6
    // destination MAC.
    out.push_back({"from_wire",
                   {},
                   {"iifname != " + quoted(node_.parent_device) + " " + counted("forged", "drop"),
                    f + " daddr != " + node_.underlay.text() + " " + counted("forged", "drop"),
                    f + " saddr . @th,176,48 @outer meta mark set 0 notrack accept",
                    counted("forged", "drop")}});
  }
  out.push_back(std::move(raw));
  if (!enabled(t)) return;

  const std::string inner = "meta mark set " + mark_text(marks_.value(Slot::kInner)) + " accept";
  const std::string id = "meta mark & " + mark_text(kIdMask);
  out.push_back({"unwrap",
                 {},
                 {id + " == 0 " + inner, "ct original zone set " + id + " map @zone " + inner,
                  counted("unknown_id", "drop")}});
  out.push_back({"classify",
                 Hook{"filter", "prerouting", NF_INET_PRE_ROUTING, kClassifyPriority, {}},
                 {"iifname " + device + " goto from_tunnel", "ct direction reply goto to_peer",
                  f + " daddr @eips " + counted("to_eip", "drop"),
                  "meta priority set " + f + " saddr map @src goto judge"}});

  Chain tunnel{"from_tunnel", {}, {}};
  tunnel.rules.push_back("ct direction reply ct state established,related accept");
  tunnel.rules.push_back("ct state invalid,untracked " + counted("invalid", "drop"));
  const sdk::Prefix& own = t == Table::kIp ? node_.tunnel_v4 : node_.tunnel_v6;
  if (own) {
    tunnel.rules.push_back(
        "ct original zone 0 " + f + " daddr " + own.address.text() +
        (t == Table::kIp ? " icmp type echo-request" : " icmpv6 type echo-request") + " accept");
  }
  tunnel.rules.push_back("ct original zone 0 " + counted("without_id", "drop"));
  tunnel.rules.push_back("fib daddr type local " + counted("to_host", "drop"));
  tunnel.rules.push_back("ether saddr vmap @peer");
  tunnel.rules.push_back(counted("forged", "drop"));
  out.push_back(std::move(tunnel));

  std::string number = "ct mark & " + mark_text(marks_.ct_mask());
  if (marks_.ct_shift() != 0) number = "(" + number + ") >> " + std::to_string(marks_.ct_shift());
  out.push_back(
      {"to_peer",
       {},
       {"ct original zone 0 accept", "ct mark & " + mark_text(marks_.ct_mask()) + " == 0 accept",
        "meta mark set " + number + " | " + mark_text(marks_.value(Slot::kBack)) + " accept"}});
  // ICMP errors that this node itself makes for a translated connection (decisions 12).
  out.push_back({"errors",
                 Hook{"route", "output", NF_INET_LOCAL_OUT, kRoutePriority, {}},
                 {"ct direction reply goto to_peer"}});
  add_judgement(t, out);
}

// What happens to packets of endpoints. The number of the endpoint's chain travels from one map to
// the next in the packet's priority, which routing overwrites (IPv4) or we clear: a map of verdicts
// with all endpoints would make the kernel look at every one of them in every transaction.
void Ruleset::add_judgement(Table t, std::vector<Chain>& out) const {
  const std::string f(keyword(t));
  out.push_back({"leave_alone", {}, {"meta priority set 0 accept"}});
  // IPv6: "unicast" would ask for a route to the destination, and a client node may have none.
  const std::string local = t == Table::kIp ? "fib daddr type != unicast" : "fib daddr type local";
  out.push_back({"judge",
                 {},
                 {local + " goto leave_alone", f + " daddr @cluster goto leave_alone",
                  "meta priority vmap @chains", counted("no_egress", "drop")}});
  out.push_back({std::string(kDropChain), {}, {counted("no_egress", "drop")}});
  const sdk::Address& parent = t == Table::kIp ? node_.parent_v4 : node_.parent_v6;
  out.push_back({std::string(kNodeIpChain), {}, node_ip_rules(t, parent)});
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

  out.push_back(
      {"leave",
       Hook{"filter", "postrouting", NF_INET_POST_ROUTING, kLeavePriority, {}},
       {"meta mark & " + mark_text(slot) + " == 0 accept",
        mark_is(Slot::kSteer) + " goto leave_steered", mark_is(Slot::kBack) + " goto leave_tunnel",
        mark_is(Slot::kInner) + " goto leave_inner", mark_is(Slot::kOwn) + " goto leave_own"}});
  // The owner would translate a translated packet to another port: the connection's end.
  out.push_back({"leave_steered",
                 {},
                 {"ct status snat " + counted("other_source", "drop"), "goto leave_tunnel"}});
  out.push_back(
      {"leave_tunnel", {}, {"oifname " + device + " accept", counted("not_by_tunnel", "drop")}});
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

std::vector<Chain> Ruleset::netdev_chains() const {
  const std::string id = "meta mark & " + mark_text(kIdMask);
  Chain into{"into_tunnel",
             Hook{"filter", "egress", NF_NETDEV_EGRESS, 0, node_.tunnel_device},
             {"meta protocol ip tcp flags & (syn|rst) == syn tcp option maxseg size set " +
                  std::to_string(mtu_ - 40),
              "meta protocol ip6 tcp flags & (syn|rst) == syn tcp option maxseg size set " +
                  std::to_string(mtu_ - 60),
              mark_is(Slot::kSteer) + " goto to_owner", mark_is(Slot::kBack) + " goto to_client"}};
  if (node_.tunnel_v4) {
    into.rules.push_back("ip saddr " + node_.tunnel_v4.address.text() + " meta mark set 0 accept");
  }
  if (node_.tunnel_v6) {
    into.rules.push_back("ip6 saddr " + node_.tunnel_v6.address.text() + " meta mark set 0 accept");
  }
  into.rules.push_back(counted("not_steered", "drop"));
  std::vector<Chain> out;
  out.push_back(std::move(into));
  out.push_back({"to_owner",
                 {},
                 {"ether daddr set " + id + " map @owner meta mark set " + id + " | " +
                      mark_text(marks_.value(Slot::kOuter)) + " accept",
                  counted("no_owner", "drop")}});
  out.push_back({"to_client",
                 {},
                 {"ether daddr set " + id + " map @back meta mark set 0 accept",
                  counted("no_peer", "drop")}});
  return out;
}

// A connection keeps its translation until its entry is deleted (flows.hpp). Until then it goes on
// by the way that fits the translation: by the tunnel with the pod's address, else from here with
// the EIP. So nothing is lost, and nothing enters the tunnel under an EIP, when an EIP moves.
Chain Ruleset::egress_chain(Table t, std::uint32_t id, Mode mode,
                            const sdk::Address& served) const {
  Chain out{"e" + std::to_string(id), {}, {}};
  const std::uint32_t slot = marks_.slot_mask();
  const std::uint32_t own = marks_.value(Slot::kOwn);
  const std::string steer = "meta priority set 0 " +
                            set_mark(slot | kIdMask, marks_.value(Slot::kSteer) | id) + " accept";
  if (mode != Mode::kDrop && served) {
    // The id is needed for the first packet only; foreign bits of the others stay.
    out.rules.push_back("ct status confirmed ct reply " + std::string(keyword(t)) + " daddr " +
                        served.text() + " meta priority set 0 " + set_mark(slot, own) + " accept");
  }
  switch (mode) {
    case Mode::kSteer:
      out.rules.push_back(steer);
      break;
    case Mode::kOwn:
      // Bound to another source before its policy: dropped until its entry is gone.
      out.rules.push_back("ct status snat " + counted("other_source", "drop"));
      out.rules.push_back("ct status confirmed " + steer);
      out.rules.push_back("meta priority set 0 " + set_mark(slot | kIdMask, own | id) + " accept");
      break;
    case Mode::kDrop:
      out.rules.push_back(counted("no_egress", "drop"));
      break;
  }
  return out;
}

Chain Ruleset::peer_chain(std::uint32_t number) const {
  const std::uint32_t mask = marks_.ct_mask();
  return {"p" + std::to_string(number),
          {},
          {"ct mark set ct mark & " + mark_text(~mask) + " | " +
           mark_text(number << marks_.ct_shift()) + " accept"}};
}

Chain Ruleset::class_chain(Table t, const std::string& name) const {
  // What no prefix covers is left alone.
  return {name,
          {},
          {"meta priority set 0 " + std::string(keyword(t)) + " daddr vmap @d" + name.substr(1)}};
}

SetSpec Ruleset::class_map(Table t, const std::string& class_name) {
  return {"d" + class_name.substr(1),
          true,
          "type " + address_type(t) + " : verdict; flags interval",
          address_length(t),
          0,
          true,
          true};
}

SetSpec Ruleset::cluster_set(Table t) {
  return {std::string(kClusterSet),
          false,
          "type " + address_type(t) + "; flags interval",
          address_length(t),
          0,
          false,
          true};
}

std::vector<std::pair<Dyn, SetSpec>> Ruleset::sets(Table t) const {
  std::vector<std::pair<Dyn, SetSpec>> out;
  if (t == Table::kNetdev) {
    out.push_back({Dyn::kOwnerMac, {"owner", true, "type mark : ether_addr", 4, 6, false, false}});
    out.push_back({Dyn::kBackMac, {"back", true, "type mark : ether_addr", 4, 6, false, false}});
    return out;
  }
  const std::string f(keyword(t));
  const std::string address = address_type(t);
  const std::uint32_t n = address_length(t);
  if (carries(t)) {
    out.push_back(
        {Dyn::kOuter,
         {"outer", false, "typeof " + f + " saddr . @th,176,48", n + 8, 0, false, false}});
  }
  if (!enabled(t)) return out;
  out.push_back(
      {Dyn::kSource, {"src", true, "type " + address + " : classid", n, 4, false, false}});
  out.push_back({Dyn::kJudge, {"chains", true, "type classid : verdict", 4, 0, true, false}});
  out.push_back({Dyn::kGuarded, {"eips", false, "type " + address, n, 0, false, false}});
  out.push_back({Dyn::kOwn, {"own", false, "type " + address, n, 0, false, false}});
  out.push_back({Dyn::kIdNat, {"idnat", true, "type mark : " + address, 4, n, false, false}});
  out.push_back(
      {Dyn::kZoneNat,
       {"zonenat", true, "typeof ct original zone : " + f + " saddr", 2, n, false, false}});
  out.push_back(
      {Dyn::kZone, {"zone", true, "typeof meta mark : ct original zone", 4, 2, false, false}});
  out.push_back({Dyn::kPeer, {"peer", true, "type ether_addr : verdict", 6, 0, true, false}});
  return out;
}

std::vector<std::string> Ruleset::counters(Table t) {
  if (t == Table::kNetdev) return {"not_steered", "no_owner", "no_peer"};
  return {"forged",    "unknown_id", "to_eip",        "invalid",        "without_id",  "to_host",
          "no_egress", "no_address", "not_by_tunnel", "not_translated", "other_source"};
}

std::vector<sdk::Prefix> Ruleset::never_steered(Table t) {
  const std::vector<std::string> text =
      t == Table::kIp ? std::vector<std::string>{"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16",
                                                 "224.0.0.0/4", "255.255.255.255"}
                      : std::vector<std::string>{"::/127", "fe80::/10", "ff00::/8"};
  std::vector<sdk::Prefix> out;
  for (const std::string& p : text) out.push_back(*sdk::Prefix::parse(p));
  return out;
}

}  // namespace egw::netlink
