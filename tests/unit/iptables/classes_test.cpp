// A pod whose class changes, and classes of which nothing is known: at no moment is a packet left
// alone that no class leaves alone.
#include <gtest/gtest.h>

#include "iptables/adoption.hpp"
#include "iptables/rules.hpp"
#include "iptables/sets.hpp"

namespace egw::iptables {
namespace {

sdk::Prefix prefix(const char* text) { return *sdk::Prefix::parse(text); }

struct Kernel {
  Kernel() {
    in.node.enable_ipv4 = true;
    in.node.tunnel_device = "egress.vxlan";
    in.node.underlay = *sdk::Address::parse("10.6.0.11");
    in.node.slot_mask = 0xff000000;
    in.node.ct_mask = 0xfff80000;
    marks = Marks(in.node.slot_mask, in.node.ct_mask);
  }
  void holds(const std::string& group, const char* destination, std::uint32_t number) {
    for (const char* what : {"who", "what"}) {
      sets[set_name(Table::kIp, what + group)].elements[prefix(destination)] = {number, 0};
    }
  }
  void pod_has(const char* pod, std::uint32_t number) {
    sets[set_name(Table::kIp, "pods")].elements[prefix(pod)] = {value(marks, Kind::kClass) | number,
                                                                marks.slot_mask() | kIdMask};
  }
  // The rules of a plan with these classes.
  const Chains& change_to(const ClassGroups& planned, const ClassGroups& ruled) {
    in.classes = with_former(Table::kIp, planned, ruled, sets, marks);
    rules = rules_for(Table::kIp, in);
    return rules[static_cast<std::size_t>(Xt::kMangle)].chains;
  }

  RuleInput in;
  Marks marks;
  SetContents sets;
  FamilyRules rules;
};

TEST(FormerClass, StandsInTheTreeUntilNoPodHasItsNumber) {
  Kernel k;
  k.holds("0", "10.6.0.0/16", 1);
  k.holds("1", "10.6.0.0/16", 2);
  k.pod_has("10.244.1.10/32", 1);
  const ClassGroups both{{1, 0}, {2, 1}};
  EXPECT_EQ(classes_ruled(Table::kIp, k.change_to({{2, 1}}, {{1, 0}}), k.sets, k.marks), both);
  EXPECT_EQ(k.in.classes, both);
  k.pod_has("10.244.1.10/32", 2);
  EXPECT_EQ(k.change_to({{2, 1}}, both).count("EGW-G0"), 0U);
  EXPECT_EQ(k.in.classes, (ClassGroups{{2, 1}}));
}

TEST(FormerClass, GivesWayToOneWithItsNumber) {
  Kernel k;
  k.holds("0", "10.6.0.0/16", 1);
  k.holds("1", "10.6.0.0/16", 1);
  k.pod_has("10.244.1.10/32", 1);
  k.change_to({{1, 1}}, {{1, 0}});
  EXPECT_EQ(k.in.classes, (ClassGroups{{1, 1}}));
}

// Somebody has taken the sets away: no rule can name them.
TEST(FormerClass, NeedsItsSets) {
  Kernel k;
  k.pod_has("10.244.1.10/32", 1);
  k.change_to({}, {{1, 0}});
  EXPECT_EQ(k.in.classes, ClassGroups{});
}

TEST(Adoption, AClassIsReadWithWhatItSaysOfAllOthers) {
  Kernel k;
  const std::uint32_t mask = k.marks.slot_mask() | kIdMask;
  const auto steer = [&](std::uint32_t id) {
    return MarkChange{k.marks.value(Slot::kSteer) | id, mask};
  };
  const auto holds = [&](const char* group, std::uint32_t number) {
    k.sets[set_name(Table::kIp, std::string("who") + group)].elements[prefix("10.6.0.0/16")] = {
        number, 0};
    k.sets[set_name(Table::kIp, std::string("what") + group)].elements[prefix("10.6.0.0/16")] =
        steer(7);
  };
  holds("0", 1);
  holds("1", 2);
  k.pod_has("10.244.1.10/32", 1);
  k.pod_has("10.244.1.11/32", 2);
  auto& rest = k.sets[set_name(Table::kIp, "rest")].elements;
  rest[prefix("10.244.1.10/32")] = {0, mask};
  rest[prefix("10.244.1.11/32")] = steer(8);
  const auto classes = classes_in(Table::kIp, k.sets, k.marks);
  ASSERT_EQ(classes.size(), 2U);
  const common::ClassEntry own{prefix("10.6.0.0/16"), 7};
  EXPECT_EQ(classes[0].first, common::ClassEntries{own});
  EXPECT_EQ(classes[1].first, (common::ClassEntries{{prefix("0.0.0.0/0"), 8}, own}));
}

TEST(Class, WithoutAGroupIsDropped) {
  Kernel k;
  const std::string drop = "-m comment --comment egw-no_egress -j DROP";
  EXPECT_EQ(k.change_to({}, {}).at("EGW-CLASS"), std::vector<std::string>{drop});
  const auto& tree = k.change_to({{1, 0}, {2, 1}}, {}).at("EGW-CLASS");
  ASSERT_EQ(tree.size(), 3U);
  EXPECT_EQ(tree.back(), drop);
}

TEST(Class, IsDroppedWhereASetHasNoAnswer) {
  Kernel k;
  const auto& chains = k.change_to({{1, 0}}, {});
  for (const char* name : {"EGW-REST", "EGW-H0"}) {
    const auto& rules = chains.at(name);
    ASSERT_EQ(rules.size(), 3U);
    EXPECT_EQ(rules[0], "-j MARK --set-xmark 0x01000000/0xff003fff");
    EXPECT_EQ(rules[2], "-g EGW-DONE");
  }
}

TEST(Class, SaysOfOtherDestinationsThatTheyAreLeftAlone) {
  sdk::State state;
  state.node.enable_ipv4 = true;
  state.egresses[7];
  sdk::ClassRule rule;
  rule.destination = prefix("10.6.0.0/16");
  rule.action = {sdk::ActionKind::kEgress, 7};
  state.classes[1] = {rule};
  common::Numbering numbering;
  std::vector<common::ObjectFailure> failures;
  common::Plan plan;
  plan.build(state, numbering, failures);
  std::array<Groups, 2> groups;
  const SetPlan sets(plan, groups, failures);
  const PodMarks marks = sets.marks_of(Table::kIp, plan.target(1, Table::kIp));
  EXPECT_TRUE(marks.has_rest);
  EXPECT_EQ(marks.rest.value, 0U);
  EXPECT_NE(marks.rest.mask, 0U);
}

}  // namespace
}  // namespace egw::iptables
