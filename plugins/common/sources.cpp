#include "sources.hpp"

#include <unordered_set>

namespace egw::common {

std::string verdict(const Plan& plan, const sdk::Address& a, std::uint32_t class_id) {
  const Table t = table_of(a);
  return plan.enabled(t) ? plan.target(class_id, t) : std::string();
}

std::vector<SourceChange> touched_sources(const Plan& plan, const sdk::State& state,
                                          const sdk::Change& change) {
  std::vector<SourceChange> out;
  std::unordered_set<sdk::Address> named;
  const auto name = [&](const sdk::Address& a) {
    if (!named.insert(a).second) return;
    const auto at = state.endpoints.find(a);
    const bool had = at != state.endpoints.end();
    out.push_back({a, had ? verdict(plan, a, at->second) : std::string(), {}});
  };
  for (const egw_endpoint e : change.endpoints()) name(sdk::Address(e.address));
  for (const egw_addr a : change.deleted_endpoints()) name(sdk::Address(a));
  if (change.classes().empty() && change.deleted_classes().empty()) return out;
  std::unordered_set<std::uint32_t> classes;
  for (const egw_class c : change.classes()) classes.insert(c.id);
  for (const std::uint32_t id : change.deleted_classes()) classes.insert(id);
  for (const auto& [address, class_id] : state.endpoints) {
    if (classes.count(class_id) != 0) name(address);
  }
  return out;
}

void settle_sources(const Plan& plan, const sdk::State& state, std::vector<SourceChange>& changes) {
  for (SourceChange& c : changes) {
    const auto at = state.endpoints.find(c.address);
    if (at != state.endpoints.end()) c.after = verdict(plan, c.address, at->second);
  }
  std::erase_if(changes, [](const SourceChange& c) { return c.before == c.after; });
}

void check_endpoints(const sdk::Change& change, const sdk::State& state,
                     std::vector<ObjectFailure>& failures) {
  std::unordered_set<std::uint32_t> known;
  if (!change.endpoints().empty()) {
    for (const auto& [id, table] : state.classes) known.insert(id);
  }
  for (const egw_endpoint e : change.endpoints()) {
    if (known.count(e.class_id) != 0) continue;
    failures.push_back({sdk::ObjectType::kEndpoint, sdk::Address(e.address).text(),
                        "its class " + std::to_string(e.class_id) +
                            " does not exist: all its packets are dropped"});
  }
}

}  // namespace egw::common
