#include "egw/host/trial.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "egw/host/descriptor.hpp"
#include "egw/host/text.hpp"

namespace egw::host {
namespace {

using Clock = std::chrono::steady_clock;

// What the child sends: one byte per stage that it enters; after kAnswer a JSON document up to the
// end of the stream.
enum Stage : char { kOpening = 'o', kEntry = 'e', kDescriptor = 'd', kAnswer = 'a' };
constexpr std::size_t kMaxAnswer = 1U << 20U;

const char* doing(char stage) {
  switch (stage) {
    case kEntry:
      return "in its entry " EGW_PLUGIN_ENTRY_SYMBOL;
    case kDescriptor:
      return "while its descriptor was read";
    default:
      return "while it was opened";
  }
}

void send(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(1);
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

void send_stage(int fd, Stage stage) {
  const char byte = stage;
  send(fd, {&byte, 1});
}

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

[[noreturn]] void child(int out, const std::filesystem::path& file, PluginKind kind,
                        const std::string& name) {
  prepare_child(out);
  nlohmann::json answer;
  PluginInfo info;
  std::string wrong;
  try {
    send_stage(out, kOpening);
    void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      wrong = "cannot be opened: " + plain_text(std::string_view(dlerror()), 512);
    } else {
      const auto entry =
          reinterpret_cast<egw_plugin_entry_fn>(dlsym(library, EGW_PLUGIN_ENTRY_SYMBOL));
      if (entry == nullptr) {
        wrong = "is no egw plugin: it does not export " EGW_PLUGIN_ENTRY_SYMBOL;
      } else {
        send_stage(out, kEntry);
        const egw_plugin_descriptor* descriptor = nullptr;
        try {
          descriptor = entry();
          send_stage(out, kDescriptor);
          wrong = read_descriptor(descriptor, kind, name, info);
        } catch (const std::exception& e) {
          wrong = "threw an exception in its entry (" +
                  plain_text(std::string_view(e.what()), 512) + "): correct the plugin";
        } catch (...) {
          wrong = "threw an exception in its entry: correct the plugin";
        }
      }
    }
    answer = {{"wrong", wrong},
              {"name", info.name},
              {"version", info.version},
              {"buildTag", info.build_tag},
              {"schema", info.config_schema},
              {"layout", info.layout},
              {"major", info.abi_major},
              {"minor", info.abi_minor},
              {"capabilities", info.capabilities}};
    const std::string text = answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    send_stage(out, kAnswer);
    send(out, text);
  } catch (...) {
    _exit(1);
  }
  _exit(0);
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
  while (stream.size() < kMaxAnswer) {
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

std::string describe_end(int status, char stage) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    const char* name = sigabbrev_np(signal);
    return "crashed with signal " + std::to_string(signal) +
           (name != nullptr ? " (SIG" + std::string(name) + ") " : " ") + doing(stage) +
           ": correct the plugin";
  }
  return "ended the process with exit code " + std::to_string(WEXITSTATUS(status)) + " " +
         doing(stage) + ": correct the plugin";
}

std::string read_answer(const std::string& text, PluginInfo& info) {
  const auto j = nlohmann::json::parse(text, nullptr, false);
  if (!j.is_object()) return {"gave no readable answer in its trial: correct the plugin"};
  info.name = j.value("name", "");
  info.version = j.value("version", "");
  info.build_tag = j.value("buildTag", "");
  info.config_schema = j.value("schema", "");
  info.layout = j.value("layout", "");
  info.abi_major = j.value("major", std::uint16_t{0});
  info.abi_minor = j.value("minor", std::uint16_t{0});
  info.capabilities = j.value("capabilities", std::uint64_t{0});
  return j.value("wrong", "");
}

}  // namespace

std::string try_library(const std::filesystem::path& file, PluginKind kind, const std::string& name,
                        PluginInfo& info, std::chrono::milliseconds patience) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return std::string("cannot be tried, no pipe: ") + std::strerror(errno);
  }
  Fd in(ends[0]);
  Fd out(ends[1]);
  const auto until = Clock::now() + patience;
  const pid_t pid = fork();
  if (pid < 0) return std::string("cannot be tried, no child process: ") + std::strerror(errno);
  if (pid == 0) child(out.value, file, kind, name);
  out.reset();

  std::string stream;
  const bool in_time = drain(in.value, until, stream);
  const std::size_t answer = stream.find(static_cast<char>(kAnswer));
  const auto status = reap(pid, answer != std::string::npos ? Clock::now() : until);
  if (answer != std::string::npos) return read_answer(stream.substr(answer + 1), info);
  const char stage = stream.empty() ? static_cast<char>(kOpening) : stream.back();
  if (status) return describe_end(*status, stage);
  if (!in_time) {
    return "did not come back within " + duration_text(patience) + " " + doing(stage) +
           ": correct the plugin";
  }
  return std::string("closed its files and did not end ") + doing(stage) + ": correct the plugin";
}

}  // namespace egw::host
