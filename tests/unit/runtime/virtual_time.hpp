// An event loop in virtual time for tests of framework/runtime: nothing waits, a timer fires when
// the test moves the clock over it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "egw/runtime/clock.hpp"

namespace egw::test {

class VirtualClock final : public runtime::Clock {
 public:
  [[nodiscard]] std::int64_t steady_ms() const override { return now_; }
  [[nodiscard]] std::int64_t wall_ms() const override { return now_ + kEpoch; }
  [[nodiscard]] std::unique_ptr<runtime::Timer> call_at(std::int64_t at_ms,
                                                        std::function<void()> call) override;
  // The next call up to `limit` is made, and the clock set to its time. False: there is none.
  bool fire_next(std::int64_t limit);
  void set(std::int64_t now_ms) { now_ = now_ms; }

 private:
  using Key = std::pair<std::int64_t, std::uint64_t>;
  class Pending final : public runtime::Timer {
   public:
    Pending(VirtualClock* clock, Key key) : clock_(clock), key_(key) {}
    ~Pending() override { clock_->calls_.erase(key_); }

   private:
    VirtualClock* clock_;
    Key key_;
  };

  static constexpr std::int64_t kEpoch = 1'790'000'000'000;
  std::int64_t now_ = 1000;
  std::uint64_t sequence_ = 0;
  std::map<Key, std::function<void()>> calls_;
};

class VirtualLoop {
 public:
  // The clock outlives the loop's coroutines: they hold timers of it.
  VirtualClock clock;
  boost::asio::io_context io{1};

  [[nodiscard]] boost::asio::any_io_executor executor() { return io.get_executor(); }
  // Runs everything that can run now.
  void settle();
  void advance(std::int64_t ms);
};

}  // namespace egw::test
