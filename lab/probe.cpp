// egw-probe: the traffic of the one-machine cluster. `server` answers every UDP datagram and TCP
// message with the source address that it saw, and counts by a packet socket every source that
// reached its port; `client` sends one datagram per interval and reports the gap, the sources seen
// and TCP resets; `once` asks a single time. Results are JSON on stdout. Called by lab/*.py and the
// tests.
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace {

using nlohmann::json;

std::int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

[[noreturn]] void die(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct Endpoint {
  sockaddr_storage addr{};
  socklen_t len = 0;
};

Endpoint endpoint(const std::string& host, int port) {
  Endpoint e;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&e.addr);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&e.addr);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<std::uint16_t>(port));
    e.len = sizeof *v4;
  } else if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<std::uint16_t>(port));
    e.len = sizeof *v6;
  } else {
    throw std::runtime_error("not an IP address: " + host);
  }
  return e;
}

// The address without port; v4-mapped shown as IPv4.
std::string source_of(const sockaddr_storage& addr) {
  char text[INET6_ADDRSTRLEN] = {};
  if (addr.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(addr).sin_addr, text, sizeof text);
  } else {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(addr).sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&v6)) {
      inet_ntop(AF_INET, &v6.s6_addr[12], text, sizeof text);
    } else {
      inet_ntop(AF_INET6, &v6, text, sizeof text);
    }
  }
  return text;
}

Fd signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  Fd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) die("signalfd");
  return fd;
}

void add(const Fd& epoll, int fd, std::uint32_t events = EPOLLIN) {
  epoll_event ev{};
  ev.events = events;
  ev.data.fd = fd;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &ev) != 0) die("epoll_ctl");
}

void ready_line() {
  std::puts("ready");
  std::fflush(stdout);
}

// ---- server ----------------------------------------------------------------------------------

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
    const int size = 8 << 20;
    setsockopt(tap_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(udp_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
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
      sockaddr_ll from{};
      socklen_t len = sizeof from;
      const ssize_t n =
          recvfrom(tap_.get(), p, sizeof p, 0, reinterpret_cast<sockaddr*>(&from), &len);
      if (n < 0) return;
      if (from.sll_pkttype == PACKET_OUTGOING) continue;  // what this host sends
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
    json sources = json::object();
    for (const auto& [address, seen] : seen_) {
      sources[address] = {
          {"packets", seen.packets}, {"first_us", seen.first_us}, {"last_us", seen.last_us}};
    }
    std::puts(json{{"sources", sources}, {"resets", resets_}}.dump().c_str());
  }

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

// ---- client ----------------------------------------------------------------------------------

struct ClientOptions {
  std::string to;
  int port = 7000;
  int interval_us = 1000;
  int streams = 0;           // TCP connections, each with one message per 5 ms
  double duration_s = 3600;  // ends earlier by SIGTERM
};

class Client {
 public:
  explicit Client(ClientOptions options) : options_(std::move(options)) {
    const Endpoint to = endpoint(options_.to, options_.port);
    udp_ = Fd(socket(to.addr.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!udp_ || connect(udp_.get(), reinterpret_cast<const sockaddr*>(&to.addr), to.len) != 0)
      die("udp");
    for (int i = 0; i < options_.streams; ++i) {
      Fd fd(socket(to.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (!fd || connect(fd.get(), reinterpret_cast<const sockaddr*>(&to.addr), to.len) != 0)
        die("tcp connect");
      const int on = 1;
      setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      streams_.push_back({std::move(fd), true, now_us(), 0});
    }
  }

  void run() {
    const Fd sig = signals();
    timer_ = Fd(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    itimerspec every{};
    every.it_interval.tv_sec = options_.interval_us / 1000000;
    every.it_interval.tv_nsec = (options_.interval_us % 1000000) * 1000L;
    every.it_value = every.it_interval;
    timerfd_settime(timer_.get(), 0, &every, nullptr);
    epoll_ = Fd(epoll_create1(EPOLL_CLOEXEC));
    for (int fd : {udp_.get(), sig.get(), timer_.get()}) add(epoll_, fd);
    for (const auto& s : streams_) add(epoll_, s.fd.get());
    ready_line();
    const std::int64_t end = now_us() + static_cast<std::int64_t>(options_.duration_s * 1e6);
    while (now_us() < end) {
      epoll_event events[64];
      const int n = epoll_wait(epoll_.get(), events, 64, 1000);
      for (int i = 0; i < n; ++i) {
        const int fd = events[i].data.fd;
        if (fd == sig.get()) return;
        if (fd == timer_.get())
          tick();
        else if (fd == udp_.get())
          receive();
        else
          receive_stream(fd);
      }
    }
  }

  // `settle_us`: answers still under way at the end do not count as lost.
  void report() {
    constexpr std::int64_t settle_us = 50'000;
    const std::int64_t until = now_us() - settle_us;
    std::int64_t gap = 0, gap_at = 0, last_ok = sent_.empty() ? 0 : sent_.front().at_us;
    std::uint64_t lost = 0;
    for (const auto& s : sent_) {
      if (s.at_us > until) break;
      if (!s.answered) {
        ++lost;
        continue;
      }
      if (s.at_us - last_ok > gap) {
        gap = s.at_us - last_ok;
        gap_at = last_ok;
      }
      last_ok = s.at_us;
    }
    if (!sent_.empty() && until - last_ok > gap) {  // still silent at the end
      gap = until - last_ok;
      gap_at = last_ok;
    }
    json sources = json::array();  // in order of appearance
    for (const auto& run : order_) {
      sources.push_back(
          {{"source", run.source}, {"answers", run.answers}, {"first_us", run.first_us}});
    }
    std::uint64_t resets = 0, stalled = 0;
    for (const auto& s : streams_) {
      if (!s.open)
        ++resets;
      else if (now_us() - s.last_us > 1'000'000)
        ++stalled;
    }
    std::puts(json{{"sent", sent_.size()},
                   {"lost", lost},
                   {"gap_ms", static_cast<double>(gap) / 1000.0},
                   {"gap_at_us", gap_at},
                   {"sources", sources},
                   {"tcp_streams", streams_.size()},
                   {"tcp_resets", resets},
                   {"tcp_stalled", stalled}}
                  .dump()
                  .c_str());
  }

 private:
  struct Sent {
    std::int64_t at_us = 0;
    bool answered = false;
  };
  struct Stream {
    Fd fd;
    bool open = true;
    std::int64_t last_us = 0;
    std::int64_t next_us = 0;
  };

  void tick() {
    std::uint64_t expirations = 0;
    (void)!read(timer_.get(), &expirations, sizeof expirations);
    const std::int64_t now = now_us();
    std::uint8_t datagram[32] = {};
    const std::uint64_t sequence = sent_.size();
    std::memcpy(datagram, &sequence, 8);
    std::memcpy(datagram + 8, &now, 8);
    sent_.push_back({now, false});
    (void)send(udp_.get(), datagram, sizeof datagram, 0);
    for (auto& s : streams_) {
      if (!s.open || now < s.next_us) continue;
      s.next_us = now + 5000;
      if (send(s.fd.get(), "m\n", 2, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
        s.open = false;
    }
  }

  void receive() {
    char buf[256];
    for (;;) {
      const ssize_t n = recv(udp_.get(), buf, sizeof buf, 0);
      if (n < 0) {
        if (errno == EAGAIN) return;
        continue;  // an ICMP error on the connected socket: the datagram counts as lost
      }
      if (n < 17) continue;
      std::uint64_t sequence = 0;
      std::memcpy(&sequence, buf, 8);
      if (sequence < sent_.size()) sent_[sequence].answered = true;
      const std::string source(buf + 16, static_cast<std::size_t>(n) - 16);
      if (order_.empty() || order_.back().source != source) {
        order_.push_back({source, 0, now_us()});
      }
      ++order_.back().answers;
    }
  }

  void receive_stream(int fd) {
    char buf[4096];
    const auto it = std::find_if(streams_.begin(), streams_.end(),
                                 [fd](const Stream& s) { return s.fd.get() == fd; });
    if (it == streams_.end() || !it->open) return;
    const ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
    if (n > 0) it->last_us = now_us();
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
      it->open = false;
      epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);  // it would stay readable for ever
    }
  }

  ClientOptions options_;
  Fd udp_;
  Fd timer_, epoll_;
  std::vector<Sent> sent_;
  std::vector<Stream> streams_;
  struct Run {  // answers in a row that name the same source
    std::string source;
    std::uint64_t answers = 0;
    std::int64_t first_us = 0;
  };
  std::vector<Run> order_;
};

// ---- once ------------------------------------------------------------------------------------

// Asks for the source address until an answer comes or the time is up; one datagram per 20 ms.
int once(const std::string& host, int port, double timeout_s) {
  const Endpoint to = endpoint(host, port);
  const Fd fd(socket(to.addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd || connect(fd.get(), reinterpret_cast<const sockaddr*>(&to.addr), to.len) != 0)
    die("udp");
  const std::int64_t end = now_us() + static_cast<std::int64_t>(timeout_s * 1e6);
  const char question[16] = {};
  while (now_us() < end) {
    (void)send(fd.get(), question, sizeof question, 0);
    pollfd p{fd.get(), POLLIN, 0};
    if (poll(&p, 1, 20) != 1) continue;
    char buf[256];
    const ssize_t n = recv(fd.get(), buf, sizeof buf, 0);
    if (n < 17) continue;
    std::printf("%.*s\n", static_cast<int>(n) - 16, buf + 16);
    return 0;
  }
  std::fprintf(stderr, "egw-probe: no answer from %s port %d within %.1f s\n", host.c_str(), port,
               timeout_s);
  return 1;
}

constexpr const char* kUsage =
    "usage: egw-probe server [--port P]\n"
    "       egw-probe client --to ADDRESS [--port P] [--interval-us N] [--streams N] [--duration "
    "S]\n"
    "       egw-probe once --to ADDRESS [--port P] [--timeout S]\n";

}  // namespace

int main(int argc, char** argv) try {
  const std::vector<std::string> args(argv + 1, argv + argc);
  ClientOptions options;
  double timeout_s = 2;
  if (args.empty()) throw std::invalid_argument("a mode is missing");
  for (std::size_t i = 1; i < args.size(); i += 2) {
    if (i + 1 >= args.size()) throw std::invalid_argument(args[i] + ": a value is missing");
    const std::string& value = args[i + 1];
    if (args[i] == "--to")
      options.to = value;
    else if (args[i] == "--port")
      options.port = std::stoi(value);
    else if (args[i] == "--interval-us")
      options.interval_us = std::max(1, std::stoi(value));
    else if (args[i] == "--streams")
      options.streams = std::stoi(value);
    else if (args[i] == "--duration")
      options.duration_s = std::stod(value);
    else if (args[i] == "--timeout")
      timeout_s = std::stod(value);
    else
      throw std::invalid_argument("unknown option " + args[i]);
  }
  if (args[0] == "server") {
    Server(options.port).run();
    return 0;
  }
  if (options.to.empty()) throw std::invalid_argument("--to is missing");
  if (args[0] == "once") return once(options.to, options.port, timeout_s);
  if (args[0] != "client") throw std::invalid_argument("unknown mode " + args[0]);
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // no traffic outlives the test or lab that asked for it
  Client client(options);
  client.run();
  client.report();
  return 0;
} catch (const std::invalid_argument& e) {
  std::fprintf(stderr, "egw-probe: %s\n%s", e.what(), kUsage);
  return 2;
} catch (const std::exception& e) {
  std::fprintf(stderr, "egw-probe: %s\n", e.what());
  return 1;
}
