// Requests of people to the leader are annotations: one way to set and remove them.
// Called by the verbs drain, undrain and vip move.
#pragma once

#include <string>
#include <string_view>

#include "egw/app/session.hpp"
#include "egw/model/meta.hpp"

namespace egw::app {

// Sets the annotation `name` of a stored object to `value`, or removes it (empty value). An
// annotation that is there already is left as it is unless `replace`, or it is "false", which asks
// for nothing. Returns whether anything was written. Tries again when somebody else wrote
// meanwhile; errors: kNotFound and those of a write.
Result<bool> annotate(Session& session, model::Kind kind, const model::Key& key,
                      std::string_view name, const std::string& value, bool replace);

}  // namespace egw::app
