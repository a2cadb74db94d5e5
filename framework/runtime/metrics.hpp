// The numbers that a process exports at /metrics (Prometheus text format). Used on the loop's
// thread.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "egw/model/meta.hpp"

namespace egw::runtime {

// A number kept elsewhere (the datapath, the announcer) and copied in before a scrape.
struct ExternalCounter {
  std::string name;    // without the "egw_" prefix and the "_total" suffix
  std::string labels;  // "k=v,k=v"
  std::uint64_t value = 0;
};

class Metrics {
 public:
  // role: "agent" or "controller".
  Metrics(const std::string& role, const std::string& version);

  [[nodiscard]] std::string text() const;

  // Both roles.
  void store_event(model::Kind kind);
  void decode_error(model::Kind kind);
  void store_write(model::Kind kind, std::string_view result);  // "ok", "conflict", ...
  void store_connected(bool on);
  void plugin_healthy(const std::string& plugin, bool on);
  void event_dropped();
  // Agent.
  void apply(bool full, std::string_view result, double seconds);
  void compiled(double seconds);
  void repaired(const std::string& what, std::uint64_t count);
  void drifted();
  void agent_state(std::size_t owned, std::size_t announced, std::size_t endpoints);
  void conflict();
  // Replaces the numbers kept elsewhere; `source` tells whose they are.
  void external(const std::string& source, std::vector<ExternalCounter> values);
  // Controller.
  void leader(bool on, std::uint64_t term);
  void planned(double seconds);
  void moved(const std::string& why);
  void notice(const std::string& reason);
  void tunnels(const std::map<std::string, std::size_t>& by_phase);

 private:
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& store_events_;
  prometheus::Family<prometheus::Counter>& decode_errors_;
  prometheus::Family<prometheus::Counter>& store_writes_;
  prometheus::Gauge& store_connected_;
  prometheus::Family<prometheus::Gauge>& plugins_healthy_;
  prometheus::Counter& events_dropped_;
  prometheus::Family<prometheus::Counter>* applies_ = nullptr;
  prometheus::Histogram* apply_seconds_ = nullptr;
  prometheus::Histogram* compile_seconds_ = nullptr;
  prometheus::Family<prometheus::Counter>* repaired_ = nullptr;
  prometheus::Counter* drifts_ = nullptr;
  prometheus::Gauge* owned_ = nullptr;
  prometheus::Gauge* announced_ = nullptr;
  prometheus::Gauge* endpoints_ = nullptr;
  prometheus::Counter* conflicts_ = nullptr;
  prometheus::Gauge* leader_ = nullptr;
  prometheus::Gauge* term_ = nullptr;
  prometheus::Histogram* plan_seconds_ = nullptr;
  prometheus::Family<prometheus::Counter>* moves_ = nullptr;
  prometheus::Family<prometheus::Counter>* notices_ = nullptr;
  prometheus::Family<prometheus::Gauge>* tunnels_ = nullptr;
  std::map<std::string, std::vector<ExternalCounter>> external_;
};

}  // namespace egw::runtime
