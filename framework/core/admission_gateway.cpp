// Rules of EgressGateway: its pools, and what other gateways and nodes have already. Its default
// EIPs: admission_defaults.cpp.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "egw/core/admission_pools.hpp"
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

PoolSide make_side(Family family, const model::IpPools& pools) {
  const bool v4 = family == Family::kV4;
  return {family,
          v4 ? "ipv4" : "ipv6",
          v4 ? "ipv4DefaultEIP" : "ipv6DefaultEIP",
          v4 ? &pools.ipv4 : &pools.ipv6,
          v4 ? &pools.ipv4_default_eip : &pools.ipv6_default_eip,
          {},
          true,
          IpPool(family),
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
  std::vector<Range> sorted;
  for (const auto& [i, range] : side.ranges) sorted.push_back(range);
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

// Parses the entries.
void read_pool(Review& review, PoolSide& side) {
  side.complete = review.clean(side.list_path());
  if (side.entries->size() > kMaxEntries) {
    side.complete = false;
    return review.deny(side.list_path(),
                       fmt::format("{} entries; want at most {}: write ranges or CIDRs",
                                   side.entries->size(), kMaxEntries));
  }
  const IpPool forbidden = IpPool::of(side.family, model::ranges_without_sources(side.family));
  for (std::size_t i = 0; i < side.entries->size(); ++i) {
    const std::string& entry = (*side.entries)[i];
    const std::string where = fmt::format("{}[{}]", side.list_path(), i);
    if (review.spoilt.contains(where) || entry.empty()) continue;
    const auto range = IpPool::parse_entry(side.family, entry, where);
    if (!range) {
      side.complete = false;
      review.spoil(range.error());
      continue;
    }
    const Address bad = IpPool::of(side.family, {*range}).first_common(forbidden);
    if (bad) {
      side.complete = false;
      review.deny(where, fmt::format("{} holds {}, which is {} and cannot be a source; want "
                                     "unicast addresses that are routed to the gateway nodes",
                                     entry, bad.to_string(), why_not_a_source(bad)));
      continue;
    }
    warn_of_host_bits(review, where, entry);
    side.ranges.emplace_back(i, *range);
  }
  std::vector<Range> ranges;
  for (const auto& [i, range] : side.ranges) ranges.push_back(range);
  side.pool = IpPool::of(side.family, std::move(ranges));
  warn_of_repeats(review, side);
}

// The first entries of a pool, for messages.
std::string some_entries(const PoolSide& side) {
  constexpr std::size_t kMost = 5;
  std::vector<std::string> out;
  for (const std::string& entry : *side.entries) {
    if (entry.empty()) continue;
    out.push_back(out.size() < kMost ? entry : "...");
    if (out.size() > kMost) break;
  }
  return joined(out);
}

// What a gateway had before its family was switched off may stay: all else about it can change.
void review_family_switch(Review& review, const PoolSide& side) {
  if (family_on(review.settings, side.family)) return;
  const bool had = !side.old_pool.empty();
  if (had && side.added.empty()) return;
  if (side.given()) deny_switched_off(review, side.list_path(), some_entries(side), side.family);
  if (!had && !side.default_eip->empty()) {
    deny_switched_off(review, side.default_path(), *side.default_eip, side.family);
  }
}

// While one of the families is switched off nothing is given of its pool, and nothing can come into
// it: the other's may differ. When both are on again, that stops no change of something else.
void review_counts(Review& review, const PoolSide& v4, const PoolSide& v6) {
  if (!family_on(review.settings, v4.family) || !family_on(review.settings, v6.family)) return;
  const auto as_stored = [](const PoolSide& side) {
    return side.added.empty() && side.old_pool.minus(side.pool).empty();
  };
  if (as_stored(v4) && as_stored(v6)) return;
  if (v4.pool.empty() || v6.pool.empty() || v4.pool.count() == v6.pool.count()) return;
  review.deny("spec.ippools",
              fmt::format("{} IPv4 and {} IPv6 addresses; EIPs come in pairs: want as many of each "
                          "(an IPv4 prefix counts without its first and last address, a range "
                          "whole)",
                          v4.pool.count(), v6.pool.count()));
}

void review_other_gateways(Review& review, const EgressGateway& gateway, bool was_default,
                           const std::vector<PoolSide>& sides) {
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
    for (const PoolSide& side : sides) {
      if (side.added.empty()) continue;
      const IpPool theirs = IpPool::parse_valid(
          side.family, texts_at(other, {"spec", "ippools", side.list_key}), "", nullptr);
      side.each_common(theirs, [&](const std::string& path, const Address& common) {
        review.deny(path, fmt::format("{} is in the pool of EgressGateway {} too; an address "
                                      "belongs to one gateway: take it out of one of them",
                                      common.to_string(), name));
      });
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
  std::set<std::string> told;  // of an entry the first owner is told
  for (const PoolSide& side : sides) {
    for (const OwnPrefix& own : taken) {
      const IpPool theirs = IpPool::of(side.family, {Range{own.prefix.first(), own.prefix.last()}});
      side.each_common(theirs, [&](const std::string& path, const Address& common) {
        if (!told.insert(path).second) return;
        review.deny(path,
                    fmt::format("{} belongs to {} ({}); want addresses that nothing else uses",
                                common.to_string(), own.what, own.prefix.to_string()));
      });
    }
  }
}

// An address that an update takes out although a policy uses it.
struct Used {
  Address eip;
  std::string policy;  // one of them
};

// Each once.
std::vector<Used> users_of_removed(const Review& review, const std::string& gateway,
                                   const IpPool& gone) {
  std::vector<Used> out;
  std::set<Address> seen;
  const auto look = [&](const std::string& text, const model::Key& policy) {
    const auto address = Address::parse(text);
    if (!address || !gone.contains(*address) || !seen.insert(*address).second) return;
    out.push_back({*address, policy.to_string()});
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
    const model::PolicyRef& policy = eip.policies.front();
    for (const std::string& text : {eip.ipv4, eip.ipv6}) look(text, {policy.ns, policy.name});
  }
  for (const Kind kind : {Kind::kEgressPolicy, Kind::kEgressClusterPolicy}) {
    review.reader.each(kind, [&](const json& policy) {
      if (text_at(policy, {"spec", "egressGatewayName"}) != gateway) return;
      for (const std::string& text : {text_at(policy, {"spec", "egressIP", "ipv4"}),
                                      text_at(policy, {"spec", "egressIP", "ipv6"}),
                                      text_at(policy, {"status", "eip", "ipv4"}),
                                      text_at(policy, {"status", "eip", "ipv6"})}) {
        look(text, key_of(policy));
      }
    });
  }
  return out;
}

void review_pool_change(Review& review, const EgressGateway& old, PoolSide& side, bool had_other) {
  if (side.old_pool.empty() && !side.pool.empty()) {
    side.complete = false;  // nothing more is said about its default
    review.deny(
        side.list_path(),
        fmt::format("{}: the stored gateway has no {} addresses, and a family cannot be added{}; "
                    "make a new EgressGateway with the families that you want",
                    some_entries(side), family_name(side.family),
                    had_other ? ": its EIPs have no pairs" : " to one made for useNodeIP alone"));
    return;
  }
  const IpPool gone = side.old_pool.minus(side.pool);
  if (gone.empty()) return;
  const auto& pools = old.spec.ippools;
  for (const Used& used : users_of_removed(review, old.meta.name, gone)) {
    const std::string text = used.eip.to_string();
    const bool is_default =
        same_address(text, pools.ipv4_default_eip) || same_address(text, pools.ipv6_default_eip);
    review.deny(
        side.list_path(),
        fmt::format("{} is used by policy {}{}", text, used.policy,
                    is_default ? fmt::format(" and is the gateway's default EIP; an address can "
                                             "be taken out when no policy uses it any more: set "
                                             "{} to one that stays, delete its policies and "
                                             "create them anew, then take it out",
                                             side.default_path())
                               : "; an address can be taken out when no policy uses it any more: "
                                 "keep it, or delete the policy first"));
  }
}

void review_pool_changes(Review& review, const EgressGateway& old, std::vector<PoolSide>& sides) {
  for (std::size_t i = 0; i < 2; ++i) {
    if (sides[i].complete)
      review_pool_change(review, old, sides[i], !sides[1 - i].old_pool.empty());
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
  if (!any && review.clean("spec.nodeSelector")) {
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

// Nothing is stored of what says nothing, and addresses in one spelling.
void tidy_pools(Review& review) {
  if (!review.clean("spec.ippools")) return;
  const auto spec = review.doc.find("spec");
  if (spec == review.doc.end() || !spec->contains("ippools")) return;
  json& pools = (*spec)["ippools"];
  if (!pools.is_object()) return;
  for (const char* key : {"ipv4", "ipv6"}) {
    if (const auto list = pools.find(key); list != pools.end() && list->is_array()) {
      *list = texts_at(pools, {key});
      std::erase(list->get_ref<json::array_t&>(), "");
    }
    make_canonical(pools, key);
  }
  for (const char* key : {"ipv4DefaultEIP", "ipv6DefaultEIP"}) {
    if (text_at(pools, {key}).empty()) pools.erase(key);
    make_canonical(pools, key);
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
  std::vector<Error> told;
  auto gateway = model::decode<EgressGateway>(review.doc, told);
  std::optional<EgressGateway> old;
  if (!review.creating()) {
    old = model::decode<EgressGateway>(without_status(review.old_doc), told);
    forget_filled_in(review, gateway, *old);
  }
  if (gateway.spec.node_selector.empty() && review.clean("spec.nodeSelector")) {
    review.deny(
        "spec.nodeSelector.selector",
        "empty; want the labels of the gateway nodes, e.g. matchLabels: {egress: \"true\"}");
  }

  std::vector<PoolSide> sides{make_side(Family::kV4, gateway.spec.ippools),
                              make_side(Family::kV6, gateway.spec.ippools)};
  for (PoolSide& side : sides) {
    read_pool(review, side);
    if (old) {
      const auto& pools = old->spec.ippools;
      side.old_pool = IpPool::parse_valid(
          side.family, side.family == Family::kV4 ? pools.ipv4 : pools.ipv6, "", nullptr);
    }
    side.added = side.pool.minus(side.old_pool);
    review_family_switch(review, side);
  }
  if (sides[0].complete && sides[1].complete) review_counts(review, sides[0], sides[1]);
  if (old) review_pool_changes(review, *old, sides);
  review_defaults(review, sides, old);
  review_other_gateways(review, gateway, old && old->spec.cluster_default, sides);
  std::vector<model::Node> nodes;
  review.reader.each(Kind::kNode, [&nodes](const json& doc) {
    if (auto node = model::decode<model::Node>(doc)) nodes.push_back(std::move(*node));
  });
  review_cluster_addresses(review, sides, nodes);
  if (!sides[0].given() && !sides[1].given() && review.clean("spec.ippools")) {
    review.warn("spec.ippools", "empty; only policies with useNodeIP can use this gateway");
  }
  warn_of_nodes_and_namespaces(review, gateway, nodes);
  tidy_pools(review);
  if (review.creating() && review.clean("metadata.finalizers")) add_finalizer(review.doc);
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
