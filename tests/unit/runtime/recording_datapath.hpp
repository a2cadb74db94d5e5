// A datapath in memory: holds the state that apply gave it, by the rules of
// framework/abi/datapath.h (base, NEED_FULL), and notes what was asked of it. It can be made slow,
// or to fail. For tests of framework/runtime.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "egw/host/datapath.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/eip_keeper.hpp"

namespace egw::test {

class RecordingDatapath final : public host::Datapath {
 public:
  RecordingDatapath(boost::asio::any_io_executor executor, runtime::Clock& clock)
      : executor_(executor), clock_(clock), gate_(executor, clock) {}

  boost::asio::awaitable<Result<std::vector<host::ProbeFinding>>> probe(
      model::NodeConfig node) override;
  boost::asio::awaitable<Result<host::ApplyOutcome>> apply(model::Change change) override;
  boost::asio::awaitable<Result<std::vector<host::SysctlNeed>>> sysctls() override;
  boost::asio::awaitable<Result<nlohmann::json>> observe() override;
  boost::asio::awaitable<Result<std::vector<host::CounterValue>>> counters() override;
  boost::asio::awaitable<Result<void>> health() override;
  boost::asio::awaitable<Result<void>> forget(model::Address eip) override;
  boost::asio::awaitable<Result<void>> purge() override;
  void on_drift(std::function<void(std::string)> callback) override { drift = std::move(callback); }
  [[nodiscard]] unsigned missed_deadlines() const override { return missed; }

  // While closed, apply does not come back.
  void close_gate() { closed_ = true; }
  void open_gate();

  model::NodeState state;  // what "the kernel" holds
  std::uint64_t generation = 0;
  std::optional<model::NodeConfig> probed;
  std::vector<model::Change> applies;
  std::vector<std::string> forgotten;
  std::function<void(std::string)> drift;
  std::deque<Error> errors;  // of the next applies
  std::deque<Error> forget_errors;
  std::vector<host::ApplyFailure> failures;
  std::vector<std::pair<std::string, std::uint64_t>> repairs;
  std::vector<host::ProbeFinding> findings;
  std::vector<host::SysctlNeed> needs;
  std::string unwell;       // what health says; a full apply mends it
  std::string unpurgeable;  // why purge fails; empty: it does not
  unsigned missed = 0;
  int purges = 0;
  int need_fulls = 0;
  int calls_running = 0;
  bool overlapped = false;

 private:
  void take(const model::Change& change);

  boost::asio::any_io_executor executor_;
  runtime::Clock& clock_;
  runtime::Wakeup gate_;
  bool closed_ = false;
};

class RecordingAnnouncer final : public runtime::AnnouncerPort {
 public:
  void set(std::vector<net::AnnouncedEip> wanted) override;
  void set_gateway_macs(std::vector<model::Mac> wanted) override { macs = std::move(wanted); }
  void confirm(const model::Address& address) override { confirmed.push_back(address.to_string()); }
  void mute(bool on) override { muted = on; }
  [[nodiscard]] net::AnnouncerCounters counters() const override { return {}; }
  [[nodiscard]] std::vector<model::Address> silent() const override { return silent_eips; }
  [[nodiscard]] std::vector<net::LostSubnet> lost_subnets() const override { return lost; }
  [[nodiscard]] std::vector<model::Mac> port_macs() const override { return ports; }

  [[nodiscard]] std::vector<std::string> addresses() const;

  std::vector<net::AnnouncedEip> eips;
  std::vector<model::Mac> macs;
  std::vector<model::Mac> ports;
  std::vector<model::Address> silent_eips;
  std::vector<net::LostSubnet> lost;
  std::vector<std::string> confirmed;
  bool muted = false;
  int sets = 0;
};

}  // namespace egw::test
