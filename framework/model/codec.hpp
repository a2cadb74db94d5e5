// Resources to and from JSON in their Kubernetes shape. Unknown fields are ignored on decode and
// named by unknown_fields(); a wrong type is an error that names the field's path.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "egw/model/resources.hpp"

namespace egw::model {

// Specialised in codec_*.cpp for every resource of resources.hpp.
template <class R>
[[nodiscard]] Result<R> decode(const nlohmann::json& document);
// apiVersion, kind, metadata, spec; and status unless it is empty.
template <class R>
[[nodiscard]] nlohmann::json encode(const R& resource);
// The status alone (the value of the "status" key). Not for Node, Pod, Namespace.
template <class R>
[[nodiscard]] nlohmann::json encode_status(const R& resource);

[[nodiscard]] Result<ObjectMeta> decode_meta(const nlohmann::json& document);
// Paths of fields in `spec` (and at the top) that the kind does not know, e.g. "spec.ippool".
[[nodiscard]] std::vector<std::string> unknown_fields(Kind kind, const nlohmann::json& document);

}  // namespace egw::model
