// See schema.hpp.
#include "schema.hpp"

#include <string>

namespace egw::local {

namespace {
constexpr const char* kTables = R"sql(
CREATE TABLE counters (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  store TEXT NOT NULL,
  revision INTEGER NOT NULL,
  trimmed INTEGER NOT NULL,
  term INTEGER NOT NULL);
CREATE TABLE objects (
  id INTEGER PRIMARY KEY,
  grp TEXT NOT NULL,
  kind TEXT NOT NULL,
  ns TEXT NOT NULL,
  name TEXT NOT NULL,
  revision INTEGER NOT NULL,
  document TEXT NOT NULL);
CREATE UNIQUE INDEX objects_key ON objects (grp, kind, ns, name);
CREATE TABLE changes (
  revision INTEGER PRIMARY KEY,
  grp TEXT NOT NULL,
  kind TEXT NOT NULL,
  ns TEXT NOT NULL,
  name TEXT NOT NULL,
  op INTEGER NOT NULL,
  term INTEGER NOT NULL,
  document TEXT NOT NULL);
CREATE TABLE office (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  holder TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  stamp INTEGER NOT NULL,
  locked INTEGER NOT NULL);
INSERT INTO office VALUES (1, '', 0, 0, 0);
)sql";
}  // namespace

SchemaState schema_state(Connection& connection) {
  const std::int64_t application = connection.query_int("PRAGMA application_id");
  const std::int64_t version = connection.query_int("PRAGMA user_version");
  if (application == kApplicationId) {
    return version == kSchemaVersion ? SchemaState::kOurs : SchemaState::kNewer;
  }
  const bool empty = application == 0 && version == 0 &&
                     connection.query_int("SELECT count(*) FROM sqlite_master") == 0;
  return empty ? SchemaState::kEmpty : SchemaState::kForeign;
}

void create_schema(Connection& connection, std::string_view store) {
  Transaction write(connection, Transaction::Mode::kWrite);
  connection.exec(kTables);
  Statement counters(connection, "INSERT INTO counters VALUES (1, ?1, 0, 0, 0)");
  counters.bind(1, store).run();
  connection.exec(("PRAGMA application_id = " + std::to_string(kApplicationId)).c_str());
  connection.exec(("PRAGMA user_version = " + std::to_string(kSchemaVersion)).c_str());
  write.commit();
}

}  // namespace egw::local
