// Time and wake-ups for the loops of the runtime. Every loop takes its time from a Clock, so that
// tests run them in virtual time. All of it belongs to one thread, the executor's.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <utility>

namespace egw::runtime {

inline constexpr std::int64_t kForever = std::numeric_limits<std::int64_t>::max();

// Destroyed before its time: the call is never made.
class Timer {
 public:
  virtual ~Timer() = default;
};

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual std::int64_t steady_ms() const = 0;  // this process only, starts above 0
  [[nodiscard]] virtual std::int64_t wall_ms() const = 0;    // Unix time
  // Calls `call` on the executor when steady_ms() has reached `at_ms`.
  [[nodiscard]] virtual std::unique_ptr<Timer> call_at(std::int64_t at_ms,
                                                       std::function<void()> call) = 0;
};

[[nodiscard]] std::unique_ptr<Clock> make_clock(boost::asio::any_io_executor executor);

// Lets one coroutine wait for "something has happened" or a point in time. A notify() without a
// waiter is kept: the next wait returns at once.
class Wakeup {
 public:
  Wakeup(const boost::asio::any_io_executor& executor, Clock& clock);
  void notify();
  // Returns when notified, or when the clock reads `until_ms` (steady).
  boost::asio::awaitable<void> wait(std::int64_t until_ms = kForever);

 private:
  Clock& clock_;
  boost::asio::steady_timer timer_;
  bool pending_ = false;
};

// Serialises coroutines, first come first served. A Guard may outlive the mutex.
class AsyncMutex {
  struct State;

 public:
  class Guard {
   public:
    explicit Guard(std::shared_ptr<State> state) : state_(std::move(state)) {}
    Guard(Guard&&) noexcept = default;
    Guard& operator=(Guard&&) = delete;
    ~Guard();

   private:
    std::shared_ptr<State> state_;
  };

  explicit AsyncMutex(boost::asio::any_io_executor executor);
  boost::asio::awaitable<Guard> lock();

 private:
  std::shared_ptr<State> state_;
};

// Doubling delays with +-25 % jitter, so that many nodes do not come back at once.
class BackOff {
 public:
  BackOff(std::int64_t first_ms, std::int64_t most_ms, std::uint64_t seed);
  [[nodiscard]] std::int64_t next_ms();
  void reset() { current_ms_ = first_ms_; }

 private:
  std::int64_t first_ms_, most_ms_, current_ms_;
  std::uint64_t random_;
};

}  // namespace egw::runtime
