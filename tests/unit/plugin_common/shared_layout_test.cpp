// What a datapath leaves to its successor in the folder of the layout.
#include "common/shared_layout.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace egw::common {
namespace {

namespace fs = std::filesystem;

class SharedLayout : public testing::Test {
 protected:
  SharedLayout() {
    std::string pattern = (fs::temp_directory_path() / "egw-layout-XXXXXX").string();
    folder = mkdtemp(pattern.data());
  }
  ~SharedLayout() override { fs::remove_all(folder); }
  std::string folder;
};

constexpr sdk::Mac kOne{2, 0xee, 10, 6, 0, 11};
constexpr sdk::Mac kTwo{2, 0xee, 10, 6, 0, 12};

TEST_F(SharedLayout, PeerNumbersOutliveTheDatapath) {
  PeerNumbers first(folder);
  EXPECT_TRUE(first.found().empty());
  ASSERT_TRUE(first.keep({{kOne, 1}, {kTwo, 16383}}).ok());
  EXPECT_EQ(PeerNumbers(folder).found(),
            (std::map<sdk::Mac, std::uint32_t>{{kOne, 1}, {kTwo, 16383}}));
  const auto written = fs::last_write_time(folder + "/peers");
  ASSERT_TRUE(first.keep({{kOne, 1}, {kTwo, 16383}}).ok());
  EXPECT_EQ(fs::last_write_time(folder + "/peers"), written) << "the same again was written";
  ASSERT_TRUE(first.keep({{kTwo, 3}}).ok());
  EXPECT_EQ(PeerNumbers(folder).found(), (std::map<sdk::Mac, std::uint32_t>{{kTwo, 3}}));
}

TEST_F(SharedLayout, WhatIsNoNumberIsNone) {
  std::ofstream(folder + "/peers")
      << "02:ee:0a:06:00:0b 0\nnonsense\n\n02:ee:0a:06:00:0c 7\n02:ee 4\n";
  EXPECT_EQ(PeerNumbers(folder).found(), (std::map<sdk::Mac, std::uint32_t>{{kTwo, 7}}));
}

TEST_F(SharedLayout, WithoutAFolderNothingIsKept) {
  PeerNumbers numbers("");
  EXPECT_TRUE(numbers.keep({{kOne, 1}}).ok());
  EXPECT_TRUE(numbers.found().empty());
}

TEST_F(SharedLayout, AFolderThatIsGoneIsTold) {
  PeerNumbers numbers(folder + "/gone");
  const sdk::Status s = numbers.keep({{kOne, 1}});
  EXPECT_EQ(s.code, sdk::Code::kUnavailable);
  EXPECT_NE(s.text().find(folder + "/gone/peers"), std::string::npos);
}

}  // namespace
}  // namespace egw::common
