// A world with a gateway and a compiler of its node n1, for the tests of the compiler.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "egw/core/compile.hpp"
#include "support.hpp"

namespace egw::core::test {

using model::ActionKind;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

inline std::pair<ActionKind, std::uint32_t> to(std::uint32_t id) {
  return {ActionKind::kEgress, id};
}
inline const std::pair<ActionKind, std::uint32_t> kDropped{ActionKind::kDrop, 0};
inline const std::pair<ActionKind, std::uint32_t> kNodeIp{ActionKind::kNodeIp, 0};
inline const std::pair<ActionKind, std::uint32_t> kAlone{ActionKind::kBypass, 0};

class CompileTest : public ::testing::Test {
 protected:
  // A policy for pods with app=NAME and its place on n2 under `id`.
  void add_policy(const std::string& ns, const std::string& name, std::uint32_t id,
                  std::vector<std::string> destinations = {}) {
    auto p = policy(ns, name, "gw");
    p.spec.pod_selector = labelled("app=" + name);
    p.spec.dest_subnet = std::move(destinations);
    put(world, p);
    place(p.ref(), id);
  }
  void place(const model::PolicyRef& ref, std::uint32_t id, std::size_t node = 0) {
    const auto n = std::to_string(50 + id);
    world.gateways["gw"].status.node_list[node].eips.push_back(
        eip(id, "10.6.1." + n, "fd00:6:1::" + n, {ref}));
  }
  const model::NodeState& state() {
    compile(compiler, world);
    return compiler.state();
  }
  std::vector<std::string> reasons() const {
    std::vector<std::string> out;
    for (const auto& finding : compiler.findings()) {
      out.push_back(finding.policy.name + ":" + finding.reason);
    }
    return out;
  }
  std::vector<std::string> endpoints() {
    std::vector<std::string> out;
    for (const auto& [address, id] : state().endpoints) out.push_back(address.to_string());
    std::sort(out.begin(), out.end());
    return out;
  }

  model::World world = small_world();
  Compiler compiler{dual_stack(), local_node()};
};

}  // namespace egw::core::test
