// SliceKeeper: keeps the endpoint slices in the store as core::EndpointSlices wants them. Called by
// the controller, which says when it leads and when its world has changed.
//
// Only the leader reads pods and slices, from when its first plans have settled until it leaves
// office. Nothing waits for a slice: changes are gathered for kGatherMs, one write is under way at
// a time, and none begins while the controller makes its own (busy). Where slices are switched off,
// those that are there are deleted and no pod is read.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "egw/core/endpoint_slices.hpp"
#include "egw/host/state_store.hpp"
#include "egw/model/settings.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/logging.hpp"
#include "egw/runtime/metrics.hpp"

namespace egw::runtime {

class SliceKeeper {
 public:
  static constexpr std::int64_t kGatherMs = 300;
  static constexpr std::int64_t kRefusedMs = 60'000;  // until a refused write is tried again
  static constexpr std::int64_t kToldMs = 600'000;    // until the same trouble is told again

  SliceKeeper(const boost::asio::any_io_executor& executor, Clock& clock, Logger& log,
              Metrics& metrics, host::StateStore& store, const model::Settings& settings,
              const model::World& world);
  ~SliceKeeper();

  void lead(std::uint64_t term);  // 0: no longer
  [[nodiscard]] bool leading() const { return term_ != 0; }
  void world_changed();  // policies or namespaces
  void busy(bool on);
  boost::asio::awaitable<void> run();  // until stop()
  void stop();

 private:
  struct Office;

  boost::asio::awaitable<void> serve(std::shared_ptr<Office> office);
  boost::asio::awaitable<bool> follow(std::shared_ptr<Office> office, model::Kind kind);
  boost::asio::awaitable<bool> until_synced(std::shared_ptr<Office> office);
  boost::asio::awaitable<void> pause(std::shared_ptr<Office> office, std::int64_t ms);
  boost::asio::awaitable<bool> settle(std::shared_ptr<Office> office);
  boost::asio::awaitable<void> make(std::shared_ptr<Office> office, core::EndpointSlices::Job job);
  boost::asio::awaitable<Result<std::uint64_t>> write(const core::EndpointSlices::Job& job);
  boost::asio::awaitable<Result<std::uint64_t>> replace(const core::EndpointSlices::Job& job);
  boost::asio::awaitable<Result<std::uint64_t>> send(host::WriteRequest request);
  void failed(Office& office, const core::EndpointSlices::Job& job, const Error& error);
  [[nodiscard]] bool serving(const Office& office) const;

  boost::asio::any_io_executor executor_;
  Clock& clock_;
  Logger& log_;
  Metrics& metrics_;
  host::StateStore& store_;
  const model::Settings& settings_;
  const model::World& world_;
  Wakeup wakeup_;
  std::shared_ptr<Office> office_;
  std::uint64_t term_ = 0;
  bool busy_ = false;
  bool stopping_ = false;
  Errc told_code_ = Errc::kConflict;  // of the failure that was told last; this one never is
  std::int64_t tell_again_ms_ = 0;
};

}  // namespace egw::runtime
