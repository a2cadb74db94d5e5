// The connection table's metrics, on a folder that stands for /proc.
#include "egw/runtime/conntrack_table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <fstream>

#include "egw/runtime/metrics.hpp"

namespace egw::runtime {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class ConntrackTableTest : public testing::Test {
 protected:
  ConntrackTableTest() {
    std::string pattern = fs::temp_directory_path() / "egw-conntrack-XXXXXX";
    proc = ::mkdtemp(pattern.data());
  }
  ~ConntrackTableTest() override { fs::remove_all(proc); }
  void put(const std::string& file, const std::string& text) {
    fs::create_directories((proc / file).parent_path());
    std::ofstream(proc / file) << text;
  }
  std::string text() { return prometheus::TextSerializer().Serialize(conntrack_families(proc)); }

  fs::path proc;
};

TEST_F(ConntrackTableTest, SaysHowFullTheTableIsAndWhatItRefused) {
  put("sys/net/netfilter/nf_conntrack_count", "64512\n");
  put("sys/net/netfilter/nf_conntrack_max", "262144\n");
  put("net/stat/nf_conntrack",
      "entries  clashres found insert insert_failed drop early_drop search_restart\n"
      "0000fc00  00000000 020c5230 00000000 00010000 00000003 0000000a 00000000\n"
      "0000fc00  00000000 00000000 00000000 00000001 00000000 00000001 00000000\n");
  const std::string out = text();
  EXPECT_THAT(out, HasSubstr("\negw_conntrack_entries 64512\n"));
  EXPECT_THAT(out, HasSubstr("\negw_conntrack_limit 262144\n"));
  EXPECT_THAT(out, HasSubstr("egw_conntrack_failures_total{reason=\"insert_failed\"} 65537\n"));
  EXPECT_THAT(out, HasSubstr("egw_conntrack_failures_total{reason=\"drop\"} 3\n"));
  EXPECT_THAT(out, HasSubstr("egw_conntrack_failures_total{reason=\"early_drop\"} 11\n"));
}

TEST_F(ConntrackTableTest, LeavesOutWhatTheKernelDoesNotTell) {
  EXPECT_EQ(text(), "");
  put("net/stat/nf_conntrack", "entries found\n00000001 00000002\n");
  EXPECT_EQ(text(), "");
  put("sys/net/netfilter/nf_conntrack_max", "");
  EXPECT_EQ(text(), "");
}

TEST_F(ConntrackTableTest, AgentsHaveItControllersHaveNot) {
  const bool told = fs::exists("/proc/sys/net/netfilter/nf_conntrack_max");
  EXPECT_EQ(Metrics("agent", "1").text().find("\negw_conntrack_limit ") != std::string::npos, told);
  EXPECT_THAT(Metrics("controller", "1").text(), Not(HasSubstr("conntrack")));
}

}  // namespace
}  // namespace egw::runtime
