// Election events to "am I leading" (leader_gate.hpp).
#include "egw/runtime/leader_gate.hpp"

#include <utility>

#include "egw/runtime/spawn.hpp"

namespace egw::runtime {
namespace asio = boost::asio;

struct LeaderGate::Impl {
  asio::any_io_executor executor;
  Clock& clock;
  Logger& log;
  host::LeaderElection& election;
  std::function<void()> on_change;
  Wakeup wakeup;
  std::uint64_t epoch = 0;
  std::string holder;
  bool campaigning = false;
  bool stopping = false;

  Impl(asio::any_io_executor the_executor, Clock& the_clock, Logger& the_log,
       host::LeaderElection& the_election, std::function<void()> the_on_change)
      : executor(the_executor),
        clock(the_clock),
        log(the_log),
        election(the_election),
        on_change(std::move(the_on_change)),
        wakeup(the_executor, the_clock) {}

  void changed() {
    if (on_change && !stopping) on_change();
  }
  void elected(std::uint64_t new_epoch) {
    if (stopping) return;
    epoch = new_epoch;
    log.info("elected leader", {{"epoch", std::to_string(epoch)}});
    changed();
  }
  void lost(const std::string& reason) {
    if (epoch == 0) return;
    epoch = 0;
    log.warn("lost the leadership", {{"reason", reason}});
    changed();
  }
  void observed(std::string name, std::uint64_t of_epoch) {
    if (name == holder) return;
    holder = std::move(name);
    if (!holder.empty()) {
      log.info("leader observed", {{"leader", holder}, {"epoch", std::to_string(of_epoch)}});
    }
    changed();
  }

  static host::ElectionEvents events(const std::shared_ptr<Impl>& self) {
    host::ElectionEvents events;
    const std::weak_ptr<Impl> weak = self;
    events.elected = [weak](std::uint64_t new_epoch) {
      if (const auto impl = weak.lock()) impl->elected(new_epoch);
    };
    events.lost = [weak](const std::string& reason) {
      if (const auto impl = weak.lock()) impl->lost(reason);
    };
    events.observed = [weak](std::string name, std::uint64_t of_epoch) {
      if (const auto impl = weak.lock()) impl->observed(std::move(name), of_epoch);
    };
    return events;
  }

  static asio::awaitable<void> run(std::shared_ptr<Impl> self) {
    BackOff back_off(200, 5000, static_cast<std::uint64_t>(self->clock.wall_ms()));
    std::string last_error;
    while (!self->stopping) {
      if (self->campaigning) {
        co_await self->wakeup.wait();
        continue;
      }
      host::ElectionEvents events_of_self = events(self);
      auto begun = co_await self->election.campaign(std::move(events_of_self));
      if (begun) {
        self->campaigning = true;
        last_error.clear();
        back_off.reset();
        continue;
      }
      if (const std::string text = begun.error().to_string(); text != last_error) {
        self->log.warn("cannot stand for election, trying again", {{"error", text}});
        last_error = text;
      }
      const std::int64_t until = self->clock.steady_ms() + back_off.next_ms();
      while (!self->stopping && self->clock.steady_ms() < until) {
        co_await self->wakeup.wait(until);
      }
    }
  }
};

LeaderGate::LeaderGate(asio::any_io_executor executor, Clock& clock, Logger& log,
                       host::LeaderElection& election, std::function<void()> on_change)
    : impl_(std::make_shared<Impl>(std::move(executor), clock, log, election,
                                   std::move(on_change))) {}

LeaderGate::~LeaderGate() {
  impl_->stopping = true;
  impl_->on_change = nullptr;
  impl_->wakeup.notify();
}

void LeaderGate::start() { spawn(impl_->executor, Impl::run(impl_)); }

asio::awaitable<void> LeaderGate::stop() {
  impl_->stopping = true;
  impl_->on_change = nullptr;
  impl_->epoch = 0;
  impl_->wakeup.notify();
  return impl_->election.resign();
}

bool LeaderGate::leading() const { return impl_->epoch != 0; }
std::uint64_t LeaderGate::epoch() const { return impl_->epoch; }
const std::string& LeaderGate::holder() const { return impl_->holder; }

}  // namespace egw::runtime
