// A datapath in memory: holds the state that apply gave it, by the rules of
// framework/abi/datapath.h (base, NEED_FULL), and notes what was asked of it. It can be made slow,
// or to fail. For tests of framework/runtime.
#pragma once

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
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
      model::NodeConfig node) override {
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    probed = std::move(node);
    co_return findings;
  }
  boost::asio::awaitable<Result<host::ApplyOutcome>> apply(model::Change change) override {
    ++calls_running;
    overlapped = overlapped || calls_running > 1;
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    applies.push_back(change);
    while (closed_) co_await gate_.wait();
    --calls_running;
    if (!errors.empty()) {
      Error error = errors.front();
      errors.pop_front();
      if (error.code == Errc::kTimeout) ++missed;
      co_return tl::unexpected(error);
    }
    missed = 0;
    host::ApplyOutcome outcome;
    if (!change.full && change.base != generation) {
      ++need_fulls;
      outcome.need_full = true;
      co_return outcome;
    }
    take(change);
    outcome.failures = failures;
    outcome.repaired = std::exchange(repairs, {});
    co_return outcome;
  }
  boost::asio::awaitable<Result<std::vector<host::SysctlNeed>>> sysctls() override {
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    co_return needs;
  }
  boost::asio::awaitable<Result<nlohmann::json>> observe() override {
    ++calls_running;
    overlapped = overlapped || calls_running > 1;
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    --calls_running;
    nlohmann::json seen = {{"generation", generation}};
    co_return seen;
  }
  boost::asio::awaitable<Result<std::vector<host::CounterValue>>> counters() override {
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    std::vector<host::CounterValue> values{{"packets", "action=snat", 7}};
    co_return values;
  }
  boost::asio::awaitable<Result<void>> health() override {
    ++calls_running;
    overlapped = overlapped || calls_running > 1;
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    --calls_running;
    if (!unwell.empty()) co_return fail(Errc::kUnavailable, "datapath", unwell);
    co_return Result<void>{};
  }
  boost::asio::awaitable<Result<void>> forget(model::Address eip) override {
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    forgotten.push_back(eip.to_string());
    co_return Result<void>{};
  }
  boost::asio::awaitable<Result<void>> purge() override {
    ++calls_running;
    overlapped = overlapped || calls_running > 1;
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    --calls_running;
    ++purges;
    if (!unpurgeable.empty()) co_return fail(Errc::kUnavailable, "datapath", unpurgeable);
    state = {};
    generation = 0;
    co_return Result<void>{};
  }
  void on_drift(std::function<void(std::string)> callback) override { drift = std::move(callback); }
  [[nodiscard]] unsigned missed_deadlines() const override { return missed; }

  // While closed, apply does not come back.
  void close_gate() { closed_ = true; }
  void open_gate() {
    closed_ = false;
    gate_.notify();
  }

  model::NodeState state;  // what "the kernel" holds
  std::uint64_t generation = 0;
  std::optional<model::NodeConfig> probed;
  std::vector<model::Change> applies;
  std::vector<std::string> forgotten;
  std::function<void(std::string)> drift;
  std::deque<Error> errors;  // of the next applies
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
  void take(const model::Change& change) {
    if (change.full) {
      state = {};
      unwell.clear();
    }
    if (change.node) state.node = *change.node;
    for (const auto& peer : change.peers) state.peers[peer.name] = peer;
    for (const auto& egress : change.egresses) state.egresses[egress.id] = egress;
    for (const auto& [id, table] : change.classes) state.classes[id] = table;
    for (const auto& [address, id] : change.endpoints) state.endpoints[address] = id;
    for (const auto& name : change.deleted_peers) state.peers.erase(name);
    for (const auto id : change.deleted_egresses) state.egresses.erase(id);
    for (const auto id : change.deleted_classes) state.classes.erase(id);
    for (const auto& address : change.deleted_endpoints) state.endpoints.erase(address);
    generation = change.generation;
  }

  boost::asio::any_io_executor executor_;
  runtime::Clock& clock_;
  runtime::Wakeup gate_;
  bool closed_ = false;
};

class RecordingAnnouncer final : public runtime::AnnouncerPort {
 public:
  void set(std::vector<net::AnnouncedEip> wanted) override {
    eips = std::move(wanted);
    ++sets;
  }
  void set_gateway_macs(std::vector<model::Mac> wanted) override { macs = std::move(wanted); }
  void confirm(const model::Address& address) override { confirmed.push_back(address.to_string()); }
  void mute(bool on) override { muted = on; }
  [[nodiscard]] net::AnnouncerCounters counters() const override { return {}; }

  [[nodiscard]] std::vector<std::string> addresses() const {
    std::vector<std::string> names;
    for (const auto& eip : eips) names.push_back(eip.address.to_string());
    return names;
  }

  std::vector<net::AnnouncedEip> eips;
  std::vector<model::Mac> macs;
  std::vector<std::string> confirmed;
  bool muted = false;
  int sets = 0;
};

}  // namespace egw::test
