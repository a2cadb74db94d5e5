// The way of one EIP through the failure of its node, with the manifest of the documentation.
#include "unit/core_plan/cluster.hpp"
namespace egw::test {
namespace {
TEST(Plan, DocumentationManifestFailsOver) {
  Cluster c;
  c.nodes(3);
  c.gateway("egw", {"10.6.1.55", "10.6.1.56"}, {"fd00::55", "fd00::56"}, "10.6.1.56", "fd00::55");
  c.policy("ns", "p", "egw");
  c.start();
  EXPECT_EQ(c.status("p").ipv4, "10.6.1.56");
  EXPECT_EQ(c.status("p").ipv6, "fd00::55");
  EXPECT_EQ(c.status("p").node, "n1");
  c.live(14000, {"n1"});
  EXPECT_EQ(c.owner("egw", "10.6.1.56"), "n1");
  c.live(3000, {"n1"});
  EXPECT_EQ(c.owner("egw", "10.6.1.56"), "n2");
  EXPECT_EQ(c.phase("n1"), "HeartbeatTimeout");
}
}  // namespace
}  // namespace egw::test
