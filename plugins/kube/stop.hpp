// Ends what a thread waits for: a pause between attempts, or a request under way. Used by
// everything in this folder that has a thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>

namespace egw::kube {

class Stop {
 public:
  // A request under way ends when its HttpClient is told to wake() after this.
  void request() {
    {
      const std::lock_guard lock(mutex_);
      requested_ = true;
    }
    wake_.notify_all();
  }
  [[nodiscard]] bool requested() const { return requested_; }
  // Returns early, with true, when the stop is requested.
  bool wait(std::chrono::milliseconds pause) {
    std::unique_lock lock(mutex_);
    return wake_.wait_for(lock, pause, [this] { return requested_.load(); });
  }
  // The same, and early when `over` says so, which whoever makes it true tells by look_again().
  bool wait(std::chrono::milliseconds pause, const std::function<bool()>& over) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, pause, [&] { return requested_ || over(); });
    return requested_;
  }
  void look_again() {
    { const std::lock_guard lock(mutex_); }  // whoever has just asked `over` waits now
    wake_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> requested_{false};
};

}  // namespace egw::kube
