// The real clock on Asio timers, and the small synchronisation tools of the loops (clock.hpp).
#include "egw/runtime/clock.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <deque>
#include <utility>

namespace egw::runtime {
namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

// The timer's call may already be queued when the Timer is destroyed: `dropped` stops it.
struct TimerState {
  asio::steady_timer timer;
  std::function<void()> call;
  bool dropped = false;
};

class RealTimer final : public Timer {
 public:
  explicit RealTimer(std::shared_ptr<TimerState> state) : state_(std::move(state)) {}
  ~RealTimer() override {
    state_->dropped = true;
    state_->timer.cancel();
  }

 private:
  std::shared_ptr<TimerState> state_;
};

class RealClock final : public Clock {
 public:
  explicit RealClock(asio::any_io_executor executor) : executor_(std::move(executor)) {}

  [[nodiscard]] std::int64_t steady_ms() const override {
    return std::chrono::duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
  }
  [[nodiscard]] std::int64_t wall_ms() const override {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<milliseconds>(now).count();
  }
  [[nodiscard]] std::unique_ptr<Timer> call_at(std::int64_t at_ms,
                                               std::function<void()> call) override {
    const steady_clock::time_point at{milliseconds{at_ms}};
    auto state = std::make_shared<TimerState>(
        TimerState{asio::steady_timer(executor_, at), std::move(call)});
    state->timer.async_wait([state](const boost::system::error_code& error) {
      if (!error && !state->dropped) state->call();
    });
    return std::make_unique<RealTimer>(std::move(state));
  }

 private:
  asio::any_io_executor executor_;
};

}  // namespace

std::unique_ptr<Clock> make_clock(asio::any_io_executor executor) {
  return std::make_unique<RealClock>(std::move(executor));
}

Wakeup::Wakeup(const asio::any_io_executor& executor, Clock& clock)
    : clock_(clock), timer_(executor, steady_clock::time_point::max()) {}

void Wakeup::notify() {
  pending_ = true;
  timer_.cancel();
}

asio::awaitable<void> Wakeup::wait(std::int64_t until_ms) {
  std::unique_ptr<Timer> limit;
  bool due = false;
  if (!pending_ && until_ms != kForever) {
    if (until_ms <= clock_.steady_ms()) co_return;
    limit = clock_.call_at(until_ms, [this, &due] {
      due = true;
      timer_.cancel();
    });
  }
  while (!pending_ && !due) {
    co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  pending_ = false;
}

struct AsyncMutex::State {
  asio::any_io_executor executor;
  bool locked = false;
  std::deque<std::shared_ptr<asio::steady_timer>> waiting;
};

AsyncMutex::AsyncMutex(asio::any_io_executor executor)
    : state_(std::make_shared<State>(State{std::move(executor), false, {}})) {}

asio::awaitable<AsyncMutex::Guard> AsyncMutex::lock() {
  const auto state = state_;
  if (state->locked) {
    auto turn =
        std::make_shared<asio::steady_timer>(state->executor, steady_clock::time_point::max());
    state->waiting.push_back(turn);
    // Unlocking takes the timer out of the queue and leaves `locked` set: the lock is handed over.
    while (std::find(state->waiting.begin(), state->waiting.end(), turn) != state->waiting.end()) {
      co_await turn->async_wait(asio::as_tuple(asio::use_awaitable));
    }
  }
  state->locked = true;
  co_return Guard(state);
}

AsyncMutex::Guard::~Guard() {
  if (!state_) return;
  if (state_->waiting.empty()) {
    state_->locked = false;
    return;
  }
  const auto turn = std::move(state_->waiting.front());
  state_->waiting.pop_front();
  turn->cancel();
}

BackOff::BackOff(std::int64_t first_ms, std::int64_t most_ms, std::uint64_t seed)
    : first_ms_(first_ms), most_ms_(most_ms), current_ms_(first_ms), random_(seed | 1U) {}

std::int64_t BackOff::next_ms() {
  random_ ^= random_ << 13U;  // xorshift64: any spread will do here
  random_ ^= random_ >> 7U;
  random_ ^= random_ << 17U;
  const std::int64_t base = current_ms_;
  current_ms_ = std::min(most_ms_, current_ms_ * 2);
  const std::int64_t quarter = std::max<std::int64_t>(1, base / 4);
  return base - quarter +
         static_cast<std::int64_t>(random_ % static_cast<std::uint64_t>(2 * quarter));
}

}  // namespace egw::runtime
