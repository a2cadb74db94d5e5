// See campaign.hpp.
#include "campaign.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <random>
#include <utility>

namespace egw::kube {

using nlohmann::json;
using sdk::Code;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace {

constexpr auto kVacateDeadline = 700ms;  // of each of two requests: the host waits 2 s for resign
constexpr auto kShortestRequest = 100ms;
constexpr auto kSoon = 500ms;  // or in retryPeriod, if that is shorter

// The server has said no, and will in a moment.
bool is_refusal(const sdk::Status& status) {
  return status.code == Code::kDenied || status.code == Code::kInvalid ||
         status.code == Code::kNotFound;
}

// Up to a tenth less, so that candidates do not all come at once and none is late.
milliseconds jittered(milliseconds pause) {
  thread_local std::minstd_rand random(std::random_device{}());
  return pause -
         milliseconds(std::uniform_int_distribution<std::int64_t>(0, pause.count() / 10)(random));
}

}  // namespace

Campaign::Campaign(Api& api, const ElectionConfig& config, std::string ns, std::string identity,
                   sdk::ElectionSink sink, const sdk::Host& host)
    : api_(api),
      config_(config),
      ns_(std::move(ns)),
      identity_(std::move(identity)),
      what_("Lease " + ns_ + "/" + config.lease),
      sink_(sink),
      host_(host),
      // A pause is between half of the bound and the bound, hence no shorter than retryPeriod.
      refused_(2 * config.retry_period, std::max(2 * config.retry_period, config.lease_duration)),
      thread_([this] { run(); }) {}

Campaign::~Campaign() {
  stop_.request();
  api_.wake();
  thread_.join();
}

void Campaign::run() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  while (!stop_.requested()) {
    Pause pause = config_.retry_period;
    try {
      pause = leading_ ? lead() : stand();
    } catch (const std::exception& e) {
      trouble(sdk::fail(Code::kInternal, e.what(), what_));
    }
    stop_.wait(pause);
  }
  if (leading_ || unsure_) vacate();
}

std::string Campaign::now() const { return micro_time(std::chrono::system_clock::now()); }

void Campaign::trouble(const sdk::Status& status) {
  const std::string text = status.ok() ? "" : status.text();
  if (text == trouble_ || stop_.requested()) return;
  if (!text.empty()) host_.warn("leader election: " + text);
  trouble_ = text;
}

sdk::Outcome<json> Campaign::read(Pause deadline, Stop* stop) {
  HttpRequest request;
  request.path = lease_resource().object(ns_, config_.lease);
  request.deadline = deadline;
  auto lease = api_.object(std::move(request), {"get", lease_resource().text(), what_}, stop);
  if (!lease.ok() && lease.status().code == Code::kNotFound) return json();
  if (lease.ok() && read_lease(*lease).revision.empty()) {
    return sdk::fail(Code::kInternal, "the answer is no Lease: it has no resourceVersion", what_);
  }
  return lease;
}

// Creates a Lease that has no resourceVersion yet.
sdk::Outcome<json> Campaign::store(const json& lease, Pause deadline, Stop* stop) {
  const bool create = read_lease(lease).revision.empty();
  HttpRequest request;
  request.method = create ? "POST" : "PUT";
  request.path =
      create ? lease_resource().collection(ns_) : lease_resource().object(ns_, config_.lease);
  request.body = lease.dump();
  request.content_type = "application/json";
  request.deadline = deadline;
  unsure_ = true;
  auto stored = api_.object(std::move(request),
                            {create ? "create" : "update", lease_resource().text(), what_}, stop);
  if (stored.ok() || stored.status().code != Code::kUnavailable) unsure_ = false;
  return stored;
}

// ---- candidate ---------------------------------------------------------------------------------

Campaign::Pause Campaign::stand() {
  const Pause patience = std::max<Pause>(kShortestRequest, config_.renew_deadline / 2);
  const Time asked = steady_clock::now();
  sdk::Outcome<json> lease = read(patience, &stop_);
  if (!lease.ok()) trouble(lease.status());
  // The observation goes on, as client-go's does: who has renewed meanwhile is seen to have done so
  // by the next read that succeeds, and until then nothing is taken.
  if (!lease.ok()) {
    const bool by_outage = lease.status().code == Code::kUnavailable;
    BackOff pause(config_.retry_period, config_.retry_period);
    api_.rest({by_outage, Pause(0), kShortestRequest, asked},
              is_refusal(lease.status()) ? refused_ : pause, stop_);
    return Pause(0);
  }
  const LeaseRecord record = lease->is_null() ? LeaseRecord{} : read_lease(*lease);
  observe(record);
  const Time runs_out = seen_since_ + record.duration;
  const Time time = steady_clock::now();
  // One that says that we hold it is left from an office that we gave up: nobody else took it.
  if (lease->is_null() || record.holder.empty() || record.holder == identity_ || time >= runs_out) {
    const sdk::Status outcome = take(std::move(*lease), record);
    if (outcome.ok()) return jittered(config_.retry_period);
    const Pause again = another_was_faster(outcome) ? std::min<Pause>(config_.retry_period, kSoon)
                                                    : config_.retry_period;
    BackOff pause(again, again);
    api_.rest({false, Pause(0), Pause(0), asked}, is_refusal(outcome) ? refused_ : pause, stop_);
    return Pause(0);
  }
  trouble({});
  refused_.reset();
  const auto left = std::chrono::ceil<Pause>(runs_out - time);
  // Not before it has run out; of several who come then, one takes it.
  return std::min<Pause>(jittered(config_.retry_period), left);
}

void Campaign::observe(const LeaseRecord& record) {
  if (seen_since_ == Time{} || !(record == seen_)) {
    seen_ = record;
    seen_since_ = steady_clock::now();
  }
  const std::uint64_t epoch = record.revision.empty() ? 0 : record.transitions + 1;
  highest_epoch_ = std::max(highest_epoch_, epoch);
  if (record.holder == told_holder_ && epoch == told_epoch_) return;
  told_holder_ = record.holder;
  told_epoch_ = epoch;
  if (!stop_.requested()) sink_.observed(record.holder, epoch);
}

sdk::Status Campaign::take(json lease, const LeaseRecord& seen) {
  const bool create = lease.is_null();
  if (create) lease = new_lease(ns_, config_.lease);
  // A Lease that somebody removed begins to count anew: not for us.
  std::uint64_t transitions = create ? 0 : seen.transitions + 1;
  transitions = std::max(transitions, highest_epoch_);
  const Time begun = steady_clock::now();
  const Pause patience = std::max<Pause>(kShortestRequest, config_.renew_deadline / 2);
  sdk::Outcome<json> stored =
      store(taken(std::move(lease), identity_, transitions, config_.lease_duration, now()),
            patience, &stop_);
  if (!stored.ok()) {
    // Another was faster: that is no trouble.
    trouble(another_was_faster(stored.status()) ? sdk::ok() : stored.status());
    return stored.status();
  }
  trouble({});
  refused_.reset();
  lease_ = std::move(*stored);
  leading_ = true;
  epoch_ = transitions + 1;
  confirmed_ = begun;
  if (transitions >= kMostTransitions && !std::exchange(told_end_, true)) {
    host_.warn("leader election: leaseTransitions of " + what_ + " has come to its end (" +
               std::to_string(kMostTransitions) + "): its annotation " + kTransitionsAnnotation +
               " counts on; delete the Lease when no controller runs to begin anew");
  }
  host_.info("leader election: " + identity_ + " leads with epoch " + std::to_string(epoch_) +
             " by " + what_ +
             (seen.holder.empty()
                  ? ""
                  : ", after the holder " + seen.holder + " did not renew its lease"));
  if (!stop_.requested()) sink_.elected(epoch_);
  observe(read_lease(lease_));
  return sdk::ok();
}

// ---- leader ------------------------------------------------------------------------------------

Campaign::Pause Campaign::lead() {
  const auto left = [&] {
    return std::chrono::floor<Pause>(confirmed_ + config_.renew_deadline - steady_clock::now());
  };
  const auto over = [&] {
    step_down("the lease could not be renewed for " +
              std::to_string(config_.renew_deadline.count()) + " ms" +
              (trouble_.empty() ? "" : ": " + trouble_));
  };
  if (left().count() <= 0) {
    over();  // stopped and continued: others may have taken it
    return Pause(0);
  }
  // Two attempts fit in: a server that does not answer may do so over another connection.
  const Pause patience =
      std::min(left(), std::max<Pause>(kShortestRequest, config_.renew_deadline / 2));
  const sdk::Status outcome = renew(patience);
  if (outcome.ok()) return config_.retry_period;
  if (!leading_ || stop_.requested()) return Pause(0);
  if (left().count() <= 0) {
    over();
    return Pause(0);
  }
  const Pause soon = std::min<Pause>(config_.retry_period, kSoon);
  return std::min(left(), jittered(is_refusal(outcome) ? config_.retry_period : soon));
}

sdk::Status Campaign::renew(Pause deadline) {
  const Time begun = steady_clock::now();
  sdk::Outcome<json> stored = store(renewed(lease_, now()), deadline, &stop_);
  if (stored.ok()) {
    confirmed_ = begun;
    lease_ = std::move(*stored);
    trouble({});
    return sdk::ok();
  }
  if (stored.status().code != Code::kConflict && stored.status().code != Code::kNotFound) {
    trouble(stored.status());
    return stored.status();
  }
  // Somebody wrote to it: an earlier renewal of ours whose answer was lost, or another.
  sdk::Outcome<json> lease = read(deadline, &stop_);
  trouble(lease.status());
  if (!lease.ok()) return lease.status();
  const LeaseRecord record = lease->is_null() ? LeaseRecord{} : read_lease(*lease);
  if (record.holder != identity_ || record.transitions + 1 != epoch_) {
    step_down((record.holder.empty() ? std::string("nobody") : record.holder) +
              " has the lease now");
  } else {
    lease_ = std::move(*lease);
  }
  return sdk::fail(Code::kConflict, "has been written meanwhile", what_);
}

void Campaign::step_down(const std::string& reason) {
  leading_ = false;
  seen_since_ = {};
  highest_epoch_ = std::max(highest_epoch_, epoch_);
  host_.warn("leader election: " + identity_ + " lost the office: " + reason);
  if (!stop_.requested()) sink_.lost(reason);
}

void Campaign::vacate() {
  leading_ = false;
  sdk::Outcome<json> lease = read(kVacateDeadline, nullptr);
  if (!lease.ok() || lease->is_null() || read_lease(*lease).holder != identity_) return;
  const auto stored = store(released(std::move(*lease), now()), kVacateDeadline, nullptr);
  if (!stored.ok()) {
    host_.warn("leader election: the lease was not released, others wait until it runs out: " +
               stored.status().text());
  }
}

}  // namespace egw::kube
