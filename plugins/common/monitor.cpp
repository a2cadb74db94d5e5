#include "monitor.hpp"

#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include "layout.hpp"

namespace egw::common {
namespace {

constexpr std::array<int, 6> kRouteGroups{RTNLGRP_LINK,       RTNLGRP_NEIGH,     RTNLGRP_IPV4_ROUTE,
                                          RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE};

void join(const NetlinkSocket& socket, int group) {
  setsockopt(socket.fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group));
}

std::string_view nft_word(int type) {
  switch (type) {
    case NFT_MSG_NEWTABLE:
      return "table added";
    case NFT_MSG_DELTABLE:
      return "table removed";
    case NFT_MSG_NEWCHAIN:
      return "chain added";
    case NFT_MSG_DELCHAIN:
      return "chain removed";
    case NFT_MSG_NEWRULE:
      return "rule added";
    case NFT_MSG_DELRULE:
      return "rule removed";
    case NFT_MSG_NEWSET:
      return "set added";
    case NFT_MSG_DELSET:
      return "set removed";
    case NFT_MSG_NEWSETELEM:
      return "element added";
    case NFT_MSG_DELSETELEM:
      return "element removed";
    case NFT_MSG_NEWOBJ:
      return "counter added";
    case NFT_MSG_DELOBJ:
      return "counter removed";
    default:
      return {};
  }
}

}  // namespace

Monitor::Monitor(std::function<void(const std::string&)> drifted)
    : drifted_(std::move(drifted)), event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (event_ < 0) {
    throw sdk::Failure(sdk::Code::kInternal, "no event descriptor", "monitor", errno);
  }
  thread_ = std::thread([this] { run(); });
}

Monitor::~Monitor() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake();
  thread_.join();
  ::close(event_);
}

void Monitor::wake() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(event_, &one, sizeof(one));
}

Monitor::OwnChange::OwnChange(Monitor& monitor) : monitor_(monitor) {
  const std::lock_guard lock(monitor_.mutex_);
  monitor_.changing_ = true;
}

Monitor::OwnChange::~OwnChange() {
  {
    const std::lock_guard lock(monitor_.mutex_);
    monitor_.changing_ = false;
    ++monitor_.changes_;
  }
  monitor_.wake();
}

void Monitor::watch(Watched watched) {
  const std::lock_guard lock(mutex_);
  watched_ = std::move(watched);
}

void Monitor::listen_to_nftables(bool on) {
  const std::lock_guard lock(mutex_);
  if (nftables_socket_ < 0) return;
  const int group = NFNLGRP_NFTABLES;
  setsockopt(nftables_socket_, SOL_NETLINK, on ? NETLINK_ADD_MEMBERSHIP : NETLINK_DROP_MEMBERSHIP,
             &group, sizeof(group));
}

void Monitor::run() {
  auto route = NetlinkSocket::open(NETLINK_ROUTE);
  auto netfilter = NetlinkSocket::open(NETLINK_NETFILTER);
  auto questions = NetlinkSocket::open(NETLINK_ROUTE);
  if (!route || !netfilter || !questions) {
    drifted_("the kernel's events cannot be watched");
    return;
  }
  for (const int group : kRouteGroups) join(*route, group);
  {
    const std::lock_guard lock(mutex_);
    nftables_socket_ = netfilter->fd();
  }
  listen_to_nftables(true);
  std::array<pollfd, 3> fds{
      {{event_, POLLIN, 0}, {route->fd(), POLLIN, 0}, {netfilter->fd(), POLLIN, 0}}};
  for (;;) {
    if (::poll(fds.data(), fds.size(), -1) < 0) {
      if (errno != EINTR) return;
      continue;
    }
    if (fds[0].revents != 0) {
      std::uint64_t times = 0;
      [[maybe_unused]] const ssize_t n = ::read(event_, &times, sizeof(times));
      const std::lock_guard lock(mutex_);
      if (stop_) return;
    }
    if (fds[1].revents != 0) read(*route, false);
    if (fds[2].revents != 0) read(*netfilter, true);
    settle_doubts(*questions);
  }
}

void Monitor::read(NetlinkSocket& socket, bool netfilter) {
  std::vector<char> buffer(64UL * 1024);
  std::string what;
  for (;;) {
    const ssize_t n = ::recv(socket.fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == ENOBUFS) {
      what = "events were lost";
      continue;
    }
    if (n <= 0) break;
    int rest = static_cast<int>(n);
    const std::lock_guard lock(mutex_);
    for (auto* h = reinterpret_cast<nlmsghdr*>(buffer.data()); nlmsg_ok(h, rest);
         h = nlmsg_next(h, &rest)) {
      if (netfilter) {
        judge_netfilter(h, what);
      } else {
        judge_route(h, what);
      }
    }
  }
  if (!what.empty()) drifted_(what);
}

void Monitor::judge_route(const nlmsghdr* h, std::string& what) {
  if (watched_.index == 0) return;
  const bool ours = watched_.ports.count(h->nlmsg_pid) != 0;
  switch (h->nlmsg_type) {
    case RTM_DELLINK:
    case RTM_NEWLINK: {
      const auto* i = static_cast<const ifinfomsg*>(nlmsg_data(h));
      if (i->ifi_index != watched_.index || i->ifi_family != AF_UNSPEC || ours) return;
      if (h->nlmsg_type == RTM_DELLINK) {
        what = "tunnel device " + watched_.device + " removed";
      } else if ((i->ifi_flags & IFF_UP) == 0) {
        what = "tunnel device " + watched_.device + " set down";
      } else {
        const Attributes a(h, sizeof(ifinfomsg), IFLA_MAX);
        mtu_doubted_ = mtu_doubted_ || a.u32(IFLA_MTU) != watched_.mtu;
        if (a.u32(IFLA_GROUP) != kTunnelGroup) {
          what = "tunnel device " + watched_.device + " put into another group";
        }
        // A device that is up can be renamed (Linux 6.2), one that is down between two of our
        // looks.
        if (const std::string_view name = a.text(IFLA_IFNAME); name != watched_.device) {
          what = "tunnel device " + watched_.device + " renamed to " + std::string(name);
        }
      }
      return;
    }
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const auto* r = static_cast<const rtmsg*>(nlmsg_data(h));
      const std::uint32_t table = Attributes(h, sizeof(rtmsg), RTA_TABLE).u32(RTA_TABLE);
      if ((r->rtm_protocol == kRouteProtocol || table == watched_.route_table) && !ours) {
        what = h->nlmsg_type == RTM_DELROUTE ? "route removed" : "route added";
      }
      return;
    }
    case RTM_NEWRULE:
    case RTM_DELRULE: {
      const Attributes a(h, sizeof(fib_rule_hdr), FRA_MAX);
      if (a.u8(FRA_PROTOCOL) == kRouteProtocol && !ours) {
        what = h->nlmsg_type == RTM_DELRULE ? "rule removed" : "rule added";
      }
      return;
    }
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      doubt_neighbour(h);
      return;
    default:
      return;
  }
}

// By the time that an event is read, a later change of ours may have undone what it tells of.
void Monitor::doubt_neighbour(const nlmsghdr* h) {
  const auto* n = static_cast<const ndmsg*>(nlmsg_data(h));
  if (n->ndm_ifindex != watched_.index) return;
  const Attributes a(h, sizeof(ndmsg), NDA_MAX);
  Neighbour doubt;
  doubt.family = n->ndm_family;
  const auto bytes = a.bytes(NDA_LLADDR);
  if (doubt.family == AF_BRIDGE) {
    if (bytes.size() == doubt.mac.size()) std::memcpy(doubt.mac.data(), bytes.data(), bytes.size());
  } else {
    doubt.address = a.address(NDA_DST);
    if (watched_.neighbours.count(doubt.address) == 0) return;
  }
  doubts_.insert(doubt);
}

// FDB entries are known by MAC, neighbours by address. Empty: as it shall be.
std::string Monitor::judge(const Neighbour& doubt, const std::set<Neighbour>& held) const {
  std::set<Neighbour> is;
  const bool fdb = doubt.family == AF_BRIDGE;
  // Sorted by family and address: thousands may be in doubt, of thousands that are held.
  auto n = held.lower_bound(
      Neighbour{doubt.family, fdb ? sdk::Address() : doubt.address, sdk::Mac{}, false});
  for (; n != held.end() && n->family == doubt.family; ++n) {
    if (!fdb && n->address != doubt.address) break;
    if (!fdb || n->mac == doubt.mac) is.insert(*n);
  }
  if (fdb) {
    const auto at = watched_.fdb.find(doubt.mac);
    if (at == watched_.fdb.end()) return is.empty() ? "" : "FDB entry added";
    if (is.empty()) return "FDB entry removed";
    return is.size() == 1 && is.begin()->address == at->second ? "" : "FDB entry changed";
  }
  const auto at = watched_.neighbours.find(doubt.address);
  if (at == watched_.neighbours.end()) return {};
  if (is.empty()) return "neighbour removed";
  return is.begin()->permanent && is.begin()->mac == at->second ? "" : "neighbour changed";
}

void Monitor::settle_doubts(NetlinkSocket& socket) {
  int index = 0;
  std::uint64_t changes = 0;
  std::set<std::uint8_t> families;
  std::string device;  // whose MTU is in doubt
  {
    const std::lock_guard lock(mutex_);
    if (changing_ || (doubts_.empty() && !mtu_doubted_)) return;
    index = watched_.index;
    changes = changes_;
    for (const Neighbour& doubt : doubts_) families.insert(doubt.family);
    if (mtu_doubted_) device = watched_.device;
  }
  std::set<Neighbour> held;
  std::optional<Link> link;
  bool known = true;
  try {
    if (!device.empty()) link = find_link(socket, device);
    for (const std::uint8_t family : families) held.merge(neighbours(socket, family, index));
  } catch (const sdk::Failure&) {
    known = false;  // the device has gone, which is told by an event of its own
  }
  std::string what;
  {
    const std::lock_guard lock(mutex_);
    // The answer is from the middle of a change of ours: asked again at its end.
    if (changing_ || changes != changes_) return;
    for (const Neighbour& doubt : doubts_) {
      if (!known) break;
      if (std::string word = judge(doubt, held); !word.empty()) what = std::move(word);
    }
    doubts_.clear();
    if (link && link->index == watched_.index && link->mtu != watched_.mtu) {
      what = "MTU of tunnel device " + device + " changed";
    }
    mtu_doubted_ = false;
  }
  if (!what.empty()) drifted_(what);
}

void Monitor::judge_netfilter(const nlmsghdr* h, std::string& what) {
  if (NFNL_SUBSYS_ID(h->nlmsg_type) != NFNL_SUBSYS_NFTABLES || watched_.nft_table.empty()) return;
  const int type = NFNL_MSG_TYPE(h->nlmsg_type);
  if (type == NFT_MSG_NEWGEN) {
    // The end of a transaction: says who it was.
    if (!pending_.empty()) {
      const Attributes a(h, sizeof(nfgenmsg), NFTA_GEN_MAX);
      what = "nftables " + pending_;
      if (a.has(NFTA_GEN_PROC_NAME)) {
        what += " by " + std::string(a.text(NFTA_GEN_PROC_NAME)) + " (process " +
                std::to_string(a.be32(NFTA_GEN_PROC_PID)) + ")";
      }
    }
    pending_.clear();
    return;
  }
  if (watched_.ports.count(h->nlmsg_pid) != 0) return;
  const std::string_view word = nft_word(type);
  // Attribute 1 of every object is the name of its table.
  if (word.empty() || Attributes(h, sizeof(nfgenmsg), 1).text(1) != watched_.nft_table) return;
  pending_ = word;
}

}  // namespace egw::common
