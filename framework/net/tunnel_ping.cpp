// See tunnel_ping.hpp.
#include "egw/net/tunnel_ping.hpp"

#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace egw::net {
namespace {

// The echo header is the same in both families: type, code, checksum, id, sequence.
struct Echo {
  std::uint8_t type = 0;
  std::uint8_t code = 0;
  std::uint16_t checksum = 0;
  std::uint16_t id = 0;
  std::uint16_t sequence = 0;
};
static_assert(sizeof(Echo) == 8);

// RFC 1071; of ICMP alone: for ICMPv6 the kernel computes it (RFC 3542).
std::uint16_t checksum(const Echo& echo) {
  std::array<std::uint16_t, 4> words{};
  std::memcpy(words.data(), &echo, sizeof echo);
  std::uint32_t sum = 0;
  for (const std::uint16_t word : words) sum += word;
  sum = (sum & 0xffffU) + (sum >> 16U);
  sum = (sum & 0xffffU) + (sum >> 16U);
  return static_cast<std::uint16_t>(~sum);
}

bool only_replies(int fd, model::Family family) {
  if (family == model::Family::kV4) {
    icmp_filter filter{};
    filter.data = ~(1U << ICMP_ECHOREPLY);
    return setsockopt(fd, SOL_RAW, ICMP_FILTER, &filter, sizeof filter) == 0;
  }
  icmp6_filter filter{};
  ICMP6_FILTER_SETBLOCKALL(&filter);
  ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
  return setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter) == 0;
}

model::Address address_of(const sockaddr_storage& from) {
  if (from.ss_family == AF_INET) {
    std::array<std::uint8_t, 4> bytes{};
    std::memcpy(bytes.data(), &reinterpret_cast<const sockaddr_in&>(from).sin_addr, bytes.size());
    return model::Address::v4(bytes);
  }
  std::array<std::uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), &reinterpret_cast<const sockaddr_in6&>(from).sin6_addr, bytes.size());
  return model::Address::v6(bytes);
}

}  // namespace

Result<TunnelPing> TunnelPing::open(const std::string& interface, model::Family family) {
  const bool v4 = family == model::Family::kV4;
  const int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                        v4 ? static_cast<int>(IPPROTO_ICMP) : static_cast<int>(IPPROTO_ICMPV6));
  if (fd < 0) {
    return fail(Errc::kUnavailable, "tunnel ping", "no raw ICMP socket: CAP_NET_RAW is needed",
                errno);
  }
  std::uint16_t id = 0;
  const bool random = getrandom(&id, sizeof id, 0) == static_cast<ssize_t>(sizeof id);
  if (!random || !only_replies(fd, family) ||
      setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface.c_str(),
                 static_cast<socklen_t>(interface.size() + 1)) != 0) {
    const int error = errno;
    close(fd);
    return fail(Errc::kUnavailable, interface, "cannot be pinged through", error);
  }
  return TunnelPing(fd, family, id);
}

TunnelPing::TunnelPing(int fd, model::Family family, std::uint16_t id)
    : fd_(fd), family_(family), id_(id) {}

TunnelPing::TunnelPing(TunnelPing&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), family_(other.family_), id_(other.id_) {}

TunnelPing::~TunnelPing() {
  if (fd_ >= 0) close(fd_);
}

Result<void> TunnelPing::send(const model::Address& to, std::uint16_t sequence) {
  Echo echo;
  echo.id = id_;
  echo.sequence = htons(sequence);
  sockaddr_storage storage{};
  socklen_t length = 0;
  if (family_ == model::Family::kV4) {
    echo.type = ICMP_ECHO;
    echo.checksum = checksum(echo);
    auto& address = reinterpret_cast<sockaddr_in&>(storage);
    address.sin_family = AF_INET;
    std::memcpy(&address.sin_addr, to.bytes().data(), 4);
    length = sizeof address;
  } else {
    echo.type = ICMP6_ECHO_REQUEST;
    auto& address = reinterpret_cast<sockaddr_in6&>(storage);
    address.sin6_family = AF_INET6;
    std::memcpy(&address.sin6_addr, to.bytes().data(), 16);
    length = sizeof address;
  }
  const ssize_t sent = sendto(fd_, &echo, sizeof echo, MSG_DONTWAIT,
                              reinterpret_cast<const sockaddr*>(&storage), length);
  if (sent != static_cast<ssize_t>(sizeof echo)) {
    return fail(Errc::kUnavailable, to.to_string(), "cannot be pinged", errno);
  }
  return {};
}

std::optional<model::Address> TunnelPing::receive(std::uint16_t sequence) {
  for (;;) {
    std::array<std::uint8_t, 256> packet{};
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    const ssize_t got = recvfrom(fd_, packet.data(), packet.size(), MSG_DONTWAIT,
                                 reinterpret_cast<sockaddr*>(&from), &length);
    if (got < 0) {
      if (errno == EINTR) continue;
      return std::nullopt;
    }
    // An IPv4 raw socket delivers the IP header too, an IPv6 one does not (raw(7), RFC 3542).
    const auto size = static_cast<std::size_t>(got);
    const std::size_t head = family_ == model::Family::kV4 ? (packet[0] & 0x0fU) * 4U : 0U;
    if (size < head + sizeof(Echo)) continue;
    Echo echo;
    std::memcpy(&echo, packet.data() + head, sizeof echo);
    if (echo.id == id_ && ntohs(echo.sequence) == sequence) return address_of(from);
  }
}

}  // namespace egw::net
