// The announcer's decisions, at a time that the test makes.
#include "egw/net/eip_table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace egw::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

model::Address ip(const char* text) { return model::Address::parse(text).value(); }
model::Prefix net(const char* text) { return model::Prefix::parse(text).value(); }

const model::Mac kOurs{2, 0, 0, 0, 0, 1};
const model::Mac kStranger{2, 0, 0, 0, 0, 9};
const model::Mac kGateway{2, 0, 0, 0, 0, 7};
const auto kEip = ip("10.0.0.50");

NeighbourMessage asks(const model::Mac& from, const model::Address& source,
                      const model::Address& target) {
  NeighbourMessage out;
  out.asks = true;
  out.from = out.frame_source = from;
  out.source = out.claimed = source;
  out.target = target;
  return out;
}

NeighbourMessage claims(const model::Mac& from, const model::Address& address) {
  auto out = asks(from, address, address);
  out.asks = false;
  return out;
}

class EipTableTest : public ::testing::Test {
 protected:
  EipTableTest() {
    table.set_ports({port(1)}, now);
    table.set_gateway_macs({kGateway});
  }
  static PortInfo port(unsigned index) {
    return {index, "eth" + std::to_string(index), kOurs, {net("10.0.0.0/24")}, false, false};
  }
  // Everything that is sent in the next `span`, as "12p" (a probe after 12 ms) or "12a".
  std::vector<std::string> run(milliseconds span) {
    std::vector<std::string> out;
    const auto begin = now;
    for (const auto end = now + span; now <= end; now += milliseconds(1)) {
      for (const auto& item : table.due(now, 100)) {
        out.push_back(std::to_string((now - begin) / milliseconds(1)) +
                      (item.what == EipTable::Send::kProbe ? "p" : "a"));
      }
    }
    return out;
  }
  bool answers() { return table.on_message(1, asks(kStranger, ip("10.0.0.9"), kEip), now).answer; }
  void take(bool probe_first = false) {
    table.set({{kEip, probe_first}}, now);
    run(milliseconds(4000));
    ASSERT_TRUE(answers());
  }

  AnnouncerOptions options;
  EipTable table{options};
  TimePoint now = TimePoint{} + seconds(1000);
};

TEST_F(EipTableTest, ProbesThenAnnouncesAtTheTimesGiven) {
  table.set({{kEip, true}}, now);
  EXPECT_FALSE(answers()) << "not before the probes are over";
  EXPECT_THAT(run(milliseconds(5000)),
              ElementsAre("0p", "50p", "100a", "150a", "300a", "1100a", "3100a"));
  EXPECT_TRUE(answers());
}

TEST_F(EipTableTest, KnownMoveIsAnnouncedAtOnce) {
  table.set({{kEip, false}}, now);
  EXPECT_THAT(run(milliseconds(60)), ElementsAre("0a", "50a"));
}

TEST_F(EipTableTest, AnswersOnlyWhatIsOwnedOnlyOnItsPort) {
  auto other = port(2);
  other.prefixes = {net("192.0.2.0/24")};
  table.set_ports({port(1), other}, now);
  take();
  EXPECT_TRUE(table.on_message(1, asks(kStranger, ip("10.0.0.9"), kEip), now).answer);
  EXPECT_FALSE(table.on_message(2, asks(kStranger, ip("10.0.0.9"), kEip), now).answer);
  EXPECT_FALSE(table.on_message(1, asks(kStranger, ip("10.0.0.9"), ip("10.0.0.51")), now).answer);
  EXPECT_FALSE(table.on_message(1, asks(kOurs, ip("10.0.0.1"), kEip), now).answer) << "our own";
}

TEST_F(EipTableTest, RemovedIsNoLongerAnsweredNorAnnounced) {
  table.set({{kEip, false}}, now);
  run(milliseconds(10));
  table.set({}, now);
  EXPECT_FALSE(answers());
  EXPECT_THAT(run(seconds(5)), IsEmpty());
}

TEST_F(EipTableTest, SettingTheSameAgainChangesNothing) {
  table.set({{kEip, false}}, now);
  run(milliseconds(10));
  table.set({{kEip, true}, {ip("10.0.0.51"), false}}, now);
  EXPECT_TRUE(answers());
}

TEST_F(EipTableTest, StrangerWhoAnswersTheProbeKeepsTheAddress) {
  table.set({{kEip, true}}, now);
  run(milliseconds(10));
  const auto outcome = table.on_message(1, claims(kStranger, kEip), now);
  EXPECT_TRUE(outcome.tell);
  EXPECT_FALSE(outcome.claim.from_gateway);
  EXPECT_EQ(outcome.claim.mac, kStranger);
  EXPECT_EQ(outcome.claim.interface, "eth1");
  EXPECT_THAT(run(seconds(9)), IsEmpty());
  EXPECT_FALSE(answers());
  const auto later = run(seconds(2));
  ASSERT_EQ(later.size(), 5U) << "probed again after the defend interval, nobody answered";
  EXPECT_EQ(later[0].back(), 'p');
  EXPECT_EQ(later[4].back(), 'a');
}

TEST_F(EipTableTest, TwoWhoProbeAtOnceHaveAConflict) {
  table.set({{kEip, true}}, now);
  run(milliseconds(10));
  EXPECT_TRUE(table.on_message(1, asks(kStranger, {}, kEip), now).tell);
  EXPECT_THAT(run(seconds(1)), IsEmpty());
}

TEST_F(EipTableTest, FormerOwnersAnswerDoesNotHoldUpANewOwner) {
  table.set({{kEip, true}}, now);
  run(milliseconds(10));
  EXPECT_FALSE(table.on_message(1, claims(kGateway, kEip), now).tell);
  EXPECT_TRUE(answers());
  EXPECT_FALSE(run(milliseconds(1)).empty()) << "announced at once";
  table.on_message(1, claims(kGateway, kEip), now);
  EXPECT_TRUE(answers()) << "what the former owner still says is no claim";
}

TEST_F(EipTableTest, StrangersClaimIsToldAndDefendedOncePerInterval) {
  take();
  auto outcome = table.on_message(1, claims(kStranger, kEip), now);
  EXPECT_TRUE(outcome.tell);
  EXPECT_TRUE(outcome.announce);
  now += seconds(9);
  outcome = table.on_message(1, claims(kStranger, kEip), now);
  EXPECT_FALSE(outcome.tell);
  EXPECT_FALSE(outcome.announce);
  EXPECT_TRUE(answers());
  now += seconds(2);
  EXPECT_TRUE(table.on_message(1, claims(kStranger, kEip), now).announce);
  EXPECT_EQ(table.conflicts, 3U);
  // A request in which a stranger uses the address as his own, and his probe.
  now += seconds(11);
  EXPECT_TRUE(table.on_message(1, asks(kStranger, kEip, ip("10.0.0.1")), now).tell);
  now += seconds(11);
  const auto probe = table.on_message(1, asks(kStranger, {}, kEip), now);
  EXPECT_TRUE(probe.tell);
  EXPECT_TRUE(probe.answer) << "so that he keeps off";
}

TEST_F(EipTableTest, AnotherGatewaysClaimIsYieldedToUntilConfirmed) {
  take();
  const auto outcome = table.on_message(1, claims(kGateway, kEip), now);
  EXPECT_TRUE(outcome.tell);
  EXPECT_TRUE(outcome.claim.from_gateway);
  EXPECT_FALSE(outcome.announce) << "no defence";
  EXPECT_FALSE(answers());
  EXPECT_FALSE(table.on_message(1, claims(kGateway, kEip), now).tell) << "told once";
  table.set({{kEip, true}}, now);
  table.mute(true, now);
  table.mute(false, now);
  EXPECT_THAT(run(seconds(20)), IsEmpty());
  table.confirm(kEip, now);
  EXPECT_TRUE(answers());
  EXPECT_THAT(run(milliseconds(10)), ElementsAre("0a"));
  EXPECT_EQ(table.yielded, 1U);
}

TEST_F(EipTableTest, AnotherGatewaysProbeIsAnsweredAndNoClaim) {
  take();
  const auto outcome = table.on_message(1, asks(kGateway, {}, kEip), now);
  EXPECT_TRUE(outcome.answer);
  EXPECT_FALSE(outcome.tell);
  EXPECT_TRUE(answers());
}

TEST_F(EipTableTest, AfterALostLinkItProbesAndYieldsToTheLaterOwner) {
  take();
  table.set_ports({}, now);
  EXPECT_FALSE(answers());
  EXPECT_THAT(run(seconds(5)), IsEmpty());
  EXPECT_THAT(table.take_warnings(), ElementsAre(testing::HasSubstr("EIP 10.0.0.50 is not")));
  table.set_ports({port(1)}, now);
  EXPECT_THAT(run(milliseconds(10)), ElementsAre("0p"));
  EXPECT_TRUE(table.on_message(1, claims(kGateway, kEip), now).tell);
  EXPECT_FALSE(answers());
  EXPECT_THAT(run(seconds(20)), IsEmpty());
}

TEST_F(EipTableTest, MuteStopsEverythingAndProbesAfterwards) {
  take();
  table.mute(true, now);
  EXPECT_FALSE(answers());
  table.set({{kEip, false}, {ip("10.0.0.51"), false}}, now);
  EXPECT_THAT(run(seconds(5)), IsEmpty());
  table.mute(false, now);
  EXPECT_THAT(run(milliseconds(10)), ElementsAre("0p", "0a")) << ".50 comes back, .51 is new";
}

TEST_F(EipTableTest, WhileMutedALaterOwnerIsHeard) {
  take();
  table.mute(true, now);
  EXPECT_TRUE(table.on_message(1, claims(kGateway, kEip), now).claim.from_gateway);
  table.mute(false, now);
  EXPECT_THAT(run(seconds(5)), IsEmpty());
}

TEST_F(EipTableTest, WithoutSubnetTheDefaultRoutesPortIsUsedWithAWarning) {
  auto uplink = port(3);
  uplink.prefixes = {net("198.51.100.0/24")};
  uplink.default_v4 = true;
  table.set_ports({uplink}, now);
  table.set({{kEip, false}}, now);
  EXPECT_EQ(*table.ports_of(kEip), std::vector<unsigned>{3});
  EXPECT_THAT(table.take_warnings(), ElementsAre(testing::HasSubstr("announced on eth3")));
  table.set_ports({uplink, port(1)}, now);
  EXPECT_EQ(*table.ports_of(kEip), std::vector<unsigned>{1});
  EXPECT_THAT(table.take_warnings(), IsEmpty());
}

TEST_F(EipTableTest, ASubnetIsLostWithItsInterfaceUntilThereIsOneAgain) {
  const LostSubnet lost{net("10.0.0.0/24"), "eth1"};
  PortInfo uplink{2, "eth0", kOurs, {net("192.0.2.0/24")}, true, true};
  take();
  EXPECT_TRUE(table.take_news());
  EXPECT_THAT(table.lost_subnets(), IsEmpty());
  EXPECT_THAT(table.silent(), IsEmpty());
  table.set_ports({uplink}, now);
  EXPECT_TRUE(table.take_news());
  EXPECT_FALSE(table.take_news());
  EXPECT_THAT(table.lost_subnets(), ElementsAre(lost));
  EXPECT_THAT(table.silent(), ElementsAre(kEip)) << "by default, where nobody looks for it";
  table.set({}, now);  // somebody else serves it; this node could not
  EXPECT_THAT(table.lost_subnets(), ElementsAre(lost));
  EXPECT_THAT(table.silent(), IsEmpty());
  table.set_ports({uplink, port(1)}, now);
  EXPECT_THAT(table.lost_subnets(), IsEmpty());
  table.set_ports({uplink}, now);
  EXPECT_THAT(table.lost_subnets(), ElementsAre(lost)) << "whether it has EIPs or not";
  table.set_ports({uplink, port(3)}, now);
  EXPECT_THAT(table.lost_subnets(), IsEmpty()) << "another interface has it";
}

// An interface that replaces the other may be made with another mask.
TEST_F(EipTableTest, ASubnetIsThereAgainInALargerOne) {
  PortInfo bridge = port(3);
  bridge.prefixes = {net("10.0.0.0/23")};
  PortInfo uplink{2, "eth0", kOurs, {net("192.0.2.0/24")}, true, true};
  take();
  table.set_ports({uplink}, now);
  ASSERT_EQ(table.lost_subnets().size(), 1U);
  table.set_ports({uplink, bridge}, now);
  EXPECT_EQ(*table.ports_of(kEip), std::vector<unsigned>{3});
  EXPECT_THAT(table.lost_subnets(), IsEmpty());
  EXPECT_THAT(table.silent(), IsEmpty());
}

TEST_F(EipTableTest, ASubnetOfAWorkingInterfaceIsNotLostWithALargerOne) {
  PortInfo wide = port(3);
  wide.prefixes = {net("10.0.0.0/8")};
  table.set_ports({port(1), wide}, now);
  take();
  table.set_ports({port(1)}, now);
  EXPECT_THAT(table.silent(), IsEmpty());
  const auto lost = table.lost_subnets();
  const auto is_lost = [&](const char* address) {
    return std::any_of(lost.begin(), lost.end(),
                       [&](const LostSubnet& part) { return part.subnet.contains(ip(address)); });
  };
  EXPECT_EQ(lost.size(), 16U) << "10.0.0.0/8 without 10.0.0.0/24";
  EXPECT_FALSE(is_lost("10.0.0.0") || is_lost("10.0.0.255"));
  EXPECT_TRUE(is_lost("10.0.1.0") && is_lost("10.255.255.255") && is_lost("10.128.0.0"));
  table.set_ports({port(1), wide}, now);
  EXPECT_THAT(table.lost_subnets(), IsEmpty());
}

TEST_F(EipTableTest, AnInterfaceThatHasOnlyLostItsSubnetIsTheSameLink) {
  take();
  PortInfo bare = port(1);
  bare.prefixes = {net("192.0.2.0/24")};
  bare.default_v4 = true;
  table.set_ports({bare}, now);
  EXPECT_THAT(table.lost_subnets(), IsEmpty());
  EXPECT_THAT(table.silent(), IsEmpty());
  bare.default_v4 = false;
  table.set_ports({bare}, now);
  EXPECT_THAT(table.lost_subnets(), IsEmpty()) << "no route is no lost link";
  EXPECT_THAT(table.silent(), ElementsAre(kEip));
}

TEST_F(EipTableTest, WhatCouldNotBeSentIsSentAgain) {
  table.set({{kEip, false}}, now);
  const auto first = table.due(now, 10);
  ASSERT_EQ(first.size(), 1U);
  table.again(first[0], now + milliseconds(5));
  EXPECT_THAT(run(milliseconds(60)), ElementsAre("5a", "50a"));
  table.again(first[0], now);
  table.set({}, now);
  table.again(first[0], now);
  EXPECT_THAT(run(milliseconds(60)), IsEmpty());
}

TEST_F(EipTableTest, NewMacIsAnnounced) {
  take();
  auto changed = port(1);
  changed.mac = {2, 0, 0, 0, 0, 3};
  table.set_ports({changed}, now);
  EXPECT_THAT(run(milliseconds(10)), ElementsAre("0a"));
}

TEST_F(EipTableTest, GroupsOfTheIpv6AddressesOfAPort) {
  auto both = port(1);
  both.prefixes.push_back(net("2001:db8::/64"));
  table.set_ports({both}, now);
  table.set({{kEip, false}, {ip("2001:db8::1:50"), false}, {ip("2001:db8:0:0:5::1:50"), false}},
            now);
  EXPECT_THAT(table.groups().at(1), ElementsAre(ip("ff02::1:ff01:50")));
}

TEST_F(EipTableTest, ManyAreListedShortly) {
  table.set_ports({}, now);
  std::vector<AnnouncedEip> eips;
  for (int i = 1; i <= 9; ++i) eips.push_back({ip(("10.0.0." + std::to_string(i)).c_str()), true});
  table.set(eips, now);
  const auto warnings = table.take_warnings();
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_THAT(warnings[0], testing::StartsWith("EIPs 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, "
                                               "10.0.0.5 and 4 more are not announced"));
}

}  // namespace
}  // namespace egw::net
