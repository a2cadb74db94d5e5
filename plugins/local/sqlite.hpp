// Owners of SQLite handles: connection, statement, transaction; errors as SqlError. Used by every
// other file of this folder that touches the database, by nobody else.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace egw::local {

using SteadyTime = std::chrono::steady_clock::time_point;

// A failed SQLite call. Turned into words for the operator in database.cpp.
class SqlError : public std::exception {
 public:
  SqlError(int extended_code, int sys_errno, std::string text)
      : code_(extended_code), errno_(sys_errno), text_(std::move(text)) {}
  [[nodiscard]] const char* what() const noexcept override { return text_.c_str(); }
  [[nodiscard]] int primary_code() const { return code_ & 0xff; }  // SQLITE_BUSY, ...
  [[nodiscard]] int sys_errno() const { return errno_; }

 private:
  int code_;
  int errno_;
  std::string text_;
};

// One connection; used by one thread at a time.
class Connection {
 public:
  // The file must exist: this class never creates one. Throws SqlError.
  explicit Connection(const std::string& path);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void exec(const char* sql);
  // The first column of the first row; 0 or empty when there is no row.
  [[nodiscard]] std::int64_t query_int(const char* sql);
  [[nodiscard]] std::string query_text(const char* sql);
  // Until when a call may wait for somebody else's lock. In the past: do not wait.
  void set_deadline(SteadyTime deadline) { deadline_ = deadline; }

  [[nodiscard]] sqlite3* handle() const { return db_; }
  [[noreturn]] void raise(int code) const;

 private:
  static int on_busy(void* self, int tries);
  sqlite3* db_ = nullptr;
  SteadyTime deadline_{};
};

// A prepared statement. Text is bound without a copy: it must live until the next reset().
class Statement {
 public:
  Statement(Connection& connection, const char* sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(int index, std::string_view text);  // index from 1
  Statement& bind(int index, std::uint64_t number);   // at most 2^63-1
  bool step();                                        // whether there is a row
  void run();                                         // step to the end, then reset
  void reset() noexcept;

  [[nodiscard]] std::uint64_t number(int column) const;   // column from 0
  [[nodiscard]] std::string_view text(int column) const;  // until the next step or reset

 private:
  Connection& connection_;
  sqlite3_stmt* stmt_ = nullptr;
};

// Resets a cached statement when its user leaves, however it leaves.
class StatementUse {
 public:
  explicit StatementUse(Statement& s) : statement_(s) {}
  ~StatementUse() { statement_.reset(); }
  StatementUse(const StatementUse&) = delete;
  StatementUse& operator=(const StatementUse&) = delete;
  Statement* operator->() const { return &statement_; }

 private:
  Statement& statement_;
};

// Rolls back unless committed.
class Transaction {
 public:
  enum class Mode { kRead, kWrite };
  Transaction(Connection& connection, Mode mode);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Connection& connection_;
  bool open_ = true;
};

}  // namespace egw::local
