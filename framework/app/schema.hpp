// config/egw.schema.json as it was when this binary was built. Used by the configuration.
#pragma once

#include <string_view>

namespace egw::app {

[[nodiscard]] std::string_view config_schema_text();

}  // namespace egw::app
