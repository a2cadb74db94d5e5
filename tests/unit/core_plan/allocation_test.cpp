// Which EIP a policy gets.
#include <gmock/gmock.h>

#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

using testing::HasSubstr;

TEST(PlanAllocation, DefaultEipIsShared) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1-10.0.0.4"}, {}, "10.0.0.3");
  c.policy("ns", "a", "g");
  c.policy("", "b", "g");
  c.start();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.3");
  EXPECT_EQ(c.status("b", "").ipv4, "10.0.0.3");
  const model::EipStatus* e = c.eip("g", "10.0.0.3");
  ASSERT_NE(e, nullptr);
  EXPECT_EQ(e->policies, (std::vector<model::PolicyRef>{{"a", "ns"}, {"b", ""}}));
  EXPECT_EQ(c.status("a").node, c.status("b", "").node);
}

// Left over from the reference implementation: it never programmed the second one.
TEST(PlanAllocation, SecondPolicyOnAPlacedDefaultEip) {
  Cluster c;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1-10.0.0.4"}, {}, "10.0.0.1");
  c.policy("ns", "a", "g");
  c.start();
  const std::uint32_t id = c.eip("g", "10.0.0.1")->id;
  c.policy("ns", "b", "g");
  c.settle();
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.1");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->id, id);
  EXPECT_EQ(c.eip("g", "10.0.0.1")->policies.size(), 2U);
}

TEST(PlanAllocation, APoolWithoutDefaultUsesItsFirst) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.8/30"}, {"fd00::8/126"});
  c.policy("ns", "a", "g");
  c.start();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.9");
  EXPECT_EQ(c.status("a").ipv6, "fd00::8");
}

TEST(PlanAllocation, AChangedDefaultDoesNotChangeWhatAPolicyHas) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.4"}, {}, "10.0.0.1");
  c.policy("ns", "a", "g");
  c.start();
  c.world.gateways["g"].spec.ippools.ipv4_default_eip = "10.0.0.2";
  c.policy("ns", "b", "g");
  c.settle();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1");
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.2");
}

TEST(PlanAllocation, RoundRobinGoesRoundThePool) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.3"});
  for (const char* p : {"a", "b"}) c.rr(p, "g");
  c.start();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1");
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.2");
  c.drop_policy("b");
  c.rr("c", "g");
  c.settle();
  EXPECT_EQ(c.status("c").ipv4, "10.0.0.3") << "goes on, although .2 is free";
  c.rr("d", "g");
  c.settle();
  EXPECT_EQ(c.status("d").ipv4, "10.0.0.2");
}

// Pools that differ while a family is switched off: the order is that of the family that is on, and
// an EIP without a partner gets one when there is one.
TEST(PlanAllocation, PoolsThatDifferBesideAFamilyThatIsOff) {
  Cluster c;
  c.nodes(1);
  c.settings.enable_ipv4 = false;
  c.gateway("g", {"10.0.0.1-10.0.0.2"}, {"fd00::1-fd00::3"});
  for (const char* p : {"a", "b", "c"}) c.rr(p, "g");
  c.start();
  EXPECT_EQ(c.status("a").ipv6, "fd00::1");
  EXPECT_EQ(c.status("b").ipv6, "fd00::2");
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.2");
  EXPECT_EQ(c.status("c").ipv6, "fd00::3") << c.reason("c");
  EXPECT_EQ(c.status("c").ipv4, "");

  c.settings.enable_ipv4 = true;
  c.settle();
  EXPECT_EQ(c.status("c").ipv4, "") << "there is none";
  const auto* told = find_condition(c.status("c").conditions, "FamilyNotCovered");
  ASSERT_NE(told, nullptr);
  EXPECT_EQ(told->reason, "NoPartner") << told->message;
  EXPECT_EQ(find_condition(c.status("b").conditions, "FamilyNotCovered"), nullptr);
  c.drop_policy("a");
  c.world.gateways["g"].spec.ippools.ipv4 = {"10.0.0.1-10.0.0.2", "10.0.0.9"};
  touch(c.world, c.world.gateways["g"].meta);
  c.settle();
  EXPECT_EQ(c.status("c").ipv6, "fd00::3");
  EXPECT_EQ(c.status("c").ipv4, "10.0.0.9") << "the defaults are for each other";
  EXPECT_EQ(c.eip("g", "fd00::3")->ipv4, "10.0.0.9");
  EXPECT_EQ(find_condition(c.status("c").conditions, "FamilyNotCovered"), nullptr);
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.2") << "a pair stays";
}

TEST(PlanAllocation, RoundRobinLeavesOutWhatAnyPolicyHolds) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.4"}, {}, "10.0.0.1");
  c.policy("ns", "d", "g");
  c.named("e", "g", "10.0.0.2");
  c.rr("a", "g");
  c.rr("b", "g");
  c.start();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.3");
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.4");
}

TEST(PlanAllocation, WaitsForAFreeEipAndIsServedAsSoonAsThereIsOne) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.2"});
  for (const char* p : {"a", "b", "c", "d"}) c.rr(p, "g");
  c.start();
  EXPECT_EQ(c.reason("c"), "NoFreeEip");
  EXPECT_EQ(c.status("c").ipv4, "");
  EXPECT_EQ(c.count("NoFreeEip"), 2) << "told once for each";
  const std::uint32_t id = c.eip("g", "10.0.0.1")->id;
  c.drop_policy("a");
  c.settle();
  EXPECT_EQ(c.status("c").ipv4, "10.0.0.1") << "the oldest that waits";
  EXPECT_EQ(c.reason("c"), "Allocated");
  EXPECT_EQ(c.reason("d"), "NoFreeEip");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->id, id) << "the EIP lived on";
  EXPECT_TRUE(c.info().retired.empty());
  c.world.gateways["g"].spec.ippools.ipv4.push_back("10.0.0.9");
  c.settle();
  EXPECT_EQ(c.status("d").ipv4, "10.0.0.9");
}

TEST(PlanAllocation, NamedEipIsGivenAndShared) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.4"});
  c.named("a", "g", "10.0.0.4");
  c.named("b", "g", "10.0.0.4");
  c.start();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.4");
  EXPECT_EQ(c.eip("g", "10.0.0.4")->policies.size(), 2U);
}

TEST(PlanAllocation, NamedEipOutsideThePool) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.4"});
  c.named("a", "g", "10.0.0.9");
  c.start();
  EXPECT_EQ(c.reason("a"), "EipNotInPool");
  c.world.gateways["g"].spec.ippools.ipv4.push_back("10.0.0.9");
  c.settle();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.9");
}

TEST(PlanAllocation, AnAddressTakenOutOfThePoolIsGivenUp) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.2"});
  c.rr("a", "g");
  c.rr("b", "g");
  c.start();
  c.world.gateways["g"].spec.ippools.ipv4 = {"10.0.0.2-10.0.0.3"};
  c.settle();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.3");
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.2");
}

TEST(PlanAllocation, GatewayNotFound) {
  Cluster c;
  c.nodes(1);
  c.policy("ns", "a", "g");
  c.start();
  EXPECT_EQ(c.reason("a"), "GatewayNotFound");
  c.gateway("g", {"10.0.0.1"});
  c.settle();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1");
}

TEST(PlanAllocation, EmptyPool) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {});
  c.policy("ns", "a", "g");
  c.rr("b", "g");
  c.start();
  EXPECT_EQ(c.reason("a"), "EmptyPool");
  EXPECT_EQ(c.reason("b"), "EmptyPool");
}

TEST(PlanAllocation, OneBadEntryOrPolicyStopsNobodyElse) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"nonsense", "10.0.0.1-10.0.0.2"});
  c.named("bad", "g", "::ffff:1.2.3.4");
  c.rr("a", "g");
  c.start();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1");
  EXPECT_EQ(c.reason("bad"), "EipNotInPool");
  ASSERT_NE(c.condition("g", "InvalidPool"), nullptr);
  EXPECT_THAT(c.condition("g", "InvalidPool")->message, HasSubstr("spec.ippools.ipv4[0]"));
}

TEST(PlanAllocation, IpUsageCountsAddressesAndSaturates) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.0/29"}, {"fd00::/64"});
  c.gateway("small", {"10.1.0.1"}, {});
  c.rr("a", "g");
  c.rr("b", "g");
  c.policy("ns", "d", "small");
  c.start();
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(c.world.gateways["g"].status.ip_usage, (model::IpUsage{6, 4, kMost, kMost}));
  EXPECT_EQ(c.world.gateways["small"].status.ip_usage, (model::IpUsage{1, 0, 0, 0}));
}

TEST(PlanAllocation, TwoGatewaysWithOneAddressTheYoungerLoses) {
  Cluster c;
  c.nodes(1);
  c.gateway("young", {"10.0.0.5-10.0.0.9"}).meta.created_ms = 500;
  c.gateway("old", {"10.0.0.1-10.0.0.5"}).meta.created_ms = 400;
  c.named("a", "young", "10.0.0.5");
  c.rr("b", "young");
  c.named("d", "old", "10.0.0.5");
  c.start();
  EXPECT_EQ(c.reason("a"), "PoolConflict");
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.6");
  EXPECT_EQ(c.status("d").ipv4, "10.0.0.5");
  ASSERT_NE(c.condition("young", "PoolConflict"), nullptr);
  EXPECT_THAT(c.condition("young", "PoolConflict")->message,
              HasSubstr("10.0.0.5 is in the pool of EgressGateway old too, which"));
  EXPECT_EQ(c.condition("old", "PoolConflict"), nullptr);
}

// Its partner would get another address, for good.
TEST(PlanAllocation, ADefaultHalfOfWhichAnotherHasIsNotPairedAnew) {
  Cluster c;
  c.nodes(1);
  c.gateway("young", {"10.0.0.2-10.0.0.3"}, {"fd00::1-fd00::2"}, "10.0.0.2", "fd00::1")
      .meta.created_ms = 500;
  c.gateway("old", {"10.0.0.2"}).meta.created_ms = 400;
  c.policy("ns", "a", "young");
  c.start();
  EXPECT_EQ(c.reason("a"), "PoolConflict");
  EXPECT_EQ(c.status("a").ipv6, "");
}

TEST(PlanAllocation, RoundRobinOfAGatewayWhosePoolIsAnothersSaysSo) {
  Cluster c;
  c.nodes(1);
  c.gateway("young", {"10.0.0.5"}).meta.created_ms = 500;
  c.world.gateways["young"].spec.ippools.ipv4_default_eip = "10.0.0.5";
  c.gateway("old", {"10.0.0.5"}).meta.created_ms = 400;
  c.rr("a", "young");
  c.policy("ns", "b", "young");
  c.start();
  EXPECT_EQ(c.reason("a"), "PoolConflict");
  EXPECT_EQ(c.reason("b"), "PoolConflict");
}

TEST(PlanAllocation, AnAddressAlreadyGivenStaysWithTheGatewayThatGaveIt) {
  Cluster c;
  c.nodes(1);
  c.gateway("old", {"10.0.0.1"});
  c.gateway("young", {"10.0.0.5"});
  c.policy("ns", "a", "young");
  c.start();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.5");
  c.world.gateways["old"].spec.ippools.ipv4.push_back("10.0.0.5");  // a race with admission
  c.named("b", "old", "10.0.0.5");
  c.settle();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.5");
  EXPECT_EQ(c.reason("b"), "PoolConflict");
  ASSERT_NE(c.condition("old", "PoolConflict"), nullptr);
  EXPECT_THAT(c.condition("old", "PoolConflict")->message,
              HasSubstr("10.0.0.5 is in the pool of EgressGateway young too, which has given it"));
  EXPECT_EQ(c.condition("young", "PoolConflict"), nullptr);
  c.named("c", "old", "10.0.0.9");
  c.settle();
  EXPECT_EQ(c.reason("c"), "EipNotInPool") << "the conflict is about another address";
}

// An EIP is never an address of the cluster itself, whoever came first.
TEST(PlanAllocation, AnEipThatANodeTurnsOutToHaveIsNotPlacedUntilItHasNot) {
  Cluster c;
  c.remembers = true;
  c.nodes(2);
  c.gateway("g", {"10.0.0.1-10.0.0.2"}, {}, "10.0.0.1");
  c.policy("ns", "a", "g").spec.failure_policy = model::FailurePolicy::kNodeIp;
  c.rr("b", "g");
  c.start();
  c.settle();
  ASSERT_EQ(c.status("b").ipv4, "10.0.0.2");
  const auto id = c.eip("g", "10.0.0.1")->id;
  const std::string owner = c.owner("g", "10.0.0.1");
  const auto conflict = [&c] {
    const auto* found = c.condition("g", "PoolConflict");
    return found == nullptr ? "" : found->message;
  };
  EXPECT_EQ(conflict(), "");
  c.node("n9", {});
  c.world.nodes["n9"].internal_ips = {"10.0.0.1"};
  c.settle();
  EXPECT_EQ(c.owner("g", "10.0.0.1"), "");
  EXPECT_NE(c.owner("g", "10.0.0.2"), "") << "what does not collide stays";
  EXPECT_THAT(
      conflict(),
      testing::HasSubstr("10.0.0.1 of the pool belongs to the address of node n9 (10.0.0.1/32)"));
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1") << "it is still its own";
  const auto* placed = find_condition(c.status("a").conditions, "Placed");
  EXPECT_EQ(placed->reason, "PoolConflict");
  EXPECT_EQ(placed->message, conflict());
  EXPECT_EQ(c.count("PoolConflict"), 1);
  EXPECT_EQ(c.condition("g", "OwnerNotReady"), nullptr);
  EXPECT_EQ(c.world.gateways["g"].status.ip_usage.ipv4_free, 0);
  c.policy("ns", "late", "g");
  c.named("named", "g", "10.0.0.1");
  c.settle();
  EXPECT_EQ(c.reason("late"), "PoolConflict");
  EXPECT_EQ(c.reason("named"), "PoolConflict");
  EXPECT_FALSE(c.eip("g", "10.0.0.1")->unserved);
  c.live(15'000);
  EXPECT_TRUE(c.eip("g", "10.0.0.1")->unserved) << "failurePolicy NodeIP acts";
  c.world.nodes["n9"].internal_ips = {"192.0.2.99"};
  touch(c.world, c.world.nodes["n9"].meta);
  c.settle();
  EXPECT_EQ(conflict(), "");
  EXPECT_NE(c.owner("g", "10.0.0.1"), "");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->id, id);
  EXPECT_FALSE(c.eip("g", "10.0.0.1")->unserved);
  EXPECT_EQ(c.reason("late"), "Allocated");
  EXPECT_EQ(c.reason("named"), "Allocated");
  EXPECT_THAT(c.condition("g", "LastMove")->message, testing::HasSubstr("from " + owner + " to "));
}

TEST(PlanAllocation, PrefixesOfPodsAndServicesCollideToo) {
  for (const char* what : {"pods", "calico", "services", "uplink"}) {
    Cluster c;
    c.remembers = true;
    c.nodes(2);
    c.gateway("g", {"10.0.0.1-10.0.0.9"});
    c.gateway("h", {"10.7.0.1"});
    c.rr("a", "g");
    c.policy("ns", "h", "h");
    c.start();
    c.settle();
    const std::string text(what);
    if (text == "pods") c.world.nodes["n2"].pod_cidrs = {"10.0.0.0/24"};
    if (text == "calico") c.world.ip_pools["pool"].cidrs = {"10.0.0.0/24"};
    if (text == "services") c.world.service_cidrs["kubernetes"].cidrs = {"10.0.0.0/24"};
    if (text == "uplink") c.tunnel("n2").status.parent.ipv4 = "10.0.0.1";
    c.world.ip_pools_known = c.world.service_cidrs_known = true;
    touch(c.world, c.world.nodes["n2"].meta);
    touch(c.world, c.tunnel("n2").meta);
    c.settle();
    EXPECT_EQ(c.owner("g", "10.0.0.1"), "") << what;
    EXPECT_NE(c.owner("h", "10.7.0.1"), "") << what;
    c.rr("b", "g");
    c.settle();
    EXPECT_EQ(c.reason("b"), text == "uplink" ? "Allocated" : "PoolConflict") << what;
  }
}

TEST(PlanAllocation, APolicyMadeAnewGetsWhatItsOwnSpecSays) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.4"}, {}, "10.0.0.1");
  c.named("a", "g", "10.0.0.3").meta.uid = "first";
  c.policy("ns", "b", "g").meta.uid = "other";
  c.start();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.3");
  const auto refs = c.eip("g", "10.0.0.3")->policies;
  EXPECT_EQ(refs, (std::vector<model::PolicyRef>{{"a", "ns", "first"}}));
  // Both between two plans: the leader never saw it gone.
  c.policy("ns", "a", "g").meta.uid = "second";
  c.settle();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1") << "it names no EIP: the default is its due";
  EXPECT_EQ(c.eip("g", "10.0.0.3"), nullptr);
  c.rr("b", "g").meta.uid = "another";
  c.settle();
  EXPECT_EQ(c.status("b").ipv4, "10.0.0.2") << "one that nobody holds";
  EXPECT_EQ(c.eip("g", "10.0.0.1")->policies,
            (std::vector<model::PolicyRef>{{"a", "ns", "second"}}));
}

TEST(PlanAllocation, WhatAnOlderVersionRecordedStays) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1-10.0.0.4"}, {}, "10.0.0.1");
  c.policy("ns", "a", "g").meta.uid = "first";
  c.start();
  c.world.gateways["g"].spec.ippools.ipv4_default_eip = "10.0.0.2";
  c.world.gateways["g"].status.node_list[0].eips[0].policies[0].uid.clear();
  c.settle();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1");
  EXPECT_EQ(c.eip("g", "10.0.0.1")->policies[0].uid, "first");
}

TEST(PlanAllocation, OfTwoDefaultsTheOlderIsItAndTheYoungerIsTold) {
  Cluster c;
  c.remembers = true;
  c.nodes(1);
  c.gateway("a", {"10.0.0.1"}).spec.cluster_default = true;
  c.gateway("b", {"10.0.0.2"}).spec.cluster_default = true;
  c.world.gateways["b"].meta.created_ms = 0;
  c.start();
  EXPECT_EQ(c.condition("b", "DefaultConflict"), nullptr);
  ASSERT_NE(c.condition("a", "DefaultConflict"), nullptr);
  EXPECT_THAT(c.condition("a", "DefaultConflict")->message, HasSubstr("EgressGateway b is the"));
  c.world.gateways["b"].spec.cluster_default = false;
  touch(c.world, c.world.gateways["b"].meta);
  c.settle();
  EXPECT_EQ(c.condition("a", "DefaultConflict"), nullptr);
}

TEST(PlanAllocation, ADeletedGatewayServesUntilNobodyUsesIt) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1"});
  c.policy("ns", "a", "g");
  c.policy("", "b", "g");
  c.start();
  c.delete_gateway("g");
  c.settle();
  EXPECT_EQ(c.status("a").ipv4, "10.0.0.1");
  ASSERT_NE(c.condition("g", "Deleting"), nullptr);
  EXPECT_THAT(c.condition("g", "Deleting")->message, HasSubstr("b, ns/a"));
  c.policy("ns", "late", "g");
  c.settle();
  EXPECT_EQ(c.reason("late"), "GatewayDeleting");
  c.drop_policy("late");
  c.drop_policy("a");
  c.settle();
  EXPECT_TRUE(c.world.gateways.contains("g"));
  c.drop_policy("b", "");
  c.settle();
  EXPECT_FALSE(c.world.gateways.contains("g"));
  ASSERT_EQ(c.info().retired.size(), 1U) << "its id went before it did";
}

TEST(PlanAllocation, ADeletedGatewaySaysWhoseFinalizersHoldIt) {
  Cluster c;
  c.nodes(1);
  c.gateway("g", {"10.0.0.1"}).meta.finalizers.emplace_back("example.org/x");
  c.start();
  c.delete_gateway("g");
  c.settle();
  ASSERT_NE(c.condition("g", "Deleting"), nullptr);
  EXPECT_EQ(c.condition("g", "Deleting")->reason, "HeldByFinalizers");
  EXPECT_THAT(c.condition("g", "Deleting")->message, HasSubstr("taken off: example.org/x"));
}

}  // namespace
}  // namespace egw::test
