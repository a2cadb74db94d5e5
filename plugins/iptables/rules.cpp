#include "rules.hpp"

#include <algorithm>
#include <map>

#include "rule_builder.hpp"

namespace egw::iptables {

FamilyRules RuleBuilder::build() {
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

// All that a packet without policy meets.
void RuleBuilder::prerouting() {
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

void RuleBuilder::before_judgement() {
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

void RuleBuilder::judgement() {
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
void RuleBuilder::classes() {
  std::map<std::uint32_t, std::vector<std::uint32_t>> groups;
  for (const auto& [number, group] : in_.classes) groups[group].push_back(number);
  for (const auto& [group, numbers] : groups) class_group(group);
  if (groups.size() == 1) {
    chain(Xt::kMangle, "CLASS") = {go("G" + std::to_string(groups.begin()->first))};
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
    // Of a number that is in no group nothing is known.
    add_radix(std::string(kChainPrefix) + "CLASS", leaves,
              {id_match, "-g", {drop("", "no_egress")}}, table(Xt::kMangle).chains);
  }
  // Nothing of its own: what the class says of all other destinations, if only that they are left
  // alone.
  chain(Xt::kMangle, "REST") = {unanswered(), map("rest", "src"), go("DONE")};
  chain(Xt::kMangle, "DONE") = {drop(is(Kind::kDropped), "no_egress")};
}

void RuleBuilder::class_group(std::uint32_t group) {
  const std::string n = std::to_string(group);
  chain(Xt::kMangle, "G" + n) = {
      map("who" + n, "dst"), is_bare(value(marks_, Kind::kClass)) + " " + go("H" + n), go("REST")};
  chain(Xt::kMangle, "H" + n) = {unanswered(), map("what" + n, "dst"), go("DONE")};
}

void RuleBuilder::postrouting() {
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
void RuleBuilder::leave() {
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

void RuleBuilder::nat() {
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

void RuleBuilder::translate() {
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

FamilyRules rules_for(Table t, const RuleInput& in) { return RuleBuilder(t, in).build(); }

}  // namespace egw::iptables
