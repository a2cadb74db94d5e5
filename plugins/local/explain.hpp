// What went wrong with the database, in words for the operator: what, and what to do. Used by
// database.cpp and election.cpp.
#pragma once

#include <cstdint>
#include <string>

#include "egw/sdk/status.hpp"
#include "sqlite.hpp"

namespace egw::local {

enum class Trouble { kLocked, kNoSpace, kDamaged, kForbidden, kOther };

[[nodiscard]] Trouble classify(const SqlError& error);
// kUnavailable for what may pass, kInvalid for what only a person can mend. `what` is the path.
[[nodiscard]] sdk::Status explain(const SqlError& error, const std::string& path);

namespace words {
[[nodiscard]] std::string replaced();
[[nodiscard]] std::string missing();
[[nodiscard]] std::string none();
[[nodiscard]] std::string hidden();
[[nodiscard]] std::string missing_in_use();
[[nodiscard]] std::string without_log();
[[nodiscard]] std::string damaged(const std::string& finding);
[[nodiscard]] std::string foreign();
[[nodiscard]] std::string newer(std::int64_t version);
[[nodiscard]] std::string cannot_write_beside(const std::string& folder);
}  // namespace words

}  // namespace egw::local
