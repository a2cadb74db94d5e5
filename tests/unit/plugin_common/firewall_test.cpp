// Reading others' nftables tables on a kernel that has none (plugins/common/firewall_nft.hpp). Asks
// the kernel, changes nothing.
#include <gtest/gtest.h>
#include <linux/netlink.h>

#include "common/firewall_nft.hpp"

namespace egw::common {
namespace {

// rtnetlink does not know nftables' messages either.
TEST(Firewall, AKernelWithoutNftablesHoldsNoTable) {
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  ASSERT_TRUE(socket.ok());
  EXPECT_TRUE(read_nftables(*socket, *socket).empty());
}

}  // namespace
}  // namespace egw::common
