// Rules of EgressGateway: its pools, its defaults, and what other gateways and nodes have already.
#include <fmt/format.h>

#include <algorithm>

#include "egw/core/admission_support.hpp"
#include "egw/model/codec.hpp"

namespace egw::core::detail {
namespace {

using model::Address;
using model::EgressGateway;
using model::Family;
using model::IpPool;
using model::Kind;
using model::Range;
using nlohmann::json;

// One family of spec.ippools.
struct PoolSide {
  Family family;
  const char* list_key;
  const char* default_key;
  const std::vector<std::string>* entries;
  const std::string* default_eip;
  std::vector<Range> ranges;  // by entry
  IpPool pool;
  IpPool old_pool;  // empty on create

  [[nodiscard]] std::string list_path() const { return fmt::format("spec.ippools.{}", list_key); }
  [[nodiscard]] std::string default_path() const {
    return fmt::format("spec.ippools.{}", default_key);
  }
  // The entry that holds an address.
  [[nodiscard]] std::string path_of(const Address& address) const {
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      if (ranges[i].contains(address)) return fmt::format("{}[{}]", list_path(), i);
    }
    return list_path();
  }
  // What an update adds; everything on create. Only that is compared with other objects: a node
  // that came later must not stop a change of something else.
  [[nodiscard]] IpPool added() const { return pool.minus(old_pool); }
};

PoolSide make_side(Family family, const model::IpPools& pools) {
  const bool v4 = family == Family::kV4;
  return {family,
          v4 ? "ipv4" : "ipv6",
          v4 ? "ipv4DefaultEIP" : "ipv6DefaultEIP",
          v4 ? &pools.ipv4 : &pools.ipv6,
          v4 ? &pools.ipv4_default_eip : &pools.ipv6_default_eip,
          {},
          IpPool(family),
          IpPool(family)};
}

void warn_of_host_bits(Review& review, const std::string& where, const std::string& entry) {
  if (entry.find('/') == std::string::npos) return;
  const auto prefix = model::Prefix::parse(entry);
  const auto written = Address::parse(std::string_view(entry).substr(0, entry.find('/')));
  if (prefix && written && *written != prefix->first()) {
    review.warn(where, fmt::format("{} is read as {}", entry, prefix->to_string()));
  }
}

void warn_of_repeats(Review& review, const PoolSide& side) {
  std::vector<Range> sorted = side.ranges;
  std::sort(sorted.begin(), sorted.end());
  Address reached;
  for (const Range& r : sorted) {
    if (reached && r.first <= reached) {
      review.warn(side.list_path(),
                  fmt::format("{} stands there twice; it counts once", r.first.to_string()));
      return;
    }
    reached = std::max(reached, r.last);
  }
}

// Parses the entries; false if the family has nothing more to check.
bool read_pool(Review& review, PoolSide& side) {
  if (side.entries->size() > kMaxEntries) {
    review.deny(side.list_path(), fmt::format("{} entries; want at most {}: write ranges or CIDRs",
                                              side.entries->size(), kMaxEntries));
    return false;
  }
  const IpPool forbidden = IpPool::of(side.family, model::ranges_without_sources(side.family));
  for (std::size_t i = 0; i < side.entries->size(); ++i) {
    const std::string& entry = (*side.entries)[i];
    const std::string where = fmt::format("{}[{}]", side.list_path(), i);
    const auto range = IpPool::parse_entry(side.family, entry, where);
    if (!range) {
      review.deny(range.error());
      continue;
    }
    const Address bad = IpPool::of(side.family, {*range}).first_common(forbidden);
    if (bad) {
      review.deny(where, fmt::format("{} holds {}, which is {} and cannot be a source; want "
                                     "unicast addresses that are routed to the gateway nodes",
                                     entry, bad.to_string(), why_not_a_source(bad)));
    }
    warn_of_host_bits(review, where, entry);
    side.ranges.push_back(*range);
  }
  side.pool = IpPool::of(side.family, side.ranges);
  warn_of_repeats(review, side);
  return true;
}

void review_family_switch(Review& review, const PoolSide& side) {
  if (family_on(review.settings, side.family)) return;
  const auto text = fmt::format("{} is switched off ({}); switch it on or leave this out",
                                family_name(side.family), family_switch(side.family));
  if (!side.entries->empty()) review.deny(side.list_path(), text);
  if (!side.default_eip->empty()) review.deny(side.default_path(), text);
}

void review_counts(Review& review, const PoolSide& v4, const PoolSide& v6) {
  if (v4.pool.empty() || v6.pool.empty() || v4.pool.count() == v6.pool.count()) return;
  review.deny("spec.ippools",
              fmt::format("{} IPv4 and {} IPv6 addresses; EIPs come in pairs: want as many of each",
                          v4.pool.count(), v6.pool.count()));
}

// Fills in what is absent, then checks. On an update a default stays as long as the pool has it.
void review_default(Review& review, const PoolSide& side, bool other_given, json& pools,
                    const json& old_pools) {
  std::string text = *side.default_eip;
  if (text.empty() && !side.pool.empty()) {
    const std::string old_text = text_at(old_pools, {side.default_key});
    const auto old = Address::parse(old_text);
    if (old && side.pool.contains(*old)) {
      text = old_text;
    } else if (other_given) {
      return review.deny(side.default_path(),
                         "empty, while the other family's default is given; want both, they are "
                         "one pair, or neither: then the first of each pool is taken");
    } else {
      text = side.pool.first().to_string();
    }
    pools[side.default_key] = text;
    return;
  }
  if (text.empty()) return;
  const auto address = Address::parse(text);
  if (!address) return review.deny(side.default_path(), address.error().message);
  if (!side.pool.contains(*address)) {
    review.deny(side.default_path(), fmt::format("{} is not in {}; want an address of the pool",
                                                 address->to_string(), side.list_path()));
  }
}

// New defaults must not tear apart a pair that policies use.
void review_default_pair(Review& review, const json& pools) {
  const auto v4 = Address::parse(text_at(pools, {"ipv4DefaultEIP"}));
  const auto v6 = Address::parse(text_at(pools, {"ipv6DefaultEIP"}));
  if (review.creating() || !v4 || !v6) return;
  json old_doc = review.old_doc;
  if (old_doc.contains("spec") && old_doc["spec"].is_object()) old_doc["spec"].erase("ippools");
  const std::vector<Pair> recorded = known_pairs(old_doc);
  if (const Pair* other = contradiction(recorded, *v4, *v6)) {
    review.deny("spec.ippools.ipv4DefaultEIP",
                fmt::format("{} and {} are not a pair: {} and {} are one already; want both "
                            "addresses of one pair, or two that no pair holds",
                            v4->to_string(), v6->to_string(), other->v4.to_string(),
                            other->v6.to_string()));
  }
}

void review_defaults(Review& review, const std::vector<PoolSide>& sides,
                     const std::optional<EgressGateway>& old) {
  const json old_pools =
      old ? model::encode(*old)["spec"].value("ippools", json::object()) : json::object();
  json& pools = object_at(object_at(review.doc, "spec"), "ippools");
  for (std::size_t i = 0; i < 2; ++i) {
    review_default(review, sides[i], !sides[1 - i].default_eip->empty(), pools, old_pools);
  }
  if (review.answer.admitted) review_default_pair(review, pools);
}

void review_other_gateways(Review& review, const EgressGateway& gateway, bool was_default,
                           const std::vector<PoolSide>& sides) {
  const std::vector<IpPool> added{sides[0].added(), sides[1].added()};
  review.reader.each(Kind::kEgressGateway, [&](const json& other) {
    // Of a thousand others each is looked at for each: what is wanted, not the whole object.
    const std::string name = text_at(other, {"metadata", "name"});
    if (name == gateway.meta.name) return;
    if (gateway.spec.cluster_default && !was_default && is_cluster_default(other)) {
      review.deny("spec.clusterDefault",
                  fmt::format("true, but EgressGateway {} is the cluster's default; want at most "
                              "one: take it from that one first",
                              name));
    }
    for (std::size_t i = 0; i < sides.size(); ++i) {
      const PoolSide& side = sides[i];
      if (added[i].empty()) continue;
      const Address common = added[i].first_common(IpPool::parse_valid(
          side.family, texts_at(other, {"spec", "ippools", side.list_key}), "", nullptr));
      if (!common) continue;
      review.deny(side.path_of(common),
                  fmt::format("{} is in the pool of EgressGateway {} too; an address belongs to "
                              "one gateway: take it out of one of them",
                              common.to_string(), name));
    }
  });
}

// Addresses and prefixes that nodes, pods and services have.
std::vector<OwnPrefix> taken_prefixes(const Review& review, const std::vector<model::Node>& nodes) {
  std::vector<OwnPrefix> out;
  const auto add = [&out](const std::string& text, const std::string& what) {
    if (auto prefix = model::Prefix::parse(text)) out.push_back({*prefix, what});
  };
  for (const model::Node& node : nodes) {
    for (const auto& ip : node.internal_ips) add(ip, "the address of node " + node.meta.name);
    for (const auto& cidr : node.pod_cidrs) add(cidr, "the pod CIDR of node " + node.meta.name);
  }
  review.reader.each(Kind::kEgressTunnel, [&](const json& doc) {
    const std::string what = "the address of node " + text_at(doc, {"metadata", "name"});
    add(text_at(doc, {"status", "tunnel", "parent", "ipv4"}), what);
    add(text_at(doc, {"status", "tunnel", "parent", "ipv6"}), what);
  });
  for (OwnPrefix& own : cluster_prefixes(review.reader)) {
    // What the operator adds by hand may well be the network in which the EIPs are.
    if (own.what.find("extraCidr") == std::string::npos) out.push_back(std::move(own));
  }
  for (const auto& [prefix, key] :
       {std::pair{review.settings.tunnel_v4, "feature.tunnelIpv4Subnet"},
        std::pair{review.settings.tunnel_v6, "feature.tunnelIpv6Subnet"}}) {
    if (prefix.address()) out.push_back({prefix, std::string("the tunnel's subnet, ") + key});
  }
  return out;
}

void review_cluster_addresses(Review& review, const std::vector<PoolSide>& sides,
                              const std::vector<model::Node>& nodes) {
  const std::vector<OwnPrefix> taken = taken_prefixes(review, nodes);
  for (const PoolSide& side : sides) {
    const IpPool added = side.added();
    for (const OwnPrefix& own : taken) {
      const Address common = added.first_common(
          IpPool::of(side.family, {Range{own.prefix.first(), own.prefix.last()}}));
      if (!common) continue;
      review.deny(side.path_of(common),
                  fmt::format("{} belongs to {} ({}); want addresses that nothing else uses",
                              common.to_string(), own.what, own.prefix.to_string()));
      break;
    }
  }
}

// Who uses an address that an update takes out; empty if nobody.
std::string user_of_removed(const Review& review, const std::string& gateway, const IpPool& gone) {
  const auto hit = [&gone](const std::string& text) {
    const auto address = Address::parse(text);
    return address && gone.contains(*address);
  };
  const auto old = model::decode<EgressGateway>(review.old_doc);
  std::vector<model::EipStatus> eips;
  if (old) {
    eips = old->status.unplaced;
    for (const auto& node : old->status.node_list) {
      eips.insert(eips.end(), node.eips.begin(), node.eips.end());
    }
  }
  for (const model::EipStatus& eip : eips) {
    if (eip.policies.empty()) continue;
    for (const std::string& text : {eip.ipv4, eip.ipv6}) {
      const auto& policy = eip.policies.front();
      if (hit(text)) {
        return fmt::format("{} is used by policy {}", text,
                           model::Key{policy.ns, policy.name}.to_string());
      }
    }
  }
  std::string found;
  for (const Kind kind : {Kind::kEgressPolicy, Kind::kEgressClusterPolicy}) {
    review.reader.each(kind, [&](const json& policy) {
      if (!found.empty() || text_at(policy, {"spec", "egressGatewayName"}) != gateway) return;
      for (const std::string& text : {text_at(policy, {"spec", "egressIP", "ipv4"}),
                                      text_at(policy, {"spec", "egressIP", "ipv6"}),
                                      text_at(policy, {"status", "eip", "ipv4"}),
                                      text_at(policy, {"status", "eip", "ipv6"})}) {
        if (!hit(text)) continue;
        found = fmt::format("{} is used by policy {}", text, key_of(policy).to_string());
        return;
      }
    });
  }
  return found;
}

void review_pool_change(Review& review, const EgressGateway& gateway, const PoolSide& side) {
  if (side.old_pool.empty() && !side.pool.empty()) {
    review.deny(side.list_path(),
                fmt::format("a gateway born without {} cannot get it later, for its EIPs have no "
                            "pairs; make a new EgressGateway with both families",
                            family_name(side.family)));
    return;
  }
  const IpPool gone = side.old_pool.minus(side.pool);
  if (gone.empty()) return;
  const std::string user = user_of_removed(review, gateway.meta.name, gone);
  if (!user.empty()) {
    review.deny(side.list_path(),
                user +
                    "; an address can be taken out when no policy uses it any more: keep it, or "
                    "delete the policy first");
  }
}

void warn_of_nodes_and_namespaces(Review& review, const EgressGateway& gateway,
                                  const std::vector<model::Node>& nodes) {
  if (!gateway.spec.node_selector_policy.empty()) {
    review.warn("spec.nodeSelector.policy",
                fmt::format("\"{}\" has no effect", gateway.spec.node_selector_policy));
  }
  const bool any = std::any_of(nodes.begin(), nodes.end(), [&](const model::Node& node) {
    return gateway.spec.node_selector.matches(node.meta.labels);
  });
  if (!any) {
    review.warn("spec.nodeSelector.selector",
                "matches no node now; policies of this gateway wait until one has these labels");
  }
  if (review.creating() || !gateway.spec.allowed_namespaces) return;
  std::vector<std::string> shut_out;
  review.reader.each(Kind::kEgressPolicy, [&](const json& policy) {
    if (shut_out.size() > 5) return;
    if (text_at(policy, {"spec", "egressGatewayName"}) != gateway.meta.name) return;
    const model::Key key = key_of(policy);
    if (gateway.spec.allowed_namespaces->matches(namespace_labels(review.reader, key.ns))) return;
    shut_out.push_back(shut_out.size() < 5 ? key.to_string() : "...");
  });
  if (!shut_out.empty()) {
    review.warn("spec.allowedNamespaces",
                "these policies are in namespaces that it does not match, and lose their EIPs: " +
                    joined(shut_out));
  }
}

void add_finalizer(json& doc) {
  json& finalizers = object_at(doc, "metadata")["finalizers"];
  if (finalizers.is_null()) finalizers = json::array();
  const std::string ours(model::kGatewayFinalizer);
  if (std::find(finalizers.begin(), finalizers.end(), ours) == finalizers.end()) {
    finalizers.push_back(ours);
  }
}

}  // namespace

void review_gateway(Review& review) {
  const auto decoded = model::decode<EgressGateway>(review.doc);
  if (!decoded) return review.deny(decoded.error());
  const EgressGateway& gateway = *decoded;
  if (gateway.spec.node_selector.empty()) {
    review.deny(
        "spec.nodeSelector.selector",
        "empty; want the labels of the gateway nodes, e.g. matchLabels: {egress: \"true\"}");
  }

  std::vector<PoolSide> sides{make_side(Family::kV4, gateway.spec.ippools),
                              make_side(Family::kV6, gateway.spec.ippools)};
  std::optional<EgressGateway> old;
  if (!review.creating()) {
    if (auto o = model::decode<EgressGateway>(without_status(review.old_doc))) old = std::move(*o);
  }
  for (PoolSide& side : sides) {
    if (!read_pool(review, side)) return;
    review_family_switch(review, side);
    if (old) {
      const auto& pools = old->spec.ippools;
      side.old_pool = IpPool::parse_valid(
          side.family, side.family == Family::kV4 ? pools.ipv4 : pools.ipv6, "", nullptr);
    }
  }
  if (!review.answer.admitted) return;

  review_counts(review, sides[0], sides[1]);
  if (old) {
    for (const PoolSide& side : sides) review_pool_change(review, gateway, side);
  }
  if (review.answer.admitted) review_defaults(review, sides, old);
  review_other_gateways(review, gateway, old && old->spec.cluster_default, sides);
  std::vector<model::Node> nodes;
  review.reader.each(Kind::kNode, [&nodes](const json& doc) {
    if (auto node = model::decode<model::Node>(doc)) nodes.push_back(std::move(*node));
  });
  review_cluster_addresses(review, sides, nodes);
  if (sides[0].pool.empty() && sides[1].pool.empty()) {
    review.warn("spec.ippools", "empty; only policies with useNodeIP can use this gateway");
  }
  warn_of_nodes_and_namespaces(review, gateway, nodes);
  if (review.creating()) add_finalizer(review.doc);
}

void review_gateway_deletion(Review& review) {
  const std::vector<std::string> users =
      users_of(review.reader, text_at(review.old_doc, {"metadata", "name"}), 5);
  if (!users.empty()) {
    review.warn(
        "", "it goes when no policy uses it any more; until then it serves them: " + joined(users));
  }
}

}  // namespace egw::core::detail
