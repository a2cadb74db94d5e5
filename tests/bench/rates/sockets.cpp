// Sockets in the namespaces of a layout, and the thread that takes what arrives (rates.hpp).
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "rates.hpp"

namespace egw::rates {
namespace {

constexpr std::size_t kBatch = 32;

int new_socket(const Layout& l, const std::string& ns, int type) {
  const InNamespace inside(ns);
  const int fd = socket(l.address.ss_family, type | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket in " + ns);
  return fd;
}

}  // namespace

void die(const std::string& what) { throw std::system_error(errno, std::generic_category(), what); }

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  errno = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  if (errno != 0) die("pin to CPU " + std::to_string(cpu));
}

Layout parse_layout(const std::string& spec, std::uint16_t port) {
  std::array<std::string, 4> part;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < part.size(); ++i) {
    const std::size_t end = spec.find(',', begin);
    part[i] = spec.substr(begin, end - begin);
    if ((end == std::string::npos) != (i + 1 == part.size())) {
      throw std::invalid_argument(spec + ": want name,client-netns,server-netns,server-address");
    }
    begin = end + 1;
  }
  Layout l{part[0], part[1], part[2]};
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_port = v6.sin6_port = htons(port);
  v4.sin_family = AF_INET;
  v6.sin6_family = AF_INET6;
  if (inet_pton(AF_INET, part[3].c_str(), &v4.sin_addr) == 1) {
    std::memcpy(&l.address, &v4, l.address_length = sizeof v4);
  } else if (inet_pton(AF_INET6, part[3].c_str(), &v6.sin6_addr) == 1) {
    std::memcpy(&l.address, &v6, l.address_length = sizeof v6);
  } else {
    throw std::invalid_argument(part[3] + ": not an address");
  }
  return l;
}

InNamespace::InNamespace(const std::string& name)
    : own_(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
  const Socket target(open(("/run/netns/" + name).c_str(), O_RDONLY | O_CLOEXEC));
  if (own_ < 0 || target < 0 || setns(target, CLONE_NEWNET) != 0) die("enter namespace " + name);
}

InNamespace::~InNamespace() {
  (void)setns(own_, CLONE_NEWNET);
  close(own_);
}

Socket::~Socket() {
  if (fd_ >= 0) close(fd_);
}

void limit_waiting(int fd) {
  const timeval wait{0, 200000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
}

int client_socket(const Layout& l, int type) {
  const int fd = new_socket(l, l.client_ns, type);
  limit_waiting(fd);
  if (connect(fd, l.server(), l.address_length) != 0) die(l.name + ": connect to the server");
  return fd;
}

int server_socket(const Layout& l, int type) {
  const int fd = new_socket(l, l.server_ns, type);
  const int big = 4 << 20, on = 1;
  if (type == SOCK_DGRAM) setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  limit_waiting(fd);
  if (bind(fd, l.server(), l.address_length) != 0) die("bind in " + l.server_ns);
  if (type == SOCK_STREAM && listen(fd, 16) != 0) die("listen in " + l.server_ns);
  return fd;
}

DatagramPair::DatagramPair(const Layout& l)
    : name(l.name), server(server_socket(l, SOCK_DGRAM)), client(client_socket(l, SOCK_DGRAM)) {
  for (int i = 0; i < 50; ++i) {
    char byte = 0;
    (void)send(client, &byte, 1, 0);
    if (answer() && recv(client, &byte, 1, 0) > 0) return;
  }
  throw std::runtime_error(name + ": no datagram goes there and back");
}

bool DatagramPair::answer() const {
  std::array<char, 64> data{};
  sockaddr_storage from{};
  socklen_t length = sizeof from;
  auto* address = reinterpret_cast<sockaddr*>(&from);
  const auto n = recvfrom(server, data.data(), data.size(), 0, address, &length);
  return n > 0 && sendto(server, data.data(), static_cast<std::size_t>(n), 0, address, length) == n;
}

Receiver::~Receiver() {
  done_ = true;
  if (fd_ == -1) watch(-2, false);
  thread_.join();
}

void Receiver::watch(int fd, bool stream) {
  count_ = 0;
  stream_ = stream;
  fd_ = fd;
  fd_.notify_one();
}

void Receiver::run() {
  pin(1);
  std::array<std::array<char, 64>, kBatch> buffers{};
  std::array<iovec, kBatch> iov{};
  std::array<mmsghdr, kBatch> batch{};
  for (std::size_t i = 0; i < kBatch; ++i) {
    iov[i] = {buffers[i].data(), buffers[i].size()};
    batch[i].msg_hdr.msg_iov = &iov[i];
    batch[i].msg_hdr.msg_iovlen = 1;
  }
  std::vector<char> bytes(256 << 10);
  fd_.wait(-1);
  while (!done_) {
    const auto n = stream_ ? recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT)
                           : recvmmsg(fd_, batch.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (n > 0) count_ += static_cast<std::uint64_t>(n);
  }
}

}  // namespace egw::rates
