// ARP and NDP frames: what is built is what the RFCs say, what comes in is checked, and no bytes
// crash the parsers.
#include "egw/net/frames.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace egw::net {
namespace {

const model::Mac kOurs{2, 0, 0, 0, 0, 1};
const model::Mac kTheirs{2, 0, 0, 0, 0, 2};

model::Address ip(const char* text) { return model::Address::parse(text).value(); }

// A neighbour solicitation as Linux sends it, taken from the wire: 2001:db8::2 asks for
// 2001:db8::1.
Frame solicitation() {
  return {0x33, 0x33, 0xff, 0, 0,    1,    2,   0,    0,    0,    0,    2,    0x86, 0xdd, 0x60,
          0,    0,    0,    0, 32,   58,   255, 0x20, 1,    0x0d, 0xb8, 0,    0,    0,    0,
          0,    0,    0,    0, 0,    0,    0,   2,    0xff, 2,    0,    0,    0,    0,    0,
          0,    0,    0,    0, 1,    0xff, 0,   0,    1,    135,  0,    0x1c, 0x27, 0,    0,
          0,    0,    0x20, 1, 0x0d, 0xb8, 0,   0,    0,    0,    0,    0,    0,    0,    0,
          0,    0,    1,    1, 1,    2,    0,   0,    0,    0,    2};
}

TEST(Frames, ArpReplyAnswersTheAsker) {
  NeighbourMessage request;
  request.asks = true;
  request.from = kTheirs;
  request.source = ip("10.0.0.9");
  request.target = ip("10.0.0.1");
  const Frame wanted{2, 0, 0, 0, 0, 2, 2, 0,  0, 0, 0, 1, 8, 6, 0, 1, 8, 0,  6, 4, 0,
                     2, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 9};
  EXPECT_EQ(arp_reply(kOurs, request), wanted);
}

TEST(Frames, ArpProbeAndAnnouncement) {
  const auto probe = parse_arp(arp_probe(kOurs, ip("10.0.0.1")));
  ASSERT_TRUE(probe);
  EXPECT_TRUE(probe->asks);
  EXPECT_FALSE(probe->source);
  EXPECT_FALSE(probe->claimed);
  EXPECT_EQ(probe->target, ip("10.0.0.1"));
  for (const auto& frame :
       {arp_announcement(kOurs, ip("10.0.0.1")), arp_gratuitous_reply(kOurs, ip("10.0.0.1"))}) {
    const auto message = parse_arp(frame);
    ASSERT_TRUE(message);
    EXPECT_EQ(message->claimed, ip("10.0.0.1"));
    EXPECT_EQ(message->target, ip("10.0.0.1"));
    EXPECT_EQ(message->from, kOurs);
    EXPECT_TRUE(std::equal(frame.begin(), frame.begin() + 6, kBroadcastMac.begin()));
  }
}

TEST(Frames, SolicitationIsRead) {
  const auto message = parse_ndp(solicitation());
  ASSERT_TRUE(message);
  EXPECT_TRUE(message->asks);
  EXPECT_EQ(message->source, ip("2001:db8::2"));
  EXPECT_EQ(message->target, ip("2001:db8::1"));
  EXPECT_EQ(message->from, kTheirs);
}

TEST(Frames, AdvertisementsAreValidAndSayOverride) {
  const auto request = parse_ndp(solicitation());
  ASSERT_TRUE(request);
  const auto reply = ndp_reply(kOurs, *request);
  const auto parsed = parse_ndp(reply);
  ASSERT_TRUE(parsed) << "checksum, lengths, hop limit";
  EXPECT_FALSE(parsed->asks);
  EXPECT_EQ(parsed->claimed, ip("2001:db8::1"));
  EXPECT_EQ(reply[58], 0x60) << "solicited, override";
  EXPECT_TRUE(std::equal(reply.begin(), reply.begin() + 6, kTheirs.begin()));

  const auto probe = parse_ndp(ndp_probe(kTheirs, ip("2001:db8::1")));
  ASSERT_TRUE(probe);
  EXPECT_FALSE(probe->source);
  const auto answer = ndp_reply(kOurs, *probe);
  EXPECT_EQ(answer[58], 0x20) << "to all nodes: override, not solicited";
  EXPECT_EQ(answer, ndp_announcement(kOurs, ip("2001:db8::1")));
}

TEST(Frames, DamagedSolicitationsAreRefused) {
  const auto refuse = [](std::size_t at, std::uint8_t value, const char* what) {
    auto frame = solicitation();
    frame[at] = value;
    EXPECT_FALSE(parse_ndp(frame, what == std::string("checksum"))) << what;
  };
  refuse(21, 64, "hop limit");
  refuse(57, 0, "checksum");
  refuse(55, 1, "code");
  refuse(62, 0xff, "multicast target");
  refuse(79, 0, "option of length 0");
  refuse(79, 9, "option beyond the end");
  refuse(19, 8, "shorter than a solicitation");
  refuse(19, 60, "longer than the frame");
  auto from_nobody = solicitation();
  std::fill(from_nobody.begin() + 22, from_nobody.begin() + 38, std::uint8_t{0});
  EXPECT_FALSE(parse_ndp(from_nobody, false)) << "a probe with a link-layer option";
  auto unfinished = solicitation();
  unfinished[57] = 0;
  EXPECT_TRUE(parse_ndp(unfinished, false));
}

TEST(Frames, ArpFromAGroupOrOfOtherKindIsRefused) {
  const auto refuse = [](std::size_t at, std::uint8_t value) {
    auto frame = arp_announcement(kOurs, ip("10.0.0.1"));
    frame[at] = value;
    EXPECT_FALSE(parse_arp(frame)) << at;
  };
  refuse(15, 6);     // hardware type
  refuse(16, 0x86);  // protocol type
  refuse(18, 8);     // hardware length
  refuse(19, 16);    // protocol length
  refuse(21, 3);     // operation
  refuse(22, 1);     // sender is a group
  auto frame = arp_announcement(kOurs, ip("10.0.0.1"));
  frame.pop_back();
  EXPECT_FALSE(parse_arp(frame));
}

TEST(Frames, GroupOfAnAddress) {
  EXPECT_EQ(solicited_node_group(ip("2001:db8::12:3456")), ip("ff02::1:ff12:3456"));
  EXPECT_EQ(multicast_mac(ip("ff02::1:ff12:3456")),
            (model::Mac{0x33, 0x33, 0xff, 0x12, 0x34, 0x56}));
}

RC_GTEST_PROP(Frames, NoBytesBreakTheParsers, ()) {
  auto frame = *rc::gen::element(solicitation(), arp_announcement(kOurs, ip("10.0.0.1")));
  for (int i = *rc::gen::inRange(0, 6); i > 0; --i) {
    const auto at = *rc::gen::inRange<std::size_t>(12, frame.size());
    frame[at] = *rc::gen::arbitrary<std::uint8_t>();
  }
  frame.resize(*rc::gen::inRange<std::size_t>(0, frame.size() + 1));
  const auto arp = parse_arp(frame);
  const auto ndp = parse_ndp(frame, false);
  RC_ASSERT(!(arp && ndp));
  if (arp) RC_ASSERT((arp->from[0] & 1) == 0);
  if (ndp) RC_ASSERT(ndp->target.is_v6());
}

}  // namespace
}  // namespace egw::net
