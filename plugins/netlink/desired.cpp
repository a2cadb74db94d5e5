#include "desired.hpp"

#include <algorithm>
#include <cstring>
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

const std::string kDrop("drop_it");

std::uint32_t number_of_action(const sdk::Action& action) {
  switch (action.kind) {
    case sdk::ActionKind::kEgress:
      return action.egress_id;
    case sdk::ActionKind::kNodeIp:
      return kNodeIpNumber;
    case sdk::ActionKind::kBypass:
      return kBypassNumber;
    case sdk::ActionKind::kDrop:
      break;
  }
  return kDropNumber;
}

// Numbers for a class's entries; rewrites them when they have too many lengths, or none of the
// shapes is free.
ClassTable number_class(Table t, const std::string& name, ClassEntries entries,
                        Numbering& numbering) {
  const Lengths lengths = lengths_of(entries);
  std::uint32_t shape = 0;
  if (lengths.size() <= kMaxLengths) {
    const std::string chain = shape_chain(lengths);
    shape = numbering.shapes[index(t)].assign(chain, chain, kMaxShapes);
  }
  if (shape == 0) {
    shape = kLadderShape;
    entries = expand(entries, ladder_step(t));
  }
  const std::uint32_t number =
      numbering.classes[index(t)].assign(name, content_of(entries), kMaxClass);
  return {std::move(entries), kClassBit | shape << kShapeShift | number};
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

void Lists::sort() {
  for (auto& table : lists_) {
    for (Elements& e : table) sort_unique(e);
  }
}

void ClassTable::elements(std::map<std::uint8_t, Elements>& out) const {
  const std::string key = register_u32(number);
  for (const ClassEntry& e : entries) {
    out[e.prefix.len].emplace_back(
        e.prefix.len == 0 ? key : key + register_address(e.prefix.address), register_u32(e.action));
  }
}

std::string name_of(std::uint32_t action) {
  if (action == 0 || action == kBypassNumber) return {};
  if (action <= kIdMask) return "e" + std::to_string(action);
  return action == kNodeIpNumber ? std::string(Ruleset::kNodeIpChain) : kDrop;
}

void Desired::build(const sdk::State& state, std::uint32_t tunnel_mtu, Numbering& numbers,
                    std::vector<ObjectFailure>& failures) {
  auto old = egresses_;
  *this = Desired();
  egresses_ = std::move(old);
  node_ = state.node;
  ruleset_ = Ruleset(node_, tunnel_mtu);
  build_cluster();
  for (const auto& [id, table] : state.classes) add_class(id, table, state, numbers, failures);
  build_shapes();
  for (const Table t : kFamilies) {
    std::set<std::string> chains;
    for (const auto& [shape, lengths] : shapes(t)) chains.insert(chain_of(shape, lengths));
    numbers.classes[index(t)].keep(class_tables(t));
    numbers.shapes[index(t)].keep(chains);
  }
  build_peers(state, numbers, failures);
  build_egresses(state, failures);
}

void Desired::update(const sdk::State& state, const sdk::Change& change, Numbering& numbers,
                     std::vector<ObjectFailure>& failures) {
  if (!change.classes().empty() || !change.deleted_classes().empty()) {
    update_classes(state, change, numbers, failures);
  }
  const bool peers = !change.peers().empty() || !change.deleted_peers().empty();
  if (peers) build_peers(state, numbers, failures);
  if (peers || !change.egresses().empty() || !change.deleted_egresses().empty()) {
    build_egresses(state, failures);
  }
}

void Desired::update_classes(const sdk::State& state, const sdk::Change& change, Numbering& numbers,
                             std::vector<ObjectFailure>& failures) {
  const std::shared_ptr<const Classes> before = classes_;
  classes_ = std::make_shared<Classes>(*before);
  for (const std::uint32_t id : change.deleted_classes()) remove_class(id);
  for (const egw_class c : change.classes()) {
    remove_class(c.id);
    if (const auto at = state.classes.find(c.id); at != state.classes.end()) {
      add_class(c.id, at->second, state, numbers, failures);
    }
  }
  build_shapes();
  // What is not used any more gives its number back.
  for (const Table t : kFamilies) {
    each_surplus(before->tables[index(t)], class_tables(t),
                 [&](const auto& name, const auto&) { numbers.classes[index(t)].release(name); });
    each_surplus(before->shapes[index(t)], shapes(t),
                 [&](std::uint32_t shape, const auto& lengths) {
                   numbers.shapes[index(t)].release(chain_of(shape, lengths));
                 });
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
                        Numbering& numbers, std::vector<ObjectFailure>& failures) {
  std::array<ClassEntries, 2> rules;
  std::set<std::uint32_t> missing;
  for (const sdk::ClassRule& r : table) {
    const sdk::Action& action = r.action;
    if (action.kind == sdk::ActionKind::kEgress && state.egresses.count(action.egress_id) == 0) {
      missing.insert(action.egress_id);
    }
    rules[index(table_of(r.destination.address))].push_back(
        {r.destination, number_of_action(action)});
  }
  for (const std::uint32_t egress : missing) {
    failures.push_back({sdk::ObjectType::kClass, std::to_string(id),
                        "names egress " + std::to_string(egress) +
                            ", which does not exist: its destinations are dropped"});
  }
  ClassTarget target;
  for (const Table t : kFamilies) {
    ClassEntries entries = reduce(std::move(rules[index(t)]));
    if (entries.empty()) continue;
    std::string& name = target.name[index(t)];
    if (entries.size() == 1 && entries[0].prefix.len == 0) {
      name = name_of(entries[0].action);
      target.number[index(t)] = entries[0].action;
      continue;
    }
    name = "c" + content_of(entries);
    ClassTables& kept = classes_->tables[index(t)][name];
    if (kept.users++ == 0) {
      kept.table =
          std::make_shared<const ClassTable>(number_class(t, name, std::move(entries), numbers));
    }
    target.number[index(t)] = kept.table->number;
  }
  classes_->targets[id] = std::move(target);
}

void Desired::remove_class(std::uint32_t id) {
  const auto at = classes_->targets.find(id);
  if (at == classes_->targets.end()) return;
  for (const Table t : kFamilies) {
    const auto kept = classes_->tables[index(t)].find(at->second.name[index(t)]);
    if (kept != classes_->tables[index(t)].end() && --kept->second.users == 0) {
      classes_->tables[index(t)].erase(kept);
    }
  }
  classes_->targets.erase(at);
}

void Desired::build_shapes() {
  for (const Table t : kFamilies) {
    auto& shapes = classes_->shapes[index(t)];
    shapes.clear();
    if (ruleset_.enabled(t)) {
      for (const auto& [name, kept] : classes_->tables[index(t)]) {
        Lengths& lengths = shapes[kept.table->shape()];
        if (lengths.empty()) lengths = lengths_of(kept.table->entries);
      }
    }
    if (const auto at = shapes.find(kLadderShape); at != shapes.end()) at->second = ladder(t);
  }
}

std::string Desired::chain_of(std::uint32_t shape, const Lengths& lengths) {
  return shape == kLadderShape ? kLadderChain : shape_chain(lengths);
}

std::set<std::uint8_t> Desired::lengths(Table t) const {
  std::set<std::uint8_t> out;
  if (t == Table::kNetdev) return out;
  for (const auto& [shape, lengths] : classes_->shapes[index(t)]) {
    out.insert(lengths.begin(), lengths.end());
  }
  return out;
}

std::map<std::uint8_t, Elements> Desired::prefix_elements(Table t) const {
  std::map<std::uint8_t, Elements> out;
  for (const std::uint8_t length : lengths(t)) out[length];
  if (!ruleset_.enabled(t)) return out;
  for (const auto& [name, kept] : classes_->tables[index(t)]) kept.table->elements(out);
  for (auto& [length, elements] : out) sort_unique(elements);
  return out;
}

void Desired::build_peers(const sdk::State& state, Numbering& numbers,
                          std::vector<ObjectFailure>& failures) {
  std::map<std::string, PeerPlan> peers;
  bad_peers_.clear();
  numbers.peers.keep(state.peers);
  const std::uint32_t max = ruleset_.marks().max_peer_number();
  std::map<sdk::Mac, std::string> macs{{node_.tunnel_mac, node_.name}};
  for (const auto& [name, peer] : state.peers) {
    std::string wrong;
    std::uint32_t number = 0;
    if (!usable_mac(peer.mac)) {
      wrong = "its tunnel MAC " + mac_text(peer.mac) + " is no unicast address";
    } else if (!macs.emplace(peer.mac, name).second) {
      wrong = "its tunnel MAC " + mac_text(peer.mac) + " is that of " + macs[peer.mac];
    } else if (!peer.underlay || peer.underlay.family != node_.underlay.family) {
      wrong = "its underlay address '" + peer.underlay.text() + "' is not of the family of this " +
              "node's, " + node_.underlay.text();
    } else if ((number = numbers.peers.assign(name, peer.mac, max)) == 0) {
      wrong = "no peer number is left: marks.ctMask " + mark_text(ruleset_.marks().ct_mask()) +
              " has room for " + std::to_string(max) + " peers";
    }
    if (!wrong.empty()) {
      bad_peers_.insert(name);
      failures.push_back({sdk::ObjectType::kPeer, name, wrong});
      continue;
    }
    peers[name] = {number, peer.mac, peer.underlay};
  }
  peers_ = std::make_shared<const std::map<std::string, PeerPlan>>(std::move(peers));
}

void Desired::build_egresses(const sdk::State& state, std::vector<ObjectFailure>& failures) {
  const std::map<std::uint32_t, EgressPlan>& old = egresses();
  std::map<std::uint32_t, EgressPlan> plans;
  std::set<sdk::Mac> macs;
  for (const auto& [name, peer] : peers()) macs.insert(peer.mac);
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
      plans[id] = EgressPlan{};
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
    plans.emplace_hint(plans.end(), id, plan);
  }
  ruleset_.set_serves(
      std::any_of(plans.begin(), plans.end(), [](const auto& plan) { return plan.second.serve; }));
  egresses_ = std::make_shared<const std::map<std::uint32_t, EgressPlan>>(std::move(plans));
}

void Desired::add_egress(std::uint32_t id, const EgressPlan& plan, Lists& out) const {
  const std::string key = register_u32(id);
  for (const Table t : kFamilies) {
    if (!ruleset_.enabled(t)) continue;
    const Mode mode = plan.mode[index(t)];
    if (mode == Mode::kSteer) out.at(t, Dyn::kSteered).emplace_back(key, "");
    if (mode == Mode::kOwn) out.at(t, Dyn::kOwned).emplace_back(key, "");
    if (!plan.serve || !plan.address[index(t)]) continue;
    const std::string source = register_address(plan.address[index(t)]);
    const std::string zone = register_u16(static_cast<std::uint16_t>(id));
    if (mode != Mode::kDrop) out.at(t, Dyn::kServed).emplace_back(source + key, "");
    out.at(t, Dyn::kIdNat).emplace_back(key, source);
    out.at(t, Dyn::kZoneNat).emplace_back(zone, source);
    out.at(t, Dyn::kZone).emplace_back(key, zone);
    out.at(t, Dyn::kOwn).emplace_back(source, "");
    if (plan.guarded) out.at(t, Dyn::kGuarded).emplace_back(source, "");
  }
  if (plan.owner != sdk::Mac{}) {
    out.at(Table::kNetdev, Dyn::kOwnerMac).emplace_back(key, register_mac(plan.owner));
  }
}

void Desired::add_peer(const PeerPlan& peer, Lists& out) const {
  const std::string mac = register_mac(peer.mac);
  // Fields of a concatenation are padded to four bytes.
  const std::string padded = mac + std::string(2, '\0');
  const std::string number = register_u32(peer.number);
  out.at(Table::kNetdev, Dyn::kBackMac).emplace_back(number, mac);
  for (const Table t : kFamilies) {
    if (ruleset_.enabled(t)) {
      out.at(t, Dyn::kPeer).emplace_back(mac, number);
      const std::uint32_t mark = peer.number << ruleset_.marks().ct_shift();
      out.at(t, Dyn::kKnown).emplace_back(padded + register_u32(mark), "");
    }
    if (ruleset_.carries(t)) {
      out.at(t, Dyn::kOuter).emplace_back(register_address(peer.underlay) + padded, "");
    }
  }
}

void Desired::add_shapes(Lists& out) const {
  for (const Table t : kFamilies) {
    for (const auto& [shape, lengths] : classes_->shapes[index(t)]) {
      out.at(t, Dyn::kShape)
          .emplace_back(register_u32(kClassBit | shape << kShapeShift), chain_of(shape, lengths));
    }
  }
}

Lists Desired::elements() const {
  Lists out;
  for (const Table t : kFamilies) {
    const sdk::Address& parent = t == Table::kIp ? node_.parent_v4 : node_.parent_v6;
    if (ruleset_.enabled(t) && parent) {
      out.at(t, Dyn::kOwn).emplace_back(register_address(parent), "");
    }
  }
  for (const auto& [id, plan] : egresses()) add_egress(id, plan, out);
  for (const auto& [name, peer] : peers()) add_peer(peer, out);
  add_shapes(out);
  out.sort();
  return out;
}

Desired::Changed Desired::changed(const Desired& before, const Desired& after) {
  Changed out;
  const auto egress = [](const Desired& d, Lists& lists) {
    return
        [&d, &lists](std::uint32_t id, const EgressPlan& plan) { d.add_egress(id, plan, lists); };
  };
  const auto peer = [](const Desired& d, Lists& lists) {
    return [&d, &lists](const std::string&, const PeerPlan& plan) { d.add_peer(plan, lists); };
  };
  if (before.egresses_ != after.egresses_) {
    each_surplus(before.egresses(), after.egresses(), egress(before, out.had));
    each_surplus(after.egresses(), before.egresses(), egress(after, out.wants));
  }
  if (before.peers_ != after.peers_) {
    each_surplus(before.peers(), after.peers(), peer(before, out.had));
    each_surplus(after.peers(), before.peers(), peer(after, out.wants));
  }
  before.add_shapes(out.had);
  after.add_shapes(out.wants);
  out.had.sort();
  out.wants.sort();
  after.spare_shared(out);
  return out;
}

// An address may belong to several egresses, and to the node: it goes with the last of them.
void Desired::spare_shared(Changed& lists) const {
  for (const Table t : kFamilies) {
    for (const Dyn d : {Dyn::kOwn, Dyn::kGuarded}) {
      Elements& had = lists.had.at(t, d);
      if (had.empty()) continue;
      std::set<std::string> wanted;
      const sdk::Address& parent = t == Table::kIp ? node_.parent_v4 : node_.parent_v6;
      if (d == Dyn::kOwn) wanted.insert(register_address(parent));
      for (const auto& [id, plan] : egresses()) {
        if (plan.serve && (plan.guarded || d == Dyn::kOwn)) {
          wanted.insert(register_address(plan.address[index(t)]));
        }
      }
      std::erase_if(had, [&](const auto& e) {
        return wanted.count(e.first) != 0 && find_element(lists.wants.at(t, d), e.first) == nullptr;
      });
    }
  }
}

const std::string& Desired::target(std::uint32_t class_id, Table t) const {
  const auto at = classes_->targets.find(class_id);
  return at == classes_->targets.end() ? kDrop : at->second.name[index(t)];
}

std::uint32_t Desired::number(std::uint32_t class_id, Table t) const {
  const auto at = classes_->targets.find(class_id);
  return at == classes_->targets.end() ? kDropNumber : at->second.number[index(t)];
}

Elements Desired::source_elements(const sdk::State& state, Table t) const {
  Elements out;
  if (!ruleset_.enabled(t)) return out;
  out.reserve(state.endpoints.size());
  for (const auto& [address, class_id] : state.endpoints) {
    if (table_of(address) != t) continue;
    if (const std::uint32_t n = number(class_id, t); n != 0) {
      out.emplace_back(register_address(address), register_u32(n));
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::uint32_t Desired::number_of(Table t, const std::string& target) const {
  if (target.empty()) return 0;
  if (target == Ruleset::kNodeIpChain) return kNodeIpNumber;
  if (target[0] == 'e') {
    return static_cast<std::uint32_t>(std::strtoul(target.c_str() + 1, nullptr, 10));
  }
  const auto at = classes_->tables[index(t)].find(target);
  return at == classes_->tables[index(t)].end() ? kDropNumber : at->second.table->number;
}

std::unordered_map<std::uint32_t, std::string> Desired::class_names(Table t) const {
  std::unordered_map<std::uint32_t, std::string> out;
  for (const auto& [name, kept] : classes_->tables[index(t)]) out.emplace(kept.table->number, name);
  return out;
}

void Desired::each_chain(Table t, const std::function<void(Chain)>& each) const {
  for (Chain& chain : ruleset_.fixed_chains(t)) each(std::move(chain));
  if (t == Table::kNetdev) return;
  for (const auto& [shape, lengths] : classes_->shapes[index(t)]) {
    each(Ruleset::lengths_chain(t, chain_of(shape, lengths), lengths));
  }
}

}  // namespace egw::netlink
