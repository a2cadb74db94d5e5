// Instance: the core's side of one plugin instance; turns synchronous operations on the Worker's
// thread into awaitables with deadlines. Included by the proxies (.cpp files) only: it brings Asio.
//
// Every coroutine holds the Instance by shared_ptr and never a proxy, so a proxy may be destroyed
// while calls are under way: they end with kUnavailable.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <list>
#include <memory>

#include "egw/host/text.hpp"
#include "egw/host/worker.hpp"

namespace egw::host {

class Instance : public std::enable_shared_from_this<Instance> {
 public:
  struct Pending {
    explicit Pending(const boost::asio::any_io_executor& executor) : timer(executor) {}
    virtual ~Pending() = default;
    boost::asio::steady_timer timer;
    bool closed = false;
  };

  // close: the plugin's close operation; run on the worker's thread at the end.
  Instance(std::shared_ptr<Worker> worker, boost::asio::any_io_executor executor,
           Deadlines deadlines, std::function<void()> close_operation);
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  [[nodiscard]] Worker& worker() { return *worker_; }
  [[nodiscard]] const boost::asio::any_io_executor& executor() const { return executor_; }
  [[nodiscard]] const Deadlines& deadlines() const { return deadlines_; }

  // Why no call can be made now: closed, or a call that is past its deadline still runs.
  [[nodiscard]] std::optional<Error> refuse() const;
  // Why the plugin counts as degraded: refuse(), or a call missed its deadline and none but health
  // has come back in time since (a minute later a good health will do).
  [[nodiscard]] std::optional<Error> degraded() const;
  // Calls in a row that missed their deadline; a call that still runs counts once per deadline.
  [[nodiscard]] unsigned missed_deadlines() const;

  void remember(const std::shared_ptr<Pending>& pending);
  void in_time(const std::string& name);
  Error missed(const std::string& name, Worker::Milliseconds deadline);
  [[nodiscard]] Error busy(const std::string& name) const;
  [[nodiscard]] Error closed_error() const;

  // Ends all calls, closes the plugin; bounded (Worker::close). Also done by the destructor.
  void close();

 private:
  std::shared_ptr<Worker> worker_;
  boost::asio::any_io_executor executor_;
  Deadlines deadlines_;
  std::function<void()> close_operation_;
  std::list<std::weak_ptr<Pending>> pending_;
  std::string late_;  // what was missed; empty: nothing
  Worker::Clock::time_point late_at_{};
  unsigned missed_ = 0;
  bool closed_ = false;
};

template <class T>
struct PendingCall final : Instance::Pending {
  using Pending::Pending;
  std::optional<Result<T>> result;
};

// Runs `work` on the worker's thread. kTimeout: it began and did not end in time; it may still take
// effect. kUnavailable: it was not run. `work` must own all that it touches but the plugin.
template <class T>
boost::asio::awaitable<Result<T>> call(std::shared_ptr<Instance> self, std::string name,
                                       Worker::Milliseconds deadline,
                                       std::function<Result<T>()> work) {
  if (auto refused = self->refuse()) co_return tl::unexpected<Error>(std::move(*refused));
  const auto pending = std::make_shared<PendingCall<T>>(self->executor());
  self->remember(pending);
  const std::weak_ptr<PendingCall<T>> weak = pending;
  Worker* worker = &self->worker();
  std::function<void()> job = [weak, worker, work = std::move(work)] {
    auto result = std::make_shared<Result<T>>();
    const auto answer = [&] {
      worker->post([weak, result] {
        if (const auto waiting = weak.lock()) {
          waiting->result = std::move(*result);
          waiting->timer.cancel();
        }
      });
    };
    try {
      *result = work();
    } catch (const std::exception& e) {
      *result = fail(Errc::kInternal, worker->label(),
                     "threw an exception: " + plain_text(std::string_view(e.what()), 512));
    } catch (...) {
      if (unwinds_to_end()) {
        *result = fail(Errc::kInternal, worker->label(), "ended its thread (pthread_exit)");
        answer();
        throw;
      }
      *result = fail(Errc::kInternal, worker->label(), "threw what is no std::exception");
    }
    answer();
  };
  const auto queued = Worker::Clock::now();
  const std::uint64_t number = worker->enqueue(name, deadline, std::move(job));
  constexpr auto kToken = boost::asio::as_tuple(boost::asio::use_awaitable);
  while (!pending->result && !pending->closed) {
    const auto until = worker->due(number, queued, deadline);
    if (Worker::Clock::now() >= until) break;
    pending->timer.expires_at(until);
    co_await pending->timer.async_wait(kToken);
  }
  if (pending->result) {
    self->in_time(name);
    co_return std::move(*pending->result);
  }
  if (pending->closed) co_return tl::unexpected<Error>(self->closed_error());
  if (worker->withdraw(number)) co_return tl::unexpected<Error>(self->busy(name));
  co_return tl::unexpected<Error>(self->missed(name, deadline));
}

}  // namespace egw::host
