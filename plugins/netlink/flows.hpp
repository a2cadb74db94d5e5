// Which source a connection of an endpoint gets, by policy, and which tracked connections a change
// has made wrong (decisions 4): a connection's translation is bound by its first packet, so a wrong
// entry must go. Called by datapath.cpp after it has programmed a change.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/conntrack.hpp"
#include "desired.hpp"
#include "tables.hpp"

namespace egw::netlink {

struct Binding {
  enum class Kind : std::uint8_t {
    kNative,  // left alone
    kSteer,   // through the tunnel, own source kept here
    kOwn,     // source made `address` on this node
    kDrop,
  };
  Kind kind = Kind::kNative;
  sdk::Address address;
  friend bool operator==(const Binding&, const Binding&) = default;
};

// What the chain that an endpoint goes to does with a destination. A snapshot: outlives `desired`.
class BindingTable {
 public:
  BindingTable(const Desired& desired, Table t, const std::string& chain);
  [[nodiscard]] Binding of(const sdk::Address& destination) const;
  friend bool operator==(const BindingTable&, const BindingTable&) = default;

 private:
  std::vector<sdk::FlatRange<Binding>> ranges_;
  std::vector<sdk::FlatRange<std::string>> cluster_;
};

// Whether an entry agrees with what it would be bound to if it began now. Native says nothing: the
// host's own rules decide.
[[nodiscard]] bool conforms(const common::Flow& flow, const Binding& binding);

// Sweeps for a change from before (nullptr: unknown) to after. changes: endpoints whose verdict
// changed. Endpoints whose verdict stayed but now means another source are found in `state`.
[[nodiscard]] std::vector<common::Sweep> sweeps(const Desired* before, const Desired& after,
                                                const sdk::State& state,
                                                const std::vector<SourceChange>& changes);

}  // namespace egw::netlink
