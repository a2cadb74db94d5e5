// Packet sockets of one interface (packet(7)): see port.hpp.
#include "egw/net/port.hpp"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

namespace egw::net {

namespace {

constexpr std::size_t kLargestFrame = 2048;

// Neighbour solicitations and advertisements with hop limit 255; the rest stays in the kernel.
std::array<sock_filter, 9> ndp_filter() {
  return {{
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 14 + 6),  // next header
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ICMPV6, 0, 5),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 14 + 7),  // hop limit
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 255, 0, 3),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 14 + 40),     // ICMPv6 type
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 135, 0, 1),  // solicitation
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 136, 0, 1),  // advertisement
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, 0x40000),
  }};
}

Result<int> open_socket(unsigned index, const std::string& name, std::uint16_t protocol) {
  // Protocol 0 first: nothing comes in before filter and interface are set.
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const auto failed = [&](const char* what) {
    const int error = errno;
    if (fd >= 0) close(fd);
    return fail(Errc::kUnavailable, "interface " + name,
                std::string("cannot ") + what + " for ARP and neighbour discovery", error);
  };
  if (fd < 0) return failed("open a packet socket (needs CAP_NET_RAW)");
  const int on = 1;
  if (setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on) != 0) {
    return failed("set PACKET_AUXDATA");
  }
  if (protocol == ETH_P_IPV6) {
    auto program = ndp_filter();
    const sock_fprog attach{static_cast<unsigned short>(program.size()), program.data()};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &attach, sizeof attach) != 0) {
      return failed("attach the socket filter");
    }
  }
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(protocol);
  address.sll_ifindex = static_cast<int>(index);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return failed("bind a packet socket");
  }
  return fd;
}

struct Auxiliary {
  bool tagged = false;  // for a VLAN on top of this interface, not for it
  bool checksum_ready = true;
};

Auxiliary read_auxiliary(msghdr& message) {
  Auxiliary out;
  for (auto* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) continue;
    tpacket_auxdata data{};
    std::memcpy(&data, CMSG_DATA(c), sizeof data);
    out.tagged = (data.tp_status & TP_STATUS_VLAN_VALID) != 0 && (data.tp_vlan_tci & 0x0fffU) != 0;
    out.checksum_ready = (data.tp_status & TP_STATUS_CSUMNOTREADY) == 0;
  }
  return out;
}

}  // namespace

Result<Port> Port::open(unsigned index, std::string name, bool with_ndp) {
  Port port(index, std::move(name));
  auto arp = open_socket(index, port.name_, ETH_P_ARP);
  if (!arp) return tl::unexpected(arp.error());
  port.arp_fd_ = *arp;
  if (with_ndp) {
    auto ndp = open_socket(index, port.name_, ETH_P_IPV6);
    if (!ndp) return tl::unexpected(ndp.error());
    port.ndp_fd_ = *ndp;
  }
  return port;
}

Port::~Port() { close_all(); }

Port::Port(Port&& other) noexcept
    : index_(other.index_),
      name_(std::move(other.name_)),
      arp_fd_(std::exchange(other.arp_fd_, -1)),
      ndp_fd_(std::exchange(other.ndp_fd_, -1)),
      mld_fds_(std::exchange(other.mld_fds_, {})),
      groups_(std::exchange(other.groups_, {})) {}

Port& Port::operator=(Port&& other) noexcept {
  if (this != &other) {
    close_all();
    index_ = other.index_;
    name_ = std::move(other.name_);
    arp_fd_ = std::exchange(other.arp_fd_, -1);
    ndp_fd_ = std::exchange(other.ndp_fd_, -1);
    mld_fds_ = std::exchange(other.mld_fds_, {});
    groups_ = std::exchange(other.groups_, {});
  }
  return *this;
}

void Port::close_all() {
  for (const int fd : {arp_fd_, ndp_fd_}) {
    if (fd >= 0) close(fd);
  }
  for (const int fd : mld_fds_) close(fd);
}

bool Port::receive(int fd, int limit, const OnFrame& on_frame) {
  std::array<std::uint8_t, kLargestFrame> buffer;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(tpacket_auxdata))> control;
  for (int i = 0; i < limit; ++i) {
    sockaddr_ll from{};
    iovec vector{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const auto size = recvmsg(fd, &message, 0);
    if (size < 0) {
      // ENETDOWN and ENXIO tell that the interface went: its event says so too.
      if (errno == EINTR || errno == ENETDOWN || errno == ENXIO) continue;
      return false;
    }
    if (from.sll_pkttype == PACKET_OUTGOING || from.sll_pkttype == PACKET_OTHERHOST) continue;
    const auto auxiliary = read_auxiliary(message);
    if (auxiliary.tagged) continue;
    on_frame(FrameView(buffer.data(), static_cast<std::size_t>(size)), auxiliary.checksum_ready);
  }
  return true;
}

int Port::send(const Frame& frame) {
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(static_cast<std::uint16_t>((frame[12] << 8U) | frame[13]));
  to.sll_ifindex = static_cast<int>(index_);
  to.sll_halen = 6;
  std::copy_n(frame.begin(), 6, to.sll_addr);
  const auto sent = sendto(arp_fd_, frame.data(), frame.size(), 0,
                           reinterpret_cast<const sockaddr*>(&to), sizeof to);
  return sent < 0 ? errno : 0;
}

int Port::change_filter(const model::Address& group, bool join) {
  const auto mac = multicast_mac(group);
  packet_mreq request{};
  request.mr_ifindex = static_cast<int>(index_);
  request.mr_type = PACKET_MR_MULTICAST;
  request.mr_alen = static_cast<unsigned short>(mac.size());
  std::copy(mac.begin(), mac.end(), request.mr_address);
  const int option = join ? PACKET_ADD_MEMBERSHIP : PACKET_DROP_MEMBERSHIP;
  return setsockopt(ndp_fd_, SOL_PACKET, option, &request, sizeof request) == 0 ? 0 : errno;
}

int Port::change_mld(const model::Address& group, bool join) {
  ipv6_mreq request{};
  std::memcpy(&request.ipv6mr_multiaddr, group.bytes().data(), 16);
  request.ipv6mr_interface = index_;
  if (!join) {
    const int fd = groups_.at(group);
    if (fd < 0) return 0;
    return setsockopt(fd, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &request, sizeof request) == 0 ? 0
                                                                                         : errno;
  }
  const auto joined = [&](int fd) {
    const bool done = setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &request, sizeof request) == 0;
    const int error = done ? 0 : errno;
    if (done) groups_[group] = fd;
    return error;
  };
  // The kernel bounds the groups of a socket; one whose groups have been left has room again.
  for (auto fd = mld_fds_.rbegin(); fd != mld_fds_.rend(); ++fd) {
    const int error = joined(*fd);
    if (error != ENOBUFS && error != ENOMEM) return error;
  }
  const int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  if (const int error = joined(fd); error != 0) {
    close(fd);
    return error;
  }
  mld_fds_.push_back(fd);
  return 0;
}

std::string Port::set_groups(const std::set<model::Address>& groups) {
  if (ndp_fd_ < 0) return {};
  std::string failed;
  const auto note = [&](const char* what, const model::Address& group, int error) {
    if (error == 0 || !failed.empty()) return;
    failed = "interface " + name_ + ": cannot " + what + " group " + group.to_string() + ": " +
             std::strerror(error) +
             "; a switch that snoops MLD may not send neighbour solicitations here";
  };
  for (auto it = groups_.begin(); it != groups_.end();) {
    if (groups.count(it->first) != 0) {
      ++it;
      continue;
    }
    // Fails only when the interface or its membership went already.
    (void)change_filter(it->first, false);
    (void)change_mld(it->first, false);
    it = groups_.erase(it);
  }
  for (const auto& group : groups) {
    if (groups_.count(group) != 0) continue;
    groups_[group] = -1;
    note("let in", group, change_filter(group, true));
    note("join", group, change_mld(group, true));
  }
  return failed;
}

}  // namespace egw::net
