// The other end of a link: raw frames in and out, with the kernel's time stamps. And a network
// namespace for the test process, which goes with it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "egw/net/frames.hpp"

namespace egw::net::test {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

inline model::Address ip(const std::string& text) { return model::Address::parse(text).value(); }

// Sanitizers make everything several times slower; times are bars for the product as built.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kSlower = 10;
#else
inline constexpr int kSlower = 1;
#endif

inline void sh(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw std::runtime_error(command + " failed");
}

// The whole test process moves into a namespace of its own, once.
inline void own_namespace() {
  static const bool done = [] {
    if (unshare(CLONE_NEWNET) != 0) {
      throw std::runtime_error(std::string("these tests need root: unshare: ") +
                               std::strerror(errno));
    }
    sh("ip link set lo up");
    return true;
  }();
  (void)done;
}

inline model::Mac mac_of(const std::string& interface) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  std::strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
  const int failed = ioctl(fd, SIOCGIFHWADDR, &request);
  close(fd);
  if (failed != 0) throw std::runtime_error("no MAC of " + interface);
  model::Mac mac{};
  std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
  return mac;
}

struct Seen {
  Frame frame;
  std::chrono::nanoseconds at{};  // CLOCK_REALTIME, by the kernel
  [[nodiscard]] std::optional<NeighbourMessage> message() const {
    auto arp = parse_arp(frame);
    return arp ? arp : parse_ndp(frame);
  }
};

inline std::chrono::nanoseconds realtime() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

class Wire {
 public:
  explicit Wire(const std::string& interface) {
    fd_ = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(if_nametoindex(interface.c_str()));
    const int on = 1;
    if (fd_ < 0 || bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        setsockopt(fd_, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0) {
      throw std::runtime_error("packet socket on " + interface + ": " + std::strerror(errno));
    }
    const int size = 8 << 20;
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  }
  ~Wire() { close(fd_); }
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  void send(const Frame& frame) const {
    if (::send(fd_, frame.data(), frame.size(), 0) < 0 && errno != ENETDOWN) {
      throw std::runtime_error(std::string("send: ") + std::strerror(errno));
    }
  }

  // The next frame that comes in from the link, until `deadline`.
  std::optional<Seen> next(steady_clock::time_point deadline) const {
    for (;;) {
      const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now()).count();
      pollfd wait{fd_, POLLIN, 0};
      if (poll(&wait, 1, static_cast<int>(std::max<long>(left, 0))) <= 0) return std::nullopt;
      Seen seen;
      seen.frame.resize(2048);
      sockaddr_ll from{};
      iovec vector{seen.frame.data(), seen.frame.size()};
      alignas(cmsghdr) char control[256];
      msghdr message{};
      message.msg_name = &from;
      message.msg_namelen = sizeof from;
      message.msg_iov = &vector;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      const auto size = recvmsg(fd_, &message, 0);
      if (size < 0 || from.sll_pkttype == PACKET_OUTGOING) continue;
      seen.frame.resize(static_cast<std::size_t>(size));
      for (auto* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
        timespec at{};
        std::memcpy(&at, CMSG_DATA(c), sizeof at);
        seen.at = std::chrono::seconds(at.tv_sec) + std::chrono::nanoseconds(at.tv_nsec);
      }
      return seen;
    }
  }

  using Wanted = std::function<bool(const NeighbourMessage&)>;
  // The next ARP or NDP message that is wanted.
  std::optional<Seen> wait_for(const Wanted& wanted,
                               milliseconds limit = milliseconds(2000)) const {
    const auto deadline = steady_clock::now() + limit;
    while (auto seen = next(deadline)) {
      const auto message = seen->message();
      if (message && wanted(*message)) return seen;
    }
    return std::nullopt;
  }
  // All that are wanted within `span`.
  std::vector<Seen> collect(const Wanted& wanted, milliseconds span) const {
    std::vector<Seen> out;
    const auto deadline = steady_clock::now() + span;
    while (auto seen = next(deadline)) {
      const auto message = seen->message();
      if (message && wanted(*message)) out.push_back(std::move(*seen));
    }
    return out;
  }

 private:
  int fd_ = -1;
};

}  // namespace egw::net::test
