// Where verbs write (console.hpp).
#include "egw/app/console.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace egw::app {
namespace {

// 0, or the errno of a write that failed. Waits where the descriptor is non-blocking.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<std::size_t>(n));
      continue;
    }
    if (errno == EAGAIN) {
      pollfd ready{fd, POLLOUT, 0};
      (void)::poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

}  // namespace

void Console::out(std::string_view text) {
  if (broken_) return;
  buffer_ += text;
  if (buffer_.size() >= 64UL * 1024) (void)flush();
}

void Console::err(std::string_view line) {
  (void)flush();
  (void)write_all(err_fd_, fmt::format("{}\n", line));
}

void Console::error(std::string_view message) { err(fmt::format("Error: {}", message)); }
void Console::warning(std::string_view message) { err(fmt::format("Warning: {}", message)); }

bool Console::flush() {
  if (broken_) return false;
  std::string text;
  text.swap(buffer_);
  const int error_number = write_all(out_fd_, text);
  if (error_number == 0) return true;
  broken_ = true;
  failed_ = error_number != EPIPE;
  if (failed_) {
    error(fmt::format("standard output: cannot be written ({})", std::strerror(error_number)));
  }
  return false;
}

}  // namespace egw::app
