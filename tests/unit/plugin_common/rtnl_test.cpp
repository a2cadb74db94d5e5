// What rtnetlink answers in special cases (plugins/common/rtnl.hpp). Asks the kernel, changes
// nothing.
#include "common/rtnl.hpp"

#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <sys/socket.h>

namespace egw::common {
namespace {

// As for IPv6 on a host that was booted with ipv6.disable=1.
TEST(Rtnl, AFamilyThatTheKernelHasNotHasNoRules) {
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  ASSERT_TRUE(socket.ok());
  EXPECT_TRUE(our_rules(*socket, AF_X25).empty());
  EXPECT_TRUE(foreign_rules(*socket, AF_X25).empty());
}

}  // namespace
}  // namespace egw::common
