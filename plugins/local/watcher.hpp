// Serves all subscriptions of a store instance: one thread, one connection for reading, woken by
// the signal file through inotify. Used by store.cpp.
//
// Order: each wake-up reads the change log once, in one read transaction, and hands every change to
// all subscriptions before the next one; so when a subscription has seen revision R, no other one
// of the same store will see a change at or before R. Of several upserts of one object that were
// written since the last wake-up only the newest is delivered.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "config.hpp"
#include "database.hpp"
#include "egw/sdk/state_store.hpp"
#include "file_watch.hpp"
#include "filter.hpp"

namespace egw::local {

// A verb that only looks must not leave an empty store behind.
[[nodiscard]] inline Database::Make may_make(const sdk::StoreHost& host) {
  return host.existing_only() ? Database::Make::kNever : Database::Make::kIfMissing;
}

class Watcher {
 public:
  // Throws sdk::Failure when the kernel gives no inotify instance.
  Watcher(const FileConfig& config, const sdk::StoreHost& host);
  ~Watcher();  // no event after it has returned
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  std::uint64_t subscribe(const sdk::Query& query, Filter filter, sdk::EventSink sink);
  // No event of that subscription after it has returned; may be called from inside an event.
  void unsubscribe(std::uint64_t subscription);

 private:
  struct Subscription;
  using Subscriptions = std::vector<std::shared_ptr<Subscription>>;

  void run();
  // Returns how long nothing needs to be looked at unless a file says so.
  std::chrono::milliseconds look();
  void deliver(Session& session, const Subscriptions& all);
  void deliver_change(const ChangeLog::Change& change, Subscription& to);
  void deliver_snapshot(Session& session, std::uint64_t revision, Subscription& to);
  void disconnect(const Subscriptions& all, const std::string& why);
  [[nodiscard]] Subscriptions subscriptions();

  const sdk::Host host_;
  Database database_;
  FileWatch files_;

  std::mutex mutex_;  // of the two below
  std::uint64_t last_number_ = 0;
  std::map<std::uint64_t, std::shared_ptr<Subscription>> subscriptions_;

  // The thread's own.
  std::string store_;         // identity of the database that cursor_ belongs to
  std::uint64_t cursor_ = 0;  // everything up to here has been delivered
  std::string trouble_;       // why there is no connection; empty: there is one

  std::atomic<bool> stop_{false};
  std::thread thread_;  // last: begins when all else is there
};

}  // namespace egw::local
