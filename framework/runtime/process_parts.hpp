// The pieces from which process.cpp and process_agent.cpp put a process together.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/signal_set.hpp>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "egw/host/plugin_host.hpp"
#include "egw/runtime/clock.hpp"
#include "egw/runtime/config.hpp"
#include "egw/runtime/http_server.hpp"
#include "egw/runtime/logging.hpp"

namespace egw::runtime {

inline constexpr const char* kVersion = EGW_VERSION;
// A process that has been asked to stop is gone after this, whatever a plugin does.
inline constexpr std::chrono::seconds kStopTime{9};

// Makes the folder (mode 0700) if it is not there.
[[nodiscard]] Result<void> make_state_dir(const std::filesystem::path& folder);
// The same, and refuses one that others can write: what is noted there is believed and carried out.
[[nodiscard]] Result<void> make_own_state_dir(const std::filesystem::path& folder);

// A lock that the kernel drops when the process is gone (flock(2)).
class FolderLock {
 public:
  FolderLock() = default;
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  // kConflict: another process holds it. Anything else: the file cannot be opened.
  [[nodiscard]] Result<void> take(const std::filesystem::path& file);

 private:
  int fd_ = -1;
};

// Of NamespaceLock: who programs this kernel.
inline constexpr const char* kAgentLock = "egw-agent";

// At most one of a name per network namespace: an abstract unix socket, which belongs to the
// namespace and goes with the process, however that ends (unix(7)).
class NamespaceLock {
 public:
  explicit NamespaceLock(boost::asio::io_context& loop) : acceptor_(loop) {}
  // An error when a process of root's or of our own user has it, which ends with `harm`: what would
  // happen, and what to do. Somebody else's keeps nobody from running: that is logged.
  [[nodiscard]] Result<void> take(const std::string& name, const std::string& harm, Logger& log);

 private:
  void turn_away();
  boost::asio::local::stream_protocol::acceptor acceptor_;
};

// Ends the process when it takes too long over stopping, and over its end: a plugin's own statics
// are destroyed after everything here. Nothing can call an armed one off.
class Watchdog {
 public:
  explicit Watchdog(Logger& log);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  void arm(std::chrono::seconds patience);  // again: the new time counts

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::chrono::steady_clock::time_point deadline;
    bool armed = false;
    Logger* log = nullptr;  // nullptr: it has gone
  };
  static void wait(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

class Process {
 public:
  Process(const RuntimeConfig& config, std::string role);
  ~Process();

  [[nodiscard]] Logger& log() { return log_; }
  [[nodiscard]] Clock& clock() { return *clock_; }
  [[nodiscard]] Watchdog& watchdog() { return watchdog_; }
  [[nodiscard]] boost::asio::io_context& loop() { return loop_; }
  [[nodiscard]] boost::asio::any_io_executor executor() { return loop_.get_executor(); }
  [[nodiscard]] host::LogFn plugin_log();
  [[nodiscard]] std::string identity() const;

  Result<std::unique_ptr<host::StateStore>> open_store(host::PluginHost& plugins);
  // Health and metrics on the configured ports, the admin API at `socket`.
  Result<void> serve(std::shared_ptr<HttpHandler> health, std::shared_ptr<HttpHandler> metrics,
                     std::shared_ptr<HttpHandler> admin, const std::filesystem::path& socket);
  // SIGTERM, SIGINT, or SIGHUP unless it is ignored (nohup); `times` counts from 1.
  void on_stop(std::function<void(unsigned times)> stop);
  // Runs the loop until it is stopped; the exit code.
  int run();
  // Logs why the process cannot run; the exit code.
  int refuse(const Error& error);

 private:
  void wait_for_signal();

  const RuntimeConfig& config_;
  std::string role_;
  Logger log_;
  Watchdog watchdog_;
  boost::asio::io_context loop_;
  std::unique_ptr<Clock> clock_;
  boost::asio::signal_set signals_;
  std::function<void(unsigned)> stop_;
  unsigned signals_seen_ = 0;
  std::vector<std::unique_ptr<HttpServer>> servers_;
};

}  // namespace egw::runtime
