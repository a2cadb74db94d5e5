// See config.hpp.
#include "config.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "egw/sdk/status.hpp"

namespace egw::kube {

using nlohmann::json;
using std::chrono::milliseconds;

namespace {

[[noreturn]] void refuse(const std::string& key, const std::string& wanted) {
  throw sdk::Failure(sdk::Code::kInvalid, "wanted " + wanted, "config." + key);
}

json parse(std::string_view text, std::set<std::string> known) {
  if (text.empty()) return json::object();
  json config = json::parse(text, nullptr, false);
  if (config.is_null()) return json::object();
  if (!config.is_object()) {
    throw sdk::Failure(sdk::Code::kInvalid, "the configuration must be an object");
  }
  known.insert({"kubeconfig", "context", "serviceAccountFolder", "namespace", "requestTimeout"});
  for (const auto& [key, value] : config.items()) {
    if (known.count(key) == 0) refuse(key, "no such key");
  }
  return config;
}

void read_text(const json& config, const char* key, bool may_be_empty, std::string& out) {
  const auto it = config.find(key);
  if (it == config.end()) return;
  if (!it->is_string() || (!may_be_empty && it->get_ref<const std::string&>().empty())) {
    refuse(key, "a text");
  }
  out = it->get<std::string>();
  if (out.size() > 4000 || out.find('\0') != std::string::npos) refuse(key, "a shorter text");
}

void read_seconds(const json& config, const char* key, double least, double most,
                  milliseconds& out) {
  const auto it = config.find(key);
  if (it == config.end()) return;
  if (!it->is_number() || *it < least || *it > most) {
    refuse(key, "seconds from " + json(least).dump() + " to " + json(most).dump());
  }
  out = milliseconds(std::llround(it->get<double>() * 1000));
}

ConnectionConfig read_connection(const json& config) {
  ConnectionConfig out;
  out.access.service_account_folder = kServiceAccountFolder;
  read_text(config, "kubeconfig", true, out.access.kubeconfig);
  read_text(config, "context", true, out.access.context);
  read_text(config, "serviceAccountFolder", false, out.access.service_account_folder);
  read_text(config, "namespace", true, out.ns);
  // The host gives a call 5 s.
  read_seconds(config, "requestTimeout", 0.1, 4.5, out.request_timeout);
  return out;
}

}  // namespace

StoreConfig parse_store_config(std::string_view text) {
  const json config = parse(text, {"termLease"});
  StoreConfig out;
  out.connection = read_connection(config);
  read_text(config, "termLease", false, out.term_lease);
  return out;
}

ElectionConfig parse_election_config(std::string_view text) {
  const json config = parse(text, {"lease", "leaseDuration", "renewDeadline", "retryPeriod"});
  ElectionConfig out;
  out.connection = read_connection(config);
  read_text(config, "lease", false, out.lease);
  read_seconds(config, "leaseDuration", 1, 3600, out.lease_duration);
  read_seconds(config, "renewDeadline", 0.2, 3600, out.renew_deadline);
  read_seconds(config, "retryPeriod", 0.1, 3600, out.retry_period);
  // A Lease has whole seconds.
  if (out.lease_duration.count() % 1000 != 0) refuse("leaseDuration", "whole seconds");
  // As client-go's LeaderElectionConfig (NewLeaderElector).
  if (out.lease_duration <= out.renew_deadline) {
    refuse("leaseDuration",
           "more than renewDeadline (" + std::to_string(out.renew_deadline.count()) + " ms)");
  }
  if (out.renew_deadline.count() * 10 <= out.retry_period.count() * 12) {
    refuse("renewDeadline",
           "more than 1.2 times retryPeriod (" + std::to_string(out.retry_period.count()) + " ms)");
  }
  return out;
}

}  // namespace egw::kube
