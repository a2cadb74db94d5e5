// The schema of the database and its version. Used by database.cpp when it opens the file.
#pragma once

#include "sqlite.hpp"

namespace egw::local {

// "EGWS": tells our file from another program's SQLite database.
inline constexpr std::int64_t kApplicationId = 0x45475753;
inline constexpr std::int64_t kSchemaVersion = 1;

enum class SchemaState {
  kEmpty,    // a fresh file
  kOurs,     // kSchemaVersion
  kNewer,    // written by a newer egw
  kForeign,  // another program's database
};

[[nodiscard]] SchemaState schema_state(Connection& connection);
// On an empty file. store: its identity, e.g. a uuid.
void create_schema(Connection& connection, std::string_view store);

}  // namespace egw::local
