// EipKeeper: who answers for an EIP at which moment.
#include "egw/runtime/eip_keeper.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "egw/runtime/clock.hpp"
#include "recording_datapath.hpp"

namespace egw::runtime {
namespace {

using core::OwnedEip;
using testing::ElementsAre;
using testing::IsEmpty;

model::Address ip(const char* text) { return model::Address::parse(text).value(); }

class EipKeeperTest : public testing::Test {
 protected:
  test::RecordingAnnouncer announcer;
  EipKeeper keeper{announcer};
  const model::Address a = ip("10.6.1.55");
  const model::Address b = ip("fd00::55");
};

TEST_F(EipKeeperTest, AnnouncedOnlyWhenProgrammed) {
  keeper.assign({{a, 1, false}, {b, 1, false}}, {}, 100);
  EXPECT_THAT(announcer.eips, IsEmpty());
  keeper.realised({}, 110);
  EXPECT_THAT(announcer.addresses(), ElementsAre("10.6.1.55", "fd00::55"));
  EXPECT_TRUE(announcer.eips[0].probe_first);
}

TEST_F(EipKeeperTest, AFailedEgressIsNotAnnounced) {
  keeper.assign({{a, 1, false}, {b, 2, false}}, {}, 100);
  keeper.realised({1}, 110);
  EXPECT_THAT(announcer.addresses(), ElementsAre("fd00::55"));
  keeper.realised({}, 120);
  EXPECT_THAT(announcer.addresses(), ElementsAre("10.6.1.55", "fd00::55"));
}

TEST_F(EipKeeperTest, WithdrawnBeforeTheKernelIsTouched) {
  keeper.assign({{a, 1, false}}, {}, 100);
  keeper.realised({}, 110);
  keeper.assign({}, {}, 200);
  EXPECT_THAT(announcer.eips, IsEmpty());
}

TEST_F(EipKeeperTest, WithdrawTakesAwayAndAddsNothing) {
  keeper.assign({{a, 1, false}, {b, 2, false}}, {}, 100);
  keeper.realised({}, 110);
  keeper.withdraw({b, ip("10.6.1.99")}, {}, 200);
  EXPECT_THAT(announcer.addresses(), ElementsAre("fd00::55"));
  EXPECT_FALSE(keeper.owns(ip("10.6.1.99")));
}

TEST_F(EipKeeperTest, WithdrawLetsAPlannedMoveEndInItsOwnTime) {
  keeper.assign({{a, 1, false}}, {}, 100);
  keeper.realised({}, 110);
  keeper.withdraw({}, {a}, 200);
  EXPECT_FALSE(keeper.owns(a));
  EXPECT_THAT(announcer.addresses(), ElementsAre("10.6.1.55")) << "until the new owner is heard";
}

TEST_F(EipKeeperTest, NewOwnerOfAPlannedMoveWaitsForTheLeader) {
  keeper.assign({{a, 1, true}}, {}, 1000);
  keeper.realised({}, 1010);
  EXPECT_THAT(announcer.eips, IsEmpty());
  EXPECT_EQ(keeper.tick(1010), 1010 + EipKeeper::kMoveWaitMs);
  keeper.assign({{a, 1, false}}, {}, 1100);  // movingFrom cleared
  ASSERT_THAT(announcer.addresses(), ElementsAre("10.6.1.55"));
  EXPECT_FALSE(announcer.eips[0].probe_first);
}

TEST_F(EipKeeperTest, NewOwnerWaitsNoLongerThanItsTime) {
  keeper.assign({{a, 1, true}}, {}, 1000);
  keeper.realised({}, 1010);
  keeper.tick(1010 + EipKeeper::kMoveWaitMs - 1);
  EXPECT_THAT(announcer.eips, IsEmpty());
  keeper.tick(1010 + EipKeeper::kMoveWaitMs);
  EXPECT_THAT(announcer.addresses(), ElementsAre("10.6.1.55"));
}

TEST_F(EipKeeperTest, OldOwnerAnswersUntilItHearsTheNewOne) {
  keeper.assign({{a, 1, false}}, {}, 1000);
  keeper.realised({}, 1010);
  keeper.assign({}, {a}, 2000);
  EXPECT_THAT(announcer.addresses(), ElementsAre("10.6.1.55"));
  EXPECT_TRUE(keeper.handing_over());
  EXPECT_TRUE(keeper.claimed(a, true, 2050));
  EXPECT_THAT(announcer.eips, IsEmpty());
  EXPECT_FALSE(keeper.handing_over());
}

TEST_F(EipKeeperTest, OldOwnerAnswersNoLongerThanItsTime) {
  keeper.assign({{a, 1, false}}, {}, 1000);
  keeper.realised({}, 1010);
  keeper.assign({}, {a}, 2000);
  EXPECT_EQ(keeper.tick(2000), 2000 + EipKeeper::kHandOverMs);
  keeper.tick(2000 + EipKeeper::kHandOverMs);
  EXPECT_THAT(announcer.eips, IsEmpty());
}

TEST_F(EipKeeperTest, YieldedUntilConfirmed) {
  keeper.assign({{a, 1, false}}, {}, 1000);
  keeper.realised({}, 1010);
  EXPECT_TRUE(keeper.claimed(a, true, 1100));
  EXPECT_THAT(keeper.yielded(), ElementsAre(a));
  EXPECT_THAT(keeper.announced(), IsEmpty());
  EXPECT_THAT(announcer.confirmed, IsEmpty());
  keeper.confirmed(a);
  EXPECT_THAT(announcer.confirmed, ElementsAre("10.6.1.55"));
  EXPECT_THAT(keeper.announced(), ElementsAre(a));
}

TEST_F(EipKeeperTest, AStrangersClaimDoesNotMakeItYield) {
  keeper.assign({{a, 1, false}}, {}, 1000);
  keeper.realised({}, 1010);
  EXPECT_TRUE(keeper.claimed(a, false, 1100));
  EXPECT_THAT(keeper.announced(), ElementsAre(a));
  EXPECT_FALSE(keeper.claimed(b, false, 1100)) << "not ours";
}

TEST_F(EipKeeperTest, FormerEipIsForgottenAfterAMinute) {
  keeper.assign({{a, 1, false}}, {}, 1000);
  keeper.realised({}, 1010);
  keeper.assign({}, {}, 2000);
  model::Address due;
  EXPECT_FALSE(keeper.take_forgettable(2000 + EipKeeper::kForgetMs - 1, due));
  EXPECT_EQ(keeper.next_forgettable(), 2000 + EipKeeper::kForgetMs);
  ASSERT_TRUE(keeper.take_forgettable(2000 + EipKeeper::kForgetMs, due));
  EXPECT_EQ(due, a);
  EXPECT_FALSE(keeper.take_forgettable(2000 + EipKeeper::kForgetMs, due));
}

TEST_F(EipKeeperTest, AnEipThatCameBackIsNotForgotten) {
  keeper.assign({{a, 1, false}}, {}, 1000);
  keeper.assign({}, {}, 2000);
  keeper.assign({{a, 1, false}}, {}, 3000);
  model::Address due;
  EXPECT_FALSE(keeper.take_forgettable(100'000, due));
  EXPECT_EQ(keeper.next_forgettable(), kForever);
  keeper.forget_again(a, 3000);
  EXPECT_FALSE(keeper.take_forgettable(100'000, due)) << "it is owned";
}

TEST_F(EipKeeperTest, WhatCouldNotBeForgottenHoldsNobodyUp) {
  keeper.left_before({a, b}, 1000);
  model::Address due;
  ASSERT_TRUE(keeper.take_forgettable(1000, due));
  keeper.forget_again(due, 5000);
  const model::Address first = due;
  ASSERT_TRUE(keeper.take_forgettable(5000, due));
  EXPECT_NE(due, first);
  ASSERT_TRUE(keeper.take_forgettable(5000, due));
  EXPECT_EQ(due, first);
}

TEST_F(EipKeeperTest, EipsOfOthersFoundAtStart) {
  keeper.assign({{a, 1, false}}, {}, 1000);
  keeper.left_before({a, b}, 1000);
  model::Address due;
  ASSERT_TRUE(keeper.take_forgettable(1000, due));
  EXPECT_EQ(due, b);
  EXPECT_FALSE(keeper.take_forgettable(1000, due)) << "its own is not touched";
}

TEST_F(EipKeeperTest, TheAnnouncerIsToldOnlyWhatChanged) {
  keeper.assign({{a, 1, false}}, {}, 1000);
  keeper.realised({}, 1010);
  const int sets = announcer.sets;
  keeper.assign({{a, 1, false}}, {}, 1020);
  keeper.realised({}, 1030);
  keeper.tick(1040);
  EXPECT_EQ(announcer.sets, sets);
}

}  // namespace
}  // namespace egw::runtime
