// explain: why a pod's packets leave as they do: the policies that select it in their order, which
// one decides about a destination, and where that leads. Pure; the same selection, order and
// decisions as compile. Called by `egw why`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "egw/model/node_state.hpp"
#include "egw/model/settings.hpp"
#include "egw/model/world.hpp"

namespace egw::core {

struct ExplainedPolicy {
  model::PolicyRef policy;
  std::int64_t priority = 0;
  std::string destinations;  // "all", or its prefixes
  std::string verdict;       // with a destination: "decides", or why it does not; else empty
};

struct Explanation {
  std::string excluded;                   // why no policy can apply to the pod; empty: they can
  std::vector<ExplainedPolicy> policies;  // that select it, best first
  // What the node does with the pod's packets, longest prefix wins; with a destination, the one
  // rule that counts (none: the packet is left alone).
  model::ClassTable table;
  std::vector<model::PolicyRef> rule_policies;  // of the same length: whose rule each is
  std::string left_alone;                       // with a destination: why it is, when it is
};

// destination: nullopt explains all of them. world.pods: those of the pod's node, which may claim
// its addresses (pod_claims.hpp).
[[nodiscard]] Explanation explain(const model::World& world, const model::Settings& settings,
                                  const model::Pod& pod,
                                  const std::optional<model::Address>& destination);

}  // namespace egw::core
