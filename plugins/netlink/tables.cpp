#include "tables.hpp"

#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <set>

namespace egw::netlink {
namespace {

constexpr std::size_t kBigText = 256 * 1024;
constexpr std::size_t kBigChange = 2000;  // elements and rules

std::size_t index(Table t) { return static_cast<std::size_t>(t); }

std::string place(Table t, const std::string& name) {
  return std::string(keyword(t)) + " " + std::string(kTable) + " " + name;
}

std::string declare(Table t, const Chain& c) {
  std::string out = "add chain " + place(t, c.name);
  if (c.hook) {
    out += " { type " + c.hook->type + " hook " + c.hook->hook;
    if (!c.hook->device.empty()) out += " device \"" + c.hook->device + "\"";
    out += " priority " + std::to_string(c.hook->priority) + "; policy accept; }";
  }
  return out + "\n";
}

std::string rules_text(Table t, const Chain& c) {
  std::string out;
  const std::uint64_t fingerprint = c.fingerprint();
  for (std::size_t i = 0; i < c.rules.size(); ++i) {
    out += "add rule " + place(t, c.name) + " " + c.rules[i] + " comment \"" +
           rule_comment(fingerprint, i, c.rules.size()) + "\"\n";
  }
  return out;
}

std::string elements_text(const VerdictRanges& ranges, bool verdict) {
  std::string out = "{ ";
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    if (i != 0) out += ", ";
    out += range_text(ranges[i], verdict);
  }
  return out + " }";
}

std::string declare(Table t, const SetSpec& s, const VerdictRanges* ranges = nullptr) {
  std::string out =
      std::string("add ") + (s.map ? "map " : "set ") + place(t, s.name) + " { " + s.header + "; ";
  if (ranges != nullptr && !ranges->empty()) {
    out += "elements = " + elements_text(*ranges, s.verdict) + "; ";
  }
  return out + "}\n";
}

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

// Writes what turns `have` into `want`. on_change(key, had, wants): nullptr for absent.
void difference(const SetSpec& spec, const Elements& have, const Elements& want, ElementChange& put,
                ElementChange& drop,
                const std::function<void(const std::string&, const std::string*,
                                         const std::string*)>& on_change) {
  put.set = drop.set = spec.name;
  put.verdict = drop.verdict = spec.verdict;
  auto h = have.begin();
  auto w = want.begin();
  while (h != have.end() || w != want.end()) {
    if (w == want.end() || (h != have.end() && h->first < w->first)) {
      drop.remove.push_back(*h);
      if (on_change) on_change(h->first, &h->second, nullptr);
      ++h;
    } else if (h == have.end() || w->first < h->first) {
      put.add.push_back(*w);
      if (on_change) on_change(w->first, nullptr, &w->second);
      ++w;
    } else {
      if (h->second != w->second) {
        put.remove.push_back(*h);
        put.add.push_back(*w);
        if (on_change) on_change(h->first, &h->second, &w->second);
      }
      ++h;
      ++w;
    }
  }
}

sdk::Address address_of(const std::string& key) {
  sdk::Address out;
  out.family = key.size() == 4 ? 4 : 6;
  std::copy(key.begin(), key.end(), out.bytes.begin());
  return out;
}

std::uint32_t u32_of(const std::string& bytes) {
  std::uint32_t v = 0;
  if (bytes.size() == sizeof(v)) std::memcpy(&v, bytes.data(), sizeof(v));
  return v;
}

// No data of an element.
const std::string kAbsent("absent");

void keep(std::vector<ElementChange>& list, ElementChange change) {
  if (!change.add.empty() || !change.remove.empty()) list.push_back(std::move(change));
}

SetSpec source_spec(Table t) {
  return {"src", true, {}, t == Table::kIp ? 4U : 16U, 4, false, false};
}

}  // namespace

void Tables::compare_chains(Table t, const KernelTable& kernel, const Desired& desired,
                            Difference& out, common::Repairs& repairs, bool known) {
  Known& mine = known_[index(t)];
  std::set<std::string> wanted;
  std::unordered_map<std::string, std::uint64_t> written;
  desired.each_chain(t, [&](const Chain& c) {
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
    const bool same_text = k.consistent && k.claimed == fingerprint && k.rules == c.rules.size();
    if (same_text && (learned == mine.learned.end() || learned->second.first != fingerprint ||
                      learned->second.second == k.content)) {
      mine.learned[c.name] = {fingerprint, k.content};
      return;
    }
    if (settled) ++repairs["nftables rule"];
    out.change += "flush chain " + place(t, c.name) + "\n" + rules_text(t, c);
    mine.learned.erase(c.name);
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

void Tables::compare_ranges(Table t, const KernelTable& kernel, const SetSpec& spec,
                            const VerdictRanges& wanted, bool settled, Difference& out,
                            common::Repairs& repairs) {
  if (kernel.sets.count(spec.name) == 0) {
    if (settled) ++repairs["nftables set"];
    (spec.map ? out.maps : out.sets) += declare(t, spec, &wanted);
    return;
  }
  if (nft_.ranges(t, spec.name, spec.verdict) == wanted) return;
  if (settled) ++repairs["nftables element"];
  out.change += std::string("flush ") + (spec.map ? "map " : "set ") + place(t, spec.name) + "\n";
  if (!wanted.empty()) {
    out.change +=
        "add element " + place(t, spec.name) + " " + elements_text(wanted, spec.verdict) + "\n";
  }
}

void Tables::compare_sets(Table t, const KernelTable& kernel, const Past* before,
                          const sdk::State& state, const Desired& desired, Difference& out,
                          common::Repairs& repairs, std::vector<SourceChange>& changes) {
  std::set<std::string> wanted;
  for (const auto& [dyn, spec] : desired.ruleset().sets(t)) {
    wanted.insert(spec.name);
    const bool there = kernel.sets.count(spec.name) != 0;
    if (!there) out.sets += declare(t, spec);
    const bool source = dyn == Dyn::kSource;
    const Elements have = there ? nft_.elements(t, spec.name, spec.verdict) : Elements();
    const Elements sources = source ? desired.source_elements(state, t) : Elements();
    const Elements& want = source ? sources : desired.elements(t, dyn);
    const auto wanted_before = [&, d = dyn](const std::string& key) -> std::string {
      if (!source) {
        const std::string* found = find_element(before->desired.elements(t, d), key);
        return found == nullptr ? kAbsent : *found;
      }
      const auto at = before->state.endpoints.find(address_of(key));
      if (at == before->state.endpoints.end()) return kAbsent;
      const std::string& chain = before->desired.target(at->second, t);
      return chain.empty() ? kAbsent : register_u32(before->desired.chain_number(t, chain));
    };
    const auto chain_of = [&](const Desired& d, const std::string* number) {
      return number == nullptr ? std::string() : d.chain_name(t, u32_of(*number));
    };
    ElementChange put, drop;
    difference(
        spec, have, want, put, drop,
        [&](const std::string& key, const std::string* had, const std::string* wants) {
          if (source) {
            changes.push_back({address_of(key),
                               chain_of(before != nullptr ? before->desired : desired, had),
                               chain_of(desired, wants)});
          }
          if (before != nullptr && wanted_before(key) == (wants == nullptr ? kAbsent : *wants)) {
            ++repairs["nftables element"];
          }
        });
    keep(out.put, std::move(put));
    keep(out.drop, std::move(drop));
  }
  if (t != Table::kNetdev && desired.ruleset().enabled(t)) {
    const SetSpec cluster = Ruleset::cluster_set(t);
    wanted.insert(cluster.name);
    compare_ranges(t, kernel, cluster, desired.cluster(t),
                   before != nullptr && before->desired.cluster(t) == desired.cluster(t), out,
                   repairs);
    for (const auto& [name, table] : desired.class_tables(t)) {
      const SetSpec spec = Ruleset::class_map(t, name);
      wanted.insert(spec.name);
      compare_ranges(t, kernel, spec, table.ranges,
                     before != nullptr && before->desired.class_tables(t).count(name) != 0, out,
                     repairs);
    }
  }
  for (const auto& [name, k] : kernel.sets) {
    if (wanted.count(name) == 0) out.delete_sets += "delete set " + place(t, name) + "\n";
  }
}

void Tables::compare(Table t, const KernelTable& kernel, const Past* before,
                     const sdk::State& state, const Desired& desired, Difference& out,
                     common::Repairs& repairs, std::vector<SourceChange>& changes) {
  if (!kernel.exists) {
    if (before != nullptr) ++repairs["nftables table"];
    out.table = "add table " + std::string(keyword(t)) + " " + std::string(kTable) + "\n";
  }
  for (const std::string& name : Ruleset::counters(t)) {
    if (kernel.counters.count(name) == 0) out.table += "add counter " + place(t, name) + "\n";
  }
  compare_sets(t, kernel, before, state, desired, out, repairs, changes);
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
    if (fits) continue;
    text += "delete table " + std::string(keyword(t)) + " " + std::string(kTable) + "\n";
    k = KernelTable();
    known_[index(t)] = Known();
  }
  generation_ = generation_ + (text.empty() ? 0 : 1);
  return text.empty() ? sdk::ok() : nft_.run(text);
}

sdk::Status Tables::sync(const Past* before, const sdk::State& state, const Desired& desired,
                         common::Repairs& repairs, std::vector<Nft::ElementFailure>& failures,
                         std::vector<SourceChange>& changes) {
  std::array<KernelTable, 3> kernel;
  generation_ = nft_.generation();
  for (const Table t : kTables) kernel[index(t)] = nft_.dump(t);
  if (sdk::Status s = discard_misfits(kernel, desired); !s.ok()) return s;
  Differences all;
  for (const Table t : kTables) {
    compare(t, kernel[index(t)], before, state, desired, all[index(t)], repairs, changes);
  }
  return execute(all, failures);
}

void Tables::write_chain(Table t, const Chain& chain, bool is_new, Difference& out) {
  Known& mine = known_[index(t)];
  if (is_new) {
    out.chains += declare(t, chain);
    out.rules += rules_text(t, chain);
  } else {
    out.change += "flush chain " + place(t, chain.name) + "\n" + rules_text(t, chain);
  }
  mine.chains[chain.name] = chain.fingerprint();
  mine.learned.erase(chain.name);
}

void Tables::remove_chain(Table t, const std::string& name, Difference& out) {
  out.flush += "flush chain " + place(t, name) + "\n";
  out.delete_chains += "delete chain " + place(t, name) + "\n";
  known_[index(t)].chains.erase(name);
  known_[index(t)].learned.erase(name);
}

void Tables::step_chains(Table t, const Desired& before, const Desired& desired, Difference& out) {
  const auto old_ids = before.chain_ids();
  const auto new_ids = desired.chain_ids();
  const auto same = [&](std::uint32_t id) {
    const auto had = before.egresses().find(id), has = desired.egresses().find(id);
    const bool was = had != before.egresses().end(), is = has != desired.egresses().end();
    if (was == is && (!is || had->second == has->second)) return true;
    return before.egress_chain(t, id).rules == desired.egress_chain(t, id).rules;
  };
  for (const std::uint32_t id : new_ids) {
    const bool is_new = old_ids.count(id) == 0;
    if (is_new || !same(id)) {
      write_chain(t, desired.egress_chain(t, id), is_new, out);
    }
  }
  for (const std::uint32_t id : old_ids) {
    if (new_ids.count(id) == 0) remove_chain(t, "e" + std::to_string(id), out);
  }
  std::set<std::uint32_t> had, has;
  for (const auto& [name, number] : before.peer_numbers()) had.insert(number);
  for (const auto& [name, number] : desired.peer_numbers()) has.insert(number);
  for (const std::uint32_t n : has) {
    if (had.count(n) == 0) write_chain(t, desired.ruleset().peer_chain(n), true, out);
  }
  for (const std::uint32_t n : had) {
    if (has.count(n) == 0) remove_chain(t, "p" + std::to_string(n), out);
  }
  for (const auto& [name, table] : desired.class_tables(t)) {
    if (before.class_tables(t).count(name) != 0) continue;
    const SetSpec spec = Ruleset::class_map(t, name);
    out.maps += declare(t, spec, &table.ranges);
    write_chain(t, desired.ruleset().class_chain(t, name), true, out);
  }
  for (const auto& [name, table] : before.class_tables(t)) {
    if (desired.class_tables(t).count(name) != 0) continue;
    remove_chain(t, name, out);
    out.delete_sets += "delete map " + place(t, Ruleset::class_map(t, name).name) + "\n";
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
    first.add.emplace_back(key, register_u32(desired.chain_number(t, c.after)));
  }
  keep(put, std::move(first));
  keep(drop, std::move(last));
}

}  // namespace

sdk::Status Tables::step(const Desired& before, const Desired& desired,
                         const std::vector<SourceChange>& changes,
                         std::vector<Nft::ElementFailure>& failures) {
  Differences all;
  for (const Table t : kTables) {
    Difference& out = all[index(t)];
    if (t != Table::kNetdev && desired.ruleset().enabled(t)) {
      step_chains(t, before, desired, out);
      add_sources(changes, t, desired, out.put, out.drop);
    }
    for (const auto& [dyn, spec] : desired.ruleset().sets(t)) {
      if (dyn == Dyn::kSource) continue;
      ElementChange put, drop;
      difference(spec, before.elements(t, dyn), desired.elements(t, dyn), put, drop, {});
      keep(out.put, std::move(put));
      keep(out.drop, std::move(drop));
    }
  }
  return execute(all, failures);
}

sdk::Status Tables::step_sources(const Desired& desired, const std::vector<SourceChange>& changes,
                                 std::vector<Nft::ElementFailure>& failures) {
  Differences all;
  for (const Table t : kFamilies) {
    add_sources(changes, t, desired, all[index(t)].put, all[index(t)].drop);
  }
  return execute(all, failures);
}

sdk::Status Tables::execute(const Differences& all, std::vector<Nft::ElementFailure>& failures) {
  const auto committed = [&](sdk::Status s) {
    // The kernel counts transactions; who else commits makes the numbers differ.
    generation_ = s.ok() && generation_ != 0 ? generation_ + 1 : 0;
    return s;
  };
  const auto run = [&](std::initializer_list<std::string Difference::*> parts) {
    std::string text;
    for (const auto part : parts) {
      for (const Difference& d : all) text += d.*part;
    }
    if (text.empty()) return sdk::ok();
    sdk::Status s = committed(nft_.run(text));
    // libnftables keeps a copy of everything it has parsed until the next transaction.
    if (text.size() > kBigText) nft_.release_memory();
    return s;
  };
  const auto write = [&](std::vector<ElementChange> Difference::*part) {
    std::array<const std::vector<ElementChange>*, 3> changes{};
    bool empty = true;
    for (const Table t : kTables) {
      changes[index(t)] = &(all[index(t)].*part);
      empty = empty && changes[index(t)]->empty();
    }
    return empty ? sdk::ok() : committed(nft_.write(changes, failures));
  };
  using D = Difference;
  std::size_t size = 0;
  for (const Difference& d : all) {
    size += (d.chains.size() + d.rules.size() + d.change.size()) / 100;
    for (const ElementChange& c : d.put) size += c.add.size();
    for (const ElementChange& c : d.drop) size += c.remove.size();
  }
  const bool big = size > kBigChange;
  if (big && listening_) listening_(false);
  sdk::Status s = run({&D::table, &D::sets, &D::chains, &D::maps, &D::rules});
  if (s.ok()) s = write(&D::put);
  if (s.ok()) s = run({&D::change});
  if (s.ok()) s = write(&D::drop);
  if (s.ok()) s = run({&D::flush, &D::delete_sets, &D::delete_chains});
  if (big && listening_) {
    listening_(true);
    missed_ = generation_ != 0 && !untouched();
  }
  return s;
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

}  // namespace egw::netlink
