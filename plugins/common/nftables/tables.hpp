// Makes our three nftables tables agree with a Desired: by dump and comparison (full), or from the
// difference of two desired states (a step). Order of a change, so that no packet meets half of it:
// new sets and chains, elements, base chains and rewritten chains, removed elements, removed
// chains; most changes need one of these only. What is left for finish() is what nothing in the
// tables leads to any more, but a packet that programs have marked. Called by datapath.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/rtnl.hpp"
#include "desired.hpp"
#include "nft.hpp"

namespace egw::common {

class Tables {
 public:
  // listening(false) before, listening(true) after a change so big that the kernel's events about
  // it would cost more than the change; may be empty.
  Tables(Nft& nft, std::function<void(bool)> listening)
      : nft_(nft), listening_(std::move(listening)) {}

  struct Past {
    const sdk::State& state;
    const Desired& desired;
  };
  // before: what was programmed last; nullptr: nothing known (adoption). Differences in what has
  // stayed wanted count as repairs. changes: endpoints whose verdict in the kernel was another.
  sdk::Status sync(const Past* before, const sdk::State& state, const Desired& desired,
                   Repairs& repairs, std::vector<Nft::ElementFailure>& failures,
                   std::vector<SourceChange>& changes);

  // From `before` to `desired`; the kernel is taken to hold `before`. changes: as compiled by the
  // caller.
  sdk::Status step(const Desired& before, const Desired& desired,
                   const std::vector<SourceChange>& changes,
                   std::vector<Nft::ElementFailure>& failures);
  // Endpoints alone.
  sdk::Status step_sources(const Desired& desired, const std::vector<SourceChange>& changes,
                           std::vector<Nft::ElementFailure>& failures);

  // The last part of a change, after the programs have followed: what they referred to goes.
  // Without it, it stays until the next sync().
  sdk::Status finish(std::vector<Nft::ElementFailure>& failures);

  // The kernel's nftables generation is the one after our last change: nobody touched anything.
  [[nodiscard]] bool untouched();
  // Somebody else committed during our last change, while nobody listened. Asked once.
  [[nodiscard]] bool missed() { return std::exchange(missed_, false); }
  sdk::Status purge();

 private:
  // Text by phase, and within a phase in the order that libnftables needs.
  struct Difference {
    std::string table, sets, chains, rules;  // new things; nothing leads to them yet
    std::vector<Chain> raw;
    std::vector<ElementChange> put;
    std::string change;  // base chains, rewritten chains, refilled sets
    std::vector<ElementChange> drop;
    // By finish():
    std::vector<ElementChange> drop_last;
    std::string flush, delete_sets, delete_chains;

    // Where elements go that are not wanted any more. Programs know classes by number: until they
    // have followed, packets come with the old ones.
    std::vector<ElementChange>& unwanted(const Desired& desired, bool of_classes) {
      return of_classes && desired.ruleset().programs() ? drop_last : drop;
    }
  };
  using Differences = std::array<Difference, 3>;

  void compare(Table t, const KernelTable& kernel, const Past* before, const sdk::State& state,
               const Desired& desired, const Desired::Changed& lists, Difference& out,
               Repairs& repairs, std::vector<SourceChange>& changes);
  void compare_chains(Table t, const KernelTable& kernel, const Desired& desired, Difference& out,
                      Repairs& repairs, bool known);
  void compare_sets(Table t, const KernelTable& kernel, const Past* before, const Desired& desired,
                    const Desired::Changed& lists, Difference& out, Repairs& repairs);
  void compare_sources(Table t, const KernelTable& kernel, const Past* before,
                       const sdk::State& state, const Desired& desired, Difference& out,
                       Repairs& repairs, std::vector<SourceChange>& changes);
  void compare_cluster(Table t, const KernelTable& kernel, const Past* before,
                       const Desired& desired, Difference& out, Repairs& repairs);
  sdk::Status discard_misfits(std::array<KernelTable, 3>& kernel, const Desired& desired);
  // All but the last part, which is kept for finish().
  sdk::Status execute(Differences all, std::vector<Nft::ElementFailure>& failures);
  sdk::Status committed(sdk::Status s);
  sdk::Status run(const Differences& all, std::initializer_list<std::string Difference::*> parts);
  sdk::Status write(const Differences& all, std::vector<ElementChange> Difference::*part,
                    std::vector<Nft::ElementFailure>& failures);
  sdk::Status write_raw(const Differences& all);
  // Does what is in `body`, unheard if it is big.
  sdk::Status unheard(std::size_t size, const std::function<sdk::Status()>& body);
  void step_chains(Table t, const Desired& before, const Desired& desired, Difference& out);
  void step_classes(Table t, const Desired& before, const Desired& desired, Difference& out);
  void remove_chain(Table t, const std::string& name, Difference& out);

  Nft& nft_;
  std::function<void(bool)> listening_;
  struct Known {
    std::unordered_map<std::string, std::uint64_t> chains;  // name -> fingerprint as written
    // name -> fingerprint and the kernel's form of it, learned at the first dump
    std::unordered_map<std::string, std::pair<std::uint64_t, std::uint64_t>> learned;
  };
  std::array<Known, 3> known_;
  Differences last_;  // of the last change, for finish()
  bool missed_ = false;
  std::uint32_t generation_ = 0;  // after our last change; 0: unknown
};

}  // namespace egw::common
