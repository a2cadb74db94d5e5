// Pieces of a process (process_parts.hpp).
#include "egw/runtime/process_parts.hpp"

#include <fcntl.h>
#include <malloc.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <utility>

#include "egw/host/own_folder.hpp"
#include "egw/runtime/endpoints.hpp"
#include "egw/runtime/process.hpp"
#include "egw/runtime/sysctls.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
namespace fs = std::filesystem;

Result<void> make_state_dir(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return {};
  fs::create_directories(folder, error);
  if (!error) fs::permissions(folder, fs::perms::owner_all, error);
  if (error) {
    return fail(Errc::kUnavailable, folder.string(),
                "the state folder cannot be made: choose another one or create it", error.value());
  }
  return {};
}

Result<void> make_own_state_dir(const fs::path& folder) {
  if (auto made = make_state_dir(folder); !made) return made;
  return host::check_own_folder(folder);
}

// ---- the locks, Watchdog
// -------------------------------------------------------------------------

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<void> FolderLock::take(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) {
    return fail(Errc::kUnavailable, file.string(),
                "the lock cannot be opened: run this as the user that the state folder belongs to "
                "(root, as a rule), or see that its file system can be written",
                errno);
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd);
    return fail(Errc::kConflict, file.string(), "another process holds the lock");
  }
  fd_ = fd;
  return {};
}

Result<void> NamespaceLock::take(const std::string& name, const std::string& harm, Logger& log) {
  const asio::local::stream_protocol::endpoint place(std::string(1, '\0') + name);
  boost::system::error_code error;
  for (int attempt = 0; attempt < 2; ++attempt) {
    acceptor_.close(error);
    acceptor_.open(place.protocol(), error);
    if (!error) acceptor_.bind(place, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (!error) {
      turn_away();
      return {};
    }
    asio::local::stream_protocol::socket question(acceptor_.get_executor());
    boost::system::error_code no_answer;
    question.open(place.protocol(), no_answer);
    if (!no_answer) question.non_blocking(true, no_answer);
    if (!no_answer) question.connect(place, no_answer);
    if (no_answer == asio::error::connection_refused) continue;  // it has just gone
    ucred holder{};
    socklen_t size = sizeof(holder);
    if (no_answer ||
        ::getsockopt(question.native_handle(), SOL_SOCKET, SO_PEERCRED, &holder, &size) != 0 ||
        (holder.uid != 0 && holder.uid != ::geteuid())) {
      break;
    }
    return fail(Errc::kUnavailable, "network namespace",
                "another agent runs here" +
                    (holder.pid == 0 ? std::string(" (in another container)")
                                     : " (process " + std::to_string(holder.pid) + ")") +
                    ", with another state folder: " + harm);
  }
  log.warn("a second agent in this network namespace would not be noticed: somebody holds @" + name,
           {{"error", error.message()}});
  return {};
}

// Nobody has anything to say here: a connection shows its other end who holds the name.
void NamespaceLock::turn_away() {
  acceptor_.async_accept([this](const boost::system::error_code& error, const auto& /*asked*/) {
    if (!error) turn_away();
  });
}

Watchdog::Watchdog(Logger& log) { state_->log = &log; }

Watchdog::~Watchdog() {
  const std::lock_guard lock(state_->mutex);
  state_->log = nullptr;
}

void Watchdog::arm(std::chrono::seconds patience) {
  const std::lock_guard lock(state_->mutex);
  state_->deadline = std::chrono::steady_clock::now() + patience;
  state_->changed.notify_all();
  if (state_->armed) return;
  state_->armed = true;
  std::thread([state = state_] { wait(state); }).detach();
}

void Watchdog::wait(const std::shared_ptr<State>& state) {
  std::unique_lock lock(state->mutex);
  while (std::chrono::steady_clock::now() < state->deadline) {
    state->changed.wait_until(lock, state->deadline);
  }
  const char* const why = "a plugin did not let go in time: leaving without it";
  if (state->log != nullptr) {
    state->log->error(why);
  } else {
    std::fprintf(stderr, "egw: %s\n", why);
  }
  ::_exit(1);
}

// ---- Process
// -------------------------------------------------------------------------------------

Process::Process(const RuntimeConfig& config, std::string role)
    : config_(config),
      role_(std::move(role)),
      log_(config.log_format, config.log_level),
      watchdog_(log_),
      loop_(1),
      clock_(make_clock(loop_.get_executor())),
      signals_(loop_) {
  std::signal(SIGPIPE, SIG_IGN);
  // One heap for all threads, given back as it empties: one thread does the work, and with a heap
  // for each of the plugins' threads a start with 5,000 policies keeps 5 to 10 MB more.
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_TRIM_THRESHOLD, 256 * 1024);
}

Process::~Process() = default;

host::LogFn Process::plugin_log() {
  return [this](int level, std::string_view plugin, std::string_view message) {
    log_.log(static_cast<LogLevel>(std::clamp(level, 0, 3)), message, {{"plugin", plugin}});
  };
}

std::string Process::identity() const {
  if (!config_.identity.empty()) return config_.identity;
  return config_.node_name + "-" + std::to_string(::getpid());
}

Result<std::unique_ptr<host::StateStore>> Process::open_store(host::PluginHost& plugins) {
  host::AdmitFn admit = [settings = config_.settings](const host::AdmitRequest& request) {
    return admit_with(settings, request);
  };
  return plugins.open_state_store(
      config_.state_store.name, config_.state_store.config, std::move(admit),
      role_ == "controller" ? host::StoreUse::kServes : host::StoreUse::kWrites);
}

Result<void> Process::serve(std::shared_ptr<HttpHandler> health,
                            std::shared_ptr<HttpHandler> metrics,
                            std::shared_ptr<HttpHandler> admin, const fs::path& socket) {
  const auto listen = [&](const Listen& where,
                          std::shared_ptr<HttpHandler> handler) -> Result<void> {
    if (where.port == 0) return {};
    auto server = serve_tcp(executor(), where.address, where.port, std::move(handler));
    if (!server) return tl::unexpected(server.error());
    servers_.push_back(std::move(*server));
    return {};
  };
  const bool shared = config_.health.port != 0 && config_.health.port == config_.metrics.port &&
                      config_.health.address == config_.metrics.address;
  if (shared) {
    if (auto ok = listen(config_.health, either(health, metrics)); !ok) return ok;
  } else {
    if (auto ok = listen(config_.health, health); !ok) return ok;
    if (auto ok = listen(config_.metrics, metrics); !ok) return ok;
  }
  auto server = serve_unix(executor(), socket, either(std::move(admin), std::move(metrics)));
  if (!server) return tl::unexpected(server.error());
  servers_.push_back(std::move(*server));
  return {};
}

void Process::on_stop(std::function<void(unsigned)> stop) {
  stop_ = std::move(stop);
  signals_.add(SIGTERM);
  signals_.add(SIGINT);
  // A terminal that closes must not end a gateway without its hand-over; nohup's wish stays.
  struct sigaction hangup {};
  if (::sigaction(SIGHUP, nullptr, &hangup) != 0 || hangup.sa_handler != SIG_IGN) {
    signals_.add(SIGHUP);
  }
  wait_for_signal();
}

void Process::wait_for_signal() {
  signals_.async_wait([this](const boost::system::error_code& error, int number) {
    if (error) return;
    log_.info("stopping", {{"signal", std::to_string(number)}});
    stop_(++signals_seen_);
    wait_for_signal();
  });
}

int Process::run() {
  int code = 0;
  try {
    loop_.run();
  } catch (const std::exception& error) {
    log_.error("stopping because of an unexpected failure", {{"error", error.what()}});
    watchdog_.arm(kStopTime);
    code = 1;
  }
  servers_.clear();
  return code;
}

// What another start, at another time, could bring to work is 1; the rest is configuration.
int Process::refuse(const Error& error) {
  log_.error(error.to_string(), {{"role", role_}});
  servers_.clear();
  switch (error.code) {
    case Errc::kUnavailable:
    case Errc::kTimeout:
    case Errc::kConflict:
      return 1;
    default:
      return 2;
  }
}

}  // namespace egw::runtime
