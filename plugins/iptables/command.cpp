#include "command.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace egw::iptables {
namespace {

constexpr std::size_t kMostOutput = 256UL * 1024 * 1024;
constexpr std::size_t kMostWords = 64UL * 1024;

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

// A file in memory: the child reads it at its own pace, and nobody waits for anybody.
bool write_input(int fd, std::string_view input) {
  while (!input.empty()) {
    const ssize_t n = ::write(fd, input.data(), input.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    input.remove_prefix(static_cast<std::size_t>(n));
  }
  return ::lseek(fd, 0, SEEK_SET) == 0;
}

int spawn(const std::vector<std::string>& arguments, std::array<int, 3> files, pid_t& child) {
  std::vector<char*> argv;
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
  static char language[] = "LC_ALL=C";
  std::array<char*, 3> environment{path, language, nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (int n = 0; n < 3; ++n) {
    posix_spawn_file_actions_adddup2(&actions, files[static_cast<std::size_t>(n)], n);
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const int err =
      ::posix_spawn(&child, argv[0], &actions, &attributes, argv.data(), environment.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return err;
}

// Reads both until they end. 0 or an errno.
int listen(int out, int err, std::chrono::steady_clock::time_point until, Finished& result) {
  std::array<pollfd, 2> fds{{{out, POLLIN, 0}, {err, POLLIN, 0}}};
  const std::array<std::string*, 2> texts{&result.out, &result.err};
  std::vector<char> buffer(64UL * 1024);
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return ETIMEDOUT;
    if (::poll(fds.data(), fds.size(), static_cast<int>(left.count())) < 0 && errno != EINTR) {
      return errno;
    }
    for (std::size_t i = 0; i < fds.size(); ++i) {
      if (fds[i].fd < 0 || fds[i].revents == 0) continue;
      const ssize_t n = ::read(fds[i].fd, buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        fds[i].fd = -1;
        continue;
      }
      std::string& text = *texts[i];
      const auto size = static_cast<std::size_t>(n);
      if (i == 0 && text.size() + size > kMostOutput) return EMSGSIZE;
      if (i == 0 || text.size() < kMostWords) text.append(buffer.data(), size);
    }
  }
  return 0;
}

// Waits for the end; ends it first if `err` says that it must not go on.
int reap(pid_t child, int err, std::chrono::steady_clock::time_point until) {
  const Descriptor process(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  if (err == 0 && process.get() >= 0) {
    pollfd ended{process.get(), POLLIN, 0};
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          until - std::chrono::steady_clock::now());
      const int n = ::poll(&ended, 1, static_cast<int>(std::max<long>(0, left.count())));
      if (n < 0 && errno == EINTR) continue;
      if (n == 0) err = ETIMEDOUT;
      break;
    }
  }
  if (err != 0) ::kill(child, SIGKILL);
  return err;
}

}  // namespace

std::string Finished::why() const {
  if (error == ETIMEDOUT) return "it did not end in time";
  if (error == EMSGSIZE) return "it said too much";
  if (error != 0) return std::strerror(error);
  std::string words = err.substr(0, err.find("\nTry `"));
  std::replace(words.begin(), words.end(), '\n', ' ');
  while (!words.empty() && words.back() == ' ') words.pop_back();
  if (words.size() > 300) words.resize(300);
  return words.empty() ? "exit code " + std::to_string(status) : words;
}

Finished run(const std::vector<std::string>& arguments, std::string_view input,
             std::chrono::milliseconds deadline) {
  Finished result;
  const auto until = std::chrono::steady_clock::now() + deadline;
  const auto broken = [&result] {
    result.error = errno;
    return std::move(result);
  };
  const Descriptor in(::memfd_create("egw-iptables", MFD_CLOEXEC));
  if (in.get() < 0 || !write_input(in.get(), input)) return broken();
  std::array<int, 2> out_pipe{}, err_pipe{};
  if (::pipe2(out_pipe.data(), O_CLOEXEC) != 0) return broken();
  const Descriptor out(out_pipe[0]);
  Descriptor out_end(out_pipe[1]);
  if (::pipe2(err_pipe.data(), O_CLOEXEC) != 0) return broken();
  const Descriptor err(err_pipe[0]);
  Descriptor err_end(err_pipe[1]);
  pid_t child = 0;
  result.error = spawn(arguments, {in.get(), out_end.get(), err_end.get()}, child);
  if (result.error != 0) return result;
  out_end.reset();
  err_end.reset();
  result.error = listen(out.get(), err.get(), until, result);
  result.error = reap(child, result.error, until);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace egw::iptables
