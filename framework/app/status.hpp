// What `egw status` says: one look at the stored objects, as a report. Pure; called by
// verb_status.cpp.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "egw/app/read_world.hpp"
#include "egw/model/resources.hpp"
#include "egw/model/settings.hpp"

namespace egw::app {

struct StatusInput {
  std::vector<model::EgressGateway> gateways;
  std::vector<model::EgressPolicy> policies;  // both kinds
  std::vector<model::EgressTunnel> tunnels;
  std::vector<model::EgressClusterInfo> infos;
  std::vector<Unreadable> unreadable;
  model::Settings settings;
  std::string leaderless;   // the election's word that nobody leads; empty: it has not said so
  std::string untold;       // why the election does not say who leads; empty: it does
  std::int64_t now_ms = 0;  // Unix time
};

// {"healthy", "leader": {"holder", "term"}, "eips": [...], "tunnels": [...], "problems": [...],
//  "moves": [...]}. Healthy: there are no problems.
[[nodiscard]] nlohmann::json make_status(const StatusInput& input);

// The same for people.
[[nodiscard]] std::string status_text(const nlohmann::json& status);

}  // namespace egw::app
