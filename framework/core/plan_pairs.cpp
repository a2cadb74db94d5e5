// PairSpace: free addresses as two interval sets; partners by rank, so a /64 costs nothing.
#include "egw/core/plan_pairs.hpp"

#include <tuple>

namespace egw::core::parts {

using model::Address;
using model::IpPool;

PairSpace::PairSpace(const IpPool& v4, const IpPool& v6, const Address& default_v4,
                     const Address& default_v6, bool by_v4)
    : free_v4_(v4), free_v6_(v6), by_v4_(by_v4 ? !v4.empty() : v6.empty()) {
  Pair wanted{v4.contains(default_v4) ? default_v4 : Address{},
              v6.contains(default_v6) ? default_v6 : Address{}};
  if (!default_v4 && !default_v6) wanted = {v4.first(), v6.first()};
  // One of the two alone gets the partner that it would have among the listed addresses.
  if (wanted.v4 && !wanted.v6) wanted.v6 = v6.nth(v4.rank(wanted.v4));
  if (wanted.v6 && !wanted.v4) wanted.v4 = v4.nth(v6.rank(wanted.v6));
  default_ = wanted;
  place_default_halves();
}

void PairSpace::place_default_halves() {
  const auto move = [](IpPool& pool, const Address& half, bool listed) {
    if (!half) return;
    if (listed) {
      pool.insert(half);
    } else {
      pool.erase(half);
    }
  };
  move(free_v4_, default_.v4, default_v4_free_ && !bound());
  move(free_v6_, default_.v6, default_v6_free_ && !bound());
}

void PairSpace::put(const Address& address, bool free) {
  if (!address) return;
  if (address == default_.v4 || address == default_.v6) {
    (address == default_.v4 ? default_v4_free_ : default_v6_free_) = free;
    place_default_halves();
    return;
  }
  IpPool& pool = address.is_v4() ? free_v4_ : free_v6_;
  if (free) {
    pool.insert(address);
  } else {
    pool.erase(address);
  }
}

void PairSpace::take(const Pair& pair) {
  put(pair.v4, false);
  put(pair.v6, false);
}

void PairSpace::give_back(const Pair& pair) {
  put(pair.v4, true);
  put(pair.v6, true);
}

bool PairSpace::is_free(const Address& a) const {
  if (!a) return false;
  return is_bound(a) || (a.is_v4() ? free_v4_.contains(a) : free_v6_.contains(a));
}

Pair PairSpace::pair_of(const Address& a) const {
  if (is_bound(a)) return default_;
  if (a.is_v4()) return {a, free_v6_.nth(free_v4_.rank(a))};
  return {free_v4_.nth(free_v6_.rank(a)), a};
}

Address PairSpace::late_partner(const Address& a) const {
  const Pair& d = default_;
  const Address& half = a.is_v4() ? d.v6 : d.v4;
  if ((a == d.v4 || a == d.v6) && is_free(half)) return half;
  return (a.is_v4() ? free_v6_ : free_v4_).first();
}

Pair PairSpace::next_free(const Address& last) const {
  const Address& kept = by_v4_ ? default_.v4 : default_.v6;
  const Address in_order = (by_v4_ ? free_v4_ : free_v6_).next_after(last);
  if (!is_bound(kept)) return in_order ? pair_of(in_order) : Pair{};
  if (!in_order) return default_;
  const auto way = [&](const Address& a) { return std::make_tuple(!(last < a), a); };
  return way(kept) < way(in_order) ? default_ : pair_of(in_order);
}

bool PairSpace::may_pair(const Address& v4, const Address& v6) const {
  return is_bound(v4) == is_bound(v6);
}

}  // namespace egw::core::parts
