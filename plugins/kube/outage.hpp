// Whether the API server serves, by what the exchanges of one Api came to, and who waits for it.
// Whoever was refused because the server was away pauses here: with the first answer that anybody
// gets, all go on. Used by api.cpp; any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <mutex>

#include "stop.hpp"

namespace egw::kube {

class Outage {
 public:
  using Milliseconds = std::chrono::milliseconds;
  using Time = std::chrono::steady_clock::time_point;

  // What an exchange came to; code 0: there was no answer. 429 says nothing: a server that is busy
  // is there, one that has just started is not quite.
  void note(int code) {
    if (code == 429) return;
    if (code == 0 || (code >= 500 && code <= 504)) {
      away_ = true;
    } else if (away_.exchange(false)) {
      back_ = std::chrono::steady_clock::now().time_since_epoch().count();
      const std::lock_guard lock(mutex_);
      for (Stop* stop : waiting_) stop->look_again();
    }
  }
  // A pause of somebody whose attempt, begun then, failed because of the server: `least` in any
  // case, `longest` only while the server is not back. Returns early, with true, on a stop.
  bool rest(Milliseconds least, Milliseconds longest, Time attempt, Stop& stop) {
    if (stop.wait(least)) return true;
    std::list<Stop*> mine{&stop};
    const auto me = mine.begin();
    {
      const std::lock_guard lock(mutex_);
      waiting_.splice(waiting_.end(), mine);
    }
    const bool stopped =
        stop.wait(std::max(longest - least, Milliseconds(0)), [&] { return back() > attempt; });
    const std::lock_guard lock(mutex_);
    waiting_.erase(me);
    return stopped;
  }
  // Somebody rests.
  [[nodiscard]] bool awaited() const {
    const std::lock_guard lock(mutex_);
    return !waiting_.empty();
  }
  // It has come back within the time: what it refuses now it may take in a moment.
  [[nodiscard]] bool back_within(Milliseconds time) const {
    return back() != Time{} && std::chrono::steady_clock::now() - back() < time;
  }

 private:
  [[nodiscard]] Time back() const { return Time(Time::duration(back_)); }

  std::atomic<bool> away_{false};
  std::atomic<std::int64_t> back_{0};  // steady clock, ns; 0: it was never away
  mutable std::mutex mutex_;           // guards the rest
  std::list<Stop*> waiting_;
};

}  // namespace egw::kube
