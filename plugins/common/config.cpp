#include "config.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace egw::common {

sdk::Failure wrong_config(const std::string& message, const std::string& key) {
  return sdk::Failure(sdk::Code::kInvalid, message,
                      "plugins.datapath.config" + (key.empty() ? "" : "." + key));
}

nlohmann::json parse_config(std::string_view text, const std::vector<std::string>& keys) {
  auto config = text.empty() ? nlohmann::json() : nlohmann::json::parse(text, nullptr, false);
  if (config.is_null()) config = nlohmann::json::object();
  if (!config.is_object()) throw wrong_config("wants an object", "");
  for (const auto& item : config.items()) {
    if (std::find(keys.begin(), keys.end(), item.key()) != keys.end()) continue;
    throw wrong_config("unknown key", item.key());
  }
  return config;
}

std::uint32_t number_in(const nlohmann::json& config, const char* key, std::uint32_t fallback,
                        std::uint64_t lowest, std::uint64_t highest) {
  const auto at = config.find(key);
  if (at == config.end()) return fallback;
  if (!at->is_number_unsigned() || at->get<std::uint64_t>() < lowest ||
      at->get<std::uint64_t>() > highest) {
    throw wrong_config("wants a number from " + std::to_string(lowest) + " to " +
                           std::to_string(highest) + ", not " + at->dump(),
                       key);
  }
  return static_cast<std::uint32_t>(at->get<std::uint64_t>());
}

}  // namespace egw::common
