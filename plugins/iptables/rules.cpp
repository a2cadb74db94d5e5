#include "rules.hpp"

#include <algorithm>
#include <map>

namespace egw::iptables {
namespace {

constexpr std::uint32_t kAll = 0xffffffff;
// No program listens there; without a listener the kernel drops. (The nat table takes no DROP.)
constexpr const char* kDropInNat = "-j NFQUEUE --queue-num 65535";

std::string hex(std::uint32_t v) { return common::mark_text(v); }

std::string reason(const std::string& name) { return "-m comment --comment egw-" + name + " "; }
std::string drop(const std::string& match, const std::string& name) {
  return match + (match.empty() ? "" : " ") + reason(name) + "-j DROP";
}

std::string connection(const std::string& what) { return "-m conntrack " + what; }
const std::string kConfirmed = connection("--ctstatus CONFIRMED");
const std::string kFirst = connection("! --ctstatus CONFIRMED");
const std::string kTranslated = connection("--ctstate SNAT");

class Builder {
 public:
  Builder(Table t, const RuleInput& in)
      : t_(t), in_(in), marks_(in.node.slot_mask, in.node.ct_mask) {}

  FamilyRules build() {
    raw();
    if (!common::enables(in_.node, t_)) return std::move(out_);
    prerouting();
    judgement();
    classes();
    from_tunnel();
    to_peer();
    postrouting();
    nat();
    return std::move(out_);
  }

 private:
  XtRules& table(Xt x) { return out_[static_cast<std::size_t>(x)]; }
  std::vector<std::string>& chain(Xt x, const std::string& name) {
    return table(x).chains[std::string(kChainPrefix) + name];
  }
  void jump(Xt x, const std::string& builtin, const std::string& rule, bool last = false,
            bool again = false) {
    table(x).jumps.push_back({builtin, rule, last, again});
  }
  static std::string to(const std::string& name) {
    return "-j " + std::string(kChainPrefix) + name;
  }
  static std::string go(const std::string& name) {
    return "-g " + std::string(kChainPrefix) + name;
  }
  [[nodiscard]] std::uint32_t slot() const { return marks_.slot_mask(); }
  [[nodiscard]] std::string is(std::uint32_t value) const {
    return "-m mark --mark " + hex(value) + "/" + hex(slot());
  }
  [[nodiscard]] std::string is(Slot s) const { return is(marks_.value(s)); }
  [[nodiscard]] std::string is(Kind k) const { return is(value(marks_, k)); }
  [[nodiscard]] std::string is_not(std::uint32_t value) const {
    return "-m mark ! --mark " + hex(value) + "/" + hex(slot());
  }
  // The slot's value and an id, or a number, of zero.
  [[nodiscard]] std::string is_bare(std::uint32_t value) const {
    return "-m mark --mark " + hex(value) + "/" + hex(slot() | kIdMask);
  }
  static std::string set(std::uint32_t value, std::uint32_t mask) {
    return "-j MARK --set-xmark " + hex(value) + "/" + hex(mask);
  }
  [[nodiscard]] std::string peer_is(std::uint32_t value) const {
    return "-m connmark --mark " + hex(value) + "/" + hex(marks_.ct_mask());
  }
  [[nodiscard]] std::string peer_set(std::uint32_t value) const {
    return "-j CONNMARK --set-xmark " + hex(value) + "/" + hex(marks_.ct_mask());
  }
  // All bits: no peer's number, but a connection of a pod whose destination has been looked at.
  [[nodiscard]] std::uint32_t seen() const { return marks_.ct_mask(); }
  [[nodiscard]] std::string in_set(const std::string& what, const std::string& side) const {
    return "-m set --match-set " + set_name(t_, what) + " " + side;
  }
  [[nodiscard]] std::string map(const std::string& what, const std::string& side) const {
    return "-j SET --map-set " + set_name(t_, what) + " " + side + " --map-mark";
  }
  [[nodiscard]] bool ids_beside() const { return in_.companion && in_.serves; }
  [[nodiscard]] std::string device() const { return in_.node.tunnel_device; }
  [[nodiscard]] std::string port() const { return std::to_string(in_.node.tunnel_port); }
  [[nodiscard]] const sdk::Address& parent() const {
    return t_ == Table::kIp ? in_.node.parent_v4 : in_.node.parent_v6;
  }
  [[nodiscard]] const sdk::Prefix& tunnel_address() const {
    return t_ == Table::kIp ? in_.node.tunnel_v4 : in_.node.tunnel_v6;
  }

  void raw();
  void from_wire();
  void prerouting();
  void before_judgement();
  void judgement();
  void classes();
  void class_group(std::uint32_t group);
  void from_tunnel();
  void note_peer();
  void served();
  void to_peer();
  void postrouting();
  void leave();
  void nat();
  void translate();

  Table t_;
  const RuleInput& in_;
  Marks marks_;
  FamilyRules out_;
};

// The tunnel's packets on the wire, and what comes out of the device.
void Builder::raw() {
  const bool enabled = common::enables(in_.node, t_);
  const bool carries = common::carries(in_.node, t_);
  if (in_.ingress && enabled) return;
  // Every packet of the node comes by here: no chain is entered that has nothing to do.
  jump(Xt::kRaw, "PREROUTING", "-i " + device() + " " + to("UNWRAP"));
  if (carries) {
    jump(Xt::kRaw, "PREROUTING", "-p udp -m udp --dport " + port() + " " + to("WIRE"));
    from_wire();
    const std::string udp = "-p udp -s " + in_.node.underlay.text() + " -m udp --dport " + port();
    jump(Xt::kRaw, "OUTPUT", udp + " " + to("RAW-OUT"));
    // The outer packet's mark is the id; it is nobody else's business.
    chain(Xt::kRaw, "RAW-OUT") = {set(0, kAll), "-j CT --notrack"};
  }
  if (!enabled) {
    chain(Xt::kRaw, "UNWRAP") = {drop("", "family")};
    return;
  }
  const std::uint32_t inner = marks_.value(Slot::kInner);
  chain(Xt::kRaw, "UNWRAP") = {"-m mark --mark 0x00000000/" + hex(kIdMask) + " " + go("UNWRAP0"),
                               // What is above the id came with the frame, not from this host.
                               set(inner, ~kIdMask), "-j CT --zone-orig mark"};
  chain(Xt::kRaw, "UNWRAP0") = {set(inner, kAll)};
}

// Whether outer source and inner source MAC are those of one peer. The MAC stands 22 bytes behind
// the start of the UDP header: 8 UDP, 8 VXLAN, 6 destination MAC; u32 compares four bytes at a
// time.
void Builder::from_wire() {
  std::vector<RadixLeaf> leaves;
  for (const common::PeerPlan& p : in_.peers) {
    const auto word = [&](std::size_t i) {
      return hex(static_cast<std::uint32_t>(p.mac[i]) << 24 |
                 static_cast<std::uint32_t>(p.mac[i + 1]) << 16 |
                 static_cast<std::uint32_t>(p.mac[i + 2]) << 8 | p.mac[i + 3]);
    };
    // IPv4: behind the header's own length; IPv6: behind 40 bytes, if UDP follows at once.
    const std::string at = t_ == Table::kIp ? "0>>22&0x3C@22=" : "4&0xFF00=0x1100&&62=";
    const std::string then = t_ == Table::kIp ? "0>>22&0x3C@24=" : "64=";
    leaves.push_back(
        {std::string(reinterpret_cast<const char*>(p.underlay.bytes.data()), p.underlay.size()),
         p.underlay.bits(),
         "-s " + p.underlay.text() + " -m u32 --u32 \"" + at + word(0) + "&&" + then + word(2) +
             "\" " + go("WIRE-OK")});
  }
  std::sort(leaves.begin(), leaves.end(),
            [](const auto& a, const auto& b) { return a.key < b.key; });
  auto& wire = chain(Xt::kRaw, "WIRE");
  wire.push_back("! -i " + in_.node.parent_device + " " + go("WIRE-ELSE"));
  // What has come out of the tunnel has been looked at in its outer packet.
  chain(Xt::kRaw, "WIRE-ELSE") = {"-i " + device() + " -j RETURN", drop("", "forged")};
  wire.push_back(drop("! -d " + in_.node.underlay.text(), "forged"));
  wire.push_back(go("WIRE-FROM"));
  const RadixShape shape{[this](const std::string& key, unsigned length) {
                           sdk::Address a;
                           a.family = t_ == Table::kIp ? 4 : 6;
                           std::copy(key.begin(), key.end(), a.bytes.begin());
                           const sdk::Prefix p(a, length);
                           return "-s " + p.first().text() + "/" + std::to_string(length);
                         },
                         "-g",
                         {drop("", "forged")}};
  add_radix(std::string(kChainPrefix) + "WIRE-FROM", leaves, shape, table(Xt::kRaw).chains);
  chain(Xt::kRaw, "WIRE-OK") = {set(0, kAll), "-j CT --notrack"};
}

// All that a packet without policy meets.
void Builder::prerouting() {
  if (in_.ingress) {
    // In line, since a chain that every packet enters costs as much as what it asks; and by the
    // mark, since reading an interface's name does.
    jump(Xt::kMangle, "PREROUTING", is(Slot::kInner) + " " + to("TUNNEL"));
    jump(Xt::kMangle, "PREROUTING",
         is_not(marks_.value(Slot::kInner)) + " " + in_set("pods", "src") + " " + to("JUDGE"));
  } else {
    jump(Xt::kMangle, "PREROUTING", to("PRE"));
    before_judgement();
  }
  // Others behind us may have written over the id.
  const std::string not_inner = " ! -i " + device() + " ";
  if (!in_.companion) {
    jump(Xt::kMangle, "PREROUTING", is(Slot::kSteer) + not_inner + to("ACT"), true, true);
  }
  jump(Xt::kMangle, "PREROUTING", is(Kind::kPending) + not_inner + to("FIRST"), true, true);
}

void Builder::before_judgement() {
  auto& pre = chain(Xt::kMangle, "PRE");
  pre.push_back("-i " + device() + " " + go("TUNNEL"));
  // Beside nftables, `late` sees to replies to peers, and connections are told apart where pods
  // are: a packet without policy meets one match of xtables, the set.
  const std::string reply = connection("--ctdir REPLY") + " ";
  if (!in_.companion) pre.push_back(reply + go("REPLY"));
  if (!in_.companion) pre.push_back(peer_is(seen()) + " " + go("KNOWN"));
  if (common::carries(in_.node, t_) && (in_.serves || !in_.companion)) {
    pre.push_back("-d " + in_.node.underlay.text() + " -j RETURN");
  }
  pre.push_back(in_set("pods", "src") + " " + go("JUDGE"));
  if (!in_.serves) return;
  if (in_.companion) pre.push_back(reply + "-j RETURN");
  pre.push_back(drop(in_set("eips", "dst"), "to_eip"));
}

void Builder::judgement() {
  auto& judge = chain(Xt::kMangle, "JUDGE");
  auto& known = chain(Xt::kMangle, "KNOWN");
  if (in_.companion) {
    judge.push_back(connection("--ctdir REPLY") + " -j RETURN");
    judge.push_back(peer_is(seen()) + " " + go("KNOWN"));
  }
  if (in_.serves) judge.push_back(drop(in_set("eips", "dst"), "to_eip"));
  judge.push_back("-m addrtype " +
                  std::string(t_ == Table::kIp ? "! --dst-type UNICAST" : "--dst-type LOCAL") +
                  " -j RETURN");
  judge.push_back(in_set("cluster", "dst") + " -j RETURN");
  judge.push_back(kFirst + " " + go("FIRST"));
  judge.push_back(connection("--ctstate DNAT") + " -j RETURN");
  judge.push_back(peer_set(seen()));
  judge.push_back(go("KNOWN"));
  // A first packet's destination may still be changed (nat PREROUTING): EGW-NEW decides after that.
  const std::uint32_t pending = value(marks_, Kind::kPending);
  chain(Xt::kMangle, "FIRST") = {to("ACT"), is(Slot::kSteer) + " " + set(pending, slot()),
                                 is(Slot::kOwn) + " " + set(pending, slot())};
  if (in_.companion) {
    known.push_back(to("ACT"));
    known.push_back(is(Slot::kSteer) + " " + set(pending, slot()));
  } else {
    // A connection keeps its translation until its entry is deleted, and goes by the way that fits
    // it. On a node that serves nothing only others can have translated it: to the tunnel's
    // address.
    if (in_.serves) known.push_back(kTranslated + " " + in_set("pods", "src") + " " + go("OWN"));
    chain(Xt::kMangle, "OWN") = {set(marks_.value(Slot::kOwn), slot())};
    known.push_back(go("ACT"));
  }
  auto& act = chain(Xt::kMangle, "ACT");
  act.push_back(map("pods", "src"));
  act.push_back(is(Slot::kSteer) + " -j RETURN");
  act.push_back(is(Kind::kClass) + " " + go("CLASS"));
  act.push_back(drop(is(Kind::kDropped), "no_egress"));
}

// In: the class's number in the low 14 bits. A group's set takes its own number away from it (both
// are exclusive-or'ed): zero is left when the prefix found is the class's own.
void Builder::classes() {
  auto& node = chain(Xt::kMangle, "CLASS");
  std::map<std::uint32_t, std::vector<std::uint32_t>> groups;
  for (const auto& [number, group] : in_.classes) groups[group].push_back(number);
  for (const auto& [group, numbers] : groups) class_group(group);
  if (groups.size() <= 1) {
    node.push_back(groups.empty() ? go("REST") : go("G" + std::to_string(groups.begin()->first)));
  } else {
    std::vector<RadixLeaf> leaves;
    for (const auto& [group, numbers] : groups) {
      for (const auto& [id, length] : id_blocks(numbers)) {
        leaves.push_back({id_key(id), length,
                          id_match(id_key(id), length) + " " + go("G" + std::to_string(group))});
      }
    }
    std::sort(leaves.begin(), leaves.end(),
              [](const auto& a, const auto& b) { return a.key < b.key; });
    add_radix(std::string(kChainPrefix) + "CLASS", leaves, {id_match, "-g", {go("REST")}},
              table(Xt::kMangle).chains);
  }
  // Nothing of its own: what the class says of all other destinations.
  chain(Xt::kMangle, "REST") = {set(0, slot() | kIdMask), map("rest", "src"), go("DONE")};
  chain(Xt::kMangle, "DONE") = {drop(is(Kind::kDropped), "no_egress")};
}

void Builder::class_group(std::uint32_t group) {
  const std::string n = std::to_string(group);
  chain(Xt::kMangle, "G" + n) = {
      map("who" + n, "dst"), is_bare(value(marks_, Kind::kClass)) + " " + go("H" + n), go("REST")};
  chain(Xt::kMangle, "H" + n) = {map("what" + n, "dst"), go("DONE")};
}

void Builder::from_tunnel() {
  auto& tunnel = chain(Xt::kMangle, "TUNNEL");
  const std::string answer = connection("--ctdir REPLY --ctstate RELATED,ESTABLISHED");
  const std::string invalid = drop(connection("--ctstate INVALID,UNTRACKED"), "invalid");
  tunnel.push_back("-m mark --mark 0x00000000/" + hex(kIdMask) + " " + go("NO-ID"));
  // All but the first packet of a connection, in one look.
  tunnel.push_back(connection("--ctdir ORIGINAL --ctstate SNAT --ctstatus CONFIRMED") + " " +
                   go("GO-ON"));
  tunnel.push_back(answer + " -j RETURN");
  tunnel.push_back(invalid);
  tunnel.push_back(kFirst + " " + go("ARRIVE"));
  tunnel.push_back(drop("", "not_translated"));
  // TCP begins anew on another node; others may go on from there.
  chain(Xt::kMangle, "GO-ON") = {"! -p tcp " + go("PEER")};
  auto& plain = chain(Xt::kMangle, "NO-ID");
  plain.push_back(answer + " -j RETURN");
  plain.push_back(invalid);
  if (tunnel_address()) {
    plain.push_back("-d " + tunnel_address().address.text() +
                    (t_ == Table::kIp ? " -p icmp -m icmp --icmp-type 8"
                                      : " -p ipv6-icmp -m icmp6 --icmpv6-type 128") +
                    " -j RETURN");
  }
  plain.push_back(drop("", "without_id"));
  auto& arrive = chain(Xt::kMangle, "ARRIVE");
  arrive.push_back(drop("-m addrtype --dst-type LOCAL", "to_host"));
  if (!ids_beside()) arrive.push_back(to("SERVED"));
  arrive.push_back(to("PEER"));
  arrive.push_back(drop(peer_is(0), "forged"));
  served();
  note_peer();
}

// The inner source MAC gives the number by which replies find the way back.
void Builder::note_peer() {
  std::vector<RadixLeaf> leaves;
  for (const common::PeerPlan& p : in_.peers) {
    leaves.push_back({std::string(reinterpret_cast<const char*>(p.mac.data()), p.mac.size()), 48,
                      "-m mac --mac-source " + common::mac_text(p.mac) + " " +
                          peer_set(p.number << marks_.ct_shift())});
  }
  std::sort(leaves.begin(), leaves.end(),
            [](const auto& a, const auto& b) { return a.key < b.key; });
  const RadixShape shape{[](const std::string& key, unsigned length) {
                           // The four bits before `length`, of the MAC in the link layer's header:
                           // the levels above have compared the others, but for those that all
                           // leaves have in common.
                           const unsigned at = length - 4;
                           const unsigned shift = at % 8 == 0 ? 4 : 0;
                           const auto byte = static_cast<unsigned char>(key[at / 8]);
                           constexpr std::uint32_t kLinkLayer = 0xffe00000;  // SKF_LL_OFF
                           return "-m bpf --bytecode \"5,48 0 0 " +
                                  std::to_string(kLinkLayer + 6 + at / 8) + ",84 0 0 " +
                                  std::to_string(0xfU << shift) + ",21 0 1 " +
                                  std::to_string(byte & 0xfU << shift) + ",6 0 0 65535,6 0 0 0\"";
                         },
                         "-g",
                         {}};
  add_radix(std::string(kChainPrefix) + "PEER", leaves, shape, table(Xt::kMangle).chains);
}

// Comes back with an id that gets an address here, not with any other. Beside nftables tables of a
// node that serves ids they are elements there (`arrived`), and no rule knows them.
void Builder::served() {
  if (ids_beside()) return;
  std::vector<std::uint32_t> ids;
  for (const auto& [id, address] : in_.sources) ids.push_back(id);
  std::vector<RadixLeaf> leaves;
  for (const auto& [id, length] : id_blocks(ids)) {
    leaves.push_back({id_key(id), length, id_match(id_key(id), length) + " -j RETURN"});
  }
  add_radix(std::string(kChainPrefix) + "SERVED", leaves,
            {id_match, "-g", {drop("", "unknown_id")}}, table(Xt::kMangle).chains);
}

void Builder::to_peer() {
  std::string shift;
  if (marks_.ct_shift() != 0) shift = " --right-shift-mark " + std::to_string(marks_.ct_shift());
  const std::uint32_t back = marks_.value(Slot::kBack);
  if (in_.companion && !in_.serves) return;
  chain(Xt::kMangle, "REPLY") = {
      peer_is(0) + " -j RETURN", peer_is(seen()) + " -j RETURN",
      "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask " + hex(marks_.ct_mask()) + shift,
      set(back, back)};
  // ICMP errors that this node itself makes for a translated connection.
  if (in_.serves) {
    jump(Xt::kMangle, "OUTPUT", connection("--ctdir REPLY") + " " + to("REPLY"));
  }
}

void Builder::postrouting() {
  auto& post = chain(Xt::kMangle, "POST");
  const std::string inner = is(Slot::kInner) + " " + go("LEAVE-IN");
  if (in_.egress) {
    // What has no mark and enters the tunnel is dropped by the device's own hook.
    jump(Xt::kMangle, "POSTROUTING", is_not(0) + " " + to("POST"));
    post = {inner, "-o " + device() + " " + go("INTO")};
  } else {
    jump(Xt::kMangle, "POSTROUTING", to("POST"));
    post = {"! -o " + device() + " " + is(0U) + " -j RETURN", "-o " + device() + " " + go("INTO"),
            inner};
  }
  post.push_back(is(Slot::kOwn) + " " + go("LEAVE-OWN"));
  post.push_back(is(Slot::kSteer) + " " + go("LEAVE-ID"));
  post.push_back(is(Kind::kPending) + " " + go("LEAVE-NEW"));
  if (in_.companion) post.push_back(is(Kind::kSaved) + " " + go("LEAVE-NEW"));
  post.push_back(drop(is(Slot::kBack), "not_by_tunnel"));
  leave();

  auto& into = chain(Xt::kMangle, "INTO");
  const std::uint32_t headers = t_ == Table::kIp ? 40 : 60;
  if (!in_.egress) {
    into.push_back("-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss " +
                   std::to_string(in_.mtu - headers));
  }
  into.push_back(is(Slot::kSteer) + " " + go("TO-OWNER"));
  // A node that serves ids may have translated it itself; the owner would translate it to another
  // port: the connection's end. What a service turns elsewhere is not for the owner.
  auto& owner = chain(Xt::kMangle, "TO-OWNER");
  owner.push_back(
      drop(connection(in_.serves ? "--ctstate SNAT,DNAT" : "--ctstate DNAT"), "other_source"));
  // The device's own hook does the rest.
  if (in_.egress) return;
  into.push_back(is(Slot::kBack) + " " + go("BARE"));
  if (tunnel_address()) into.push_back("-s " + tunnel_address().address.text() + " " + go("BARE"));
  into.push_back(drop("", "not_steered"));
  // What the header carries is the low 16 bits.
  owner.push_back(set(marks_.value(Slot::kOuter), ~kIdMask));
  chain(Xt::kMangle, "BARE") = {set(0, kAll)};
}

// What leaves by any other device. After this hook only nat POSTROUTING is left, and only for first
// packets: so those are passed that it will translate, others if they are translated.
void Builder::leave() {
  chain(Xt::kMangle, "CLEAR") = {set(0, slot() | kIdMask)};
  chain(Xt::kMangle, "LEAVE-IN") = {
      connection("--ctdir ORIGINAL ! --ctstatus CONFIRMED") + " -j RETURN", go("CLEAR")};
  auto& own = chain(Xt::kMangle, "LEAVE-OWN");
  if (in_.egress) {
    own.push_back(kFirst + " " + is_bare(marks_.value(Slot::kOwn)) + " " + go("LEAVE-NODE"));
    own.push_back(kFirst + " " + go("LEAVE-FIRST"));
  } else {
    own.push_back(kFirst + " " + go("LEAVE-NODE"));
  }
  own.push_back(drop(connection("! --ctstate SNAT"), "not_translated"));
  own.push_back(set(0, slot()));
  chain(Xt::kMangle, "LEAVE-NODE") =
      parent() ? std::vector<std::string>{"-j RETURN"} : std::vector{drop("", "no_address")};
  chain(Xt::kMangle, "LEAVE-ID") = {kFirst + " " + go("LEAVE-FIRST"), drop("", "not_by_tunnel")};
  // `translate` drops what gets no address.
  chain(Xt::kMangle, "LEAVE-FIRST") = {ids_beside() ? "-j RETURN" : to("SERVED")};
  auto& judged = chain(Xt::kMangle, "LEAVE-NEW");
  if (!in_.companion) judged.push_back(connection("--ctstate DNAT") + " " + go("CLEAR"));
  judged.push_back(drop("", "not_judged"));
}

void Builder::nat() {
  const std::string others = "! -o " + device() + " " + is_not(0);
  chain(Xt::kNat, "LOST") = {reason("not_translated") + kDropInNat};
  if (in_.companion) {
    // Only what the nftables tables should have translated comes here.
    jump(Xt::kNat, "POSTROUTING", others + " " + to("LOST"));
    return;
  }
  const std::uint32_t pending = value(marks_, Kind::kPending);
  jump(Xt::kNat, "PREROUTING", is(Kind::kPending) + " " + to("NEW"), true);
  chain(Xt::kNat, "NEW") = {peer_set(seen()),
                            is_bare(pending) + " " + set(marks_.value(Slot::kOwn), slot()),
                            is(Kind::kPending) + " " + set(marks_.value(Slot::kSteer), slot())};
  // Bound to itself: no masquerade rule behind this one touches it.
  jump(Xt::kNat, "POSTROUTING", "-o " + device() + " " + to("SELF"));
  chain(Xt::kNat,
        "SELF") = {std::string("-j NETMAP --to ") + (t_ == Table::kIp ? "0.0.0.0/0" : "::/0")};
  jump(Xt::kNat, "POSTROUTING", others + " " + to("SNAT"));
  // Only what EGW-SNAT should have taken comes here.
  jump(Xt::kNat, "POSTROUTING", others + " " + to("LOST"));
  translate();
}

void Builder::translate() {
  auto& snat = chain(Xt::kNat, "SNAT");
  snat.push_back(is_bare(marks_.value(Slot::kOwn)) + " " + go("SNAT-NODE"));
  // The slot means a way through this node; the id is needed below.
  snat.push_back(set(0, slot()));
  snat.push_back(go("SNAT-ID"));
  auto& node = chain(Xt::kNat, "SNAT-NODE");
  node.push_back(set(0, slot()));
  if (parent()) node.push_back("-j SNAT --to-source " + parent().text());
  node.push_back(reason("no_address") + kDropInNat);
  std::vector<RadixLeaf> leaves;
  for (const auto& [id, address] : in_.sources) {
    leaves.push_back(
        {id_key(id), 16, id_match(id_key(id), 16) + " -j SNAT --to-source " + address.text()});
  }
  add_radix(std::string(kChainPrefix) + "SNAT-ID", leaves,
            {id_match, "-g", {reason("no_address") + kDropInNat}}, table(Xt::kNat).chains);
}

}  // namespace

FamilyRules rules_for(Table t, const RuleInput& in) { return Builder(t, in).build(); }

}  // namespace egw::iptables
