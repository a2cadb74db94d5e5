// When a gateway's status may be written.
#include "egw/runtime/write_pace.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace egw::test {
namespace {

using runtime::WritePace;

TEST(WritePace, AFewAtOnceThenAtADistance) {
  WritePace pace;
  for (int i = 0; i < 4; ++i) {
    EXPECT_LE(pace.next_ms(), 10'000) << i;
    pace.made(10'000);
  }
  EXPECT_EQ(pace.next_ms(), 10'250);
  pace.made(10'250);
  EXPECT_EQ(pace.next_ms(), 11'000) << "five within a second";
}

TEST(WritePace, NeverMoreThanFiveInASecondAndNotMuchLess) {
  WritePace pace;
  std::vector<std::int64_t> made;
  for (std::int64_t now = 50'000; now < 80'000; ++now) {
    if (pace.next_ms() > now) continue;
    pace.made(now);
    made.push_back(now);
  }
  for (std::size_t i = 5; i < made.size(); ++i) EXPECT_GE(made[i] - made[i - 5], 1000);
  EXPECT_GE(made.size(), 115U);
}

TEST(WritePace, ASlowWriteIsFollowedByARest) {
  WritePace pace;
  pace.made(10'000, 100);
  EXPECT_EQ(pace.next_ms(), 10'400);
  pace.made(20'000, 5000);
  EXPECT_EQ(pace.next_ms(), 21'000);
  pace.made(30'000, 10);
  EXPECT_LE(pace.next_ms(), 30'000);
}

TEST(WritePace, WhatIsSeldomNeverWaits) {
  WritePace pace;
  for (std::int64_t now = 1000; now < 60'000; now += 334) {
    EXPECT_LE(pace.next_ms(), now);
    pace.made(now);
  }
}

}  // namespace
}  // namespace egw::test
