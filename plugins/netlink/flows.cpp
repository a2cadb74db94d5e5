#include "flows.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

namespace egw::netlink {
namespace {

std::size_t index(Table t) { return static_cast<std::size_t>(t); }

Binding binding_of(const Desired& desired, Table t, const std::string& chain) {
  if (chain.empty()) return {};
  if (chain == Ruleset::kNodeIpChain) {
    return {Binding::Kind::kOwn,
            t == Table::kIp ? desired.node().parent_v4 : desired.node().parent_v6};
  }
  if (chain[0] != 'e') return {Binding::Kind::kDrop, {}};
  const auto at = desired.egresses().find(
      static_cast<std::uint32_t>(std::strtoul(chain.c_str() + 1, nullptr, 10)));
  if (at == desired.egresses().end()) return {Binding::Kind::kDrop, {}};
  switch (at->second.mode[index(t)]) {
    case Mode::kSteer:
      return {Binding::Kind::kSteer, {}};
    case Mode::kOwn:
      return {Binding::Kind::kOwn, at->second.address[index(t)]};
    case Mode::kDrop:
      break;
  }
  return {Binding::Kind::kDrop, {}};
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

// Chains whose meaning differs between two desired states of one family.
std::set<std::string> changed_chains(const Desired& before, const Desired& after, Table t) {
  std::set<std::string> out;
  const auto look = [&](const std::string& chain) {
    if (!same_translation(binding_of(before, t, chain), binding_of(after, t, chain))) {
      out.insert(chain);
    }
  };
  for (const auto& [id, plan] : after.egresses()) {
    const auto at = before.egresses().find(id);
    if (at != before.egresses().end() && at->second == plan) continue;
    look("e" + std::to_string(id));
  }
  for (const auto& [id, plan] : before.egresses()) {
    if (after.egresses().count(id) == 0) look("e" + std::to_string(id));
  }
  look(std::string(Ruleset::kNodeIpChain));
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

struct Judge {
  // nullptr: what it was is not known.
  std::shared_ptr<const BindingTable> before, after;

  [[nodiscard]] bool doomed(const common::Flow& flow, const std::set<sdk::Address>& own) const {
    const Binding now = after->of(flow.destination);
    if (now.kind != Binding::Kind::kNative) {
      if (before && before->of(flow.destination) == now) return false;
      return !conforms(flow, now);
    }
    if (before) return before->of(flow.destination).kind != Binding::Kind::kNative;
    return own.count(flow.translated) != 0 || flow.translated == flow.source;
  }
};

// Gateways: connections of other nodes' pods, by the id that is their zone. One sweep for all ids.
std::optional<common::Sweep> zone_sweep(const Desired& before, const Desired& after) {
  using Addresses = std::array<sdk::Address, 2>;
  const auto changed = std::make_shared<std::unordered_map<std::uint16_t, Addresses>>();
  for (const auto& [id, plan] : before.egresses()) {
    if (!plan.serve) continue;
    const auto at = after.egresses().find(id);
    const bool served = at != after.egresses().end() && at->second.serve;
    if (served && at->second.address == plan.address) continue;
    changed->emplace(static_cast<std::uint16_t>(id), served ? at->second.address : Addresses{});
  }
  if (changed->empty()) return std::nullopt;
  common::Sweep sweep;
  sweep.doomed = [changed](const common::Flow& flow) {
    const auto at = changed->find(flow.zone);
    return at != changed->end() && flow.translated != at->second[flow.source.is_v4() ? 0 : 1];
  };
  return sweep;
}

}  // namespace

BindingTable::BindingTable(const Desired& desired, Table t, const std::string& chain)
    : cluster_(desired.cluster(t)) {
  if (chain.empty()) return;
  const auto table = desired.class_tables(t).find(chain);
  if (table != desired.class_tables(t).end()) {
    std::vector<std::pair<sdk::Prefix, Binding>> pairs;
    for (const ClassEntry& e : table->second.table->entries) {
      pairs.emplace_back(e.prefix, binding_of(desired, t, name_of(e.action)));
    }
    ranges_ = sdk::flatten(std::move(pairs));
    return;
  }
  sdk::Address zero;
  zero.family = t == Table::kIp ? 4 : 6;
  const sdk::Prefix all(zero, 0);
  ranges_.push_back({all.first(), all.last(), binding_of(desired, t, chain)});
}

Binding BindingTable::of(const sdk::Address& destination) const {
  if (range_at(cluster_, destination) != nullptr) return {};
  const Binding* found = range_at(ranges_, destination);
  return found == nullptr ? Binding{} : *found;
}

bool conforms(const common::Flow& flow, const Binding& binding) {
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

std::vector<common::Sweep> sweeps(const Desired* before, const Desired& after,
                                  const sdk::State& state,
                                  const std::vector<SourceChange>& changes) {
  using Judges = std::unordered_map<sdk::Address, Judge>;
  const auto judges = std::make_shared<Judges>();
  std::array<std::map<std::string, std::shared_ptr<const BindingTable>>, 2> old_tables, new_tables;
  const auto table = [](auto& cache, const Desired& d, Table t, const std::string& chain) {
    auto& slot = cache[index(t)][chain];
    if (!slot) slot = std::make_shared<const BindingTable>(d, t, chain);
    return slot;
  };
  const auto add = [&](const sdk::Address& a, const std::string& had, const std::string& has) {
    const Table t = table_of(a);
    Judge judge;
    if (before != nullptr) judge.before = table(old_tables, *before, t, had);
    judge.after = table(new_tables, after, t, has);
    judges->emplace(a, std::move(judge));
  };
  for (const SourceChange& c : changes) {
    if (c.before != c.after) add(c.address, c.before, c.after);
  }
  if (before != nullptr && before != &after) {
    const std::array<std::set<std::string>, 2> changed{changed_chains(*before, after, Table::kIp),
                                                       changed_chains(*before, after, Table::kIp6)};
    if (!changed[0].empty() || !changed[1].empty()) {
      for (const auto& [address, class_id] : state.endpoints) {
        const Table t = table_of(address);
        const std::string& chain = after.target(class_id, t);
        if (changed[index(t)].count(chain) != 0) add(address, chain, chain);
      }
    }
  }
  std::vector<common::Sweep> out;
  if (before != nullptr && before != &after) {
    if (auto zones = zone_sweep(*before, after)) out.push_back(std::move(*zones));
  }
  if (judges->empty()) return out;
  std::set<sdk::Address> own;  // for judges that do not know what was before
  if (before == nullptr) {
    for (const auto& [id, plan] : after.egresses()) {
      own.insert(plan.address.begin(), plan.address.end());
    }
    own.erase(sdk::Address());
  }
  common::Sweep sweep;
  if (judges->size() == 1) sweep.source = judges->begin()->first;
  sweep.doomed = [judges, own = std::move(own)](const common::Flow& flow) {
    // A connection in a zone came through the tunnel: another node's pod.
    if (flow.zone != 0) return false;
    const auto at = judges->find(flow.source);
    return at != judges->end() && at->second.doomed(flow, own);
  };
  out.push_back(std::move(sweep));
  return out;
}

}  // namespace egw::netlink
