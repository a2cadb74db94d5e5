// Names, help texts and buckets of the metrics (metrics.hpp).
#include "egw/runtime/metrics.hpp"

#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <utility>

#include "egw/runtime/conntrack_table.hpp"

namespace egw::runtime {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;

const prometheus::Histogram::BucketBoundaries kSeconds{
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};

prometheus::Histogram& histogram(prometheus::Registry& registry, const char* name,
                                 const char* help) {
  return BuildHistogram().Name(name).Help(help).Register(registry).Add({}, kSeconds);
}
prometheus::Gauge& gauge(prometheus::Registry& registry, const char* name, const char* help) {
  return BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

// Letters, digits and underscores; anything else would break the exposition format.
std::string clean(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    out += plain ? c : '_';
  }
  return out;
}

std::vector<prometheus::ClientMetric::Label> parse_labels(std::string_view text) {
  std::vector<prometheus::ClientMetric::Label> labels;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const auto pair = text.substr(0, comma);
    const auto equals = pair.find('=');
    if (equals != std::string_view::npos && equals > 0) {
      prometheus::ClientMetric::Label label;
      label.name = clean(pair.substr(0, equals));
      label.value = std::string(pair.substr(equals + 1));
      labels.push_back(std::move(label));
    }
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  return labels;
}

double resident_bytes() {
  std::ifstream statm("/proc/self/statm");  // proc(5): size, resident, ... in pages
  double size = 0;
  double resident = 0;
  statm >> size >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

prometheus::MetricFamily resident_family() {
  prometheus::MetricFamily family;
  family.name = "process_resident_memory_bytes";
  family.help = "Resident memory size in bytes.";
  family.type = prometheus::MetricType::Gauge;
  prometheus::ClientMetric metric;
  metric.gauge.value = resident_bytes();
  family.metric.push_back(std::move(metric));
  return family;
}

}  // namespace

Metrics::Metrics(const std::string& role, const std::string& version)
    : store_events_(BuildCounter()
                        .Name("egw_store_events_total")
                        .Help("Objects received from the state store, by kind.")
                        .Register(registry_)),
      decode_errors_(BuildCounter()
                         .Name("egw_decode_errors_total")
                         .Help("Objects that could not be read and were skipped, by kind.")
                         .Register(registry_)),
      store_writes_(BuildCounter()
                        .Name("egw_store_writes_total")
                        .Help("Writes to the state store, by kind and result.")
                        .Register(registry_)),
      store_connected_(gauge(registry_, "egw_store_connected",
                             "1 while the state store is reachable and its content complete.")),
      plugins_healthy_(BuildGauge()
                           .Name("egw_plugin_healthy")
                           .Help("1 while the plugin says that it is well.")
                           .Register(registry_)),
      events_dropped_(BuildCounter()
                          .Name("egw_events_dropped_total")
                          .Help("Events that could not be stored: too many, or refused.")
                          .Register(registry_)
                          .Add({})) {
  BuildGauge()
      .Name("egw_build_info")
      .Help("Version and role of this process.")
      .Register(registry_)
      .Add({{"role", role}, {"version", version}})
      .Set(1);
  if (role == "agent") {
    applies_ = &BuildCounter()
                    .Name("egw_applies_total")
                    .Help("Desired states given to the datapath, by mode and result.")
                    .Register(registry_);
    apply_seconds_ = &histogram(registry_, "egw_apply_seconds", "Time that the datapath took.");
    compile_seconds_ =
        &histogram(registry_, "egw_compile_seconds", "Time from store content to desired state.");
    repaired_ = &BuildCounter()
                     .Name("egw_repaired_total")
                     .Help("Kernel objects put back after somebody else changed them, by type.")
                     .Register(registry_);
    drifts_ = &BuildCounter()
                   .Name("egw_drifts_total")
                   .Help("Times the datapath noticed a change of its kernel objects by others.")
                   .Register(registry_)
                   .Add({});
    owned_ = &gauge(registry_, "egw_eips_owned", "Egress IPs that the store gives to this node.");
    announced_ = &gauge(registry_, "egw_eips_announced", "Egress IPs answered for by this node.");
    endpoints_ = &gauge(registry_, "egw_endpoints", "Selected pod addresses on this node.");
    conflicts_ = &BuildCounter()
                      .Name("egw_eip_conflicts_total")
                      .Help("Claims of an egress IP of this node by a machine that is no gateway.")
                      .Register(registry_)
                      .Add({});
  } else {
    leader_ = &gauge(registry_, "egw_leader", "1 while this controller is the leader.");
    term_ = &gauge(registry_, "egw_leader_term", "The term that this controller writes with.");
    plan_seconds_ = &histogram(registry_, "egw_plan_seconds", "Time to compute one plan.");
    moves_ = &BuildCounter()
                  .Name("egw_moves_total")
                  .Help("Egress IPs that changed their owner, by reason.")
                  .Register(registry_);
    notices_ = &BuildCounter()
                    .Name("egw_notices_total")
                    .Help("Things worth telling people, by reason.")
                    .Register(registry_);
    tunnels_ =
        &BuildGauge().Name("egw_tunnels").Help("EgressTunnels by phase.").Register(registry_);
  }
}

std::string Metrics::text() const {
  auto families = registry_.Collect();
  families.push_back(resident_family());
  if (applies_ != nullptr) {  // an agent
    for (auto& family : conntrack_families()) families.push_back(std::move(family));
  }
  std::map<std::string, prometheus::MetricFamily> extra;
  for (const auto& [source, values] : external_) {
    for (const auto& value : values) {
      std::string name = "egw_" + clean(value.name);
      if (!name.ends_with("_total")) name += "_total";
      auto& family = extra[name];
      family.type = prometheus::MetricType::Counter;
      family.help = "Counted by the " + source + ".";
      prometheus::ClientMetric metric;
      metric.label = parse_labels(value.labels);
      metric.counter.value = static_cast<double>(value.value);
      family.metric.push_back(std::move(metric));
    }
  }
  for (auto& [name, family] : extra) {
    family.name = name;
    families.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(families);
}

void Metrics::store_event(model::Kind kind) {
  store_events_.Add({{"kind", std::string(model::info(kind).kind)}}).Increment();
}
void Metrics::decode_error(model::Kind kind) {
  decode_errors_.Add({{"kind", std::string(model::info(kind).kind)}}).Increment();
}
void Metrics::store_write(model::Kind kind, std::string_view result) {
  store_writes_
      .Add({{"kind", std::string(model::info(kind).kind)}, {"result", std::string(result)}})
      .Increment();
}
void Metrics::store_connected(bool on) { store_connected_.Set(on ? 1 : 0); }
void Metrics::plugin_healthy(const std::string& plugin, bool on) {
  plugins_healthy_.Add({{"plugin", plugin}}).Set(on ? 1 : 0);
}
void Metrics::event_dropped() { events_dropped_.Increment(); }

void Metrics::apply(bool full, std::string_view result, double seconds) {
  applies_->Add({{"mode", full ? "full" : "delta"}, {"result", std::string(result)}}).Increment();
  apply_seconds_->Observe(seconds);
}
void Metrics::compiled(double seconds) { compile_seconds_->Observe(seconds); }
void Metrics::repaired(const std::string& what, std::uint64_t count) {
  repaired_->Add({{"type", what}}).Increment(static_cast<double>(count));
}
void Metrics::drifted() { drifts_->Increment(); }
void Metrics::agent_state(std::size_t owned, std::size_t announced, std::size_t endpoints) {
  owned_->Set(static_cast<double>(owned));
  announced_->Set(static_cast<double>(announced));
  endpoints_->Set(static_cast<double>(endpoints));
}
void Metrics::conflict() { conflicts_->Increment(); }
void Metrics::external(const std::string& source, std::vector<ExternalCounter> values) {
  external_[source] = std::move(values);
}

void Metrics::leader(bool on, std::uint64_t term) {
  leader_->Set(on ? 1 : 0);
  term_->Set(static_cast<double>(term));
}
void Metrics::planned(double seconds) { plan_seconds_->Observe(seconds); }
void Metrics::moved(const std::string& why) { moves_->Add({{"why", why}}).Increment(); }
void Metrics::notice(const std::string& reason) { notices_->Add({{"reason", reason}}).Increment(); }
void Metrics::tunnels(const std::map<std::string, std::size_t>& by_phase) {
  for (const auto& [phase, count] : by_phase) {
    tunnels_->Add({{"phase", phase}}).Set(static_cast<double>(count));
  }
}

}  // namespace egw::runtime
