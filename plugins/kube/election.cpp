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
  const std::string& ns = config_.connection.ns.empty() ? api_.access().ns : config_.connection.ns;
  campaign_ = std::make_unique<Campaign>(api_, config_, ns, identity_, sink, host_);
  return sdk::ok();
}

sdk::Status KubeElection::health() {
  if (api_.heard_within(2 * config_.retry_period)) return sdk::ok();
  return api_.alive(config_.connection.request_timeout);
}

}  // namespace egw::kube
