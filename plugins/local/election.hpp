// The leader election of the plugin; the work is done by a Campaign.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "campaign.hpp"
#include "config.hpp"
#include "database.hpp"
#include "egw/abi/plugin.h"
#include "egw/sdk/leader_election.hpp"

namespace egw::local {

class LocalElection : public sdk::LeaderElection {
 public:
  static constexpr std::uint64_t kCapabilities = EGW_CAP_SINGLE_MACHINE;

  LocalElection(std::string_view config_json, std::string_view identity, sdk::Host host);

  sdk::Status campaign(sdk::ElectionSink sink) override;
  void resign() override;
  sdk::Status health() override;

 private:
  [[nodiscard]] bool led();

  const ElectionConfig config_;
  const std::string identity_;
  const sdk::Host host_;
  Database database_;  // for the opening's checks and health()
  std::unique_ptr<Campaign> campaign_;
};

}  // namespace egw::local
