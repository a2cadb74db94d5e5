// See database.hpp.
#include "database.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <thread>

#include "explain.hpp"
#include "schema.hpp"

namespace egw::local {

namespace {

using sdk::Code;
using sdk::Failure;

// Bytes of the signal file. The first is written to wake watchers; the record says which database
// and which write-ahead log with its index belong together (0: whoever had it open last has closed
// it, and SQLite has removed them); the lock lies beyond the content.
constexpr std::int64_t kRecordAt = 1;
constexpr std::size_t kRecordSize = 239;
constexpr std::int64_t kOpeningLock = 1000;  // exclusive: somebody is opening the file

struct OpeningLock {
  const Fd& fd;
  ~OpeningLock() { unlock_byte(fd, kOpeningLock); }
};

// The byte of the folder that stands for a database in it: shared, somebody has it open. FNV-1a of
// the name, so that databases beside each other do not meet.
std::int64_t presence_lock(const std::string& path) {
  std::uint64_t hash = 14695981039346656037U;
  for (const char c : name_of(path)) hash = (hash ^ static_cast<std::uint8_t>(c)) * 1099511628211U;
  return static_cast<std::int64_t>(hash >> 2U);
}

std::string wal_of(const std::string& path) { return path + "-wal"; }
std::string shm_of(const std::string& path) { return path + "-shm"; }

struct Record {
  FileId database, wal, shm;
};

// nullopt: there is none that can be read, or one of an earlier version, without the index.
std::optional<Record> read_record(const Fd& signal) {
  char text[kRecordSize + 1] = {};
  if (::pread(signal.get(), text, kRecordSize, kRecordAt) <= 0) return std::nullopt;
  Record r;
  const int n = std::sscanf(text,
                            "db %" SCNu64 " %" SCNu64 " %" SCNu64 " wal %" SCNu64 " %" SCNu64
                            " %" SCNu64 " shm %" SCNu64 " %" SCNu64 " %" SCNu64,
                            &r.database.dev, &r.database.ino, &r.database.birth_ns, &r.wal.dev,
                            &r.wal.ino, &r.wal.birth_ns, &r.shm.dev, &r.shm.ino, &r.shm.birth_ns);
  if (n < 6) return std::nullopt;
  return r;
}

bool is_there(const std::string& path, const FileId& wanted) {
  const std::optional<FileId> now = identify(path);
  return wanted.ino == 0 || (now && now->same(wanted));
}

}  // namespace

std::string make_uuid() {
  unsigned char b[16];
  std::size_t have = 0;
  while (have < sizeof(b)) {
    const ssize_t n = ::getrandom(b + have, sizeof(b) - have, 0);
    if (n > 0) have += static_cast<std::size_t>(n);
  }
  b[6] = static_cast<unsigned char>((b[6] & 0x0f) | 0x40);  // version 4 (RFC 4122)
  b[8] = static_cast<unsigned char>((b[8] & 0x3f) | 0x80);
  std::string out;
  for (std::size_t i = 0; i < sizeof(b); ++i) {
    constexpr char kHex[] = "0123456789abcdef";
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += kHex[b[i] >> 4];
    out += kHex[b[i] & 0xf];
  }
  return out;
}

void Session::prepare() {
  counters = std::make_unique<Counters>(connection);
  objects = std::make_unique<ObjectTable>(connection);
  changes = std::make_unique<ChangeLog>(connection);
  office = std::make_unique<Office>(connection);
}

Database::Database(std::string path, std::string gate, Make make)
    : path_(std::move(path)), gate_(std::move(gate)), make_(make) {}

Database::~Database() { close_session(); }

bool Database::gate_open() const { return gate_.empty() || ::access(gate_.c_str(), F_OK) == 0; }

void Database::check_gate() const {
  if (gate_open()) return;
  throw Failure(Code::kUnavailable,
                "this node is cut off from the store because the gate file " + gate_ +
                    " does not exist; create it to connect again",
                path_);
}

void Database::open(SteadyTime deadline) {
  if (!gate_open()) return;
  open_file(deadline);
}

Session& Database::use(SteadyTime deadline) {
  check_gate();
  if (session_ == nullptr) {
    try {
      open_file(deadline);
    } catch (const Failure& failure) {
      // In operation everything of this kind may pass: somebody mends the file, and work goes on.
      sdk::Status status = failure.status();
      status.code = Code::kUnavailable;
      throw Failure(std::move(status));
    }
  } else {
    try {
      confirm_place();
    } catch (const Failure&) {
      close_session();
      suspect_ = true;
      throw;
    }
  }
  session_->connection.set_deadline(deadline);
  return *session_;
}

void Database::confirm_place() const {
  const std::optional<FileId> now = identify(path_);
  if (now && now->same(file_) && now->size != 0) return;
  throw Failure(Code::kUnavailable, now ? words::replaced() : words::missing(), path_);
}

void Database::commit(Transaction& transaction) const {
  confirm_place();
  transaction.commit();
}

sdk::Status Database::failed(const SqlError& error) {
  const Trouble trouble = classify(error);
  if (trouble == Trouble::kDamaged) suspect_ = true;
  // After an I/O error nobody can say what the connection still knows: begin anew.
  if (trouble == Trouble::kDamaged || trouble == Trouble::kOther) close_session();
  sdk::Status status = explain(error, path_);
  status.code = Code::kUnavailable;
  return status;
}

void Database::open_file(SteadyTime deadline) {
  if (make_ == Make::kNever && !identify(path_)) {
    if (errno == EACCES) throw Failure(Code::kInvalid, words::hidden(), path_, errno);
    throw Failure(Code::kUnavailable, opened_ ? words::missing() : words::none(), path_);
  }
  open_folder();
  check_rights();
  open_signal();
  lock_opening(deadline);
  const OpeningLock unlock{signal_};
  const bool alone = !byte_is_locked(folder_, presence_lock(path_));
  const std::optional<FileId> found = identify(path_);
  if (!found || found->size == 0) {
    make_file(alone);
  } else {
    drop_foreign_log(*found);
    await_log(*found, alone);
  }
  try {
    open_session(found && (alone || suspect_), deadline);
  } catch (const SqlError& error) {
    drop_session();
    throw Failure(explain(error, path_));
  } catch (const Failure&) {
    drop_session();
    throw;
  }
  remember_files(identify(wal_of(path_)).value_or(FileId{}),
                 identify(shm_of(path_)).value_or(FileId{}));
  (void)lock_byte(folder_, presence_lock(path_), false);
  opened_ = true;
  suspect_ = false;
}

void Database::open_folder() {
  const std::string folder = folder_of(path_);
  if (folder_ && identify(folder) && identify(folder)->same(*identify(folder_))) return;
  if (make_ == Make::kIfMissing && !opened_) {
    std::error_code ec;
    if (std::filesystem::create_directories(folder, ec)) {
      std::filesystem::permissions(folder, std::filesystem::perms::owner_all, ec);
    }
  }
  folder_ = Fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder_) return;
  throw Failure(opened_ ? Code::kUnavailable : Code::kInvalid, words::cannot_write_beside(folder),
                path_, errno);
}

// Whoever can write the store decides where traffic goes: the same rule as for plugins. A folder
// with the sticky bit (/tmp) lets others add files, not touch ours; so each of them is looked at.
void Database::check_rights() const {
  const std::string folder = folder_of(path_);
  std::string wrong = writable_by_others(folder, "the folder");
  for (const std::string& file :
       {path_, wal_of(path_), shm_of(path_), signal_path(), leader_path()}) {
    if (wrong.empty()) wrong = writable_by_others(file, "the file");
  }
  if (!wrong.empty()) {
    throw Failure(Code::kInvalid,
                  wrong + ": whoever can write the store decides where traffic goes", path_);
  }
}

void Database::open_signal() {
  if (signal_ && identify(signal_path()) && identify(signal_path())->same(*identify(signal_))) {
    return;
  }
  signal_ = Fd(::open(signal_path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!signal_) {
    throw Failure(errno == ENOSPC ? Code::kUnavailable : Code::kInvalid,
                  words::cannot_write_beside(folder_of(path_)), signal_path(), errno);
  }
  char byte = 0;
  if (::pread(signal_.get(), &byte, 1, 0) != 1) ring();
}

void Database::lock_opening(SteadyTime deadline) {
  while (!lock_byte(signal_, kOpeningLock, true)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      throw Failure(Code::kUnavailable,
                    "another process has been opening the database for too long; look for a "
                    "stopped egw process and continue or end it",
                    path_);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

// An empty file is one that was being made when its maker died: no content is ever acknowledged
// before the schema is in the file itself.
void Database::make_file(bool alone) {
  if (opened_) throw Failure(Code::kUnavailable, words::missing(), path_);
  if (make_ == Make::kNever) throw Failure(Code::kUnavailable, words::none(), path_);
  if (!alone) throw Failure(Code::kUnavailable, words::missing_in_use(), path_);
  ::unlink(wal_of(path_).c_str());
  ::unlink(shm_of(path_).c_str());
  const Fd made(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!made) {
    throw Failure(errno == ENOSPC ? Code::kUnavailable : Code::kInvalid,
                  words::cannot_write_beside(folder_of(path_)), path_, errno);
  }
}

// A backup moved over the database finds the log of the old database beside it, and SQLite would
// play that log into the backup. The record tells: another database, still the same log.
void Database::drop_foreign_log(const FileId& file) {
  const std::optional<FileId> wal = identify(wal_of(path_));
  if (!wal) return;
  const std::optional<Record> then = read_record(signal_);
  if (!then || then->database.same(file) || !then->wal.same(*wal)) return;
  ::unlink(wal_of(path_).c_str());
  ::unlink(shm_of(path_).c_str());
}

// A database that was moved away under its users and is put back may be there before its log, which
// has all that was not yet moved into the database. Whoever opened it then would make another log,
// and the two would destroy it. Alone: nobody had it open, so what is there is all that there is.
void Database::await_log(const FileId& file, bool alone) const {
  const std::optional<Record> then = read_record(signal_);
  if (alone || !then || !then->database.same(file)) return;
  if (is_there(wal_of(path_), then->wal) && is_there(shm_of(path_), then->shm)) return;
  throw Failure(Code::kUnavailable, words::without_log(), path_);
}

// Whoever opens the database at the moment is waited for: what drop_session() says comes first.
void Database::close_session() {
  if (session_ == nullptr) return;
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  bool locked = false;
  while (signal_ && !(locked = lock_byte(signal_, kOpeningLock, true)) &&
         std::chrono::steady_clock::now() < patience) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  drop_session();
  if (locked) unlock_byte(signal_, kOpeningLock);
}

// SQLite removes log and index when the last one closes a database that is in its place, and the
// record says so. With the opening lock.
void Database::drop_session() {
  session_.reset();
  const std::optional<FileId> now = identify(path_);
  if (now && now->same(file_) && !identify(wal_of(path_))) remember_files({}, {});
}

void Database::open_session(bool check_content, SteadyTime deadline) {
  session_ = std::make_unique<Session>(path_);
  Connection& connection = session_->connection;
  connection.set_deadline(deadline);
  const std::optional<FileId> file = identify(path_);
  if (!file) throw Failure(Code::kUnavailable, words::missing(), path_);
  file_ = *file;
  // FULL: what was acknowledged is on the disk. The size limit truncates the log after a burst.
  connection.exec("PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 16777216;");
  const SchemaState schema = schema_state(connection);
  if (schema == SchemaState::kForeign || schema == SchemaState::kNewer) {
    const std::int64_t version = connection.query_int("PRAGMA user_version");
    throw Failure(Code::kInvalid,
                  schema == SchemaState::kForeign ? words::foreign() : words::newer(version),
                  path_);
  }
  const std::string mode = connection.query_text("PRAGMA journal_mode = WAL");
  if (mode != "wal") {
    throw Failure(Code::kUnsupported,
                  "the file system cannot share memory between processes (journal mode is " + mode +
                      ", wanted wal); put the database on a local file system",
                  path_);
  }
  if (schema == SchemaState::kEmpty) {
    create_schema(connection, make_uuid());
    connection.exec("PRAGMA wal_checkpoint(PASSIVE)");
  }
  if (check_content) {
    const std::string finding = connection.query_text("PRAGMA quick_check(1)");
    if (finding != "ok") {
      throw Failure(Code::kInvalid, words::damaged(finding), path_);
    }
  }
  session_->prepare();
}

void Database::remember_files(const FileId& wal, const FileId& shm) {
  char record[kRecordSize + 1];
  const int n = std::snprintf(record, sizeof(record),
                              "db %" PRIu64 " %" PRIu64 " %" PRIu64 " wal %" PRIu64 " %" PRIu64
                              " %" PRIu64 " shm %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
                              file_.dev, file_.ino, file_.birth_ns, wal.dev, wal.ino, wal.birth_ns,
                              shm.dev, shm.ino, shm.birth_ns);
  char before[kRecordSize + 1] = {};
  const auto size = static_cast<std::size_t>(n);
  if (::pread(signal_.get(), before, kRecordSize, kRecordAt) >= n &&
      std::memcmp(before, record, size) == 0) {
    return;
  }
  // Without the record a later replacement is judged as SQLite alone would; nothing else depends
  // on it, so a full disk does not stop the opening here.
  if (::pwrite(signal_.get(), record, size, kRecordAt) != n) return;
}

void Database::ring() {
  const std::optional<FileId> there = identify(signal_path());
  const std::optional<FileId> ours = identify(signal_);
  if (!there || !ours || !there->same(*ours)) {
    Fd fresh(::open(signal_path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fresh) return;  // watchers then see the change at their next slow look
    signal_ = std::move(fresh);
  }
  const char byte = '\n';
  if (::pwrite(signal_.get(), &byte, 1, 0) != 1) ::futimens(signal_.get(), nullptr);
}

}  // namespace egw::local
