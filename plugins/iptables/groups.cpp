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

bool Groups::overlaps(const Ranges& taken, const std::vector<sdk::Prefix>& outermost) {
  for (const sdk::Prefix& p : outermost) {
    auto at = taken.upper_bound(p.last());
    if (at == taken.begin()) continue;
    --at;
    if (at->second >= p.first()) return true;
  }
  return false;
}

common::ClassEntries Groups::content_of(const common::ClassEntries& entries) {
  common::ClassEntries inside;
  for (const common::ClassEntry& e : entries) {
    if (e.prefix.len != 0) inside.push_back(e);
  }
  return inside;
}

void Groups::learn(const common::ClassEntries& content, ClassPlace place) {
  numbers_.learn(content, place.number);
  learned_.emplace(content, place.group);
}

ClassPlace Groups::place(const std::string& name, const common::ClassEntries& entries) {
  Place place;
  place.outermost = outermost_of(entries);
  if (const auto at = places_.find(name); at != places_.end()) {
    if (at->second.outermost == place.outermost) return at->second.at;
    leave(at);  // a table that has gone while nobody could tell: see keep()
  }
  const common::ClassEntries content = content_of(entries);
  place.at.number = numbers_.assign(name, content, kIdMask);
  if (place.at.number == 0) return {};
  const auto fits = [&](std::uint32_t group) { return !overlaps(taken_[group], place.outermost); };
  const auto had = learned_.find(content);
  if (had != learned_.end() && fits(had->second)) {
    place.at.group = had->second;
    learned_.erase(had);
  } else {
    std::uint32_t group = 0, tried = 0;
    for (; taken_.count(group) != 0; ++group) {
      if (taken_[group].empty() || (tried++ < kMostTried && fits(group))) break;
    }
    place.at.group = group;
  }
  Ranges& taken = taken_[place.at.group];
  for (const sdk::Prefix& p : place.outermost) taken.emplace(p.first(), p.last());
  return places_.emplace(name, std::move(place)).first->second.at;
}

Groups::Places::iterator Groups::leave(Places::iterator at) {
  for (const sdk::Prefix& p : at->second.outermost) taken_[at->second.at.group].erase(p.first());
  numbers_.release(at->first);
  return places_.erase(at);
}

void Groups::keep(const std::map<std::string, common::ClassTables>& wanted) {
  for (auto at = places_.begin(); at != places_.end();) {
    at = wanted.count(at->first) != 0 ? std::next(at) : leave(at);
  }
}

}  // namespace egw::iptables
