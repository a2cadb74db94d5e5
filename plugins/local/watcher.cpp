// See watcher.hpp.
#include "watcher.hpp"

#include <unistd.h>

#include <utility>

#include "name_set.hpp"

namespace egw::local {

using namespace std::chrono_literals;

namespace {
constexpr auto kSlowLook = 1000ms;  // a signal that got lost is made good after this
constexpr auto kReconnect = 250ms;  // without a connection
constexpr auto kLookPatience = 1s;
constexpr auto kBookmarkEvery = 1s;
}  // namespace

struct Watcher::Subscription {
  std::string group, kind, ns, name;
  Filter filter;
  sdk::EventSink sink;

  // Guards the sink: held during each event, so that unsubscribe can wait for the one under way.
  std::recursive_mutex delivering;
  bool ended = false;

  // The watcher thread's own.
  bool synced = false;        // a snapshot was delivered and nothing was missed since
  bool told_trouble = false;  // DISCONNECTED was delivered since
  std::uint64_t last_revision = 0;
  std::chrono::steady_clock::time_point last_event{};
  NameSet matched;  // with a filter only

  template <class Send>
  void send(Send&& how) {
    const std::lock_guard lock(delivering);
    if (!ended) how(sink);
  }
};

Watcher::Watcher(const FileConfig& config, const sdk::StoreHost& host)
    : host_(static_cast<const sdk::Host&>(host)),
      database_(config.path, config.gate, may_make(host)),
      files_(database_.signal_path(), false, {config.path, config.gate}),
      thread_([this] { run(); }) {}

Watcher::~Watcher() {
  stop_ = true;
  files_.wake();
  thread_.join();
}

std::uint64_t Watcher::subscribe(const sdk::Query& query, Filter filter, sdk::EventSink sink) {
  auto subscription = std::make_shared<Subscription>();
  subscription->group = std::string(query.kind.group);
  subscription->kind = std::string(query.kind.kind);
  subscription->ns = std::string(query.ns);
  subscription->name = std::string(query.name);
  subscription->filter = std::move(filter);
  subscription->sink = sink;
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = ++last_number_;
    subscriptions_.emplace(number, std::move(subscription));
  }
  files_.wake();
  return number;
}

void Watcher::unsubscribe(std::uint64_t number) {
  std::shared_ptr<Subscription> subscription;
  {
    const std::lock_guard lock(mutex_);
    const auto it = subscriptions_.find(number);
    if (it == subscriptions_.end()) return;
    subscription = std::move(it->second);
    subscriptions_.erase(it);
  }
  const std::lock_guard lock(subscription->delivering);
  subscription->ended = true;
}

Watcher::Subscriptions Watcher::subscriptions() {
  const std::lock_guard lock(mutex_);
  Subscriptions all;
  all.reserve(subscriptions_.size());
  for (const auto& [number, subscription] : subscriptions_) all.push_back(subscription);
  return all;
}

void Watcher::run() {
  std::chrono::milliseconds pause{0};
  while (!stop_) {
    if (pause.count() > 0) files_.wait(pause);
    if (!stop_) pause = look();
  }
}

std::chrono::milliseconds Watcher::look() {
  const Subscriptions all = subscriptions();
  const bool had_connection = trouble_.empty();
  try {
    deliver(database_.use(std::chrono::steady_clock::now() + kLookPatience), all);
    if (!trouble_.empty()) host_.info("the store at " + database_.path() + " is back");
    trouble_.clear();
    return kSlowLook;
  } catch (const SqlError& error) {
    disconnect(all, database_.failed(error).text());
  } catch (const sdk::Failure& failure) {
    disconnect(all, failure.status().text());
  } catch (const std::exception& e) {
    disconnect(all, database_.path() + ": " + e.what());
  }
  // What replaced the file may be there already.
  return had_connection ? 1ms : kReconnect;
}

void Watcher::disconnect(const Subscriptions& all, const std::string& why) {
  if (trouble_ != why) host_.warn("no connection to the store: " + why);
  trouble_ = why;
  for (const auto& subscription : all) {
    subscription->synced = false;
    if (std::exchange(subscription->told_trouble, true)) continue;
    subscription->send([&](const sdk::EventSink& sink) { sink.disconnected(why); });
  }
}

void Watcher::deliver(Session& session, const Subscriptions& all) {
  Transaction read(session.connection, Transaction::Mode::kRead);
  const CounterValues now = session.counters->read();
  const bool missed = now.store != store_ || now.revision < cursor_ || now.trimmed > cursor_;
  if (missed) {
    for (const auto& subscription : all) subscription->synced = false;
  } else if (now.revision > cursor_) {
    session.changes->after(cursor_, [&](const ChangeLog::Change& change) {
      for (const auto& subscription : all) {
        if (subscription->synced) deliver_change(change, *subscription);
      }
    });
  }
  store_ = now.store;
  const auto time = std::chrono::steady_clock::now();
  for (const auto& subscription : all) {
    if (!subscription->synced) {
      deliver_snapshot(session, now.revision, *subscription);
    } else if (subscription->last_revision < now.revision &&
               time - subscription->last_event >= kBookmarkEvery) {
      subscription->last_revision = now.revision;
      subscription->last_event = time;
      subscription->send([&](const sdk::EventSink& sink) { sink.revision(now.revision); });
    }
  }
  cursor_ = now.revision;
  read.commit();
}

void Watcher::deliver_change(const ChangeLog::Change& change, Subscription& to) {
  const ObjectKey& key = change.key;
  if (key.kind != to.kind || key.group != to.group) return;
  if (!to.ns.empty() && key.ns != to.ns) return;
  if (!to.name.empty() && key.name != to.name) return;
  bool upsert = change.op == ChangeOp::kUpsert;
  if (!to.filter.empty()) {
    upsert = upsert && to.filter.matches(change.document);
    if (upsert) {
      to.matched.insert(key.ns, key.name);
    } else if (!to.matched.erase(key.ns, key.name)) {
      return;  // it never matched, so there is nothing to take back
    }
  }
  to.last_revision = change.revision;
  to.last_event = std::chrono::steady_clock::now();
  to.send([&](const sdk::EventSink& sink) {
    if (upsert) {
      sink.upsert(change.revision, key.ns, key.name, change.document);
    } else {
      sink.deleted(change.revision, key.ns, key.name, change.document);
    }
  });
}

void Watcher::deliver_snapshot(Session& session, std::uint64_t revision, Subscription& to) {
  to.matched.clear();
  to.send([&](const sdk::EventSink& sink) { sink.snapshot(store_); });
  session.objects->list({to.group, to.kind, to.ns, to.name}, [&](std::uint64_t object_revision,
                                                                 std::string_view ns,
                                                                 std::string_view name,
                                                                 std::string_view document) {
    if (!to.filter.matches(document)) return;
    if (!to.filter.empty()) to.matched.insert(ns, name);
    to.send([&](const sdk::EventSink& sink) { sink.upsert(object_revision, ns, name, document); });
  });
  to.matched.shrink();
  to.synced = true;
  to.told_trouble = false;
  to.last_revision = revision;
  to.last_event = std::chrono::steady_clock::now();
  to.send([&](const sdk::EventSink& sink) { sink.synced(revision); });
}

}  // namespace egw::local
