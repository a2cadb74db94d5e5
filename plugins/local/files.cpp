// See files.hpp.
#include "files.hpp"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace egw::local {

void Fd::reset() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

namespace {

std::optional<FileId> identify_at(int fd, const char* path, int flags) {
  struct statx s {};
  if (::statx(fd, path, flags, STATX_BASIC_STATS | STATX_BTIME, &s) != 0) return std::nullopt;
  FileId id;
  id.dev = makedev(s.stx_dev_major, s.stx_dev_minor);
  id.ino = s.stx_ino;
  id.size = s.stx_size;
  if ((s.stx_mask & STATX_BTIME) != 0) {
    id.birth_ns =
        static_cast<std::uint64_t>(s.stx_btime.tv_sec) * 1'000'000'000U + s.stx_btime.tv_nsec;
  }
  return id;
}

struct flock byte_range(std::int64_t offset, short type) {
  struct flock range {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = offset;
  range.l_len = 1;
  return range;
}

}  // namespace

std::optional<FileId> identify(const std::string& path) {
  return identify_at(AT_FDCWD, path.c_str(), 0);
}

std::optional<FileId> identify(const Fd& fd) { return identify_at(fd.get(), "", AT_EMPTY_PATH); }

bool lock_byte(const Fd& fd, std::int64_t offset, bool exclusive) {
  struct flock range = byte_range(offset, exclusive ? F_WRLCK : F_RDLCK);
  return ::fcntl(fd.get(), F_OFD_SETLK, &range) == 0;
}

void unlock_byte(const Fd& fd, std::int64_t offset) {
  struct flock range = byte_range(offset, F_UNLCK);
  ::fcntl(fd.get(), F_OFD_SETLK, &range);
}

bool byte_is_locked(const Fd& fd, std::int64_t offset) {
  struct flock range = byte_range(offset, F_WRLCK);
  return ::fcntl(fd.get(), F_OFD_GETLK, &range) == 0 && range.l_type != F_UNLCK;
}

std::string writable_by_others(const std::string& path, const std::string& noun) {
  struct stat s {};
  if (::lstat(path.c_str(), &s) != 0) return {};
  const std::string what = noun + " " + path;
  if (s.st_uid != 0 && s.st_uid != ::geteuid()) {
    return what + " belongs to user " + std::to_string(s.st_uid) +
           ", neither root nor the one that egw runs as: chown it";
  }
  if (S_ISDIR(s.st_mode) && (s.st_mode & S_ISVTX) != 0) return {};
  if ((s.st_mode & (S_IWGRP | S_IWOTH)) == 0) return {};
  return what + " can be written by " + ((s.st_mode & S_IWOTH) != 0 ? "everybody" : "its group") +
         ": chmod go-w it";
}

std::string resolve(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr int kMostLinks = 40;  // as the kernel
  fs::path at = path;
  std::error_code ec;
  for (int i = 0; i < kMostLinks; ++i) {
    const fs::path folder = fs::weakly_canonical(at.parent_path(), ec);
    if (ec) return path;
    at = folder / at.filename();
    const fs::path target = fs::read_symlink(at, ec);
    if (ec) return at.string();
    at = target.is_absolute() ? target : folder / target;
  }
  return path;  // a circle: opening it says so
}

// From /proc/locks: asking the file itself would need a descriptor of our own, and closing that
// would drop every POSIX lock that SQLite holds on the file in this process.
std::string lock_holder(const std::string& path) {
  const std::optional<FileId> id = identify(path);
  if (!id) return {};
  char wanted[64];
  std::snprintf(wanted, sizeof(wanted), "%02x:%02x:%llu", major(id->dev), minor(id->dev),
                static_cast<unsigned long long>(id->ino));
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, type, mode, access, file;
    long pid = 0;
    if (!(words >> number >> type >> mode >> access >> pid >> file)) continue;
    if (type != "POSIX" || access != "WRITE" || file != wanted || pid <= 0) continue;
    if (pid == ::getpid()) continue;
    std::string name;
    std::getline(std::ifstream("/proc/" + std::to_string(pid) + "/comm") >> std::ws, name);
    return "process " + std::to_string(pid) + (name.empty() ? "" : " (" + name + ")");
  }
  return {};
}

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

std::string name_of(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

}  // namespace egw::local
