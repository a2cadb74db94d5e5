// Which IPv4 and IPv6 address of a gateway belong together. An address is in at most
// one pair. Recorded pairs stay as they are; the two defaults are one pair; of the rest the n-th
// free IPv4 goes with the n-th free IPv6. Used by allocate() for one gateway at a time.
#pragma once

#include "egw/model/ip_pool.hpp"

namespace egw::core::parts {

// One address, or both. A gateway with pools of one family has pairs of one.
struct Pair {
  model::Address v4, v6;
  explicit operator bool() const { return v4 || v6; }
  friend bool operator==(const Pair&, const Pair&) = default;
};

class PairSpace {
 public:
  // default_v4/v6: as listed; those outside the pools are not used. Without any, the first pair of
  // the pools is the default one. by_v4: the order of the pool is that of its IPv4 addresses, if it
  // has any; else of its IPv6 addresses.
  PairSpace(const model::IpPool& v4, const model::IpPool& v6, const model::Address& default_v4,
            const model::Address& default_v6, bool by_v4);

  // Takes the pair's addresses out of the free ones, puts them back.
  void take(const Pair& pair);
  void give_back(const Pair& pair);

  // None when the default is outside the pools.
  [[nodiscard]] const Pair& default_pair() const { return default_; }
  [[nodiscard]] bool is_free(const model::Address& address) const;
  // The pair of a free address.
  [[nodiscard]] Pair pair_of(const model::Address& address) const;
  // A free partner for an address that is taken without one; none: there is none.
  [[nodiscard]] model::Address late_partner(const model::Address& address) const;
  // The next free pair in the order of the pool, round it; none when all are taken. `last`: where
  // the search stands; none: at the beginning.
  [[nodiscard]] Pair next_free(const model::Address& last) const;
  // Whether two free addresses can be made a pair on request: neither is bound to the default
  // pair's other half.
  [[nodiscard]] bool may_pair(const model::Address& v4, const model::Address& v6) const;

 private:
  // Both halves free: they are kept for each other. Else a free half is like any other address.
  [[nodiscard]] bool bound() const {
    return (default_.v4 || default_.v6) && default_v4_free_ && default_v6_free_;
  }
  [[nodiscard]] bool is_bound(const model::Address& a) const {
    return a && bound() && (a == default_.v4 || a == default_.v6);
  }
  void put(const model::Address& address, bool free);
  void place_default_halves();

  model::IpPool free_v4_, free_v6_;  // without the default pair's while that is bound
  Pair default_;
  bool default_v4_free_ = true, default_v6_free_ = true;  // true for a half that there is not
  bool by_v4_ = true;
};

}  // namespace egw::core::parts
