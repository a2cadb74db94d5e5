#include "desired.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <utility>

namespace egw::netlink {
namespace {

std::size_t index(Table t) { return static_cast<std::size_t>(t); }

template <class T>
std::string register_bytes(const T& v) {
  std::string out(sizeof(v), '\0');
  std::memcpy(out.data(), &v, sizeof(v));
  return out;
}

const std::string kNone;
const std::string kDrop(Ruleset::kDropChain);

std::string target_of(const sdk::Action& action) {
  switch (action.kind) {
    case sdk::ActionKind::kEgress:
      return "e" + std::to_string(action.egress_id);
    case sdk::ActionKind::kNodeIp:
      return std::string(Ruleset::kNodeIpChain);
    case sdk::ActionKind::kBypass:
      return {};
    case sdk::ActionKind::kDrop:
      break;
  }
  return kDrop;
}

bool whole_family(const VerdictRange& r) {
  const sdk::Prefix all(r.first, 0);
  return r.first == all.first() && r.last == all.last();
}

std::string content_name(const VerdictRanges& ranges) {
  std::string text;
  for (const VerdictRange& r : ranges) {
    text += register_address(r.first) + register_address(r.last) + r.value + '\n';
  }
  // 56 bits in 14 digits: with the prefix 15 bytes, which std::string keeps without allocation.
  return "c" + hex(fingerprint(text) & 0xffffffffffffffU, 14);
}

// From the name, so that a restarted agent gives the same; the next free one if it is taken.
std::uint32_t free_number(const std::map<std::string, ClassTables>& tables,
                          const std::string& name) {
  constexpr std::uint32_t kTableBit = 0x80000000;
  std::uint32_t number =
      kTableBit | static_cast<std::uint32_t>(std::strtoull(name.c_str() + 1, nullptr, 16));
  const auto taken = [&] {
    return std::any_of(tables.begin(), tables.end(),
                       [&](const auto& t) { return t.first != name && t.second.number == number; });
  };
  while (taken()) number = kTableBit | (number + 1);
  return number;
}

bool usable_mac(const sdk::Mac& mac) { return (mac[0] & 1U) == 0 && mac != sdk::Mac{}; }

void sort_unique(Elements& e) {
  std::sort(e.begin(), e.end());
  e.erase(std::unique(e.begin(), e.end(),
                      [](const auto& a, const auto& b) { return a.first == b.first; }),
          e.end());
  e.shrink_to_fit();
}

}  // namespace

std::string register_u32(std::uint32_t v) { return register_bytes(v); }
std::string register_u16(std::uint16_t v) { return register_bytes(v); }
std::string register_address(const sdk::Address& a) {
  return std::string(reinterpret_cast<const char*>(a.bytes.data()), a.size());
}
std::string register_mac(const sdk::Mac& mac) {
  return std::string(reinterpret_cast<const char*>(mac.data()), mac.size());
}

const std::string* find_element(const Elements& elements, const std::string& key) {
  const auto at = std::lower_bound(elements.begin(), elements.end(), key,
                                   [](const auto& e, const std::string& k) { return e.first < k; });
  return at != elements.end() && at->first == key ? &at->second : nullptr;
}

std::string range_text(const VerdictRange& r, bool verdict) {
  // A single address must not be written as a range; the whole family must be written as a prefix.
  std::string out = r.first == r.last ? r.first.text()
                    : whole_family(r) ? sdk::Prefix(r.first, 0).text()
                                      : r.first.text() + "-" + r.last.text();
  if (verdict) out += " : goto " + r.value;
  return out;
}

void PeerNumbers::learn(const sdk::Mac& mac, std::uint32_t number) {
  learned_.emplace(mac, number);
  last_ = std::max(last_, number);
}

std::uint32_t PeerNumbers::assign(const std::string& name, const sdk::Mac& mac, std::uint32_t max) {
  if (const auto at = by_name_.find(name); at != by_name_.end()) return at->second;
  std::uint32_t number = 0;
  if (const auto at = learned_.find(mac);
      at != learned_.end() && at->second <= max && used_.count(at->second) == 0) {
    number = at->second;
  }
  const auto taken = [&](std::uint32_t n) {
    return used_.count(n) != 0 || std::any_of(learned_.begin(), learned_.end(), [&](const auto& l) {
             return l.second == n && l.first != mac;
           });
  };
  // Walks the space, so that a freed number rests as long as possible.
  for (std::uint32_t step = 1; number == 0 && step <= max; ++step) {
    const std::uint32_t candidate = (last_ + step - 1) % max + 1;
    if (used_.size() < max && !taken(candidate)) number = candidate;
  }
  if (number == 0) return 0;
  used_.insert(number);
  by_name_.emplace(name, number);
  last_ = std::max(last_ % max, number);
  return number;
}

void PeerNumbers::release(const std::string& name) {
  const auto at = by_name_.find(name);
  if (at == by_name_.end()) return;
  used_.erase(at->second);
  std::erase_if(learned_, [&](const auto& l) { return l.second == at->second; });
  by_name_.erase(at);
}

std::vector<std::string> PeerNumbers::names() const {
  std::vector<std::string> out;
  for (const auto& [name, number] : by_name_) out.push_back(name);
  return out;
}

void Desired::build(const sdk::State& state, std::uint32_t tunnel_mtu, PeerNumbers& numbers,
                    std::vector<ObjectFailure>& failures) {
  *this = Desired();
  node_ = state.node;
  ruleset_ = Ruleset(node_, tunnel_mtu);
  build_cluster();
  for (const auto& [id, table] : state.classes) add_class(id, table, state, failures);
  build_peers(state, numbers, failures);
  build_egresses(state, failures);
  build_elements(state);
  build_judges();
}

void Desired::update(const sdk::State& state, const sdk::Change& change, PeerNumbers& numbers,
                     std::vector<ObjectFailure>& failures) {
  for (const std::uint32_t id : change.deleted_classes()) remove_class(id);
  for (const egw_class c : change.classes()) {
    remove_class(c.id);
    if (const auto at = state.classes.find(c.id); at != state.classes.end()) {
      add_class(c.id, at->second, state, failures);
    }
  }
  const bool peers = !change.peers().empty() || !change.deleted_peers().empty();
  const bool egresses = !change.egresses().empty() || !change.deleted_egresses().empty();
  if (peers) build_peers(state, numbers, failures);
  if (peers || egresses) {
    build_egresses(state, failures);
    build_elements(state);
  }
  if (peers || egresses || !change.classes().empty() || !change.deleted_classes().empty()) {
    build_judges();
  }
}

void Desired::build_cluster() {
  for (const Table t : kFamilies) {
    std::vector<std::pair<sdk::Prefix, std::string>> pairs;
    for (const sdk::Prefix& p : Ruleset::never_steered(t)) pairs.emplace_back(p, std::string());
    for (const sdk::Prefix& p : node_.cluster_prefixes) {
      if (p && table_of(p.address) == t) pairs.emplace_back(p, std::string());
    }
    cluster_[index(t)] = sdk::flatten(std::move(pairs));
  }
}

void Desired::add_class(std::uint32_t id, const sdk::ClassTable& table, const sdk::State& state,
                        std::vector<ObjectFailure>& failures) {
  ClassTarget target;
  std::array<VerdictRanges, 2> ranges;
  for (const auto& r : sdk::flatten(table)) {
    if (r.value.kind == sdk::ActionKind::kBypass) continue;
    if (r.value.kind == sdk::ActionKind::kEgress && state.egresses.count(r.value.egress_id) == 0) {
      failures.push_back({sdk::ObjectType::kClass, std::to_string(id),
                          "names egress " + std::to_string(r.value.egress_id) +
                              ", which does not exist: its destinations are dropped"});
    }
    ranges[index(table_of(r.first))].push_back({r.first, r.last, target_of(r.value)});
  }
  for (const Table t : kFamilies) {
    VerdictRanges& mine = ranges[index(t)];
    if (mine.empty()) continue;
    if (mine.size() == 1 && whole_family(mine[0])) {
      target.chain[index(t)] = mine[0].value;
    } else {
      target.chain[index(t)] = content_name(mine);
      ClassTables& kept = tables_[index(t)][target.chain[index(t)]];
      if (kept.users++ == 0) {
        kept.ranges = std::move(mine);
        kept.number = free_number(tables_[index(t)], target.chain[index(t)]);
      }
    }
  }
  std::set<std::uint32_t> ids;
  for (const sdk::ClassRule& rule : table) {
    if (rule.action.kind == sdk::ActionKind::kEgress) ids.insert(rule.action.egress_id);
  }
  for (const std::uint32_t egress : ids) ++references_[egress];
  class_ids_[id] = std::vector<std::uint32_t>(ids.begin(), ids.end());
  classes_[id] = std::move(target);
}

void Desired::remove_class(std::uint32_t id) {
  const auto at = classes_.find(id);
  if (at == classes_.end()) return;
  for (const Table t : kFamilies) {
    const auto kept = tables_[index(t)].find(at->second.chain[index(t)]);
    if (kept != tables_[index(t)].end() && --kept->second.users == 0) {
      tables_[index(t)].erase(kept);
    }
  }
  for (const std::uint32_t egress : class_ids_[id]) {
    const auto reference = references_.find(egress);
    if (--reference->second == 0) references_.erase(reference);
  }
  class_ids_.erase(id);
  classes_.erase(at);
}

void Desired::build_peers(const sdk::State& state, PeerNumbers& numbers,
                          std::vector<ObjectFailure>& failures) {
  peer_numbers_.clear();
  bad_peers_.clear();
  for (const std::string& name : numbers.names()) {
    if (state.peers.count(name) == 0) numbers.release(name);
  }
  std::map<sdk::Mac, std::string> macs{{node_.tunnel_mac, node_.name}};
  for (const auto& [name, peer] : state.peers) {
    std::string wrong;
    if (!usable_mac(peer.mac)) {
      wrong = "its tunnel MAC " + mac_text(peer.mac) + " is no unicast address";
    } else if (!macs.emplace(peer.mac, name).second) {
      wrong = "its tunnel MAC " + mac_text(peer.mac) + " is that of " + macs[peer.mac];
    } else if (!peer.underlay || peer.underlay.family != node_.underlay.family) {
      wrong = "its underlay address '" + peer.underlay.text() + "' is not of the family of this " +
              "node's, " + node_.underlay.text();
    } else if (numbers.assign(name, peer.mac, ruleset_.marks().max_peer_number()) == 0) {
      wrong = "no peer number is left: marks.ctMask " + mark_text(ruleset_.marks().ct_mask()) +
              " has room for " + std::to_string(ruleset_.marks().max_peer_number()) + " peers";
    }
    if (!wrong.empty()) {
      bad_peers_.insert(name);
      failures.push_back({sdk::ObjectType::kPeer, name, wrong});
      continue;
    }
    peer_numbers_[name] = numbers.assign(name, peer.mac, ruleset_.marks().max_peer_number());
  }
}

void Desired::build_egresses(const sdk::State& state, std::vector<ObjectFailure>& failures) {
  const std::map<std::uint32_t, EgressPlan> old = std::exchange(egresses_, {});
  std::set<sdk::Mac> macs;
  for (const auto& [name, number] : peer_numbers_) macs.insert(state.peers.find(name)->second.mac);
  for (const auto& [id, egress] : state.egresses) {
    EgressPlan plan;
    plan.serve = egress.may_serve || egress.owner == sdk::Owner::kSelf;
    plan.guarded = egress.kind == sdk::EgressKind::kAddress;
    plan.address = egress.kind == sdk::EgressKind::kNode
                       ? std::array<sdk::Address, 2>{node_.parent_v4, node_.parent_v6}
                       : std::array<sdk::Address, 2>{egress.v4, egress.v6};
    if ((plan.address[0] && !plan.address[0].is_v4()) ||
        (plan.address[1] && !plan.address[1].is_v6())) {
      failures.push_back({sdk::ObjectType::kEgress, std::to_string(id),
                          "has an address of the wrong family; its packets are dropped"});
      egresses_[id] = EgressPlan{};
      continue;
    }
    const auto peer = state.peers.find(egress.owner_peer);
    const bool steer = egress.owner == sdk::Owner::kPeer && peer != state.peers.end() &&
                       bad_peers_.count(egress.owner_peer) == 0;
    if (egress.owner == sdk::Owner::kPeer && !steer) {
      failures.push_back({sdk::ObjectType::kEgress, std::to_string(id),
                          "its owner '" + egress.owner_peer +
                              "' is not among the usable peers; its packets are dropped"});
    }
    if (steer) plan.owner = peer->second.mac;
    for (const Table t : kFamilies) {
      // The owner knows which families the egress has: of a node's own addresses we know only ours.
      const bool has = egress.kind == sdk::EgressKind::kNode || plan.address[index(t)];
      if (!has) continue;
      if (steer) plan.mode[index(t)] = Mode::kSteer;
      if (egress.owner == sdk::Owner::kSelf && plan.address[index(t)]) {
        plan.mode[index(t)] = Mode::kOwn;
      }
    }
    const bool own = plan.mode[0] == Mode::kOwn || plan.mode[1] == Mode::kOwn;
    if (const auto was = old.find(id); own && was != old.end() && macs.count(was->second.owner)) {
      plan.owner = was->second.owner;
    }
    egresses_[id] = plan;
  }
}

void Desired::build_elements(const sdk::State& state) {
  for (auto& table : elements_) table = {};
  const auto at = [&](Table t, Dyn d) -> Elements& {
    return elements_[index(t)][static_cast<std::size_t>(d)];
  };
  for (const Table t : kFamilies) {
    if (!ruleset_.enabled(t)) continue;
    const sdk::Address& parent = t == Table::kIp ? node_.parent_v4 : node_.parent_v6;
    if (parent) at(t, Dyn::kOwn).emplace_back(register_address(parent), "");
    for (const auto& [id, plan] : egresses_) {
      const sdk::Address& address = plan.address[index(t)];
      if (!plan.serve || !address) continue;
      const auto zone = register_u16(static_cast<std::uint16_t>(id));
      at(t, Dyn::kIdNat).emplace_back(register_u32(id), register_address(address));
      at(t, Dyn::kZoneNat).emplace_back(zone, register_address(address));
      at(t, Dyn::kZone).emplace_back(register_u32(id), zone);
      at(t, Dyn::kOwn).emplace_back(register_address(address), "");
      if (plan.guarded) at(t, Dyn::kGuarded).emplace_back(register_address(address), "");
    }
  }
  for (const auto& [id, plan] : egresses_) {
    if (plan.owner == sdk::Mac{}) continue;
    at(Table::kNetdev, Dyn::kOwnerMac).emplace_back(register_u32(id), register_mac(plan.owner));
  }
  for (const auto& [name, number] : peer_numbers_) {
    const sdk::Peer& peer = state.peers.find(name)->second;
    const std::string mac = register_mac(peer.mac);
    at(Table::kNetdev, Dyn::kBackMac).emplace_back(register_u32(number), mac);
    for (const Table t : kFamilies) {
      if (ruleset_.enabled(t)) {
        at(t, Dyn::kPeer).emplace_back(mac, "p" + std::to_string(number));
      }
      if (ruleset_.carries(t)) {
        // Fields of a concatenation are padded to four bytes.
        at(t, Dyn::kOuter)
            .emplace_back(register_address(peer.underlay) + mac + std::string(2, '\0'), "");
      }
    }
  }
  for (auto& table : elements_) {
    for (Elements& e : table) sort_unique(e);
  }
}

const std::string& Desired::target(std::uint32_t class_id, Table t) const {
  const auto at = classes_.find(class_id);
  return at == classes_.end() ? kDrop : at->second.chain[index(t)];
}

Elements Desired::source_elements(const sdk::State& state, Table t) const {
  Elements out;
  if (!ruleset_.enabled(t)) return out;
  out.reserve(state.endpoints.size());
  for (const auto& [address, class_id] : state.endpoints) {
    if (table_of(address) != t) continue;
    const std::string& chain = target(class_id, t);
    if (!chain.empty()) {
      out.emplace_back(register_address(address), register_u32(chain_number(t, chain)));
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

void Desired::build_judges() {
  for (const Table t : kFamilies) {
    Elements& out = elements_[index(t)][static_cast<std::size_t>(Dyn::kJudge)];
    out.clear();
    if (!ruleset_.enabled(t)) continue;
    std::unordered_set<std::string> used{kDrop};
    for (const auto& [id, target] : classes_) used.insert(target.chain[index(t)]);
    used.erase(std::string());
    for (const std::string& chain : used) {
      out.emplace_back(register_u32(chain_number(t, chain)), chain);
    }
    sort_unique(out);
  }
}

std::uint32_t Desired::chain_number(Table t, const std::string& chain) const {
  if (chain.empty()) return 0;
  if (chain == kDrop) return Ruleset::kDropNumber;
  if (chain == Ruleset::kNodeIpChain) return Ruleset::kNodeIpNumber;
  if (chain[0] == 'e') {
    return static_cast<std::uint32_t>(std::strtoul(chain.c_str() + 1, nullptr, 10));
  }
  const auto at = tables_[index(t)].find(chain);
  return at == tables_[index(t)].end() ? Ruleset::kDropNumber : at->second.number;
}

std::string Desired::chain_name(Table t, std::uint32_t number) const {
  if (number == 0) return {};
  const std::string* found = find_element(elements(t, Dyn::kJudge), register_u32(number));
  return found == nullptr ? kDrop : *found;
}

std::set<std::uint32_t> Desired::chain_ids() const {
  std::set<std::uint32_t> out;
  for (const auto& [id, count] : references_) out.insert(id);
  return out;
}

Chain Desired::egress_chain(Table t, std::uint32_t id) const {
  const auto at = egresses_.find(id);
  if (at == egresses_.end()) return ruleset_.egress_chain(t, id, Mode::kDrop, {});
  const EgressPlan& plan = at->second;
  return ruleset_.egress_chain(t, id, plan.mode[index(t)],
                               plan.serve ? plan.address[index(t)] : sdk::Address());
}

void Desired::each_chain(Table t, const std::function<void(Chain)>& each) const {
  for (Chain& chain : ruleset_.fixed_chains(t)) each(std::move(chain));
  if (t == Table::kNetdev || !ruleset_.enabled(t)) return;
  for (const std::uint32_t id : chain_ids()) each(egress_chain(t, id));
  for (const auto& [name, number] : peer_numbers_) each(ruleset_.peer_chain(number));
  for (const auto& [name, kept] : tables_[index(t)]) each(ruleset_.class_chain(t, name));
}

}  // namespace egw::netlink
