// The pods of the cluster, and in which slices each belongs (endpoint_slices.hpp).
#include <algorithm>
#include <utility>

#include "egw/core/endpoint_slices.hpp"
#include "egw/core/pod_claims.hpp"
#include "egw/model/names.hpp"

namespace egw::core {
namespace {

constexpr std::size_t kFewGroups = 1000;

std::uint64_t hash_name(std::uint32_t ns, std::string_view name) {
  return std::hash<std::string_view>{}(name) ^ (ns * 0x9e3779b97f4a7c15ULL);
}

// "key\0value\0key\0value\0"
std::string pack(const model::Labels& labels) {
  std::string out;
  for (const auto& [key, value] : labels) {
    out += key;
    out += '\0';
    out += value;
    out += '\0';
  }
  return out;
}

template <class Visit>
void each_label(const std::string& packed, Visit visit) {
  for (std::size_t at = 0; at < packed.size();) {
    const std::size_t middle = packed.find('\0', at);
    const std::size_t end = packed.find('\0', middle + 1);
    visit(packed.substr(at, middle - at), packed.substr(middle + 1, end - middle - 1));
    at = end + 1;
  }
}

}  // namespace

// ---- rows --------------------------------------------------------------------------------------

std::uint32_t EndpointSlices::find_pod(std::uint32_t ns, std::string_view name) const {
  std::uint32_t found = UINT32_MAX;
  pods_by_name_.find(hash_name(ns, name), [&](std::uint32_t pod) {
    if (pods_[pod].ns != ns || pods_[pod].name_view() != name) return false;
    found = pod;
    return true;
  });
  return found;
}

// The pod's row, made if there is none.
std::uint32_t EndpointSlices::add_pod(std::string_view ns, std::string_view name) {
  const std::uint32_t ns_number = texts_.hold(ns);
  if (const std::uint32_t known = find_pod(ns_number, name); known != UINT32_MAX) {
    texts_.release(ns_number);
    return known;
  }
  std::uint32_t pod = 0;
  if (free_pods_.empty()) {
    pod = static_cast<std::uint32_t>(pods_.size());
    pods_.emplace_back();
  } else {
    pod = free_pods_.back();
    free_pods_.pop_back();
  }
  Row& row = pods_[pod];
  const bool queued = row.queued;
  row = {};
  row.queued = queued;
  row.used = true;
  row.ns = ns_number;
  row.node = texts_.hold({});
  row.labels = texts_.hold({});
  row.name = std::make_unique<char[]>(name.size());
  row.name_size = static_cast<std::uint32_t>(name.size());
  std::copy(name.begin(), name.end(), row.name.get());
  pods_by_name_.insert(hash_name(ns_number, name), pod);
  return pod;
}

void EndpointSlices::drop_pod(std::uint32_t pod) {
  Row& row = pods_[pod];
  claim(pod, false);
  for (const Member& member : row.members) leave(pod, member);
  pods_by_name_.erase(hash_name(row.ns, row.name_view()), pod);
  for (const std::uint32_t text : {row.ns, row.node, row.labels}) texts_.release(text);
  const bool queued = row.queued;
  row = {};
  row.queued = queued;
  free_pods_.push_back(pod);
}

void EndpointSlices::queue_pod(std::uint32_t pod) {
  if (pods_[pod].queued) return;
  pods_[pod].queued = true;
  pods_to_do_.push_back(pod);
}

void EndpointSlices::queue_all_pods() {
  for (std::uint32_t pod = 0; pod < pods_.size(); ++pod) {
    if (pods_[pod].used) queue_pod(pod);
  }
}

// ---- addresses that two pods claim -------------------------------------------------------------

bool EndpointSlices::has(const Row& row, const model::Address& address) const {
  const auto as_claim = [this](const Row& r) {
    return detail::PodClaim{r.created_ms, r.terminating, texts_.text(r.ns), r.name_view()};
  };
  return !claims_.find(std::hash<model::Address>{}(address), [&](std::uint32_t pod) {
    const Row& other = pods_[pod];
    return &other != &row && other.node == row.node &&
           std::find(other.addresses.begin(), other.addresses.end(), address) !=
               other.addresses.end() &&
           detail::outranks(as_claim(other), as_claim(row));
  });
}

// An eligible pod begins or ends to claim its addresses: looks at the others that do.
void EndpointSlices::claim(std::uint32_t pod, bool on) {
  const Row& row = pods_[pod];
  if (!row.eligible) return;
  for (const model::Address& address : row.addresses) {
    const auto hash = std::hash<model::Address>{}(address);
    if (on) {
      claims_.insert(hash, pod);
    } else {
      claims_.erase(hash, pod);
    }
    claims_.find(hash, [&](std::uint32_t rival) {
      if (rival == pod || pods_[rival].node != row.node) return false;
      for (const Member& member : pods_[rival].members) queue_slice(member.slice);
      queue_pod(rival);
      return false;
    });
  }
}

// ---- events ------------------------------------------------------------------------------------

void EndpointSlices::begin_pods() { ++round_; }

void EndpointSlices::upsert(const model::Pod& source) {
  const std::uint32_t pod = add_pod(source.meta.ns, source.meta.name);
  Row& row = pods_[pod];
  row.seen = round_;
  std::vector<model::Address> addresses;
  std::copy_if(source.ips.begin(), source.ips.end(), std::back_inserter(addresses),
               [](const model::Address& address) { return static_cast<bool>(address); });
  const bool eligible =
      model::is_subdomain(source.node_name) && detail::may_claim(source) && !addresses.empty();
  const bool terminating = source.meta.deleted_ms != 0;
  const std::string labels = pack(source.meta.labels);
  const bool same_selection = row.known && row.eligible == eligible &&
                              texts_.text(row.labels) == labels && row.addresses == addresses;
  const bool same_rank = row.created_ms == source.meta.created_ms && row.terminating == terminating;
  if (same_selection && same_rank && texts_.text(row.node) == source.node_name) return;
  claim(pod, false);
  row.known = true;
  row.created_ms = source.meta.created_ms;
  row.terminating = terminating;
  row.eligible = eligible;
  row.addresses = std::move(addresses);
  row.addresses.shrink_to_fit();
  texts_.release(std::exchange(row.labels, texts_.hold(labels)));
  texts_.release(std::exchange(row.node, texts_.hold(source.node_name)));
  claim(pod, true);
  for (const Member& member : row.members) queue_slice(member.slice);
  queue_pod(pod);
}

void EndpointSlices::remove(const model::Key& key) {
  const std::uint32_t ns = texts_.hold(key.ns);
  const std::uint32_t pod = find_pod(ns, key.name);
  texts_.release(ns);
  if (pod != UINT32_MAX) drop_pod(pod);
}

void EndpointSlices::end_pods() {
  for (std::uint32_t pod = 0; pod < pods_.size(); ++pod) {
    if (pods_[pod].used && pods_[pod].seen != round_) drop_pod(pod);
  }
  loaded_ = true;
}

// ---- selection ---------------------------------------------------------------------------------

// Leaves in `labels` those of the row's that matter.
const std::vector<std::uint32_t>& EndpointSlices::slots_of_group(const Row& row,
                                                                 model::Labels& labels) {
  // The name itself: its number goes to another text when its last pod has gone.
  std::string key = texts_.text(row.ns);
  key.push_back('\0');
  each_label(texts_.text(row.labels), [&](std::string name, std::string value) {
    if (!policies_.label_key_matters(name)) return;
    key.append(name).append(1, '\0').append(value).append(1, '\0');
    labels.emplace_hint(labels.end(), std::move(name), std::move(value));
  });
  const auto known = groups_.find(key);
  if (known != groups_.end()) return known->second;
  // Of pods that have gone: labels like a job's name are new for each.
  if (groups_.size() > 2 * pods_.size() + kFewGroups) groups_.clear();
  const std::string& ns = texts_.text(row.ns);
  return groups_.emplace(std::move(key), policies_.select(ns, namespace_labels(ns), labels))
      .first->second;
}

// Sorted.
std::vector<std::uint32_t> EndpointSlices::policies_of(const Row& row) {
  if (!row.known || !row.eligible) return {};
  const auto& own = row.addresses;
  if (std::none_of(own.begin(), own.end(), [&](const auto& a) { return has(row, a); })) return {};
  model::Labels labels;
  std::vector<std::uint32_t> out = slots_of_group(row, labels);
  if (policies_.uses_subnets()) {
    const std::string& ns = texts_.text(row.ns);
    const auto more = policies_.select_by_address(ns, namespace_labels(ns), labels, row.addresses);
    out.insert(out.end(), more.begin(), more.end());
  }
  for (std::uint32_t& slot : out) slot = owner_by_slot_[slot];
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

void EndpointSlices::evaluate(std::uint32_t pod) {
  const std::vector<std::uint32_t> wanted = policies_of(pods_[pod]);
  std::vector<Member>& has = pods_[pod].members;
  std::vector<Member> next;
  next.reserve(wanted.size());
  auto old = has.begin();
  for (const std::uint32_t policy : wanted) {
    for (; old != has.end() && old->policy < policy; ++old) leave(pod, *old);
    if (old != has.end() && old->policy == policy) {
      next.push_back(*old++);
    } else {
      const std::uint32_t slice = slice_with_room(policy);
      join(pod, slice);
      next.push_back({policy, slice});
    }
  }
  for (; old != has.end(); ++old) leave(pod, *old);
  has = std::move(next);
}

bool EndpointSlices::work(std::size_t most) {
  for (; most > 0 && !pods_to_do_.empty(); --most) {
    const std::uint32_t pod = pods_to_do_.back();
    pods_to_do_.pop_back();
    pods_[pod].queued = false;
    if (pods_[pod].used) evaluate(pod);
  }
  return !pods_to_do_.empty();
}

}  // namespace egw::core
