// See hostile_server.hpp.
#include "hostile_server.hpp"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <stdexcept>

namespace egw::kube::test {

using namespace std::chrono_literals;

std::string ok(std::string_view body) { return status(200, body); }

std::string status(int code, std::string_view body, std::string_view more_headers) {
  return "HTTP/1.1 " + std::to_string(code) + " X\r\nContent-Type: application/json\r\n" +
         std::string(more_headers) + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

std::string chunk(std::string_view bytes) {
  char size[20];
  std::snprintf(size, sizeof(size), "%zx\r\n", bytes.size());
  return size + std::string(bytes) + "\r\n";
}

std::string HostileServer::Exchange::line() const {
  return request_.substr(0, request_.find(" HTTP/"));
}

bool HostileServer::Exchange::send(std::string_view bytes) const {
  while (!bytes.empty() && !over_) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(n));
      continue;
    }
    if (errno != EAGAIN) return false;
    struct pollfd fd = {fd_, POLLOUT, 0};
    ::poll(&fd, 1, 20);
  }
  return !over_;
}

void HostileServer::Exchange::hold() const {
  struct pollfd fd = {fd_, POLLIN | POLLRDHUP, 0};
  while (!over_ && ::poll(&fd, 1, 20) == 0) {
  }
}

bool HostileServer::Exchange::pause(std::chrono::milliseconds time) const {
  const auto end = std::chrono::steady_clock::now() + time;
  while (!over_ && std::chrono::steady_clock::now() < end) {
    struct pollfd fd = {fd_, POLLRDHUP, 0};
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (::poll(&fd, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 20))) > 0) {
      return false;
    }
  }
  return !over_;
}

bool HostileServer::Exchange::receive() {
  request_.clear();
  std::size_t wanted = std::string::npos;
  while (!over_ && request_.size() < wanted) {
    struct pollfd fd = {fd_, POLLIN, 0};
    if (::poll(&fd, 1, 20) == 0) continue;
    char bytes[4096];
    const ssize_t n = ::recv(fd_, bytes, sizeof(bytes), 0);
    if (n <= 0) return false;
    request_.append(bytes, static_cast<std::size_t>(n));
    const std::size_t header = request_.find("\r\n\r\n");
    if (header == std::string::npos) continue;
    const std::size_t length = request_.find("Content-Length: ");
    wanted = header + 4 + (length < header ? std::stoul(request_.substr(length + 16)) : 0);
  }
  return !over_;
}

HostileServer::HostileServer(Script script, int port) : script_(std::move(script)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  const int on = 1;
  ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  socklen_t length = sizeof(address);
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      ::listen(listener_, 16) != 0 ||
      ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    throw std::runtime_error("no listening socket");
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { accept_all(); });
}

HostileServer::~HostileServer() {
  over_ = true;
  acceptor_.join();
  ::close(listener_);
  for (std::thread& connection : connections_) connection.join();
}

void HostileServer::accept_all() {
  while (!over_) {
    struct pollfd fd = {listener_, POLLIN, 0};
    if (::poll(&fd, 1, 20) <= 0) continue;
    const int accepted = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (accepted >= 0) connections_.emplace_back([this, accepted] { serve(accepted); });
  }
}

void HostileServer::serve(int fd) {
  Exchange exchange(fd, over_);
  while (exchange.receive()) {
    ++requests_;
    if (!script_(exchange)) break;
  }
  ::close(fd);
}

}  // namespace egw::kube::test
