// The programs of fastPath, packet by packet.
#include "programs.hpp"

namespace egw::ebpf {
namespace {

// The programs of fastPath, in a network namespace whose lo takes what a tunnel takes.
class Fast : public Programs {
 protected:
  Fast() : Programs(true) {}
  static void SetUpTestSuite() {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << std::strerror(errno);
    const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_mtu = kMtu;
    EXPECT_EQ(::ioctl(socket, SIOCSIFMTU, &request), 0) << std::strerror(errno);
    ::close(socket);
  }
  // Goes into the tunnel, older by one hop and otherwise as it was.
  void expect_fast(const std::string& packet) {
    const Outcome out = run(Loaded::Program::kPodFast, packet);
    ASSERT_EQ(out.verdict, kRedirect);
    EXPECT_EQ(out.mark, kSteer | 7);
    EXPECT_EQ(out.priority, 0U);
    const bool six = packet.substr(12, 2) == be16(0x86dd);
    const std::size_t ttl = 14 + (six ? 7 : 8);
    EXPECT_EQ(out.packet[ttl], packet[ttl] - 1);
    if (!six) {
      EXPECT_EQ(add_words(out.packet.substr(14, 20), 0), 0xffffU) << "checksum";
    }
    EXPECT_EQ(out.packet.substr(6, 6), common::register_mac(kTunnelMac));
    EXPECT_EQ(out.packet.substr(14 + (six ? 8 : 12)), packet.substr(14 + (six ? 8 : 12)));
  }
  // Takes the host's way, marked as egw_pod marks it.
  void expect_usual(const std::string& packet) {
    const Outcome out = run(Loaded::Program::kPodFast, packet);
    EXPECT_EQ(out.verdict, kNext);
    EXPECT_EQ(out.mark, kEarly);
    EXPECT_EQ(out.packet, packet);
  }
};

std::string with_ttl(std::string packet, char ttl) {
  packet[14 + 8] = ttl;
  packet.replace(14 + 10, 2, be16(0));
  return packet.replace(14 + 10, 2, be16(~add_words(packet.substr(14, 20), 0) & 0xffffU));
}

TEST_F(Fast, TcpAndUdpGoStraightIntoTheTunnel) {
  const std::string pair = address("10.244.1.10") + address("198.51.100.7");
  expect_fast(from4("10.244.1.10"));
  expect_fast(ether(0x0800) + ipv4(of_tcp(0), tcp("", 0x10, pair)));
  expect_fast(ether(0x86dd) + ipv6(17, udp()));
  expect_fast(with_ttl(from4("10.244.1.10"), 2));
}

TEST_F(Fast, WhatTheStackHasToSeeGoesTheUsualWay) {
  const Ip4 options{"10.244.1.10", "198.51.100.7", 17, bytes({1, 1, 1, 1}), 0};
  const std::string room(kMtu - 20 - 8, 'x');
  for (const std::string& packet :
       {with_ttl(from4("10.244.1.10"), 1), ether(0x0800) + ipv4(options, udp()),
        ether(0x0800) + ipv4({"10.244.1.10", "198.51.100.7", 17, "", 0x2000}, udp()),
        ether(0x0800) + ipv4({"10.244.1.10", "198.51.100.7", 17, "", 0x0010}, udp()),
        ether(0x0800) + ipv4({"10.244.1.10", "198.51.100.7", 1, "", 0}, udp()),
        ether(0x0800) + ipv4({}, be16(4000)), ether(0x0800) + ipv4({}, udp() + room),
        ether(0x86dd) + ipv6(0, kHop + udp()), ether(0x86dd) + ipv6(17, udp() + room),
        ether(0x86dd) + ipv6(44, bytes({17, 0, 0, 0, 0, 0, 0, 1}) + udp())}) {
    expect_usual(packet);
  }
  expect_fast(ether(0x0800) + ipv4({}, udp() + room.substr(4)));  // as long as the tunnel takes
}

TEST_F(Fast, WhatIsNotSteeredGoesTheUsualWay) {
  for (const char* source : {"10.244.1.12", "10.244.1.13", "10.244.1.99"}) {
    const Outcome out = run(Loaded::Program::kPodFast, from4(source));
    EXPECT_EQ(out.verdict, kNext) << source;
    EXPECT_NE(out.mark & kSlots, kSteer) << source;
  }
}

// Beside the netlink datapath's tables, which still have the tunnel.
TEST_F(Fast, WithoutATunnelEverythingGoesTheUsualWay) {
  const MapSet& maps = loaded_.maps();
  const std::uint32_t zero = 0;
  egw_settings s{};
  ASSERT_EQ(bpf_map_lookup_elem(maps.settings, &zero, &s), 0);
  s.tunnel = 0;
  ASSERT_EQ(bpf_map_update_elem(maps.settings, &zero, &s, BPF_ANY), 0);
  expect_usual(from4("10.244.1.10"));
  expect_usual(ether(0x86dd) + ipv6(17, udp()));
}

TEST_F(Fast, WhatIsTaggedGoesTheUsualWay) {
  expect_usual(ether(0x8100) + be16(0) + be16(0x0800) + from4("10.244.1.10").substr(14));
}

// Without a route there is no fast way back; what has an id is no answer.
TEST_F(Fast, AnswersWithoutRouteGoTheUsualWay) {
  const std::string answer = from4("198.51.100.7", "10.244.1.10");
  for (const std::uint32_t mark : {0U, 7U}) {
    const Outcome out = run(Loaded::Program::kBackFast, answer, mark);
    EXPECT_EQ(out.verdict, kNext);
    EXPECT_EQ(out.packet, answer);
  }
}

}  // namespace
}  // namespace egw::ebpf
