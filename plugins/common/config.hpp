// A datapath plugin's own configuration (plugins.datapath.config). Everything throws sdk::Failure
// that names the key. Called by datapath plugins.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "egw/sdk/status.hpp"

namespace egw::common {

// What is wrong with a key; "": with the whole.
[[nodiscard]] sdk::Failure wrong_config(const std::string& message, const std::string& key);

// The configuration as an object; throws when it is none, or has a key that is not in `keys`.
[[nodiscard]] nlohmann::json parse_config(std::string_view text,
                                          const std::vector<std::string>& keys);

// A whole number within both bounds; `fallback` where the key is not given.
[[nodiscard]] std::uint32_t number_in(const nlohmann::json& config, const char* key,
                                      std::uint32_t fallback, std::uint64_t lowest,
                                      std::uint64_t highest);

}  // namespace egw::common
