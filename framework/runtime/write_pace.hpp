// WritePace: when the status of one gateway may be written next (decision 30: at most 5 times a
// second). A few changes go out at once, those that follow are merged. Called by the controller.
#pragma once

#include <cstdint>
#include <deque>

namespace egw::runtime {

class WritePace {
 public:
  static constexpr std::size_t kPerSecond = 5;
  static constexpr std::size_t kAtOnce = 4;    // of a second's writes, without a distance
  static constexpr std::int64_t kGapMs = 250;  // between the further ones
  static constexpr std::int64_t kWindowMs = 1000;

  void made(std::int64_t now_ms) {
    times_.push_back(now_ms);
    if (times_.size() > kPerSecond) times_.pop_front();
  }
  // Steady time, ms; one that has passed: now.
  [[nodiscard]] std::int64_t next_ms() const {
    if (times_.size() < kAtOnce) return 0;
    std::int64_t at = times_.size() == kPerSecond ? times_.front() + kWindowMs : 0;
    const bool busy = times_.back() - times_[times_.size() - kAtOnce] < kWindowMs;
    if (busy && at < times_.back() + kGapMs) at = times_.back() + kGapMs;
    return at;
  }

 private:
  std::deque<std::int64_t> times_;  // of the last writes, moves too
};

}  // namespace egw::runtime
