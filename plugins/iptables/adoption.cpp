#include "adoption.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace egw::iptables {
namespace {

// The word behind `option` in a rule; empty: it has none.
std::string after(const std::string& rule, const std::string& option) {
  const auto at = rule.find(option + " ");
  if (at == std::string::npos) return {};
  const auto start = at + option.size() + 1;
  return rule.substr(start, rule.find(' ', start) - start);
}

std::uint32_t number(const std::string& text) {
  return static_cast<std::uint32_t>(std::strtoul(text.c_str(), nullptr, 0));
}

// The chain in which a class's number ends: its group's, or the one for all others.
std::string group_of(const Chains& mangle, std::uint32_t number) {
  const std::string tree = std::string(kChainPrefix) + "CLASS";
  std::string name = tree;
  while (name.rfind(tree, 0) == 0) {
    const auto chain = mangle.find(name);
    if (chain == mangle.end()) return {};
    std::string next;
    for (const std::string& rule : chain->second) {
      const std::string match = after(rule, "--mark");
      const auto slash = match.find('/');
      const bool all = match.empty() || slash == std::string::npos;
      if (!all && (number & iptables::number(match.substr(slash + 1))) != iptables::number(match)) {
        continue;
      }
      next = after(rule, "-g");
      break;
    }
    if (next.empty() || next == name) return {};
    name = std::move(next);
  }
  return name;
}

}  // namespace

std::vector<std::pair<sdk::Mac, std::uint32_t>> peers_in(const Chains& mangle) {
  std::vector<std::pair<sdk::Mac, std::uint32_t>> out;
  for (const auto& [name, rules] : mangle) {
    if (name.rfind(std::string(kChainPrefix) + "PEER", 0) != 0) continue;
    for (const std::string& rule : rules) {
      sdk::Mac m{};
      const std::string text = after(rule, "--mac-source"), mark = after(rule, "--set-xmark");
      if (std::sscanf(text.c_str(), "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &m[0], &m[1], &m[2], &m[3],
                      &m[4], &m[5]) == 6 &&
          !mark.empty()) {
        out.emplace_back(m, number(mark));
      }
    }
  }
  return out;
}

std::uint32_t action_in(std::uint32_t mark, const Marks& marks) {
  const std::uint32_t kind = mark & marks.slot_mask();
  if (kind == marks.value(Slot::kSteer)) return mark & kIdMask;
  if (kind == marks.value(Slot::kOwn)) return common::kNodeIpNumber;
  return kind == 0 ? common::kBypassNumber : common::kDropNumber;
}

namespace {

// Class number -> what its pods' packets to all other destinations are given, unless they are left
// alone.
std::map<std::uint32_t, std::uint32_t> rests_in(Table t, const SetContents& sets,
                                                const Marks& marks) {
  std::map<std::uint32_t, std::uint32_t> out;
  const auto pods = sets.find(set_name(t, "pods")), rest = sets.find(set_name(t, "rest"));
  if (pods == sets.end() || rest == sets.end()) return out;
  for (const auto& [key, mark] : rest->second.elements) {
    const auto pod = pods->second.elements.find(key);
    const std::uint32_t action = action_in(mark.value, marks);
    if (pod == pods->second.elements.end() || action == common::kBypassNumber) continue;
    if ((pod->second.value & marks.slot_mask()) != value(marks, Kind::kClass)) continue;
    out.emplace(pod->second.value & kIdMask, action);
  }
  return out;
}

}  // namespace

std::vector<std::pair<common::ClassEntries, ClassPlace>> classes_in(Table t,
                                                                    const SetContents& sets,
                                                                    const Marks& marks) {
  std::vector<std::pair<common::ClassEntries, ClassPlace>> out;
  const std::string prefix = set_name(t, "who");
  const auto rests = rests_in(t, sets, marks);
  for (const auto& [name, who] : sets) {
    if (name.rfind(prefix, 0) != 0) continue;
    const std::string group = name.substr(prefix.size());
    const auto what = sets.find(set_name(t, "what" + group));
    if (what == sets.end()) continue;
    std::map<std::uint32_t, common::ClassEntries> classes;
    for (const auto& [key, mark] : who.elements) {
      const auto action = what->second.elements.find(key);
      if (action == what->second.elements.end()) continue;
      common::ClassEntries& entries = classes[mark.value];
      if (const auto rest = rests.find(mark.value); entries.empty() && rest != rests.end()) {
        entries.push_back(
            {*sdk::Prefix::parse(t == Table::kIp ? "0.0.0.0/0" : "::/0"), rest->second});
      }
      entries.push_back({key, action_in(action->second.value, marks)});
    }
    for (auto& [number, entries] : classes) {
      out.emplace_back(std::move(entries), ClassPlace{number, iptables::number(group)});
    }
  }
  return out;
}

ClassGroups classes_ruled(Table t, const Chains& mangle, const SetContents& sets,
                          const Marks& marks) {
  ClassGroups out;
  for (const auto& [content, place] : classes_in(t, sets, marks)) {
    const std::string group = std::string(kChainPrefix) + "G" + std::to_string(place.group);
    if (group_of(mangle, place.number) == group) out.emplace_back(place.number, place.group);
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::map<std::uint32_t, sdk::Address> sources_in(const Chains& nat) {
  std::map<std::uint32_t, sdk::Address> out;
  for (const auto& [name, rules] : nat) {
    if (name.rfind(std::string(kChainPrefix) + "SNAT-ID", 0) != 0) continue;
    for (const std::string& rule : rules) {
      const auto address = sdk::Address::parse(after(rule, "--to-source"));
      if (address) out[number(after(rule, "--mark")) & kIdMask] = *address;
    }
  }
  return out;
}

}  // namespace egw::iptables
