// Sysctls on a folder that stands for /proc/sys.
#include "egw/runtime/sysctls.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace egw::runtime {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class SysctlsTest : public testing::Test {
 protected:
  SysctlsTest() {
    std::string pattern = fs::temp_directory_path() / "egw-sysctls-XXXXXX";
    folder = ::mkdtemp(pattern.data());
    fs::create_directories(folder / "proc/net/ipv4");
    put("net/ipv4/ip_forward", "0\n");
    put("net/ipv4/rp_filter", "2\n");
  }
  ~SysctlsTest() override { fs::remove_all(folder); }
  void put(const std::string& key, const std::string& value) {
    std::ofstream(folder / "proc" / key) << value;
  }
  std::string get(const std::string& key) {
    std::ifstream in(folder / "proc" / key);
    std::string line;
    std::getline(in, line);
    return line;
  }
  Sysctls sysctls(bool manage_forwarding) {
    return {folder / "proc", folder / "record.json", manage_forwarding, log};
  }

  fs::path folder;
  Logger log{LogFormat::kText, LogLevel::kError};
};

TEST_F(SysctlsTest, WritesRemembersAndRestores) {
  EXPECT_THAT(sysctls(false).apply({{"net/ipv4/rp_filter", "1", "x", false}}, true), IsEmpty());
  EXPECT_EQ(get("net/ipv4/rp_filter"), "1");
  // A later run (another process) keeps the first old value.
  EXPECT_THAT(sysctls(false).apply({{"net/ipv4/rp_filter", "0", "x", false}}, true), IsEmpty());
  EXPECT_EQ(get("net/ipv4/rp_filter"), "0");
  ASSERT_TRUE(sysctls(false).restore());
  EXPECT_EQ(get("net/ipv4/rp_filter"), "2");
  EXPECT_FALSE(fs::exists(folder / "record.json"));
}

TEST_F(SysctlsTest, NoFileIsWrittenThroughALink) {
  put("victim", "dear");
  fs::create_symlink(folder / "proc/victim", folder / "note.new");
  EXPECT_FALSE(write_file(folder / "note", "ours"));
  EXPECT_EQ(get("victim"), "dear");
}

TEST_F(SysctlsTest, WhatSomebodyElseChangedSinceIsLeftAlone) {
  EXPECT_THAT(sysctls(false).apply({{"net/ipv4/rp_filter", "1", "x", false}}, true), IsEmpty());
  put("net/ipv4/rp_filter", "0\n");
  ASSERT_TRUE(sysctls(false).restore());
  EXPECT_EQ(get("net/ipv4/rp_filter"), "0");
}

TEST_F(SysctlsTest, ForwardingOnlyWhenAllowed) {
  const std::vector<host::SysctlNeed> needs{{"net/ipv4/ip_forward", "1", "to route", true}};
  const auto problems = sysctls(false).apply(needs, true);
  ASSERT_THAT(problems, SizeIs(1));
  EXPECT_EQ(problems[0].key, "net/ipv4/ip_forward");
  EXPECT_THAT(problems[0].message, HasSubstr("manageForwarding"));
  EXPECT_EQ(get("net/ipv4/ip_forward"), "0");
  EXPECT_THAT(sysctls(true).apply(needs, true), IsEmpty());
  EXPECT_EQ(get("net/ipv4/ip_forward"), "1");
}

TEST_F(SysctlsTest, AbsentKeyIsAProblemOnlyInTheEnd) {
  const std::vector<host::SysctlNeed> needs{{"net/ipv4/conf/egw0/src_valid_mark", "1", "x", false}};
  EXPECT_THAT(sysctls(false).apply(needs, false), IsEmpty());
  EXPECT_THAT(sysctls(false).apply(needs, true), SizeIs(1));
}

TEST_F(SysctlsTest, APluginCannotNameOtherFiles) {
  std::ofstream(folder / "secret") << "old";
  EXPECT_THAT(sysctls(true).apply({{"../secret", "new", "x", false}}, true), SizeIs(1));
  EXPECT_THAT(sysctls(true).apply({{"/etc/passwd", "new", "x", false}}, true), SizeIs(1));
  std::string text;
  std::ifstream(folder / "secret") >> text;
  EXPECT_EQ(text, "old");
}

}  // namespace
}  // namespace egw::runtime
