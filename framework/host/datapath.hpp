// Datapath: what the agent sees of a datapath plugin, whatever implements it. One call at a time;
// every call has a deadline, after which it fails with Errc::kTimeout while the plugin's thread may
// still be busy (further calls then fail at once with kUnavailable until it returns). apply, purge
// and hand_over have 30 s, the others 5 s. health fails with kUnavailable and "Degraded: ..." after
// a missed deadline. To be destroyed before the executor's context; that takes at most 2 s.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "egw/model/node_state.hpp"
#include "egw/model/result.hpp"

namespace egw::host {

struct ApplyFailure {
  std::string object;  // "endpoint 10.1.2.3"
  int sys_errno = 0;
  std::string message;
};

struct ApplyOutcome {
  bool need_full = false;
  std::vector<ApplyFailure> failures;
  std::vector<std::pair<std::string, std::uint64_t>> repaired;  // kernel object type, how many
  std::chrono::microseconds took{0};
};

struct SysctlNeed {
  std::string key, value, why;
  bool forwarding = false;
};

struct ProbeFinding {
  bool ok = true;
  std::string code, message;
  bool advisory = false;  // not ok, and yet the plugin says that it can run
};

struct CounterValue {
  std::string name, labels;
  std::uint64_t value = 0;
};

class Datapath {
 public:
  virtual ~Datapath() = default;
  virtual boost::asio::awaitable<Result<std::vector<ProbeFinding>>> probe(
      model::NodeConfig node) = 0;
  virtual boost::asio::awaitable<Result<ApplyOutcome>> apply(model::Change change) = 0;
  virtual boost::asio::awaitable<Result<std::vector<SysctlNeed>>> sysctls() = 0;
  virtual boost::asio::awaitable<Result<nlohmann::json>> observe() = 0;
  virtual boost::asio::awaitable<Result<std::vector<CounterValue>>> counters() = 0;
  virtual boost::asio::awaitable<Result<void>> health() = 0;
  virtual boost::asio::awaitable<Result<void>> forget(model::Address eip) = 0;
  virtual boost::asio::awaitable<Result<void>> purge() = 0;
  // The kernel layout that the plugin has in common with others (abi/plugin.h); empty: none.
  [[nodiscard]] virtual std::string layout() const { return {}; }
  // Whether hand_over() leaves what a datapath of `layout` shares; otherwise it purges.
  [[nodiscard]] virtual bool hands_over_to(const std::string& /*layout*/) const { return false; }
  // Another datapath has programmed `node`: see egw_datapath_ops.
  virtual boost::asio::awaitable<Result<void>> hand_over(model::NodeConfig /*node*/) {
    return purge();
  }
  // Called on the executor given at opening when somebody else changed our kernel state.
  virtual void on_drift(std::function<void(std::string what)> callback) = 0;
  // How many calls in a row missed their deadline; one that still runs counts once per deadline.
  [[nodiscard]] virtual unsigned missed_deadlines() const { return 0; }
};

}  // namespace egw::host
