// See office_lock.hpp.
#include "office_lock.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "egw/sdk/status.hpp"
#include "explain.hpp"

namespace egw::local {

bool OfficeLock::current() const {
  const auto there = identify(path_);
  const auto ours = identify(file_);
  return file_ && there && ours && there->same(*ours);
}

void OfficeLock::open_file() {
  locked_ = false;
  file_ = Fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file_) return;
  throw sdk::Failure(sdk::Code::kUnavailable, words::cannot_write_beside(folder_of(path_)), path_,
                     errno);
}

bool OfficeLock::taken(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  return file && byte_is_locked(file, 0);
}

bool OfficeLock::take() {
  if (!current()) open_file();
  if (!locked_) locked_ = lock_byte(file_, 0, true);
  return locked_;
}

bool OfficeLock::held() const { return locked_ && current(); }

// Unlocked first, then written: who is woken by the write finds the lock free.
void OfficeLock::release() {
  if (!locked_) return;
  unlock_byte(file_, 0);
  locked_ = false;
  // Who has only tried has nothing to tell; the write would wake those who wait, this one first.
  if (std::exchange(announced_, false)) announce({}, 0);
}

void OfficeLock::announce(std::string_view holder, std::uint64_t epoch) {
  if (!file_) return;
  if (!holder.empty()) announced_ = true;
  std::string text =
      holder.empty() ? std::string("vacant") : std::string(holder) + " " + std::to_string(epoch);
  text += '\n';
  const auto size = static_cast<off_t>(text.size());
  // Nobody reads the text to decide anything; what matters is that the file was touched.
  if (::pwrite(file_.get(), text.data(), text.size(), 0) != size ||
      ::ftruncate(file_.get(), size) != 0) {
    ::futimens(file_.get(), nullptr);
  }
}

}  // namespace egw::local
