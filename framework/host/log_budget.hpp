// LogBudget: how many lines a plugin may log. A burst passes, a flood does not fill the disk. Any
// thread. Used by the Worker.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>

namespace egw::host {

class LogBudget {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::uint64_t kBurst = 500;
  static constexpr std::uint64_t kPerSecond = 20;

  struct Answer {
    bool allowed = false;
    std::uint64_t left_out = 0;  // since the last line that was allowed
  };

  Answer take(Clock::time_point now) {
    const std::scoped_lock lock(mutex_);
    // Signed: threads may ask in another order than they have read the clock.
    constexpr std::chrono::nanoseconds kGap{std::nano::den / std::int64_t{kPerSecond}};
    const auto earned = static_cast<std::uint64_t>(std::max<std::int64_t>(0, (now - at_) / kGap));
    if (earned != 0) {
      left_ = std::min(kBurst, left_ + earned);
      at_ = now;
    }
    if (left_ == 0) {
      ++left_out_;
      return {};
    }
    --left_;
    const Answer answer{true, left_out_};
    left_out_ = 0;
    return answer;
  }

 private:
  std::mutex mutex_;
  std::uint64_t left_ = kBurst;
  std::uint64_t left_out_ = 0;
  Clock::time_point at_{};
};

}  // namespace egw::host
