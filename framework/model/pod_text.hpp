// A Pod straight from its JSON text: an agent reads every one of its node when it starts, and a
// tree of each would be most of that time. Called by the host, on the thread that the store's
// events come on.
#pragma once

#include <optional>
#include <string_view>

#include "egw/model/resources.hpp"

namespace egw::model {

// What decode<Pod>() makes of the parsed document, but for annotations, which stay empty there,
// too. nullopt: something is wrong or unusual, and the document has to be parsed to say what.
[[nodiscard]] std::optional<Pod> read_pod(std::string_view json);

}  // namespace egw::model
