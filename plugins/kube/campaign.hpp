// One campaign for the leader's office, from campaign() to resign(): a thread that reads and renews
// one Lease. Used by election.cpp.
//
// The rules are client-go's. A candidate judges the Lease by when it saw it change, on its own
// steady clock, and takes it when it has not changed for the duration that it says. The holder
// renews it each retry period and gives up by itself when no renewal that it began within the renew
// deadline has succeeded, which is before any other may take it. Every write expects the
// resourceVersion that was read, so of two that reach for it one gets it. Two things are stricter
// than client-go: taking the office again raises leaseTransitions also for the same holder, so that
// an epoch (leaseTransitions + 1; beyond 2^31-1 an annotation counts) never comes twice; and a
// candidate looks again just when the Lease runs out. What the server refuses a candidate is tried
// again after pauses that grow from retryPeriod to leaseDuration.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "api.hpp"
#include "back_off.hpp"
#include "config.hpp"
#include "egw/sdk/leader_election.hpp"
#include "lease.hpp"

namespace egw::kube {

class Campaign {
 public:
  Campaign(Api& api, const ElectionConfig& config, std::string ns, std::string identity,
           sdk::ElectionSink sink, const sdk::Host& host);
  ~Campaign();  // gives the office up; no call of the sink after it
  Campaign(const Campaign&) = delete;
  Campaign& operator=(const Campaign&) = delete;

 private:
  using Time = std::chrono::steady_clock::time_point;
  using Pause = std::chrono::milliseconds;

  void run();
  Pause stand();  // without the office; returns when to look again
  Pause lead();   // with it
  // The Lease, or a null where there is none.
  sdk::Outcome<nlohmann::json> read(Pause deadline, Stop* stop);
  sdk::Outcome<nlohmann::json> store(const nlohmann::json& lease, Pause deadline, Stop* stop);
  // ok(): we lead. kConflict or kExists: another was faster.
  sdk::Status take(nlohmann::json lease, const LeaseRecord& seen);
  void observe(const LeaseRecord& record);
  // kConflict: to be tried again at once.
  sdk::Status renew(Pause deadline);
  void step_down(const std::string& reason);
  void vacate();
  void trouble(const sdk::Status& status);
  [[nodiscard]] std::string now() const;

  Api& api_;
  const ElectionConfig config_;
  const std::string ns_, identity_, what_;
  const sdk::ElectionSink sink_;
  const sdk::Host host_;
  Stop stop_;

  bool leading_ = false;
  bool unsure_ = false;      // a write of ours may have come to the server though we got no answer
  std::uint64_t epoch_ = 0;  // while leading
  std::uint64_t highest_epoch_ = 0;  // ever seen, also of a Lease that was removed since
  Time confirmed_{};                 // when the last successful renewal was begun
  nlohmann::json lease_;             // as it was stored last, while leading
  LeaseRecord seen_;                 // as a candidate
  Time seen_since_{};        // since when it has been like that; epoch of the clock: not yet
  std::string told_holder_;  // what was observed last
  std::uint64_t told_epoch_ = 0;
  bool told_end_ = false;  // of leaseTransitions
  std::string trouble_;
  BackOff refused_;     // between attempts of a candidate that the server does not allow
  std::thread thread_;  // last: begins when all else is there
};

}  // namespace egw::kube
