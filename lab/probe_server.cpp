// The outside server: answers, and counts what reached its port (probe.cpp).
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "probe.hpp"

namespace egw::probe {
namespace {

using nlohmann::json;

// What a packet socket saw of one source address: everything addressed to the port, whatever the
// sockets above made of it.
struct Seen {
  std::uint64_t packets = 0;
  std::int64_t first_us = 0, last_us = 0;
};

class Server {
 public:
  explicit Server(int port) : port_(port) {
    udp_ = listen_socket(SOCK_DGRAM);
    tcp_ = listen_socket(SOCK_STREAM);
    if (listen(tcp_.get(), 1024) != 0) die("listen");
    tap_ = Fd(socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    if (!tap_) die("packet socket");
    const int on = 1;
    // What this host sends is not asked for.
    if (setsockopt(tap_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0)
      die("PACKET_IGNORE_OUTGOING");
    setsockopt(tap_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kBuffer, sizeof kBuffer);
    for (const int direction : {SO_RCVBUFFORCE, SO_SNDBUFFORCE})
      setsockopt(udp_.get(), SOL_SOCKET, direction, &kBuffer, sizeof kBuffer);
  }

  void run() {
    const Fd sig = signals();
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    for (int fd : {udp_.get(), tcp_.get(), tap_.get(), sig.get()}) add(epoll, fd);
    ready_line();
    for (;;) {
      epoll_event events[64];
      const int n = epoll_wait(epoll.get(), events, 64, -1);
      for (int i = 0; i < n; ++i) {
        const int fd = events[i].data.fd;
        if (fd == sig.get()) {
          drain_tap();
          report();
          return;
        }
        if (fd == udp_.get())
          answer_udp();
        else if (fd == tap_.get())
          drain_tap();
        else if (fd == tcp_.get())
          accept_tcp(epoll);
        else
          answer_tcp(fd);
      }
    }
  }

 private:
  Fd listen_socket(int type) const {
    Fd fd(socket(AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) die("socket");
    const int on = 1, off = 0;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    const Endpoint any = endpoint("::", port_);
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&any.addr), any.len) != 0) die("bind");
    return fd;
  }

  // The answer: the first 16 bytes of the request (its sequence number and time), then the source.
  void answer_udp() {
    char buf[2048];
    for (;;) {
      sockaddr_storage from{};
      socklen_t len = sizeof from;
      const ssize_t n =
          recvfrom(udp_.get(), buf, sizeof buf, 0, reinterpret_cast<sockaddr*>(&from), &len);
      if (n < 0) return;
      std::string answer(buf, static_cast<std::size_t>(std::min<ssize_t>(n, 16)));
      answer.resize(16);
      answer += source_of(from);
      (void)sendto(udp_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from),
                   len);
    }
  }

  void accept_tcp(const Fd& epoll) {
    for (;;) {
      sockaddr_storage from{};
      socklen_t len = sizeof from;
      Fd fd(accept4(tcp_.get(), reinterpret_cast<sockaddr*>(&from), &len,
                    SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!fd) return;
      const int on = 1;
      setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      add(epoll, fd.get());
      const int raw = fd.get();
      streams_[raw] = Stream{std::move(fd), source_of(from)};
    }
  }

  void answer_tcp(int fd) {
    char buf[4096];
    const auto it = streams_.find(fd);
    if (it == streams_.end()) return;
    for (;;) {
      const ssize_t n = recv(fd, buf, sizeof buf, 0);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (n <= 0) {
        if (n < 0 && errno == ECONNRESET) ++resets_;
        streams_.erase(it);
        return;
      }
      const std::string answer = it->second.source + "\n";
      for (ssize_t i = 0; i < n; ++i) {
        if (buf[i] == '\n') (void)send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
      }
    }
  }

  void drain_tap() {
    std::uint8_t p[128];
    for (;;) {
      const ssize_t n = recv(tap_.get(), p, sizeof p, 0);
      if (n < 0) return;
      note(p, static_cast<std::size_t>(n));
    }
  }

  void note(const std::uint8_t* p, std::size_t n) {
    char text[INET6_ADDRSTRLEN] = {};
    std::size_t l4 = 0;
    std::uint8_t proto = 0;
    if (n >= 20 && (p[0] >> 4) == 4) {
      l4 = static_cast<std::size_t>(p[0] & 15) * 4;
      proto = p[9];
      inet_ntop(AF_INET, p + 12, text, sizeof text);
    } else if (n >= 40 && (p[0] >> 4) == 6) {
      l4 = 40;
      proto = p[6];
      inet_ntop(AF_INET6, p + 8, text, sizeof text);
    } else {
      return;
    }
    if ((proto != IPPROTO_UDP && proto != IPPROTO_TCP) || n < l4 + 4) return;
    if ((p[l4 + 2] << 8 | p[l4 + 3]) != port_) return;
    auto& seen = seen_[text];
    seen.last_us = now_us();
    if (seen.packets++ == 0) seen.first_us = seen.last_us;
  }

  void report() const {
    tpacket_stats missed{};
    socklen_t size = sizeof missed;
    if (getsockopt(tap_.get(), SOL_PACKET, PACKET_STATISTICS, &missed, &size) != 0)
      die("PACKET_STATISTICS");
    if (missed.tp_drops != 0) {
      throw std::runtime_error(std::to_string(missed.tp_drops) +
                               " packets came and were not looked at, because this process was not "
                               "run: nothing can be said about the sources");
    }
    json sources = json::object();
    for (const auto& [address, seen] : seen_) {
      sources[address] = {
          {"packets", seen.packets}, {"first_us", seen.first_us}, {"last_us", seen.last_us}};
    }
    std::puts(json{{"sources", sources}, {"resets", resets_}}.dump().c_str());
  }

  // Bytes: tens of thousands of packets, for when this process is not run for a while.
  static constexpr int kBuffer = 64 << 20;

  struct Stream {
    Fd fd;
    std::string source;
  };
  int port_;
  Fd udp_, tcp_, tap_;
  std::map<int, Stream> streams_;
  std::map<std::string, Seen> seen_;
  std::uint64_t resets_ = 0;
};

}  // namespace

void run_server(int port) { Server(port).run(); }

}  // namespace egw::probe
