// Boot drop and tunnel pings against the kernel, in a namespace of the test's own.
#include "egw/net/boot_drop.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <cstdio>

#include "egw/net/tunnel_ping.hpp"
#include "wire.hpp"

namespace egw::net::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string output(const std::string& command) {
  std::string text;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  std::array<char, 512> chunk{};
  while (pipe != nullptr && fgets(chunk.data(), chunk.size(), pipe) != nullptr)
    text += chunk.data();
  if (pipe != nullptr) pclose(pipe);
  return text;
}

model::Prefix prefix(const char* text) { return model::Prefix::parse(text).value(); }

class BootDropTest : public ::testing::Test {
 protected:
  void SetUp() override {
    own_namespace();
    sh("ip link add pod0 type veth peer name pod1 && ip link set pod0 up && ip link set pod1 up && "
       "ip link add out0 type veth peer name out1 && ip link set out0 up && ip link set out1 up && "
       "ip addr add 10.244.1.1/24 dev pod0 && ip addr add 10.6.0.11/24 dev out0 && "
       "ip route add default via 10.6.0.1 && sysctl -qw net.ipv4.ip_forward=1 "
       "net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.pod0.rp_filter=0");
  }
  void TearDown() override {
    (void)lower_boot_drop();
    sh("ip link del pod0; ip link del out0");
  }
  // Where the kernel would forward a packet of the pod to.
  static std::string forwarded(const std::string& to) {
    return output("ip route get " + to + " from 10.244.1.5 iif pod0");
  }
};

TEST_F(BootDropTest, PodsReachTheInsideOnly) {
  EXPECT_THAT(forwarded("203.0.113.9"), HasSubstr("dev out0"));
  ASSERT_TRUE(raise_boot_drop({prefix("10.244.1.0/24"), prefix("fd00:244:1::/64")},
                              {prefix("10.244.0.0/16"), prefix("10.6.0.0/24")}));
  EXPECT_THAT(forwarded("203.0.113.9"), Not(HasSubstr("dev out0")));
  EXPECT_THAT(forwarded("10.6.0.100"), HasSubstr("dev out0"));
  EXPECT_THAT(forwarded("10.244.2.7"), HasSubstr("dev out0")) << "another node's pods";
  EXPECT_THAT(output("ip route get 203.0.113.9"), HasSubstr("dev out0")) << "the node itself";
  EXPECT_THAT(output("ip -6 rule show"), HasSubstr("fd00:244:1::/64"));
  // Again: nothing changes. Then all goes.
  ASSERT_TRUE(raise_boot_drop({prefix("10.244.1.0/24")}, {prefix("10.6.0.0/24")}));
  EXPECT_EQ(lower_boot_drop().value(), 4U);
  EXPECT_THAT(forwarded("203.0.113.9"), HasSubstr("dev out0"));
  EXPECT_EQ(lower_boot_drop().value(), 0U);
}

TEST_F(BootDropTest, OtherPeoplesRulesStay) {
  sh("ip rule add pref 20 from 10.99.0.0/16 lookup main");
  ASSERT_TRUE(raise_boot_drop({prefix("10.244.1.0/24")}, {}));
  EXPECT_EQ(lower_boot_drop().value(), 1U);
  EXPECT_THAT(output("ip rule show"), HasSubstr("10.99.0.0/16"));
  sh("ip rule del pref 20");
}

TEST(TunnelPing, HearsItsOwnAnswersOnly) {
  own_namespace();
  for (const char* text : {"127.0.0.1", "::1"}) {
    const auto address = model::Address::parse(text).value();
    auto ping = TunnelPing::open("lo", address.family());
    ASSERT_TRUE(ping) << ping.error().to_string();
    auto other = TunnelPing::open("lo", address.family());
    ASSERT_TRUE(other);
    ASSERT_TRUE(other->send(address, 7));
    ASSERT_TRUE(ping->send(address, 6));
    ASSERT_TRUE(ping->send(address, 7));
    pollfd ready{ping->descriptor(), POLLIN, 0};
    ASSERT_EQ(poll(&ready, 1, 1000), 1);
    EXPECT_EQ(ping->receive(7), address);
    EXPECT_EQ(ping->receive(7), std::nullopt) << "neither an old one nor another's";
  }
  EXPECT_FALSE(TunnelPing::open("no-such-device", model::Family::kV4));
}

}  // namespace
}  // namespace egw::net::test
