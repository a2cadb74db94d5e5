// Numbers that are kept: the same name keeps its number, a restarted agent learns them, a freed one
// rests.
#include "common/numbers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

namespace egw::common {
namespace {

using Kept = KeptNumbers<std::string>;

TEST(KeptNumbers, OneEachAndAlwaysTheSame) {
  Kept n;
  EXPECT_EQ(n.assign("a", "a", 3), 1U);
  EXPECT_EQ(n.assign("b", "b", 3), 2U);
  EXPECT_EQ(n.assign("a", "a", 3), 1U);
  EXPECT_EQ(n.assign("c", "c", 3), 3U);
  EXPECT_EQ(n.assign("d", "d", 3), 0U);
  n.release("b");
  EXPECT_EQ(n.assign("d", "d", 3), 2U);
}

TEST(KeptNumbers, AFreedNumberRests) {
  Kept n;
  n.assign("a", "a", 4);
  n.release("a");
  EXPECT_EQ(n.assign("b", "b", 4), 2U);
  EXPECT_EQ(n.assign("c", "c", 4), 3U);
  EXPECT_EQ(n.assign("d", "d", 4), 4U);
  EXPECT_EQ(n.assign("e", "e", 4), 1U);
}

TEST(KeptNumbers, LearnedOnesAreKeptForTheirOwner) {
  Kept n;
  n.learn("b", 2);
  n.learn("z", 3);
  EXPECT_EQ(n.assign("a", "a", 5), 4U);
  EXPECT_EQ(n.assign("b", "b", 5), 2U);
  EXPECT_EQ(n.assign("c", "c", 5), 5U);
  EXPECT_EQ(n.assign("d", "d", 5), 1U);
  EXPECT_EQ(n.assign("z", "z", 5), 3U);
}

TEST(KeptNumbers, ALearnedNumberIsTakenLast) {
  Kept n;
  n.learn("gone", 2);
  EXPECT_EQ(n.assign("a", "a", 3), 3U);
  EXPECT_EQ(n.assign("b", "b", 3), 1U);
  EXPECT_EQ(n.assign("c", "c", 3), 2U);
  EXPECT_EQ(n.assign("gone", "gone", 3), 0U);
}

TEST(KeptNumbers, ALearnedNumberBeyondTheBoundDoesNotCount) {
  Kept n;
  n.learn("a", 9);
  EXPECT_EQ(n.assign("a", "a", 3), 1U);
}

TEST(KeptNumbers, KeepReleasesTheRest) {
  Kept n;
  n.learn("b", 7);
  n.assign("a", "a", 9);
  n.assign("b", "b", 9);
  n.keep(std::set<std::string>{"a"});
  EXPECT_EQ(n.assign("a", "a", 9), 8U);
  EXPECT_EQ(n.assign("c", "c", 9), 9U);
}

TEST(KeptNumbers, OneThatComesBackHasItsOwn) {
  KeptNumbers<std::string, true> n;
  EXPECT_EQ(n.assign("a", "mac a", 3), 1U);
  EXPECT_EQ(n.assign("b", "mac b", 3), 2U);
  n.keep(std::set<std::string>{"b"});
  EXPECT_EQ(n.assign("c", "mac c", 3), 3U);
  EXPECT_EQ(n.assign("a", "mac a", 3), 1U);
  // Nothing else is left: it is somebody else's, and stays so.
  n.keep(std::set<std::string>{"b", "c"});
  EXPECT_EQ(n.assign("d", "mac d", 3), 1U);
  n.keep(std::set<std::string>{"b", "d"});
  EXPECT_EQ(n.assign("a", "mac a", 3), 3U);
  EXPECT_EQ(n.assign("c", "mac c", 3), 0U);
  n.keep(std::set<std::string>{"a", "b"});
  EXPECT_EQ(n.assign("d", "mac d", 3), 1U);
}

// A node that was given another address; its old one may be another node's.
TEST(KeptNumbers, OneThatComesBackIsKnownByWhatItWasLast) {
  KeptNumbers<std::string, true> n;
  EXPECT_EQ(n.assign("a", "mac 1", 9), 1U);
  EXPECT_EQ(n.assign("a", "mac 2", 9), 1U);
  n.keep(std::set<std::string>{});
  EXPECT_EQ(n.assign("b", "mac 1", 9), 2U);
  EXPECT_EQ(n.assign("a", "mac 2", 9), 1U);
}

// The least time of some tries to learn `count` numbers and to give them to their owners.
std::chrono::duration<double> time_of_return(std::uint32_t count) {
  auto least = std::chrono::duration<double>::max();
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    Kept n;
    for (std::uint32_t k = 1; k <= count; ++k) n.learn(std::to_string(k), k);
    for (std::uint32_t k = 1; k <= count; ++k) {
      EXPECT_EQ(n.assign(std::to_string(k), std::to_string(k), count), k);
    }
    least =
        std::min<std::chrono::duration<double>>(least, std::chrono::steady_clock::now() - begin);
  }
  return least;
}

// Eight times the numbers take some ten times as long, not 64 times: the start of a node.
TEST(KeptNumbers, ThousandsOfOwnersReturnInNoTime) {
  EXPECT_LT(time_of_return(16000), 24 * time_of_return(2000));
}

}  // namespace
}  // namespace egw::common
