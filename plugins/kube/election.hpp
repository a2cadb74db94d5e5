// The leader election of the plugin; the work is done by a Campaign.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "api.hpp"
#include "campaign.hpp"
#include "config.hpp"
#include "egw/sdk/leader_election.hpp"

namespace egw::kube {

class KubeElection : public sdk::LeaderElection {
 public:
  KubeElection(std::string_view config_json, std::string_view identity, sdk::Host host);

  sdk::Status campaign(sdk::ElectionSink sink) override;
  void resign() override { campaign_.reset(); }
  sdk::Status health() override;

 private:
  [[nodiscard]] std::string ns() const;
  [[nodiscard]] sdk::Status led();

  const ElectionConfig config_;
  const std::string identity_;
  const sdk::Host host_;
  Api api_;
  std::unique_ptr<Campaign> campaign_;
};

}  // namespace egw::kube
