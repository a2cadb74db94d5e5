// WritePace: when the status of one gateway may be written next (at most 5 times a
// second). A few changes go out at once, those that follow are merged. A status that takes long to
// write (thousands of policies, a busy store) is written a fifth of the time at most: each write
// costs every agent a reading of it. Called by the controller.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>

namespace egw::runtime {

class WritePace {
 public:
  static constexpr std::size_t kPerSecond = 5;
  static constexpr std::size_t kAtOnce = 4;    // of a second's writes, without a distance
  static constexpr std::int64_t kGapMs = 250;  // between the further ones
  static constexpr std::int64_t kWindowMs = 1000;

  static constexpr std::int64_t kSlowMs = 25;
  static constexpr std::int64_t kRestFactor = 4;  // of what a slow write took
  static constexpr std::int64_t kLongestRestMs = 1000;

  // took_ms: from asking the store to its answer.
  void made(std::int64_t now_ms, std::int64_t took_ms = 0) {
    const std::int64_t rest = took_ms < kSlowMs ? 0 : kRestFactor * took_ms;
    rested_at_ms_ = now_ms + std::min(rest, kLongestRestMs);
    times_.push_back(now_ms);
    if (times_.size() > kPerSecond) times_.pop_front();
  }
  // Steady time, ms; one that has passed: now.
  [[nodiscard]] std::int64_t next_ms() const {
    std::int64_t at = times_.empty() ? 0 : rested_at_ms_;
    if (times_.size() < kAtOnce) return at;
    if (times_.size() == kPerSecond) at = std::max(at, times_.front() + kWindowMs);
    const bool busy = times_.back() - times_[times_.size() - kAtOnce] < kWindowMs;
    if (busy && at < times_.back() + kGapMs) at = times_.back() + kGapMs;
    return at;
  }

 private:
  std::deque<std::int64_t> times_;  // of the last writes, moves too
  std::int64_t rested_at_ms_ = 0;
};

}  // namespace egw::runtime
