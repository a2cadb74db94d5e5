#include "tables.hpp"

#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <iterator>
#include <set>

#include "changes.hpp"
#include "text.hpp"

namespace egw::common {
namespace {

constexpr std::size_t kBigText = 256UL * 1024;
constexpr std::size_t kBigChange = 2000;  // elements and rules

bool same_set(const SetSpec& wanted, const KernelSet& k) {
  return k.key_length == wanted.key_length && ((k.flags & NFT_SET_MAP) != 0) == wanted.map &&
         ((k.flags & NFT_SET_INTERVAL) != 0) == wanted.interval &&
         (!wanted.map || wanted.verdict == (k.data_type == NFT_DATA_VERDICT)) &&
         (!wanted.map || wanted.verdict || k.data_length == wanted.data_length);
}

bool same_hook(const Chain& wanted, const KernelChain& k) {
  if (wanted.hook.has_value() != k.hook.has_value()) return false;
  if (!wanted.hook) return true;
  // The kernel does not tell the device of a chain with a list of devices; ours have one.
  return k.policy_accept && k.hook->type == wanted.hook->type &&
         k.hook->hook_number == wanted.hook->hook_number &&
         k.hook->priority == wanted.hook->priority && k.hook->device == wanted.hook->device;
}

std::uint32_t u32_of(const std::string& bytes) {
  std::uint32_t v = 0;
  if (bytes.size() == sizeof(v)) std::memcpy(&v, bytes.data(), sizeof(v));
  return v;
}

bool of_classes(Dyn d) { return d == Dyn::kNumber || d == Dyn::kShape; }

// No data of an element.
const std::string kAbsent("absent");

SetSpec source_spec(Table t) {
  return {"endpoints", true, {}, t == Table::kIp ? 4U : 16U, 4, false, false};
}

}  // namespace

void Tables::compare_chains(Table t, const KernelTable& kernel, const Desired& desired,
                            Difference& out, Repairs& repairs, bool known) {
  Known& mine = known_[index(t)];
  std::set<std::string> wanted;
  std::unordered_map<std::string, std::uint64_t> written;
  desired.each_chain(t, [&](Chain c) {
    const std::uint64_t fingerprint = c.fingerprint();
    wanted.insert(c.name);
    written[c.name] = fingerprint;
    const auto before = mine.chains.find(c.name);
    const bool settled = known && before != mine.chains.end() && before->second == fingerprint;
    const auto at = kernel.chains.find(c.name);
    if (at == kernel.chains.end()) {
      if (settled) ++repairs["nftables chain"];
      // A base chain begins to see packets when everything it leads to is there.
      (c.hook ? out.change : out.chains) += declare(t, c);
      (c.hook ? out.change : out.rules) += rules_text(t, c);
      if (!c.raw.empty()) out.raw.push_back(std::move(c));
      return;
    }
    const KernelChain& k = at->second;
    if (!same_hook(c, k)) {
      if (settled) ++repairs["nftables chain"];
      out.change += "flush chain " + place(t, c.name) + "\ndelete chain " + place(t, c.name) +
                    "\n" + declare(t, c) + rules_text(t, c);
      return;
    }
    const auto learned = mine.learned.find(c.name);
    const bool same_text = k.consistent && k.claimed == fingerprint && k.rules == c.rule_count();
    if (same_text && (learned == mine.learned.end() || learned->second.first != fingerprint ||
                      learned->second.second == k.content)) {
      mine.learned[c.name] = {fingerprint, k.content};
      return;
    }
    if (settled) ++repairs["nftables rule"];
    mine.learned.erase(c.name);
    if (c.raw.empty()) {
      out.change += "flush chain " + place(t, c.name) + "\n" + rules_text(t, c);
    } else {
      out.raw.push_back(std::move(c));
    }
  });
  for (const auto& [name, k] : kernel.chains) {
    if (wanted.count(name) != 0) continue;
    if (known && mine.chains.count(name) == 0) ++repairs["nftables chain"];
    out.flush += "flush chain " + place(t, name) + "\n";
    out.delete_chains += "delete chain " + place(t, name) + "\n";
    mine.learned.erase(name);
  }
  mine.chains = std::move(written);
}

// An interval set is rewritten as a whole.
void Tables::compare_cluster(Table t, const KernelTable& kernel, const Past* before,
                             const Desired& desired, Difference& out, Repairs& repairs) {
  const SetSpec spec = Ruleset::cluster_set(t);
  const bool settled = before != nullptr && before->desired.cluster(t) == desired.cluster(t);
  const bool there = kernel.sets.count(spec.name) != 0;
  if (there && nft_.ranges(t, spec.name) == desired.cluster(t)) return;
  if (settled) ++repairs[there ? "nftables element" : "nftables set"];
  std::string& text = there ? out.change : out.sets;
  text += there ? "flush set " + place(t, spec.name) + "\n" : declare(t, spec);
  text += "add element " + place(t, spec.name) + " " + elements_text(desired.cluster(t)) + "\n";
}

void Tables::compare_sources(Table t, const KernelTable& kernel, const Past* before,
                             const sdk::State& state, const Desired& desired, Difference& out,
                             Repairs& repairs, std::vector<SourceChange>& changes) {
  const SetSpec spec = source_spec(t);
  const Elements have =
      kernel.sets.count(spec.name) != 0 ? nft_.elements(t, spec.name, false) : Elements();
  const auto names_now = desired.class_names(t);
  const auto names_before = before != nullptr ? before->desired.class_names(t) : names_now;
  const auto name = [](const auto& names, const std::string* number) {
    if (number == nullptr) return std::string();
    const auto at = names.find(u32_of(*number));
    return at == names.end() ? name_of(u32_of(*number)) : at->second;
  };
  const auto wanted_before = [&](const std::string& key) -> std::string {
    const auto at = before->state.endpoints.find(register_to_address(key));
    if (at == before->state.endpoints.end()) return kAbsent;
    const std::uint32_t number = before->desired.number(at->second, t);
    return number == 0 ? kAbsent : register_u32(number);
  };
  ElementChange put, drop;
  difference(
      spec, have, desired.source_elements(state, t), put, drop,
      [&](const std::string& key, const std::string* had, const std::string* wants) {
        changes.push_back(
            {register_to_address(key), name(names_before, had), name(names_now, wants)});
        if (before != nullptr && wanted_before(key) == (wants == nullptr ? kAbsent : *wants)) {
          ++repairs["nftables element"];
        }
      });
  keep(out.put, std::move(put));
  if (desired.ruleset().enabled(t)) keep(out.drop, std::move(drop));  // else the whole map goes
}

void Tables::compare_sets(Table t, const KernelTable& kernel, const Past* before,
                          const Desired& desired, const Desired::Changed& lists, Difference& out,
                          Repairs& repairs) {
  std::set<std::string> wanted;
  const auto compare = [&](const SetSpec& spec, bool classes, const Elements& want,
                           const Elements* past) {
    const bool there = kernel.sets.count(spec.name) != 0;
    const Elements have = there ? nft_.elements(t, spec.name, spec.verdict) : Elements();
    ElementChange put, drop;
    difference(spec, have, want, put, drop,
               [&](const std::string& key, const std::string*, const std::string* wants) {
                 if (past == nullptr) return;
                 const std::string* was = find_element(*past, key);
                 const bool same =
                     was == nullptr || wants == nullptr ? was == wants : *was == *wants;
                 if (same) ++repairs["nftables element"];
               });
    keep(out.put, std::move(put));
    keep(out.unwanted(desired, classes), std::move(drop));
  };
  const auto declared = [&](const SetSpec& spec) {
    wanted.insert(spec.name);
    if (kernel.sets.count(spec.name) == 0) out.sets += declare(t, spec);
  };
  for (const auto& [dyn, spec] : desired.ruleset().sets(t)) {
    declared(spec);
    if (dyn == Dyn::kSource) continue;
    compare(spec, of_classes(dyn), lists.wants.at(t, dyn),
            before != nullptr ? &lists.had.at(t, dyn) : nullptr);
  }
  if (t != Table::kNetdev && desired.ruleset().enabled(t)) {
    wanted.emplace(Ruleset::kClusterSet);
    const auto past =
        before != nullptr ? before->desired.prefix_elements(t) : std::map<std::uint8_t, Elements>();
    for (const auto& [length, want] : desired.prefix_elements(t)) {
      const SetSpec spec = Ruleset::prefix_map(t, length);
      declared(spec);
      const auto at = past.find(length);
      compare(spec, true, want, at == past.end() ? nullptr : &at->second);
    }
  }
  for (const auto& [name, k] : kernel.sets) {
    if (wanted.count(name) == 0) out.delete_sets += "delete set " + place(t, name) + "\n";
  }
}

void Tables::compare(Table t, const KernelTable& kernel, const Past* before,
                     const sdk::State& state, const Desired& desired, const Desired::Changed& lists,
                     Difference& out, Repairs& repairs, std::vector<SourceChange>& changes) {
  if (!kernel.exists) {
    if (before != nullptr) ++repairs["nftables table"];
    out.table = "add table " + std::string(keyword(t)) + " " + std::string(kTable) + "\n";
  }
  for (const std::string& name : desired.ruleset().counters(t)) {
    if (kernel.counters.count(name) == 0) out.table += "add counter " + place(t, name) + "\n";
  }
  compare_sets(t, kernel, before, desired, lists, out, repairs);
  const bool family = t != Table::kNetdev, enabled = family && desired.ruleset().enabled(t);
  if (enabled) compare_cluster(t, kernel, before, desired, out, repairs);
  // Of a family that is switched off the map goes: what its endpoints had is told.
  const bool sources = enabled || (family && kernel.sets.count(source_spec(t).name) != 0);
  if (sources && !desired.ruleset().programs()) {
    compare_sources(t, kernel, before, state, desired, out, repairs, changes);
  }
  compare_chains(t, kernel, desired, out, repairs, before != nullptr);
}

// Sets of another layout cannot be changed in place: such a table is thrown away first.
sdk::Status Tables::discard_misfits(std::array<KernelTable, 3>& kernel, const Desired& desired) {
  std::string text;
  for (const Table t : kTables) {
    KernelTable& k = kernel[index(t)];
    bool fits = true;
    for (const auto& [dyn, spec] : desired.ruleset().sets(t)) {
      const auto at = k.sets.find(spec.name);
      if (at != k.sets.end() && !same_set(spec, at->second)) fits = false;
    }
    for (const std::uint8_t length : desired.lengths(t)) {
      const SetSpec spec = Ruleset::prefix_map(t, length);
      const auto at = k.sets.find(spec.name);
      if (at != k.sets.end() && !same_set(spec, at->second)) fits = false;
    }
    if (fits) continue;
    text += "delete table " + std::string(keyword(t)) + " " + std::string(kTable) + "\n";
    k = KernelTable();
    known_[index(t)] = Known();
  }
  generation_ = generation_ + (text.empty() ? 0 : 1);
  return text.empty() ? sdk::ok() : nft_.run(text);
}

sdk::Status Tables::sync(const Past* before, const sdk::State& state, const Desired& desired,
                         Repairs& repairs, std::vector<Nft::ElementFailure>& failures,
                         std::vector<SourceChange>& changes) {
  std::array<KernelTable, 3> kernel;
  generation_ = nft_.generation();
  for (const Table t : kTables) kernel[index(t)] = nft_.dump(t);
  if (sdk::Status s = discard_misfits(kernel, desired); !s.ok()) return s;
  Differences all;
  const Desired::Changed lists{before != nullptr ? before->desired.elements() : Lists(),
                               desired.elements()};
  for (const Table t : kTables) {
    compare(t, kernel[index(t)], before, state, desired, lists, all[index(t)], repairs, changes);
  }
  return execute(std::move(all), failures);
}

void Tables::remove_chain(Table t, const std::string& name, Difference& out) {
  out.flush += "flush chain " + place(t, name) + "\n";
  out.delete_chains += "delete chain " + place(t, name) + "\n";
  known_[index(t)].chains.erase(name);
  known_[index(t)].learned.erase(name);
}

// The chains of a node that has begun or ceased to be a gateway.
void Tables::step_chains(Table t, const Desired& before, const Desired& desired, Difference& out) {
  if (before.ruleset().serves() == desired.ruleset().serves()) return;
  std::map<std::string, std::uint64_t> old;
  for (const Chain& c : before.ruleset().fixed_chains(t)) old[c.name] = c.fingerprint();
  for (const Chain& c : desired.ruleset().fixed_chains(t)) {
    const auto was = old.find(c.name);
    const bool there = was != old.end();
    const bool same = there && was->second == c.fingerprint();
    if (there) old.erase(was);
    if (same) continue;
    out.change += there ? "flush chain " + place(t, c.name) + "\n" : declare(t, c);
    out.change += rules_text(t, c);
    known_[index(t)].chains[c.name] = c.fingerprint();
    known_[index(t)].learned.erase(c.name);
  }
  for (const auto& [name, fingerprint] : old) remove_chain(t, name, out);
}

// A class's table never changes: another content is another class. New ones are written before, and
// old ones removed after what leads to them.
void Tables::step_classes(Table t, const Desired& before, const Desired& desired, Difference& out) {
  if (before.same_classes(desired)) return;
  const auto old_lengths = before.lengths(t), new_lengths = desired.lengths(t);
  for (const std::uint8_t length : new_lengths) {
    if (old_lengths.count(length) == 0) out.sets += declare(t, Ruleset::prefix_map(t, length));
  }
  for (const std::uint8_t length : old_lengths) {
    if (new_lengths.count(length) != 0) continue;
    out.delete_sets += "delete map " + place(t, Ruleset::prefix_map(t, length).name) + "\n";
  }
  const auto chains = [](const Desired& d, Table table) {
    std::map<std::string, const Lengths*> names;
    for (const auto& [shape, lengths] : d.shapes(table)) {
      names.emplace(Desired::chain_of(shape, lengths), &lengths);
    }
    return names;
  };
  const auto old_chains = chains(before, t), new_chains = chains(desired, t);
  for (const auto& [name, lengths] : new_chains) {
    if (old_chains.count(name) != 0) continue;
    const Chain chain = desired.ruleset().lengths_chain(t, name, *lengths);
    out.chains += declare(t, chain);
    out.rules += rules_text(t, chain);
    known_[index(t)].chains[name] = chain.fingerprint();
  }
  for (const auto& [name, lengths] : old_chains) {
    if (new_chains.count(name) == 0) remove_chain(t, name, out);
  }
  std::map<std::uint8_t, Elements> new_elements, old_elements;
  const auto collect = [](std::map<std::uint8_t, Elements>& elements) {
    return [&elements](const std::string&, const ClassTables& kept) {
      add_elements(*kept.table, elements);
    };
  };
  each_surplus(desired.class_tables(t), before.class_tables(t), collect(new_elements));
  each_surplus(before.class_tables(t), desired.class_tables(t), collect(old_elements));
  for (auto& [length, elements] : new_elements) {
    keep(out.put, {Ruleset::prefix_map(t, length).name, false, {}, std::move(elements)});
  }
  for (auto& [length, elements] : old_elements) {
    if (new_lengths.count(length) == 0) continue;  // the whole map goes
    keep(out.unwanted(desired, true),
         {Ruleset::prefix_map(t, length).name, false, std::move(elements), {}});
  }
}

namespace {

void add_sources(const std::vector<SourceChange>& changes, Table t, const Desired& desired,
                 std::vector<ElementChange>& put, std::vector<ElementChange>& drop) {
  const SetSpec spec = source_spec(t);
  ElementChange first{spec.name, false, {}, {}}, last{spec.name, false, {}, {}};
  for (const SourceChange& c : changes) {
    if (table_of(c.address) != t || c.before == c.after) continue;
    const std::string key = register_address(c.address);
    if (c.after.empty()) {
      last.remove.emplace_back(key, std::string());
      continue;
    }
    if (!c.before.empty()) first.remove.emplace_back(key, std::string());
    first.add.emplace_back(key, register_u32(desired.number_of(t, c.after)));
  }
  keep(put, std::move(first));
  keep(drop, std::move(last));
}

}  // namespace

sdk::Status Tables::step(const Desired& before, const Desired& desired,
                         const std::vector<SourceChange>& changes,
                         std::vector<Nft::ElementFailure>& failures) {
  Differences all;
  const Desired::Changed lists = Desired::changed(before, desired);
  for (const Table t : kTables) {
    Difference& out = all[index(t)];
    if (t == Table::kNetdev || desired.ruleset().enabled(t)) step_chains(t, before, desired, out);
    if (t != Table::kNetdev && desired.ruleset().enabled(t)) {
      step_classes(t, before, desired, out);
      if (!desired.ruleset().programs()) add_sources(changes, t, desired, out.put, out.drop);
    }
    for (const auto& [dyn, spec] : desired.ruleset().sets(t)) {
      if (dyn == Dyn::kSource) continue;
      ElementChange put, drop;
      difference(spec, lists.had.at(t, dyn), lists.wants.at(t, dyn), put, drop, {});
      keep(out.put, std::move(put));
      keep(out.unwanted(desired, of_classes(dyn)), std::move(drop));
    }
  }
  return execute(std::move(all), failures);
}

sdk::Status Tables::step_sources(const Desired& desired, const std::vector<SourceChange>& changes,
                                 std::vector<Nft::ElementFailure>& failures) {
  Differences all;
  if (desired.ruleset().programs()) return sdk::ok();
  for (const Table t : kFamilies) {
    add_sources(changes, t, desired, all[index(t)].put, all[index(t)].drop);
  }
  return execute(std::move(all), failures);
}

sdk::Status Tables::committed(sdk::Status s) {
  // The kernel counts transactions; who else commits makes the numbers differ.
  generation_ = s.ok() && generation_ != 0 ? generation_ + 1 : 0;
  return s;
}

sdk::Status Tables::run(const Differences& all,
                        std::initializer_list<std::string Difference::*> parts) {
  std::string text;
  for (const auto part : parts) {
    for (const Difference& d : all) text += d.*part;
  }
  if (text.empty()) return sdk::ok();
  sdk::Status s = committed(nft_.run(text));
  // libnftables keeps a copy of everything it has parsed until the next transaction.
  if (text.size() > kBigText) nft_.release_memory();
  return s;
}

sdk::Status Tables::write(const Differences& all, std::vector<ElementChange> Difference::*part,
                          std::vector<Nft::ElementFailure>& failures) {
  TableChanges changes;
  for (const Table t : kTables) changes[index(t)] = all[index(t)].*part;
  sdk::Status s = sdk::ok();
  for (const TableChanges& c : portions(std::move(changes), source_spec(Table::kIp).name)) {
    if (s.ok()) s = committed(nft_.write({&c[0], &c[1], &c[2]}, failures));
  }
  return s;
}

sdk::Status Tables::write_raw(const Differences& all) {
  std::array<std::vector<Chain>, 3> chains;
  bool empty = true;
  for (const Table t : kTables) {
    chains[index(t)] = all[index(t)].raw;
    empty = empty && chains[index(t)].empty();
  }
  return empty ? sdk::ok() : committed(nft_.write_raw(chains));
}

sdk::Status Tables::unheard(std::size_t size, const std::function<sdk::Status()>& body) {
  const bool big = size > kBigChange;
  if (big && listening_) listening_(false);
  sdk::Status s = body();
  if (big && listening_) {
    listening_(true);
    missed_ = missed_ || (generation_ != 0 && !untouched());
  }
  return s;
}

sdk::Status Tables::execute(Differences all, std::vector<Nft::ElementFailure>& failures) {
  using D = Difference;
  std::size_t size = 0;
  for (const Difference& d : all) {
    size += (d.chains.size() + d.rules.size() + d.change.size()) / 100;
    for (const ElementChange& c : d.put) size += c.add.size();
    for (const ElementChange& c : d.drop) size += c.remove.size();
  }
  last_ = {};
  sdk::Status s = unheard(size, [&] {
    sdk::Status done = run(all, {&D::table, &D::sets, &D::chains, &D::rules});
    if (done.ok()) done = write_raw(all);
    if (done.ok()) done = write(all, &D::put, failures);
    if (done.ok()) done = run(all, {&D::change});
    return done.ok() ? write(all, &D::drop, failures) : done;
  });
  if (s.ok()) last_ = std::move(all);
  return s;
}

sdk::Status Tables::finish(std::vector<Nft::ElementFailure>& failures) {
  using D = Difference;
  const Differences last = std::exchange(last_, {});
  std::size_t size = 0;
  for (const Difference& d : last) {
    for (const ElementChange& c : d.drop_last) size += c.remove.size();
  }
  return unheard(size, [&] {
    sdk::Status s = write(last, &D::drop_last, failures);
    return s.ok() ? run(last, {&D::flush, &D::delete_sets, &D::delete_chains}) : s;
  });
}

bool Tables::untouched() {
  const std::uint32_t now = nft_.generation();
  return generation_ != 0 && now == generation_;
}

sdk::Status Tables::purge() {
  known_ = {};
  generation_ = 0;
  std::string text;
  for (const Table t : kTables) {
    const std::string name = std::string(keyword(t)) + " " + std::string(kTable) + "\n";
    if (nft_.table_exists(t)) text += "delete table " + name;
  }
  return text.empty() ? sdk::ok() : nft_.run(text);
}

}  // namespace egw::common
