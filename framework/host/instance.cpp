#include "egw/host/instance.hpp"

#include <algorithm>

#include "egw/host/text.hpp"

namespace egw::host {
namespace {

constexpr std::chrono::seconds kForgetLate{60};

}  // namespace

Instance::Instance(std::shared_ptr<Worker> worker, boost::asio::any_io_executor executor,
                   Deadlines deadlines, std::function<void()> close_operation)
    : worker_(std::move(worker)),
      executor_(std::move(executor)),
      deadlines_(deadlines),
      close_operation_(std::move(close_operation)) {}

Instance::~Instance() { close(); }

std::optional<Error> Instance::refuse() const {
  if (closed_) return closed_error();
  const auto running = worker_->running();
  const auto now = Worker::Clock::now();
  if (!running || !running->overdue(now)) return std::nullopt;
  return Error{Errc::kUnavailable, worker_->label(),
               "Degraded: still busy with " + running->name + " after " +
                   duration_text(now - running->began) + " (deadline " +
                   duration_text(running->deadline) +
                   "); no call is made until it comes back, restart egw if it does not",
               0};
}

std::optional<Error> Instance::degraded() const {
  if (auto refused = refuse()) return refused;
  if (late_.empty()) return std::nullopt;
  return Error{Errc::kUnavailable, worker_->label(), "Degraded: " + late_, 0};
}

unsigned Instance::missed_deadlines() const {
  const auto running = worker_->running();
  const auto now = Worker::Clock::now();
  if (missed_ == 0 || !running || !running->overdue(now)) return missed_;
  const auto rounds = static_cast<unsigned>((now - running->began) / running->deadline);
  return missed_ - 1 + std::max(rounds, 1U);
}

void Instance::remember(const std::shared_ptr<Pending>& pending) {
  pending_.remove_if([](const auto& weak) { return weak.expired(); });
  pending_.push_back(pending);
}

void Instance::in_time(const std::string& name) {
  if (name == "health" && Worker::Clock::now() < late_at_ + kForgetLate) return;
  late_.clear();
  missed_ = 0;
}

Error Instance::missed(const std::string& name, Worker::Milliseconds deadline) {
  late_ = name + " missed its deadline of " + duration_text(deadline);
  late_at_ = Worker::Clock::now();
  ++missed_;
  return {Errc::kTimeout, worker_->label(),
          name + " did not come back within " + duration_text(deadline) +
              "; it still runs and may still take effect",
          0};
}

Error Instance::busy(const std::string& name) const {
  const auto running = worker_->running();
  return {
      Errc::kUnavailable, worker_->label(),
      name + " was not begun in time: busy with " +
          (running ? running->name + " for " + duration_text(Worker::Clock::now() - running->began)
                   : std::string("earlier calls")),
      0};
}

Error Instance::closed_error() const {
  return {Errc::kUnavailable, worker_->label(), "has been closed", 0};
}

void Instance::close() {
  if (closed_) return;
  closed_ = true;
  for (const auto& weak : pending_) {
    if (const auto pending = weak.lock()) {
      pending->closed = true;
      pending->timer.cancel();
    }
  }
  pending_.clear();
  worker_->close(std::move(close_operation_), deadlines_.close);
}

}  // namespace egw::host
