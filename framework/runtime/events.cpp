// Events into the store (events.hpp).
#include "egw/runtime/events.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "egw/model/codec.hpp"
#include "egw/model/text.hpp"
#include "egw/runtime/write_result.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
using host::WriteRequest;
using model::Event;
using model::Kind;

namespace {

constexpr std::int64_t kAwayMs = 2000;  // until the next attempt when the store is away
constexpr std::chrono::milliseconds kDeadline{1000};
constexpr std::size_t kNameKept = 230;  // of 253; a dot and 16 digits follow
// What the API server takes (pkg/apis/core/validation/events.go), in bytes.
constexpr std::size_t kInstanceKept = 128;
constexpr std::size_t kNoteKept = 1024;

std::uint64_t hash_of(const std::string& text) {
  std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a
  for (const char c : text) hash = (hash ^ static_cast<std::uint8_t>(c)) * 1099511628211ULL;
  return hash;
}

}  // namespace

EventRecorder::EventRecorder(const asio::any_io_executor& executor, Clock& clock, Logger& log,
                             Metrics& metrics, host::StateStore& store, std::string component,
                             std::string host)
    : clock_(clock),
      log_(log),
      metrics_(metrics),
      store_(store),
      component_(std::move(component)),
      host_(model::shortened(host, kInstanceKept)),
      wakeup_(executor, clock),
      tokens_at_ms_(clock.steady_ms()) {}

// "egw.0123456789abcdef"
std::string EventRecorder::name_of(const Happening& what) {
  const std::string same = fmt::format("{}\n{}\n{}\n{}\n{}", model::info(what.kind).kind,
                                       what.key.to_string(), what.uid, what.reason, what.message);
  const std::int64_t now = clock_.steady_ms();
  if (const auto known = series_.find(same); known != series_.end()) {
    if (now - known->second.last_ms <= kSeriesMs) {
      known->second.last_ms = now;
      return known->second.event;
    }
  }
  if (series_.size() >= kSeriesKept) {
    std::erase_if(series_, [now](const auto& s) { return now - s.second.last_ms > kSeriesMs; });
  }
  std::string name = what.key.name.substr(0, kNameKept);
  while (!name.empty() && (name.back() == '.' || name.back() == '-')) name.pop_back();
  name = fmt::format(
      "{}.{:016x}", name,
      hash_of(fmt::format("{}\n{}\n{}\n{}", same, component_, host_, clock_.wall_ms())));
  // A flood of different things: each is an event of its own then.
  if (series_.size() < kSeriesKept || series_.contains(same)) series_[same] = {name, now};
  return name;
}

Event EventRecorder::event_of(const Happening& what) {
  Event event;
  event.meta.name = name_of(what);
  event.meta.ns = what.key.ns.empty() ? "default" : what.key.ns;  // as Kubernetes does
  event.about_kind = model::info(what.kind).kind;
  event.about_api_version = model::info(what.kind).api_version();
  event.about = what.key;
  event.about_uid = what.uid;
  event.warning = what.warning;
  event.action = what.action;
  event.reason = what.reason;
  event.message = model::shortened(
      what.detail.empty() ? what.message : what.message + " " + what.detail, kNoteKept);
  event.component = component_;
  event.host = host_;
  event.first_ms = event.last_ms = clock_.wall_ms();
  return event;
}

void EventRecorder::record(const Happening& what) {
  Event event = event_of(what);
  const auto same = std::find_if(waiting_.begin(), waiting_.end(), [&](const Event& known) {
    return known.meta.name == event.meta.name && known.meta.ns == event.meta.ns;
  });
  if (same != waiting_.end()) {
    ++same->count;
    same->last_ms = event.last_ms;
  } else if (waiting_.size() >= kWaiting) {
    metrics_.event_dropped();
  } else {
    waiting_.push_back(std::move(event));
  }
  wakeup_.notify();
}

void EventRecorder::busy(bool on) {
  busy_ = on;
  if (!on) wakeup_.notify();
}

void EventRecorder::stop() {
  stopping_ = true;
  wakeup_.notify();
}

// 0 when one may be written now, else when to ask again.
std::int64_t EventRecorder::take_token() {
  const std::int64_t now = clock_.steady_ms();
  tokens_ =
      std::min(kBurst, tokens_ + static_cast<double>(now - tokens_at_ms_) * kPerSecond / 1000.0);
  tokens_at_ms_ = now;
  if (tokens_ < 1) return now + static_cast<std::int64_t>(1000 / kPerSecond);
  tokens_ -= 1;
  return 0;
}

asio::awaitable<void> EventRecorder::run() {
  while (!stopping_) {
    if (waiting_.empty() || busy_) {
      co_await wakeup_.wait();
      continue;
    }
    if (const std::int64_t at = take_token(); at != 0) {
      while (!stopping_ && clock_.steady_ms() < at) co_await wakeup_.wait(at);
      continue;
    }
    Event event = std::move(waiting_.front());
    waiting_.pop_front();
    Event copy = event;
    const auto written = co_await write(std::move(copy));
    if (written) {
      refused_ = false;
      continue;
    }
    const Errc code = written.error().code;
    if (code != Errc::kUnavailable && code != Errc::kTimeout) {
      metrics_.event_dropped();
      const auto level = std::exchange(refused_, true) ? LogLevel::kDebug : LogLevel::kWarn;
      log_.log(level, "events are refused and left out, as egw_events_dropped_total counts",
               {{"error", written.error().to_string()}});
      continue;
    }
    waiting_.push_front(std::move(event));
    const std::int64_t again = clock_.steady_ms() + kAwayMs;
    while (!stopping_ && clock_.steady_ms() < again) co_await wakeup_.wait(again);
  }
}

// Makes the event, or adds to the one that is there.
asio::awaitable<Result<void>> EventRecorder::write(Event event) {
  Result<void> last;
  for (int attempt = 0; attempt < 3; ++attempt) {
    WriteRequest request;
    request.kind = Kind::kEvent;
    request.key = event.meta.key();
    request.deadline = kDeadline;
    model::Key key = event.meta.key();
    const auto stored = co_await store_.get(Kind::kEvent, std::move(key));
    if (!stored && stored.error().code != Errc::kNotFound) {
      co_return tl::unexpected(stored.error());
    }
    const auto known = stored ? model::decode<Event>(stored->document)
                              : Result<Event>(tl::unexpected(stored.error()));
    Event whole = event;
    request.op = stored ? WriteRequest::Op::kUpdate : WriteRequest::Op::kCreate;
    if (stored) request.expected_revision = stored->revision;
    if (known) {
      whole = *known;  // of which nothing else may be changed
      whole.count += event.count;
      whole.last_ms = event.last_ms;
    }
    request.document = model::encode(whole);
    auto outcome = co_await store_.write(std::move(request));
    metrics_.store_write(Kind::kEvent, write_result(outcome));
    if (outcome) co_return Result<void>{};
    last = tl::unexpected(outcome.error());
    const Errc code = outcome.error().code;
    if (code != Errc::kConflict && code != Errc::kExists && code != Errc::kNotFound) break;
  }
  co_return last;
}

}  // namespace egw::runtime
