// Store events to World and Changes (world_sync.hpp).
#include "egw/runtime/world_sync.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <set>
#include <utility>

#include "egw/model/codec.hpp"
#include "egw/model/policy_text.hpp"
#include "egw/runtime/spawn.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
using host::StoreEvent;
using model::Key;
using model::Kind;

namespace {

struct Sub {
  host::Query query;
  std::unique_ptr<host::Subscription> handle;
  std::unique_ptr<Wakeup> wakeup;
  std::set<Key> seen;  // named by the snapshot in progress; empty in the first
  bool optional = false;
  bool in_snapshot = false;
  bool elsewhere = false;     // another store answers, whose content is not taken
  bool had_snapshot = false;  // one has begun: something may be known that the next does not name
  bool prunes = false;        // the snapshot in progress
  bool synced_once = false;
  bool connected = false;
  std::uint64_t revision = 0;
  std::string trouble = "waiting for the first answer";
};

const std::string& map_name(const Key& key, const std::string*) { return key.name; }
const Key& map_name(const Key& key, const Key*) { return key; }

// A stored version of the same object that is at least as new: an event that was overtaken.
template <class R>
bool is_stale(const R& known, std::uint64_t revision, bool in_snapshot) {
  if (revision == 0 || in_snapshot) return false;
  return known.meta.revision >= revision;
}

// An object whose status cannot be read in part: what was last known of the status stays in force,
// or else what can be read of it. An EgressTunnel's is several writers' and brings the heartbeat:
// what can be read counts. False: the last good version stays, as the status is nobody's here.
template <class R, class Known>
bool mend(R& now, const Known* known) {
  if constexpr (requires { now.status_damaged; }) {
    if constexpr (!std::is_same_v<R, model::EgressTunnel>) {
      if (known != nullptr) {
        now.status = known->status;
        now.unknown_status = known->unknown_status;
      }
    }
    return true;
  } else {
    return known == nullptr;
  }
}

// The same but for the status.
bool same_policy(const model::EgressPolicy& a, const model::EgressPolicy& b) {
  return a.meta.uid == b.meta.uid && a.meta.created_ms == b.meta.created_ms &&
         a.meta.deleted_ms == b.meta.deleted_ms && a.spec == b.spec &&
         a.is_refused() == b.is_refused();
}

// Where an object of that name is, or would be put. A snapshot brings most in their order.
template <class Map>
typename Map::iterator place_of(Map& map, const typename Map::key_type& name) {
  if (map.empty() || std::prev(map.end())->first < name) return map.end();
  return map.lower_bound(name);
}

void unique_sorted(std::vector<Key>& keys) {
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
}
void unique_sorted(std::vector<std::string>& names) {
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
}

}  // namespace

struct WorldSync::Impl : std::enable_shared_from_this<Impl> {
  asio::any_io_executor executor;
  Clock& clock;
  Logger& log;
  Metrics& metrics;
  host::StateStore& store;
  Options options;
  model::World world;
  model::Changes changes;
  std::vector<Sub> subs;
  std::int64_t connected_since = 0;
  std::uint64_t external = 0;  // changes that came as events
  bool adopting = false;
  bool stopping = false;
  std::string last_trouble;
  std::string store_id, other_store;

  Impl(asio::any_io_executor the_executor, Clock& the_clock, Logger& the_log, Metrics& the_metrics,
       host::StateStore& the_store, Options the_options)
      : executor(std::move(the_executor)),
        clock(the_clock),
        log(the_log),
        metrics(the_metrics),
        store(the_store),
        options(std::move(the_options)) {
    for (const auto* list : {&options.queries, &options.optional_queries}) {
      for (const auto& query : *list) {
        Sub sub;
        sub.query = query;
        sub.optional = list == &options.optional_queries;
        sub.wakeup = std::make_unique<Wakeup>(executor, clock);
        subs.push_back(std::move(sub));
      }
    }
  }

  [[nodiscard]] bool synced_once(Kind kind) const {
    return std::any_of(subs.begin(), subs.end(), [kind](const Sub& sub) {
      return sub.query.kind == kind && sub.synced_once;
    });
  }
  [[nodiscard]] bool connected() const {
    return std::all_of(subs.begin(), subs.end(),
                       [](const Sub& sub) { return sub.connected || sub.optional; });
  }

  static asio::awaitable<void> subscribe_loop(std::shared_ptr<Impl> self, std::size_t index);
  void on_event(std::size_t index, StoreEvent event);
  [[nodiscard]] bool is_elsewhere(const std::string& id);
  void synced(Sub& sub, std::uint64_t revision);
  void prune(Sub& sub);
  void connection_changed(const std::string& why);
  void upsert(Kind kind, const Key& key, const nlohmann::json& document, std::uint64_t revision,
              bool in_snapshot);
  void erase(Kind kind, const Key& key, std::uint64_t revision, bool pruned);
  void mark(Kind kind, const Key& key, bool in_snapshot = false);

  template <class R, class Map>
  void put(Map& map, Kind kind, const Key& key, const nlohmann::json& document,
           std::uint64_t revision, bool in_snapshot);
  template <class R, class Map>
  void keep(Map& map, typename Map::iterator place, Kind kind, const Key& key, R now,
            std::uint64_t revision, bool in_snapshot);
  void put_pod(const Key& key, model::Pod pod, std::uint64_t revision, bool in_snapshot);
  template <class Map>
  void drop(Map& map, Kind kind, const Key& key, std::uint64_t revision, bool pruned);
  void bad_object(Kind kind, const Key& key, const std::string& why);
  void damaged_status(Kind kind, const Key& key, const std::string& why);
};

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

void WorldSync::Impl::prune(Sub& sub) {
  std::vector<Key> gone;
  const auto collect = [&](const auto& map) {
    for (const auto& [name, object] : map) {
      if (!sub.seen.contains(object.meta.key())) gone.push_back(object.meta.key());
    }
  };
  switch (sub.query.kind) {
    case Kind::kEgressGateway:
      collect(world.gateways);
      for (const auto& [name, gateway] : world.unreadable_gateways) {
        if (!sub.seen.contains({"", name})) gone.push_back({"", name});
      }
      break;
    case Kind::kEgressPolicy:
    case Kind::kEgressClusterPolicy:
      for (const auto& [key, policy] : world.policies) {
        const bool cluster_wide = sub.query.kind == Kind::kEgressClusterPolicy;
        if (key.ns.empty() == cluster_wide && !sub.seen.contains(key)) gone.push_back(key);
      }
      break;
    case Kind::kEgressTunnel:
      collect(world.tunnels);
      break;
    case Kind::kEgressClusterInfo:
      collect(world.cluster_infos);
      break;
    case Kind::kNode:
      collect(world.nodes);
      break;
    case Kind::kNamespace:
      collect(world.namespaces);
      break;
    case Kind::kPod:
      collect(world.pods);
      break;
    case Kind::kCalicoIpPool:
      collect(world.ip_pools);
      break;
    case Kind::kServiceCidr:
      collect(world.service_cidrs);
      break;
    case Kind::kEgressEndpointSlice:
    case Kind::kEgressClusterEndpointSlice:
    case Kind::kEvent:
      break;
  }
  for (const auto& key : gone) erase(sub.query.kind, key, 0, true);
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

// ---- objects -----------------------------------------------------------------------------------

// What a snapshot brings is not named: at its end everything counts as changed.
void WorldSync::Impl::mark(Kind kind, const Key& key, bool in_snapshot) {
  if (!adopting) ++external;
  if (in_snapshot) return;
  switch (kind) {
    case Kind::kEgressGateway:
      changes.gateways = true;
      break;
    case Kind::kEgressPolicy:
    case Kind::kEgressClusterPolicy:
      changes.policies = true;
      break;
    case Kind::kEgressTunnel:
      changes.tunnels = true;
      break;
    case Kind::kEgressClusterInfo:
    case Kind::kCalicoIpPool:
    case Kind::kServiceCidr:
      changes.cluster_infos = true;
      break;
    case Kind::kNode:
      changes.nodes = true;
      break;
    case Kind::kNamespace:
      changes.namespaces.push_back(key.name);
      break;
    case Kind::kPod:
      changes.pods.push_back(key);
      break;
    default:
      break;
  }
}

void WorldSync::Impl::bad_object(Kind kind, const Key& key, const std::string& why) {
  metrics.decode_error(kind);
  log.error("skipping an object that cannot be read; its last good version stays in force",
            {{"kind", model::info(kind).kind}, {"object", key.to_string()}, {"error", why}});
}

void WorldSync::Impl::damaged_status(Kind kind, const Key& key, const std::string& why) {
  metrics.decode_error(kind);
  log.error("a part of an object's status cannot be read; the leader writes the status anew",
            {{"kind", model::info(kind).kind}, {"object", key.to_string()}, {"error", why}});
}

template <class R, class Map>
void WorldSync::Impl::put(Map& map, Kind kind, const Key& key, const nlohmann::json& document,
                          std::uint64_t revision, bool in_snapshot) {
  using MapKey = typename Map::key_type;
  const MapKey& name = map_name(key, static_cast<MapKey*>(nullptr));
  const auto known = map.find(name);
  if (known != map.end() && is_stale(known->second, revision, in_snapshot)) return;
  std::vector<Error> damage;
  auto decoded = model::decode_stored<R>(document, damage);
  if constexpr (std::is_same_v<R, model::EgressGateway>) {
    if (decoded) {
      world.unreadable_gateways.erase(name);
    } else if (known == map.end()) {
      std::vector<Error> told;
      world.unreadable_gateways[name] = model::decode<R>(document, told);
      mark(kind, key, in_snapshot);
    }
  }
  if (!decoded) {
    bad_object(kind, key, decoded.error().to_string());
    return;
  }
  if (!damage.empty() && !mend(*decoded, known == map.end() ? nullptr : &known->second)) {
    bad_object(kind, key, damage.front().to_string());
    return;
  }
  if (!damage.empty()) damaged_status(kind, key, damage.front().to_string());
  const auto place = known == map.end() ? place_of(map, name) : known;
  keep(map, place, kind, key, std::move(*decoded), revision, in_snapshot);
}

void WorldSync::Impl::put_pod(const Key& key, model::Pod pod, std::uint64_t revision,
                              bool in_snapshot) {
  const auto place = place_of(world.pods, key);
  const bool known = place != world.pods.end() && place->first == key;
  if (known && is_stale(place->second, revision, in_snapshot)) return;
  keep(world.pods, place, Kind::kPod, key, std::move(pod), revision, in_snapshot);
}

// place: see place_of().
template <class R, class Map>
void WorldSync::Impl::keep(Map& map, typename Map::iterator place, Kind kind, const Key& key, R now,
                           std::uint64_t revision, bool in_snapshot) {
  using MapKey = typename Map::key_type;
  const MapKey& name = map_name(key, static_cast<MapKey*>(nullptr));
  auto* known = place != map.end() && place->first == name ? &place->second : nullptr;
  if (revision != 0) now.meta.revision = revision;
  if constexpr (std::is_same_v<R, model::Pod> || std::is_same_v<R, model::Node> ||
                std::is_same_v<R, model::Namespace>) {
    now.meta.annotations.clear();  // large, many, and others' business
  }
  bool matters = true;
  if constexpr (std::is_same_v<R, model::EgressTunnel>) {
    if (options.tunnel_gone && known != nullptr && known->meta.uid != now.meta.uid) {
      options.tunnel_gone(*known);
    }
    if (options.tunnel_matters) {
      matters = options.tunnel_matters(known, now);
    }
  }
  if constexpr (std::is_base_of_v<model::EgressPolicy, R>) {
    if (!options.policy_statuses) {
      // Of the status the agent needs one word, and that for NodeIP alone.
      const bool refused =
          now.spec.failure_policy == model::FailurePolicy::kNodeIp && now.is_refused();
      now.status = {};
      if (refused) now.status.conditions.push_back({"Allocated", false, "", "", 0});
      now.unknown_status.clear();
      now.status_damaged = false;
      now.meta.annotations = model::Labels();  // kubectl keeps a copy of the spec there
      matters = known == nullptr || !same_policy(*known, now);
    }
  }
  if (known == nullptr) {
    map.emplace_hint(place, name, std::move(now));
  } else {
    *known = std::move(now);
  }
  if (matters) mark(kind, key, in_snapshot);
}

template <class Map>
void WorldSync::Impl::drop(Map& map, Kind kind, const Key& key, std::uint64_t revision,
                           bool pruned) {
  using MapKey = typename Map::key_type;
  const MapKey& name = map_name(key, static_cast<MapKey*>(nullptr));
  const auto known = map.find(name);
  if (known == map.end()) return;
  // Made anew since: the delete belongs to its predecessor.
  if (!pruned && revision != 0 && known->second.meta.revision > revision) return;
  if constexpr (std::is_same_v<typename Map::mapped_type, model::EgressTunnel>) {
    if (options.tunnel_gone) options.tunnel_gone(known->second);
  }
  map.erase(known);
  mark(kind, key);
}

void WorldSync::Impl::upsert(Kind kind, const Key& key, const nlohmann::json& document,
                             std::uint64_t revision, bool in_snapshot) {
  try {
    switch (kind) {
      case Kind::kEgressGateway:
        put<model::EgressGateway>(world.gateways, kind, key, document, revision, in_snapshot);
        break;
      case Kind::kEgressPolicy:
        put<model::EgressPolicy>(world.policies, kind, key, document, revision, in_snapshot);
        break;
      case Kind::kEgressClusterPolicy:
        put<model::EgressClusterPolicy>(world.policies, kind, key, document, revision, in_snapshot);
        break;
      case Kind::kEgressTunnel:
        put<model::EgressTunnel>(world.tunnels, kind, key, document, revision, in_snapshot);
        break;
      case Kind::kEgressClusterInfo:
        put<model::EgressClusterInfo>(world.cluster_infos, kind, key, document, revision,
                                      in_snapshot);
        break;
      case Kind::kNode:
        put<model::Node>(world.nodes, kind, key, document, revision, in_snapshot);
        break;
      case Kind::kNamespace:
        put<model::Namespace>(world.namespaces, kind, key, document, revision, in_snapshot);
        break;
      case Kind::kPod:
        put<model::Pod>(world.pods, kind, key, document, revision, in_snapshot);
        break;
      case Kind::kCalicoIpPool:
        put<model::CalicoIpPool>(world.ip_pools, kind, key, document, revision, in_snapshot);
        break;
      case Kind::kServiceCidr:
        put<model::ServiceCidr>(world.service_cidrs, kind, key, document, revision, in_snapshot);
        break;
      case Kind::kEgressEndpointSlice:
      case Kind::kEgressClusterEndpointSlice:
      case Kind::kEvent:
        break;
    }
  } catch (const std::exception& error) {
    bad_object(kind, key, error.what());
  }
}

void WorldSync::Impl::erase(Kind kind, const Key& key, std::uint64_t revision, bool pruned) {
  switch (kind) {
    case Kind::kEgressGateway:
      if (world.unreadable_gateways.erase(key.name) > 0) mark(kind, key);
      return drop(world.gateways, kind, key, revision, pruned);
    case Kind::kEgressPolicy:
    case Kind::kEgressClusterPolicy:
      return drop(world.policies, kind, key, revision, pruned);
    case Kind::kEgressTunnel:
      return drop(world.tunnels, kind, key, revision, pruned);
    case Kind::kEgressClusterInfo:
      return drop(world.cluster_infos, kind, key, revision, pruned);
    case Kind::kNode:
      return drop(world.nodes, kind, key, revision, pruned);
    case Kind::kNamespace:
      return drop(world.namespaces, kind, key, revision, pruned);
    case Kind::kPod:
      return drop(world.pods, kind, key, revision, pruned);
    case Kind::kCalicoIpPool:
      return drop(world.ip_pools, kind, key, revision, pruned);
    case Kind::kServiceCidr:
      return drop(world.service_cidrs, kind, key, revision, pruned);
    case Kind::kEgressEndpointSlice:
    case Kind::kEgressClusterEndpointSlice:
    case Kind::kEvent:
      return;
  }
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
                     [](const Sub& sub) { return sub.synced_once || sub.optional; });
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
