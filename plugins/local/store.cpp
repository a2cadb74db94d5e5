// See store.hpp.
#include "store.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "admission.hpp"
#include "filter.hpp"

namespace egw::local {

using nlohmann::json;
using sdk::Code;
using sdk::WriteOp;
using namespace std::chrono_literals;

namespace {

constexpr auto kOpenPatience = 5s;
constexpr auto kReadPatience = 2s;
constexpr auto kDefaultDeadline = 5s;
constexpr auto kLongestDeadline = 60s;
// Events are for people and go by themselves.
constexpr std::string_view kEventGroup = "events.k8s.io";
constexpr std::string_view kEventKind = "Event";
constexpr std::uint64_t kEventsKept = 1000;
constexpr auto kEventAge = 24h;
constexpr int kForgottenAtOnce = 10;  // a write that makes one removes no more than these
constexpr std::uint64_t kMaxNumber = (std::uint64_t{1} << 63) - 1;  // of SQLite's integers

SteadyTime in(std::chrono::milliseconds patience) {
  return std::chrono::steady_clock::now() + patience;
}

// RFC 3339; empty where the event does not say.
std::string last_seen(const json& event) {
  for (const char* pointer : {"/series/lastObservedTime", "/eventTime"}) {
    const json::json_pointer at(pointer);
    if (event.contains(at) && event.at(at).is_string()) return event.at(at);
  }
  return {};
}

ObjectKey key_of(const Place& place) {
  return {place.kind.group, place.kind.kind, place.ns, place.name};
}

// What happens to the database while `body` uses it becomes the call's answer.
template <class Body>
sdk::Status answer(Database& database, Body&& body) {
  try {
    return body();
  } catch (const SqlError& error) {
    return database.failed(error);
  } catch (const sdk::Failure& failure) {
    return failure.status();
  }
}

}  // namespace

// One write on its way: what is stored, what shall be, and whether the object goes.
struct LocalStore::Step {
  Place place;
  std::uint64_t stored_revision = 0;  // 0: there is none
  std::string stored_text;
  json stored, document;
  bool remove = false;
};

LocalStore::LocalStore(std::string_view config_json, sdk::StoreHost host)
    : config_(parse_store_config(config_json)),
      host_(host),
      database_(config_.path, config_.gate, may_make(host)) {
  database_.open(in(kOpenPatience));
}

sdk::Outcome<std::uint64_t> LocalStore::subscribe(const sdk::Query& query, sdk::EventSink sink) {
  sdk::Outcome<Filter> filter = Filter::parse(query.fields, query.labels);
  if (!filter.ok()) return filter.status();
  if (query.kind.kind.empty()) {
    return sdk::fail(Code::kInvalid, "the kind to subscribe to is not given");
  }
  // Begun with the first subscription: most verbs never watch.
  if (watcher_ == nullptr) {
    watcher_ = std::make_unique<Watcher>(config_, host_);
  }
  return watcher_->subscribe(query, std::move(*filter), sink);
}

void LocalStore::unsubscribe(std::uint64_t subscription) {
  if (watcher_ != nullptr) watcher_->unsubscribe(subscription);
}

sdk::Status LocalStore::get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
                            const sdk::ObjectSink& out) {
  const Place place{kind, ns, name};
  if (sdk::Status s = check_place(place); !s.ok()) return s;
  return answer(database_, [&] {
    const auto found = database_.use(in(kReadPatience)).objects->get(key_of(place));
    if (!found) return sdk::fail(Code::kNotFound, "there is no such object", place.text());
    out.object(found->revision, found->document);
    return sdk::ok();
  });
}

sdk::Status LocalStore::list(const sdk::Query& query, const sdk::ObjectSink& out) {
  const sdk::Outcome<Filter> filter = Filter::parse(query.fields, query.labels);
  if (!filter.ok()) return filter.status();
  return answer(database_, [&] {
    database_.use(in(kReadPatience))
        .objects->list({query.kind.group, query.kind.kind, query.ns, query.name},
                       [&](std::uint64_t revision, std::string_view, std::string_view,
                           std::string_view document) {
                         if (filter->matches(document)) out.object(revision, document);
                       });
    return sdk::ok();
  });
}

sdk::Status LocalStore::health() {
  return answer(database_, [&] {
    (void)database_.use(in(kReadPatience)).counters->read();
    return sdk::ok();
  });
}

sdk::Status LocalStore::write(const sdk::Write& write, const sdk::ObjectSink& out) {
  const Place place{write.kind, write.ns, write.name};
  if (sdk::Status s = check_place(place); !s.ok()) return s;
  if (write.expected_revision > kMaxNumber || write.term > kMaxNumber) {
    return sdk::fail(Code::kInvalid, "the expected revision or the term is out of range",
                     place.text());
  }
  json wanted;
  if (write.op != WriteOp::kDelete) {
    sdk::Outcome<json> parsed = parse_document(place, write.object);
    if (!parsed.ok()) return parsed.status();
    wanted = std::move(*parsed);
  }
  const auto patience = write.deadline == 0ms
                            ? std::chrono::milliseconds(kDefaultDeadline)
                            : std::min<std::chrono::milliseconds>(write.deadline, kLongestDeadline);
  bool changed = false;
  sdk::Status status = answer(database_, [&] {
    return write_in(database_.use(in(patience)), write, wanted, out, changed);
  });
  if (changed) database_.ring();
  return status;
}

sdk::Status LocalStore::write_in(Session& session, const sdk::Write& write, const json& wanted,
                                 const sdk::ObjectSink& out, bool& changed) {
  Transaction transaction(session.connection, Transaction::Mode::kWrite);
  const CounterValues counters = session.counters->read();
  Step step;
  step.place = {write.kind, write.ns, write.name};
  if (write.term != 0 && write.term < counters.term) {
    return sdk::fail(Code::kStaleTerm,
                     "the write carries term " + std::to_string(write.term) + ", but term " +
                         std::to_string(counters.term) +
                         " has begun: another controller leads now; nothing was changed",
                     step.place.text());
  }
  if (auto found = session.objects->get(key_of(step.place))) {
    step.stored_revision = found->revision;
    step.stored_text = std::move(found->document);
    step.stored = json::parse(step.stored_text);
  }
  if (sdk::Status s = prepare(write, wanted, step); !s.ok()) return s;
  if (write.op != WriteOp::kUpdateStatus) {
    if (sdk::Status s = admit(session, write, step, out); !s.ok()) return s;
  }
  const bool unchanged = !step.remove && step.stored_revision != 0 && step.document == step.stored;
  const bool new_term = write.term > counters.term;
  std::uint64_t revision = step.stored_revision;
  if (step.document.dump().size() > kMaxDocument) {
    return sdk::fail(
        Code::kInvalid,
        "the object as a whole would have more than " + std::to_string(kMaxDocument) + " bytes",
        step.place.text());
  }
  if (!write.dry_run) {
    if (new_term) session.counters->set_term(write.term);
    if (!unchanged) revision = store(session, write, counters, step);
    if (new_term || !unchanged) database_.commit(transaction);
    changed = !unchanged;
  }
  out.object(revision, step.document.dump());
  return sdk::ok();
}

sdk::Status LocalStore::prepare(const sdk::Write& write, const json& wanted, Step& step) {
  const std::string what = step.place.text();
  const bool exists = step.stored_revision != 0;
  if (write.op == WriteOp::kCreate) {
    if (exists) return sdk::fail(Code::kExists, "the object exists already", what);
    if (write.expected_revision != 0) {
      return sdk::fail(Code::kConflict,
                       "revision " + std::to_string(write.expected_revision) +
                           " was expected, but the object does not exist",
                       what);
    }
    step.document = created(step.place, wanted, make_uuid(), format_now());
    return sdk::ok();
  }
  if (!exists) return sdk::fail(Code::kNotFound, "there is no such object", what);
  if (write.expected_revision != 0 && write.expected_revision != step.stored_revision) {
    return sdk::fail(Code::kConflict,
                     "revision " + std::to_string(write.expected_revision) +
                         " was expected, but revision " + std::to_string(step.stored_revision) +
                         " is stored: somebody else changed the object; read it again",
                     what);
  }
  switch (write.op) {
    case WriteOp::kUpdate: {
      sdk::Outcome<json> document = updated(step.place, step.stored, wanted);
      if (!document.ok()) return document.status();
      step.document = std::move(*document);
      step.remove = is_being_deleted(step.document) && !has_finalizers(step.document);
      return sdk::ok();
    }
    case WriteOp::kUpdateStatus:
      step.document = with_status(step.stored, wanted);
      return sdk::ok();
    case WriteOp::kDelete:
      step.remove = !has_finalizers(step.stored);
      step.document = step.remove ? step.stored : marked_deleted(step.stored, format_now());
      return sdk::ok();
    default:
      return sdk::fail(Code::kInvalid,
                       "unknown operation " + std::to_string(static_cast<unsigned>(write.op)),
                       what);
  }
}

sdk::Status LocalStore::admit(Session& session, const sdk::Write& write, Step& step,
                              const sdk::ObjectSink& out) {
  TransactionReader reader(*session.objects);
  const bool has_new = write.op != WriteOp::kDelete;
  const sdk::Admission verdict = host_.admit(write.op, step.place.kind, step.stored_text,
                                             has_new ? step.document.dump() : "", reader);
  for (const std::string& warning : verdict.warnings) out.warning(warning);
  if (!verdict.admitted) {
    std::string reasons;
    for (const std::string& denial : verdict.denials) {
      reasons += (reasons.empty() ? "" : "\n") + denial;
    }
    return sdk::fail(Code::kDenied, reasons, step.place.text());
  }
  if (!has_new || verdict.object.empty()) return sdk::ok();
  sdk::Outcome<json> admitted = parse_document(step.place, verdict.object);
  if (!admitted.ok()) return admitted.status();
  restore_system_fields(step.place, step.document, *admitted);
  // Admission may fill in spec: whether that is a new generation is judged against what is stored.
  if (step.stored_revision != 0) {
    (*admitted)["metadata"]["generation"] = step.stored["metadata"].value("generation", 0);
    count_generation(step.stored, *admitted);
  }
  step.document = std::move(*admitted);
  return sdk::ok();
}

// The oldest events, when there are too many or they are too old. Each removal has a revision of
// its own, after `revision`.
void LocalStore::forget_events(Session& session, std::uint64_t term, std::uint64_t revision) {
  const std::string too_old = format_now(kEventAge);
  std::uint64_t count = session.objects->count(kEventGroup, kEventKind);
  for (int i = 0; i < kForgottenAtOnce; ++i, --count) {
    const auto oldest = session.objects->oldest(kEventGroup, kEventKind);
    if (!oldest) return;
    const json document = json::parse(oldest->document);
    if (count <= kEventsKept && last_seen(document) >= too_old) return;
    const ObjectKey key{kEventGroup, kEventKind, oldest->ns, oldest->name};
    session.counters->set_revision(++revision);
    session.objects->remove(key);
    session.changes->append(revision, key, ChangeOp::kDelete, term, tombstone(document));
  }
}

std::uint64_t LocalStore::store(Session& session, const sdk::Write& write,
                                const CounterValues& counters, Step& step) {
  const std::uint64_t revision = counters.revision + 1;
  const ObjectKey key = key_of(step.place);
  session.counters->set_revision(revision);
  if (step.remove) {
    session.objects->remove(key);
    session.changes->append(revision, key, ChangeOp::kDelete, write.term, tombstone(step.document));
  } else {
    set_revision(step.document, revision);
    session.objects->put(key, revision, step.document.dump());
    session.changes->append(revision, key, ChangeOp::kUpsert, write.term, {});
  }
  if (step.stored_revision == 0 && key.group == kEventGroup && key.kind == kEventKind) {
    forget_events(session, write.term, revision);
  }
  // Trimmed in bites of a tenth, so that most writes do not touch the old end of the log.
  const std::uint64_t bite = config_.kept_revisions / 10;
  if (revision > config_.kept_revisions &&
      revision - config_.kept_revisions >= counters.trimmed + bite) {
    session.counters->set_trimmed(revision - config_.kept_revisions);
    session.changes->trim(revision - config_.kept_revisions);
  }
  return revision;
}

}  // namespace egw::local
