// File descriptors, identities and locks of files, as database.cpp and election.cpp need them.
#pragma once

#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace egw::local {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  void reset() noexcept;
  [[nodiscard]] int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// Which file a name leads to. birth_ns: creation time where the file system knows it, else 0; it
// tells a file from an earlier one whose inode number was used again.
struct FileId {
  std::uint64_t dev = 0, ino = 0, birth_ns = 0;
  std::uint64_t size = 0;  // not part of the identity
  [[nodiscard]] bool same(const FileId& o) const {
    return dev == o.dev && ino == o.ino && birth_ns == o.birth_ns;
  }
};
// nullopt: there is no such file (or it cannot be looked at; errno says).
[[nodiscard]] std::optional<FileId> identify(const std::string& path);
[[nodiscard]] std::optional<FileId> identify(const Fd& fd);

// Locks one byte of the file for the open file description (F_OFD_SETLK: the kernel drops it when
// the last descriptor is closed, so also when the process is killed). False: somebody else's.
[[nodiscard]] bool lock_byte(const Fd& fd, std::int64_t offset, bool exclusive);
void unlock_byte(const Fd& fd, std::int64_t offset);
// Whether somebody else's lock of that byte would stand in the way of an exclusive one.
[[nodiscard]] bool byte_is_locked(const Fd& fd, std::int64_t offset);
// The process that holds a POSIX write lock on the file, as "process 4711 (egw)"; empty: unknown.
[[nodiscard]] std::string lock_holder(const std::string& path);

// Why a file or folder is not in the hands of root and this user alone, with what mends it; empty:
// it is, or it does not exist. Folders with the sticky bit may be written by others.
[[nodiscard]] std::string writable_by_others(const std::string& path, const std::string& noun);
// The path with all symbolic links followed, also a last one that leads to nothing yet: names of
// one file are one name from here on.
[[nodiscard]] std::string resolve(const std::string& path);

// The folder that a path lies in, "." when it names none.
[[nodiscard]] std::string folder_of(const std::string& path);
[[nodiscard]] std::string name_of(const std::string& path);

}  // namespace egw::local
