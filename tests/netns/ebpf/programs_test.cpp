// The programs of the ebpf datapath, packet by packet.
#include "programs.hpp"

namespace egw::ebpf {
namespace {

struct PodCase {
  const char* name;
  std::string packet;
  std::uint32_t mark_in, mark, priority;
};

class Pod : public Programs, public ::testing::WithParamInterface<PodCase> {};

TEST_P(Pod, Marks) {
  const PodCase& c = GetParam();
  const Outcome out = pod(c.packet, c.mark_in);
  EXPECT_EQ(out.mark, c.mark);
  EXPECT_EQ(out.priority, c.priority);
}

INSTANTIATE_TEST_SUITE_P(
    Table, Pod,
    ::testing::Values(
        PodCase{"Steered", from4("10.244.1.10"), 0, kEarly, kSeven},
        PodCase{"ForeignHighBitsStay", from4("10.244.1.10"), 0x4000, kEarly | 0x4000, kSeven},
        PodCase{"ForeignLowBitsStay", from4("10.244.1.10"), 0x21, kEarly | 0x21, kSeven},
        PodCase{"JudgedBefore", from4("10.244.1.10"), kSteer | 7, kSteer | 7, 0},
        PodCase{"NoEndpoint", from4("10.244.1.99"), 0, 0, 0},
        PodCase{"Drop", from4("10.244.1.12"), 0, kLate, common::kDropNumber},
        PodCase{"OwnedHere", from4("10.244.1.13"), 0, kLate, 8},
        PodCase{"Cluster", from4("10.244.1.10", "10.96.0.1"), 0, kLate, 7},
        PodCase{"ClassPrefix", from4("10.244.1.11"), 0, kEarly, kSevenOfClass},
        PodCase{"ClassLongestPrefix", from4("10.244.1.11", "198.51.100.200"), 0, kLate, kClass},
        PodCase{"ClassOtherNumber", from4("10.244.1.11", "203.0.113.1"), 0, kLate, kClass},
        PodCase{"Options",
                ether(0x0800) +
                    ipv4({"10.244.1.10", "198.51.100.7", 17, bytes({7, 4, 4, 0}), 0}, udp()),
                0, kEarly, kSeven},
        PodCase{"FirstFragment",
                ether(0x0800) + ipv4({"10.244.1.10", "198.51.100.7", 17, "", 0x2000}, udp()), 0,
                kEarly, kSeven},
        PodCase{"LaterFragment",
                ether(0x0800) + ipv4({"10.244.1.10", "198.51.100.7", 17, "", 0x00b9}, "rest"), 0,
                kEarly, kSeven},
        PodCase{"HeaderLengthLies",
                ether(0x0800) + from4("10.244.1.10").substr(14).replace(0, 1, "\x42"), 0, kEarly,
                kSeven},
        PodCase{"TotalLengthLies",
                ether(0x0800) + from4("10.244.1.10").substr(14).replace(2, 2, be16(9000)), 0,
                kEarly, kSeven},
        PodCase{"Vlan", ether(0x8100) + be16(5) + be16(0x0800) + from4("10.244.1.10").substr(14), 0,
                0, 0},
        PodCase{"PriorityTag",
                ether(0x8100) + be16(0xe000) + be16(0x0800) + from4("10.244.1.10").substr(14), 0,
                kEarly, kSeven},
        PodCase{"PriorityTags",
                ether(0x88a8) + be16(0) + be16(0x8100) + be16(0) + be16(0x86dd) + ipv6(17, udp()),
                0, kEarly, kSeven},
        PodCase{"PriorityTagThenVlan",
                ether(0x88a8) + be16(0) + be16(0x8100) + be16(5) + be16(0x0800) +
                    from4("10.244.1.10").substr(14),
                0, 0, 0},
        PodCase{"PriorityTagAndNothing", ether(0x8100) + be16(0), 0, 0, 0},
        PodCase{"Arp", ether(0x0806) + std::string(28, '\x01'), 0, 0, 0},
        PodCase{"Ipv6", ether(0x86dd) + ipv6(17, udp()), 0, kEarly, kSeven},
        PodCase{"Ipv6HopByHop", ether(0x86dd) + ipv6(0, kHop + udp()), 0, kEarly, kSeven},
        PodCase{"Ipv6Fragment", ether(0x86dd) + ipv6(44, bytes({17, 0, 0, 8, 0, 0, 0, 1}) + "rest"),
                0, kEarly, kSeven},
        PodCase{"Ipv6Class", ether(0x86dd) + ipv6(17, udp(), "fd00:244:1::b"), 0, kEarly,
                kSevenOfClass},
        PodCase{"Ipv6ClassNoPrefix",
                ether(0x86dd) + ipv6(17, udp(), "fd00:244:1::b", "2001:db9::1"), 0, kLate, kClass},
        PodCase{"Ipv6Cluster", ether(0x86dd) + ipv6(17, udp(), "fd00:244:1::a", "fd00:96::1"), 0,
                kLate, 7},
        PodCase{"Ipv6OnlyAHeader", ether(0x86dd) + ipv6(6, ""), 0, kEarly, kSeven}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST_F(Programs, AnIdWithoutOwnerIsJudgedLate) {
  loaded_.owners().set(7, 0);
  EXPECT_EQ(pod(from4("10.244.1.10")).mark, kLate);
}

TEST_F(Programs, WhatAClassSendsIsCounted) {
  const std::string packet = from4("10.244.1.11");
  pod(packet);
  pod(packet);
  const egw_count count = loaded_.judged(common::Table::kIp).get(kClass & EGW_ID_MASK);
  EXPECT_EQ(count.packets, 2U);
  EXPECT_EQ(count.bytes, 2 * packet.size());
  EXPECT_EQ(loaded_.judged(common::Table::kIp6).get(kClass & EGW_ID_MASK).packets, 0U);
}

TEST_F(Programs, IntoTheTunnelGoesWhatIsSteered) {
  const std::string packet = from4("10.244.1.10");
  const Outcome out = run(Loaded::Program::kTunnel, packet, kSteer | 0x4000 | 7);
  EXPECT_EQ(out.verdict, kNext);
  EXPECT_EQ(out.mark, kOuter | 7);
  EXPECT_EQ(out.packet.substr(0, 6), common::register_mac(kOwnerMac));
  EXPECT_EQ(out.packet.substr(6), packet.substr(6));
  EXPECT_EQ(loaded_.steered().get(7).packets, 1U);
}

TEST_F(Programs, IntoTheTunnelGoAnswersWithoutId) {
  const Outcome out = run(Loaded::Program::kTunnel, from4("198.51.100.7", "10.244.2.4"), kBack | 3);
  EXPECT_EQ(out.verdict, kNext);
  EXPECT_EQ(out.mark, kOuter);
  EXPECT_EQ(out.packet.substr(0, 6), common::register_mac(kPeerMac));
  const Outcome again = run(Loaded::Program::kTunnel, out.packet, out.mark);
  EXPECT_EQ(again.verdict, kNext) << "a former agent's program that is still there";
  EXPECT_EQ(again.packet, out.packet);
}

TEST_F(Programs, MoreTagsThanAnybodyNeedsAreDropped) {
  std::string packet = ether(0x8100) + be16(0);
  for (int i = 0; i < 8; ++i) packet += be16(0x8100) + be16(0);
  packet += be16(0x0800) + from4("10.244.1.10").substr(14);
  EXPECT_EQ(run(Loaded::Program::kPod, packet).verdict, kShot);
}

// Its number has no counter of its own, and is not another's.
TEST_F(Programs, AClassBeyondTheCountersCountsNowhere) {
  const std::uint32_t far = common::kClassBit | (5 + EGW_ID_MASK + 1);
  ASSERT_TRUE(
      loaded_.put(common::Table::kIp, {{*sdk::Address::parse("10.244.1.14"), far}}).empty());
  put_all(loaded_.maps().classes[0], {{key(far, "198.51.100.0/24"), common::register_u32(7)}});
  EXPECT_EQ(pod(from4("10.244.1.14")).mark, kEarly);
  EXPECT_EQ(loaded_.judged(common::Table::kIp).get(5).packets, 0U);
}

TEST_F(Programs, IntoTheTunnelGoesTheNodesOwn) {
  EXPECT_EQ(run(Loaded::Program::kTunnel, from4("172.31.0.1", "172.31.0.2"), 0x4000).mark, 0U);
  const Outcome out =
      run(Loaded::Program::kTunnel, ether(0x86dd) + ipv6(17, udp(), "fd11::1", "fd11::2"), 0);
  EXPECT_EQ(out.verdict, kNext);
}

TEST_F(Programs, NothingElseEntersTheTunnel) {
  struct {
    std::uint32_t mark;
    egw_reason reason;
  } const cases[] = {{0, EGW_NOT_STEERED},       {kLate, EGW_NOT_STEERED},
                     {kEarly, EGW_NOT_STEERED},  {kSteer | 9, EGW_NO_OWNER},
                     {kSteer | 8, EGW_NO_OWNER}, {kBack | 4, EGW_NO_PEER}};
  for (const auto& c : cases) {
    const std::uint64_t before = dropped(c.reason);
    EXPECT_EQ(run(Loaded::Program::kTunnel, from4("10.244.1.10"), c.mark).verdict, kShot) << c.mark;
    EXPECT_EQ(dropped(c.reason), before + 1) << c.mark;
  }
}

// An id that has one family only; and one whose connections still go to the former owner.
TEST_F(Programs, IntoTheTunnelGoesTheFamilyThatTheIdHas) {
  common::EgressPlan plan;
  plan.mode = {common::Mode::kSteer, common::Mode::kDrop};
  plan.owner = kOwnerMac;
  loaded_.owners().set(7, owner_value(plan));
  const std::string six = ether(0x86dd) + ipv6(17, udp());
  EXPECT_EQ(run(Loaded::Program::kTunnel, from4("10.244.1.10"), kSteer | 7).verdict, kNext);
  EXPECT_EQ(run(Loaded::Program::kTunnel, six, kSteer | 7).verdict, kShot);
  EXPECT_EQ(dropped(EGW_NO_OWNER), 1U);
  loaded_.owners().set(7, owner(common::Mode::kOwn, kOwnerMac));
  EXPECT_EQ(run(Loaded::Program::kTunnel, six, kSteer | 7).verdict, kNext);
}

// The maximum segment size of a SYN, by where the option stands and what it says.
TEST_F(Programs, SegmentsAreMadeToFit) {
  const std::string addresses = address("10.244.1.10") + address("198.51.100.7");
  const std::string six = address("fd00:244:1::a") + address("2001:db8::7");
  const std::string mss = bytes({2, 4}) + be16(1460), pad = bytes({1, 1, 1, 0});
  struct Case {
    const char* name;
    std::string options;
    unsigned flags;
    int family;
    unsigned want;  // 0: the packet stays as it is
    std::size_t at;
  } const cases[] = {
      {"First", mss, 0x02, 4, kMtu - 40, 2},
      {"SynAck", mss, 0x12, 4, kMtu - 40, 2},
      {"AfterNops", bytes({1, 1}) + mss + bytes({1, 0}), 0x02, 4, kMtu - 40, 4},
      {"AtAnOddPlace", bytes({1}) + mss + pad.substr(0, 3), 0x02, 4, kMtu - 40, 3},
      {"AfterWindowScale", bytes({3, 3, 7}) + mss + bytes({0}), 0x02, 4, kMtu - 40, 5},
      {"Small", bytes({2, 4}) + be16(536), 0x02, 4, 0, 0},
      {"NoSyn", mss, 0x10, 4, 0, 0},
      {"Reset", mss, 0x06, 4, 0, 0},
      {"AfterTheEnd", bytes({0, 1, 1, 1}) + mss, 0x02, 4, 0, 0},
      {"OptionOfNoLength", bytes({3, 0, 1, 1}) + mss, 0x02, 4, 0, 0},
      {"OptionBeyondTheHeader", bytes({8, 40, 0, 0}), 0x02, 4, 0, 0},
      {"Ipv6", mss, 0x02, 6, kMtu - 60, 2},
      {"Ipv6AfterHopByHop", mss, 0x02, 60, kMtu - 60, 2},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string segment = tcp(c.options, c.flags, c.family == 4 ? addresses : six);
    const std::string hop = bytes({6, 0, 1, 4, 0, 0, 0, 0});
    const std::string packet =
        c.family == 4 ? ether(0x0800) + ipv4(of_tcp(0), segment)
                      : ether(0x86dd) + (c.family == 6 ? ipv6(6, segment) : ipv6(0, hop + segment));
    const Outcome out = run(Loaded::Program::kTunnel, packet, kSteer | 7);
    ASSERT_EQ(out.verdict, kNext);
    ASSERT_EQ(out.packet.size(), packet.size());
    const std::string after = out.packet.substr(packet.size() - segment.size());
    if (c.want == 0) {
      EXPECT_EQ(after, segment);
      continue;
    }
    EXPECT_EQ(after.substr(20 + c.at, 2), be16(c.want));
    const std::string pseudo =
        (c.family == 4 ? addresses : six) + be16(6) + be16(static_cast<unsigned>(after.size()));
    EXPECT_EQ(add_words(after, add_words(pseudo, 0)), 0xffffU) << "checksum";
  }
}

// Headers that end too early or lie about their length: nothing is read or written beyond them.
TEST_F(Programs, MalformedSegmentsStayAsTheyAre) {
  const std::string addresses = address("10.244.1.10") + address("198.51.100.7");
  const std::string segment = tcp(bytes({2, 4}) + be16(1460), 0x02, addresses);
  std::string lies = segment;
  lies[12] = '\xf0';  // 60 bytes of header
  const std::string hop = bytes({6, 255, 1, 4, 0, 0, 0, 0});
  for (const std::string& packet :
       {ether(0x0800) + ipv4(of_tcp(0), segment.substr(0, 12)),
        ether(0x0800) + ipv4(of_tcp(0), segment.substr(0, 22)),
        ether(0x0800) + ipv4(of_tcp(0), segment).replace(0, 1, "\x4f"),
        ether(0x86dd) + ipv6(0, hop + segment), ether(0x86dd) + ipv6(0, hop.substr(0, 3)),
        ether(0x86dd) + ipv6(6, "")}) {
    const Outcome out = run(Loaded::Program::kTunnel, packet, kSteer | 7);
    EXPECT_EQ(out.verdict, kNext);
    EXPECT_EQ(out.packet.substr(6), packet.substr(6));
  }
  // The option is there; the header only says that more follows.
  const Outcome out =
      run(Loaded::Program::kTunnel, ether(0x0800) + ipv4(of_tcp(0), lies), kSteer | 7);
  EXPECT_EQ(out.packet.substr(14 + 20 + 22, 2), be16(kMtu - 40));
}

TEST_F(Programs, ALaterFragmentIsNoSyn) {
  const std::string addresses = address("10.244.1.10") + address("198.51.100.7");
  const std::string segment = tcp(bytes({2, 4}) + be16(1460), 0x02, addresses);
  const std::string packet = ether(0x0800) + ipv4(of_tcp(0x0010), segment);
  EXPECT_EQ(run(Loaded::Program::kTunnel, packet, kSteer | 7).packet.substr(14), packet.substr(14));
}

sdk::Address nth(std::uint32_t i) {
  sdk::Address out = *sdk::Address::parse("10.0.0.0");
  out.bytes = {10, static_cast<std::uint8_t>(i >> 16U), static_cast<std::uint8_t>(i >> 8U),
               static_cast<std::uint8_t>(i)};
  return out;
}

// Twice as many places as endpoints: none finds its two buckets full.
TEST_F(Programs, AsManyIpv4EndpointsAsThereMayBe) {
  loaded_.remove(common::Table::kIp, {nth(0)});  // of none
  const std::size_t others = loaded_.endpoints(common::Table::kIp).size();
  Endpoints many;
  for (std::uint32_t i = 0; i < EGW_MAX_ENDPOINTS; ++i) many.emplace_back(nth(i), kClass);
  ASSERT_TRUE(loaded_.put(common::Table::kIp, many).empty());
  ASSERT_TRUE(loaded_.put(common::Table::kIp, {{nth(77), 7}}).empty());
  auto held = loaded_.endpoints(common::Table::kIp);
  ASSERT_EQ(held.size(), many.size() + others) << "a replaced one is not there twice";
  for (const auto& [endpoint, number] : many) {
    const std::string* found = common::find_element(held, common::register_address(endpoint));
    ASSERT_NE(found, nullptr) << endpoint.text();
    ASSERT_EQ(*found, common::register_u32(endpoint == nth(77) ? 7 : number)) << endpoint.text();
  }
  EXPECT_EQ(pod(from4("10.0.0.77")).mark, kEarly);
  EXPECT_EQ(pod(from4("10.1.255.255")).mark, kEarly) << "of a class";
  std::vector<sdk::Address> gone;
  for (const auto& [endpoint, number] : many) gone.push_back(endpoint);
  loaded_.remove(common::Table::kIp, gone);
  EXPECT_EQ(loaded_.endpoints(common::Table::kIp).size(), others);
  EXPECT_EQ(pod(from4("10.0.0.77")).mark, 0U);
}

// What goes leaves holes anywhere in a bucket: the emptier one is still found. Half as many again
// as there may be, so that a choice of the fuller one shows.
TEST_F(Programs, Ipv4EndpointsThatComeAndGoFillTheBucketsEvenly) {
  constexpr std::uint32_t kMany = EGW_MAX_ENDPOINTS / 4 * 5;
  Endpoints held;
  for (std::uint32_t i = 0; i < kMany; ++i) held.emplace_back(nth(i), 7);
  ASSERT_TRUE(loaded_.put(common::Table::kIp, held).empty());
  std::uint32_t next = kMany;
  for (std::size_t round = 0; round < 16; ++round) {
    std::vector<sdk::Address> gone;
    Endpoints come;
    for (std::size_t i = round % 4; i < held.size(); i += 4) {
      gone.push_back(held[i].first);
      held[i] = {nth(next++), 7};
      come.push_back(held[i]);
    }
    loaded_.remove(common::Table::kIp, gone);
    ASSERT_EQ(loaded_.put(common::Table::kIp, come).size(), 0U) << "round " << round;
  }
}

TEST_F(Programs, Ipv4EndpointsWithoutRoomAreNamedAndTheOthersWritten) {
  Endpoints many;
  for (std::uint32_t i = 0; i <= EGW_BUCKETS * EGW_BUCKET; ++i) many.emplace_back(nth(i), 7);
  const auto refused = loaded_.put(common::Table::kIp, many);
  const auto held = loaded_.endpoints(common::Table::kIp);
  ASSERT_FALSE(refused.empty());
  EXPECT_GT(held.size(), EGW_MAX_ENDPOINTS);
  EXPECT_EQ(refused[0].error, ENOSPC);
  for (const Refused& r : refused) ASSERT_EQ(common::find_element(held, r.key), nullptr);
  EXPECT_EQ(held.size() + refused.size(), many.size() + 4);
}

TEST_F(Programs, WhatTheKernelRefusesAsAWholeIsNotTakenForWritten) {
  const int map = loaded_.maps().classes[0];
  ASSERT_EQ(bpf_map_freeze(map), 0) << std::strerror(errno);
  const auto refused = put(map, {{key(kClass, "192.0.2.0/24"), common::register_u32(7)},
                                 {key(kClass, "192.0.3.0/24"), common::register_u32(7)}});
  ASSERT_EQ(refused.size(), 2U);
  EXPECT_EQ(refused[1].error, EPERM);
}

}  // namespace
}  // namespace egw::ebpf
