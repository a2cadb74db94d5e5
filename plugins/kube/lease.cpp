// See lease.hpp.
#include "lease.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <ctime>

#include "answer.hpp"

namespace egw::kube {

using nlohmann::json;

namespace {

std::uint64_t number_of(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_integer() || *it < 0) return 0;
  return it->get<std::uint64_t>();
}

// What is in the annotation; 0 for what cannot be a count of elections.
std::uint64_t further_transitions(const json& lease) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 62U;
  const std::string text =
      text_of(member_of(member_of(lease, "metadata"), "annotations"), kTransitionsAnnotation);
  std::uint64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out < kMost ? out : 0;
}

json& spec_of(json& lease) {
  json& spec = lease["spec"];
  if (!spec.is_object()) spec = json::object();
  return spec;
}

}  // namespace

const Resource& lease_resource() {
  static const Resource kLeases("coordination.k8s.io", "v1", "Lease", "leases", true);
  return kLeases;
}

LeaseRecord read_lease(const json& lease) {
  const json& spec = member_of(lease, "spec");
  LeaseRecord out;
  out.holder = text_of(spec, "holderIdentity");
  out.transitions = std::max(std::min(number_of(spec, "leaseTransitions"), kMostTransitions),
                             further_transitions(lease));
  out.duration = std::chrono::seconds(
      std::min<std::uint64_t>(number_of(spec, "leaseDurationSeconds"), 86'400));
  out.revision = text_of(member_of(lease, "metadata"), "resourceVersion");
  return out;
}

json taken(json lease, const std::string& holder, std::uint64_t transitions,
           std::chrono::milliseconds duration, const std::string& now) {
  json& spec = spec_of(lease);
  spec["holderIdentity"] = holder;
  spec["leaseDurationSeconds"] = duration.count() / 1000;
  spec["acquireTime"] = spec["renewTime"] = now;
  spec["leaseTransitions"] = std::min(transitions, kMostTransitions);
  if (transitions > kMostTransitions) {
    json& annotations = lease["metadata"]["annotations"];
    if (!annotations.is_object()) annotations = json::object();
    annotations[kTransitionsAnnotation] = std::to_string(transitions);
  }
  return lease;
}

json renewed(json lease, const std::string& now) {
  spec_of(lease)["renewTime"] = now;
  return lease;
}

json released(json lease, const std::string& now) {
  json& spec = spec_of(lease);
  spec["holderIdentity"] = "";
  spec["leaseDurationSeconds"] = 1;
  spec["acquireTime"] = spec["renewTime"] = now;
  return lease;
}

json new_lease(const std::string& ns, const std::string& name) {
  return {{"apiVersion", lease_resource().api_version()},
          {"kind", lease_resource().kind},
          {"metadata", {{"name", name}, {"namespace", ns}}}};
}

bool held_at(const json& lease, std::chrono::system_clock::time_point now) {
  const LeaseRecord record = read_lease(lease);
  if (record.holder.empty()) return false;
  const std::string renewed_at = text_of(member_of(lease, "spec"), "renewTime");
  std::tm utc{};
  const char* rest = ::strptime(renewed_at.c_str(), "%Y-%m-%dT%H:%M:%S", &utc);
  if (rest == nullptr || record.duration.count() == 0) return true;
  // The fraction of a second is given away.
  const auto until = std::chrono::system_clock::from_time_t(::timegm(&utc)) +
                     std::chrono::seconds(1) + record.duration;
  return now <= until;
}

std::string micro_time(std::chrono::system_clock::time_point time) {
  const auto micros =
      std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
  const std::time_t seconds = micros / 1'000'000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char day[32], out[48];
  std::strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(out, sizeof(out), "%s.%06dZ", day, static_cast<int>(micros % 1'000'000));
  return out;
}

}  // namespace egw::kube
