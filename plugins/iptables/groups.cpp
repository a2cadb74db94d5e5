#include "groups.hpp"

#include <iterator>

#include "layout.hpp"

namespace egw::iptables {
namespace {

constexpr std::uint32_t kMostTried = 64;  // groups looked at before a new one is opened

// Entries are sorted by address, then length: a prefix comes before those inside it.
std::vector<sdk::Prefix> outermost_of(const common::ClassEntries& entries) {
  std::vector<sdk::Prefix> out;
  for (const common::ClassEntry& e : entries) {
    if (e.prefix.len == 0) continue;
    if (!out.empty() && out.back().contains(e.prefix.address)) continue;
    out.push_back(e.prefix);
  }
  return out;
}

}  // namespace

bool Groups::overlaps(const Ranges& taken, const Prefixes& outermost) {
  for (const sdk::Prefix& p : outermost) {
    auto at = taken.upper_bound(p.last());
    if (at == taken.begin()) continue;
    --at;
    if (at->second >= p.first()) return true;
  }
  return false;
}

void Groups::take(std::uint32_t group, const Prefixes& outermost) {
  for (const sdk::Prefix& p : outermost) taken_[group].emplace(p.first(), p.last());
}

void Groups::free(std::uint32_t group, const Prefixes& outermost) {
  for (const sdk::Prefix& p : outermost) taken_[group].erase(p.first());
}

void Groups::learn(const common::ClassEntries& entries, ClassPlace place) {
  numbers_.learn(entries, place.number);
  const Prefixes outermost = outermost_of(entries);
  if (overlaps(taken_[place.group], outermost)) return;  // not of our making
  if (learned_.emplace(entries, place.group).second) take(place.group, outermost);
}

ClassPlace Groups::place(const std::string& name, const common::ClassEntries& entries) {
  Place place;
  place.outermost = outermost_of(entries);
  if (const auto at = places_.find(name); at != places_.end()) {
    if (at->second.outermost == place.outermost) return at->second.at;
    leave(at);  // a table that has gone while nobody could tell: see keep()
  }
  place.at.number = numbers_.assign(name, entries, kIdMask);
  if (place.at.number == 0) return {};
  if (const auto had = learned_.find(entries); had != learned_.end()) {
    place.at.group = had->second;
    learned_.erase(had);
  } else {
    place.at.group = find_group(place.outermost);
    take(place.at.group, place.outermost);
  }
  return places_.emplace(name, std::move(place)).first->second.at;
}

std::uint32_t Groups::find_group(const Prefixes& outermost) {
  std::uint32_t group = 0, tried = 0;
  for (; taken_.count(group) != 0; ++group) {
    const Ranges& taken = taken_[group];
    if (taken.empty() || (tried++ < kMostTried && !overlaps(taken, outermost))) break;
  }
  return group;
}

Groups::Places::iterator Groups::leave(Places::iterator at) {
  free(at->second.at.group, at->second.outermost);
  numbers_.release(at->first);
  return places_.erase(at);
}

void Groups::keep(const std::map<std::string, common::ClassTables>& wanted) {
  for (const auto& [entries, group] : learned_) free(group, outermost_of(entries));
  learned_.clear();
  for (auto at = places_.begin(); at != places_.end();) {
    at = wanted.count(at->first) != 0 ? std::next(at) : leave(at);
  }
}

}  // namespace egw::iptables
