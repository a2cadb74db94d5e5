#include "tunnel.hpp"

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>

namespace egw::common {
namespace {

// Marks a device as ours, so that purge finds it without knowing its name.
constexpr std::string_view kAlias = "egw tunnel";
constexpr std::uint32_t kOverheadV4 = 50;  // outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14
constexpr std::uint32_t kOverheadV6 = 70;

void must(int err, std::string_view what, std::string_view device) {
  if (err == 0) return;
  throw sdk::Failure(sdk::Code::kInternal, std::string(what),
                     "tunnel device " + std::string(device), err);
}

bool same_fixed_attributes(const Link& link, const TunnelSpec& spec) {
  return link.vni == spec.vni && link.port == spec.port && link.local == spec.underlay &&
         !link.learning && link.gbp && !link.external;
}

int remove_link(NetlinkSocket& socket, int index) {
  ifinfomsg h{};
  h.ifi_index = index;
  Message m(RTM_DELLINK, 0);
  m.header(h);
  return socket.request(m);
}

std::uint32_t overhead(const TunnelSpec& spec) {
  return spec.underlay.is_v4() ? kOverheadV4 : kOverheadV6;
}

std::uint32_t tunnel_mtu(const TunnelSpec& spec, std::uint32_t uplink_mtu) {
  return std::max<std::uint32_t>(uplink_mtu, overhead(spec) + 576) - overhead(spec);
}

struct Fd {
  int fd;
  explicit Fd(int f) : fd(f) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

TunnelSpec tunnel_spec(const sdk::NodeConfig& node) {
  TunnelSpec out;
  out.name = node.tunnel_device;
  out.vni = node.tunnel_vni;
  out.port = node.tunnel_port;
  out.mac = node.tunnel_mac;
  out.underlay = node.underlay;
  out.parent_device = node.parent_device;
  out.v4 = node.tunnel_v4;
  out.v6 = node.tunnel_v6;
  out.ipv6 = node.enable_ipv6;
  out.checksum_offload = !node.disable_checksum_offload;
  return out;
}

std::string too_narrow(const TunnelSpec& spec, std::uint32_t uplink_mtu) {
  const std::uint32_t mtu = tunnel_mtu(spec, uplink_mtu);
  if (!spec.ipv6 || mtu >= kLeastMtuV6) return {};
  return "uplink " + spec.parent_device + " has MTU " + std::to_string(uplink_mtu) +
         ", which leaves " + std::to_string(mtu) + " for " + spec.name + ", and IPv6 needs " +
         std::to_string(kLeastMtuV6) + ": IPv6 that is to go through the tunnel is dropped; give " +
         spec.parent_device + " an MTU of " + std::to_string(kLeastMtuV6 + overhead(spec)) +
         " or more, or switch feature.enableIPv6 off";
}

std::string read_sysctl(const std::string& key) {
  const Fd f(::open(("/proc/sys/" + key).c_str(), O_RDONLY | O_CLOEXEC));
  char text[256];
  const ssize_t n = f.fd < 0 ? -1 : ::read(f.fd, text, sizeof(text));
  if (n <= 0) return {};
  std::string out(text, static_cast<std::size_t>(n));
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool write_sysctl(const std::string& key, std::string_view value) {
  if (read_sysctl(key) == value) return true;
  const std::string path = "/proc/sys/" + key;
  int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  // A container's is read-only; the host's may be mounted below /host, as the framework expects it.
  if (fd < 0 && errno == EROFS) fd = ::open(("/host" + path).c_str(), O_WRONLY | O_CLOEXEC);
  const Fd f(fd);
  return f.fd >= 0 &&
         ::write(f.fd, value.data(), value.size()) == static_cast<ssize_t>(value.size());
}

int set_checksum_offload(const std::string& device, bool on) {
  const Fd s(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (s.fd < 0) return errno;
  ifreq request{};
  std::strncpy(request.ifr_name, device.c_str(), IFNAMSIZ - 1);
  ethtool_value value{};
  value.cmd = ETHTOOL_GTXCSUM;
  request.ifr_data = reinterpret_cast<char*>(&value);
  if (::ioctl(s.fd, SIOCETHTOOL, &request) != 0) return errno;
  if ((value.data != 0) == on) return 0;
  value.cmd = ETHTOOL_STXCSUM;
  value.data = on ? 1 : 0;
  return ::ioctl(s.fd, SIOCETHTOOL, &request) != 0 ? errno : 0;
}

// Words about what has our id (EEXIST) or our port (EADDRINUSE); empty: it is something else.
std::string Tunnel::in_the_way(int err, const TunnelSpec& spec) {
  if (err != EEXIST && err != EADDRINUSE) return {};
  const std::string port = std::to_string(spec.port);
  for (const Link& other : all_links(socket_)) {
    if (other.kind != "vxlan" || other.port != spec.port || other.name == spec.name) continue;
    if (err == EEXIST && other.vni != spec.vni) continue;
    return ": the VXLAN device " + other.name + " has id " + std::to_string(other.vni) +
           " and UDP port " + port + "; remove it, or set feature.vxlan." +
           (err == EEXIST ? "id" : "port") + " on all nodes";
  }
  if (err == EEXIST) return {};
  return ": another program has UDP port " + port +
         "; end it, or set feature.vxlan.port on all nodes";
}

Link Tunnel::create(const TunnelSpec& spec, std::uint32_t mtu) {
  ifinfomsg h{};
  sdk::Mac closed = spec.mac;
  closed[0] ^= 0x04;  // still a unicast address of local making
  Message m(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  m.header(h)
      .text(IFLA_IFNAME, spec.name)
      .attr(IFLA_ADDRESS, closed.data(), closed.size())
      .u32(IFLA_MTU, mtu)
      .u32(IFLA_GROUP, kTunnelGroup);
  nlattr* info = m.begin(IFLA_LINKINFO);
  m.text(IFLA_INFO_KIND, "vxlan");
  nlattr* data = m.begin(IFLA_INFO_DATA);
  m.u32(IFLA_VXLAN_ID, spec.vni)
      .be16(IFLA_VXLAN_PORT, spec.port)
      .u8(IFLA_VXLAN_LEARNING, 0)
      .attr(IFLA_VXLAN_GBP, nullptr, 0)
      .address(spec.underlay.is_v4() ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, spec.underlay);
  m.end(data).end(info);
  const int err = socket_.request(m);
  must(err, "cannot be made" + in_the_way(err, spec), spec.name);
  auto link = find_link(socket_, spec.name);
  if (!link) must(ENODEV, "has gone again", spec.name);
  return *link;
}

Link Tunnel::ensure_device(const TunnelSpec& spec, Result& result, Repairs& repairs) {
  const auto parent = find_link(socket_, spec.parent_device);
  if (!parent) {
    throw sdk::Failure(sdk::Code::kUnavailable, "the underlay interface does not exist",
                       spec.parent_device, ENODEV);
  }
  result.mtu = tunnel_mtu(spec, parent->mtu);
  std::optional<Link> link = find_link(socket_, spec.name);
  if (link && link->kind != "vxlan") {
    throw sdk::Failure(sdk::Code::kConflict,
                       "is a device of kind '" + link->kind +
                           "' that is not egw's; rename it or set feature.vxlan.name",
                       "tunnel device " + spec.name);
  }
  if (link && !same_fixed_attributes(*link, spec)) {
    host_.warn("tunnel device " + spec.name + " has other fixed attributes (id " +
               std::to_string(link->vni) + ", port " + std::to_string(link->port) + ", local " +
               link->local.text() + (link->gbp ? "" : ", no GBP") +
               (link->learning ? ", learning" : "") + "): replaced");
    must(remove_link(socket_, link->index), "cannot be removed", spec.name);
    link.reset();
    if (before_ == spec) ++repairs["tunnel device"];
  } else if (!link && before_ == spec) {
    ++repairs["tunnel device"];
  }
  if (!link) {
    // Ours under another name (somebody renamed it, or feature.vxlan.name was another) has the id.
    remove_tunnels(socket_, spec.name);
    link = create(spec, result.mtu);
    result.created = true;
    addresses_before_.clear();
    fdb_before_.clear();
    neighbours_before_.clear();
  }
  return *link;
}

void Tunnel::write_settings(const std::string& device) {
  const std::string v6 = "net/ipv6/conf/" + device + "/";
  const std::string v4 = "net/ipv4/conf/" + device + "/";
  write_sysctl(v6 + "disable_ipv6", "0");
  write_sysctl(v6 + "addr_gen_mode", "1");  // no link-local address of the kernel's own
  write_sysctl(v6 + "accept_ra", "0");
  write_sysctl(v4 + "accept_redirects", "0");
  write_sysctl(v4 + "send_redirects", "0");
  // Packets from the tunnel carry a mark with which the reverse path leads back into it.
  write_sysctl(v4 + "src_valid_mark", "1");
}

// MTU, MAC, group, alias, addresses, state: what can be changed on a device that stays.
void Tunnel::settle(const TunnelSpec& spec, const Link& link, std::uint32_t mtu, Repairs& repairs) {
  write_settings(spec.name);
  mac_ = link.mac;  // another one than wanted is put right by open()
  const bool differs = link.mtu != mtu || link.mac != spec.mac || link.group != kTunnelGroup ||
                       link.alias != kAlias || !link.up;
  if (differs) {
    const bool settled = before_ == spec && index_before_ == link.index && link.alias == kAlias;
    // Another MTU than before is wanted when the uplink has another: nobody has changed ours.
    if (settled && mtu == mtu_before_) ++repairs["tunnel device"];
    ifinfomsg h{};
    h.ifi_index = link.index;
    h.ifi_flags = IFF_UP;
    h.ifi_change = IFF_UP;
    Message m(RTM_NEWLINK, 0);
    m.header(h).u32(IFLA_MTU, mtu).u32(IFLA_GROUP, kTunnelGroup).text(IFLA_IFALIAS, kAlias);
    const int err = socket_.request(m);
    must(err, "MTU, group or state cannot be set" + in_the_way(err, spec), spec.name);
  }
  // The kernel begins anew with IPv6 on it, with settings and an address of its own.
  const bool v6_comes = link.mtu < kLeastMtuV6 && mtu >= kLeastMtuV6;
  if (v6_comes) write_settings(spec.name);
  if (const int err = set_checksum_offload(spec.name, spec.checksum_offload); err != 0) {
    host_.warn("tunnel device " + spec.name +
               ": checksum offload cannot be switched: " + std::strerror(err));
  }
  std::set<LinkAddress> wanted;
  if (spec.v4) wanted.insert(LinkAddress{spec.v4});
  if (spec.v6 && mtu >= kLeastMtuV6) wanted.insert(LinkAddress{spec.v6});
  const auto failed = sync(
      socket_, wanted, addresses(socket_, link.index),
      index_before_ == link.index && !v6_comes ? &addresses_before_ : nullptr, "tunnel address",
      repairs, [&](const LinkAddress& a) { return add(a, link.index); },
      [&](const LinkAddress& a) { return remove(a, link.index); });
  if (!failed.empty()) {
    must(failed[0].second, "address " + failed[0].first.prefix.text() + " cannot be set",
         spec.name);
  }
  addresses_before_ = std::move(wanted);
}

Tunnel::Result Tunnel::apply(const TunnelSpec& spec, const std::vector<TunnelPeer>& peers,
                             const std::vector<TunnelNextHop>& hops, Repairs& repairs) {
  Result result;
  if (before_ && before_->name != spec.name) remove_tunnels(socket_, spec.name);
  const Link link = ensure_device(spec, result, repairs);
  settle(spec, link, result.mtu, repairs);
  mtu_before_ = result.mtu;
  result.index = link.index;
  const bool same_device = index_before_ == link.index;
  index_before_ = link.index;
  if (!same_device) {
    fdb_before_.clear();
    neighbours_before_.clear();
  }
  sync_peers(peers, hops, true, result, repairs);
  before_ = spec;
  return result;
}

void Tunnel::open(const TunnelSpec& spec, const std::vector<TunnelPeer>& peers,
                  const std::vector<TunnelNextHop>& hops) {
  if (mac_ == spec.mac || index_before_ == 0) return;
  ifinfomsg h{};
  h.ifi_index = index_before_;
  Message m(RTM_NEWLINK, 0);
  m.header(h).attr(IFLA_ADDRESS, spec.mac.data(), spec.mac.size());
  must(socket_.request(m), "MAC cannot be set", spec.name);
  mac_ = spec.mac;
  // With its MAC the kernel forgets a device's neighbours.
  neighbours_before_.clear();
  Result unused;  // what cannot be set has been told by apply()
  Repairs none;
  sync_peers(peers, hops, true, unused, none);
}

void Tunnel::forget() {
  before_.reset();
  fdb_before_.clear();
  neighbours_before_.clear();
  addresses_before_.clear();
  index_before_ = 0;
}

void Tunnel::update_peers(const std::vector<TunnelPeer>& peers,
                          const std::vector<TunnelNextHop>& hops, Result& result) {
  Repairs none;
  sync_peers(peers, hops, false, result, none);
}

void Tunnel::sync_peers(const std::vector<TunnelPeer>& peers,
                        const std::vector<TunnelNextHop>& hops, bool read, Result& result,
                        Repairs& repairs) {
  std::set<Neighbour> fdb, near;
  std::map<sdk::Mac, std::string> by_mac;
  std::map<sdk::Address, std::string> by_address;
  for (const TunnelPeer& p : peers) {
    fdb.insert(Neighbour{AF_BRIDGE, p.underlay, p.mac, true});
    by_mac.emplace(p.mac, p.name);
    for (const sdk::Address& a : {p.v4, p.v6}) {
      if (!a || !takes(table_of(a))) continue;
      near.insert(Neighbour{static_cast<std::uint8_t>(a.af()), a, p.mac, true});
      by_address.emplace(a, p.name);
    }
  }
  for (const TunnelNextHop& hop : hops) {
    if (!takes(table_of(hop.address))) continue;
    near.insert(Neighbour{static_cast<std::uint8_t>(hop.address.af()), hop.address, hop.mac, true});
  }
  const int index = index_before_;
  const auto make = [&](const Neighbour& n) { return add(n, index); };
  const auto unmake = [&](const Neighbour& n) { return remove(n, index); };
  std::set<Neighbour> actual_fdb = fdb_before_, actual_near = neighbours_before_;
  if (read) {
    actual_fdb = neighbours(socket_, AF_BRIDGE, index);
    actual_near = neighbours(socket_, AF_INET, index);
    actual_near.merge(neighbours(socket_, AF_INET6, index));
    // An entry that the kernel is resolving or has given up is neither ours nor in the way.
    std::erase_if(actual_near, [](const Neighbour& n) { return !n.permanent; });
  }
  const bool known = !fdb_before_.empty() || !neighbours_before_.empty();
  for (const auto& [n, err] : sync(socket_, fdb, actual_fdb, known ? &fdb_before_ : nullptr,
                                   "FDB entry", repairs, make, unmake)) {
    result.failures.push_back({by_mac[n.mac], err, "FDB entry to " + n.address.text()});
    fdb.erase(n);
  }
  for (const auto& [n, err] :
       sync(socket_, near, actual_near, known ? &neighbours_before_ : nullptr, "neighbour", repairs,
            make, unmake)) {
    result.failures.push_back({by_address[n.address], err, "neighbour " + n.address.text()});
    near.erase(n);
  }
  fdb_before_ = std::move(fdb);
  neighbours_before_ = std::move(near);
}

std::optional<Link> find_tunnel(NetlinkSocket& socket) {
  for (const Link& link : all_links(socket)) {
    if (link.kind == "vxlan" && link.alias == kAlias) return link;
  }
  return std::nullopt;
}

int remove_tunnels(NetlinkSocket& socket, std::string_view except) {
  int first = 0;
  for (const Link& link : all_links(socket)) {
    if (link.kind != "vxlan" || link.alias != kAlias || link.name == except) continue;
    const int err = remove_link(socket, link.index);
    if (err != 0 && err != ENODEV && first == 0) first = err;
  }
  return first;
}

}  // namespace egw::common
