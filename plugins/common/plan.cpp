#include "plan.hpp"

#include <net/if.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace egw::common {
namespace {

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
  ClassTable out;
  std::uint32_t shape = 0;
  if (lengths.size() <= kMaxLengths) {
    const std::string chain = shape_chain(lengths);
    shape = numbering.shapes[index(t)].assign(chain, chain, kMaxShapes);
  }
  if (shape == 0) {
    shape = kLadderShape;
    ClassEntries longer = expand(entries, ladder_step(t));
    if (longer != entries) out.named = std::exchange(entries, std::move(longer));
  }
  const std::uint32_t number = numbering.classes[index(t)].assign(name, entries, kMaxClass);
  out.entries = std::move(entries);
  out.number = kClassBit | shape << kShapeShift | number;
  return out;
}

bool usable_mac(const sdk::Mac& mac) { return (mac[0] & 1U) == 0 && mac != sdk::Mac{}; }

std::vector<sdk::Prefix> never_steered(Table t) {
  const std::vector<std::string> text =
      t == Table::kIp ? std::vector<std::string>{"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16",
                                                 "224.0.0.0/4", "255.255.255.255"}
                      : std::vector<std::string>{"::/127", "fe80::/10", "ff00::/8"};
  std::vector<sdk::Prefix> out;
  for (const std::string& p : text) out.push_back(*sdk::Prefix::parse(p));
  return out;
}

}  // namespace

std::string free_name(std::string name, const ClassEntries& entries,
                      std::initializer_list<const std::map<std::string, ClassTables>*> named) {
  const auto of_another = [&](const auto* tables) {
    const auto at = tables->find(name);
    return at != tables->end() && at->second.table->content() != entries;
  };
  while (std::any_of(named.begin(), named.end(), of_another)) name += 'x';
  return name;
}

std::string name_of(std::uint32_t action) {
  if (action == 0 || action == kBypassNumber) return {};
  if (action <= kIdMask) return "e" + std::to_string(action);
  return action == kNodeIpNumber ? std::string(kNodeIpName) : kDrop;
}

sdk::Status check_node(const sdk::NodeConfig& node) {
  const auto wrong = [](std::string message) {
    return sdk::fail(sdk::Code::kInvalid, std::move(message), "node configuration");
  };
  if (std::string why = Marks(node.slot_mask, node.ct_mask).why_invalid(); !why.empty()) {
    return wrong(std::move(why));
  }
  if (node.tunnel_device.empty() || node.tunnel_device.size() >= IFNAMSIZ ||
      node.tunnel_device.find_first_of("/ \"\n") != std::string::npos) {
    return wrong("tunnel device '" + node.tunnel_device + "' is no interface name");
  }
  if (node.parent_device.empty() || node.parent_device.size() >= IFNAMSIZ ||
      node.parent_device.find_first_of("/ \"\n") != std::string::npos) {
    return wrong("underlay interface '" + node.parent_device + "' is no interface name");
  }
  if (!node.underlay) return wrong("no underlay address");
  if (node.tunnel_vni == 0 || node.tunnel_vni > 0xffffff) {
    return wrong("VXLAN id " + std::to_string(node.tunnel_vni) + " is not in 1..16777215");
  }
  if (node.tunnel_port == 0) return wrong("no tunnel port");
  if ((node.tunnel_mac[0] & 1U) != 0 || node.tunnel_mac == sdk::Mac{}) {
    return wrong("tunnel MAC " + mac_text(node.tunnel_mac) + " is no unicast address");
  }
  return sdk::ok();
}

void Plan::build(const sdk::State& state, Numbering& numbers,
                 std::vector<ObjectFailure>& failures) {
  auto old = egresses_;
  const std::shared_ptr<const Classes> before = classes_;
  *this = Plan();
  egresses_ = std::move(old);
  node_ = state.node;
  marks_ = Marks(node_.slot_mask, node_.ct_mask);
  build_cluster();
  for (const auto& [id, table] : state.classes) {
    add_class(id, table, state, *before, numbers, failures);
  }
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

void Plan::update(const sdk::State& state, const sdk::Change& change, Numbering& numbers,
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

void Plan::update_classes(const sdk::State& state, const sdk::Change& change, Numbering& numbers,
                          std::vector<ObjectFailure>& failures) {
  const std::shared_ptr<const Classes> before = classes_;
  classes_ = std::make_shared<Classes>(*before);
  for (const std::uint32_t id : change.deleted_classes()) remove_class(id);
  for (const egw_class c : change.classes()) {
    remove_class(c.id);
    if (const auto at = state.classes.find(c.id); at != state.classes.end()) {
      add_class(c.id, at->second, state, *before, numbers, failures);
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

std::vector<sdk::Prefix> Plan::cluster_prefixes(Table t) const {
  std::vector<sdk::Prefix> out = never_steered(t);
  for (const sdk::Prefix& p : node_.cluster_prefixes) {
    if (p && table_of(p.address) == t) out.push_back(p);
  }
  return out;
}

void Plan::build_cluster() {
  for (const Table t : kFamilies) {
    std::vector<std::pair<sdk::Prefix, std::string>> pairs;
    for (const sdk::Prefix& p : cluster_prefixes(t)) pairs.emplace_back(p, std::string());
    cluster_[index(t)] = sdk::flatten(std::move(pairs));
  }
}

void Plan::add_class(std::uint32_t id, const sdk::ClassTable& table, const sdk::State& state,
                     const Classes& before, Numbering& numbers,
                     std::vector<ObjectFailure>& failures) {
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
    name = free_name("c" + content_of(entries), entries,
                     {&before.tables[index(t)], &classes_->tables[index(t)]});
    ClassTables& kept = classes_->tables[index(t)][name];
    if (kept.users++ == 0) {
      kept.table =
          std::make_shared<const ClassTable>(number_class(t, name, std::move(entries), numbers));
    }
    target.number[index(t)] = kept.table->number;
  }
  classes_->targets[id] = std::move(target);
}

void Plan::remove_class(std::uint32_t id) {
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

void Plan::build_shapes() {
  for (const Table t : kFamilies) {
    auto& shapes = classes_->shapes[index(t)];
    shapes.clear();
    if (enabled(t)) {
      for (const auto& [name, kept] : classes_->tables[index(t)]) {
        Lengths& lengths = shapes[kept.table->shape()];
        if (lengths.empty()) lengths = lengths_of(kept.table->entries);
      }
    }
    if (const auto at = shapes.find(kLadderShape); at != shapes.end()) at->second = ladder(t);
  }
}

std::string Plan::chain_of(std::uint32_t shape, const Lengths& lengths) {
  return shape == kLadderShape ? kLadderChain : shape_chain(lengths);
}

void Plan::build_peers(const sdk::State& state, Numbering& numbers,
                       std::vector<ObjectFailure>& failures) {
  std::map<std::string, PeerPlan> peers;
  bad_peers_.clear();
  numbers.peers.keep(state.peers);
  const std::uint32_t max = marks_.max_peer_number();
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
      wrong = "no peer number is left: marks.ctMask " + mark_text(marks_.ct_mask()) +
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

void Plan::build_egresses(const sdk::State& state, std::vector<ObjectFailure>& failures) {
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
  egresses_ = std::make_shared<const std::map<std::uint32_t, EgressPlan>>(std::move(plans));
}

const std::string& Plan::target(std::uint32_t class_id, Table t) const {
  const auto at = classes_->targets.find(class_id);
  return at == classes_->targets.end() ? kDrop : at->second.name[index(t)];
}

std::uint32_t Plan::number(std::uint32_t class_id, Table t) const {
  const auto at = classes_->targets.find(class_id);
  return at == classes_->targets.end() ? kDropNumber : at->second.number[index(t)];
}

std::uint32_t Plan::number_of(Table t, const std::string& target) const {
  if (target.empty()) return 0;
  if (target == kNodeIpName) return kNodeIpNumber;
  if (target[0] == 'e') {
    return static_cast<std::uint32_t>(std::strtoul(target.c_str() + 1, nullptr, 10));
  }
  const auto at = classes_->tables[index(t)].find(target);
  return at == classes_->tables[index(t)].end() ? kDropNumber : at->second.table->number;
}

std::unordered_map<std::uint32_t, std::string> Plan::class_names(Table t) const {
  std::unordered_map<std::uint32_t, std::string> out;
  for (const auto& [name, kept] : classes_->tables[index(t)]) out.emplace(kept.table->number, name);
  return out;
}

bool Plan::serves() const {
  return std::any_of(egresses().begin(), egresses().end(),
                     [](const auto& plan) { return plan.second.serve; });
}

}  // namespace egw::common
