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
  std::vector<std::pair<std::size_t, Range>> ranges;  // of the entries that are good
  bool complete = true;                               // that are all, and it can be judged
  IpPool pool;
  IpPool old_pool;  // empty on create

  [[nodiscard]] std::string list_path() const { return fmt::format("spec.ippools.{}", list_key); }
  [[nodiscard]] std::string default_path() const {
    return fmt::format("spec.ippools.{}", default_key);
  }
  // The entry that holds an address.
  [[nodiscard]] std::string path_of(const Address& address) const {
    for (const auto& [i, range] : ranges) {
      if (range.contains(address)) return fmt::format("{}[{}]", list_path(), i);
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
          true,
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
    if (review.spoilt.contains(where)) continue;
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

bool in_pool(const PoolSide& side, const std::string& text) {
  const auto address = Address::parse(text);
  return address && side.pool.contains(*address);
}

// A pair of the pools for the two defaults to be.
Pair first_pair(const std::vector<PoolSide>& sides, const std::vector<Pair>& recorded) {
  Pair out{sides[0].pool.empty() ? Address{} : sides[0].pool.first(), {}};
  if (sides[1].pool.empty()) return out;
  IpPool unpaired = sides[1].pool;
  for (const Pair& p : recorded) {
    if (out.v4 && p.v4 == out.v4 && sides[1].pool.contains(p.v6)) return p;
    unpaired.erase(p.v6);
  }
  out.v6 = out.v4 && !unpaired.empty() ? unpaired.first() : sides[1].pool.first();
  return out;
}

std::vector<Pair> recorded_pairs(const Review& review) {
  if (review.creating()) return {};
  json doc = review.old_doc;
  if (doc.contains("spec") && doc["spec"].is_object()) doc["spec"].erase("ippools");
  return known_pairs(doc);
}

// Those that are not given: as stored, as long as the pools have them; else the first pair of the
// pools.
void fill_in_defaults(Review& review, const std::vector<PoolSide>& sides, const json& old_pools,
                      json& pools) {
  bool given = false;
  bool stored = !old_pools.empty();
  for (const PoolSide& side : sides) {
    given = given || !side.default_eip->empty();
    stored = stored && (side.pool.empty() || in_pool(side, text_at(old_pools, {side.default_key})));
  }
  const Pair made = first_pair(sides, recorded_pairs(review));
  for (std::size_t i = 0; i < 2; ++i) {
    const PoolSide& side = sides[i];
    if (!side.default_eip->empty() || side.pool.empty()) continue;
    const std::string before = text_at(old_pools, {side.default_key});
    if (in_pool(side, before) && (stored || given)) {
      pools[side.default_key] = before;
    } else if (given) {
      review.deny(side.default_path(),
                  "empty, while the other family's default is given; want both, they are one "
                  "pair, or neither: then the first of each pool is taken");
    } else {
      pools[side.default_key] = (i == 0 ? made.v4 : made.v6).to_string();
      if (before.empty()) continue;
      review.warn(side.default_path(), fmt::format("{} has left the pool; {} is the default now",
                                                   before, text_at(pools, {side.default_key})));
    }
  }
}

// One that is given. False: it is denied.
bool review_default(Review& review, const PoolSide& side, const json& old_pools) {
  const std::string& text = *side.default_eip;
  const auto address = Address::parse(text);
  if (!address) {
    review.deny(side.default_path(), address.error().message);
    return false;
  }
  if (!side.complete || side.pool.contains(*address)) return true;
  const bool unchanged = text_at(old_pools, {side.default_key}) == text;
  review.deny(
      side.default_path(),
      fmt::format("{} is not in {}; want an address of the pool{}", address->to_string(),
                  side.list_path(),
                  unchanged ? ", or \"\": then one of the pool is taken (this one was perhaps "
                              "filled in when the gateway was made)"
                            : ""));
  return false;
}

// New defaults must not tear apart a pair that policies use.
void review_default_pair(Review& review, const json& pools) {
  const auto v4 = Address::parse(text_at(pools, {"ipv4DefaultEIP"}));
  const auto v6 = Address::parse(text_at(pools, {"ipv6DefaultEIP"}));
  if (!v4 || !v6) return;
  const std::vector<Pair> recorded = recorded_pairs(review);
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
  bool good = true;
  for (const PoolSide& side : sides) {
    const bool readable = review.clean(side.default_path());
    const bool given = readable && !side.default_eip->empty();
    if (given && !review_default(review, side, old_pools)) good = false;
    good = good && readable && side.complete;
  }
  if (!good) return;
  json& pools = object_at(object_at(review.doc, "spec"), "ippools");
  fill_in_defaults(review, sides, old_pools, pools);
  review_default_pair(review, pools);
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

// An address that an update takes out although a policy uses it.
struct Used {
  std::string eip, policy;
};

std::optional<Used> user_of_removed(const Review& review, const std::string& gateway,
                                    const IpPool& gone) {
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
      if (hit(text)) return Used{text, model::Key{policy.ns, policy.name}.to_string()};
    }
  }
  std::optional<Used> found;
  for (const Kind kind : {Kind::kEgressPolicy, Kind::kEgressClusterPolicy}) {
    review.reader.each(kind, [&](const json& policy) {
      if (found || text_at(policy, {"spec", "egressGatewayName"}) != gateway) return;
      for (const std::string& text : {text_at(policy, {"spec", "egressIP", "ipv4"}),
                                      text_at(policy, {"spec", "egressIP", "ipv6"}),
                                      text_at(policy, {"status", "eip", "ipv4"}),
                                      text_at(policy, {"status", "eip", "ipv6"})}) {
        if (!hit(text)) continue;
        found = Used{text, key_of(policy).to_string()};
        return;
      }
    });
  }
  return found;
}

void review_pool_change(Review& review, const EgressGateway& old, PoolSide& side, bool had_other) {
  if (side.old_pool.empty() && !side.pool.empty()) {
    side.complete = false;  // nothing more is said about its default
    review.deny(
        side.list_path(),
        fmt::format("the stored gateway has no {} addresses, and a family cannot be added{}; make "
                    "a new EgressGateway with the families that you want",
                    family_name(side.family),
                    had_other ? ": its EIPs have no pairs" : " to one made for useNodeIP alone"));
    return;
  }
  const IpPool gone = side.old_pool.minus(side.pool);
  if (gone.empty()) return;
  const auto used = user_of_removed(review, old.meta.name, gone);
  if (!used) return;
  const auto& pools = old.spec.ippools;
  const bool is_default =
      used->eip == pools.ipv4_default_eip || used->eip == pools.ipv6_default_eip;
  review.deny(
      side.list_path(),
      fmt::format(
          "{} is used by policy {}{}", used->eip, used->policy,
          is_default ? fmt::format(" and is the gateway's default EIP; an address can be taken out "
                                   "when no policy uses it any more: set {} to one that stays, "
                                   "delete its policies and create them anew, then take it out",
                                   side.default_path())
                     : "; an address can be taken out when no policy uses it any more: keep it, "
                       "or delete the policy first"));
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

// `kubectl apply` leaves what its manifest does not name as it is stored: a default EIP that was
// filled in comes back as if it were wanted.
void forget_filled_in(Review& review, EgressGateway& gateway, const EgressGateway& old) {
  const json manifest = json::parse(
      text_at(review.doc,
              {"metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"}),
      nullptr, false);
  if (!manifest.is_object()) return;
  const auto forget = [&](const char* key, std::string& now, const std::string& before) {
    if (now != before || !text_at(manifest, {"spec", "ippools", key}).empty()) return;
    now.clear();
    if (review.clean("spec.ippools")) review.doc["spec"]["ippools"].erase(key);
  };
  auto& pools = gateway.spec.ippools;
  forget("ipv4DefaultEIP", pools.ipv4_default_eip, old.spec.ippools.ipv4_default_eip);
  forget("ipv6DefaultEIP", pools.ipv6_default_eip, old.spec.ippools.ipv6_default_eip);
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
    review_family_switch(review, side);
    if (old) {
      const auto& pools = old->spec.ippools;
      side.old_pool = IpPool::parse_valid(
          side.family, side.family == Family::kV4 ? pools.ipv4 : pools.ipv6, "", nullptr);
    }
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
  if (gateway.spec.ippools.ipv4.empty() && gateway.spec.ippools.ipv6.empty() &&
      review.clean("spec.ippools")) {
    review.warn("spec.ippools", "empty; only policies with useNodeIP can use this gateway");
  }
  warn_of_nodes_and_namespaces(review, gateway, nodes);
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
