// Two elections over the same objects (dispute.hpp).
#include "egw/runtime/dispute.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace egw::runtime {
namespace asio = boost::asio;
using host::WriteRequest;
using model::Kind;

namespace {

constexpr std::int64_t kAgainMs = 1000;          // the store did not take the question
constexpr std::int64_t kUndisputedMs = 120'000;  // in office: the former dispute is settled
constexpr std::int64_t kTellAgainMs = 600'000;
// Terms are compared, never counted. Where the store knows a higher one than any object shows, this
// comes past it in the end.
constexpr std::uint64_t kPast = 1000;

const model::Key kInfo{"", std::string(model::kClusterInfoName)};

}  // namespace

std::string Dispute::other() const {
  const auto info = sync_.world().cluster_infos.find(kInfo.name);
  if (info == sync_.world().cluster_infos.end() || info->second.status.term <= term_) return {};
  return info->second.status.leader;
}

void Dispute::begin(std::uint64_t term, std::int64_t since_ms, bool seen) {
  const std::int64_t now = clock_.steady_ms();
  if (now - since_ms > kUndisputedMs) pause_ms_ = kFirstMs;
  term_ = term;
  if (!seen) floor_ = std::max(floor_, term + kPast);
  on_ = true;
  asked_ = false;
  look_at_ms_ = now + pause_ms_;
  pause_ms_ = std::min(pause_ms_ * 2, kMostMs);
  log_.warn("another controller writes with a higher term: standing back",
            {{"term", std::to_string(term)}, {"other", other()}});
}

bool Dispute::answered() const {
  const auto info = sync_.world().cluster_infos.find(kInfo.name);
  return info != sync_.world().cluster_infos.end() &&
         !info->second.meta.annotations.contains(std::string(model::kWhoLeadsAnnotation));
}

asio::awaitable<void> Dispute::look() {
  const std::int64_t now = clock_.steady_ms();
  if (asked_ && answered()) {
    asked_ = false;
    tell();
    look_at_ms_ = now + pause_ms_;
    pause_ms_ = std::min(pause_ms_ * 2, kMostMs);
    co_return;
  }
  if (now < look_at_ms_) co_return;
  if (asked_) {
    log_.info("nobody else leads any more: taking office again", {{"other", other()}});
    on_ = false;
    co_return;
  }
  asked_ = co_await ask();
  look_at_ms_ = clock_.steady_ms() + (asked_ ? kAnswerMs : kAgainMs);
}

// False: the store does not take it now. What it never takes nobody can answer.
asio::awaitable<bool> Dispute::ask() {
  model::Key key = kInfo;
  auto stored = co_await store_.get(Kind::kEgressClusterInfo, std::move(key));
  if (!stored) co_return stored.error().code == Errc::kNotFound;  // a leader would have made it
  stored->document["metadata"]["annotations"][std::string(model::kWhoLeadsAnnotation)] = identity_;
  WriteRequest request;
  request.op = WriteRequest::Op::kUpdate;
  request.kind = Kind::kEgressClusterInfo;
  request.key = kInfo;
  request.expected_revision = stored->revision;
  request.document = std::move(stored->document);
  auto written = co_await store_.write(std::move(request));
  if (written) sync_.adopt(Kind::kEgressClusterInfo, written->object);
  co_return written || written.error().code == Errc::kDenied ||
      written.error().code == Errc::kInvalid;
}

void Dispute::tell() {
  const std::string who = other();
  const std::int64_t now = clock_.steady_ms();
  if (who == told_ && now - told_ms_ < kTellAgainMs) return;
  told_ = who;
  told_ms_ = now;
  const std::string message = fmt::format(
      "two elections lead over the same objects: {} writes with a higher term, so {} stands back "
      "although it holds its own office; give all controllers the same leaderElection "
      "configuration (on Kubernetes the same namespace and lease), or stop those of one "
      "installation",
      who.empty() ? "another controller" : who, identity_);
  log_.error(message, {{"other", who}, {"term", std::to_string(term_)}});
  const auto info = sync_.world().cluster_infos.find(kInfo.name);
  events_.record({Kind::kEgressClusterInfo,
                  kInfo,
                  true,
                  "Lead",
                  "TwoLeaders",
                  message,
                  {},
                  info == sync_.world().cluster_infos.end() ? "" : info->second.meta.uid});
}

}  // namespace egw::runtime
