// A pass through a table of hundreds of thousands of entries holds few of them at a time, whatever
// it removes or binds anew.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "common/conntrack.hpp"

namespace egw::common {
namespace {

constexpr std::uint32_t kFirstPod = 0x0a000001, kServerOfAll = 0xcb007109, kEip = 0xc0000201;
constexpr std::uint16_t kServerPort = 5000, kGatewayZone = 7, kGoneZone = 9;
// kB. A sanitizer keeps what is freed.
#ifdef __SANITIZE_ADDRESS__
constexpr long kMostMemory = 1024L * 1024;
#else
constexpr long kMostMemory = 48L * 1024;
#endif

sdk::Address address_of(std::uint32_t a) {
  sdk::Address out;
  out.family = 4;
  a = htonl(a);
  std::memcpy(out.bytes.data(), &a, sizeof(a));
  return out;
}

// A UDP connection to the server, which sees it as `seen`.
struct Connection {
  std::uint32_t source, seen;
  std::uint16_t port, zone;
};

void put_tuple(Message& m, int type, std::uint32_t from, std::uint16_t from_port, std::uint32_t to,
               std::uint16_t to_port, std::uint16_t zone) {
  nlattr* tuple = m.begin(type);
  nlattr* ip = m.begin(CTA_TUPLE_IP);
  m.address(CTA_IP_V4_SRC, address_of(from)).address(CTA_IP_V4_DST, address_of(to)).end(ip);
  nlattr* proto = m.begin(CTA_TUPLE_PROTO);
  m.u8(CTA_PROTO_NUM, IPPROTO_UDP).be16(CTA_PROTO_SRC_PORT, from_port);
  m.be16(CTA_PROTO_DST_PORT, to_port).end(proto);
  if (zone != 0) m.be16(CTA_TUPLE_ZONE, zone);
  m.end(tuple);
}

Message making(const Connection& c) {
  nfgenmsg g{};
  g.nfgen_family = AF_INET;
  g.version = NFNETLINK_V0;
  Message m((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL);
  m.header(g);
  put_tuple(m, CTA_TUPLE_ORIG, c.source, c.port, kServerOfAll, kServerPort, c.zone);
  put_tuple(m, CTA_TUPLE_REPLY, kServerOfAll, kServerPort, c.source, c.port, 0);
  if (c.seen != c.source) {
    nlattr* nat = m.begin(CTA_NAT_SRC);
    m.address(CTA_NAT_V4_MINIP, address_of(c.seen)).address(CTA_NAT_V4_MAXIP, address_of(c.seen));
    nlattr* proto = m.begin(CTA_NAT_PROTO);
    m.be16(CTA_PROTONAT_PORT_MIN, c.port).be16(CTA_PROTONAT_PORT_MAX, c.port).end(proto).end(nat);
  }
  m.be32(CTA_STATUS, IPS_CONFIRMED).be32(CTA_TIMEOUT, 600);
  return m;
}

long kilobytes(const std::string& what) {
  std::ifstream status("/proc/self/status");
  std::string key;
  long value = 0;
  while (status >> key) {
    if (key == what + ":" && status >> value) return value;
  }
  return -1;
}

class BigTable : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << "these tests need root"; }

  void make(const std::vector<Connection>& connections) {
    std::vector<Message> messages;
    for (std::size_t i = 0; i < connections.size(); ++i) {
      messages.push_back(making(connections[i]));
      if (messages.size() < 1000 && i + 1 != connections.size()) continue;
      for (const int err : socket_.requests(messages)) ASSERT_EQ(err, 0) << std::strerror(err);
      messages.clear();
    }
  }

  // What the pass has done; `memory`: what it has needed at most, in kB.
  int measured(const std::function<Fate(const Flow&)>& judge, long& memory) {
    ::malloc_trim(0);
    std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
    const long before = kilobytes("VmRSS");
    const auto begin = std::chrono::steady_clock::now();
    const int done = sweep(socket_, {}, judge);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    memory = kilobytes("VmHWM") - before;
    RecordProperty("ms", std::to_string(took.count()));
    RecordProperty("kB", std::to_string(memory));
    return done;
  }

  int count(const std::function<bool(const Flow&)>& counted) {
    int n = 0;
    sweep(socket_, {}, [&](const Flow& flow) {
      n += counted(flow) ? 1 : 0;
      return Fate{};
    });
    return n;
  }

  NetlinkSocket socket_ = std::move(*NetlinkSocket::open(NETLINK_NETFILTER));
};

// As when a gateway loses its label, or is purged.
TEST_F(BigTable, ManyAreRemovedWithLittleMemory) {
  std::uint32_t most = 0;
  ASSERT_TRUE(std::ifstream("/proc/sys/net/netfilter/nf_conntrack_max") >> most);
  const std::uint32_t size = std::min(250'000U, most - 1000);
  std::vector<Connection> connections;
  for (std::uint32_t i = 0; i < size; ++i) {
    connections.push_back({kFirstPod + i, kFirstPod + i, 4000, kGatewayZone});
  }
  connections.push_back({kFirstPod, kFirstPod, 4001, 0});
  make(connections);
  long memory = 0;
  const int done = measured(
      [](const Flow& flow) {
        return Fate{flow.zone == kGatewayZone ? Fate::Kind::kRemove : Fate::Kind::kKeep, {}, 0};
      },
      memory);
  EXPECT_EQ(done, static_cast<int>(size));
  EXPECT_LT(memory, kMostMemory);
  EXPECT_EQ(count([](const Flow& flow) { return flow.zone == kGatewayZone; }), 0);
  EXPECT_EQ(count([](const Flow&) { return true; }), 1);
  sweep(socket_, {}, [](const Flow&) { return Fate{Fate::Kind::kRemove, {}, 0}; });
}

// An egress IP comes to this node. What stands in the way of its connections' new bindings goes
// before all of them, though they are more than are held at a time.
TEST_F(BigTable, ManyAreBoundAnewWithLittleMemory) {
  constexpr std::uint16_t kConnections = 35'000, kInTheWay = 500, kFirstPort = 10'000;
  std::vector<Connection> connections;
  for (std::uint16_t i = 0; i < kConnections; ++i) {
    const auto port = static_cast<std::uint16_t>(kFirstPort + i);
    connections.push_back({kFirstPod, kFirstPod, port, 0});
    if (i < kInTheWay) connections.push_back({kFirstPod + 1, kEip, port, kGoneZone});
  }
  make(connections);
  const sdk::Address pod = address_of(kFirstPod), eip = address_of(kEip);
  long memory = 0;
  const int done = measured(
      [&](const Flow& flow) {
        if (flow.zone == kGoneZone) return Fate{Fate::Kind::kRemove, {}, 0};
        if (flow.zone != 0 || flow.translated != pod) return Fate{};
        return Fate{Fate::Kind::kRebind, eip, kGatewayZone};
      },
      memory);
  EXPECT_EQ(done, kConnections + kInTheWay);
  EXPECT_LT(memory, kMostMemory);
  EXPECT_EQ(count([&](const Flow& f) { return f.zone == 0 && f.translated == eip; }), kConnections);
  EXPECT_EQ(count([&](const Flow& f) { return f.zone == kGatewayZone && f.translated == pod; }),
            kConnections);
  EXPECT_EQ(count([](const Flow&) { return true; }), 2 * kConnections);
}

}  // namespace
}  // namespace egw::common
