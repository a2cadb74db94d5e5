// iptables' own programs: which backend this host uses, what our chains hold, and changes as one
// restore per family: each table in it changes at once or not at all. Called by datapath.cpp and
// probe.cpp; text_of() and parse_saved() are pure.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "command.hpp"
#include "egw/sdk/status.hpp"
#include "layout.hpp"
#include "radix.hpp"

namespace egw::iptables {

enum class Xt : std::uint8_t { kRaw = 0, kMangle = 1, kNat = 2 };
inline constexpr std::array<Xt, 3> kXtTables{Xt::kRaw, Xt::kMangle, Xt::kNat};
[[nodiscard]] std::string_view word(Xt table);  // "raw"

// A rule of ours in one of the kernel's own chains.
struct Jump {
  std::string chain;  // "PREROUTING"
  std::string rule;   // without "-A CHAIN"; leads to a chain of ours, by which it is known
  bool last = false;  // behind everybody else's; otherwise before
  // Repairs what rules of others may have done: needed only where there are any.
  bool again = false;
};

// What one table of one family shall hold of ours.
struct XtRules {
  std::vector<Jump> jumps;
  Chains chains;
  [[nodiscard]] bool empty() const { return jumps.empty() && chains.empty(); }
};

// One table as iptables-save prints it: our chains, and the kernel's own as far as we need them.
struct XtSaved {
  Chains chains;  // ours
  // Rules of the kernel's own chains that lead to ours, and where they stand (1 is the first).
  struct Place {
    std::string rule;
    std::size_t position = 0;
  };
  std::map<std::string, std::vector<Place>> jumps;
  std::map<std::string, std::size_t> rules;  // how many, by the kernel's own chain
};
[[nodiscard]] std::array<XtSaved, 3> parse_saved(std::string_view text);
// Asking the legacy backend for a table that is not there would make it, and with it hooks that
// every packet passes.
[[nodiscard]] bool legacy_table_exists(Table t, Xt table);
// Not a family that the host was booted without (ipv6.disable=1): its legacy programs fail there.
[[nodiscard]] bool kernel_has(Table family);

// Packets that rules have dropped, by chain and the REASON of their comment "egw-REASON".
struct DropRule {
  std::string chain, reason;
  friend auto operator<=>(const DropRule&, const DropRule&) = default;
};
using Drops = std::map<DropRule, std::uint64_t>;
// From a text saved with counters.
[[nodiscard]] Drops parse_drops(std::string_view text);

// Sums that only grow, of counters that begin anew whenever their chain is written.
class DropTally {
 public:
  void add(const Drops& now);
  [[nodiscard]] std::map<std::string, std::uint64_t> by_reason() const;

 private:
  Drops last_;
  std::map<std::string, std::uint64_t> before_;
};

// Whether the jumps stand where they shall.
[[nodiscard]] bool jumps_in_place(const XtRules& wanted, const XtSaved& saved);

// A change of one table as restore's text; "" when there is nothing to do. chains: those that are
// written anew; gone: those that are removed after nothing leads to them any more.
struct XtChange {
  Chains chains;
  std::vector<std::string> gone;
  bool jumps = false;  // put them in their places
};
[[nodiscard]] std::string text_of(Xt table, const XtRules& wanted, const XtSaved& saved,
                                  const XtChange& change);

struct Programs {
  std::array<std::string, 2> save, restore;  // by family; absolute paths
};

struct Choice {
  Backend backend = Backend::kNft;
  Programs programs;
  std::string reason;  // in words
};

// What the programs of a backend print.
struct HeldRules {
  bool read = false;        // of any family
  bool kubernetes = false;  // chains that kubelet or kube-proxy leave as a sign
  std::size_t others = 0;   // rules that are not ours
};
// Of backends whose programs are both there: which one, and why in words.
[[nodiscard]] std::pair<Backend, std::string> decide(const HeldRules& nft, const HeldRules& legacy);

class Xtables {
 public:
  explicit Xtables(Choice choice) : choice_(std::move(choice)) {}
  // Looks for the programs and, for kAuto, at what the two backends hold, as kube-proxy does.
  [[nodiscard]] static sdk::Outcome<Choice> choose(Backend wanted);

  [[nodiscard]] const Choice& choice() const { return choice_; }
  // Throw sdk::Failure.
  [[nodiscard]] std::array<XtSaved, 3> saved(Table t) const;
  // Of all tables; a chain's name follows its table's.
  [[nodiscard]] Drops drops(Table t) const;
  // texts of both families. The legacy programs take turns by a lock; kUnavailable: somebody else
  // has held it for `patience` seconds.
  sdk::Status restore(const std::array<std::string, 2>& texts, unsigned patience) const;
  // Waits for that lock. What is written under it comes later, but whoever holds it for long is
  // known before anything is changed.
  sdk::Status await_lock(unsigned patience) const;
  // Whether somebody holds it now.
  [[nodiscard]] bool locked() const;

 private:
  [[nodiscard]] std::string save(Table t, Xt table, bool counters) const;

  Choice choice_;
};

}  // namespace egw::iptables
