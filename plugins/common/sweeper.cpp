// The thread that runs passes (conntrack.hpp).
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "conntrack.hpp"

namespace egw::common {
namespace {

constexpr std::chrono::milliseconds kTryAgain{500};
// Between two passes, at most. With a pass of 12 ms (20,000 entries) on either side of it a request
// is answered within 50 ms.
constexpr std::chrono::milliseconds kPause{20};

}  // namespace

Sweeper::Sweeper(const sdk::Host& host) : host_(host), thread_([this] { run(); }) {}

Sweeper::~Sweeper() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Sweeper::add(std::unique_ptr<Sweep> sweep) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_) {
      waiting_->absorb(*sweep);
    } else {
      waiting_ = std::move(sweep);
    }
  }
  wake_.notify_all();
}

bool Sweeper::drain(std::chrono::milliseconds at_most) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, at_most, [this] { return !waiting_ && !busy_ && !forget_; });
}

void Sweeper::forget_late() {
  {
    const std::lock_guard lock(mutex_);
    forget_ = true;
  }
  wake_.notify_all();
}

std::uint64_t Sweeper::deleted() const {
  const std::lock_guard lock(mutex_);
  return deleted_;
}

int Sweeper::pass(const Sweep& job, std::optional<NetlinkSocket>& socket) {
  try {
    if (!socket) socket.emplace(std::move(*NetlinkSocket::open(NETLINK_NETFILTER)));
    return sweep(
        *socket, job.hint(), [&](const Flow& flow) { return job.judge(flow); }, &late_);
  } catch (const sdk::Failure& failure) {
    return failure.status().sys_errno != 0 ? -failure.status().sys_errno : -EIO;
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  }
}

// Without the lock. What cannot be asked now is asked in the next round.
void Sweeper::look(std::optional<NetlinkSocket>& socket) {
  const auto now = LateAnswers::Clock::now();
  try {
    if (!socket) socket.emplace(std::move(*NetlinkSocket::open(NETLINK_NETFILTER)));
    const int n = late_.look(*socket, now);
    const std::lock_guard lock(mutex_);
    deleted_ += static_cast<std::uint64_t>(n);
    return;
  } catch (const sdk::Failure&) {
    socket.reset();
  } catch (const std::bad_alloc&) {
    socket.reset();
  }
  late_.postpone(now);
}

void Sweeper::run() {
  std::optional<NetlinkSocket> socket;
  bool told = false;
  std::unique_lock lock(mutex_);
  const auto asked = [this] { return stop_ || waiting_ || forget_; };
  for (;;) {
    const auto due = late_.due();
    if (due ? !wake_.wait_until(lock, *due, asked) : (wake_.wait(lock, asked), false)) {
      lock.unlock();
      look(socket);
      lock.lock();
      continue;
    }
    if (stop_) return;
    if (!waiting_) {
      late_.forget();
      forget_ = false;
      idle_.notify_all();
      continue;
    }
    std::unique_ptr<Sweep> job = std::move(waiting_);
    busy_ = true;
    lock.unlock();
    const auto begin = std::chrono::steady_clock::now();
    const int n = pass(*job, socket);
    if (const auto late = late_.due(); late && *late <= begin) look(socket);
    const auto took = std::chrono::steady_clock::now() - begin;
    if (n < 0) {
      socket.reset();
      if (!std::exchange(told, true)) {
        host_.warn(std::string("connection tracking entries cannot be read: ") + std::strerror(-n) +
                   "; connections of changed policies keep their old source until it succeeds");
      }
    } else {
      told = false;
    }
    lock.lock();
    busy_ = false;
    if (n < 0) {
      if (waiting_) job->absorb(*waiting_);
      waiting_ = std::move(job);
      wake_.wait_for(lock, kTryAgain, [this] { return stop_; });
      continue;
    }
    deleted_ += static_cast<std::uint64_t>(n);
    if (!waiting_) {
      idle_.notify_all();
    } else {  // a storm of requests gets half of a core: the next pass answers all that gather
      wake_.wait_for(lock, std::min<std::chrono::nanoseconds>(took, kPause),
                     [this] { return stop_; });
    }
  }
}

}  // namespace egw::common
