#include "desired.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace egw::common {
namespace {

template <class T>
std::string register_bytes(const T& v) {
  std::string out(sizeof(v), '\0');
  std::memcpy(out.data(), &v, sizeof(v));
  return out;
}

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

sdk::Address register_to_address(const std::string& bytes) {
  sdk::Address out;
  out.family = bytes.size() == 4 ? 4 : 6;
  std::copy_n(bytes.begin(), std::min(bytes.size(), out.bytes.size()), out.bytes.begin());
  return out;
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

void add_elements(const ClassTable& table, std::map<std::uint8_t, Elements>& out) {
  const std::string key = register_u32(table.number);
  for (const ClassEntry& e : table.entries) {
    out[e.prefix.len].emplace_back(
        e.prefix.len == 0 ? key : key + register_address(e.prefix.address), register_u32(e.action));
  }
}

void Desired::build(const sdk::State& state, std::uint32_t tunnel_mtu, Numbering& numbers,
                    std::vector<ObjectFailure>& failures) {
  Plan::build(state, numbers, failures);
  set_mtu(tunnel_mtu);
}

void Desired::set_mtu(std::uint32_t tunnel_mtu) {
  ruleset_ = Ruleset(node(), tunnel_mtu, programs_);
  ruleset_.set_serves(serves());
}

void Desired::update(const sdk::State& state, const sdk::Change& change, Numbering& numbers,
                     std::vector<ObjectFailure>& failures) {
  Plan::update(state, change, numbers, failures);
  ruleset_.set_serves(serves());
}

std::set<std::uint8_t> Desired::lengths(Table t) const {
  std::set<std::uint8_t> out;
  if (t == Table::kNetdev) return out;
  for (const auto& [shape, lengths] : shapes(t)) {
    out.insert(lengths.begin(), lengths.end());
  }
  return out;
}

std::map<std::uint8_t, Elements> Desired::prefix_elements(Table t) const {
  std::map<std::uint8_t, Elements> out;
  for (const std::uint8_t length : lengths(t)) out[length];
  if (!enabled(t)) return out;
  for (const auto& [name, kept] : class_tables(t)) add_elements(*kept.table, out);
  for (auto& [length, elements] : out) sort_unique(elements);
  return out;
}

void Desired::add_egress(std::uint32_t id, const EgressPlan& plan, Lists& out) const {
  const std::string key = register_u32(id);
  for (const Table t : kFamilies) {
    if (!enabled(t)) continue;
    const Mode mode = plan.mode[index(t)];
    if (mode == Mode::kSteer && !programs_) out.at(t, Dyn::kSteered).emplace_back(key, "");
    if (mode == Mode::kDrop && programs_) out.at(t, Dyn::kDropped).emplace_back(key, "");
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
  add_owner(id, plan, out);
}

void Desired::add_owner(std::uint32_t id, const EgressPlan& plan, Lists& out) const {
  if (programs_ || plan.owner == sdk::Mac{}) return;
  out.at(Table::kNetdev, Dyn::kOwnerMac).emplace_back(register_u32(id), register_mac(plan.owner));
}

void Desired::add_peer(const PeerPlan& peer, Lists& out) const {
  const std::string mac = register_mac(peer.mac);
  // Fields of a concatenation are padded to four bytes.
  const std::string padded = mac + std::string(2, '\0');
  const std::string number = register_u32(peer.number);
  out.at(Table::kNetdev, Dyn::kBackMac).emplace_back(number, mac);
  for (const Table t : kFamilies) {
    if (enabled(t)) {
      out.at(t, Dyn::kPeer).emplace_back(mac, number);
      const std::uint32_t mark = peer.number << marks().ct_shift();
      out.at(t, Dyn::kKnown).emplace_back(padded + register_u32(mark), "");
    }
    if (carries(t)) {
      out.at(t, Dyn::kOuter).emplace_back(register_address(peer.underlay) + padded, "");
    }
  }
}

void Desired::add_shapes(Lists& out) const {
  for (const Table t : kFamilies) {
    for (const auto& [shape, lengths] : shapes(t)) {
      out.at(t, Dyn::kShape)
          .emplace_back(register_u32(kClassBit | shape << kShapeShift), chain_of(shape, lengths));
    }
  }
}

void Desired::add_number(Table t, const ClassTable& table, Lists& out) const {
  if (!programs_ || !enabled(t)) return;
  out.at(t, Dyn::kNumber)
      .emplace_back(register_u32(table.number & kMaxClass), register_u32(table.number));
}

Lists Desired::elements() const {
  Lists out;
  for (const Table t : kFamilies) {
    const sdk::Address& parent = t == Table::kIp ? node().parent_v4 : node().parent_v6;
    if (enabled(t) && parent) {
      out.at(t, Dyn::kOwn).emplace_back(register_address(parent), "");
    }
  }
  for (const auto& [id, plan] : egresses()) add_egress(id, plan, out);
  for (const auto& [name, peer] : peers()) add_peer(peer, out);
  add_shapes(out);
  for (const Table t : kFamilies) {
    for (const auto& [name, kept] : class_tables(t)) add_number(t, *kept.table, out);
  }
  out.sort();
  return out;
}

Desired::Changed Desired::changed(const Desired& before, const Desired& after) {
  Changed out;
  const auto egress = [](const Desired& d, const Desired& other, Lists& lists) {
    return [&d, &other, &lists](std::uint32_t id, EgressPlan plan) {
      const auto at = other.egresses().find(id);
      // From one peer to another: nothing else differs.
      const sdk::Mac owner = plan.owner;
      if (at != other.egresses().end()) plan.owner = at->second.owner;
      const bool moved = at != other.egresses().end() && plan == at->second;
      plan.owner = owner;
      moved ? d.add_owner(id, plan, lists) : d.add_egress(id, plan, lists);
    };
  };
  const auto peer = [](const Desired& d, Lists& lists) {
    return [&d, &lists](const std::string&, const PeerPlan& plan) { d.add_peer(plan, lists); };
  };
  if (!before.same_egresses(after)) {
    each_surplus(before.egresses(), after.egresses(), egress(before, after, out.had));
    each_surplus(after.egresses(), before.egresses(), egress(after, before, out.wants));
  }
  if (!before.same_peers(after)) {
    each_surplus(before.peers(), after.peers(), peer(before, out.had));
    each_surplus(after.peers(), before.peers(), peer(after, out.wants));
  }
  for (const Table t : kFamilies) {
    if (before.same_classes(after)) break;
    const auto number = [t](const Desired& d, Lists& lists) {
      return [t, &d, &lists](const std::string&, const ClassTables& kept) {
        d.add_number(t, *kept.table, lists);
      };
    };
    each_surplus(before.class_tables(t), after.class_tables(t), number(before, out.had));
    each_surplus(after.class_tables(t), before.class_tables(t), number(after, out.wants));
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
      const sdk::Address& parent = t == Table::kIp ? node().parent_v4 : node().parent_v6;
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

Elements Desired::source_elements(const sdk::State& state, Table t) const {
  Elements out;
  if (!enabled(t)) return out;
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

void Desired::each_chain(Table t, const std::function<void(Chain)>& each) const {
  for (Chain& chain : ruleset_.fixed_chains(t)) each(std::move(chain));
  if (t == Table::kNetdev) return;
  for (const auto& [shape, lengths] : shapes(t)) {
    each(ruleset_.lengths_chain(t, chain_of(shape, lengths), lengths));
  }
}

}  // namespace egw::common
