// Which EIPs are answered for, and when (eip_keeper.hpp).
#include "egw/runtime/eip_keeper.hpp"

#include <algorithm>

#include "egw/runtime/clock.hpp"

namespace egw::runtime {

void EipKeeper::assign(const std::vector<core::OwnedEip>& owned,
                       const std::set<model::Address>& handing_over, std::int64_t now_ms) {
  std::map<model::Address, Held> next;
  for (const auto& eip : owned) {
    Held held;
    held.id = eip.id;
    held.moving_in = eip.moving_in;
    held.probe_first = !eip.moving_in;
    if (const auto known = owned_.find(eip.address);
        known != owned_.end() && known->second.id == eip.id) {
      held.probe_first = known->second.probe_first;
      held.yielded = known->second.yielded;
      held.realised_ms = known->second.realised_ms;
    }
    next.emplace(eip.address, held);
    leaving_.erase(eip.address);
    handing_over_.erase(eip.address);
  }
  for (const auto& [address, held] : owned_) {
    if (next.contains(address)) continue;
    leaving_[address] = now_ms + kForgetMs;
    if (handing_over.contains(address) && is_published(address) && !held.yielded) {
      handing_over_[address] = now_ms + kHandOverMs;
    }
  }
  owned_ = std::move(next);
  publish(now_ms);
}

void EipKeeper::withdraw(const std::set<model::Address>& ours,
                         const std::set<model::Address>& handing_over, std::int64_t now_ms) {
  std::vector<core::OwnedEip> kept;
  for (const auto& [address, held] : owned_) {
    if (ours.contains(address)) kept.push_back({address, held.id, held.moving_in});
  }
  if (kept.size() != owned_.size()) assign(kept, handing_over, now_ms);
}

bool EipKeeper::is_published(const model::Address& address) const {
  const auto at = std::lower_bound(  // publish() sorts
      published_.begin(), published_.end(), address,
      [](const net::AnnouncedEip& eip, const model::Address& a) { return eip.address < a; });
  return at != published_.end() && at->address == address;
}

void EipKeeper::realised(const std::set<std::uint32_t>& failed, std::int64_t now_ms) {
  for (auto& [address, held] : owned_) {
    if (failed.contains(held.id)) {
      held.realised_ms = 0;
    } else if (held.realised_ms == 0) {
      held.realised_ms = now_ms;
    }
  }
  publish(now_ms);
}

bool EipKeeper::claimed(const model::Address& address, bool by_gateway, std::int64_t now_ms) {
  if (handing_over_.contains(address)) {
    if (by_gateway) {  // the new owner has been heard: the move is complete on this side
      handing_over_.erase(address);
      publish(now_ms);
    }
    return true;
  }
  const auto held = owned_.find(address);
  if (held == owned_.end()) return false;
  // What we answer for, the announcer has stopped answering by itself.
  if (by_gateway && is_published(address)) held->second.yielded = true;
  return true;
}

void EipKeeper::confirmed(const model::Address& address) {
  const auto held = owned_.find(address);
  if (held == owned_.end() || !held->second.yielded) return;
  held->second.yielded = false;
  announcer_.confirm(address);
}

std::int64_t EipKeeper::tick(std::int64_t now_ms) {
  for (auto it = handing_over_.begin(); it != handing_over_.end();) {
    it = it->second <= now_ms ? handing_over_.erase(it) : std::next(it);
  }
  publish(now_ms);
  std::int64_t next = kForever;
  for (const auto& [address, until] : handing_over_) next = std::min(next, until);
  for (const auto& [address, held] : owned_) {
    if (!held.moving_in || held.realised_ms == 0) continue;
    const std::int64_t at = held.realised_ms + kMoveWaitMs;
    if (at > now_ms) next = std::min(next, at);
  }
  return next;
}

void EipKeeper::left_before(const std::set<model::Address>& eips, std::int64_t now_ms) {
  for (const auto& eip : eips) {
    if (!owned_.contains(eip)) leaving_.emplace(eip, now_ms);
  }
}

std::int64_t EipKeeper::next_forgettable() const {
  std::int64_t next = kForever;
  for (const auto& [address, at] : leaving_) next = std::min(next, at);
  return next;
}

bool EipKeeper::take_forgettable(std::int64_t now_ms, model::Address& eip) {
  const auto first =
      std::min_element(leaving_.begin(), leaving_.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  if (first == leaving_.end() || first->second > now_ms) return false;
  eip = first->first;
  leaving_.erase(first);
  return true;
}

void EipKeeper::forget_again(const model::Address& eip, std::int64_t at_ms) {
  if (!owned_.contains(eip)) leaving_.try_emplace(eip, at_ms);
}

std::vector<model::Address> EipKeeper::announced() const {
  const auto silent = announcer_.silent();
  std::vector<model::Address> addresses;
  for (const auto& eip : published_) {
    if (std::binary_search(silent.begin(), silent.end(), eip.address)) continue;
    const auto held = owned_.find(eip.address);
    if (held == owned_.end() || !held->second.yielded) addresses.push_back(eip.address);
  }
  return addresses;
}

std::vector<core::OwnedEip> EipKeeper::served() const {
  std::vector<core::OwnedEip> eips;
  for (const auto& [address, held] : owned_) {
    if (!held.yielded && is_published(address)) eips.push_back({address, held.id, false});
  }
  return eips;
}

std::vector<model::Address> EipKeeper::yielded() const {
  std::vector<model::Address> addresses;
  for (const auto& [address, held] : owned_) {
    if (held.yielded) addresses.push_back(address);
  }
  return addresses;
}

void EipKeeper::publish(std::int64_t now_ms) {
  std::vector<net::AnnouncedEip> wanted;
  for (const auto& [address, held] : owned_) {
    if (held.realised_ms == 0) continue;
    if (held.moving_in && now_ms < held.realised_ms + kMoveWaitMs) continue;
    wanted.push_back({address, held.probe_first});
  }
  for (const auto& [address, until] : handing_over_) wanted.push_back({address, false});
  std::sort(wanted.begin(), wanted.end(),
            [](const auto& a, const auto& b) { return a.address < b.address; });
  if (wanted == published_) return;
  published_ = wanted;
  announcer_.set(std::move(wanted));
}

}  // namespace egw::runtime
