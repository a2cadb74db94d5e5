// See sqlite.hpp.
#include "sqlite.hpp"

#include <sqlite3.h>

#include <algorithm>
#include <cerrno>
#include <thread>

namespace egw::local {

Connection::Connection(const std::string& path) {
  const int code =
      sqlite3_open_v2(path.c_str(), &db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  if (code != SQLITE_OK) {
    SqlError error(code, db_ != nullptr ? sqlite3_system_errno(db_) : 0,
                   db_ != nullptr ? sqlite3_errmsg(db_) : sqlite3_errstr(code));
    sqlite3_close_v2(db_);
    throw error;
  }
  sqlite3_extended_result_codes(db_, 1);
  sqlite3_busy_handler(db_, on_busy, this);
}

Connection::~Connection() { sqlite3_close_v2(db_); }

// SQLite has no queue for its locks: a waiter can only ask again. A write takes well under a
// millisecond plus the disk's flush, so the first tries come quickly.
int Connection::on_busy(void* self, int tries) {
  const auto now = std::chrono::steady_clock::now();
  const SteadyTime deadline = static_cast<Connection*>(self)->deadline_;
  if (now >= deadline) return 0;
  const auto pause = std::chrono::microseconds(tries < 10 ? 200 : tries < 50 ? 1000 : 5000);
  std::this_thread::sleep_for(
      std::min(pause, std::chrono::ceil<std::chrono::microseconds>(deadline - now)));
  return 1;
}

// sqlite3_system_errno() stays 0 for failures inside a commit (SQLite 3.40), while errno, which the
// callers clear before, still has the number of the failed system call.
void Connection::raise(int code) const {
  const int last = errno;
  const int extended = sqlite3_extended_errcode(db_);
  const int own = sqlite3_system_errno(db_);
  const bool io = (extended & 0xff) == SQLITE_IOERR;
  throw SqlError(extended != SQLITE_OK ? extended : code, own != 0 || !io ? own : last,
                 sqlite3_errmsg(db_));
}

void Connection::exec(const char* sql) {
  errno = 0;
  const int code = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) raise(code);
}

std::int64_t Connection::query_int(const char* sql) {
  Statement statement(*this, sql);
  return statement.step() ? static_cast<std::int64_t>(statement.number(0)) : 0;
}

std::string Connection::query_text(const char* sql) {
  Statement statement(*this, sql);
  return statement.step() ? std::string(statement.text(0)) : std::string();
}

Statement::Statement(Connection& connection, const char* sql) : connection_(connection) {
  const int code =
      sqlite3_prepare_v3(connection.handle(), sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt_, nullptr);
  if (code != SQLITE_OK) connection.raise(code);
}

Statement::~Statement() { sqlite3_finalize(stmt_); }

Statement& Statement::bind(int index, std::string_view text) {
  const int code = sqlite3_bind_text64(stmt_, index, text.data() == nullptr ? "" : text.data(),
                                       text.size(), SQLITE_STATIC, SQLITE_UTF8);
  if (code != SQLITE_OK) connection_.raise(code);
  return *this;
}

Statement& Statement::bind(int index, std::uint64_t number) {
  const int code = sqlite3_bind_int64(stmt_, index, static_cast<sqlite3_int64>(number));
  if (code != SQLITE_OK) connection_.raise(code);
  return *this;
}

bool Statement::step() {
  errno = 0;
  const int code = sqlite3_step(stmt_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  connection_.raise(code);
}

void Statement::run() {
  const StatementUse use(*this);
  while (step()) {
  }
}

void Statement::reset() noexcept {
  sqlite3_reset(stmt_);
  sqlite3_clear_bindings(stmt_);
}

std::uint64_t Statement::number(int column) const {
  return static_cast<std::uint64_t>(sqlite3_column_int64(stmt_, column));
}

std::string_view Statement::text(int column) const {
  const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(stmt_, column));
  if (data == nullptr) return {};
  return {data, static_cast<std::size_t>(sqlite3_column_bytes(stmt_, column))};
}

Transaction::Transaction(Connection& connection, Mode mode) : connection_(connection) {
  connection_.exec(mode == Mode::kWrite ? "BEGIN IMMEDIATE" : "BEGIN");
}

Transaction::~Transaction() {
  // An error such as a full disk may have rolled back already; then there is nothing to do.
  if (open_ && sqlite3_get_autocommit(connection_.handle()) == 0) {
    sqlite3_exec(connection_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
}

void Transaction::commit() {
  connection_.exec("COMMIT");
  open_ = false;
}

}  // namespace egw::local
