// See reflector.hpp.
#include "reflector.hpp"

#include <pthread.h>
#include <signal.h>

#include <functional>
#include <random>

#include "reads.hpp"

namespace egw::kube {

using nlohmann::json;
using sdk::Code;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace {

constexpr auto kRequestDeadline = 15000ms;     // until a header, or of one page
constexpr std::int64_t kListSilence = 30'000;  // ms between events of a list that streams
// A list that streams must end so long after its beginning, or later by so much an object.
constexpr auto kLongestList = 15s;
constexpr auto kListObject = 10ms;
constexpr std::int64_t kWatchSilence = 180'000;  // ms; bookmarks come once a minute
constexpr std::size_t kMaxObjects = 1'000'000;
constexpr std::size_t kMaxPages = 10'000;
constexpr auto kOverloadGrace = 10s;  // that a connected subscriber is not told of 429
constexpr auto kQuick = 1s;           // a watch that lasts less is none
constexpr int kMaxQuickEnds = 3;      // in a row, that a subscriber is not told of
constexpr auto kBackOffFirst = 200ms;
constexpr auto kBackOffLongest = 5000ms;
constexpr auto kAbsentFirst = 1000ms;  // of a kind that is not served
constexpr auto kAbsentLongest = 60'000ms;

// Spread, so that the watches of many nodes do not end together.
std::string watch_seconds() {
  thread_local std::minstd_rand random(std::random_device{}());
  return std::to_string(std::uniform_int_distribution<int>(300, 600)(random));
}
constexpr auto kLongestWatch = 660s;

// The server leaves out everything but metadata (1.15 and later; others give the whole objects).
std::string accept(bool metadata_only, const char* kind) {
  const std::string plain = "application/json";
  return metadata_only ? plain + ";as=" + kind + ";g=meta.k8s.io;v=v1," + plain : plain;
}

// Answers of a server that cannot serve now, whoever asks; 0: there was none.
bool is_away(int code) { return code == 0 || code == 429 || (code >= 500 && code <= 504); }

// egw's own kinds come with its installation, nodes and pods are everywhere: they are worth asking
// for every few seconds. A cluster may well lack another's kind, or one of a newer Kubernetes.
bool may_be_absent(const sdk::ObjectKind& kind) {
  return !kind.group.empty() && kind.group != "egressgateway.spidernet.io";
}

// The name of the CustomResourceDefinition whose coming is worth waiting for; empty: there is none.
std::string definition_of(const sdk::ObjectKind& kind) {
  const std::string group(kind.group);
  const bool own = group.find('.') == std::string::npos || group.ends_with(".k8s.io");
  return may_be_absent(kind) && !own ? std::string(kind.plural) + "." + group : std::string();
}

std::string field_selector(std::string_view name, std::string_view fields) {
  std::string out(fields);
  if (!name.empty()) {
    out.append(out.empty() ? "" : ",").append("metadata.name=").append(name);
  }
  return out;
}

}  // namespace

Reflector::Reflector(Api& api, const sdk::Query& query, sdk::EventSink sink, const sdk::Host& host)
    : api_(api),
      resource_(query.kind),
      ns_(query.ns),
      fields_(field_selector(query.name, query.fields)),
      labels_(query.labels),
      metadata_only_(query.metadata_only),
      asked_{"watch", resource_.text(), ""},
      patient_(may_be_absent(query.kind)),
      definition_name_(definition_of(query.kind)),
      sink_(sink),
      host_(host),
      absent_(kAbsentFirst, kAbsentLongest),
      thread_([this] { run(); }) {}

Reflector::~Reflector() {
  end();
  thread_.join();
}

void Reflector::end() {
  stop_.request();
  api_.wake();
  const std::lock_guard lock(delivering_);
  ended_ = true;
}

template <class Send>
void Reflector::send(Send&& how) {
  const std::lock_guard lock(delivering_);
  if (!ended_) how(sink_);
}

void Reflector::run() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  BackOff back_off(kBackOffFirst, kBackOffLongest);
  while (!stop_.requested()) {
    End how;
    const auto began = steady_clock::now();
    try {
      how = listed_ ? watch(false) : streaming_lists_ ? watch(true) : list();
    } catch (const std::exception& e) {
      how.status = sdk::fail(Code::kInternal, e.what());
    }
    if (!stop_.requested()) settle(how, began, back_off);
  }
  definition_.reset();
  finished_ = true;
}

// What to do after a list or a watch has ended.
void Reflector::settle(const End& how, steady_clock::time_point began, BackOff& back_off) {
  const auto now = steady_clock::now();
  if (how.unsupported) {
    streaming_lists_ = false;
    return;
  }
  const bool quick = how.watched && now - began < kQuick;
  if (how.established) {
    if (!quick) back_off.reset();
    absent_.reset();
    definition_.reset();
    lost_since_ = now;
  }
  if (how.expired) listed_ = false;
  // The end of a watch, of a list, a revision that has become too old, a connection that broke
  // (mostly another server answers): go on at once, unless it happens again and again.
  const bool broke = how.established && listed_ && how.status.code == Code::kUnavailable;
  quick_ends_ = quick && broke ? quick_ends_ + 1 : 0;
  if (quick_ends_ < kMaxQuickEnds &&
      (how.status.ok() || broke || (how.expired && how.established))) {
    if (quick) stop_.wait(back_off.next());
    return;
  }
  const bool patient = connected_ && now - lost_since_ < kOverloadGrace;
  if (!how.expired && !(how.overloaded && patient)) disconnect(how.status.text());
  if (how.absent && patient_) return await_definition();
  api_.rest({how.away, how.retry_after, kBackOffFirst / 2, began}, back_off, stop_);
}

// Until it is worth asking for the kind again.
void Reflector::await_definition() {
  if (definition_ == nullptr && !definition_name_.empty()) {
    sdk::Query query;
    query.kind.group = "apiextensions.k8s.io";
    query.kind.version = "v1";
    query.kind.kind = "CustomResourceDefinition";
    query.kind.plural = "customresourcedefinitions";
    query.name = definition_name_;
    query.metadata_only = true;
    definition_ = std::make_unique<Reflector>(api_, query, sdk::EventSink({this, on_definition}),
                                              sdk::Host());
  }
  if (definition_changed_.exchange(false)) absent_.reset();  // it is served in a moment
  stop_.wait(absent_.next(), [this] { return definition_changed_.load(); });
}

void Reflector::on_definition(void* ctx, const egw_event* event) {
  auto* self = static_cast<Reflector*>(ctx);
  if (event->type != EGW_EVENT_UPSERT) return;
  self->definition_changed_ = true;
  self->stop_.look_again();
}

void Reflector::disconnect(const std::string& why) {
  if (why != trouble_) host_.warn(why);
  trouble_ = why;
  connected_ = listed_ = listing_ = false;
  if (!std::exchange(told_trouble_, true)) {
    send([&](const sdk::EventSink& sink) { sink.disconnected(why); });
  }
}

// ---- listing -----------------------------------------------------------------------------------

void Reflector::begin_listing() {
  listing_ = true;
  list_began_ = steady_clock::now();
  fresh_.clear();
  if (connected_) return;
  known_.clear();
  send([](const sdk::EventSink& sink) { sink.snapshot(); });
}

void Reflector::finish_listing() {
  std::uint64_t revision = std::strtoull(revision_.c_str(), nullptr, 10);
  for (auto it = known_.begin(); it != known_.end();) {
    if (fresh_.count(it->first) != 0) {
      ++it;
      continue;
    }
    send([&](const sdk::EventSink& sink) {
      sink.deleted(revision, it->first.first, it->first.second, {});
    });
    it = known_.erase(it);
  }
  fresh_.clear();
  listing_ = false;
  listed_ = true;
  lost_since_ = steady_clock::now();
  const bool first = !std::exchange(connected_, true);
  if (std::exchange(told_trouble_, false)) {
    host_.info("the API server serves " + resource_.text() + " again");
  }
  trouble_.clear();
  send([&](const sdk::EventSink& sink) {
    if (first) {
      sink.synced(revision);
    } else {
      sink.revision(revision);
    }
  });
}

Reflector::End Reflector::list() {
  std::string more;
  bool complete = false;
  begin_listing();
  for (std::size_t pages = 0; !complete; ++pages) {
    End how = page(more, complete);
    if (pages >= kMaxPages) {
      how.status = sdk::fail(Code::kInternal, "the list does not end", resource_.text());
    }
    if (!how.status.ok()) return how;
    if (stop_.requested()) return {};
  }
  finish_listing();
  End how;
  how.established = true;
  return how;
}

Reflector::End Reflector::page(std::string& more, bool& complete) {
  HttpRequest request;
  request.path = resource_.collection(ns_) + Parameters()
                                                 .add("limit", kPageSize)
                                                 .add("continue", more)
                                                 .add("fieldSelector", fields_)
                                                 .add("labelSelector", labels_)
                                                 .text();
  request.accept = accept(metadata_only_, "PartialObjectMetadataList");
  request.deadline = kRequestDeadline;
  const HttpAnswer answer = api_.once(std::move(request), &stop_);
  End how;
  how.retry_after = answer.retry_after;
  how.overloaded = answer.code == 429;
  how.away = is_away(answer.code);
  how.absent = answer.code == 403 || answer.code == 404;
  how.expired = answer.code == 410;  // the pages took too long: from the beginning
  how.status = status_of(answer, {"list", resource_.text(), ""});
  if (!how.status.ok()) return how;
  sdk::Outcome<json> body = parse_object(answer.body);
  const auto items = body.ok() ? body->find("items") : json::iterator();
  if (!body.ok() || items == body->end() || !(items->is_array() || items->is_null())) {
    how.status = body.ok() ? sdk::fail(Code::kInternal, "the list has no items", resource_.text())
                           : body.status();
    return how;
  }
  for (json& item : *items) {
    if (!upsert(std::move(item))) {
      how.status = sdk::fail(Code::kInternal, "an object of the list has no name, or too many came",
                             resource_.text());
      return how;
    }
  }
  more = text_of(member_of(*body, "metadata"), "continue");
  complete = more.empty();
  if (complete) {
    revision_ = text_of(member_of(*body, "metadata"), "resourceVersion");
    if (revision_of(*body) == 0) {
      how.status = sdk::fail(Code::kInternal, "the list has no resourceVersion", resource_.text());
    }
  }
  return how;
}

// ---- watching ----------------------------------------------------------------------------------

Reflector::End Reflector::watch(bool initial) {
  End how;
  how.watched = true;
  listing_ = false;  // of a list that ended before it was complete
  WatchEvents events;
  HttpRequest request;
  request.path =
      resource_.collection(ns_) + Parameters()
                                      .add("watch", "1")
                                      .add("allowWatchBookmarks", "true")
                                      .add("sendInitialEvents", initial ? "true" : "")
                                      .add("resourceVersionMatch", initial ? "NotOlderThan" : "")
                                      .add("resourceVersion", initial ? "" : revision_)
                                      .add("timeoutSeconds", watch_seconds())
                                      .add("fieldSelector", fields_)
                                      .add("labelSelector", labels_)
                                      .text();
  request.accept = accept(metadata_only_, "PartialObjectMetadata");
  request.deadline = kRequestDeadline;
  request.longest = kLongestWatch;
  silence_ms_ = initial ? kListSilence : kWatchSilence;
  request.silence_ms = &silence_ms_;
  request.on_data = [&](std::string_view bytes) {
    if (stop_.requested()) return false;
    if (initial && !listing_ && !how.established) begin_listing();
    how.established = true;
    const sdk::Status status =
        events.feed(bytes, [&](WatchEvent event) { return on_event(std::move(event), how); });
    if (!status.ok()) how.status = status;
    if (listing_ &&
        steady_clock::now() > list_began_ + kLongestList + kListObject * fresh_.size()) {
      how.status =
          sdk::fail(Code::kUnavailable, "the list does not end: " + std::to_string(fresh_.size()) +
                                            " objects have come since it began, and it goes on");
    }
    return how.status.ok() && !how.expired;
  };
  const HttpAnswer answer = api_.once(std::move(request), &stop_);
  how.retry_after = answer.retry_after;
  how.overloaded = answer.code == 429;
  how.away = is_away(answer.code);
  how.absent = answer.code == 403 || answer.code == 404;
  how.expired = how.expired || answer.code == 410;
  // 1.31 and older, or the feature is off: sendInitialEvents is refused as an invalid option.
  how.unsupported = initial && !how.established && (answer.code == 422 || answer.code == 400);
  if (how.status.ok() && !how.expired && !answer.stopped) how.status = status_of(answer, asked_);
  if (how.status.ok() && listing_) {
    how.status = sdk::fail(Code::kUnavailable, "the list ended too early", resource_.text());
  }
  // Also one that broke before there was anything to tell. One that was silent for long may have
  // asked for a revision that the server will not reach for long.
  const bool begun = answer.code >= 200 && answer.code < 300 && !answer.silent;
  how.established = how.established || (initial ? answer.success() : begun);
  // A list that was not completed is no connection.
  if (initial && !listed_) how.established = false;
  if (!how.status.ok() && how.status.what.empty()) how.status.what = resource_.text();
  return how;
}

bool Reflector::on_event(WatchEvent event, End& how) {
  if (stop_.requested()) return false;
  // The next watch begins at the last one; without, it would begin anywhere.
  const bool counts = event.type == WatchEvent::Type::kBookmark ||
                      (!listing_ && event.type != WatchEvent::Type::kError);
  if (counts && revision_of(event.object) == 0) {
    how.status = sdk::fail(Code::kInternal, "an event has no resourceVersion");
    return false;
  }
  switch (event.type) {
    case WatchEvent::Type::kUpsert:
      if (upsert(std::move(event.object))) return true;
      how.status = sdk::fail(Code::kInternal, "an event has no name, or too many objects came");
      return false;
    case WatchEvent::Type::kDelete:
      erase(std::move(event.object));
      return true;
    case WatchEvent::Type::kBookmark:
      return on_bookmark(event.object);
    case WatchEvent::Type::kError:
      break;
  }
  const auto code = event.object.find("code");
  const int number =
      code != event.object.end() && code->is_number_integer() ? code->get<int>() : 500;
  how.expired = number == 410;
  how.overloaded = number == 429;
  how.away = is_away(number);
  if (!how.expired) how.status = status_of(number, event.object, asked_);
  return false;
}

bool Reflector::on_bookmark(const json& object) {
  revision_ = text_of(member_of(object, "metadata"), "resourceVersion");
  if (!listing_) {
    const std::uint64_t revision = revision_of(object);
    send([&](const sdk::EventSink& sink) { sink.revision(revision); });
    return true;
  }
  const json& annotations = member_of(member_of(object, "metadata"), "annotations");
  if (text_of(annotations, "k8s.io/initial-events-end") == "true") {
    finish_listing();
    silence_ms_ = kWatchSilence;
  }
  return true;
}

// ---- objects -----------------------------------------------------------------------------------

// false: the object cannot be used.
bool Reflector::upsert(json object) {
  if (!object.is_object()) return false;
  const json& metadata = member_of(object, "metadata");
  Key key{text_of(metadata, "namespace"), text_of(metadata, "name")};
  if (key.second.empty() || known_.size() >= kMaxObjects) return false;
  Known now{revision_of(object), std::hash<std::string>{}(text_of(metadata, "uid"))};
  const auto known = known_.find(key);
  if (listing_) {
    fresh_.insert(key);
    if (connected_ && known != known_.end() && known->second.revision == now.revision) return true;
  } else {
    revision_ = text_of(metadata, "resourceVersion");
  }
  // Items of a list do not say what they are.
  object["apiVersion"] = resource_.api_version();
  object["kind"] = resource_.kind;
  object["metadata"].erase("managedFields");
  const std::string text = object.dump(-1, ' ', false, json::error_handler_t::replace);
  const bool another = known != known_.end() && known->second.uid != now.uid;
  send([&](const sdk::EventSink& sink) {
    if (another) sink.deleted(now.revision, key.first, key.second, {});
    sink.upsert(now.revision, key.first, key.second, text);
  });
  known_[std::move(key)] = now;
  return true;
}

void Reflector::erase(json object) {
  const json& metadata = member_of(object, "metadata");
  const Key key{text_of(metadata, "namespace"), text_of(metadata, "name")};
  const std::uint64_t revision = revision_of(object);
  if (!listing_) revision_ = text_of(metadata, "resourceVersion");
  fresh_.erase(key);
  if (known_.erase(key) == 0) return;
  object["metadata"].erase("managedFields");
  object["apiVersion"] = resource_.api_version();
  object["kind"] = resource_.kind;
  const std::string text = object.dump(-1, ' ', false, json::error_handler_t::replace);
  send([&](const sdk::EventSink& sink) { sink.deleted(revision, key.first, key.second, text); });
}

}  // namespace egw::kube
