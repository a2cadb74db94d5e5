// EgressClusterInfo: the cluster's own prefixes, the memory of egress ids, the
// state of suspicion (18), and the peer table in shards (29).
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <utility>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

using model::EgressClusterInfo;
using model::Kind;
using model::PeerInfo;
using Addresses = EgressClusterInfo::Addresses;

constexpr std::string_view kShardPrefix = "peers-";

// N of "peers-N", 0 for "default"; -1: none of ours.
int shard_number(const std::string& name) {
  if (name == model::kClusterInfoName) return 0;
  if (name.rfind(kShardPrefix, 0) != 0) return -1;
  int n = 0;
  const char* from = name.data() + kShardPrefix.size();
  const char* to = name.data() + name.size();
  const auto [end, ec] = std::from_chars(from, to, n);
  return ec == std::errc{} && end == to && n >= 1 && *from != '0' ? n : -1;
}

std::string shard_name(int n) {
  return n == 0 ? std::string(model::kClusterInfoName) : fmt::format("{}{}", kShardPrefix, n);
}

// ---- prefixes --------------------------------------------------------------------------------

// Sorted into families, canonical; what does not parse is left out.
Addresses sort_prefixes(const std::vector<std::string>& texts) {
  Addresses out;
  for (const std::string& text : texts) {
    const auto prefix = model::Prefix::parse(text);
    if (!prefix) continue;
    (prefix->address().is_v4() ? out.ipv4 : out.ipv6).push_back(prefix->to_string());
  }
  return out;
}

Addresses sort_addresses(const std::vector<std::string>& texts) {
  Addresses out;
  for (const std::string& text : texts) {
    const auto address = model::Address::parse(text);
    if (!address) continue;
    (address->is_v4() ? out.ipv4 : out.ipv6).push_back(address->to_string());
  }
  return out;
}

// Of Calico's pools those that name no prefix: Calico gives no pod an address of theirs.
std::vector<std::string> unusable_pools(const model::World& world) {
  std::vector<std::string> out;
  for (const auto& [name, pool] : world.ip_pools) {
    if (sort_prefixes(pool.cidrs) == Addresses{}) out.push_back(name);
  }
  return out;
}

std::string why_unknown(const Draft& d) {
  if (d.own.prefixes_known()) return {};
  const std::vector<std::string> unusable = unusable_pools(d.world);
  return fmt::format(
      "podCidrMode is calico and {}: which addresses are pods' is not known, and policies with an "
      "empty destSubnet wait; {}, or set spec.autoDetect.podCidrMode of EgressClusterInfo default "
      "to k8s",
      unusable.empty() ? "no IPPool is there"
                       : fmt::format("no IPPool has a valid spec.cidr ({})", some_of(unusable)),
      unusable.empty() ? "make Calico's IPPools readable" : "mend spec.cidr");
}

void find_prefixes(Draft& d) {
  const EgressClusterInfo& info = *d.info;
  EgressClusterInfo::Status& s = d.own;
  s.present = true;
  s.pod_cidr_mode = info.status.pod_cidr_mode;
  s.pod_cidr = info.status.pod_cidr;
  s.cluster_ip = info.status.cluster_ip;
  const std::string& mode = info.spec.pod_cidr_mode;
  const model::World& w = d.world;
  // Until the pools are read, a new leader goes on with what its predecessor has found: nothing
  // that is the cluster's own may look foreign for a moment.
  const bool was_calico = s.pod_cidr_mode == "calico";
  const bool calico = w.ip_pools_known ? !w.ip_pools.empty() : was_calico;
  s.pod_cidr_mode = mode != "auto" ? mode : calico ? "calico" : "k8s";
  const bool keep = was_calico && s.pod_cidr_mode == "calico" && !w.ip_pools_known;
  if (!keep) s.pod_cidr.clear();
  if (s.pod_cidr_mode == "calico") {
    for (const auto& [name, pool] : w.ip_pools) s.pod_cidr[name] = sort_prefixes(pool.cidrs);
  }
  for (const auto& [name, node] : d.world.nodes) {
    if (s.pod_cidr_mode == "k8s" && !node.pod_cidrs.empty()) {
      s.pod_cidr.emplace(name, sort_prefixes(node.pod_cidrs));
    }
    if (info.spec.node_ip && !node.internal_ips.empty()) {
      s.node_ip.emplace(name, sort_addresses(node.internal_ips));
    }
  }
  if (!info.spec.cluster_ip) {
    s.cluster_ip = {};
  } else if (w.service_cidrs_known) {
    std::vector<std::string> cidrs;
    for (const auto& [name, range] : w.service_cidrs) {
      cidrs.insert(cidrs.end(), range.cidrs.begin(), range.cidrs.end());
    }
    s.cluster_ip = sort_prefixes(cidrs);
  }
  std::set<std::string> extra;
  for (const std::vector<std::string>* list :
       {&std::as_const(info.spec.extra_cidr), &d.settings.extra_cidr}) {
    for (const std::string& text : *list) {
      const auto prefix = model::Prefix::parse(text);
      if (prefix) extra.insert(prefix->to_string());
    }
  }
  s.extra_cidr.assign(extra.begin(), extra.end());
}

// ---- peers -----------------------------------------------------------------------------------

std::map<std::string, PeerInfo> peer_rows(const Draft& d) {
  std::map<std::string, PeerInfo> rows;
  for (const NodeView& n : d.nodes) {
    if (n.tunnel == nullptr) continue;
    const model::EgressTunnel::Status& t = n.tunnel->status;
    // Until its agent has said where it is, nobody can send to it.
    if (t.parent.ipv4.empty() && t.parent.ipv6.empty()) continue;
    if (t.ipv4.empty() && t.ipv6.empty()) continue;
    rows.emplace(n.name(), PeerInfo{n.name(), t.parent.ipv4, t.parent.ipv6, t.ipv4, t.ipv6, t.mac,
                                    t.parent.mac, n.node->pod_cidrs, t.parent.macs});
  }
  return rows;
}

struct Shards {
  std::map<int, std::vector<PeerInfo>> rows;  // by shard number, those that exist
  std::size_t homeless = 0;                   // rows for which there is no room yet
};

// A row stays in the shard that it is in, so that one node more is one write; new ones go to the
// first shard with room.
Shards spread_rows(const Draft& d, std::map<std::string, PeerInfo> rows) {
  Shards out;
  std::map<int, const EgressClusterInfo*> objects;
  for (const auto& [name, info] : d.world.cluster_infos) {
    const int n = shard_number(name);
    if (n >= 0 && info.meta.deleted_ms == 0) objects.emplace(n, &info);
  }
  for (const auto& [n, info] : objects) {
    std::vector<PeerInfo>& here = out.rows[n];
    for (const PeerInfo& old : info->status.peers) {
      const auto row = rows.find(old.name);
      if (row == rows.end() || here.size() == kPeersPerShard) continue;
      here.push_back(std::move(row->second));
      rows.erase(row);
    }
  }
  auto shard = out.rows.begin();
  for (auto& [name, row] : rows) {
    while (shard != out.rows.end() && shard->second.size() >= kPeersPerShard) ++shard;
    if (shard == out.rows.end()) {
      ++out.homeless;
    } else {
      shard->second.push_back(std::move(row));
    }
  }
  for (auto& [n, peers] : out.rows) {
    std::sort(peers.begin(), peers.end(),
              [](const PeerInfo& a, const PeerInfo& b) { return a.name < b.name; });
  }
  return out;
}

void make_shards(Draft& d, const Shards& shards) {
  std::size_t homeless = shards.homeless;
  for (int n = 1; homeless > 0; ++n) {
    if (shards.rows.contains(n)) continue;
    d.creates.emplace_back(CreateClusterInfo{shard_name(n), {}});
    homeless -= std::min(homeless, kPeersPerShard);
  }
}

// ---- the object "default" --------------------------------------------------------------------

// Families of which no address is outside the cluster, in words.
std::string nothing_steered(const Draft& d) {
  std::vector<model::Prefix> all;
  const auto add = [&all](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) {
      if (const auto prefix = model::Prefix::parse(text)) all.push_back(*prefix);
    }
  };
  add(d.own.extra_cidr);
  for (const auto& [name, a] : d.own.pod_cidr) {
    add(a.ipv4);
    add(a.ipv6);
  }
  std::string families;
  if (d.settings.enable_ipv4 && model::cover_everything(model::Family::kV4, all)) families = "IPv4";
  if (d.settings.enable_ipv6 && model::cover_everything(model::Family::kV6, all)) {
    families += families.empty() ? "IPv6" : " and IPv6";
  }
  if (families.empty()) return {};
  return fmt::format(
      "the cluster's own prefixes cover every {} address, so no policy steers any such packet: "
      "take what is too wide out of spec.extraCidr, or of feature.clusterCIDR.extraCidr",
      families);
}

void tell_of_prefixes(Draft& d, model::Conditions& conditions) {
  const model::Key key{"", std::string(model::kClusterInfoName)};
  const auto tell = [&](const char* type, const char* reason, std::string message) {
    if (message.empty()) {
      remove_condition(conditions, type);
    } else if (set_condition(conditions, {type, true, reason, message, 0}, d.in.wall_ms)) {
      d.notice(Notice::Level::kWarning, Kind::kEgressClusterInfo, key, type, std::move(message));
    }
  };
  tell("ClusterPrefixesUnknown", "NoUsableIPPool", d.prefixes_unknown);
  tell("NothingSteered", "PrefixesCoverAll", nothing_steered(d));
  const std::vector<std::string> unusable = unusable_pools(d.world);
  const bool some = d.own.pod_cidr_mode == "calico" && d.prefixes_unknown.empty();
  tell("InvalidIPPool", "InvalidCIDR",
       !some || unusable.empty()
           ? std::string()
           : fmt::format("left out, because spec.cidr is no prefix: IPPool {}; mend or delete them",
                         some_of(unusable)));
}

void set_conditions(Draft& d, model::Conditions& conditions) {
  tell_of_prefixes(d, conditions);
  if (d.suspect) {
    set_condition(conditions, {"StoreSuspect", true, "HeartbeatsStopped", d.suspect_message, 0},
                  d.in.wall_ms);
  } else if (const model::Condition* c = find_condition(conditions, "StoreSuspect");
             c != nullptr && c->status != false) {
    set_condition(conditions, {"StoreSuspect", false, "HeartbeatsCome", "heartbeats come again", 0},
                  d.in.wall_ms);
    d.notice(Notice::Level::kInfo, Kind::kEgressClusterInfo,
             {"", std::string(model::kClusterInfoName)}, "StoreTrusted", "heartbeats come again");
  }
  const bool starving = std::any_of(d.gateways.begin(), d.gateways.end(),
                                    [](const GatewayDraft& g) { return g.no_id; });
  if (!starving) {
    remove_condition(conditions, "NoEgressId");
  } else if (set_condition(conditions,
                           {"NoEgressId", true, "Exhausted",
                            fmt::format("all {} egress ids are in use or not yet forgotten by "
                                        "every Ready node; use fewer EIPs or repair nodes that "
                                        "do not report",
                                        kMaxEgressId),
                            0},
                           d.in.wall_ms)) {
    d.notice(Notice::Level::kWarning, Kind::kEgressClusterInfo,
             {"", std::string(model::kClusterInfoName)}, "NoEgressId", "no egress id is free");
  }
}

// Whether nothing differs but the tables of nodes, and they have been written a moment ago.
bool has_to_wait(Draft& d, const EgressClusterInfo& old, const EgressClusterInfo::Status& now) {
  const auto held = d.in.held_infos.find(old.meta.name);
  if (held == d.in.held_infos.end() || held->second <= d.in.now_ms || old.status_damaged) {
    return false;
  }
  EgressClusterInfo::Status tables = old.status;
  tables.peers = now.peers;
  tables.node_ip = now.node_ip;
  tables.pod_cidr = now.pod_cidr;
  if (tables != now) return false;
  d.wake_at(held->second);
  return true;
}

void finish_default(Draft& d, std::vector<PeerInfo> peers) {
  EgressClusterInfo info = *d.info;
  info.status.present = true;
  info.status.term = d.in.term;
  info.status.leader = d.in.identity;
  info.status.peers = std::move(peers);
  info.status.pod_cidr_mode = d.own.pod_cidr_mode;
  info.status.cluster_ip = d.own.cluster_ip;
  info.status.node_ip = d.own.node_ip;
  info.status.pod_cidr = d.own.pod_cidr;
  info.status.extra_cidr = d.own.extra_cidr;
  set_conditions(d, info.status.conditions);
  d.ids.store(info.status, d.ids.exhausted());
  if (info.status == d.info->status && !info.status_damaged) return;
  if (has_to_wait(d, *d.info, info.status)) return;
  d.ids.store(info.status, true);
  d.infos_first.emplace_back(WriteClusterInfo{std::move(info)});
}

}  // namespace

void look_at_prefixes(Draft& d) {
  find_prefixes(d);
  d.prefixes_unknown = why_unknown(d);
}

void finish_cluster_infos(Draft& d) {
  if (d.info == nullptr) {
    EgressClusterInfo::Spec spec;
    spec.pod_cidr_mode = d.settings.pod_cidr_mode;
    spec.cluster_ip = d.settings.detect_cluster_ip;
    spec.node_ip = d.settings.detect_node_ip;
    d.creates.emplace_back(CreateClusterInfo{std::string(model::kClusterInfoName), spec});
    return;
  }
  Shards shards = spread_rows(d, peer_rows(d));
  make_shards(d, shards);
  for (auto& [n, peers] : shards.rows) {
    if (n == 0) {
      finish_default(d, std::move(peers));
      continue;
    }
    const EgressClusterInfo& old = d.world.cluster_infos.at(shard_name(n));
    if (peers.empty() && shards.homeless == 0) {
      // Just created and nothing to put in it, or its nodes have gone.
      d.infos_last.emplace_back(DeleteClusterInfo{old.meta.name});
      continue;
    }
    EgressClusterInfo info = old;
    info.status.present = true;
    info.status.term = d.in.term;
    info.status.peers = std::move(peers);
    if ((info.status != old.status || old.status_damaged) && !has_to_wait(d, old, info.status)) {
      d.infos_last.emplace_back(WriteClusterInfo{std::move(info)});
    }
  }
}

}  // namespace egw::core::parts
