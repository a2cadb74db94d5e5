// Configuration: defaults, then the file, then the environment, then options; checked against
// config/egw.schema.json and for what a schema cannot say. Called by every verb.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "egw/model/result.hpp"
#include "egw/runtime/config.hpp"

namespace egw::app {

// What the command line and the environment say about the configuration.
struct ConfigInput {
  std::string file;               // --config, else EGW_CONFIG; empty: none
  std::vector<std::string> sets;  // --set, "a.b.c=value", in order
  std::string plugin_dir;         // --plugin-dir
  std::string env_plugin_dir;     // EGW_PLUGIN_DIR
  std::string log_level;          // --log-level
  std::string node_name;          // --node-name
  std::string state_dir;          // --state-dir
};

struct RoleConfig {
  runtime::Listen health, metrics;
  std::string log_level;  // agent.debug.logLevel of the old chart; empty: log.level counts
};

struct Config {
  runtime::RuntimeConfig runtime;  // health and metrics: see for_role
  RoleConfig agent, controller;
  std::vector<std::string> warnings;  // one sentence each, for stderr
  bool log_level_given = false;       // by log.level or --log-level
};

// Errors are one line "SOURCE: key.path: what is wrong; expected ..." (exit code 2).
[[nodiscard]] Result<Config> load_config(const ConfigInput& input);

// The runtime's configuration with the ports and the log level of "agent" or "controller".
[[nodiscard]] runtime::RuntimeConfig for_role(const Config& config, const std::string& role);

// <folder of this binary>/../lib/egw/plugins
[[nodiscard]] std::filesystem::path default_plugin_dir();

}  // namespace egw::app
