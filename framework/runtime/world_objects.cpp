// What an event does to the World, and to what is told of it as Changes (world_sync.hpp).
#include <algorithm>
#include <iterator>
#include <type_traits>
#include <utility>

#include "egw/model/codec.hpp"
#include "egw/model/policy_text.hpp"
#include "egw/runtime/world_sync_impl.hpp"

namespace egw::runtime {
using model::Key;
using model::Kind;

namespace {

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

constexpr std::size_t kMostNamed = 10'000;  // of one kind's objects in Changes

// All but what is said about it.
bool same_placements(const model::EgressGateway& a, const model::EgressGateway& b) {
  return a.meta.uid == b.meta.uid && a.meta.deleted_ms == b.meta.deleted_ms && a.spec == b.spec &&
         a.status.node_list == b.status.node_list && a.status.unplaced == b.status.unplaced;
}

// A kubelet writes its Node's status all the time: images, volumes, heartbeats.
bool same_node(const model::Node& a, const model::Node& b) {
  return a.meta.uid == b.meta.uid && a.meta.created_ms == b.meta.created_ms &&
         a.meta.deleted_ms == b.meta.deleted_ms && a.meta.labels == b.meta.labels &&
         a.pod_cidrs == b.pod_cidrs && a.internal_ips == b.internal_ips && a.ready == b.ready;
}

// Where an object of that name is, or would be put. A snapshot brings most in their order.
template <class Map>
typename Map::iterator place_of(Map& map, const typename Map::key_type& name) {
  if (map.empty() || std::prev(map.end())->first < name) return map.end();
  return map.lower_bound(name);
}

}  // namespace

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
      if (changes.namespaces.size() == kMostNamed) {  // nobody takes them: it does not lead
        changes.namespaces.clear();
        changes.everything = true;
      }
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
  log.error(model::is_core(kind)
                ? "a part of an object's status cannot be read and counts as not there; "
                  "whoever writes it has to put it right"
                : "a part of an object's status cannot be read; the leader writes the status anew",
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
  if constexpr (std::is_same_v<R, model::Node>) {
    matters = known == nullptr || !same_node(*known, now);
  }
  if constexpr (std::is_same_v<R, model::EgressGateway>) {
    changes.placements |= !in_snapshot && (known == nullptr || !same_placements(*known, now));
  }
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
  if constexpr (std::is_same_v<typename Map::mapped_type, model::EgressGateway>) {
    changes.placements = true;
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

// What the snapshot did not name is gone.
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

}  // namespace egw::runtime
