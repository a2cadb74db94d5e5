// The rules for what comes by the wire and out of the tunnel, and for answers to peers
// (rule_builder.hpp).
#include <algorithm>

#include "rule_builder.hpp"

namespace egw::iptables {

// The tunnel's packets on the wire, and what comes out of the device.
void RuleBuilder::raw() {
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
void RuleBuilder::from_wire() {
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

void RuleBuilder::from_tunnel() {
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
void RuleBuilder::note_peer() {
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
void RuleBuilder::served() {
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

void RuleBuilder::to_peer() {
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

}  // namespace egw::iptables
