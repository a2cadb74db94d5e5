// Worker: the one thread on which all operations of a plugin instance are called, and the only way
// from a plugin's threads to the core. Owned by the proxies (instance.hpp) and by its own thread.
//
// A plugin may end the thread (pthread_exit): the operation has failed then, and another thread
// goes on with what waits.
//
// Lifetime. The thread holds the Worker, so the contexts that a plugin was given (keep()) live as
// long as an operation may run, however long that is. After close() nothing is posted to the
// executor and nothing is logged, so a thread that never comes back touches nothing of the core's.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "egw/host/log_budget.hpp"
#include "egw/host/plugin_host.hpp"

namespace egw::host {

// Asked in a catch (...) block: is it pthread_exit() that unwinds the stack? That has no exception
// object, so a handler of its own (abi::__forced_unwind) would bind a reference to nothing.
inline bool unwinds_to_end() noexcept { return std::current_exception() == nullptr; }

class Worker : public std::enable_shared_from_this<Worker> {
 public:
  using Clock = std::chrono::steady_clock;
  using Milliseconds = std::chrono::milliseconds;

  struct Running {
    std::string name;
    Clock::time_point began;
    Milliseconds deadline{};
    [[nodiscard]] bool overdue(Clock::time_point now) const { return now > began + deadline; }
  };

  // label: "datapath plugin netlink", for messages.
  static std::shared_ptr<Worker> start(std::string label, boost::asio::any_io_executor executor,
                                       LogFn log);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Core thread. Runs `run` after everything enqueued before. deadline: of its running time.
  // Returns its number; 0 when closed (run is destroyed at once).
  std::uint64_t enqueue(std::string name, Milliseconds deadline, std::function<void()> run);
  // Core thread. true: it had not begun and will not.
  bool withdraw(std::uint64_t number);
  // When the work ought to be done: its beginning, or `queued` while it waits, plus its deadline.
  [[nodiscard]] Clock::time_point due(std::uint64_t number, Clock::time_point queued,
                                      Milliseconds deadline) const;
  [[nodiscard]] std::optional<Running> running() const;

  // Any thread, in the order of the calls: runs `fn` on the executor, or destroys it when closed.
  // `fn` must own nothing that belongs to the core (weak_ptr only).
  void post(std::function<void()> fn);
  void log(int level, std::string_view message) const;
  // A line of the plugin's own: of a flood most are left out, and counted in a line of ours.
  void plugin_log(int level, std::string_view message);
  [[nodiscard]] const std::string& label() const { return label_; }
  // Any thread: `context` lives as long as this.
  void keep(std::shared_ptr<void> context);

  // Core thread. Drops what waits, runs `last` after what runs now, and waits for the end of both:
  // at most `patience`, not at all when the running call is overdue. After that the thread is left
  // to itself and the instance with it. false: it was left.
  bool close(std::function<void()> last, Milliseconds patience);

 private:
  struct Job {
    std::uint64_t number = 0;
    std::string name;
    Milliseconds deadline{};
    std::function<void()> run;
  };
  Worker(std::string label, boost::asio::any_io_executor executor, LogFn log);
  static void begin(const std::shared_ptr<Worker>& self);
  void loop();
  void run(Job job);
  void thread_ends(const std::string& job);

  const std::string label_;
  mutable std::mutex gate_mutex_;
  boost::asio::any_io_executor executor_;  // guarded by gate_mutex_
  mutable std::mutex log_mutex_;
  LogFn log_;  // guarded by log_mutex_
  LogBudget budget_;

  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable wake_;
  std::condition_variable ended_;
  std::deque<Job> queue_;
  std::uint64_t next_ = 1;
  std::uint64_t running_number_ = 0;
  std::optional<Running> running_;
  bool closing_ = false;
  bool done_ = false;
  std::vector<std::shared_ptr<void>> kept_;
  std::thread thread_;
};

}  // namespace egw::host
