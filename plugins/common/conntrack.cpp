#include "conntrack.hpp"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace egw::common {
namespace {

// net/netfilter/nf_internals.h: which parts of a tuple a dump is filtered by.
constexpr std::uint32_t kFilterIpSource = 1U << 0;
constexpr std::uint32_t kFilterIpDestination = 1U << 1;

Message conntrack_message(int type, int family, std::size_t reserve = 512) {
  nfgenmsg g{};
  g.nfgen_family = static_cast<std::uint8_t>(family);
  g.version = NFNETLINK_V0;
  Message m((NFNL_SUBSYS_CTNETLINK << 8) | type, 0, reserve);
  m.header(g);
  return m;
}

// The kernel's filter by address is for IPv4 only: for IPv6 it answers with the entries that do not
// match (ctnetlink_filter_match_tuple() takes ipv6_addr_cmp()'s 0 for "differs"; seen on 6.18).
bool filters(const std::optional<sdk::Address>& address) { return address && address->is_v4(); }

void put_filter(Message& m, const Sweep& what) {
  std::uint32_t original = 0, reply = 0;
  if (filters(what.source)) {
    nlattr* tuple = m.begin(CTA_TUPLE_ORIG);
    nlattr* ip = m.begin(CTA_TUPLE_IP);
    m.address(CTA_IP_V4_SRC, *what.source);
    m.end(ip).end(tuple);
    original |= kFilterIpSource;
  }
  if (filters(what.translated)) {
    nlattr* tuple = m.begin(CTA_TUPLE_REPLY);
    nlattr* ip = m.begin(CTA_TUPLE_IP);
    m.address(CTA_IP_V4_DST, *what.translated);
    m.end(ip).end(tuple);
    reply |= kFilterIpDestination;
  }
  nlattr* filter = m.begin(CTA_FILTER);
  m.u32(CTA_FILTER_ORIG_FLAGS, original).u32(CTA_FILTER_REPLY_FLAGS, reply).end(filter);
}

}  // namespace

// A dump walks the machine's whole table, whatever the filter: one for both families.
int sweep(NetlinkSocket& socket, const Sweep& what) {
  const sdk::Address* hint = what.source       ? &*what.source
                             : what.translated ? &*what.translated
                                               : nullptr;
  Message request = conntrack_message(IPCTNL_MSG_CT_GET, hint != nullptr ? hint->af() : AF_UNSPEC);
  // The kernel refuses a filter in a dump of all families (EOPNOTSUPP).
  if (filters(what.source) || filters(what.translated)) put_filter(request, what);
  std::vector<Message> deletions;
  const auto each = [&](const nlmsghdr* h) {
    const int family = static_cast<const nfgenmsg*>(nlmsg_data(h))->nfgen_family;
    if (family != AF_INET && family != AF_INET6) return;
    const Attributes a(h, sizeof(nfgenmsg), CTA_MAX);
    const Attributes original(a[CTA_TUPLE_ORIG], CTA_TUPLE_MAX);
    const Attributes reply(a[CTA_TUPLE_REPLY], CTA_TUPLE_MAX);
    const Attributes original_ip(original[CTA_TUPLE_IP], CTA_IP_MAX);
    const Attributes reply_ip(reply[CTA_TUPLE_IP], CTA_IP_MAX);
    const bool v4 = family == AF_INET;
    Flow flow;
    flow.source = original_ip.address(v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC);
    flow.destination = reply_ip.address(v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC);
    flow.translated = reply_ip.address(v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST);
    flow.zone = a.has(CTA_ZONE) ? a.be16(CTA_ZONE) : original.be16(CTA_TUPLE_ZONE);
    if (!what.doomed(flow)) return;
    const std::string_view tuple = a.bytes(CTA_TUPLE_ORIG);
    Message m = conntrack_message(IPCTNL_MSG_CT_DELETE, family, tuple.size() + 64);
    m.attr(CTA_TUPLE_ORIG | NLA_F_NESTED, tuple.data(), tuple.size());
    if (a.has(CTA_ZONE)) m.attr(CTA_ZONE, a.bytes(CTA_ZONE).data(), a.bytes(CTA_ZONE).size());
    // The very entry that was looked at, not one that has taken its place.
    if (a.has(CTA_ID)) m.attr(CTA_ID, a.bytes(CTA_ID).data(), a.bytes(CTA_ID).size());
    deletions.push_back(std::move(m));
  };
  if (const int err = socket.dump(request, each, [&] { deletions.clear(); }); err != 0) {
    return -err;
  }
  int deleted = 0;
  for (const int err : socket.requests(deletions)) deleted += err == 0 ? 1 : 0;
  return deleted;
}

Sweeper::Sweeper(sdk::Host host) : host_(host), thread_([this] { run(); }) {}

Sweeper::~Sweeper() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Sweeper::add(Sweep sweep) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(sweep));
  }
  wake_.notify_one();
}

void Sweeper::drain() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return (queue_.empty() && !busy_) || stop_; });
}

std::uint64_t Sweeper::deleted() const {
  const std::lock_guard lock(mutex_);
  return deleted_;
}

void Sweeper::run() {
  std::optional<NetlinkSocket> socket;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    const Sweep job = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    int n = 0;
    try {
      if (!socket) socket.emplace(std::move(*NetlinkSocket::open(NETLINK_NETFILTER)));
      n = sweep(*socket, job);
    } catch (const std::exception& e) {
      host_.error(std::string("connection tracking entries cannot be deleted: ") + e.what());
    }
    if (n < 0) {
      host_.warn(std::string("connection tracking entries cannot be read: ") + std::strerror(-n) +
                 "; connections of changed policies keep their old source until they end");
    }
    lock.lock();
    deleted_ += static_cast<std::uint64_t>(std::max(n, 0));
    busy_ = false;
    if (queue_.empty()) idle_.notify_all();
  }
}

}  // namespace egw::common
