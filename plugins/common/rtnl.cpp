#include "rtnl.hpp"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cstring>

namespace egw::common {
namespace {

[[noreturn]] void unreadable(std::string_view what, int err) {
  throw sdk::Failure(sdk::Code::kUnavailable, "cannot be read from the kernel", std::string(what),
                     err);
}

sdk::Mac mac_of(std::string_view bytes) {
  sdk::Mac out{};
  if (bytes.size() == out.size()) std::memcpy(out.data(), bytes.data(), out.size());
  return out;
}

Link parse_link(const nlmsghdr* h) {
  Link out;
  const auto* info = static_cast<const ifinfomsg*>(nlmsg_data(h));
  const Attributes a(h, sizeof(ifinfomsg), IFLA_MAX);
  out.index = info->ifi_index;
  out.up = (info->ifi_flags & IFF_UP) != 0;
  out.name = a.text(IFLA_IFNAME);
  out.alias = a.text(IFLA_IFALIAS);
  out.mtu = a.u32(IFLA_MTU);
  out.group = a.u32(IFLA_GROUP);
  out.mac = mac_of(a.bytes(IFLA_ADDRESS));
  const Attributes linkinfo(a[IFLA_LINKINFO], IFLA_INFO_MAX);
  out.kind = linkinfo.text(IFLA_INFO_KIND);
  if (out.kind != "vxlan") return out;
  const Attributes v(linkinfo[IFLA_INFO_DATA], IFLA_VXLAN_MAX);
  out.vni = v.u32(IFLA_VXLAN_ID);
  out.port = v.be16(IFLA_VXLAN_PORT);
  out.local = v.address(v.has(IFLA_VXLAN_LOCAL6) ? IFLA_VXLAN_LOCAL6 : IFLA_VXLAN_LOCAL);
  out.learning = v.u8(IFLA_VXLAN_LEARNING) != 0;
  out.gbp = v.has(IFLA_VXLAN_GBP);
  out.external = v.u8(IFLA_VXLAN_COLLECT_METADATA) != 0;
  return out;
}

std::string hex(std::uint32_t v) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%x", v);
  return text;
}

Message rule_message(int type, int flags, const Rule& rule) {
  fib_rule_hdr h{};
  h.family = rule.family;
  h.action = rule.action;
  h.table = rule.action == FR_ACT_TO_TBL && rule.target < 256
                ? static_cast<std::uint8_t>(rule.target)
                : static_cast<std::uint8_t>(RT_TABLE_UNSPEC);
  if (rule.invert) h.flags = FIB_RULE_INVERT;
  h.dst_len = rule.to.len;
  Message m(type, flags);
  m.header(h).u32(FRA_PRIORITY, rule.preference).u8(FRA_PROTOCOL, kRouteProtocol);
  if (rule.mask != 0) m.u32(FRA_FWMARK, rule.mark).u32(FRA_FWMASK, rule.mask);
  if (!rule.iif.empty()) m.text(FRA_IIFNAME, rule.iif);
  if (rule.to) m.address(FRA_DST, rule.to.address);
  if (!rule.oif.empty()) m.text(FRA_OIFNAME, rule.oif);
  if (rule.action == FR_ACT_TO_TBL) m.u32(FRA_TABLE, rule.target);
  if (rule.action == FR_ACT_GOTO) m.u32(FRA_GOTO, rule.target);
  return m;
}

Message route_message(int type, int flags, const Route& route) {
  rtmsg h{};
  h.rtm_family = route.family;
  h.rtm_table = RT_TABLE_UNSPEC;
  h.rtm_protocol = kRouteProtocol;
  h.rtm_scope = RT_SCOPE_UNIVERSE;
  h.rtm_type = route.type;
  h.rtm_dst_len = route.destination.len;
  if (route.onlink) h.rtm_flags = RTNH_F_ONLINK;
  Message m(type, flags);
  m.header(h).u32(RTA_TABLE, route.table);
  if (route.destination) m.address(RTA_DST, route.destination.address);
  if (route.metric != 0) m.u32(RTA_PRIORITY, route.metric);
  if (route.gateway) m.address(RTA_GATEWAY, route.gateway);
  // The kernel answers lo for IPv6 blackholes; they are asked for without a device.
  if (route.device != 0) m.u32(RTA_OIF, static_cast<std::uint32_t>(route.device));
  return m;
}

Message neighbour_message(int type, int flags, const Neighbour& n, int device) {
  ndmsg h{};
  h.ndm_family = n.family;
  h.ndm_ifindex = device;
  h.ndm_state = NUD_PERMANENT;
  if (n.family == AF_BRIDGE) {
    h.ndm_state = NUD_PERMANENT | NUD_NOARP;
    h.ndm_flags = NTF_SELF;
  }
  Message m(type, flags);
  m.header(h).address(NDA_DST, n.address).attr(NDA_LLADDR, n.mac.data(), n.mac.size());
  return m;
}

Message address_message(int type, int flags, const LinkAddress& a, int device) {
  ifaddrmsg h{};
  h.ifa_family = static_cast<std::uint8_t>(a.prefix.address.af());
  h.ifa_prefixlen = a.prefix.len;
  h.ifa_index = static_cast<std::uint32_t>(device);
  Message m(type, flags);
  m.header(h);
  if (a.prefix.address.is_v4()) m.address(IFA_LOCAL, a.prefix.address);
  m.address(IFA_ADDRESS, a.prefix.address);
  if (a.prefix.address.is_v6()) m.u32(IFA_FLAGS, IFA_F_NODAD);
  return m;
}

}  // namespace

std::optional<Link> find_link(NetlinkSocket& socket, std::string_view name) {
  ifinfomsg h{};
  Message m(RTM_GETLINK, 0);
  m.header(h).text(IFLA_IFNAME, name);
  std::optional<Link> out;
  const int err = socket.get(m, [&](const nlmsghdr* answer) {
    if (answer->nlmsg_type == RTM_NEWLINK) out = parse_link(answer);
  });
  if (err != 0 && err != ENODEV) unreadable("link " + std::string(name), err);
  return out;
}

std::vector<Link> all_links(NetlinkSocket& socket) {
  ifinfomsg h{};
  Message m(RTM_GETLINK, 0);
  m.header(h);
  std::vector<Link> out;
  const int err = socket.dump(
      m, [&](const nlmsghdr* answer) { out.push_back(parse_link(answer)); }, [&] { out.clear(); });
  if (err != 0) unreadable("links", err);
  return out;
}

std::string Route::text() const {
  std::string out = type == RTN_BLACKHOLE ? "blackhole " : "";
  out += destination ? destination.text() : "default";
  if (gateway) out += " via " + gateway.text();
  if (device != 0) out += " dev #" + std::to_string(device);
  out += " table " + std::to_string(table);
  if (metric != 0) out += " metric " + std::to_string(metric);
  return out;
}

std::string Rule::text() const {
  std::string out = std::to_string(preference) + ":";
  if (invert) out += " not";
  if (mask != 0) out += " fwmark " + hex(mark) + "/" + hex(mask);
  if (!iif.empty()) out += " iif " + iif;
  if (to) out += " to " + to.text();
  if (!oif.empty()) out += " oif " + oif;
  if (action == FR_ACT_TO_TBL) out += " lookup " + std::to_string(target);
  if (action == FR_ACT_GOTO) out += " goto " + std::to_string(target);
  if (action == FR_ACT_NOP) out += " nop";
  return out;
}

std::set<Route> our_routes(NetlinkSocket& socket, std::uint8_t family) {
  rtmsg h{};
  h.rtm_family = family;
  h.rtm_protocol = kRouteProtocol;
  Message m(RTM_GETROUTE, 0);
  m.header(h);
  std::set<Route> out;
  const auto each = [&](const nlmsghdr* answer) {
    const auto* r = static_cast<const rtmsg*>(nlmsg_data(answer));
    // Older kernels do not filter.
    if (answer->nlmsg_type != RTM_NEWROUTE || r->rtm_protocol != kRouteProtocol ||
        r->rtm_family != family) {
      return;
    }
    const Attributes a(answer, sizeof(rtmsg), RTA_MAX);
    Route route;
    route.family = family;
    route.table = a.has(RTA_TABLE) ? a.u32(RTA_TABLE) : r->rtm_table;
    if (a.has(RTA_DST)) route.destination = sdk::Prefix(a.address(RTA_DST), r->rtm_dst_len);
    route.type = r->rtm_type;
    route.metric = a.u32(RTA_PRIORITY);
    route.gateway = a.address(RTA_GATEWAY);
    route.device = route.type == RTN_BLACKHOLE ? 0 : static_cast<int>(a.u32(RTA_OIF));
    route.onlink = (r->rtm_flags & RTNH_F_ONLINK) != 0;
    out.insert(route);
  };
  if (const int err = socket.dump(m, each, [&] { out.clear(); }); err != 0 && err != ENOENT) {
    unreadable("routes", err);
  }
  return out;
}

namespace {

void each_rule(NetlinkSocket& socket, std::uint8_t family,
               const std::function<void(const Rule&, std::uint8_t protocol)>& each) {
  fib_rule_hdr h{};
  h.family = family;
  Message m(RTM_GETRULE, 0);
  m.header(h);
  std::vector<std::pair<Rule, std::uint8_t>> found;
  const auto take = [&](const nlmsghdr* answer) {
    const auto* r = static_cast<const fib_rule_hdr*>(nlmsg_data(answer));
    if (answer->nlmsg_type != RTM_NEWRULE || r->family != family) return;
    const Attributes a(answer, sizeof(fib_rule_hdr), FRA_MAX);
    Rule rule;
    rule.family = family;
    rule.preference = a.u32(FRA_PRIORITY);
    rule.mark = a.u32(FRA_FWMARK);
    rule.mask = a.u32(FRA_FWMASK);
    rule.iif = a.text(FRA_IIFNAME);
    rule.action = r->action;
    if (rule.action == FR_ACT_TO_TBL) {
      rule.target = a.has(FRA_TABLE) ? a.u32(FRA_TABLE) : r->table;
    } else if (rule.action == FR_ACT_GOTO) {
      rule.target = a.u32(FRA_GOTO);
    }
    rule.invert = (r->flags & FIB_RULE_INVERT) != 0;
    rule.oif = a.text(FRA_OIFNAME);
    if (a.has(FRA_DST)) rule.to = sdk::Prefix(a.address(FRA_DST), r->dst_len);
    found.emplace_back(std::move(rule), a.u8(FRA_PROTOCOL));
  };
  // EAFNOSUPPORT: a kernel that was booted without this family (ipv6.disable=1) has no rules of it.
  const int err = socket.dump(m, take, [&] { found.clear(); });
  if (err != 0 && err != EAFNOSUPPORT) unreadable("rules", err);
  for (const auto& [rule, protocol] : found) each(rule, protocol);
}

}  // namespace

std::set<Rule> our_rules(NetlinkSocket& socket, std::uint8_t family) {
  std::set<Rule> out;
  each_rule(socket, family, [&](const Rule& rule, std::uint8_t protocol) {
    if (protocol == kRouteProtocol) out.insert(rule);
  });
  return out;
}

std::vector<ForeignRule> foreign_rules(NetlinkSocket& socket, std::uint8_t family) {
  std::vector<ForeignRule> out;
  each_rule(socket, family, [&](const Rule& rule, std::uint8_t protocol) {
    if (protocol != kRouteProtocol) out.push_back({rule, protocol});
  });
  return out;
}

std::set<Neighbour> neighbours(NetlinkSocket& socket, std::uint8_t family, int device) {
  ndmsg h{};
  h.ndm_family = family;
  Message m(RTM_GETNEIGH, 0);
  m.header(h).u32(NDA_IFINDEX, static_cast<std::uint32_t>(device));
  std::set<Neighbour> out;
  const auto each = [&](const nlmsghdr* answer) {
    const auto* n = static_cast<const ndmsg*>(nlmsg_data(answer));
    if (answer->nlmsg_type != RTM_NEWNEIGH || n->ndm_ifindex != device || n->ndm_family != family ||
        n->ndm_state == NUD_NOARP) {
      return;  // NOARP alone: the kernel's own entry for multicast and its own addresses
    }
    const Attributes a(answer, sizeof(ndmsg), NDA_MAX);
    Neighbour out_n;
    out_n.family = family;
    out_n.address = a.address(NDA_DST);
    out_n.mac = mac_of(a.bytes(NDA_LLADDR));
    out_n.permanent = (n->ndm_state & NUD_PERMANENT) != 0;
    out.insert(out_n);
  };
  if (const int err = socket.dump(m, each, [&] { out.clear(); }); err != 0) {
    unreadable("neighbours", err);
  }
  return out;
}

std::set<LinkAddress> addresses(NetlinkSocket& socket, int device) {
  std::set<LinkAddress> out;
  for (const int family : {AF_INET, AF_INET6}) {
    ifaddrmsg h{};
    h.ifa_family = static_cast<std::uint8_t>(family);
    h.ifa_index = static_cast<std::uint32_t>(device);
    Message m(RTM_GETADDR, 0);
    m.header(h);
    std::set<LinkAddress> found;
    const auto each = [&](const nlmsghdr* answer) {
      const auto* i = static_cast<const ifaddrmsg*>(nlmsg_data(answer));
      if (answer->nlmsg_type != RTM_NEWADDR || static_cast<int>(i->ifa_index) != device) return;
      const Attributes a(answer, sizeof(ifaddrmsg), IFA_MAX);
      const auto address = a.address(a.has(IFA_LOCAL) ? IFA_LOCAL : IFA_ADDRESS);
      found.insert(LinkAddress{sdk::Prefix(address, i->ifa_prefixlen)});
    };
    // ENODEV: IPv6 switched off on the device.
    if (const int err = socket.dump(m, each, [&] { found.clear(); }); err != 0 && err != ENODEV) {
      unreadable("addresses", err);
    }
    out.merge(found);
  }
  return out;
}

Message add(const Route& route) {
  return route_message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route);
}
Message remove(const Route& route) { return route_message(RTM_DELROUTE, 0, route); }
Message add(const Rule& rule) { return rule_message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule); }
Message remove(const Rule& rule) { return rule_message(RTM_DELRULE, 0, rule); }
Message add(const Neighbour& n, int device) {
  return neighbour_message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, n, device);
}
Message remove(const Neighbour& n, int device) {
  return neighbour_message(RTM_DELNEIGH, 0, n, device);
}
Message add(const LinkAddress& a, int device) {
  return address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, a, device);
}
Message remove(const LinkAddress& a, int device) {
  return address_message(RTM_DELADDR, 0, a, device);
}

}  // namespace egw::common
