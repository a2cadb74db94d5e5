#include "egw/host/forked.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "egw/host/text.hpp"

namespace egw::host {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kMaxStream = 1U << 20U;

// exit() called by the library ends the child here, before the handlers of this process that the
// child inherited (they would remove sockets and files that are still in use).
void leave_at_once(int status, void*) { _exit(status); }

void prepare_child(int keep) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM, SIGINT, SIGHUP,
                           SIGPIPE, SIGTRAP, SIGSYS}) {
    std::signal(signal, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int fd : {0, 1, 2}) {
    if (fd != keep) dup2(null, fd);
  }
  on_exit(leave_at_once, nullptr);
}

struct Fd {
  int value = -1;
  Fd() = default;
  explicit Fd(int fd) : value(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }
  void reset() {
    if (value >= 0) close(value);
    value = -1;
  }
};

// Reads the child's stream to its end, or to `until`. false: time is up.
bool drain(int fd, Clock::time_point until, std::string& stream) {
  char buffer[4096];
  while (stream.size() < kMaxStream) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return false;
    pollfd wait{fd, POLLIN, 0};
    const int ready = poll(&wait, 1, static_cast<int>(left));
    if (ready < 0 && errno != EINTR) return true;
    if (ready <= 0) continue;
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return true;
    stream.append(buffer, static_cast<std::size_t>(n));
  }
  return true;
}

// The child's wait status; nullopt: it did not end in time, or somebody else reaped it.
std::optional<int> reap(pid_t pid, Clock::time_point until) {
  const Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  int status = 0;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
  pollfd wait{pidfd.value, POLLIN, 0};
  bool ended = pidfd.value >= 0 && poll(&wait, 1, static_cast<int>(std::max<long>(left, 0))) > 0;
  if (!ended) kill(pid, SIGKILL);
  pid_t done = 0;
  do {
    done = waitpid(pid, &status, 0);
  } while (done < 0 && errno == EINTR);
  return ended && done == pid ? std::optional<int>(status) : std::nullopt;
}

[[noreturn]] void run_child(int out, const std::function<void(int)>& body) {
  prepare_child(out);
  try {
    body(out);
  } catch (...) {
    _exit(1);
  }
  _exit(0);
}

}  // namespace

void send_to_parent(int out, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(out, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(1);
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

ChildEnd in_child(const std::function<void(int out)>& body, std::chrono::milliseconds patience,
                  const std::function<bool(const std::string& stream)>& complete) {
  ChildEnd end;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    end.trouble = std::string("no pipe: ") + std::strerror(errno);
    return end;
  }
  Fd in(ends[0]);
  Fd out(ends[1]);
  const auto until = Clock::now() + patience;
  const pid_t pid = fork();
  if (pid < 0) {
    end.trouble = std::string("no child process: ") + std::strerror(errno);
    return end;
  }
  if (pid == 0) run_child(out.value, body);
  out.reset();
  end.in_time = drain(in.value, until, end.stream);
  end.status = reap(pid, complete(end.stream) ? Clock::now() : until);
  return end;
}

std::string end_text(const ChildEnd& end, std::chrono::milliseconds patience,
                     std::string_view doing) {
  const std::string where(doing);
  if (!end.status) {
    if (!end.in_time) return "did not come back within " + duration_text(patience) + " " + where;
    return "closed its files and did not end " + where;
  }
  if (WIFSIGNALED(*end.status)) {
    const int signal = WTERMSIG(*end.status);
    const char* name = sigabbrev_np(signal);
    return "crashed with signal " + std::to_string(signal) +
           (name != nullptr ? " (SIG" + std::string(name) + ") " : " ") + where;
  }
  return "ended the process with exit code " + std::to_string(WEXITSTATUS(*end.status)) + " " +
         where;
}

}  // namespace egw::host
