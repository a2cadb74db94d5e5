// The Lease object of an election (coordination.k8s.io/v1) and what a candidate makes of it, by the
// rules of client-go (tools/leaderelection). Pure functions on JSON; used by campaign.cpp.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "resource.hpp"

namespace egw::kube {

[[nodiscard]] const Resource& lease_resource();

// The API's leaseTransitions ends here (int32). Beyond it an annotation of the Lease counts, so
// that an epoch goes on growing.
inline constexpr std::uint64_t kMostTransitions = 2'147'483'647;
inline constexpr const char* kTransitionsAnnotation = "egressgateway.spidernet.io/transitions";

struct LeaseRecord {
  std::string holder;             // empty: nobody
  std::uint64_t transitions = 0;  // of the two the greater
  std::chrono::milliseconds duration{0};
  std::string revision;  // changes with every renewal
  friend bool operator==(const LeaseRecord&, const LeaseRecord&) = default;
};

// What cannot be read counts as not given.
[[nodiscard]] LeaseRecord read_lease(const nlohmann::json& lease);

// The Lease with `holder` in office since now; what others wrote beside it stays. transitions: its
// epoch is one more.
[[nodiscard]] nlohmann::json taken(nlohmann::json lease, const std::string& holder,
                                   std::uint64_t transitions, std::chrono::milliseconds duration,
                                   const std::string& now);
[[nodiscard]] nlohmann::json renewed(nlohmann::json lease, const std::string& now);
[[nodiscard]] nlohmann::json released(nlohmann::json lease, const std::string& now);
[[nodiscard]] nlohmann::json new_lease(const std::string& ns, const std::string& name);

// Somebody has the Lease at that time, by the times that it says. One without a readable time is
// held: its holder's word stands against nothing.
[[nodiscard]] bool held_at(const nlohmann::json& lease, std::chrono::system_clock::time_point now);

// metav1.MicroTime, UTC.
[[nodiscard]] std::string micro_time(std::chrono::system_clock::time_point time);

}  // namespace egw::kube
