// PluginHealth: asks the plugins of a process now and then whether they are well. Called by agent
// and controller, which show it in conditions, /readyz, metrics and the admin API.
//
// One question at a time; a plugin that does not answer in time is unwell (the host says so). An
// answer that changes is logged once.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "egw/model/result.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/logging.hpp"
#include "egw/runtime/metrics.hpp"

namespace egw::runtime {

class PluginHealth {
 public:
  static constexpr std::int64_t kAgainMs = 1000;  // after a bad answer

  using Ask = std::function<boost::asio::awaitable<Result<void>>()>;

  PluginHealth(const boost::asio::any_io_executor& executor, Clock& clock, Logger& log,
               Metrics& metrics, std::int64_t period_ms, std::function<void()> on_change)
      : clock_(clock),
        log_(log),
        metrics_(metrics),
        period_ms_(period_ms),
        on_change_(std::move(on_change)),
        wakeup_(executor, clock) {}

  // Before anything else. plugin: "datapath", "stateStore", "leaderElection".
  void add(std::string plugin, Ask ask);
  boost::asio::awaitable<void> run();  // until stop()
  void stop();
  void again();  // something has changed: asks without waiting for the next round

  // What the plugin said when it was asked last; empty: it is well, or was never asked.
  [[nodiscard]] const std::string& trouble(std::string_view plugin) const;
  // Admin API: {"datapath": "ok", "stateStore": "..."}.
  [[nodiscard]] nlohmann::json state() const;

 private:
  struct Plugin {
    std::string name;
    Ask ask;
    std::string trouble;
  };
  boost::asio::awaitable<void> look_at(std::size_t index);

  Clock& clock_;
  Logger& log_;
  Metrics& metrics_;
  std::int64_t period_ms_;
  std::function<void()> on_change_;
  Wakeup wakeup_;
  std::vector<Plugin> plugins_;
  bool stopping_ = false;
  bool soon_ = false;
};

}  // namespace egw::runtime
