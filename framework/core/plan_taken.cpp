// Addresses that the cluster itself uses and that no EIP may be (no EIP is ever a
// local address): those of nodes, pods and services, and the tunnel's. Admission refuses a pool
// that holds some; a node, a range of pods or of services that comes later is settled here: what
// collides is not given, and what was given keeps its record and its policies, but no node, until
// the collision goes.
#include <fmt/format.h>

#include <utility>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

using model::Family;
using model::IpPool;
using model::Prefix;
using model::Range;

// Calls f(prefix, whose) for each; whose is made only when it is asked for.
template <class F>
void each_taken(const Draft& d, F&& f) {
  const auto add = [&f](const std::string& text, const char* what, const std::string& name) {
    if (text.empty()) return;
    if (const auto prefix = Prefix::parse(text)) f(*prefix, what, name);
  };
  const auto add_all = [&add](const model::EgressClusterInfo::Addresses& all, const char* what,
                              const std::string& name) {
    for (const std::string& text : all.ipv4) add(text, what, name);
    for (const std::string& text : all.ipv6) add(text, what, name);
  };
  for (const NodeView& n : d.nodes) {
    for (const std::string& text : n.node->internal_ips)
      add(text, "the address of node ", n.name());
    if (n.tunnel != nullptr) {
      const auto& parent = n.tunnel->status.parent;
      add(parent.ipv4, "the address of node ", n.name());
      add(parent.ipv6, "the address of node ", n.name());
    }
    for (const std::string& text : n.node->pod_cidrs) add(text, "the pod CIDR of node ", n.name());
  }
  if (d.own.pod_cidr_mode == "calico") {
    for (const auto& [pool, cidrs] : d.own.pod_cidr) add_all(cidrs, "IPPool ", pool);
  }
  add_all(d.own.cluster_ip, "the service range", "");
  for (const Prefix& prefix : {d.settings.tunnel_v4, d.settings.tunnel_v6}) {
    if (prefix.address()) f(prefix, "the tunnel's subnet", std::string());
  }
}

IpPool common(const IpPool& a, const IpPool& b) { return a.minus(a.minus(b)); }

}  // namespace

void look_at_taken(Draft& d) {
  std::vector<Range> v4;
  std::vector<Range> v6;
  each_taken(d, [&](const Prefix& prefix, const char*, const std::string&) {
    (prefix.family() == Family::kV4 ? v4 : v6).push_back({prefix.first(), prefix.last()});
  });
  d.taken_v4 = IpPool::of(Family::kV4, std::move(v4));
  d.taken_v6 = IpPool::of(Family::kV6, std::move(v6));
}

void leave_taken(const Draft& d, GatewayDraft& g) {
  g.taken_v4 = g.v4.overlaps(d.taken_v4) ? common(g.v4, d.taken_v4) : IpPool(Family::kV4);
  g.taken_v6 = g.v6.overlaps(d.taken_v6) ? common(g.v6, d.taken_v6) : IpPool(Family::kV6);
  if (g.taken_v4.empty() && g.taken_v6.empty()) return;
  g.v4 = g.v4.minus(g.taken_v4);
  g.v6 = g.v6.minus(g.taken_v6);
  g.overlaps = true;
  const model::Address first = g.taken_v4.empty() ? g.taken_v6.first() : g.taken_v4.first();
  std::string whose;
  each_taken(d, [&](const Prefix& prefix, const char* what, const std::string& name) {
    if (whose.empty() && prefix.contains(first)) {
      whose = fmt::format("{}{} ({})", what, name, prefix.to_string());
    }
  });
  if (!g.pool_conflict.empty()) g.pool_conflict += "; ";
  g.pool_conflict += fmt::format(
      "{} of the pool belongs to {}, which came later; addresses that the cluster uses are not "
      "given and not announced: take them out of the pool, or give the cluster others",
      first.to_string(), whose);
}

}  // namespace egw::core::parts
