// The lock file of the leader's office. The kernel drops the lock when its holder dies, and closing
// or writing the file wakes everybody who waits for it (file_watch.hpp). Used by campaign.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "files.hpp"

namespace egw::local {

class OfficeLock {
 public:
  explicit OfficeLock(std::string path) : path_(std::move(path)) {}
  ~OfficeLock() { release(); }
  OfficeLock(const OfficeLock&) = delete;
  OfficeLock& operator=(const OfficeLock&) = delete;

  // Whether anybody has the lock of that file; takes nothing.
  [[nodiscard]] static bool taken(const std::string& path);
  // Does not wait. False: somebody else has it. Throws sdk::Failure when the file cannot be made.
  bool take();
  // Whether this object has the lock and the path still leads to the file that is locked.
  [[nodiscard]] bool held() const;
  void release();
  // Writes who leads into the file, for people and to wake the others.
  void announce(std::string_view holder, std::uint64_t epoch);

 private:
  [[nodiscard]] bool current() const;
  void open_file();

  const std::string path_;
  Fd file_;
  bool locked_ = false;
  bool announced_ = false;  // that somebody leads, since the lock was last released
};

}  // namespace egw::local
