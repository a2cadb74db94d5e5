// See file_watch.hpp.
#include "file_watch.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "egw/sdk/status.hpp"

namespace egw::local {

FileWatch::FileWatch(std::string content, bool closed, std::vector<std::string> names)
    : content_(std::move(content)),
      closed_(closed),
      names_(std::move(names)),
      inotify_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)),
      event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (!inotify_ || !event_) {
    throw sdk::Failure(sdk::Code::kUnavailable,
                       "the kernel gives no inotify instance; raise the sysctl "
                       "fs.inotify.max_user_instances or the limit of open files",
                       content_, errno);
  }
  std::erase(names_, std::string());
  names_.push_back(content_);
  arm();
}

// Adding a watch again changes nothing; a file that was made anew since gets one. Folders that do
// not exist are tried again at every wait.
void FileWatch::arm() {
  armed_ = true;
  const std::uint32_t mask = IN_MODIFY | IN_ATTRIB | (closed_ ? std::uint32_t{IN_CLOSE_WRITE} : 0U);
  if (::inotify_add_watch(inotify_.get(), content_.c_str(), mask) < 0) armed_ = false;
  for (const std::string& name : names_) {
    const std::uint32_t folder =
        IN_ONLYDIR | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF;
    if (::inotify_add_watch(inotify_.get(), folder_of(name).c_str(), folder) < 0) armed_ = false;
  }
}

void FileWatch::wake() {
  const std::uint64_t one = 1;
  // It can fail only when the counter is full, and then the waiter is awake anyway.
  if (::write(event_.get(), &one, sizeof(one)) < 0) return;
}

bool FileWatch::wait(std::chrono::milliseconds longest) {
  const auto until = std::chrono::steady_clock::now() + longest;
  if (!armed_) arm();
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) break;
    struct pollfd fds[2] = {{inotify_.get(), POLLIN, 0}, {event_.get(), POLLIN, 0}};
    const int n = ::poll(fds, 2, static_cast<int>(left.count()));
    if (n == 0) break;
    if (n < 0) continue;  // a signal
    bool ours = false;
    if ((fds[1].revents & POLLIN) != 0) {
      std::uint64_t count = 0;
      ours = ::read(event_.get(), &count, sizeof(count)) == sizeof(count);
    }
    if ((fds[0].revents & POLLIN) != 0 && drain()) ours = true;
    if (ours) return true;
  }
  arm();  // the time is over: also a chance to find files that were replaced unseen
  return false;
}

// Reads all events. Whether one concerns our files: the folder may be full of others'.
bool FileWatch::drain() {
  bool ours = false;
  alignas(struct inotify_event) char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(inotify_.get(), buffer, sizeof(buffer));
    if (n <= 0) return ours;
    for (ssize_t at = 0; at < n;) {
      const auto* event = reinterpret_cast<const struct inotify_event*>(buffer + at);
      at += static_cast<ssize_t>(sizeof(*event) + event->len);
      if (event->len == 0) {
        ours = true;
        if ((event->mask & ~std::uint32_t{IN_MODIFY | IN_CLOSE_WRITE}) != 0) armed_ = false;
        continue;
      }
      const std::string name = event->name;
      for (const std::string& wanted : names_) {
        if (name_of(wanted) != name) continue;
        ours = true;
        armed_ = false;
      }
    }
  }
}

}  // namespace egw::local
