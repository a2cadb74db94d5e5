#include "flows.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace egw::common {
namespace {

constexpr std::size_t kMostPast = 4;

Binding binding_of(const Plan& plan, Table t, const std::string& chain) {
  if (chain.empty()) return {};
  if (chain == kNodeIpName) {
    return {Binding::Kind::kOwn, t == Table::kIp ? plan.node().parent_v4 : plan.node().parent_v6,
            0};
  }
  if (chain[0] != 'e') return {Binding::Kind::kDrop, {}, 0};
  const auto at = plan.egresses().find(
      static_cast<std::uint32_t>(std::strtoul(chain.c_str() + 1, nullptr, 10)));
  if (at == plan.egresses().end()) return {Binding::Kind::kDrop, {}, 0};
  const EgressPlan& egress = at->second;
  const std::uint32_t id = egress.serve && egress.guarded ? at->first : 0;
  switch (egress.mode[index(t)]) {
    case Mode::kSteer:
      return {Binding::Kind::kSteer, id != 0 ? egress.address[index(t)] : sdk::Address(), id};
    case Mode::kOwn:
      return {Binding::Kind::kOwn, egress.address[index(t)], id};
    case Mode::kDrop:
      break;
  }
  return {Binding::Kind::kDrop, {}, 0};
}

template <class V>
const V* range_at(const std::vector<sdk::FlatRange<V>>& ranges, const sdk::Address& a) {
  auto at = std::upper_bound(ranges.begin(), ranges.end(), a,
                             [](const sdk::Address& x, const auto& r) { return x < r.first; });
  if (at == ranges.begin()) return nullptr;
  --at;
  return a <= at->last ? &at->value : nullptr;
}

// Entries that differ only in being dropped or steered keep the same (absent) translation.
bool same_translation(const Binding& a, const Binding& b) {
  const auto plain = [](const Binding& x) {
    return x.kind == Binding::Kind::kSteer || x.kind == Binding::Kind::kDrop;
  };
  return a == b || (plain(a) && plain(b));
}

// The same egress IP, which another node has now or had before.
bool is_move(const Binding& before, const Binding& now) {
  const auto way = [](const Binding& b) {
    return b.kind == Binding::Kind::kSteer || b.kind == Binding::Kind::kOwn;
  };
  return now.id != 0 && before.id == now.id && before.address == now.address && way(before) &&
         way(now) && before.kind != now.kind;
}

// From one peer to another: its connections are bound as before.
bool same_but_owner(EgressPlan a, const EgressPlan& b) {
  a.owner = b.owner;
  return a == b;
}

// Chains whose meaning differs between two plan states of one family.
std::set<std::string> changed_chains(const Plan& before, const Plan& after, Table t, bool& moved) {
  std::set<std::string> out;
  const auto look = [&](const std::string& chain) {
    const Binding had = binding_of(before, t, chain), has = binding_of(after, t, chain);
    if (!same_translation(had, has)) out.insert(chain);
    moved = moved || is_move(had, has);
  };
  each_difference(before.egresses(), after.egresses(),
                  [&](std::uint32_t id, const EgressPlan* had, const EgressPlan* has) {
                    if (had != nullptr && has != nullptr && same_but_owner(*had, *has)) return;
                    look("e" + std::to_string(id));
                  });
  look(std::string(kNodeIpName));
  if (out.empty()) return out;
  std::set<std::uint32_t> actions;
  for (const std::string& chain : out) actions.insert(after.number_of(t, chain));
  for (const auto& [name, kept] : after.class_tables(t)) {
    if (std::any_of(kept.table->entries.begin(), kept.table->entries.end(),
                    [&](const ClassEntry& e) { return actions.count(e.action) != 0; })) {
      out.insert(name);
    }
  }
  return out;
}

// BindingTables of one plan state: endpoints of one chain, or of one class, share one.
class TablesOf {
 public:
  explicit TablesOf(const Plan& plan) : plan_(std::make_shared<const Plan>(plan)) {}
  const std::shared_ptr<const BindingTable>& operator()(Table t, const std::string& chain) {
    auto& slot = by_chain_[index(t)][chain];
    if (!slot) slot = std::make_shared<const BindingTable>(plan_, t, chain);
    return slot;
  }
  const std::shared_ptr<const BindingTable>& of(const sdk::Address& endpoint,
                                                const sdk::State& state) {
    const Table t = table_of(endpoint);
    const auto at = state.endpoints.find(endpoint);
    if (at == state.endpoints.end() || !plan_->enabled(t)) return (*this)(t, {});
    auto& slot = by_class_[index(t)][at->second];
    if (!slot) slot = (*this)(t, plan_->target(at->second, t));
    return slot;
  }

 private:
  std::shared_ptr<const Plan> plan_;
  std::array<std::unordered_map<std::string, std::shared_ptr<const BindingTable>>, 2> by_chain_;
  std::array<std::unordered_map<std::uint32_t, std::shared_ptr<const BindingTable>>, 2> by_class_;
};

const Fate kKeep{};
const Fate kRemove{Fate::Kind::kRemove, {}, 0};

}  // namespace

BindingTable::BindingTable(std::shared_ptr<const Plan> plan, Table t, std::string chain)
    : plan_(std::move(plan)), table_(t), chain_(std::move(chain)) {}

BindingTable::Ranges BindingTable::make() const {
  if (chain_.empty()) return {};
  const auto table = plan_->class_tables(table_).find(chain_);
  if (table != plan_->class_tables(table_).end()) {
    std::vector<std::pair<sdk::Prefix, Binding>> pairs;
    for (const ClassEntry& e : table->second.table->entries) {
      pairs.emplace_back(e.prefix, binding_of(*plan_, table_, name_of(e.action)));
    }
    return sdk::flatten(std::move(pairs));
  }
  sdk::Address zero;
  zero.family = table_ == Table::kIp ? 4 : 6;
  const sdk::Prefix all(zero, 0);
  return {{all.first(), all.last(), binding_of(*plan_, table_, chain_)}};
}

const BindingTable::Ranges& BindingTable::ranges() const {
  std::call_once(made_, [this] { ranges_ = make(); });
  return ranges_;
}

bool operator==(const BindingTable& a, const BindingTable& b) {
  return a.plan_->cluster(a.table_) == b.plan_->cluster(b.table_) && a.ranges() == b.ranges();
}

Binding BindingTable::of(const sdk::Address& destination) const {
  if (range_at(plan_->cluster(table_), destination) != nullptr) return {};
  const Binding* found = range_at(ranges(), destination);
  return found == nullptr ? Binding{} : *found;
}

bool conforms(const Flow& flow, const Binding& binding) {
  switch (binding.kind) {
    case Binding::Kind::kNative:
      return true;
    case Binding::Kind::kSteer:
      return flow.translated == flow.source;
    case Binding::Kind::kOwn:
      return flow.translated == binding.address;
    case Binding::Kind::kDrop:
      break;
  }
  return false;
}

void Suspect::add(std::shared_ptr<const BindingTable> table) {
  const auto same = [&](const auto& had) { return had == table || *had == *table; };
  if (std::any_of(past.begin(), past.end(), same)) return;
  if (past.size() == kMostPast) {
    past.erase(past.begin());
    unknown = true;
  }
  past.push_back(std::move(table));
}

Fate Suspect::judge(const Flow& flow, const std::set<sdk::Address>& own) const {
  const Binding is = now->of(flow.destination);
  bool changed = unknown || unsure;
  bool covered = false;
  for (const auto& table : past) {
    const Binding was = table->of(flow.destination);
    changed = changed || was != is;
    covered = covered || was.kind != Binding::Kind::kNative;
    if (is_move(was, is) && conforms(flow, was)) {
      const bool here = is.kind == Binding::Kind::kOwn;
      return {Fate::Kind::kRebind, here ? is.address : flow.source,
              static_cast<std::uint16_t>(is.id)};
    }
  }
  if (!changed) return kKeep;
  if (is.kind != Binding::Kind::kNative) return conforms(flow, is) ? kKeep : kRemove;
  const bool ours =
      covered || own.count(flow.translated) != 0 || (unknown && flow.translated == flow.source);
  return ours ? kRemove : kKeep;
}

SweepHint FlowSweep::hint() const {
  SweepHint out;
  if (zones_.empty() && suspects_.size() == 1) out.source = suspects_.begin()->first;
  return out;
}

Fate FlowSweep::judge(const Flow& flow) const {
  if (flow.zone == 0) {
    if (flow.redirected && leaves_redirected_) return kKeep;
    const auto at = suspects_.find(flow.source);
    return at == suspects_.end() ? kKeep : at->second.judge(flow, own_);
  }
  // It came through the tunnel, another node's pod; or it is parked here, perhaps untranslated.
  const auto local = suspects_.find(flow.source);
  if (local != suspects_.end() && flow.translated != flow.source) {
    // Parked when the egress IP went, which is back: the port may be somebody else's by now.
    const Binding is = local->second.now->of(flow.destination);
    if (is.kind == Binding::Kind::kOwn && is.id == flow.zone) return kRemove;
  }
  const auto at = zones_.find(flow.zone);
  if (at == zones_.end()) return kKeep;
  const sdk::Address& served = at->second[flow.source.is_v4() ? 0 : 1];
  const bool parked = served && flow.translated == flow.source;
  return parked || flow.translated == served ? kKeep : kRemove;
}

void FlowSweep::absorb(Sweep& later) {
  auto& more = static_cast<FlowSweep&>(later);  // a Sweeper gets sweeps of one kind
  for (auto& [address, suspect] : more.suspects_) {
    const auto [at, added] = suspects_.try_emplace(address);
    Suspect& mine = at->second;
    if (!added) mine.add(std::move(mine.now));
    for (auto& table : suspect.past) mine.add(std::move(table));
    mine.unknown = mine.unknown || suspect.unknown;
    mine.unsure = mine.unsure || suspect.unsure;
    mine.now = std::move(suspect.now);
  }
  for (const auto& [zone, addresses] : more.zones_) zones_[zone] = addresses;
  own_.merge(more.own_);
}

// Gateways: connections of other nodes' pods, by the id that is their zone.
void Unswept::note_zones(const Plan* before, const Plan& after) {
  if (before == nullptr) {
    for (const auto& [id, plan] : after.egresses()) {
      if (plan.serve) zones_.insert(static_cast<std::uint16_t>(id));
    }
    return;
  }
  each_difference(before->egresses(), after.egresses(),
                  [&](std::uint32_t id, const EgressPlan* had, const EgressPlan* has) {
                    if (had == nullptr || !had->serve) return;
                    if (has == nullptr || !has->serve || has->address != had->address) {
                      zones_.insert(static_cast<std::uint16_t>(id));
                    }
                  });
}

// Endpoints whose chain stays and has another meaning.
void Unswept::note_chains(
    const Plan& before, const Plan& after, const sdk::State& state,
    const std::vector<SourceChange>& changes,
    const std::function<std::shared_ptr<const BindingTable>(Table, const std::string&)>& old) {
  std::array<std::set<std::string>, 2> changed;
  std::array<bool, 2> all{};
  for (const Table t : kFamilies) {
    changed[index(t)] = changed_chains(before, after, t, moved_);
    all[index(t)] = before.cluster(t) != after.cluster(t);
  }
  if (!all[0] && !all[1] && changed[0].empty() && changed[1].empty()) return;
  std::unordered_set<sdk::Address> named;
  for (const SourceChange& c : changes) {
    if (c.before != c.after) named.insert(c.address);
  }
  for (const auto& [address, class_id] : state.endpoints) {
    const Table t = table_of(address);
    const std::string& chain = after.target(class_id, t);
    if (!all[index(t)] && changed[index(t)].count(chain) == 0) continue;
    if (named.count(address) == 0) suspects_[address].add(old(t, chain));
  }
}

void Unswept::note(const Plan* before, const Plan& after, const sdk::State& state,
                   const std::vector<SourceChange>& changes) {
  std::unique_ptr<TablesOf> old;
  if (before != nullptr) old = std::make_unique<TablesOf>(*before);
  suspects_.reserve(suspects_.size() + changes.size());
  for (const SourceChange& c : changes) {
    if (c.before == c.after) continue;
    Suspect& suspect = suspects_[c.address];
    if (old) {
      suspect.add((*old)(table_of(c.address), c.before));
    } else {
      suspect.unknown = true;
    }
  }
  if (before == nullptr) {
    for (const auto& [address, class_id] : state.endpoints) suspects_[address].unsure = true;
  } else if (before != &after) {
    note_chains(*before, after, state, changes,
                [&](Table t, const std::string& chain) { return (*old)(t, chain); });
  }
  if (before != &after) note_zones(before, after);
}

void Unswept::failed(const Plan& after, const sdk::State& state) {
  TablesOf tables(after);
  for (auto& [address, suspect] : suspects_) suspect.add(tables.of(address, state));
}

std::unique_ptr<FlowSweep> Unswept::take(const Plan& now, const sdk::State& state,
                                         const std::vector<sdk::Address>& refused) {
  moved_ = false;
  FlowSweep::Suspects later;
  for (const sdk::Address& a : refused) {
    if (auto node = suspects_.extract(a)) later.insert(std::move(node));
  }
  FlowSweep::Suspects mine = std::exchange(suspects_, std::move(later));
  FlowSweep::Zones zones;
  for (const std::uint16_t id : std::exchange(zones_, {})) {
    const auto at = now.egresses().find(id);
    const bool served = at != now.egresses().end() && at->second.serve;
    zones[id] = served ? at->second.address : std::array<sdk::Address, 2>{};
  }
  if (mine.empty() && zones.empty()) return nullptr;
  TablesOf tables(now);
  bool in_doubt = false;
  for (auto& [address, suspect] : mine) {
    suspect.now = tables.of(address, state);
    in_doubt = in_doubt || suspect.unknown || suspect.unsure;
  }
  std::set<sdk::Address> own;
  if (in_doubt) {
    for (const auto& [id, plan] : now.egresses()) {
      if (plan.guarded) own.insert(plan.address.begin(), plan.address.end());
    }
    own.erase(sdk::Address());
  }
  return std::make_unique<FlowSweep>(std::move(mine), std::move(zones), std::move(own),
                                     leaves_redirected_);
}

void Bound::add(Bound more) {
  zones.merge(more.zones);
  eips.merge(more.eips);
  endpoints.merge(more.endpoints);
  for (const Table t : kFamilies) {
    AddressRanges& latest = more.cluster[index(t)];
    if (!latest.empty()) cluster[index(t)] = std::move(latest);
  }
}

std::function<Fate(const Flow&)> bound_by(const Bound& bound) {
  return [held = &bound](const Flow& flow) {
    if (flow.zone != 0) return held->zones.count(flow.zone) != 0 ? kRemove : kKeep;
    if (flow.source == flow.translated) {
      // Steered, and bound to itself so that nobody else translates it; or never touched, then it
      // begins again as it was.
      const auto& cluster = held->cluster[index(table_of(flow.source))];
      const bool inside = range_at(cluster, flow.destination) != nullptr;
      return held->endpoints.count(flow.source) != 0 && !inside ? kRemove : kKeep;
    }
    return held->eips.count(flow.translated) != 0 ? kRemove : kKeep;
  };
}

}  // namespace egw::common
