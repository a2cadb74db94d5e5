// The conditions Realised and Degraded of gateways and policies.
#include "unit/core_plan/cluster.hpp"

namespace egw::test {
namespace {

class Realised : public testing::Test {
 protected:
  Realised() {
    c.nodes(2);
    c.gateway("g", {"10.0.0.1-10.0.0.4"});
    c.policy("ns", "a", "g").meta.generation = 3;
    c.start();
  }
  model::EgressPolicy& policy() { return c.world.policies.at({"ns", "a"}); }
  std::string of(const model::Conditions& conditions, const char* type = "Realised") {
    const model::Condition* found = find_condition(conditions, type);
    if (found == nullptr) return "absent";
    return (found->status ? "True " : "False ") + found->reason + " " + found->message;
  }
  std::string policys() { return of(policy().status.conditions); }
  std::string gateways() { return of(c.world.gateways.at("g").status.conditions); }
  void all_program() {
    c.beat_all();
    c.settle();
  }
  Cluster c;
};

TEST_F(Realised, FalseUntilEveryReadyNodeHasProgrammedTheGeneration) {
  EXPECT_EQ(policys(), "False Programming generation 3");
  EXPECT_EQ(gateways(), "False Programming generation 0");
  c.beat("n1");
  c.settle();
  EXPECT_EQ(policys(), "False Programming generation 3") << "n2 has not";
  all_program();
  EXPECT_EQ(policys(), "True AllNodes generation 3");
  EXPECT_EQ(gateways(), "True AllNodes generation 0");

  policy().meta.generation = 4;
  touch(c.world, policy().meta);
  c.settle();
  EXPECT_EQ(policys(), "False Programming generation 4");
  EXPECT_EQ(gateways(), "True AllNodes generation 0") << "nothing new for it";
  all_program();
  EXPECT_EQ(policys(), "True AllNodes generation 4");
}

TEST_F(Realised, FalseAgainWhenTheEipMoves) {
  all_program();
  const std::string owner = policy().status.node;
  c.world.nodes.at(owner).ready = false;
  touch(c.world, c.world.nodes.at(owner).meta);
  c.settle();
  ASSERT_NE(policy().status.node, owner);
  EXPECT_EQ(policys(), "False Programming generation 3");
  EXPECT_EQ(gateways(), "False Programming generation 0");
  all_program();
  EXPECT_EQ(policys(), "True AllNodes generation 3");
  EXPECT_EQ(gateways(), "True AllNodes generation 0");
  EXPECT_EQ(of(policy().status.conditions, "Degraded"), "absent");
}

TEST_F(Realised, DegradedSaysWhatBecomesOfThePackets) {
  all_program();
  for (auto& [name, node] : c.world.nodes) {
    node.ready = false;
    touch(c.world, node.meta);
  }
  c.settle();
  EXPECT_EQ(of(policy().status.conditions, "Degraded"),
            "True OwnerNotReady its packets are dropped (failurePolicy Drop)");
  const auto& gateway = c.world.gateways.at("g").status.conditions;
  EXPECT_EQ(of(gateway, "Degraded").rfind("True OwnerNotReady no other Ready node", 0), 0U);
  policy().spec.failure_policy = model::FailurePolicy::kNodeIp;
  touch(c.world, policy().meta);
  c.settle();
  EXPECT_NE(of(policy().status.conditions, "Degraded").find("then failurePolicy NodeIP acts"),
            std::string::npos);
  c.pass(20'000);
  c.settle();
  EXPECT_NE(of(policy().status.conditions, "Degraded").find("leave with their node's address"),
            std::string::npos);
}

TEST_F(Realised, DestinationsOfAFamilyThatTheGatewayLacksAreTold) {
  EXPECT_EQ(of(policy().status.conditions, "FamilyNotCovered"),
            "True NoAddresses EgressGateway g has no IPv6 addresses; packets to IPv6 destinations "
            "are left alone and leave with the source that they have without a policy");
  policy().spec.dest_subnet = {"203.0.113.0/24"};
  touch(c.world, policy().meta);
  c.settle();
  EXPECT_EQ(of(policy().status.conditions, "FamilyNotCovered"), "absent");
  policy().spec.dest_subnet.emplace_back("2001:db8::/32");
  touch(c.world, policy().meta);
  c.settle();
  EXPECT_NE(of(policy().status.conditions, "FamilyNotCovered"), "absent");
  c.settings.enable_ipv6 = false;
  c.settle();
  EXPECT_EQ(
      of(policy().status.conditions, "FamilyNotCovered"),
      "True SwitchedOff IPv6 is switched off (feature.enableIPv6); packets to IPv6 "
      "destinations are left alone and leave with the source that they have without a policy");
  policy().spec.dest_subnet.clear();
  touch(c.world, policy().meta);
  c.settle();
  EXPECT_EQ(of(policy().status.conditions, "FamilyNotCovered"), "absent") << "nothing asks for it";
}

// Somebody else has set them: the leader knows better, whatever reason and message say.
TEST_F(Realised, UnknownBecomesWhatIsSo) {
  all_program();
  const auto told = policy().status;
  const auto of_gateway = c.world.gateways.at("g").status;
  const auto forget = [](model::Conditions& conditions) {
    for (auto& condition : conditions) condition.status = model::ConditionStatus::unknown();
  };
  forget(policy().status.conditions);
  touch(c.world, policy().meta);
  forget(c.world.gateways.at("g").status.conditions);
  touch(c.world, c.world.gateways.at("g").meta);
  all_program();
  all_program();
  for (const char* type : {"Allocated", "Placed", "Realised"}) {
    EXPECT_EQ(of(policy().status.conditions, type), of(told.conditions, type));
  }
  for (const char* type : {"Ready", "Realised"}) {
    EXPECT_EQ(of(c.world.gateways.at("g").status.conditions, type),
              of(of_gateway.conditions, type));
  }

  // What is False becomes False: it would be the same as True or nothing to who asks for True only.
  c.named("b", "g", "10.0.0.9");
  c.settle();
  forget(c.world.policies.at({"ns", "b"}).status.conditions);
  c.settle();
  const auto& b = c.world.policies.at({"ns", "b"}).status.conditions;
  for (const char* type : {"Allocated", "Placed", "Realised"}) {
    ASSERT_NE(find_condition(b, type), nullptr);
    EXPECT_EQ(find_condition(b, type)->status, false) << type;
  }
}

TEST_F(Realised, WhatHasNoEipIsNotRealised) {
  c.named("b", "g", "10.0.0.9");
  c.settle();
  EXPECT_EQ(of(c.world.policies.at({"ns", "b"}).status.conditions),
            "False NothingToProgram it has no EIP: see Allocated");
}

TEST_F(Realised, WithoutAnEipDegradedSaysWhyAndWhatBecomesOfThePackets) {
  c.named("b", "g", "10.0.0.9");
  c.policy("ns", "typo", "gmm").spec.failure_policy = model::FailurePolicy::kNodeIp;
  c.gateway("none", {});
  c.policy("ns", "empty", "none");
  c.settle();
  const auto degraded = [this](const char* name) {
    return of(c.world.policies.at({"ns", name}).status.conditions, "Degraded");
  };
  EXPECT_EQ(degraded("b"),
            "True EipNotInPool 10.0.0.9 is not in a pool of gateway g; its packets are dropped "
            "(failurePolicy Drop)");
  EXPECT_EQ(degraded("typo"),
            "True GatewayNotFound there is no EgressGateway \"gmm\"; its packets leave with their "
            "node's address (failurePolicy NodeIP)");
  EXPECT_EQ(degraded("empty"),
            "True EmptyPool gateway none has no addresses; only policies with useNodeIP can use "
            "it; its packets are left alone and leave with the source that they have without a "
            "policy");
  EXPECT_NE(of(c.world.policies.at({"ns", "empty"}).status.conditions, "FamilyNotCovered"),
            "absent");
  c.gateway("gmm", {"10.0.1.1"});
  c.settle();
  EXPECT_EQ(degraded("typo"), "absent");
}

}  // namespace
}  // namespace egw::test
