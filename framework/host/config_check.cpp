#include "egw/host/config_check.hpp"

#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "egw/host/text.hpp"

namespace egw::host {
namespace {

// valijson's context is {"<root>", "[path]", "[0]"}: made "key.path[0]".
std::string path_of(const std::string& key, const std::vector<std::string>& context) {
  std::string out = key;
  for (std::size_t i = 1; i < context.size(); ++i) {
    const std::string& part = context[i];
    const bool bracketed = part.size() > 2 && part.front() == '[' && part.back() == ']';
    const std::string inner = bracketed ? part.substr(1, part.size() - 2) : part;
    const bool index = inner.find_first_not_of("0123456789") == std::string::npos;
    out += index ? "[" + inner + "]" : "." + inner;
  }
  return out;
}

}  // namespace

Result<void> check_config(const std::string& schema_text, const nlohmann::json& config,
                          const std::string& key) {
  if (schema_text.empty()) {
    if (config.is_null() || (config.is_object() && config.empty())) return {};
    return fail(Errc::kInvalid, key, "this plugin takes no configuration: remove the key");
  }
  using Adapter = valijson::adapters::NlohmannJsonAdapter;
  const auto document = nlohmann::json::parse(schema_text, nullptr, false);
  valijson::Schema schema;
  try {
    if (document.is_discarded()) throw std::runtime_error("it is no JSON");
    valijson::SchemaParser().populateSchema(Adapter(document), schema);
  } catch (const std::exception& e) {
    return fail(Errc::kInternal, key,
                "the plugin's configuration schema cannot be used (" +
                    plain_text(std::string_view(e.what()), 256) + "): correct the plugin");
  }
  static const nlohmann::json kEmpty = nlohmann::json::object();
  const nlohmann::json& value = config.is_null() ? kEmpty : config;
  valijson::ValidationResults results;
  if (valijson::Validator().validate(schema, Adapter(value), &results)) return {};
  // The deepest error names the value itself; the ones around it only repeat that it failed.
  valijson::ValidationResults::Error error;
  valijson::ValidationResults::Error best;
  while (results.popError(error)) {
    if (best.description.empty() || error.context.size() > best.context.size()) best = error;
  }
  return fail(Errc::kInvalid, path_of(key, best.context),
              plain_text(best.description, 512) + " (the plugin's schema: egw plugin inspect)");
}

}  // namespace egw::host
