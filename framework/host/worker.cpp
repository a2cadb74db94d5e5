#include "egw/host/worker.hpp"

#include <pthread.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <csignal>

#include "egw/host/text.hpp"

namespace egw::host {
namespace {

// Threads that a plugin starts inherit the mask: the process's signals stay with the process.
void block_signals() {
  sigset_t set;
  sigfillset(&set);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) {
    sigdelset(&set, fault);
  }
  pthread_sigmask(SIG_SETMASK, &set, nullptr);
}

}  // namespace

Worker::Worker(std::string label, boost::asio::any_io_executor executor, LogFn log)
    : label_(std::move(label)), executor_(std::move(executor)), log_(std::move(log)) {}

std::shared_ptr<Worker> Worker::start(std::string label, boost::asio::any_io_executor executor,
                                      LogFn log) {
  std::shared_ptr<Worker> worker(new Worker(std::move(label), std::move(executor), std::move(log)));
  begin(worker);
  return worker;
}

void Worker::begin(const std::shared_ptr<Worker>& self) {
  self->thread_ = std::thread([self = std::shared_ptr<Worker>(self)]() mutable {
    block_signals();
    pthread_setname_np(pthread_self(), "egw-plugin");
    self->loop();
    self.reset();
  });
}

// The last holder is either the core after close(), or the thread itself after it was left.
Worker::~Worker() {
  if (thread_.joinable()) thread_.detach();
}

std::uint64_t Worker::enqueue(std::string name, Milliseconds deadline, std::function<void()> run) {
  const std::scoped_lock lock(mutex_);
  if (closing_) return 0;
  const std::uint64_t number = next_++;
  queue_.push_back({number, std::move(name), deadline, std::move(run)});
  wake_.notify_one();
  return number;
}

bool Worker::withdraw(std::uint64_t number) {
  Job dropped;  // destroyed outside the lock
  const std::scoped_lock lock(mutex_);
  const auto it = std::find_if(queue_.begin(), queue_.end(),
                               [number](const Job& job) { return job.number == number; });
  if (it == queue_.end()) return false;
  dropped = std::move(*it);
  queue_.erase(it);
  return true;
}

Worker::Clock::time_point Worker::due(std::uint64_t number, Clock::time_point queued,
                                      Milliseconds deadline) const {
  const std::scoped_lock lock(mutex_);
  const bool runs = running_ && running_number_ == number;
  return (runs ? running_->began : queued) + deadline;
}

std::optional<Worker::Running> Worker::running() const {
  const std::scoped_lock lock(mutex_);
  return running_;
}

void Worker::post(std::function<void()> fn) {
  const std::scoped_lock lock(gate_mutex_);
  if (executor_) boost::asio::post(executor_, std::move(fn));
}

void Worker::log(int level, std::string_view message) const {
  const std::scoped_lock lock(log_mutex_);  // held during the call: close() waits for it
  if (log_) log_(level, label_, message);
}

void Worker::plugin_log(int level, std::string_view message) {
  const LogBudget::Answer answer = budget_.take(Clock::now());
  if (!answer.allowed) return;
  if (answer.left_out != 0) {
    log(EGW_LOG_WARN,
        "logs too much: " + std::to_string(answer.left_out) + " of its lines were left out");
  }
  log(level, message);
}

void Worker::keep(std::shared_ptr<void> context) {
  const std::scoped_lock lock(mutex_);
  kept_.push_back(std::move(context));
}

void Worker::loop() {
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) {
        done_ = true;
        ended_.notify_all();
        return;
      }
      job = std::move(queue_.front());
      queue_.pop_front();
      running_number_ = job.number;
      running_ = Running{job.name, Clock::now(), job.deadline};
    }
    run(std::move(job));
  }
}

void Worker::run(Job job) {
  const auto began = Clock::now();
  try {
    job.run();
  } catch (const std::exception& e) {
    log(EGW_LOG_ERROR, job.name + " failed: " + e.what());
  } catch (...) {
    if (unwinds_to_end()) {
      job.run = nullptr;
      thread_ends(job.name);
      throw;
    }
    log(EGW_LOG_ERROR, job.name + " threw what is no std::exception");
  }
  job.run = nullptr;  // what it held goes before the next job may begin
  const auto took = Clock::now() - began;
  {
    const std::scoped_lock lock(mutex_);
    running_.reset();
    running_number_ = 0;
  }
  if (took > job.deadline) {
    log(EGW_LOG_WARN, job.name + " came back after " + duration_text(took) + ", its deadline was " +
                          duration_text(job.deadline));
  }
}

// On the thread that ends.
void Worker::thread_ends(const std::string& job) {
  log(EGW_LOG_ERROR, "ended the thread of its instance in " + job +
                         " (pthread_exit): another thread goes on; correct the plugin");
  const std::scoped_lock lock(mutex_);
  running_.reset();
  running_number_ = 0;
  if (!thread_.joinable()) return;  // it has been left to itself: nobody waits for what is queued
  thread_.detach();
  begin(shared_from_this());
}

bool Worker::close(std::function<void()> last, Milliseconds patience) {
  std::deque<Job> dropped;
  bool left = false;
  std::string busy;
  std::thread ended;
  {
    std::unique_lock lock(mutex_);
    if (closing_) return done_;
    closing_ = true;
    dropped.swap(queue_);
    if (last) queue_.push_back({next_++, "close", patience, std::move(last)});
    wake_.notify_one();
    const bool overdue = running_ && running_->overdue(Clock::now());
    left = overdue || !ended_.wait_for(lock, patience, [this] { return done_; });
    if (left && running_) busy = running_->name;
    if (left) {
      thread_.detach();
    } else {
      ended = std::move(thread_);
    }
  }
  if (left) {
    log(EGW_LOG_WARN, "did not come back from " + (busy.empty() ? "close" : busy) +
                          "; its thread is left to itself");
  } else {
    ended.join();
  }
  const std::scoped_lock lock(gate_mutex_, log_mutex_);
  executor_ = {};
  log_ = nullptr;
  return !left;
}

}  // namespace egw::host
