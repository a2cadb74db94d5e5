// WorldSync: keeps a model::World in step with the state store. Called by the agent and the
// controller, each with its own list of subscriptions.
//
// Every subscription begins with a snapshot, again after each reconnect; what a snapshot does not
// name is dropped at its end, not before. While the store is away the World stays as it is. An
// object that cannot be read is logged, counted and skipped: its last good version stays.
//
// One thread: the executor's.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "egw/host/state_store.hpp"
#include "egw/model/world.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/logging.hpp"
#include "egw/runtime/metrics.hpp"

namespace egw::runtime {

class WorldSync {
 public:
  struct Options {
    std::vector<host::Query> queries;
    // Kinds that the store may not have: neither synced() nor connected() waits for them.
    std::vector<host::Query> optional_queries;
    // Something changed: objects of a kind, or (nullopt) synced() or connected(). Must not block;
    // take_changes() later.
    std::function<void(std::optional<model::Kind>)> on_change;
    // false: nobody looks at the statuses of policies. They are not kept, and an event that brings
    // nothing else is no change: the controller writes one for each policy, for people.
    bool policy_statuses = true;
    // Asked when another store than before answers: true, and the World stays what it was, as while
    // the store is away. Absent: the World follows every store.
    std::function<bool()> keeps_store;
    // Whether an EgressTunnel's step from `before` (nullptr: new) is a change worth waking for.
    // Absent: every one is. The World gets the new value either way.
    std::function<bool(const model::EgressTunnel* before, const model::EgressTunnel& after)>
        tunnel_matters;
    // An EgressTunnel as it was when it went, also where another one came in its place at once.
    std::function<void(const model::EgressTunnel& last)> tunnel_gone;
  };

  WorldSync(boost::asio::any_io_executor executor, Clock& clock, Logger& log, Metrics& metrics,
            host::StateStore& store, Options options);
  ~WorldSync();  // as stop()

  void start();
  // Ends the subscriptions; the World stays readable and no longer changes.
  void stop();

  [[nodiscard]] const model::World& world() const;
  [[nodiscard]] bool pending() const;  // take_changes() would return something
  [[nodiscard]] model::Changes take_changes();

  // Every subscription has completed a snapshot at least once.
  [[nodiscard]] bool synced() const;
  // Every subscription is in step now.
  [[nodiscard]] bool connected() const;
  // Steady time since which connected() holds without a gap; 0 while it does not.
  [[nodiscard]] std::int64_t connected_since_ms() const;
  // The store that the World is of (StoreEvent::store); empty: it does not say, or none yet.
  [[nodiscard]] const std::string& store_id() const;
  // Before start(): the World shall be of this store.
  void expect_store(std::string id);
  // Another one that answers in its place and is not taken (Options::keeps_store); empty: none.
  [[nodiscard]] const std::string& other_store() const;
  // Why the store is away, "" when connected.
  [[nodiscard]] std::string trouble() const;
  // The kinds that are not in step while others are, each with why ("": its first snapshot is not
  // complete). None when the store is away altogether.
  [[nodiscard]] std::vector<std::pair<model::Kind, std::string>> behind() const;
  // The newest store revision up to which all changes of that kind are in the World.
  [[nodiscard]] std::uint64_t revision(model::Kind kind) const;

  // How many changes have come as events, not by adopt(): grows.
  [[nodiscard]] std::uint64_t external_changes() const;

  // Takes the answer to a write or read of ours before its event arrives. Ignored if older than
  // what is known, and before the first snapshot of the kind.
  void adopt(model::Kind kind, const host::StoredObject& object);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace egw::runtime
