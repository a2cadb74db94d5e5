// The announcer on real links: a veth pair in a namespace of the test's own, at its other end a raw
// socket that asks, listens and claims.
#include "egw/net/announcer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>

#include "wire.hpp"

namespace egw::net::test {
namespace {

using ::testing::HasSubstr;

const model::Mac kStranger{2, 0, 0, 0, 0, 0x99};
const model::Mac kGateway{2, 0, 0, 0, 0, 0x77};
const auto kEip = ip("10.9.0.50");
const auto kEip6 = ip("2001:db8:9::1:50");
const auto kAsker = ip("10.9.0.9");

// An ordinary ARP request by 10.9.0.9.
Frame request(const model::Address& target, const model::Mac& from = kStranger) {
  auto frame = arp_announcement(from, kAsker);
  std::copy_n(target.bytes().begin(), 4, frame.begin() + 38);
  return frame;
}

Wire::Wanted reply_for(const model::Address& address) {
  return [address](const NeighbourMessage& m) { return !m.asks && m.claimed == address; };
}
// Every announcement is one request form; the reply form beside it is not counted.
Wire::Wanted announcement_of(const model::Address& address) {
  return [address](const NeighbourMessage& m) {
    return m.claimed == address && (address.is_v6() || m.asks);
  };
}
Wire::Wanted probe_for(const model::Address& address) {
  return
      [address](const NeighbourMessage& m) { return m.asks && !m.source && m.target == address; };
}
Wire::Wanted about(const model::Address& address) {
  return
      [address](const NeighbourMessage& m) { return m.claimed == address || m.target == address; };
}

class AnnouncerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    own_namespace();
    link();
    options.announce_at = {milliseconds(0), milliseconds(20), milliseconds(60)};
    options.tunnel_device = "egress.vxlan";
  }
  void TearDown() override {
    announcer.reset();
    wire.reset();
    sh("ip link del up0 2>/dev/null || true");
  }
  void link() {
    sh("ip link add up0 type veth peer name far0 && sysctl -qw net.ipv6.conf.far0.disable_ipv6=1 "
       "&& "
       "ip addr add 10.9.0.1/24 dev up0 && ip addr add 2001:db8:9::1/64 dev up0 nodad && "
       "ip link set far0 up && ip link set up0 up");
    wire = std::make_unique<Wire>("far0");
    mac = mac_of("up0");
  }
  void start() {
    auto started = Announcer::start(
        options,
        [this](const Claim& claim) {
          const std::lock_guard guard(lock);
          claims.push_back(claim);
          heard.notify_all();
        },
        [this] {
          const std::lock_guard guard(lock);
          heard.notify_all();
        },
        [this](int, const std::string& message) {
          const std::lock_guard guard(lock);
          logs += message + "\n";
          heard.notify_all();
        });
    ASSERT_TRUE(started) << started.error().to_string();
    announcer = std::move(*started);
  }
  // Owned, announced, answering.
  void own(const model::Address& address) {
    if (!announcer) start();
    announcer->set({{address, false}});
    ASSERT_TRUE(wire->wait_for(announcement_of(address)));
  }
  bool answered(const model::Address& address) {
    wire->send(request(address));
    return wire->wait_for(reply_for(address), milliseconds(150)).has_value();
  }
  template <class Condition>
  bool wait(Condition condition) {
    std::unique_lock guard(lock);
    return heard.wait_for(guard, std::chrono::seconds(3), condition);
  }

  AnnouncerOptions options;
  std::unique_ptr<Wire> wire;
  model::Mac mac{};
  std::mutex lock;
  std::condition_variable heard;
  std::vector<Claim> claims;
  std::string logs;
  std::unique_ptr<Announcer> announcer;  // last: its thread uses the rest
};

TEST_F(AnnouncerTest, AnswersWithItsMacWithinAMillisecond) {
  own(kEip);
  std::vector<double> ms;
  for (int i = 0; i < 200; ++i) {
    const auto asked = realtime();
    wire->send(request(kEip));
    const auto seen = wire->wait_for(
        [](const auto& m) { return !m.asks && m.claimed == kEip && m.target == kAsker; });
    ASSERT_TRUE(seen);
    EXPECT_EQ(seen->message()->from, mac);
    ms.push_back(std::chrono::duration<double, std::milli>(seen->at - asked).count());
  }
  std::sort(ms.begin(), ms.end());
  RecordProperty("answer_us_median", static_cast<int>(ms[100] * 1000));
  RecordProperty("answer_us_p95", static_cast<int>(ms[190] * 1000));
  EXPECT_LT(ms[100], 1.0 * kSlower);
  EXPECT_GE(announcer->counters().arp_answered, 200U);
}

TEST_F(AnnouncerTest, AnswersForNobodyElse) {
  own(kEip);
  wire->collect(about(kEip), milliseconds(100));
  wire->send(request(ip("10.9.0.51")));
  wire->send(request(kEip));  // answered after the other would have been
  const auto first = wire->wait_for([](const auto& m) { return !m.asks; });
  ASSERT_TRUE(first);
  EXPECT_EQ(first->message()->claimed, kEip);
}

TEST_F(AnnouncerTest, IsNeverALocalAddress) {
  announcer.reset();
  start();
  announcer->set({{kEip, false}, {kEip6, false}});
  ASSERT_TRUE(wire->wait_for(announcement_of(kEip6)));
  for (const auto* address : {"10.9.0.50", "2001:db8:9::1:50"}) {
    EXPECT_NE(std::system((std::string("ip addr show | grep -q ") + address).c_str()), 0);
  }
}

TEST_F(AnnouncerTest, SetTakesEffectBeforeItReturns) {
  own(kEip);
  std::atomic<bool> stop{false};
  std::thread asker([&] {
    const Wire other("far0");
    while (!stop) other.send(request(kEip));
  });
  for (int i = 0; i < 20; ++i) {
    announcer->set({{kEip, false}});
    EXPECT_TRUE(wire->wait_for(reply_for(kEip)));
    announcer->set({});
    const auto returned = realtime();
    const auto late =
        wire->collect([](const auto& m) { return m.claimed == kEip; }, milliseconds(20));
    for (const auto& seen : late) EXPECT_LE(seen.at, returned);
  }
  stop = true;
  asker.join();
}

TEST_F(AnnouncerTest, DestructionStopsAnswers) {
  own(kEip);
  announcer.reset();
  wire->collect(about(kEip), milliseconds(10));
  EXPECT_FALSE(answered(kEip));
}

TEST_F(AnnouncerTest, ProbesAndOnlyThenAnswersAndAnnounces) {
  start();
  announcer->set({{kEip, true}});
  wire->send(request(kEip));
  const auto seen = wire->collect(about(kEip), milliseconds(250));
  std::vector<std::string> what;
  for (const auto& one : seen) {
    const auto m = *one.message();
    what.push_back(probe_for(kEip)(m) ? "probe" : m.asks ? "request" : "reply");
  }
  EXPECT_THAT(what, ::testing::ElementsAre("probe", "probe", "request", "reply", "request", "reply",
                                           "request", "reply"));
  ASSERT_GE(seen.size(), 3U);
  EXPECT_GE(seen[2].at - seen[0].at, milliseconds(95));
  EXPECT_LE(seen[2].at - seen[0].at, milliseconds(100) + milliseconds(50) * kSlower);
}

TEST_F(AnnouncerTest, AnnouncesAtTheTimesGiven) {
  start();
  announcer->set({{kEip, false}});
  const auto seen = wire->collect(announcement_of(kEip), milliseconds(200));
  ASSERT_EQ(seen.size(), 3U);
  EXPECT_NEAR(static_cast<double>((seen[1].at - seen[0].at) / std::chrono::microseconds(1)), 20e3,
              10e3 * kSlower);
  EXPECT_NEAR(static_cast<double>((seen[2].at - seen[0].at) / std::chrono::microseconds(1)), 60e3,
              10e3 * kSlower);
}

TEST_F(AnnouncerTest, StrangerOnTheAddressIsReportedAndNotPushedOut) {
  options.defend_interval = std::chrono::seconds(1);
  start();
  announcer->set({{kEip, true}});
  ASSERT_TRUE(wire->wait_for(probe_for(kEip)));
  wire->send(arp_gratuitous_reply(kStranger, kEip));
  ASSERT_TRUE(wait([&] { return !claims.empty(); }));
  EXPECT_EQ(claims[0].mac, kStranger);
  EXPECT_EQ(claims[0].address, kEip);
  EXPECT_EQ(claims[0].interface, "up0");
  EXPECT_FALSE(claims[0].from_gateway);
  EXPECT_FALSE(answered(kEip));
  const auto announced = wire->wait_for(announcement_of(kEip));
  ASSERT_TRUE(announced) << "free at the next probe";
  EXPECT_EQ(announcer->counters().conflicts, 1U);
}

TEST_F(AnnouncerTest, ClaimOfAStrangerIsDefendedOnce) {
  own(kEip);
  wire->collect(about(kEip), milliseconds(150));
  for (int i = 0; i < 5; ++i) wire->send(arp_announcement(kStranger, kEip));
  const auto defence = wire->collect(announcement_of(kEip), milliseconds(200));
  EXPECT_EQ(defence.size(), 1U);
  ASSERT_TRUE(wait([&] { return claims.size() == 1; }));
  EXPECT_FALSE(claims[0].from_gateway);
  EXPECT_EQ(announcer->counters().conflicts, 5U);
  EXPECT_TRUE(answered(kEip));
}

TEST_F(AnnouncerTest, YieldsToAnotherGatewayUntilConfirmed) {
  options.probe_wait = milliseconds(20);
  start();
  announcer->set_gateway_macs({kGateway});
  announcer->set({{kEip, false}});
  wire->collect(about(kEip), milliseconds(150));
  const auto claimed = realtime();
  wire->send(arp_announcement(kGateway, kEip));
  ASSERT_TRUE(wait([&] { return claims.size() == 1; }));
  EXPECT_TRUE(claims[0].from_gateway);
  EXPECT_LT(realtime() - claimed, milliseconds(20) * kSlower);
  EXPECT_FALSE(answered(kEip));
  announcer->set({{kEip, true}});
  EXPECT_FALSE(answered(kEip)) << "only confirm() gives it back";
  announcer->confirm(kEip);
  EXPECT_TRUE(wire->wait_for(announcement_of(kEip)));
  EXPECT_TRUE(answered(kEip));
  EXPECT_EQ(announcer->counters().yielded, 1U);
}

TEST_F(AnnouncerTest, ALostSubnetIsToldUntilItIsBack) {
  own(kEip);
  const auto lost = [&] { return announcer->lost_subnets().size(); };
  EXPECT_EQ(lost(), 0U);
  sh("ip link set far0 down");
  ASSERT_TRUE(wait([&] { return lost() == 2; })) << "one of each family";
  EXPECT_EQ(announcer->lost_subnets()[0].subnet.to_string(), "10.9.0.0/24");
  EXPECT_EQ(announcer->lost_subnets()[0].interface, "up0");
  EXPECT_EQ(announcer->silent(), std::vector{kEip});
  sh("ip link set far0 up");
  ASSERT_TRUE(wait([&] { return lost() == 0; }));
  EXPECT_TRUE(announcer->silent().empty());
  sh("ip link del up0");
  ASSERT_TRUE(wait([&] { return lost() == 2; }));
}

TEST_F(AnnouncerTest, MuteSilencesAndUnmuteProbes) {
  own(kEip);
  announcer->mute(true);
  const auto muted = realtime();
  for (const auto& late : wire->collect(about(kEip), milliseconds(100))) {
    EXPECT_LE(late.at, muted);
  }
  EXPECT_FALSE(answered(kEip));
  announcer->mute(false);
  EXPECT_TRUE(wire->wait_for(probe_for(kEip)));
  EXPECT_TRUE(wire->wait_for(announcement_of(kEip)));
  EXPECT_TRUE(answered(kEip));
}

TEST_F(AnnouncerTest, LinkThatComesBackIsProbedFirst) {
  own(kEip);
  announcer->set_gateway_macs({kGateway});
  wire->collect(about(kEip), milliseconds(150));
  sh("ip link set far0 down && ip link set far0 up");
  ASSERT_TRUE(wire->wait_for(probe_for(kEip)));
  wire->send(arp_gratuitous_reply(kGateway, kEip));  // the later owner is there
  ASSERT_TRUE(wait([&] { return !claims.empty(); }));
  EXPECT_TRUE(claims[0].from_gateway);
  EXPECT_FALSE(answered(kEip));
}

TEST_F(AnnouncerTest, InterfaceMadeAnewIsUsedAgain) {
  own(kEip);
  wire.reset();
  sh("ip link del up0");
  ASSERT_TRUE(wait([&] { return logs.find("not announced") != std::string::npos; }));
  link();
  EXPECT_TRUE(wire->wait_for(announcement_of(kEip)));
  EXPECT_TRUE(answered(kEip));
}

TEST_F(AnnouncerTest, AddressThatComesLaterOpensThePort) {
  sh("ip addr flush dev up0");
  start();
  announcer->set({{kEip, false}});
  ASSERT_TRUE(wait([&] { return logs.find("10.9.0.50 is not announced") != std::string::npos; }));
  sh("ip addr add 10.9.0.1/24 dev up0");
  EXPECT_TRUE(wire->wait_for(announcement_of(kEip)));
}

TEST_F(AnnouncerTest, TellsTheMacsThatItAnnouncesFrom) {
  own(kEip);
  EXPECT_EQ(announcer->port_macs(), std::vector<model::Mac>{mac});
}

TEST_F(AnnouncerTest, ExcludedTunnelAndForeignInterfacesAreLeftAlone) {
  sh("ip link add cali1 type veth peer name cfar && ip link add egress.vxlan type veth peer name "
     "tfar && ip addr add 10.9.0.2/24 dev cali1 && ip addr add 10.9.0.3/24 dev egress.vxlan && "
     "for i in cali1 cfar egress.vxlan tfar; do ip link set $i up; done");
  options.exclude = {"^cali.*", "up"};  // anchored: "up" is not up0
  const Wire excluded("cfar"), tunnel("tfar");
  own(kEip);
  EXPECT_TRUE(excluded.collect(about(kEip), milliseconds(100)).empty());
  EXPECT_TRUE(tunnel.collect(about(kEip), milliseconds(1)).empty());
  excluded.send(request(kEip));
  tunnel.send(request(kEip));
  EXPECT_FALSE(excluded.wait_for(reply_for(kEip), milliseconds(100)));
  EXPECT_FALSE(tunnel.wait_for(reply_for(kEip), milliseconds(1)));
  sh("ip link del cali1; ip link del egress.vxlan");
}

TEST_F(AnnouncerTest, DefaultRoutesInterfaceTakesWhatIsInNoSubnet) {
  sh("ip route add default via 10.9.0.254");
  const auto foreign = ip("192.0.2.50");
  own(foreign);
  EXPECT_TRUE(answered(foreign));
  EXPECT_TRUE(wait([&] { return logs.find("announced on up0") != std::string::npos; }));
}

TEST_F(AnnouncerTest, BadExpressionIsAnError) {
  options.exclude = {"br-["};
  const auto started = Announcer::start(
      options, [](const Claim&) {}, [] {}, [](int, const auto&) {});
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, Errc::kInvalid);
  EXPECT_THAT(started.error().to_string(), HasSubstr("announcedInterfacesToExclude"));
}

// ---- IPv6 --------------------------------------------------------------------------------------

// An ordinary neighbour solicitation by 2001:db8:9::9 (RFC 4861, 4.3).
Frame solicitation(const model::Address& target) {
  const auto source = ip("2001:db8:9::9");
  Frame f(86);
  const auto group = solicited_node_group(target);
  const auto to = multicast_mac(group);
  std::copy(to.begin(), to.end(), f.begin());
  std::copy(kStranger.begin(), kStranger.end(), f.begin() + 6);
  f[12] = 0x86, f[13] = 0xdd, f[14] = 0x60, f[19] = 32, f[20] = 58, f[21] = 255;
  std::copy_n(source.bytes().begin(), 16, f.begin() + 22);
  std::copy_n(group.bytes().begin(), 16, f.begin() + 38);
  f[54] = 135;
  std::copy_n(target.bytes().begin(), 16, f.begin() + 62);
  f[78] = 1, f[79] = 1;
  std::copy(kStranger.begin(), kStranger.end(), f.begin() + 80);
  unsigned sum = 32 + 58;
  for (std::size_t i = 22; i < f.size(); i += 2) sum += f[i] * 256U + f[i + 1];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  f[56] = static_cast<std::uint8_t>(~sum >> 8), f[57] = static_cast<std::uint8_t>(~sum);
  return f;
}

TEST_F(AnnouncerTest, AnswersNeighbourSolicitations) {
  own(kEip6);
  wire->collect(about(kEip6), milliseconds(100));
  wire->send(solicitation(kEip6));
  const auto seen = wire->wait_for(reply_for(kEip6));
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->message()->from, mac);
  EXPECT_EQ(seen->frame[58], 0x60) << "solicited, override";
  wire->send(solicitation(ip("2001:db8:9::2:50")));
  wire->send(solicitation(kEip6));
  const auto next = wire->wait_for([](const auto& m) { return !m.asks; });
  ASSERT_TRUE(next);
  EXPECT_EQ(next->message()->claimed, kEip6);
  EXPECT_GE(announcer->counters().ndp_answered, 2U);
}

TEST_F(AnnouncerTest, Ipv6IsProbedAndAnnounced) {
  start();
  announcer->set({{kEip6, true}});
  const auto seen = wire->collect(about(kEip6), milliseconds(250));
  ASSERT_EQ(seen.size(), 5U) << "two probes, three announcements";
  EXPECT_TRUE(probe_for(kEip6)(*seen[1].message()));
  EXPECT_FALSE(seen[2].message()->asks);
  EXPECT_EQ(seen[2].frame[58], 0x20) << "override";
}

TEST_F(AnnouncerTest, JoinsAndLeavesTheSolicitedNodeGroup) {
  const auto member = [] {
    std::ifstream in("/proc/thread-self/net/igmp6");
    std::stringstream all;
    all << in.rdbuf();
    return all.str().find("ff0200000000000000000001ff010050") != std::string::npos;
  };
  own(kEip6);
  EXPECT_TRUE(member()) << "MLD reports are sent for it";
  EXPECT_EQ(std::system("ip maddr show dev up0 | grep -q 33:33:ff:01:00:50"), 0);
  announcer->set({{kEip, false}});
  ASSERT_TRUE(wire->wait_for(announcement_of(kEip)));  // the turn after the groups
  EXPECT_FALSE(member());
}

TEST_F(AnnouncerTest, Ipv6ConflictAndYield) {
  options.probe_wait = milliseconds(20);
  start();
  announcer->set_gateway_macs({kGateway});
  announcer->set({{kEip6, false}});
  wire->collect(about(kEip6), milliseconds(150));
  wire->send(ndp_announcement(kStranger, kEip6));
  EXPECT_TRUE(wire->wait_for(announcement_of(kEip6))) << "defended";
  wire->send(ndp_announcement(kGateway, kEip6));
  ASSERT_TRUE(wait([&] { return claims.size() == 2; }));
  EXPECT_FALSE(claims[0].from_gateway);
  EXPECT_TRUE(claims[1].from_gateway);
  wire->send(solicitation(kEip6));
  EXPECT_FALSE(wire->wait_for(reply_for(kEip6), milliseconds(100)));
}

// ---- many --------------------------------------------------------------------------------------

TEST_F(AnnouncerTest, AThousandAreAnnouncedAtOnceWhileRequestsAreAnswered) {
  sh("ip addr add 10.77.0.1/16 dev up0 && ip addr add 2001:db8:77::1/64 dev up0 nodad");
  std::vector<AnnouncedEip> eips;
  for (int i = 0; i < 1000; ++i) {
    const auto tail = std::to_string(1 + i / 250) + "." + std::to_string(1 + i % 250);
    eips.push_back({ip("10.77." + tail), false});
    char text[40];
    std::snprintf(text, sizeof text, "2001:db8:77::%x:%x", 1 + i / 250, 0x1000 + i);
    eips.push_back({ip(text), false});
  }
  start();
  const auto begin = realtime();
  announcer->set(eips);
  std::set<model::Address> announced;
  std::chrono::nanoseconds last{};
  while (announced.size() < eips.size()) {
    const auto seen = wire->wait_for([](const auto& m) { return static_cast<bool>(m.claimed); });
    ASSERT_TRUE(seen) << announced.size();
    if (announced.insert(seen->message()->claimed).second) last = seen->at;
  }
  const auto took = last - begin;
  RecordProperty("announce_2000_ms", static_cast<int>(took / milliseconds(1)));
  EXPECT_LT(took, milliseconds(300) * kSlower);
  EXPECT_TRUE(answered(eips[1998].address));
  wire->send(solicitation(eips[1999].address));
  EXPECT_TRUE(wire->wait_for(reply_for(eips[1999].address)));
  const std::lock_guard guard(lock);
  EXPECT_EQ(logs, "") << "all groups joined";
}

// ---- descriptors -------------------------------------------------------------------------------

long open_descriptors() {
  namespace fs = std::filesystem;
  return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
}

TEST_F(AnnouncerTest, GroupsThatComeAndGoTakeNoMoreSockets) {
  // What bounds the groups of a socket; before Linux 6.8 there is no own value, and the usual one.
  sh("sysctl -qw net.core.optmem_max=20480 2>/dev/null || true");
  std::vector<AnnouncedEip> many;
  for (int i = 0; i < 1000; ++i) {
    char text[40];
    std::snprintf(text, sizeof text, "2001:db8:9::1:%x", 0x1000 + i);
    many.push_back({ip(text), false});
  }
  start();
  std::vector<long> open;
  for (int i = 0; i < 4; ++i) {
    announcer->set(many);
    ASSERT_TRUE(wire->wait_for(announcement_of(many.back().address)));
    open.push_back(open_descriptors());
    announcer->set({{kEip, false}});
    ASSERT_TRUE(wire->wait_for(announcement_of(kEip)));
  }
  EXPECT_EQ(open.back(), open.front());
  const std::lock_guard guard(lock);
  EXPECT_EQ(logs, "") << "all groups joined";
}

TEST_F(AnnouncerTest, AnInterfaceThatCannotBeOpenedAndIsNotWantedAnyMoreIsNotWaitedFor) {
  sh("ip link add later0 type veth peer name lfar && ip addr add 10.11.0.1/24 dev later0 && "
     "ip link set lfar up");
  own(kEip);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = dup(0);
  close(next);
  const rlimit none{static_cast<rlim_t>(next), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const bool up = std::system("ulimit -S -n 1024; ip link set later0 up") == 0;
  const bool told = wait([&] { return logs.find("later0") != std::string::npos; });
  const bool down = std::system("ulimit -S -n 1024; ip link set lfar down") == 0;
  std::this_thread::sleep_for(milliseconds(1200));  // when it would be tried again
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(up && told && down) << logs;
  const auto begin = std::clock();
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_LT(std::clock() - begin, CLOCKS_PER_SEC / 10) << "it turns without a pause";
  sh("ip link del later0");
}

}  // namespace
}  // namespace egw::net::test
