// The database file: opening, checking, noticing that it is gone, damaged, locked or out of space,
// and the signal file beside it that wakes watchers in other processes. One Database per thread
// that works on the file: the store's own, its watcher's, the election's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "egw/sdk/status.hpp"
#include "files.hpp"
#include "tables.hpp"

namespace egw::local {

// An open connection with its statements.
struct Session {
  explicit Session(const std::string& path) : connection(path) {}
  void prepare();  // once the schema is there

  Connection connection;
  std::unique_ptr<Counters> counters;
  std::unique_ptr<ObjectTable> objects;
  std::unique_ptr<ChangeLog> changes;
  std::unique_ptr<Office> office;
};

// All failures are sdk::Failure with a sentence for the operator. What SQLite reports inside a
// session comes as SqlError and is given to failed().
class Database {
 public:
  enum class Make { kIfMissing, kNever };

  // gate: a file whose absence cuts this instance off; empty: never cut off.
  Database(std::string path, std::string gate, Make make);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // Opens the file; with kIfMissing it makes it (and its folder, 0700) if there is none. Throws
  // kInvalid for what only a person can mend (damaged, another program's, newer schema, no
  // permission, in others' hands), kUnavailable for what may pass (missing, locked, no space). With
  // the gate closed it does nothing.
  void open(SteadyTime deadline);

  // The open session. The path is looked at on every call: when it leads to another file or to
  // none, the session is given up and the call fails; the next call opens what is there then.
  Session& use(SteadyTime deadline);
  // Every write's end, which may have waited long for its lock: commits where the path still leads
  // to the file that is open. Throws what use() would; nothing is committed then.
  void commit(Transaction& transaction) const;

  // What to answer for an error inside a session. Gives the session up if the file is damaged.
  [[nodiscard]] sdk::Status failed(const SqlError& error);

  // Wakes the watchers of this file in all processes; after a commit.
  void ring();

  [[nodiscard]] bool gate_open() const;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& gate() const { return gate_; }
  [[nodiscard]] std::string signal_path() const { return path_ + "-signal"; }
  [[nodiscard]] std::string leader_path() const { return path_ + "-leader"; }

 private:
  void confirm_place() const;
  void open_file(SteadyTime deadline);
  void open_folder();
  void check_rights() const;
  void open_signal();
  void lock_opening(SteadyTime deadline);
  void make_file(bool alone);
  void drop_foreign_log(const FileId& file);
  void await_log(const FileId& file, bool alone) const;
  void close_session();
  void drop_session();
  void open_session(bool check_content, SteadyTime deadline);
  void remember_files(const FileId& wal, const FileId& shm);
  void check_gate() const;

  std::string path_, gate_;
  const Make make_;
  bool opened_ = false;   // once: what is missing from then on was removed
  bool suspect_ = false;  // damaged or replaced: check the content at the next opening
  // Holds the lock that says that somebody has this database open, on the folder itself: all files
  // in it can be removed under those who use them, and a new file would know nothing of the lock.
  Fd folder_;
  Fd signal_;
  FileId file_;
  std::unique_ptr<Session> session_;
};

[[nodiscard]] std::string make_uuid();

}  // namespace egw::local
