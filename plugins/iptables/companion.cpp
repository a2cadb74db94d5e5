#include "companion.hpp"

#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "common/nftables/changes.hpp"
#include "common/nftables/text.hpp"

namespace egw::iptables {

using common::Chain;
using common::Elements;
using common::KernelTable;
using common::SetSpec;

namespace {

std::string table_text(Table t) {
  return std::string(common::keyword(t)) + " " + std::string(kCompanionTable);
}

std::string path(Table t, const std::string& name) {
  return common::place(t, name, kCompanionTable);
}

template <class Table>  // const or not
auto elements_of(Table& table, const std::string& set) -> decltype(&table.sets[0].second) {
  for (auto& [spec, elements] : table.sets) {
    if (spec.name == set) return &elements;
  }
  return nullptr;
}

const Chain* chain_of(const CompanionTable& table, const std::string& name) {
  const auto at = std::find_if(table.chains.begin(), table.chains.end(),
                               [&](const Chain& c) { return c.name == name; });
  return at == table.chains.end() ? nullptr : &*at;
}

// `all` with what `change` wants in place of what it had.
Elements changed(const Elements& all, const CompanionChange& change) {
  const auto by_key = [](const auto& a, const auto& b) { return a.first < b.first; };
  Elements stays, out;
  stays.reserve(all.size());
  out.reserve(all.size() + change.wants.size());
  std::set_difference(all.begin(), all.end(), change.had.begin(), change.had.end(),
                      std::back_inserter(stays), by_key);
  std::merge(stays.begin(), stays.end(), change.wants.begin(), change.wants.end(),
             std::back_inserter(out), by_key);
  return out;
}

bool same_hook(const Chain& wanted, const common::KernelChain& k) {
  if (wanted.hook.has_value() != k.hook.has_value()) return false;
  return !wanted.hook ||
         (k.policy_accept && k.hook->type == wanted.hook->type &&
          k.hook->hook_number == wanted.hook->hook_number &&
          k.hook->priority == wanted.hook->priority && k.hook->device == wanted.hook->device);
}

// A kernel that does not know nf_tables holds no table: nfnetlink has nobody to ask (EINVAL), or
// there is no nfnetlink.
sdk::Status unless_without_nftables(sdk::Status s) {
  const bool without =
      s.sys_errno == EINVAL || s.sys_errno == EOPNOTSUPP || s.sys_errno == EPROTONOSUPPORT;
  return without ? sdk::ok() : std::move(s);
}

}  // namespace

// By phase.
struct Companion::Difference {
  std::string made, chains, rules;  // nothing leads to them yet
  std::vector<Chain> raw;
  std::vector<common::ElementChange> put;
  std::string change;  // base chains and rewritten ones
  std::vector<common::ElementChange> drop;
  std::string flush, gone;
};

sdk::Outcome<std::unique_ptr<Companion>> Companion::open(bool egress) {
  auto nft = common::Nft::open(kCompanionTable);
  if (!nft) return nft.status();
  if (sdk::Status s = (*nft)->try_out(companion_trial(egress)); !s.ok()) return s;
  // Registered before our iptables chains: companion_rules.cpp.
  std::string text;
  for (const Table t : common::kFamilies) {
    text += "add table " + table_text(t) + "\n" +
            common::declare(t, companion_first_chain(), kCompanionTable);
  }
  if (sdk::Status s = (*nft)->run(text); !s.ok()) return s;
  return std::unique_ptr<Companion>(new Companion(std::move(*nft)));
}

sdk::Status Companion::remove(const std::function<void(std::uint32_t id)>& translates) {
  auto nft = common::Nft::open(kCompanionTable);
  if (!nft) return unless_without_nftables(nft.status());
  std::string text;
  try {
    for (const Table t : common::kFamilies) {
      if (!translates) break;
      for (const auto& [id, _] : sources_in((*nft)->elements(t, kSources, false))) translates(id);
    }
    for (const Table t : common::kTables) {
      if ((*nft)->table_exists(t)) text += "delete table " + table_text(t) + "\n";
    }
  } catch (const sdk::Failure& failure) {
    return unless_without_nftables(failure.status());
  }
  if (text.empty()) return sdk::ok();
  sdk::Status s = (*nft)->run(text);
  // What refers to sets is gone when the next transaction begins.
  (*nft)->release_memory();
  return s;
}

std::string Companion::missing() {
  for (const Table t : common::kTables) {
    if (!written_[index(t)].empty() && !nft_->table_exists(t)) return table_text(t);
  }
  return {};
}

KernelTable Companion::held(Table t, bool read) {
  if (read) return nft_->dump(t);
  const CompanionTable& mine = written_[index(t)];
  KernelTable out;
  out.exists = !mine.empty();
  for (const Chain& c : mine.chains) {
    out.chains[c.name] = {
        c.hook, true, 0, c.fingerprint(), static_cast<std::uint32_t>(c.rule_count()), true};
  }
  for (const auto& [spec, elements] : mine.sets) out.sets[spec.name];
  out.counters.insert(mine.counters.begin(), mine.counters.end());
  return out;
}

void Companion::compare_sets(Table t, const CompanionTable& wanted, const KernelTable& kernel,
                             bool read, Difference& out, common::Repairs& repairs) {
  const CompanionTable& mine = written_[index(t)];
  for (const auto& [spec, want] : wanted.sets) {
    const bool there = kernel.sets.count(spec.name) != 0;
    const Elements* past = elements_of(mine, spec.name);
    Elements have;
    if (!there) {
      if (known_ && past != nullptr) ++repairs["nftables set"];
      out.made += common::declare(t, spec, kCompanionTable);
    } else {
      have = read ? nft_->elements(t, spec.name, false) : *past;
    }
    common::ElementChange put, drop;
    common::difference(spec, have, want, put, drop,
                       [&](const std::string& key, const std::string*, const std::string* wants) {
                         if (!read || !known_ || past == nullptr) return;
                         const std::string* was = common::find_element(*past, key);
                         const bool same =
                             was == nullptr || wants == nullptr ? was == wants : *was == *wants;
                         if (same) ++repairs["nftables element"];
                       });
    common::keep(out.put, std::move(put));
    common::keep(out.drop, std::move(drop));
  }
  for (const auto& [name, k] : kernel.sets) {
    if (elements_of(wanted, name) == nullptr) out.gone += "delete set " + path(t, name) + "\n";
  }
}

void Companion::compare_chains(Table t, const CompanionTable& wanted, const KernelTable& kernel,
                               bool read, Difference& out, common::Repairs& repairs) {
  Learned& learned = learned_[index(t)];
  for (const Chain& c : wanted.chains) {
    const std::uint64_t fingerprint = c.fingerprint();
    const Chain* mine = chain_of(written_[index(t)], c.name);
    const bool settled = known_ && mine != nullptr && mine->fingerprint() == fingerprint;
    const auto at = kernel.chains.find(c.name);
    const bool there = at != kernel.chains.end() && same_hook(c, at->second);
    if (there) {
      const common::KernelChain& k = at->second;
      const auto form = learned.find(c.name);
      const bool known_form = form != learned.end() && form->second.first == fingerprint;
      if (k.consistent && k.claimed == fingerprint && k.rules == c.rule_count() &&
          (!read || !known_form || form->second.second == k.content)) {
        if (read) learned[c.name] = {fingerprint, k.content};
        continue;
      }
    }
    if (settled) ++repairs["nftables chain"];
    learned.erase(c.name);
    if (!c.raw.empty()) out.raw.push_back(c);
    if (there) {
      if (c.raw.empty()) out.change += "flush chain " + path(t, c.name) + "\n";
    } else {
      if (at != kernel.chains.end()) {
        out.change += "flush chain " + path(t, c.name) + "\ndelete chain " + path(t, c.name) + "\n";
      }
      (c.hook ? out.change : out.chains) += common::declare(t, c, kCompanionTable);
    }
    (there || c.hook ? out.change : out.rules) += common::rules_text(t, c, kCompanionTable);
  }
  for (const auto& [name, k] : kernel.chains) {
    if (chain_of(wanted, name) != nullptr) continue;
    if (known_ && chain_of(written_[index(t)], name) == nullptr) ++repairs["nftables chain"];
    out.flush += "flush chain " + path(t, name) + "\n";
    out.gone = "delete chain " + path(t, name) + "\n" + out.gone;
    learned.erase(name);
  }
}

void Companion::compare(Table t, const CompanionTable& wanted, bool read, Difference& out,
                        common::Repairs& repairs) {
  KernelTable kernel = held(t, read);
  if (wanted.empty()) {
    if (kernel.exists) out.gone += "delete table " + table_text(t) + "\n";
    return;
  }
  const bool misfit =
      read && std::any_of(wanted.sets.begin(), wanted.sets.end(), [&](const auto& s) {
        const auto at = kernel.sets.find(s.first.name);
        return at != kernel.sets.end() && (at->second.key_length != s.first.key_length ||
                                           at->second.data_length != s.first.data_length);
      });
  if (misfit) {
    out.made += "delete table " + table_text(t) + "\n";
    kernel = KernelTable();
  }
  if (!kernel.exists) {
    if (known_ && !written_[index(t)].empty()) ++repairs["nftables table"];
    out.made += "add table " + table_text(t) + "\n";
  }
  for (const std::string& name : wanted.counters) {
    if (kernel.counters.count(name) == 0) out.made += "add counter " + path(t, name) + "\n";
  }
  compare_sets(t, wanted, kernel, read, out, repairs);
  compare_chains(t, wanted, kernel, read, out, repairs);
}

sdk::Status Companion::execute(const std::array<Difference, 3>& all) {
  const auto run = [&](std::initializer_list<std::string Difference::*> parts) {
    std::string text;
    for (const auto part : parts) {
      for (const Difference& d : all) text += d.*part;
    }
    return text.empty() ? sdk::ok() : nft_->run(text);
  };
  const auto write = [&](std::vector<common::ElementChange> Difference::*part) {
    std::vector<common::Nft::ElementFailure> failures;
    sdk::Status s = nft_->write({&(all[0].*part), &(all[1].*part), &(all[2].*part)}, failures);
    if (!s.ok() || failures.empty()) return s;
    return sdk::fail(sdk::Code::kInternal, "the kernel refused an element",
                     "nftables set " + failures[0].set, failures[0].error);
  };
  using D = Difference;
  sdk::Status s = run({&D::made, &D::chains, &D::rules});
  const bool raw = std::any_of(all.begin(), all.end(), [](const D& d) { return !d.raw.empty(); });
  if (s.ok() && raw) s = nft_->write_raw({all[0].raw, all[1].raw, all[2].raw});
  if (s.ok()) s = write(&D::put);
  if (s.ok()) s = run({&D::change});
  if (s.ok()) s = write(&D::drop);
  if (s.ok()) s = run({&D::flush, &D::gone});
  return s;
}

sdk::Status Companion::apply(CompanionTables wanted, bool read, common::Repairs& repairs) {
  std::array<Difference, 3> all;
  read = read || !known_;
  for (const Table t : common::kTables) {
    compare(t, wanted[index(t)], read, all[index(t)], repairs);
  }
  sdk::Status s = execute(all);
  known_ = s.ok();
  written_ = s.ok() ? std::move(wanted) : CompanionTables();
  return s;
}

sdk::Status Companion::step(const std::vector<CompanionChange>& changes) {
  std::array<Difference, 3> all;
  for (const CompanionChange& c : changes) {
    common::ElementChange put, drop;
    SetSpec spec;
    spec.name = c.set;
    common::difference(spec, c.had, c.wants, put, drop, {});
    common::keep(all[index(c.table)].put, std::move(put));
    common::keep(all[index(c.table)].drop, std::move(drop));
  }
  sdk::Status s = execute(all);
  known_ = s.ok();
  if (!s.ok()) written_ = {};
  for (const CompanionChange& c : changes) {
    Elements* mine = elements_of(written_[index(c.table)], c.set);
    if (mine != nullptr) *mine = changed(*mine, c);
  }
  return s;
}

}  // namespace egw::iptables
