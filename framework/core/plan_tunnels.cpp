// Nodes and tunnels: one EgressTunnel per Node with its addresses and mark, the phases that are the
// controller's to write, heartbeats, and whether the store itself is to be suspected.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <utility>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

using model::Address;
using model::EgressTunnel;
using model::Family;
using model::IpPool;
using model::Kind;
using model::TunnelPhase;

constexpr std::string_view kSuspect = "StoreSuspect";
constexpr std::string_view kDraining = "Draining";
constexpr std::string_view kReachable = "TunnelReachable";
constexpr std::string_view kNoAddress = "NoTunnelAddress";

// A deleted tunnel is made anew so long after it went: `kubectl delete` waits until it has seen
// that, and may miss it when another one of that name is there at once.
constexpr std::int64_t kMadeAnewMs = 1000;

std::int64_t timeout_ms(const Draft& d) { return d.settings.eip_eviction_timeout.count(); }

// When a suspicion has just ended, heartbeats get a whole timeout to arrive: steady time at which
// it ended, or the beginning of time. The condition's wall clock is this leader's or, after a
// change of leader, covered by watching_since.
std::int64_t suspicion_ended(const Draft& d, bool suspected_now) {
  if (d.info == nullptr) return std::numeric_limits<std::int64_t>::min();
  const model::Condition* c = find_condition(d.info->status.conditions, kSuspect);
  if (c == nullptr) return std::numeric_limits<std::int64_t>::min();
  if (c->status) return suspected_now ? std::numeric_limits<std::int64_t>::min() : d.in.now_ms;
  const std::int64_t age = d.in.wall_ms - c->transition_ms;
  if (age < 0 || age > timeout_ms(d)) return std::numeric_limits<std::int64_t>::min();
  return d.in.now_ms - age;
}

const HeartbeatSeen* seen(const Draft& d, const std::string& node) {
  const auto it = d.in.heartbeats.find(node);
  return it == d.in.heartbeats.end() ? nullptr : &it->second;
}

// The last moment at which the heartbeat still counts as fresh.
std::int64_t deadline(const Draft& d, const std::string& node, std::int64_t not_before) {
  const HeartbeatSeen* s = seen(d, node);
  const std::int64_t changed = s == nullptr ? d.in.watching_since_ms : s->changed_ms;
  return std::max({changed, d.in.watching_since_ms, not_before}) + timeout_ms(d);
}

// More than half of the tunnels that were alive, and at least three, go stale within
// one timeout. Those already declared dead in that time count; those long dead do not. Heartbeats
// that stop together run out up to a period apart: while those that are late would be that many
// together with those that will be late next, nobody is declared dead. That ends by itself: they
// are heard again, or become late.
void judge_store(Draft& d) {
  const bool was_suspect = [&] {
    if (d.info == nullptr) return false;
    const model::Condition* c = find_condition(d.info->status.conditions, kSuspect);
    return c != nullptr && c->status;
  }();
  const std::int64_t grace = suspicion_ended(d, true);
  const std::int64_t silence = doubtful_silence_ms(d.settings);
  std::size_t stale = 0;
  std::size_t silent = 0;
  std::size_t alive = 0;
  for (const NodeView& n : d.nodes) {
    if (n.tunnel == nullptr) continue;
    const std::int64_t end = deadline(d, n.name(), grace);
    const bool late = d.in.now_ms > end;
    if (n.tunnel->status.phase == TunnelPhase::kReady) {
      ++alive;
      stale += late ? 1 : 0;
      silent += !late && d.in.now_ms > end - timeout_ms(d) + silence ? 1 : 0;
    } else if (n.tunnel->status.phase == TunnelPhase::kHeartbeatTimeout && late &&
               d.in.now_ms - end <= timeout_ms(d)) {
      const HeartbeatSeen* s = seen(d, n.name());
      if (s == nullptr || !s->changed_while_watching) continue;
      ++alive;
      ++stale;
    }
  }
  const auto most = [alive](std::size_t count) { return count >= 3 && count * 2 > alive; };
  d.suspect = most(stale);
  d.doubt = !d.suspect && most(stale + silent);
  if (!d.suspect) return;
  d.suspect_message = fmt::format(
      "heartbeats of more than half of the tunnels stopped within {} ms: the state store is more "
      "likely at fault than the nodes; no EIP moves until heartbeats come again",
      timeout_ms(d));
  if (!was_suspect) {
    d.notice(Notice::Level::kWarning, Kind::kEgressClusterInfo,
             {"", std::string(model::kClusterInfoName)}, std::string(kSuspect), d.suspect_message);
  }
}

void set_phase(Draft& d, NodeView& n, TunnelPhase phase) {
  if (n.phase == phase) return;
  n.phase = phase;
  const std::string name(to_string(phase));
  const auto level = phase == TunnelPhase::kInit ? Notice::Level::kInfo : Notice::Level::kWarning;
  d.notice(level, Kind::kEgressTunnel, {"", n.name()}, name, "update tunnel status to " + name);
}

void judge_node(Draft& d, NodeView& n, std::int64_t grace) {
  n.phase = n.tunnel == nullptr ? TunnelPhase::kPending : n.tunnel->status.phase;
  if (n.tunnel != nullptr) {
    if (!d.suspect) {
      if (!n.node->ready) {
        set_phase(d, n, TunnelPhase::kNodeNotReady);
      } else if (n.phase == TunnelPhase::kNodeNotReady) {
        set_phase(d, n, TunnelPhase::kInit);
      }
    }
    if (d.settings.failover && n.phase == TunnelPhase::kReady) {
      const std::int64_t end = deadline(d, n.name(), grace);
      if (d.in.now_ms <= end) {
        d.wake_at(end + kWakeMarginMs);
      } else if (d.suspect || d.doubt) {
        n.stale = true;
      } else {
        set_phase(d, n, TunnelPhase::kHeartbeatTimeout);
      }
    }
    for (const std::string& text : n.tunnel->status.lost_subnets) {
      if (const auto subnet = model::Prefix::parse(text)) n.lost_subnets.push_back(*subnet);
    }
    const auto drain = n.tunnel->meta.annotations.find(std::string(model::kDrainAnnotation));
    n.draining = drain != n.tunnel->meta.annotations.end() && drain->second != "false";
  }
  n.ready = n.node->ready && n.phase == TunnelPhase::kReady;
  // Without failover only the node's own state counts.
  n.lost = !d.suspect && (d.settings.failover ? !n.ready : !n.node->ready);
}

// A gateway that forwards nothing although it says Ready. Its clients ping it through
// the tunnel; when most of them, and at least two, get no answer, it is not Ready. One client alone
// may be at fault itself.
void judge_reach(Draft& d) {
  if (!d.settings.failover || d.suspect) return;
  std::size_t clients = 0;
  std::map<std::string_view, std::size_t> complaints;
  for (const NodeView& n : d.nodes) {
    if (!n.ready) continue;
    if (find_condition(n.tunnel->status.conditions, kReachable) == nullptr) continue;
    ++clients;
    for (const std::string& name : n.tunnel->status.unreachable) ++complaints[name];
  }
  for (const auto& [name, count] : complaints) {
    const int index = d.find_node(name);
    if (index == kNobody || count < 2 || count * 2 <= clients) continue;
    NodeView& n = d.node(index);
    if (!n.ready) continue;
    n.unreachable = true;
    n.ready = false;
    n.lost = true;
    d.notice(Notice::Level::kWarning, Kind::kEgressTunnel, {"", n.name()}, "TunnelUnreachable",
             fmt::format("{} of {} clients get no answer from this gateway through the tunnel",
                         count, clients));
  }
}

// ---- addresses and marks ---------------------------------------------------------------------

// Usable tunnel addresses: neither first nor last of the subnet, for IPv6 too (the first is the
// subnet router's anycast address).
IpPool usable(const model::Prefix& subnet) {
  IpPool pool = IpPool::of(subnet.family(), {{subnet.first(), subnet.last()}});
  const unsigned bits = subnet.address().bits();
  if (bits != 0 && subnet.length() + 2 <= bits) {
    pool.erase(subnet.first());
    pool.erase(subnet.last());
  }
  return pool;
}

// Gives every tunnel an address of the family in `field`: what it has if that is valid and nobody
// with a smaller name has it, else the lowest free one. Returns the tunnels that got none.
void give_addresses(Draft& d, std::vector<EgressTunnel*>& tunnels, Family family, bool enabled,
                    std::set<std::string>& without) {
  const auto field = [family](EgressTunnel& t) -> std::string& {
    return family == Family::kV4 ? t.status.ipv4 : t.status.ipv6;
  };
  if (!enabled) {
    for (EgressTunnel* t : tunnels) field(*t).clear();
    return;
  }
  const model::Prefix& subnet = family == Family::kV4 ? d.settings.tunnel_v4 : d.settings.tunnel_v6;
  const IpPool all = usable(subnet);
  std::set<Address> used;
  std::vector<model::Range> taken;
  std::vector<EgressTunnel*> wanting;
  for (EgressTunnel* t : tunnels) {
    const auto address = Address::parse(field(*t));
    if (address && all.contains(*address) && used.insert(*address).second) {
      taken.push_back({*address, *address});
      field(*t) = address->to_string();
    } else {
      wanting.push_back(t);
    }
  }
  if (wanting.empty()) return;
  IpPool left = all.minus(IpPool::of(family, std::move(taken)));
  for (EgressTunnel* t : wanting) {
    const Address address = left.first();
    field(*t) = address.to_string();
    if (address) {
      left.erase(address);
    } else {
      without.insert(t->meta.name);
    }
  }
}

// The number in "0x26......", 0 when it is not one of ours.
std::uint32_t mark_number(const std::string& mark) {
  std::uint32_t value = 0;
  if (mark.size() != 10 || mark.compare(0, 4, "0x26") != 0) return 0;
  const auto [end, ec] = std::from_chars(mark.data() + 4, mark.data() + 10, value, 16);
  return ec == std::errc{} && end == mark.data() + 10 ? value : 0;
}

void give_marks(std::vector<EgressTunnel*>& tunnels) {
  std::set<std::uint32_t> used;
  std::vector<EgressTunnel*> wanting;
  for (EgressTunnel* t : tunnels) {
    const std::uint32_t n = mark_number(t->status.mark);
    if (n == 0 || !used.insert(n).second) wanting.push_back(t);
  }
  std::uint32_t next = 1;
  for (EgressTunnel* t : wanting) {
    while (!used.insert(next).second) ++next;
    t->status.mark = fmt::format("0x26{:06x}", next);
  }
}

// ---- drain ---------------------------------------------------------------------

// EIPs that a node owns or still answers for, in the store; and those that nobody else can take.
struct Holding {
  std::vector<std::string> eips, stuck;
};

std::vector<Holding> holdings(const Draft& d) {
  std::vector<Holding> out(d.nodes.size());
  if (std::none_of(d.nodes.begin(), d.nodes.end(), [](const auto& n) { return n.draining; })) {
    return out;
  }
  const auto add = [&](const std::string& node, const model::EipStatus& eip, bool stuck) {
    const int index = d.find_node(node);
    if (index == kNobody) return;
    Holding& holding = out[static_cast<std::size_t>(index)];
    holding.eips.push_back(eip_text(eip));
    if (stuck) holding.stuck.push_back(eip_text(eip));
  };
  for (const GatewayDraft& g : d.gateways) {
    for (const model::GatewayNode& n : g.gateway->status.node_list) {
      for (const model::EipStatus& eip : n.eips) {
        add(n.name, eip, best_node(d, g, eip) == kNobody);
        if (!eip.moving_from.empty()) add(eip.moving_from, eip, false);
      }
    }
  }
  return out;
}

// What the drain has come to, as a condition on the tunnel; it goes when the annotation goes.
void answer_drain(const Draft& d, const NodeView& n, const Holding& holding, EgressTunnel& tunnel) {
  model::Conditions& conditions = tunnel.status.conditions;
  if (!n.draining) {
    remove_condition(conditions, model::kDrainedCondition);
    return;
  }
  model::Condition c{std::string(model::kDrainedCondition), holding.eips.empty(), "", "", 0};
  if (holding.eips.empty()) {
    c.reason = "DrainDone";
    c.message = "the node holds no EIP and gets none while the drain annotation is set";
  } else {
    const bool other = holding.stuck.size() < holding.eips.size();
    c.reason = std::string(other ? kDraining : model::kNoOtherReadyNode);
    c.message = other ? "EIPs are being handed over"
                      : fmt::format("no other Ready node can take {}", some_of(holding.stuck));
  }
  set_condition(conditions, std::move(c), d.in.wall_ms);
}

// A tunnel that was made in place of a former one gets what that had. What its agent has reported
// since is newer; without its addresses it can only have called itself Pending.
EgressTunnel in_place_of(const EgressTunnel& former, const EgressTunnel& stored) {
  EgressTunnel out = stored;
  if (out.status.last_heartbeat_ms == 0) out.status = former.status;
  out.status.ipv4 = former.status.ipv4;
  out.status.ipv6 = former.status.ipv6;
  out.status.mark = former.status.mark;
  return out;
}

bool has_finalizer(const model::ObjectMeta& meta) {
  return std::find(meta.finalizers.begin(), meta.finalizers.end(), model::kTunnelFinalizer) !=
         meta.finalizers.end();
}

// So that its deletion is seen by a leader, whenever there is one again.
void add_finalizer(Draft& d, const model::ObjectMeta& meta) {
  std::vector<std::string> finalizers = meta.finalizers;
  finalizers.emplace_back(model::kTunnelFinalizer);
  d.metas.emplace_back(SetMeta{Kind::kEgressTunnel, meta.key(), meta.revision,
                               std::move(finalizers), meta.annotations});
}

// With the tunnel that counts for it; asks for one where there is none.
NodeView view_of(Draft& d, const std::string& name, const model::Node& node) {
  NodeView view;
  view.node = &node;
  const auto tunnel = d.world.tunnels.find(name);
  if (tunnel != d.world.tunnels.end()) view.tunnel = &tunnel->second;
  // Somebody has deleted the tunnel of a node that may well serve: as long as it has been heard.
  const auto former = d.in.former.find(name);
  const bool serves =
      former != d.in.former.end() &&
      (!d.settings.failover || d.in.now_ms <= deadline(d, name, d.in.watching_since_ms));
  const std::int64_t make_at = serves ? former->second.gone_ms + kMadeAnewMs : 0;
  if (view.tunnel == nullptr && d.in.now_ms >= make_at) {
    d.creates.emplace_back(CreateTunnel{name});
  } else if (view.tunnel == nullptr) {
    d.wake_at(make_at);
  }
  if (serves) view.tunnel = &former->second.tunnel;
  return view;
}

}  // namespace

void look_at_nodes(Draft& d) {
  d.nodes.reserve(d.world.nodes.size());
  for (const auto& [name, node] : d.world.nodes) {
    d.node_index.emplace(name, static_cast<int>(d.nodes.size()));
    d.nodes.push_back(view_of(d, name, node));
  }
  for (const auto& [name, tunnel] : d.world.tunnels) {
    if (tunnel.meta.deleted_ms == 0 && !d.node_index.contains(name)) {
      d.creates.emplace_back(DeleteTunnel{name});
    }
    // Being deleted, by us or by hand: nothing of it needs undoing here. Where its Node is, it is
    // made anew (PlanInput::former).
    if (tunnel.meta.deleted_ms != 0) {
      std::vector<std::string> finalizers = tunnel.meta.finalizers;
      if (std::erase(finalizers, model::kTunnelFinalizer) > 0) {
        d.metas.emplace_back(SetMeta{Kind::kEgressTunnel, tunnel.meta.key(), tunnel.meta.revision,
                                     std::move(finalizers), tunnel.meta.annotations});
      }
    }
  }
  if (d.settings.failover) judge_store(d);
  const std::int64_t grace = suspicion_ended(d, d.suspect);
  d.min_realised = std::numeric_limits<std::uint64_t>::max();
  bool any_ready = false;
  for (NodeView& n : d.nodes) {
    judge_node(d, n, grace);
    if (!n.ready) continue;
    any_ready = true;
    d.min_realised = std::min(d.min_realised, n.tunnel->status.realised.revision);
  }
  if (!any_ready) d.min_realised = 0;
  judge_reach(d);
}

void finish_tunnels(Draft& d) {
  std::vector<EgressTunnel> copies;
  copies.reserve(d.nodes.size());
  std::vector<EgressTunnel*> all;
  const std::vector<Holding> held = holdings(d);
  for (std::size_t i = 0; i < d.nodes.size(); ++i) {
    const NodeView& n = d.nodes[i];
    if (n.tunnel == nullptr) continue;
    const auto stored = d.world.tunnels.find(n.name());
    const bool made_anew = stored != d.world.tunnels.end() && n.tunnel != &stored->second;
    EgressTunnel& copy =
        copies.emplace_back(made_anew ? in_place_of(*n.tunnel, stored->second) : *n.tunnel);
    copy.status.phase = n.phase;
    if (d.info != nullptr) answer_drain(d, n, held[i], copy);
    all.push_back(&copy);
  }
  std::set<std::string> without;
  give_addresses(d, all, Family::kV4, d.settings.enable_ipv4, without);
  give_addresses(d, all, Family::kV6, d.settings.enable_ipv6, without);
  give_marks(all);
  for (EgressTunnel& t : copies) {
    if (!without.contains(t.meta.name)) {
      remove_condition(t.status.conditions, kNoAddress);
    } else if (set_condition(t.status.conditions,
                             {std::string(kNoAddress), true, "SubnetExhausted",
                              "the tunnel subnet has no free address; enlarge "
                              "feature.tunnelIpv4Subnet or feature.tunnelIpv6Subnet",
                              0},
                             d.in.wall_ms)) {
      d.notice(Notice::Level::kWarning, Kind::kEgressTunnel, t.meta.key(), std::string(kNoAddress),
               "the tunnel subnet has no free address");
    }
    const auto stored = d.world.tunnels.find(t.meta.name);
    if (stored == d.world.tunnels.end()) continue;  // to be made first
    const bool deleted = stored->second.meta.deleted_ms != 0;
    const bool guarded = has_finalizer(stored->second.meta);
    if (deleted && guarded) continue;  // look_at_nodes() lets it go
    if (t.status_damaged || t.status != stored->second.status) {
      d.tunnels.emplace_back(WriteTunnel{std::move(t)});
    } else if (!deleted && !guarded) {
      add_finalizer(d, stored->second.meta);
    }
  }
}

}  // namespace egw::core::parts
