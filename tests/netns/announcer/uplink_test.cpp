// The uplink's detection and watch on real interfaces.
#include "egw/net/uplink.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>

#include <condition_variable>
#include <mutex>

#include "egw/net/interfaces.hpp"
#include "wire.hpp"

namespace egw::net::test {
namespace {

using ::testing::HasSubstr;

class UplinkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    own_namespace();
    link();
  }
  void TearDown() override {
    watch.reset();
    sh("ip link del up0 2>/dev/null || true; ip link del alt0 2>/dev/null || true");
  }
  static void link() {
    sh("ip link add up0 mtu 1400 type veth peer name far0 && ip addr add 10.9.0.1/24 dev up0 && "
       "ip addr add 10.9.0.2/24 dev up0 && ip addr add 2001:db8:9::1/64 dev up0 nodad && "
       "ip link set far0 up && ip link set up0 up && ip route add default via 10.9.0.254 && "
       "ip route add default via 2001:db8:9::254");
  }
  void follow(const std::string& method = "defaultRouteInterface") {
    auto started = UplinkWatch::start(method, [this](const UplinkState& now) {
      const std::lock_guard guard(lock);
      states.push_back(now);
      heard.notify_all();
    });
    ASSERT_TRUE(started) << started.error().to_string();
    watch = std::move(*started);
    ASSERT_TRUE(wait([&] { return states.size() == 1; })) << "told once at start";
  }
  // What a watch says first.
  UplinkState find(const std::string& method = "defaultRouteInterface") {
    watch.reset();
    states.clear();
    follow(method);
    const std::lock_guard guard(lock);
    return states.empty() ? UplinkState{} : states[0];
  }
  template <class Condition>
  bool wait(Condition condition, milliseconds limit = milliseconds(3000)) {
    std::unique_lock guard(lock);
    return heard.wait_for(guard, limit, condition);
  }

  std::mutex lock;
  std::condition_variable heard;
  std::vector<UplinkState> states;
  std::unique_ptr<UplinkWatch> watch;
};

TEST_F(UplinkTest, DefaultRoutesInterfaceWithThePreferredAddresses) {
  const UplinkState found = find();
  EXPECT_EQ(found.name, "up0");
  EXPECT_TRUE(found.present);
  EXPECT_TRUE(found.carrier);
  EXPECT_EQ(found.mtu, 1400U);
  EXPECT_EQ(found.ipv4, ip("10.9.0.1"));
  EXPECT_EQ(found.ipv6, ip("2001:db8:9::1"));
  EXPECT_NE(found.mac, model::Mac{});
  sh("ip route replace default via 10.9.0.254 src 10.9.0.2");
  EXPECT_EQ(find().ipv4, ip("10.9.0.2")) << "as the route says";
}

TEST_F(UplinkTest, BestMetricWinsAndNamesAreTaken) {
  sh("ip link add alt0 type veth peer name afar0 && ip addr add 10.8.0.1/24 dev alt0 && "
     "ip link set afar0 up && ip link set alt0 up && "
     "ip route add default via 10.8.0.254 metric 50 && ip route del default via 10.9.0.254 && "
     "ip route add default via 10.9.0.254 metric 100");
  EXPECT_EQ(find().name, "alt0");
  EXPECT_EQ(find("interface=up0").ipv4, ip("10.9.0.1"));
}

TEST_F(UplinkTest, ErrorsNameTheSetting) {
  for (const auto* method : {"interface=", "eth0", "nonsense"}) {
    const auto started = UplinkWatch::start(method, [](const auto&) {});
    ASSERT_FALSE(started) << method;
    EXPECT_THAT(started.error().to_string(), HasSubstr("tunnelDetectMethod"));
  }
}

TEST_F(UplinkTest, NoUplinkIsAStateToo) {
  EXPECT_FALSE(find("interface=none0").present);
  EXPECT_EQ(find("interface=none0").name, "none0");
  sh("ip route flush default && ip -6 route flush default");
  EXPECT_FALSE(find().present);
  EXPECT_EQ(find().name, "");
}

TEST_F(UplinkTest, CarrierLossIsToldWithin100Milliseconds) {
  follow();
  const auto before = states[0];
  const auto begin = steady_clock::now();
  sh("ip link set far0 down");
  ASSERT_TRUE(wait([&] { return !states.back().carrier; }));
  const auto took = steady_clock::now() - begin;
  RecordProperty("carrier_loss_ms", static_cast<int>(took / milliseconds(1)));
  EXPECT_LT(took, milliseconds(100) * kSlower) << "the command itself included";
  {
    const std::lock_guard guard(lock);
    auto expected = before;
    expected.carrier = false;
    EXPECT_EQ(states.back().name, "up0");
    EXPECT_EQ(states.back().ipv4, before.ipv4) << "addresses stay";
  }
  sh("ip link set far0 up");
  EXPECT_TRUE(wait([&] { return states.back() == before; }));
}

TEST_F(UplinkTest, InterfaceTakenDownKeepsItsName) {
  follow();
  sh("ip link set up0 down");  // the default route goes with it
  ASSERT_TRUE(wait([&] { return !states.back().carrier; }));
  const std::lock_guard guard(lock);
  EXPECT_EQ(states.back().name, "up0");
  EXPECT_TRUE(states.back().present);
  EXPECT_EQ(states.back().ipv4, ip("10.9.0.1"));
}

TEST_F(UplinkTest, InterfaceMadeAnewIsFound) {
  follow("interface=up0");
  const auto before = states[0];
  sh("ip link del up0");
  ASSERT_TRUE(wait([&] { return !states.back().present; }));
  EXPECT_EQ(states.back().name, "up0");
  link();
  ASSERT_TRUE(wait([&] { return states.back().carrier && states.back().ipv4 == before.ipv4; }));
  EXPECT_NE(states.back().index, before.index);
}

TEST_F(UplinkTest, DefaultRouteThatComesLater) {
  sh("ip route flush default && ip -6 route flush default");
  follow();
  EXPECT_FALSE(states[0].present);
  sh("ip route add default via 10.9.0.254");
  EXPECT_TRUE(wait([&] { return states.back().present && states.back().name == "up0"; }));
}

TEST_F(UplinkTest, OtherDevicesSayNothing) {
  follow();
  sh("ip link add alt0 type veth peer name afar0 && ip link set alt0 up && ip link set afar0 up && "
     "ip addr add 10.8.0.1/24 dev alt0 && ip link del alt0");
  sh("ip link set up0 mtu 1390");  // a change that is told comes after all the others
  ASSERT_TRUE(wait([&] { return states.back().mtu == 1390; }));
  const std::lock_guard guard(lock);
  EXPECT_EQ(states.size(), 2U);
}

// The other netlink socket of this process.
int requests_of(const Interfaces& interfaces) {
  for (int fd = 3; fd < 256; ++fd) {
    int domain = 0;
    socklen_t size = sizeof domain;
    if (fd == interfaces.fd() || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
      continue;
    }
    if (domain == AF_NETLINK) return fd;
  }
  return -1;
}

TEST_F(UplinkTest, WhatCouldNotBeReadAfterAnOverrunIsReadLater) {
  auto opened = Interfaces::open();
  ASSERT_TRUE(opened);
  Interfaces& interfaces = **opened;
  sh("for i in $(seq 4000); do echo link set dev up0 mtu $((1300 + i % 2)); done | ip -batch - && "
     "ip link set up0 mtu 1280");
  const int requests = requests_of(interfaces);
  ASSERT_GE(requests, 0);
  const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
  ASSERT_EQ(dup2(nothing, requests), requests);
  EXPECT_FALSE(interfaces.read()) << "it cannot be asked";
  EXPECT_NE(interfaces.find("up0"), nullptr) << "what was known stays";
  close(nothing);
  const auto changed = interfaces.read();  // without an event
  ASSERT_TRUE(changed);
  EXPECT_TRUE(*changed);
  const Interface* up0 = interfaces.find("up0");
  ASSERT_NE(up0, nullptr);
  EXPECT_EQ(up0->mtu, 1280U);
  EXPECT_TRUE(interfaces.read());
}

}  // namespace
}  // namespace egw::net::test
