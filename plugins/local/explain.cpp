// See explain.hpp.
#include "explain.hpp"

#include <sqlite3.h>

#include <cerrno>

#include "files.hpp"
#include "schema.hpp"

namespace egw::local {

Trouble classify(const SqlError& error) {
  const int os = error.sys_errno();
  switch (error.primary_code()) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Trouble::kLocked;
    case SQLITE_FULL:
      return Trouble::kNoSpace;
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      return Trouble::kDamaged;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return Trouble::kForbidden;
    case SQLITE_CANTOPEN:
      return os == ENOSPC || os == EDQUOT ? Trouble::kNoSpace : Trouble::kForbidden;
    case SQLITE_IOERR:
      // EFBIG: the process's own limit of file sizes (RLIMIT_FSIZE).
      return os == ENOSPC || os == EDQUOT || os == EFBIG ? Trouble::kNoSpace : Trouble::kOther;
    default:
      return Trouble::kOther;
  }
}

sdk::Status explain(const SqlError& error, const std::string& path) {
  const int os = error.sys_errno();
  switch (classify(error)) {
    case Trouble::kLocked: {
      std::string holder = lock_holder(path + "-shm");
      if (holder.empty()) holder = lock_holder(path);
      if (holder.empty()) holder = "another process";
      return sdk::fail(sdk::Code::kUnavailable,
                       "the database is locked by " + holder +
                           "; nothing was changed. If that process is stopped or stuck, continue "
                           "or end it",
                       path);
    }
    case Trouble::kNoSpace:
      return sdk::fail(sdk::Code::kUnavailable,
                       "no space left to write the database; nothing was changed. Free space on "
                       "the file system of " +
                           folder_of(path),
                       path, os != 0 ? os : ENOSPC);
    case Trouble::kDamaged:
      return sdk::fail(sdk::Code::kInvalid, words::damaged(error.what()), path);
    case Trouble::kForbidden:
      return sdk::fail(sdk::Code::kInvalid,
                       std::string("the database cannot be opened for writing: ") + error.what() +
                           "; check owner and mode of the file and of its folder",
                       path, os);
    case Trouble::kOther:
      break;
  }
  return sdk::fail(sdk::Code::kUnavailable,
                   std::string("the database cannot be used: ") + error.what() +
                       "; nothing was changed. Look into the kernel's log for errors of the disk",
                   path, os);
}

namespace words {

std::string replaced() {
  return "the database was replaced by another file while in use; nothing was written, the file "
         "that is there now is opened next";
}

std::string missing() {
  return "the database is gone (removed or moved while in use); nothing was written. Put it back, "
         "or stop every egw process of this machine and start them again with an empty store";
}

std::string without_log() {
  return "the database is there and the files beside it with -wal and -shm, which have its newest "
         "content, are not, although egw processes of this machine had them open; nothing was read "
         "or written. Put all three back, or stop every egw process before you start with the "
         "database alone";
}

std::string none() {
  return "there is no database: the file does not exist. If there was one, put it back; an empty "
         "one is made by the first egw controller, egw agent or egw apply. Check "
         "plugins.stateStore.config.path, too";
}

std::string hidden() {
  return "the database's folder is for the user that egw runs as: call this as that user (root, as "
         "a rule)";
}

std::string missing_in_use() {
  return "the database is missing or empty although egw processes of this machine have it open: it "
         "was removed while in use. Put it back, or stop every egw process before you start with "
         "an "
         "empty store";
}

std::string damaged(const std::string& finding) {
  return "the file is damaged or is no database (" + finding +
         "). Stop the egw processes of this machine, move the file and those beside it with -wal "
         "and -shm away, put a backup there or start with an empty store and apply the manifests "
         "again";
}

std::string foreign() {
  return "the file is a database of another program; give plugins.stateStore.config.path another "
         "value";
}

std::string newer(std::int64_t version) {
  return "the database has schema version " + std::to_string(version) + ", this egw knows " +
         std::to_string(kSchemaVersion) +
         ": it was written by a newer egw; use that version, or another path";
}

std::string cannot_write_beside(const std::string& folder) {
  return "cannot create the file; check that the folder " + folder +
         " exists, is writable for this user and has space";
}

}  // namespace words

}  // namespace egw::local
