// See term_record.hpp.
#include "term_record.hpp"

#include <charconv>

#include "lease.hpp"

namespace egw::kube {

using nlohmann::json;
using sdk::Code;
using std::chrono::steady_clock;

namespace {

constexpr const char* kAnnotation = "egressgateway.spidernet.io/term";

std::uint64_t term_of(const json& lease) {
  const std::string text =
      text_of(member_of(member_of(lease, "metadata"), "annotations"), kAnnotation);
  std::uint64_t out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

}  // namespace

TermRecord::TermRecord(Api& api, std::string ns, std::string name, const sdk::Host& host)
    : api_(api), ns_(std::move(ns)), name_(std::move(name)), host_(host) {}

sdk::Status TermRecord::check(std::uint64_t term, bool record, const std::string& what,
                              std::chrono::milliseconds deadline) {
  const auto until = steady_clock::now() + deadline;
  for (;;) {
    const auto left = std::chrono::floor<std::chrono::milliseconds>(until - steady_clock::now());
    if (left.count() <= 0) {
      return sdk::fail(Code::kUnavailable, "the highest term could not be recorded in time", what);
    }
    if (!known_) {
      if (sdk::Status s = read(left); !s.ok()) return s;
    }
    std::uint64_t highest = 0;
    {
      const std::lock_guard lock(mutex_);
      highest = term_;
    }
    if (term < highest) {
      return sdk::fail(Code::kStaleTerm,
                       "the write carries term " + std::to_string(term) + ", but term " +
                           std::to_string(highest) +
                           " has begun: another controller leads now; nothing was changed",
                       what);
    }
    if (term == highest || !record) return sdk::ok();
    const sdk::Status raised = raise(term, left);
    if (raised.ok()) continue;
    known_ = false;  // another was faster: read what is there now
    if (raised.code == Code::kConflict || raised.code == Code::kExists) continue;
    // Not of the object that is to be written.
    return sdk::fail(Code::kUnavailable, "the term cannot be recorded: " + raised.text(), what);
  }
}

sdk::Status TermRecord::read(std::chrono::milliseconds deadline) {
  HttpRequest request;
  request.path = lease_resource().object(ns_, name_);
  request.deadline = deadline;
  const std::string object = "Lease " + ns_ + "/" + name_;
  const auto lease = api_.object(request, {"get", lease_resource().text(), object});
  if (!lease.ok() && lease.status().code != Code::kNotFound) return lease.status();
  {
    const std::lock_guard lock(mutex_);
    lease_ = lease.ok() ? lease.value() : json();
    if (lease.ok()) term_ = std::max(term_, term_of(lease.value()));
  }
  known_ = true;
  begin_watch();
  return sdk::ok();
}

sdk::Status TermRecord::raise(std::uint64_t term, std::chrono::milliseconds deadline) {
  json lease;
  {
    const std::lock_guard lock(mutex_);
    lease = lease_;
  }
  const bool create = lease.is_null();
  if (create) lease = new_lease(ns_, name_);
  // What others have put there (labels, owners, other annotations) stays.
  json& annotations = lease["metadata"]["annotations"];
  if (!annotations.is_object()) annotations = json::object();
  annotations[kAnnotation] = std::to_string(term);
  HttpRequest request;
  request.method = create ? "POST" : "PUT";
  request.path = create ? lease_resource().collection(ns_) : lease_resource().object(ns_, name_);
  request.body = lease.dump();
  request.content_type = "application/json";
  request.deadline = deadline;
  const auto stored = api_.object(request, {create ? "create" : "update", lease_resource().text(),
                                            "Lease " + ns_ + "/" + name_});
  if (!stored.ok()) return stored.status();
  const std::lock_guard lock(mutex_);
  lease_ = stored.value();
  term_ = std::max(term_, term);
  return sdk::ok();
}

void TermRecord::begin_watch() {
  if (watch_ != nullptr) return;
  sdk::ObjectKind kind;
  kind.group = lease_resource().group;
  kind.version = lease_resource().version;
  kind.kind = lease_resource().kind;
  kind.plural = lease_resource().plural;
  kind.namespaced = true;
  sdk::Query query;
  query.kind = kind;
  query.ns = ns_;
  query.name = name_;
  watch_ = std::make_unique<Reflector>(api_, query, sdk::EventSink({this, on_event}), host_);
}

void TermRecord::on_event(void* ctx, const egw_event* event) {
  auto* self = static_cast<TermRecord*>(ctx);
  if (event->type != EGW_EVENT_UPSERT) return;
  json lease = json::parse(sdk::view(event->object), nullptr, false);
  if (!lease.is_object()) return;
  const std::lock_guard lock(self->mutex_);
  self->term_ = std::max(self->term_, term_of(lease));
  self->lease_ = std::move(lease);
}

}  // namespace egw::kube
