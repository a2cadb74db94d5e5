// Checks a plugin's configuration against the plugin's JSON Schema. Called by plugin_host.cpp
// before a plugin is opened.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "egw/model/result.hpp"

namespace egw::host {

// key: where the configuration stands, e.g. "plugins.stateStore.config"; the error's object is the
// key of the first value that does not fit, e.g. "plugins.stateStore.config.path". An empty schema
// takes null and {} only.
[[nodiscard]] Result<void> check_config(const std::string& schema, const nlohmann::json& config,
                                        const std::string& key);

}  // namespace egw::host
