// Rules of an EgressGateway's default EIPs: they are of the pools and one pair; those that are not
// given are filled in.
#include <fmt/format.h>

#include "egw/core/admission_pools.hpp"
#include "egw/model/codec.hpp"

namespace egw::core::detail {

using model::Address;
using model::EgressGateway;
using model::IpPool;
using nlohmann::json;

namespace {

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

void deny_half_pair(Review& review, const PoolSide& side) {
  review.deny(side.default_path(),
              "empty, while the other family's default is given; want both, they are one pair, or "
              "neither: then the first of each pool is taken");
}

// One family's default is changed alone.
void warn_of_stored_half(Review& review, const PoolSide& side, const PoolSide& other,
                         const json& old_pools) {
  if (same_address(text_at(old_pools, {other.default_key}), *other.default_eip)) return;
  review.warn(side.default_path(),
              fmt::format("not given: {} stays the default, and is the pair of {} now",
                          text_at(old_pools, {side.default_key}), *other.default_eip));
}

// A default without the other's, where the pools cannot all be read.
void review_half_pair(Review& review, const std::vector<PoolSide>& sides, const json& old_pools) {
  for (std::size_t i = 0; i < 2; ++i) {
    const PoolSide& side = sides[i];
    if (!review.creating() && side.old_pool.empty()) continue;  // it cannot be added at all
    if (!sides[1 - i].given()) continue;                        // the other one is at fault
    if (!side.default_eip->empty() || !side.given() || sides[1 - i].default_eip->empty() ||
        !review.clean(side.default_path()) || !text_at(old_pools, {side.default_key}).empty()) {
      continue;
    }
    deny_half_pair(review, side);
  }
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
    const bool stays = in_pool(side, before);
    if (stays && (stored || given)) {
      pools[side.default_key] = before;
      if (given) warn_of_stored_half(review, side, sides[1 - i], old_pools);
    } else if (given) {
      deny_half_pair(review, side);
    } else {
      const Address& now = i == 0 ? made.v4 : made.v6;
      pools[side.default_key] = now.to_string();
      if (before.empty() || same_address(before, now.to_string())) continue;
      review.warn(side.default_path(),
                  stays ? fmt::format("{} is the default now instead of {}: the other family's "
                                      "default has left its pool, and the two are one pair",
                                      now.to_string(), before)
                        : fmt::format("{} has left the pool; {} is the default now", before,
                                      now.to_string()));
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

}  // namespace

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
  if (!good) return review_half_pair(review, sides, old_pools);
  json& pools = object_at(object_at(review.doc, "spec"), "ippools");
  fill_in_defaults(review, sides, old_pools, pools);
  review_default_pair(review, pools);
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
    if (now.empty() || now != before || !text_at(manifest, {"spec", "ippools", key}).empty())
      return;
    now.clear();
    if (review.clean("spec.ippools")) review.doc["spec"]["ippools"].erase(key);
  };
  auto& pools = gateway.spec.ippools;
  forget("ipv4DefaultEIP", pools.ipv4_default_eip, old.spec.ippools.ipv4_default_eip);
  forget("ipv6DefaultEIP", pools.ipv6_default_eip, old.spec.ippools.ipv6_default_eip);
}

}  // namespace egw::core::detail
