// See election.hpp.
#include "election.hpp"

namespace egw::kube {

using namespace std::chrono_literals;

KubeElection::KubeElection(std::string_view config_json, std::string_view identity, sdk::Host host)
    : config_(parse_election_config(config_json)),
      identity_(identity),
      host_(host),
      api_(find_access(config_.connection.access), host) {
  if (identity_.empty() || identity_.size() > 300) {
    throw sdk::Failure(sdk::Code::kInvalid, "a candidate's identity must have 1 to 300 characters",
                       identity_.substr(0, 300));
  }
}

sdk::Status KubeElection::campaign(sdk::ElectionSink sink) {
  if (campaign_ != nullptr) {
    return sdk::fail(sdk::Code::kInvalid, "the campaign is under way already; resign first",
                     identity_);
  }
  campaign_ = std::make_unique<Campaign>(api_, config_, ns(), identity_, sink, host_);
  return sdk::ok();
}

std::string KubeElection::ns() const {
  return config_.connection.ns.empty() ? api_.access().ns : config_.connection.ns;
}

// By the Lease's own time and this machine's clock, as everybody reads a Lease from outside: to be
// judged without a clock it would have to be watched for as long as it lasts.
sdk::Status KubeElection::led() {
  const std::string what = "Lease " + ns() + "/" + config_.lease;
  HttpRequest request;
  request.path = lease_resource().object(ns(), config_.lease);
  request.deadline = config_.connection.request_timeout;
  const auto lease =
      api_.object(std::move(request), {"get", lease_resource().text(), what}, nullptr);
  if (!lease.ok()) return lease.status();  // not there: nobody has led
  if (held_at(*lease, std::chrono::system_clock::now())) return sdk::ok();
  return sdk::fail(sdk::Code::kNotFound, "nobody leads", what);
}

sdk::Status KubeElection::health() {
  if (campaign_ == nullptr) return led();
  if (api_.heard_within(2 * config_.retry_period)) return sdk::ok();
  return api_.alive(config_.connection.request_timeout);
}

}  // namespace egw::kube
