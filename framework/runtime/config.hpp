// What a process of egw runs with, after configuration, options and environment have been merged
// and checked. Filled in by framework/app, read by process.hpp.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "egw/model/settings.hpp"
#include "egw/runtime/logging.hpp"

namespace egw::runtime {

// A plugin chosen by configuration: plugins.<kind>.{name, config}.
struct PluginChoice {
  std::string name;
  nlohmann::json config =
      nlohmann::json::object();  // checked against the plugin's schema by the host
};

// A TCP port that is served; port 0: not at all.
struct Listen {
  std::string address = "0.0.0.0";  // an IPv4 or IPv6 address to bind to
  std::uint16_t port = 0;
};

struct RuntimeConfig {
  model::Settings settings;
  std::filesystem::path plugin_dir;
  PluginChoice state_store{"local"};
  PluginChoice leader_election{"local"};
  PluginChoice datapath{"netlink"};
  std::string node_name;                             // of the EgressTunnel; default: host name
  std::string identity;                              // of the candidate; empty: <node_name>-<pid>
  std::filesystem::path state_dir = "/var/lib/egw";  // made with mode 0700 if missing
  Listen health;                                     // /healthz /readyz /startupz
  Listen metrics;                                    // /metrics; may equal `health`
  LogFormat log_format = LogFormat::kText;
  LogLevel log_level = LogLevel::kInfo;
  bool drain_on_stop = false;  // agent: SIGTERM hands the EIPs over first
  std::chrono::seconds drain_timeout{30};
};

}  // namespace egw::runtime
