#include "virtual_time.hpp"

namespace egw::test {

std::unique_ptr<runtime::Timer> VirtualClock::call_at(std::int64_t at_ms,
                                                      std::function<void()> call) {
  const auto key = std::make_pair(at_ms, ++sequence_);
  calls_.emplace(key, std::move(call));
  return std::make_unique<Pending>(this, key);
}

bool VirtualClock::fire_next(std::int64_t limit) {
  if (calls_.empty() || calls_.begin()->first.first > limit) return false;
  const auto at = calls_.begin()->first.first;
  auto call = std::move(calls_.begin()->second);
  calls_.erase(calls_.begin());
  if (at > now_) now_ = at;
  call();
  return true;
}

void VirtualLoop::settle() {
  io.restart();
  while (io.poll() > 0) {
  }
}

void VirtualLoop::advance(std::int64_t ms) {
  settle();
  const std::int64_t until = clock.steady_ms() + ms;
  while (clock.fire_next(until)) settle();
  clock.set(until);
  settle();
}

}  // namespace egw::test
