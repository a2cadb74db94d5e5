// plan(): the passes in their order, and the order of the writes.
#include "egw/core/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "egw/core/plan_parts.hpp"

namespace egw::core {
namespace {

using model::Kind;
using parts::Draft;
using parts::GatewayDraft;

constexpr std::int64_t kUninstallMs = std::int64_t{10} * 60'000;

// Somebody with a newer term has been here: this process is no longer the leader, whatever it
// thinks.
bool deposed(Draft& d) {
  const auto newer = [&](Kind kind, const std::string& name, std::uint64_t term) {
    if (term <= d.in.term) return false;
    d.notice(Notice::Level::kWarning, kind, {"", name}, "StaleTerm",
             fmt::format("a leader of term {} has written here; this one has term {} and writes "
                         "nothing",
                         term, d.in.term));
    return true;
  };
  for (const auto& [name, info] : d.world.cluster_infos) {
    if (newer(Kind::kEgressClusterInfo, name, info.status.term)) return true;
  }
  for (const auto& [name, gateway] : d.world.gateways) {
    if (newer(Kind::kEgressGateway, name, gateway.status.term)) return true;
  }
  return false;
}

// A new leader's term stands on every gateway that a former one has written before
// anything moves, so that nothing which that one still has under way can follow a move.
bool stamp_gateways(Draft& d) {
  for (const auto& [name, gateway] : d.world.gateways) {
    if (gateway.status.term == 0 || gateway.status.term >= d.in.term) continue;
    if (d.in.refused.contains(name)) continue;  // nothing of it moves until the store takes it
    model::EgressGateway stamped = gateway;
    stamped.status.term = d.in.term;
    d.out.writes.emplace_back(WriteGateway{std::move(stamped)});
  }
  return !d.out.writes.empty();
}

// `egw uninstall` is under way: agents take their nodes out of service, and nothing is to follow
// from that. It is over when a controller has begun since (this is an installation again), or when
// nobody has gone on with it: then the request is taken off.
bool uninstalling(Draft& d) {
  if (d.info == nullptr) return false;
  const model::ObjectMeta& meta = d.info->meta;
  const auto request = meta.annotations.find(std::string(model::kUninstallAnnotation));
  if (request == meta.annotations.end()) return false;
  const auto asked = model::parse_time(request->second);
  const std::int64_t until = asked ? *asked + kUninstallMs : 0;
  if (asked && *asked >= d.in.started_wall_ms && d.in.wall_ms < until) {
    d.out.wake_ms = d.in.now_ms + until - d.in.wall_ms;
    return true;
  }
  SetMeta set{Kind::kEgressClusterInfo, meta.key(), meta.revision, meta.finalizers,
              meta.annotations};
  set.annotations.erase(std::string(model::kUninstallAnnotation));
  d.out.writes.emplace_back(std::move(set));
  d.notice(
      Notice::Level::kWarning, Kind::kEgressClusterInfo, meta.key(), "UninstallOver",
      fmt::format("the uninstall asked for at {} is over: {}; nodes are programmed again",
                  request->second,
                  !asked                          ? "that is no time"
                  : *asked < d.in.started_wall_ms ? "a controller has started since"
                                                  : "it was not completed within ten minutes"));
  return true;
}

// Another controller asks whether somebody leads (runtime/dispute.hpp).
void answer(Draft& d) {
  if (d.info == nullptr) return;
  const model::ObjectMeta& meta = d.info->meta;
  SetMeta set{Kind::kEgressClusterInfo, meta.key(), meta.revision, meta.finalizers,
              meta.annotations};
  if (set.annotations.erase(std::string(model::kWhoLeadsAnnotation)) == 0) return;
  d.metas.emplace_back(std::move(set));
}

void append(std::vector<Write>& to, std::vector<Write>& from) {
  std::move(from.begin(), from.end(), std::back_inserter(to));
}

// Gateways that differ, those that move something first.
void append_gateways(std::vector<Write>& to, std::vector<GatewayDraft>& drafts, bool ids_changed) {
  for (const bool moved : {true, false}) {
    for (GatewayDraft& g : drafts) {
      if (!g.differs || g.ids_changed != ids_changed || g.moved != moved) continue;
      model::EgressGateway gateway = *g.gateway;
      gateway.status = std::move(g.status);
      to.emplace_back(WriteGateway{std::move(gateway)});
    }
  }
}

Plan ordered(Draft& d) {
  std::vector<Write>& writes = d.out.writes;
  append(writes, d.creates);
  append(writes, d.tunnels);
  append_gateways(writes, d.gateways, false);  // a failover waits for nothing else
  append(writes, d.infos_first);               // an id is in the books before it is used
  append_gateways(writes, d.gateways, true);
  append(writes, d.infos_last);
  append(writes, d.metas);
  append(writes, d.policies);
  return std::move(d.out);
}

}  // namespace

void observe(PlanInput& input) {
  const model::World& world = *input.world;
  for (const auto& [name, tunnel] : world.tunnels) {
    const auto [it, first] = input.heartbeats.try_emplace(name);
    HeartbeatSeen& seen = it->second;
    // Made anew, and nobody has reported yet: its predecessor's counts.
    if (tunnel.status.last_heartbeat_ms == 0 && input.former.contains(name)) continue;
    if (!first && seen.value_ms == tunnel.status.last_heartbeat_ms) continue;
    seen = {tunnel.status.last_heartbeat_ms, input.now_ms, !first};
  }
  std::erase_if(input.former, [&](const auto& f) {
    const auto now = world.tunnels.find(f.first);
    return !world.nodes.contains(f.first) ||
           (now != world.tunnels.end() && !parts::is_blank(now->second));
  });
  std::erase_if(input.heartbeats, [&](const auto& h) {
    return !world.tunnels.contains(h.first) && !input.former.contains(h.first);
  });

  std::map<MovingEip, std::int64_t> moving;
  decltype(input.unserved) unserved;
  // What was there before keeps its time.
  const auto since = [&](const auto& known, const auto& key, std::int64_t otherwise) {
    const auto it = known.find(key);
    return it == known.end() ? otherwise : it->second;
  };
  const auto note_unserved = [&](const std::string& gateway, const model::EipStatus& eip) {
    if (eip.unserved_since_ms == 0) return;
    const std::int64_t age = std::max<std::int64_t>(0, input.wall_ms - eip.unserved_since_ms);
    const std::pair key{gateway, eip.id};
    unserved[key] = since(input.unserved, key, input.now_ms - age);
  };
  std::unordered_map<std::string, std::uint64_t> calm;
  for (const auto& [name, gateway] : world.gateways) {
    const auto known = input.calm.find(name);
    if (known != input.calm.end() && known->second == gateway.meta.revision) {
      calm.insert(input.calm.extract(known));
      continue;
    }
    bool is_calm = gateway.meta.revision != 0;
    for (const model::GatewayNode& node : gateway.status.node_list) {
      for (const model::EipStatus& eip : node.eips) {
        note_unserved(name, eip);
        is_calm = is_calm && eip.unserved_since_ms == 0;
        if (eip.moving_from.empty()) continue;
        const MovingEip key{name, eip.id, eip.epoch};
        moving[key] = since(input.moving, key, input.now_ms);
        is_calm = false;
      }
    }
    for (const model::EipStatus& eip : gateway.status.unplaced) note_unserved(name, eip);
    is_calm = is_calm && gateway.status.unplaced.empty();
    if (is_calm) calm.emplace(name, gateway.meta.revision);
  }
  input.calm = std::move(calm);
  input.moving = std::move(moving);
  input.unserved = std::move(unserved);
}

Plan plan(const PlanInput& input, PlanMemory* memory) {
  Draft d(input, memory);
  if (deposed(d) || stamp_gateways(d)) return std::move(d.out);
  const auto info = d.world.cluster_infos.find(std::string(model::kClusterInfoName));
  if (info != d.world.cluster_infos.end()) d.info = &info->second;

  if (uninstalling(d)) return std::move(d.out);

  parts::look_at_nodes(d);
  if (d.info !=
      nullptr) {  // ids have no memory without it: created first, gateways in the next plan
    parts::look_at_prefixes(d);
    parts::look_at_taken(d);
    parts::recall(d);
    d.ids.load(d.world, *d.info, d.min_realised);
    parts::draft_gateways(d);
    parts::allocate(d);
    parts::read_requests(d);
    parts::place(d);
    parts::finish_gateways(d);
    parts::finish_policies(d);
    parts::remember(d);
  }
  parts::finish_tunnels(d);
  parts::finish_cluster_infos(d);
  answer(d);
  return ordered(d);
}

// The last beats of nodes that stop together lie up to one period apart; half a period for delays.
// At least one beat has been missed.
std::int64_t doubtful_silence_ms(const model::Settings& settings) {
  const std::int64_t margin = settings.tunnel_update_period.count() * 3 / 2;
  return std::max(margin, settings.eip_eviction_timeout.count() - margin);
}

namespace parts {

std::string eip_text(const model::EipStatus& eip) {
  if (eip.use_node_ip) return "the node's own address";
  if (eip.ipv4.empty() || eip.ipv6.empty()) return eip.ipv4 + eip.ipv6;
  return eip.ipv4 + "/" + eip.ipv6;
}

}  // namespace parts

std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 10;
  std::string out;
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i) {
    if (i != 0) out += ", ";
    out += names[i];
  }
  if (names.size() > kShown) out += fmt::format(" and {} more", names.size() - kShown);
  return out;
}

}  // namespace egw::core
