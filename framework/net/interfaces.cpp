// Interfaces by rtnetlink (rtnetlink(7)), with libnl's sockets and parsers: see interfaces.hpp.
#include "egw/net/interfaces.hpp"

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "egw/net/netlink.hpp"

namespace egw::net {

namespace {

constexpr int kEventBuffer = 1 << 20;

constexpr const char* kRtnetlink = "rtnetlink";
// Of a dump that changes interrupt: routes may change all the time.
constexpr int kMostDumps = 3;

model::Address address_of(const nlattr* attribute) {
  if (attribute == nullptr) return {};
  const auto* data = static_cast<const std::uint8_t*>(nla_data(attribute));
  if (nla_len(attribute) == 4) {
    std::array<std::uint8_t, 4> raw{};
    std::copy_n(data, raw.size(), raw.begin());
    return model::Address::v4(raw);
  }
  if (nla_len(attribute) == 16) {
    std::array<std::uint8_t, 16> raw{};
    std::copy_n(data, raw.size(), raw.begin());
    return model::Address::v6(raw);
  }
  return {};
}

}  // namespace

bool Interface::up() const { return (flags & IFF_UP) != 0; }
bool Interface::carrier() const { return up() && (flags & IFF_LOWER_UP) != 0; }

struct Interfaces::Impl {
  NetlinkSocket events, requests;
  std::map<unsigned, Interface> interfaces;
  std::vector<DefaultRoute> routes;
  std::vector<unsigned> removed;
  bool changed = false;
  bool routes_stale = false;
  bool incomplete = false;  // events were lost, and nothing has been read anew since
  std::vector<DefaultRoute>* collecting_routes = nullptr;  // during a dump

  static int on_message(nl_msg* message, void* self) {
    static_cast<Impl*>(self)->take(nlmsg_hdr(message));
    return NL_OK;
  }
  void take(nlmsghdr* header);
  void take_link(nlmsghdr* header);
  void take_address(nlmsghdr* header);
  void take_route(nlmsghdr* header);
  Result<void> open();
  Result<void> open_socket(NetlinkSocket& socket);
  Result<void> open_requests();
  Result<void> dump(int type, void* body, std::size_t size);
  Result<void> read_everything();
  Result<void> read_links();
  Result<void> read_routes();
};

void Interfaces::Impl::take(nlmsghdr* header) {
  switch (header->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      return take_link(header);
    case RTM_NEWADDR:
    case RTM_DELADDR:
      return take_address(header);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      return take_route(header);
    default:
      return;
  }
}

void Interfaces::Impl::take_link(nlmsghdr* header) {
  nlattr* attributes[IFLA_MAX + 1];
  if (nlmsg_parse(header, sizeof(ifinfomsg), attributes, IFLA_MAX, nullptr) < 0) return;
  const auto* info = static_cast<const ifinfomsg*>(nlmsg_data(header));
  // AF_BRIDGE: a port joins or leaves a bridge; the device itself has messages of its own.
  if (info->ifi_family != AF_UNSPEC) return;
  const auto index = static_cast<unsigned>(info->ifi_index);
  if (header->nlmsg_type == RTM_DELLINK) {
    if (interfaces.erase(index) == 0) return;
    removed.push_back(index);
    changed = true;
    return;
  }
  auto& entry = interfaces[index];
  Interface now;
  now.index = index;
  now.flags = info->ifi_flags;
  now.ethernet = info->ifi_type == ARPHRD_ETHER;
  if (attributes[IFLA_IFNAME] != nullptr) now.name = nla_get_string(attributes[IFLA_IFNAME]);
  if (attributes[IFLA_MTU] != nullptr) now.mtu = nla_get_u32(attributes[IFLA_MTU]);
  if (const auto* mac = attributes[IFLA_ADDRESS]; mac != nullptr && nla_len(mac) == 6) {
    std::copy_n(static_cast<const std::uint8_t*>(nla_data(mac)), 6, now.mac.begin());
  }
  now.addresses = entry.addresses;
  if (now == entry) return;
  entry = std::move(now);
  changed = true;
}

void Interfaces::Impl::take_address(nlmsghdr* header) {
  nlattr* attributes[IFA_MAX + 1];
  if (nlmsg_parse(header, sizeof(ifaddrmsg), attributes, IFA_MAX, nullptr) < 0) return;
  const auto* info = static_cast<const ifaddrmsg*>(nlmsg_data(header));
  const auto found = interfaces.find(info->ifa_index);
  if (found == interfaces.end()) return;
  InterfaceAddress entry;
  // On point-to-point links IFA_ADDRESS is the other end and IFA_LOCAL ours.
  entry.address = address_of(attributes[IFA_LOCAL] != nullptr ? attributes[IFA_LOCAL]
                                                              : attributes[IFA_ADDRESS]);
  if (!entry.address) return;
  entry.length = info->ifa_prefixlen;
  entry.scope = info->ifa_scope;
  entry.flags =
      attributes[IFA_FLAGS] != nullptr ? nla_get_u32(attributes[IFA_FLAGS]) : info->ifa_flags;
  auto& addresses = found->second.addresses;
  const auto old = std::find_if(addresses.begin(), addresses.end(), [&](const auto& known) {
    return known.address == entry.address && known.length == entry.length;
  });
  if (header->nlmsg_type == RTM_DELADDR) {
    if (old == addresses.end()) return;
    addresses.erase(old);
  } else if (old == addresses.end()) {
    addresses.push_back(entry);
  } else if (*old == entry) {
    return;
  } else {
    *old = entry;
  }
  changed = true;
}

void Interfaces::Impl::take_route(nlmsghdr* header) {
  const auto* info = static_cast<const rtmsg*>(nlmsg_data(header));
  if (info->rtm_dst_len != 0 || info->rtm_table != RT_TABLE_MAIN || info->rtm_type != RTN_UNICAST ||
      (info->rtm_family != AF_INET && info->rtm_family != AF_INET6)) {
    return;
  }
  if (collecting_routes == nullptr) {
    // A replaced route has no message of its own for the one that went: read them again.
    routes_stale = true;
    return;
  }
  nlattr* attributes[RTA_MAX + 1];
  if (nlmsg_parse(header, sizeof(rtmsg), attributes, RTA_MAX, nullptr) < 0) return;
  DefaultRoute route;
  route.family = info->rtm_family == AF_INET ? model::Family::kV4 : model::Family::kV6;
  if (attributes[RTA_PRIORITY] != nullptr) route.metric = nla_get_u32(attributes[RTA_PRIORITY]);
  if (attributes[RTA_OIF] != nullptr) {
    route.index = nla_get_u32(attributes[RTA_OIF]);
  } else if (attributes[RTA_MULTIPATH] != nullptr &&
             nla_len(attributes[RTA_MULTIPATH]) >= static_cast<int>(sizeof(rtnexthop))) {
    const auto* hop = static_cast<const rtnexthop*>(nla_data(attributes[RTA_MULTIPATH]));
    route.index = static_cast<unsigned>(hop->rtnh_ifindex);
  }
  if (route.index != 0) collecting_routes->push_back(route);
}

Result<void> Interfaces::Impl::open_socket(NetlinkSocket& socket) {
  socket.reset(nl_socket_alloc());
  if (!socket) return fail(Errc::kInternal, kRtnetlink, "out of memory");
  nl_socket_modify_cb(socket.get(), NL_CB_VALID, NL_CB_CUSTOM, &Impl::on_message, this);
  if (const int error = nl_connect(socket.get(), NETLINK_ROUTE); error < 0) {
    return netlink_error(kRtnetlink, "cannot open a netlink socket", error);
  }
  nl_socket_set_msg_buf_size(socket.get(), 1 << 16);
  return {};
}

Result<void> Interfaces::Impl::open() {
  if (auto opened = open_socket(events); !opened) return opened;
  nl_socket_disable_seq_check(events.get());
  nl_socket_set_buffer_size(events.get(), kEventBuffer, 0);
  for (const int group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
                          RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE}) {
    if (const int error = nl_socket_add_membership(events.get(), group); error < 0) {
      return netlink_error(kRtnetlink, "cannot subscribe to interface events", error);
    }
  }
  nl_socket_set_nonblocking(events.get());
  return read_everything();
}

Result<void> Interfaces::Impl::open_requests() {
  if (requests) return {};
  if (auto opened = open_socket(requests); !opened) {
    requests.reset();
    return opened;
  }
  // Lets the kernel leave out other tables than the one asked for (Linux 4.20).
  const int on = 1;
  setsockopt(nl_socket_get_fd(requests.get()), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
  return {};
}

Result<void> Interfaces::Impl::dump(int type, void* body, std::size_t size) {
  if (auto opened = open_requests(); !opened) return opened;
  int error = 0;
  // Interrupted: something changed meanwhile, and its event waits on the other socket. But the
  // kernel may have left out what did not change (before 6.8 it counts interfaces).
  for (int i = 0; i < kMostDumps; ++i) {
    error = nl_send_simple(requests.get(), type, NLM_F_DUMP, body, size);
    if (error >= 0) error = nl_recvmsgs_default(requests.get());
    if (error != -NLE_DUMP_INTR) break;
  }
  if (error >= 0 || error == -NLE_DUMP_INTR) return {};
  auto failure = netlink_error(kRtnetlink, "cannot read interfaces", error);
  requests.reset();  // the rest of this answer must not be taken for the next one
  return failure;
}

// What was known stays when it fails.
Result<void> Interfaces::Impl::read_everything() {
  auto before = std::exchange(interfaces, {});
  auto done = read_links();
  if (done) done = read_routes();
  if (!done) {
    interfaces = std::move(before);
    return done;
  }
  for (const auto& [index, interface] : before) removed.push_back(index);
  changed = true;
  return {};
}

Result<void> Interfaces::Impl::read_links() {
  ifinfomsg links{};
  if (auto done = dump(RTM_GETLINK, &links, sizeof links); !done) return done;
  ifaddrmsg addresses{};
  return dump(RTM_GETADDR, &addresses, sizeof addresses);
}

Result<void> Interfaces::Impl::read_routes() {
  std::vector<DefaultRoute> now;
  collecting_routes = &now;
  Result<void> done;
  for (const int family : {AF_INET, AF_INET6}) {
    rtmsg body{};
    body.rtm_family = static_cast<unsigned char>(family);
    body.rtm_table = RT_TABLE_MAIN;
    if (done) done = dump(RTM_GETROUTE, &body, sizeof body);
  }
  collecting_routes = nullptr;
  routes_stale = false;
  if (!done) return done;
  std::sort(now.begin(), now.end());
  now.erase(std::unique(now.begin(), now.end()), now.end());
  if (now != routes) {
    routes = std::move(now);
    changed = true;
  }
  return {};
}

Interfaces::Interfaces() : impl_(std::make_unique<Impl>()) {}
Interfaces::~Interfaces() = default;

Result<std::unique_ptr<Interfaces>> Interfaces::open() {
  std::unique_ptr<Interfaces> out(new Interfaces);
  if (auto opened = out->impl_->open(); !opened) return tl::unexpected(opened.error());
  return out;
}

int Interfaces::fd() const { return nl_socket_get_fd(impl_->events.get()); }

Result<bool> Interfaces::read() {
  auto& impl = *impl_;
  impl.changed = false;
  for (;;) {
    const int error = nl_recvmsgs_default(impl.events.get());
    if (error == -NLE_AGAIN) break;
    if (error >= 0) continue;
    impl.incomplete = true;
    // ENOBUFS: events were lost; those that still wait are older.
    if (error != -NLE_NOMEM)
      return netlink_error(kRtnetlink, "cannot read interface events", error);
  }
  if (impl.incomplete || impl.routes_stale) {
    const auto done = impl.incomplete ? impl.read_everything() : impl.read_routes();
    impl.incomplete = !done;
    if (!done) return tl::unexpected(done.error());
  }
  return impl.changed;
}

const std::map<unsigned, Interface>& Interfaces::all() const { return impl_->interfaces; }

const Interface* Interfaces::find(unsigned index) const {
  const auto found = impl_->interfaces.find(index);
  return found == impl_->interfaces.end() ? nullptr : &found->second;
}

const Interface* Interfaces::find(const std::string& name) const {
  for (const auto& [index, interface] : impl_->interfaces) {
    if (interface.name == name) return &interface;
  }
  return nullptr;
}

std::vector<unsigned> Interfaces::take_removed() { return std::exchange(impl_->removed, {}); }

const std::vector<DefaultRoute>& Interfaces::default_routes() const { return impl_->routes; }

}  // namespace egw::net
