// Writes of the own EgressTunnel's status (tunnel_reporter.hpp).
#include "egw/runtime/tunnel_reporter.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "egw/model/codec.hpp"
#include "egw/runtime/write_result.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
using host::WriteRequest;
using model::EgressTunnel;
using model::Kind;

namespace {

// Equal but for what is allowed to wait for the next heartbeat.
bool same_state(EgressTunnel::Status wanted, const EgressTunnel::Status& stored) {
  wanted.last_heartbeat_ms = stored.last_heartbeat_ms;
  wanted.realised = stored.realised;
  EgressTunnel a;
  EgressTunnel b;
  a.status = std::move(wanted);
  b.status = stored;
  return model::encode_status(a) == model::encode_status(b);
}

}  // namespace

TunnelReporter::TunnelReporter(const asio::any_io_executor& executor, Clock& clock, Logger& log,
                               Metrics& metrics, WorldSync& sync, host::StateStore& store,
                               Options options)
    : clock_(clock),
      log_(log),
      metrics_(metrics),
      sync_(sync),
      store_(store),
      options_(std::move(options)),
      wakeup_(executor, clock),
      back_off_(100, 2000, static_cast<std::uint64_t>(clock.wall_ms())),
      tokens_at_ms_(clock.steady_ms()) {}

void TunnelReporter::stop() {
  stopping_ = true;
  wakeup_.notify();
}
void TunnelReporter::wake() { wakeup_.notify(); }

const EgressTunnel* TunnelReporter::stored() const {
  const auto& tunnels = sync_.world().tunnels;
  const auto own = tunnels.find(options_.node_name);
  return own == tunnels.end() ? nullptr : &own->second;
}

bool TunnelReporter::take_token() {
  const std::int64_t now = clock_.steady_ms();
  tokens_ = std::min(
      kBurst, tokens_ + static_cast<double>(now - tokens_at_ms_) * kWritesPerSecond / 1000.0);
  tokens_at_ms_ = now;
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

// When the realised revision is worth a write of its own; the greatest time: it is not.
std::int64_t TunnelReporter::realised_at_ms(const EgressTunnel& wanted, const EgressTunnel& own) {
  if (!options_.realised_urgent() || wanted.status.realised == own.status.realised) {
    urgent_since_ms_ = 0;
    return std::numeric_limits<std::int64_t>::max();
  }
  if (urgent_since_ms_ == 0) urgent_since_ms_ = clock_.steady_ms();
  const auto spread = static_cast<std::size_t>(options_.realised_spread_ms());
  if (spread == 0) return urgent_since_ms_;
  return urgent_since_ms_ +
         static_cast<std::int64_t>(std::hash<std::string>{}(options_.node_name) % spread);
}

asio::awaitable<void> TunnelReporter::run() {
  while (!stopping_) {
    if (!sync_.other_store().empty()) {
      const std::int64_t next = clock_.steady_ms() + options_.period_ms;
      co_await tell(true);
      while (!stopping_ && !sync_.other_store().empty() && clock_.steady_ms() < next) {
        co_await wakeup_.wait(next);
      }
      continue;
    }
    const EgressTunnel* own = stored();
    if (own == nullptr || !sync_.synced()) {  // the controller makes it
      co_await wakeup_.wait();
      continue;
    }
    if (const auto part = options_.part(); part != Namesake::Part::kReports) {
      const std::int64_t next = clock_.steady_ms() + options_.period_ms;
      if (part == Namesake::Part::kAside) co_await tell(false);
      while (!stopping_ && options_.part() == part && clock_.steady_ms() < next) {
        co_await wakeup_.wait(next);
      }
      continue;
    }
    const std::int64_t now = clock_.steady_ms();
    EgressTunnel wanted = *own;
    options_.fill(wanted.status);
    const bool changed = !same_state(wanted.status, own->status);
    const std::int64_t realised_at = realised_at_ms(wanted, *own);
    const bool realised = now >= realised_at;
    const bool due = now >= beat_at_ms_;
    if (now < retry_at_ms_) {
      co_await wakeup_.wait(retry_at_ms_);
    } else if (!changed && !realised && !due) {
      co_await wakeup_.wait(std::min(beat_at_ms_, realised_at));
    } else if (!due && !take_token()) {
      co_await wakeup_.wait(now + static_cast<std::int64_t>(1000 / kWritesPerSecond));
    } else {
      wanted.status.last_heartbeat_ms = clock_.wall_ms();
      co_await write(own->status.phase, std::move(wanted));
    }
  }
}

asio::awaitable<void> TunnelReporter::write(model::TunnelPhase before, EgressTunnel tunnel) {
  const std::int64_t started = clock_.steady_ms();
  WriteRequest request;
  request.op = WriteRequest::Op::kUpdateStatus;
  request.kind = Kind::kEgressTunnel;
  request.key = tunnel.meta.key();
  request.document = model::encode(tunnel);
  request.expected_revision = tunnel.meta.revision;
  request.deadline =
      std::chrono::milliseconds(std::clamp<std::int64_t>(options_.period_ms, 500, 5000));
  auto outcome = co_await store_.write(std::move(request));
  metrics_.store_write(Kind::kEgressTunnel, write_result(outcome));
  if (outcome) {
    sync_.adopt(Kind::kEgressTunnel, outcome->object);
    beat_at_ms_ = started + options_.period_ms;
    retry_at_ms_ = 0;
    conflicts_ = 0;
    back_off_.reset();
    if (!last_error_.empty()) log_.info("the tunnel's status can be written again");
    last_error_.clear();
    options_.written(before, tunnel);
    co_return;
  }
  const Error& error = outcome.error();
  if (error.code == Errc::kConflict && ++conflicts_ <= 5) {
    if (co_await reload()) co_return;  // try again with what is stored
  }
  const std::string text = error.to_string();
  if (text != last_error_) log_.warn("the tunnel's status cannot be written", {{"error", text}});
  last_error_ = text;
  conflicts_ = 0;
  retry_at_ms_ = clock_.steady_ms() + back_off_.next_ms();
}

// Reads the own tunnel; true when the World now has it as stored.
asio::awaitable<bool> TunnelReporter::reload() {
  model::Key key{"", options_.node_name};
  auto object = co_await store_.get(Kind::kEgressTunnel, std::move(key));
  if (!object) co_return false;
  sync_.adopt(Kind::kEgressTunnel, *object);
  co_return true;
}

// In a tunnel of another agent's, or of a store that the World is not of (elsewhere): what is there
// is read first, and again when the other one has written meanwhile, as it does at the same pace.
// Without an EgressTunnel there is nobody to tell; what fails is tried again with the next
// heartbeat. Only in another store is this one: here it is the other agent's.
asio::awaitable<void> TunnelReporter::tell(bool elsewhere) {
  for (int attempt = 0; attempt < 5; ++attempt) {
    model::Key key{"", options_.node_name};
    auto object = co_await store_.get(Kind::kEgressTunnel, key);
    if (!object || sync_.other_store().empty() == elsewhere) co_return;
    std::vector<Error> damage;
    auto tunnel = model::decode_stored<EgressTunnel>(object->document, damage);
    if (!tunnel) co_return;
    if (elsewhere) {
      options_.fill_elsewhere(tunnel->status);
      tunnel->status.last_heartbeat_ms = clock_.wall_ms();
    } else {
      options_.fill_aside(tunnel->status);
    }
    WriteRequest request;
    request.op = WriteRequest::Op::kUpdateStatus;
    request.kind = Kind::kEgressTunnel;
    request.key = std::move(key);
    request.document = model::encode(*tunnel);
    request.expected_revision = object->revision;
    const auto outcome = co_await store_.write(std::move(request));
    metrics_.store_write(Kind::kEgressTunnel, write_result(outcome));
    if (outcome || outcome.error().code != Errc::kConflict) co_return;
  }
}

asio::awaitable<Result<void>> TunnelReporter::annotate(std::string name, std::string value) {
  Error last{Errc::kConflict, "EgressTunnel " + options_.node_name, "keeps changing", 0};
  for (int attempt = 0; attempt < 10; ++attempt) {
    model::Key key{"", options_.node_name};
    auto object = co_await store_.get(Kind::kEgressTunnel, key);
    if (!object) co_return tl::unexpected(object.error());
    auto& annotations = object->document["metadata"]["annotations"];
    if (value.empty()) {
      if (!annotations.is_object() || annotations.erase(name) == 0) co_return Result<void>{};
    } else {
      if (!annotations.is_object()) annotations = nlohmann::json::object();
      annotations[name] = value;
    }
    WriteRequest request;
    request.op = WriteRequest::Op::kUpdate;
    request.kind = Kind::kEgressTunnel;
    request.key = std::move(key);
    request.document = std::move(object->document);
    request.expected_revision = object->revision;
    auto outcome = co_await store_.write(std::move(request));
    metrics_.store_write(Kind::kEgressTunnel, write_result(outcome));
    if (outcome) {
      sync_.adopt(Kind::kEgressTunnel, outcome->object);
      co_return Result<void>{};
    }
    last = outcome.error();
    if (last.code != Errc::kConflict) break;
  }
  co_return tl::unexpected(last);
}

}  // namespace egw::runtime
