// Subscriptions of a WorldSync, and its public face; what an event does to the World:
// world_objects.cpp.
#include "egw/runtime/world_sync.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <utility>

#include "egw/model/codec.hpp"
#include "egw/model/policy_text.hpp"
#include "egw/runtime/spawn.hpp"
#include "egw/runtime/world_sync_impl.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
using host::StoreEvent;
using model::Key;
using model::Kind;

namespace {

void unique_sorted(std::vector<Key>& keys) {
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
}
void unique_sorted(std::vector<std::string>& names) {
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
}

}  // namespace

// ---- subscriptions -----------------------------------------------------------------------------

asio::awaitable<void> WorldSync::Impl::subscribe_loop(std::shared_ptr<Impl> self,
                                                      std::size_t index) {
  BackOff back_off(200, 5000, static_cast<std::uint64_t>(self->clock.wall_ms()) + index);
  while (!self->stopping) {
    host::Query query = self->subs[index].query;
    query.pods_read = true;
    const bool policies =
        query.kind == Kind::kEgressPolicy || query.kind == Kind::kEgressClusterPolicy;
    if (policies && !self->options.policy_statuses) query.trim = model::policy_without_status;
    std::function<void(StoreEvent)> on_event = [weak = std::weak_ptr<Impl>(self),
                                                index](StoreEvent event) {
      if (const auto impl = weak.lock(); impl && !impl->stopping) {
        impl->on_event(index, std::move(event));
      }
    };
    auto subscription = co_await self->store.subscribe(std::move(query), std::move(on_event));
    if (self->stopping) co_return;
    if (subscription) {
      self->subs[index].handle = std::move(*subscription);
      co_return;
    }
    self->subs[index].trouble = subscription.error().to_string();
    self->connection_changed(self->subs[index].optional ? "" : self->subs[index].trouble);
    const std::int64_t again = self->clock.steady_ms() + back_off.next_ms();
    while (!self->stopping && self->clock.steady_ms() < again) {
      co_await self->subs[index].wakeup->wait(again);
    }
  }
}

// Of the store that a snapshot begins to come from.
bool WorldSync::Impl::is_elsewhere(const std::string& id) {
  const bool other = !id.empty() && !store_id.empty() && id != store_id && options.keeps_store &&
                     options.keeps_store();
  if (!other) store_id = id;
  other_store = other ? id : std::string();
  return other;
}

void WorldSync::Impl::on_event(std::size_t index, StoreEvent event) {
  Sub& sub = subs[index];
  const Kind kind = sub.query.kind;
  if (event.type == StoreEvent::Type::kSnapshot) sub.elsewhere = is_elsewhere(event.store);
  if (sub.elsewhere && event.type == StoreEvent::Type::kSynced) {
    sub.connected = false;
    sub.trouble = "another store (" + other_store + ") answers in place of " + store_id;
    connection_changed("");
  }
  if (sub.elsewhere && event.type != StoreEvent::Type::kDisconnected) return;
  switch (event.type) {
    case StoreEvent::Type::kSnapshot:
      sub.in_snapshot = true;
      sub.prunes = std::exchange(sub.had_snapshot, true);
      sub.seen.clear();
      return;
    case StoreEvent::Type::kUpsert:
      metrics.store_event(kind);
      if (sub.in_snapshot && sub.prunes) sub.seen.insert(event.key);
      if (event.pod) {
        put_pod(event.key, std::move(*event.pod), event.revision, sub.in_snapshot);
      } else {
        upsert(kind, event.key, event.document, event.revision, sub.in_snapshot);
      }
      break;
    case StoreEvent::Type::kDelete:
      metrics.store_event(kind);
      sub.seen.erase(event.key);
      erase(kind, event.key, event.revision, false);
      break;
    case StoreEvent::Type::kSynced:
      synced(sub, event.revision);
      break;
    case StoreEvent::Type::kDisconnected:
      sub.connected = false;
      changes.everything |= sub.in_snapshot;  // whose end would have said so
      sub.in_snapshot = false;
      sub.seen.clear();
      sub.trouble = event.message.empty() ? "the state store cannot be reached" : event.message;
      connection_changed(sub.optional ? "" : sub.trouble);  // most clusters lack such a kind
      break;
    case StoreEvent::Type::kRevision:
      break;
  }
  if (!sub.in_snapshot && event.type != StoreEvent::Type::kDisconnected) {
    sub.revision = std::max(sub.revision, event.revision);
    world.revision = std::max(world.revision, event.revision);
  }
  // A snapshot is worth looking at when it is complete, a bookmark never.
  if (!sub.in_snapshot && changes.any() && options.on_change) options.on_change(kind);
}

void WorldSync::Impl::synced(Sub& sub, std::uint64_t revision) {
  if (sub.in_snapshot && sub.prunes) prune(sub);
  sub.in_snapshot = false;
  sub.seen.clear();
  sub.synced_once = true;
  sub.connected = true;
  sub.trouble.clear();
  sub.revision = revision;  // may go back: a store restored from a copy
  if (connected() && !sub.optional) world.revision = revision;
  world.ip_pools_known |= sub.query.kind == Kind::kCalicoIpPool;
  world.service_cidrs_known |= sub.query.kind == Kind::kServiceCidr;
  changes.everything = true;
  connection_changed("");
}

void WorldSync::Impl::connection_changed(const std::string& why) {
  const bool now_connected = connected();
  if (now_connected && connected_since == 0) {
    connected_since = std::max<std::int64_t>(1, clock.steady_ms());
    metrics.store_connected(true);
    last_trouble.clear();
    log.info("connected to the state store", {{"revision", std::to_string(world.revision)}});
  } else if (!now_connected) {
    connected_since = 0;
    metrics.store_connected(false);
    if (!why.empty() && why != last_trouble) {
      last_trouble = why;
      log.warn("state store unavailable, keeping what is known", {{"error", why}});
    }
  }
  if (options.on_change) options.on_change(std::nullopt);
}

// ---- the public face ---------------------------------------------------------------------------

WorldSync::WorldSync(asio::any_io_executor executor, Clock& clock, Logger& log, Metrics& metrics,
                     host::StateStore& store, Options options)
    : impl_(std::make_shared<Impl>(std::move(executor), clock, log, metrics, store,
                                   std::move(options))) {}

WorldSync::~WorldSync() { stop(); }

void WorldSync::start() {
  for (std::size_t i = 0; i < impl_->subs.size(); ++i) {
    spawn(impl_->executor, Impl::subscribe_loop(impl_, i));
  }
}

void WorldSync::stop() {
  impl_->stopping = true;
  impl_->options.on_change = nullptr;
  for (auto& sub : impl_->subs) {
    sub.handle.reset();
    sub.wakeup->notify();
  }
}

const model::World& WorldSync::world() const { return impl_->world; }
bool WorldSync::pending() const { return impl_->changes.any(); }

model::Changes WorldSync::take_changes() {
  auto taken = std::exchange(impl_->changes, {});
  unique_sorted(taken.pods);
  unique_sorted(taken.namespaces);
  return taken;
}

bool WorldSync::synced() const {
  return std::all_of(impl_->subs.begin(), impl_->subs.end(),
                     [](const auto& sub) { return sub.synced_once || sub.optional; });
}
bool WorldSync::connected() const { return impl_->connected(); }
std::int64_t WorldSync::connected_since_ms() const { return impl_->connected_since; }

const std::string& WorldSync::store_id() const { return impl_->store_id; }
void WorldSync::expect_store(std::string id) { impl_->store_id = std::move(id); }
const std::string& WorldSync::other_store() const { return impl_->other_store; }

std::string WorldSync::trouble() const {
  for (const auto& sub : impl_->subs) {
    if (!sub.connected && !sub.optional) return sub.trouble;
  }
  return "";
}

std::vector<std::pair<Kind, std::string>> WorldSync::behind() const {
  std::vector<std::pair<Kind, std::string>> out;
  bool some = false;
  for (const auto& sub : impl_->subs) {
    if (sub.optional) continue;
    some |= sub.connected;
    if (!sub.connected) out.emplace_back(sub.query.kind, sub.trouble);
  }
  if (!some) out.clear();
  return out;
}

std::uint64_t WorldSync::revision(Kind kind) const {
  for (const auto& sub : impl_->subs) {
    if (sub.query.kind == kind) return sub.revision;
  }
  return 0;
}

void WorldSync::adopt(Kind kind, const host::StoredObject& object) {
  const auto meta = model::decode_meta(object.document);
  if (!meta) return;
  if (!impl_->other_store.empty()) return;
  if (!impl_->synced_once(kind)) return;  // the first snapshot says what is true of it
  // Events may have overtaken the answer: what they said of this revision stands, a deletion above
  // all, which leaves nothing to compare with. A document on its way out needs its last event.
  if (object.revision <= revision(kind)) return;
  if (meta->deleted_ms != 0 && meta->finalizers.empty()) return;
  impl_->adopting = true;
  impl_->upsert(kind, meta->key(), object.document, object.revision, false);
  impl_->adopting = false;
}

std::uint64_t WorldSync::external_changes() const { return impl_->external; }

}  // namespace egw::runtime
