// One campaign for the leader's office, from campaign() to resign(): a thread with a connection of
// its own. Used by election.cpp.
//
// Two things make a leader. The lock file says at once when a leader has died, because the kernel
// drops a dead process's lock. The row `office` in the database decides: it is taken in a write
// transaction with an epoch above every earlier one and above every term that a write has carried,
// and that epoch becomes the lowest term that the store accepts. The holder raises the row's stamp
// each second. Who sees it unchanged for the stamp timeout, by a clock of his own, takes the office
// without the lock: the holder hangs. When that one goes on, its writes are refused as of a stale
// term, and its next stamp tells it that it has lost.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "config.hpp"
#include "database.hpp"
#include "egw/sdk/leader_election.hpp"
#include "file_watch.hpp"
#include "office_lock.hpp"

namespace egw::local {

class Campaign {
 public:
  Campaign(const ElectionConfig& config, std::string identity, sdk::ElectionSink sink,
           const sdk::Host& host);
  ~Campaign();  // gives the office up; no call of the sink after it
  Campaign(const Campaign&) = delete;
  Campaign& operator=(const Campaign&) = delete;

 private:
  using Pause = std::chrono::milliseconds;

  void run();
  Pause stand();  // without the office; returns when to look again
  Pause lead();   // with it
  Pause stand_in(Session& session);
  void stamp_in(Session& session);
  bool take_office(Session& session, const OfficeRow& seen, bool locked);
  void observe(const OfficeRow& row);
  void step_down(const std::string& reason);
  void vacate();
  Session& session();
  // Runs the body; answers why it failed, or nothing.
  template <class Body>
  std::string attempt(Body&& body);

  const std::string identity_;
  const std::chrono::milliseconds timeout_, period_;
  const sdk::ElectionSink sink_;
  const sdk::Host host_;
  Database database_;
  OfficeLock lock_;
  FileWatch files_;

  bool leading_ = false;
  std::uint64_t epoch_ = 0;          // while leading
  std::uint64_t highest_epoch_ = 0;  // ever seen, also in a database that was replaced since
  SteadyTime confirmed_{};           // when the last successful stamp was begun
  SteadyTime next_stamp_{};
  OfficeRow seen_;           // as a candidate
  SteadyTime seen_since_{};  // since when it has been like that; epoch of the clock: not seen yet
  std::string told_holder_;  // what was observed last
  std::uint64_t told_epoch_ = 0;
  std::string trouble_;
  int tries_ = 0;  // since something happened to the lock file

  std::atomic<bool> stop_{false};
  std::thread thread_;  // last: begins when all else is there
};

}  // namespace egw::local
