// The text of a policy without its status, which is the larger part of it and which agents do not
// look at: it is not parsed then. Called by the host for whoever says so in its query, on the
// thread that the store's events come on.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace egw::model {

// An EgressPolicy or EgressClusterPolicy with null in place of its status. nullopt: take the text
// as it is, because there is no status, because its failurePolicy is not Drop, so that agents ask
// whether the leader has refused it, or because the text is not as programs write it.
[[nodiscard]] std::optional<std::string> policy_without_status(std::string_view json);

}  // namespace egw::model
