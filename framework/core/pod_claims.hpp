// Who has an address that several pods of a node claim: it is reused before the end of the pod that
// had it is seen. One rule for what the kernel does (compile_pods), what is listed
// (endpoint_slices) and what `egw why` says (explain).
#pragma once

#include <cstdint>
#include <string_view>
#include <tuple>

#include "egw/model/resources.hpp"

namespace egw::core::detail {

// Policies can apply to it: it runs on a node and has an address that is its own.
inline bool may_claim(const model::Pod& pod) {
  return !pod.node_name.empty() && !pod.host_network && !pod.finished && !pod.ips.empty();
}

struct PodClaim {
  std::int64_t created_ms = 0;
  bool terminating = false;
  std::string_view ns, name;
};

// The newest pod has it; of two of one second one that does not end.
inline bool outranks(const PodClaim& a, const PodClaim& b) {
  const auto rank = [](const PodClaim& c) {
    return std::make_tuple(c.created_ms, !c.terminating, c.ns, c.name);
  };
  return rank(a) > rank(b);
}

}  // namespace egw::core::detail
