// What plan() remembers of gateways that need nothing.
#include <gmock/gmock.h>

#include <algorithm>

#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

bool gives_finalizer(const core::Plan& plan) {
  return std::any_of(plan.writes.begin(), plan.writes.end(), [](const core::Write& w) {
    const auto* meta = std::get_if<core::SetMeta>(&w);
    return meta != nullptr && !meta->finalizers.empty();
  });
}

// A plan's writes may be lost on the way: refused, or the batch ended before their turn.
TEST(PlanMemory, AFinalizerThatWasNotWrittenIsPlannedAgain) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1-10.0.0.4"});
  c.policy("ns", "a", "g");
  c.start();
  c.live(3000);
  c.world.gateways["g"].meta.finalizers.clear();
  c.input.world = &c.world;
  core::observe(c.input);
  EXPECT_TRUE(gives_finalizer(core::plan(c.input, &c.memory)));
  EXPECT_TRUE(gives_finalizer(core::plan(c.input, &c.memory)));
}

// A kubelet writes its Node's status every few minutes, and on each pull of an image.
TEST(PlanMemory, ANodesStatusWakesNoGateway) {
  Cluster c;
  c.remembers = true;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1-10.0.0.4"});
  c.policy("ns", "a", "g");
  c.start();
  c.live(3000);
  ASSERT_TRUE(c.memory.quiet.contains("g"));
  const std::uint64_t inputs = c.memory.quiet["g"].inputs;
  c.world.nodes["n1"].meta.revision = 1'000'000;
  c.step();
  ASSERT_TRUE(c.memory.quiet.contains("g"));
  EXPECT_EQ(c.memory.quiet["g"].inputs, inputs);
  c.world.nodes["n1"].meta.labels["egress"] = "false";
  c.step();
  EXPECT_TRUE(!c.memory.quiet.contains("g") || c.memory.quiet["g"].inputs != inputs);
}

}  // namespace
}  // namespace egw::test
