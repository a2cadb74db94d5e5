// Objects that cannot be read, in part or at all: nothing that they hold is given to others.
#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

// What can be read of a status counts, and it is written anew: its EIPs stay where they are, and no
// id is given twice.
TEST(PlanDamagedStatus, IsWrittenAnew) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.6.1.55", "10.6.1.56"});
  c.rr("a", "g");
  c.rr("b", "g");
  c.start();
  std::string owner, now;
  const model::EipStatus before = *c.eip("g", "10.6.1.56", &owner);
  model::EgressGateway& g = c.world.gateways.at("g");
  for (auto& node : g.status.node_list) {
    for (auto& eip : node.eips) {
      if (eip.ipv4 == "10.6.1.56") eip.id = 0;  // as "id: x" reads
    }
  }
  g.status_damaged = true;
  c.world.cluster_infos.at("default").status.next_egress_id = 1;  // as "nextEgressId: x" reads
  c.world.cluster_infos.at("default").status_damaged = true;
  c.world.policies.at({"ns", "a"}).status_damaged = true;
  c.world.tunnels.at("n1").status_damaged = true;
  c.settle();
  const model::EipStatus* after = c.eip("g", "10.6.1.56", &now);
  ASSERT_NE(after, nullptr);
  EXPECT_EQ(now, owner);
  EXPECT_EQ(after->policies, before.policies);
  EXPECT_GT(after->id, c.eip("g", "10.6.1.55")->id);
  EXPECT_FALSE(c.world.gateways.at("g").status_damaged);
  EXPECT_FALSE(c.world.policies.at({"ns", "a"}).status_damaged);
  EXPECT_FALSE(c.world.cluster_infos.at("default").status_damaged);
  EXPECT_FALSE(c.world.tunnels.at("n1").status_damaged);
}

TEST(PlanUnreadableGateway, NothingOfItIsGivenAway) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.6.1.55"});
  c.policy("ns", "a", "g");
  c.start();
  const model::EgressPolicy::Status before = c.status("a");
  const std::uint32_t id = c.eip("g", "10.6.1.55")->id;
  c.world.unreadable_gateways["g"].status = c.world.gateways.at("g").status;
  c.world.gateways.erase("g");
  c.world.cluster_infos.at("default").status.next_egress_id = id;
  c.gateway("other", {"10.6.2.1"});
  c.policy("ns", "b", "other");
  c.settle();
  EXPECT_EQ(c.status("a"), before);
  EXPECT_NE(c.eip("other", "10.6.2.1")->id, id);
}

TEST(PlanUnreadableGateway, ItsAddressIsNotGivenByAnother) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.6.1.55"});
  c.policy("ns", "a", "g");
  c.gateway("other", {"10.6.2.1"});
  c.policy("ns", "b", "other");
  c.start();
  c.live(3000);
  c.world.unreadable_gateways["g"].status = c.world.gateways.at("g").status;
  c.world.gateways.erase("g");
  // Admission cannot read its pool either.
  model::EgressGateway& other = c.world.gateways.at("other");
  other.spec.ippools.ipv4 = {"10.6.2.1", "10.6.1.55"};
  ++other.meta.revision;
  c.named("d", "other", "10.6.1.55");
  c.settle();
  EXPECT_EQ(c.reason("d"), "PoolConflict");
  EXPECT_EQ(c.eip("other", "10.6.1.55"), nullptr);
  EXPECT_EQ(c.status("b").ipv4, "10.6.2.1");
  ASSERT_NE(c.condition("other", "PoolConflict"), nullptr);
  EXPECT_THAT(c.condition("other", "PoolConflict")->message,
              ::testing::HasSubstr("10.6.1.55 is held by EgressGateway g, which cannot be read"));
}

}  // namespace
}  // namespace egw::test
