// Egress ids have memory: an agent may still map an id that has gone to the EIP that
// it was, so a retired id comes back only when every Ready tunnel has realised a later revision,
// and the space is walked so that the newest retired ones come last.
//
// The revision at which an id goes is known only after the gateway's write. The id is therefore put
// among the retired before that write, with revision 0 ("going"), and gets the revision of a world
// in which no gateway has it any more, which is at or past the one at which it went.
#include <algorithm>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {

void IdSpace::in_use(std::uint32_t id) {
  if (id == 0 || id > kMaxEgressId) return;
  state_[id] |= kUsed;
  highest_ = std::max(highest_, id);
}

void IdSpace::load(const model::World& world, const model::EgressClusterInfo& info,
                   std::uint64_t min_realised) {
  revision_ = world.revision;
  for (const auto& [name, gateway] : world.gateways) {
    revision_ = std::max(revision_, gateway.meta.revision);
  }
  for (const model::RetiredId& r : info.status.retired) {
    if (r.id == 0 || r.id > kMaxEgressId) continue;
    const bool past = r.revision != 0 && min_realised > r.revision;
    state_[r.id] |= past ? kPast : kBlocked;
  }
  next_ = info.status.next_egress_id;
  // A ClusterInfo that was lost and made anew, or cannot be read, knows nothing of the ids in use.
  if (!info.status.present || info.status_damaged) next_ = std::max(next_, highest_ + 1);
  if (next_ < 1 || next_ > kMaxEgressId) next_ = 1;
}

std::uint32_t IdSpace::take() {
  if (exhausted_) return 0;
  for (std::uint32_t i = 0; i < kMaxEgressId; ++i) {
    const std::uint32_t id = next_;
    next_ = next_ == kMaxEgressId ? 1 : next_ + 1;
    if ((state_[id] & (kUsed | kBlocked | kGiven)) == 0) {
      state_[id] |= kGiven;
      return id;
    }
  }
  exhausted_ = true;
  return 0;
}

void IdSpace::retire(std::uint32_t id) {
  if (id != 0 && id <= kMaxEgressId) state_[id] |= kGone;
}

void IdSpace::store(model::EgressClusterInfo::Status& status, bool tidy) const {
  status.next_egress_id = next_;
  std::vector<model::RetiredId> kept;
  std::array<bool, kMaxEgressId + 1> listed{};
  for (model::RetiredId r : status.retired) {
    if (r.id == 0 || r.id > kMaxEgressId || listed[r.id]) continue;
    const std::uint8_t s = state_[r.id];
    const bool in_use = (s & kUsed) != 0 && (s & kGone) == 0;
    if ((s & kGiven) != 0) continue;
    if (tidy && ((s & kPast) != 0 || in_use)) continue;
    if (tidy && r.revision == 0 && (s & kUsed) == 0) r.revision = revision_;
    listed[r.id] = true;
    kept.push_back(r);
  }
  for (std::uint32_t id = 1; id <= kMaxEgressId; ++id) {
    if ((state_[id] & kGone) != 0 && !listed[id]) kept.push_back({id, 0});
  }
  status.retired = std::move(kept);
}

}  // namespace egw::core::parts
