// Which source a connection of an endpoint gets, by policy, and which tracked connections a change
// has made wrong: a connection's translation is bound by its first packet, so a wrong
// entry must go. When an egress IP moves, the connection goes on under the same address by another
// way: it is bound anew, and the old binding stays for the answers that still come the old way.
// Called by datapath plugins.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "conntrack.hpp"
#include "plan.hpp"

namespace egw::common {

struct Binding {
  enum class Kind : std::uint8_t {
    kNative,  // left alone
    kSteer,   // through the tunnel, own source kept here
    kOwn,     // source made `address` on this node
    kDrop,
  };
  Kind kind = Kind::kNative;
  sdk::Address address;  // kOwn; kSteer: what the source would be made if this node were the owner
  std::uint32_t id = 0;  // of an egress IP that this node serves or may serve; else 0
  friend bool operator==(const Binding&, const Binding&) = default;
};

// What the chain that an endpoint goes to does with a destination. Made when first asked, because
// few of the endpoints that a change touches have connections; from any thread.
class BindingTable {
 public:
  BindingTable(std::shared_ptr<const Plan> plan, Table t, std::string chain);
  [[nodiscard]] Binding of(const sdk::Address& destination) const;
  friend bool operator==(const BindingTable& a, const BindingTable& b);

 private:
  using Ranges = std::vector<sdk::FlatRange<Binding>>;
  [[nodiscard]] Ranges make() const;
  [[nodiscard]] const Ranges& ranges() const;

  std::shared_ptr<const Plan> plan_;
  Table table_;
  std::string chain_;
  mutable std::once_flag made_;
  mutable Ranges ranges_;
};

// Whether an entry agrees with what it would be bound to if it began now. Native says nothing: the
// host's own rules decide.
[[nodiscard]] bool conforms(const Flow& flow, const Binding& binding);

// An endpoint whose connections may be bound otherwise than they would be now.
struct Suspect {
  using Tables = std::vector<std::shared_ptr<const BindingTable>>;
  Tables past;           // what they may be bound by
  bool unknown = false;  // or by something that is not known
  bool unsure = false;   // or perhaps by nothing else: an agent that starts
  std::shared_ptr<const BindingTable> now;

  void add(std::shared_ptr<const BindingTable> table);
  [[nodiscard]] Fate judge(const Flow& flow, const std::set<sdk::Address>& own) const;
};

class FlowSweep : public Sweep {
 public:
  // Source of other nodes' connections, by the id that is their zone; none: not served any more.
  using Zones = std::map<std::uint16_t, std::array<sdk::Address, 2>>;
  using Suspects = std::unordered_map<sdk::Address, Suspect>;
  FlowSweep(Suspects suspects, Zones zones, std::set<sdk::Address> own, bool leaves_redirected)
      : suspects_(std::move(suspects)),
        zones_(std::move(zones)),
        own_(std::move(own)),
        leaves_redirected_(leaves_redirected) {}

  [[nodiscard]] SweepHint hint() const override;
  [[nodiscard]] Fate judge(const Flow& flow) const override;
  void absorb(Sweep& later) override;

 private:
  Suspects suspects_;
  Zones zones_;
  std::set<sdk::Address> own_;  // egress IPs; for suspects that do not know what was before
  bool leaves_redirected_;
};

// Gathers what changes may have made wrong, until a change has succeeded: what a failed one left
// half done is not forgotten.
class Unswept {
 public:
  // leaves_redirected: the datapath leaves an endpoint's connections with destination NAT alone,
  // wherever they go (it has not EGW_CAP_POST_DNAT).
  explicit Unswept(bool leaves_redirected) : leaves_redirected_(leaves_redirected) {}
  // The kernel was to change from `before` (nullptr: not known) to `after`. changes: endpoints
  // whose verdict changes; those whose verdict stays but now means another source are found in
  // `state`.
  void note(const Plan* before, const Plan& after, const sdk::State& state,
            const std::vector<SourceChange>& changes);
  // It failed: some of `after` may be in force.
  void failed(const Plan& after, const sdk::State& state);
  // The kernel holds `now`, but for the endpoints in `refused`, which stay noted. nullptr: nothing
  // to do.
  [[nodiscard]] std::unique_ptr<FlowSweep> take(const Plan& now, const sdk::State& state,
                                                const std::vector<sdk::Address>& refused);
  // An egress IP has changed its owner: connections go on only after the sweep.
  [[nodiscard]] bool urgent() const { return moved_; }

 private:
  void note_chains(
      const Plan& before, const Plan& after, const sdk::State& state,
      const std::vector<SourceChange>& changes,
      const std::function<std::shared_ptr<const BindingTable>(Table, const std::string&)>& old);
  void note_zones(const Plan* before, const Plan& after);

  FlowSweep::Suspects suspects_;
  std::set<std::uint16_t> zones_;
  bool moved_ = false;
  bool leaves_redirected_;
};

// What tables in the kernel may have bound, read from them before they go.
struct Bound {
  void add(Bound more);

  std::set<std::uint16_t> zones;
  std::set<sdk::Address> eips;
  std::unordered_set<sdk::Address> endpoints;
  std::array<AddressRanges, 2> cluster;
};
// For purge: judges as removable what those may have bound; refers to them.
[[nodiscard]] std::function<Fate(const Flow&)> bound_by(const Bound& held);

}  // namespace egw::common
