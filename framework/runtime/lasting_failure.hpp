// LastingFailure: a node whose applies fail for long is no gateway, and one to which that happens
// again and again does not become one again at once. What fails only on an owner (one EIP that its
// kernel refuses) is over when its EIPs have moved; with each return they would move once more.
// Called by the agent; knows no clock.
#pragma once

#include <algorithm>
#include <cstdint>

namespace egw::runtime {

class LastingFailure {
 public:
  static constexpr std::int64_t kLongestMs = 600'000;

  // patience_ms: eipEvictionTimeout.
  explicit LastingFailure(std::int64_t patience_ms) : patience_ms_(patience_ms) {}

  // failing_ms: for how long every apply has failed; 0: the last one has not. True: Failed.
  bool look(std::int64_t failing_ms, std::int64_t now_ms) {
    const bool failing = failing_ms >= patience_ms_;
    if (failing && !failing_) {
      if (now_ms - ended_ms_ > 2 * kLongestMs) times_ = 0;
      ++times_;
    }
    if (failing_ && !failing) ended_ms_ = now_ms;
    failing_ = failing;
    held_ms_ = failing ? 0 : std::max<std::int64_t>(0, ended_ms_ + penalty_ms() - now_ms);
    return failing_ || held_ms_ > 0;
  }
  // It works, and is Failed for so long yet.
  [[nodiscard]] std::int64_t held_ms() const { return held_ms_; }
  [[nodiscard]] unsigned times() const { return times_; }

 private:
  // None for the first time, then one patience, and twice as long each time.
  [[nodiscard]] std::int64_t penalty_ms() const {
    if (times_ < 2) return 0;
    return std::min(kLongestMs, patience_ms_ << std::min(times_ - 2, 16U));
  }

  std::int64_t patience_ms_;
  unsigned times_ = 0;
  bool failing_ = false;
  std::int64_t ended_ms_ = 0;
  std::int64_t held_ms_ = 0;
};

}  // namespace egw::runtime
