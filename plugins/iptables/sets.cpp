#include "sets.hpp"

#include <linux/netfilter/ipset/ip_set.h>

#include <algorithm>
#include <cerrno>

namespace egw::iptables {
namespace {

constexpr std::size_t kPodsAtFirst = 1024;

SetKind prefixes(Table t, bool marks) { return {SetType::kPrefixes, t, marks}; }

// What `a` has and `b` has not, or with another mark.
SetElements surplus(const SetElements& a, const SetElements& b, bool marks) {
  SetElements out;
  auto other = b.begin();
  for (const auto& [key, mark] : a) {
    while (other != b.end() && other->first < key) ++other;
    const bool both = other != b.end() && other->first == key;
    if (!both || (marks && other->second != mark)) out.emplace_hint(out.end(), key, mark);
  }
  return out;
}

// What `a` has and `b` has not.
SetElements missing(const SetElements& a, const SetElements& b) { return surplus(a, b, false); }

// The address that nobody may come to from outside; none.
sdk::Address eip_of(Table t, const common::EgressPlan& egress) {
  return egress.serve && egress.guarded ? egress.address[index(t)] : sdk::Address();
}

void failed(const std::string& name, const std::vector<Ipset::Refused>& refused,
            std::vector<SetFailure>& failures) {
  for (const auto& r : refused) failures.push_back({name, r.element, r.error});
}

}  // namespace

std::vector<sdk::Prefix> prefixes_of(const common::AddressRanges& ranges) {
  std::vector<sdk::Prefix> out;
  for (const auto& range : ranges) {
    for (sdk::Address at = range.first;;) {
      unsigned length = at.bits();
      // hash:net takes no /0.
      while (length > 1) {
        const sdk::Prefix wider(at, length - 1);
        if (wider.first() != at || range.last < wider.last()) break;
        --length;
      }
      out.emplace_back(at, length);
      at = out.back().last();
      if (!(at < range.last) || !at.increment()) break;
    }
  }
  return out;
}

SetPlan::SetPlan(const common::Plan& plan, std::array<Groups, 2>& groups,
                 std::vector<common::ObjectFailure>& failures)
    : marks_(plan.marks()) {
  for (const Table t : common::kFamilies) {
    if (!plan.enabled(t)) continue;
    SetContent& cluster = contents_[set_name(t, "cluster")];
    cluster.kind = prefixes(t, false);
    for (const sdk::Prefix& p : prefixes_of(plan.cluster(t))) cluster.elements[p] = {};
    add_classes(plan, t, groups[index(t)], failures);
  }
  set_eips(plan);
}

void SetPlan::set_eips(const common::Plan& plan) {
  for (const Table t : common::kFamilies) {
    contents_.erase(set_name(t, "eips"));
    if (!plan.enabled(t) || !plan.serves()) continue;
    SetContent& eips = contents_[set_name(t, "eips")];
    eips.kind = {SetType::kAddresses, t, false};
    for (const auto& [id, egress] : plan.egresses()) {
      const sdk::Address a = eip_of(t, egress);
      if (a) eips.elements[sdk::Prefix(a, a.bits())] = {};
    }
  }
}

EipChange eip_change(Table t, const common::Plan& before, const common::Plan& after) {
  EipChange out;
  if (!after.enabled(t)) return out;
  common::each_difference(
      before.egresses(), after.egresses(),
      [&](std::uint32_t, const common::EgressPlan* was, const common::EgressPlan* is) {
        const sdk::Address had = was == nullptr ? sdk::Address() : eip_of(t, *was);
        const sdk::Address has = is == nullptr ? sdk::Address() : eip_of(t, *is);
        if (had == has) return;
        if (had) out.gone[sdk::Prefix(had, had.bits())];
        if (has) out.come[sdk::Prefix(has, has.bits())];
      });
  if (out.gone.empty()) return out;
  // An address may belong to several: it goes with the last of them.
  for (const auto& [id, egress] : after.egresses()) {
    const sdk::Address a = eip_of(t, egress);
    if (a) out.gone.erase(sdk::Prefix(a, a.bits()));
  }
  return out;
}

// Within slot and id bits; others stay.
MarkChange SetPlan::action(std::uint32_t number) const {
  const std::uint32_t mask = marks_.slot_mask() | kIdMask;
  if (number == common::kBypassNumber) return {0, mask};
  if (number == common::kNodeIpNumber) return {marks_.value(Slot::kOwn), mask};
  if (number == common::kDropNumber || number > kIdMask) {
    return {value(marks_, Kind::kDropped), mask};
  }
  return {marks_.value(Slot::kSteer) | number, mask};
}

void SetPlan::add_classes(const common::Plan& plan, Table t, Groups& groups,
                          std::vector<common::ObjectFailure>& failures) {
  const std::uint32_t mask = marks_.slot_mask() | kIdMask;
  bool full = false;
  for (const auto& [name, kept] : plan.class_tables(t)) {
    const common::ClassEntries& entries = kept.table->entries;
    const ClassPlace place = groups.place(name, entries);
    PodMarks& marks = targets_[index(t)][name];
    marks.has_first = true;
    if (place.number == 0) {
      full = true;
      marks.first = {value(marks_, Kind::kDropped), mask};
      continue;
    }
    marks.first = {value(marks_, Kind::kClass) | place.number, mask};
    marks.class_number = place.number;
    marks.rest = action(common::kBypassNumber);
    marks.has_rest = true;
    classes_[index(t)].emplace_back(place.number, place.group);
    const std::string n = std::to_string(place.group);
    SetContent& who = contents_[set_name(t, "who" + n)];
    SetContent& what = contents_[set_name(t, "what" + n)];
    who.kind = what.kind = prefixes(t, true);
    for (const common::ClassEntry& e : entries) {
      if (e.prefix.len == 0) {
        marks.rest = action(e.action);
        continue;
      }
      who.elements[e.prefix] = {place.number, 0};  // exclusive or
      what.elements[e.prefix] = action(e.action);
    }
  }
  std::sort(classes_[index(t)].begin(), classes_[index(t)].end());
  if (full) {
    failures.push_back({sdk::ObjectType::kNode, plan.node().name,
                        "more than 16383 different tables of prefixes: the pods of the last are "
                        "dropped; let policies name the same destinations"});
  }
}

PodMarks SetPlan::marks_of(Table t, const std::string& target) const {
  if (target.empty()) return {};
  if (const auto at = targets_[index(t)].find(target); at != targets_[index(t)].end()) {
    return at->second;
  }
  PodMarks out;
  out.has_first = true;
  std::uint32_t number = common::kDropNumber;
  if (target == common::kNodeIpName) number = common::kNodeIpNumber;
  if (target[0] == 'e') {
    number = static_cast<std::uint32_t>(std::strtoul(target.c_str() + 1, nullptr, 10));
  }
  out.first = action(number);
  return out;
}

PodMarks SetPlan::dropped() const {
  PodMarks out;
  out.has_first = true;
  out.first = action(common::kDropNumber);
  return out;
}

ClassGroups with_former(Table t, const ClassGroups& planned, const ClassGroups& ruled,
                        const SetContents& held, const Marks& marks) {
  std::map<std::uint32_t, std::uint32_t> former(ruled.begin(), ruled.end());
  for (const auto& [number, group] : planned) former.erase(number);
  std::erase_if(former, [&](const auto& entry) {
    const std::string group = std::to_string(entry.second);
    return held.count(set_name(t, "who" + group)) == 0 ||
           held.count(set_name(t, "what" + group)) == 0;
  });
  ClassGroups out = planned;
  const auto pods = held.find(set_name(t, "pods"));
  if (former.empty() || pods == held.end()) return out;
  for (const auto& [key, mark] : pods->second.elements) {
    if ((mark.value & marks.slot_mask()) != value(marks, Kind::kClass)) continue;
    if (const auto found = former.extract(mark.value & kIdMask)) {
      out.emplace_back(found.key(), found.mapped());
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

void Sets::read(common::Repairs& repairs) {
  SetContents now;
  for (const auto& [name, header] : ipset_.headers()) {
    if (name == kTemporarySet) continue;
    now[name] = {header.kind, ipset_.elements(name)};
  }
  std::uint64_t repaired = 0;
  for (const auto& [name, written] : held_) {
    const auto at = now.find(name);
    if (at == now.end()) {
      repaired += std::max<std::size_t>(1, written.elements.size());
      continue;
    }
    repaired += surplus(written.elements, at->second.elements, written.kind.marks).size();
    repaired += missing(at->second.elements, written.elements).size();
  }
  if (repaired != 0) repairs["ipset element"] += repaired;
  held_ = std::move(now);
}

void Sets::make(const std::string& name, const SetContent& wanted, std::size_t size) {
  const auto at = held_.find(name);
  if (at != held_.end() && at->second.kind == wanted.kind) return;
  if (at != held_.end()) {
    // Somebody else's idea of our set.
    if (const int error = ipset_.destroy(name); error != 0) {
      throw sdk::Failure(sdk::Code::kInternal,
                         "a set of another type has this name and cannot be removed: " +
                             ipset_error(error) + "; remove the rules that use it",
                         "ipset " + name);
    }
  }
  if (const int error = ipset_.create(name, wanted.kind, size); error != 0) {
    throw sdk::Failure(sdk::Code::kInternal, "cannot be made: " + ipset_error(error),
                       "ipset " + name);
  }
  held_[name] = {wanted.kind, {}};
}

// Exchanged as a whole.
void Sets::replace(const std::string& name, const SetContent& wanted,
                   std::vector<SetFailure>& failures) {
  ipset_.destroy(kTemporarySet);
  int error = ipset_.create(kTemporarySet, wanted.kind, wanted.elements.size());
  if (error == 0) {
    failed(name, ipset_.add(kTemporarySet, wanted.kind, wanted.elements), failures);
    error = ipset_.swap(kTemporarySet, name);
    ipset_.destroy(kTemporarySet);
  }
  if (error != 0) {
    throw sdk::Failure(sdk::Code::kInternal, "cannot be exchanged: " + ipset_error(error),
                       "ipset " + name);
  }
  held_[name].elements = wanted.elements;
}

void Sets::put(const SetContents& wanted, std::vector<SetFailure>& failures) {
  for (const auto& [name, content] : wanted) {
    make(name, content, content.elements.size());
    SetContent& held = held_[name];
    const SetElements more = surplus(content.elements, held.elements, content.kind.marks);
    const bool less = !missing(held.elements, content.elements).empty();
    if (more.empty() && !less) continue;
    // Prefixes without marks are the cluster's: longest prefix does not matter, the moment does.
    if (content.kind.type == SetType::kPrefixes && !content.kind.marks && !held.elements.empty()) {
      replace(name, content, failures);
      continue;
    }
    failed(name, ipset_.add(name, content.kind, more), failures);
    for (const auto& [key, mark] : more) held.elements[key] = mark;
  }
}

void Sets::put_pods(const std::string& name, const SetKind& kind, const SetElements& put,
                    const SetElements& remove, std::vector<SetFailure>& failures) {
  make_pods(name, kind, 0);
  SetElements& held = held_[name].elements;
  if (!put.empty()) {
    failed(name, ipset_.add(name, kind, put), failures);
    for (const auto& [key, mark] : put) held[key] = mark;
  }
  if (remove.empty()) return;
  failed(name, ipset_.remove(name, kind, remove), failures);
  for (const auto& [key, mark] : remove) held.erase(key);
}

void Sets::make_pods(const std::string& name, const SetKind& kind, std::size_t size) {
  make(name, {kind, {}}, std::max(kPodsAtFirst, size));
}

PodChange Sets::pod_change(Table t, const SetElements& pods, const SetElements& rest) const {
  static const SetElements kNone;
  const auto held = [&](const char* what) -> const SetElements& {
    const auto at = held_.find(set_name(t, what));
    return at == held_.end() ? kNone : at->second.elements;
  };
  return {surplus(pods, held("pods"), true), surplus(rest, held("rest"), true),
          missing(held("pods"), pods), missing(held("rest"), rest)};
}

void Sets::change_pods(Table t, PodChange change, std::vector<SetFailure>& failures) {
  const SetKind kind{SetType::kAddresses, t, true};
  const std::string pods = set_name(t, "pods"), rest = set_name(t, "rest");
  // What a class says of all others is there before the class is asked. What lets packets pass
  // takes the place of what does not when the former class is not asked any more.
  SetElements opening;
  make_pods(rest, kind, 0);
  const SetElements& had = held_[rest].elements;
  for (auto at = change.rest.begin(); at != change.rest.end();) {
    const auto element = at++;
    const auto was = had.find(element->first);
    const bool opens = element->second.value == 0 && was != had.end() && was->second.value != 0;
    if (opens) opening.insert(change.rest.extract(element));
  }
  put_pods(rest, kind, change.rest, {}, failures);
  put_pods(pods, kind, change.pods, change.no_pods, failures);
  put_pods(rest, kind, opening, change.no_rest, failures);
}

void Sets::take(const SetContents& wanted, const std::vector<std::string>& keep) {
  static const SetElements kNone;
  for (auto at = held_.begin(); at != held_.end();) {
    const std::string& name = at->first;
    const auto want = wanted.find(name);
    if (want == wanted.end()) {
      if (std::find(keep.begin(), keep.end(), name) != keep.end()) {
        ++at;
        continue;
      }
      if (ipset_.destroy(name) == 0) {
        at = held_.erase(at);
        continue;
      }
      // One that rules still name goes with a later change, and holds nothing until then.
    }
    const SetElements less =
        missing(at->second.elements, want == wanted.end() ? kNone : want->second.elements);
    if (!less.empty()) {
      ipset_.remove(name, at->second.kind, less);
      for (const auto& [key, mark] : less) at->second.elements.erase(key);
    }
    ++at;
  }
}

sdk::Status Sets::purge() {
  held_.clear();
  std::string stays;
  for (const auto& [name, header] : ipset_.headers()) {
    const int error = ipset_.destroy(name);
    if (error != 0) stays += (stays.empty() ? "" : ", ") + name + " (" + ipset_error(error) + ")";
  }
  if (stays.empty()) return sdk::ok();
  return sdk::fail(sdk::Code::kInternal, "sets cannot be removed: " + stays, "purge");
}

std::map<std::string, std::size_t> Sets::counts() const {
  std::map<std::string, std::size_t> out;
  for (const auto& [name, content] : held_) out[name] = content.elements.size();
  return out;
}

}  // namespace egw::iptables
