// Programmer: World -> core::Compiler -> datapath, for one node. Called by the agent, which runs
// its loop and reads its status.
//
// It acts on the first change at once; what arrives while an apply runs is merged and applied next.
// A delta where the datapath holds the last state; everything after opening, every 30 s, after a
// failure, and at once when somebody else has changed the kernel. Datapath calls never overlap.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "egw/core/compile.hpp"
#include "egw/host/datapath.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/eip_keeper.hpp"
#include "egw/runtime/metrics.hpp"
#include "egw/runtime/sysctls.hpp"
#include "egw/runtime/world_sync.hpp"

namespace egw::runtime {

struct ProgrammerStatus {
  bool programmed = false;           // one apply has succeeded since the start
  unsigned missed = 0;               // deadlines missed in a row
  std::string refused;               // why probe forbids running; empty: it does not
  std::vector<std::string> remarks;  // what probe has against the host, without forbidding to run
  std::string error;                 // why the last apply failed as a whole; empty: it did not
  std::vector<host::ApplyFailure> failures;  // objects that could not be programmed
  std::vector<SysctlProblem> sysctls;
  std::string settings_error;  // the plugin does not say which settings it needs; empty: it does
  model::Mac tunnel_mac{};     // of the device, as the last apply made it
  model::Realised realised;
  bool realised_urgent = false;  // a gateway or policy change was realised: report it at once
  std::uint64_t generation = 0;
  std::int64_t last_apply_ms = 0;     // steady; 0: never
  std::int64_t failing_since_ms = 0;  // steady; 0: the last apply did not fail as a whole
  std::int64_t last_took_us = 0;
};

class Programmer {
 public:
  struct Options {
    model::Settings settings;
    std::string node_name;
    std::int64_t full_every_ms = 30'000;
    std::int64_t probe_again_ms = 5'000;
    std::int64_t drift_gap_ms = 250;  // between two full applies that drift asks for
  };

  Programmer(boost::asio::any_io_executor executor, Clock& clock, Logger& log, Metrics& metrics,
             WorldSync& sync, host::Datapath& datapath, Sysctls& sysctls, EipKeeper& keeper,
             Options options, std::function<void()> on_status);
  ~Programmer();

  boost::asio::awaitable<void> run();  // until stop()
  void stop();
  void wake();
  // Stops announcing what the store has taken away, whatever the datapath is busy with.
  void withdraw();  // the World may have changed
  void set_local(core::LocalNode local);
  // The next apply is a full one, and at once.
  void apply_all();
  // Into the metrics; also when an interface has come or gone.
  void count_eips();
  // true: nothing more is programmed, and purge() may be called. false: everything is, from
  // scratch.
  void hold(bool on);
  // Precondition: held. Takes everything out of the kernel and gives the host its settings back.
  boost::asio::awaitable<Result<void>> purge();

  [[nodiscard]] const ProgrammerStatus& status() const { return status_; }
  // Something that the store has said is not in the kernel yet.
  [[nodiscard]] bool behind() const { return status_.programmed && (stepping_ || sync_.pending()); }
  // For how long every apply has failed as a whole; 0: the last one did not.
  [[nodiscard]] std::int64_t failing_ms() const {
    return status_.failing_since_ms == 0 ? 0 : clock_.steady_ms() - status_.failing_since_ms;
  }
  void realised_reported() { status_.realised_urgent = false; }
  [[nodiscard]] const core::Compiler* compiler() const { return compiler_.get(); }
  // The own tunnel has an address of each family that is switched on.
  [[nodiscard]] bool has_tunnel_address() const;

  boost::asio::awaitable<Result<nlohmann::json>> observe();
  boost::asio::awaitable<Result<std::vector<host::CounterValue>>> counters();
  boost::asio::awaitable<Result<void>> forget(model::Address eip);
  boost::asio::awaitable<Result<void>> health();

 private:
  [[nodiscard]] bool can_compile();
  boost::asio::awaitable<bool> probe();
  boost::asio::awaitable<void> look_around();
  void remember_remarks(const std::vector<host::ProbeFinding>& findings, bool advisory);
  boost::asio::awaitable<void> step();
  boost::asio::awaitable<bool> apply(model::Change change);
  boost::asio::awaitable<void> tune(bool complete);
  void applied(const host::ApplyOutcome& outcome, std::vector<host::ApplyFailure> standing);
  void failed(const Error& error);
  [[nodiscard]] std::int64_t next_look() const;
  [[nodiscard]] std::set<model::Address> eips_of_node(bool mine) const;
  [[nodiscard]] std::set<model::Address> handing_over() const { return eips_of_node(false); }
  void first_apply_done();

  Clock& clock_;
  Logger& log_;
  Metrics& metrics_;
  WorldSync& sync_;
  host::Datapath& datapath_;
  Sysctls& sysctls_;
  EipKeeper& keeper_;
  Options options_;
  std::function<void()> on_status_;
  Wakeup wakeup_;
  AsyncMutex mutex_;
  BackOff back_off_;
  std::unique_ptr<core::Compiler> compiler_;
  std::optional<core::LocalNode> local_;  // not given to the compiler yet
  ProgrammerStatus status_;
  bool stopping_ = false;
  bool held_ = false;
  bool stepping_ = false;
  bool probed_ = false;
  bool need_full_ = true;
  bool drifted_ = false;
  bool owners_touched_ = false;  // by changes that are not realised yet
  bool behind_ = false;          // at the last step a kind of the store was not heard of
  std::uint64_t applied_generation_ = 0;
  std::int64_t full_at_ms_ = 0;
  std::int64_t drift_at_ms_ = 0;
  std::int64_t retry_at_ms_ = 0;  // 0: nothing failed
};

}  // namespace egw::runtime
