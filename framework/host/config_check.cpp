#include "egw/host/config_check.hpp"

#include <nlohmann/json.hpp>

#include "egw/host/schema_check.hpp"
#include "egw/host/text.hpp"

namespace egw::host {
Result<void> check_config(const std::string& schema_text, const nlohmann::json& config,
                          const std::string& key) {
  if (schema_text.empty()) {
    if (config.is_null() || (config.is_object() && config.empty())) return {};
    return fail(Errc::kInvalid, key, "this plugin takes no configuration: remove the key");
  }
  const auto document = nlohmann::json::parse(schema_text, nullptr, false);
  static const nlohmann::json kEmpty = nlohmann::json::object();
  std::optional<SchemaFault> fault;
  try {
    if (document.is_discarded()) throw std::runtime_error("it is no JSON");
    fault = find_schema_fault(config.is_null() ? kEmpty : config, document);
  } catch (const std::exception& e) {
    return fail(Errc::kInternal, key,
                "the plugin's configuration schema cannot be used (" +
                    plain_text(std::string_view(e.what()), 256) + "): correct the plugin");
  }
  if (!fault) return {};
  return fail(Errc::kInvalid, fault->path.empty() ? key : key + "." + fault->path,
              plain_text(fault->message, 512) + " (the plugin's schema: egw plugin inspect)");
}

}  // namespace egw::host
