// The traffic of a pod: what is lost, how long answers stay away, which sources are seen
// (probe.cpp).
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "probe.hpp"

namespace egw::probe {
namespace {

using nlohmann::json;

class Client {
 public:
  explicit Client(ClientOptions options) : options_(std::move(options)) {
    const Endpoint to = endpoint(options_.to, options_.port);
    udp_ = Fd(socket(to.addr.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!udp_ || connect(udp_.get(), reinterpret_cast<const sockaddr*>(&to.addr), to.len) != 0)
      die("udp");
    // When the server or this process was not run for a while the answers come all at once.
    setsockopt(udp_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kBuffer, sizeof kBuffer);
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
        if (fd == sig.get()) return settle();
        if (fd == timer_.get())
          tick();
        else if (fd == udp_.get())
          receive();
        else
          receive_stream(fd);
      }
    }
    settle();
  }

  void report() {
    std::uint32_t memory[SK_MEMINFO_VARS] = {};
    socklen_t size = sizeof memory;
    if (getsockopt(udp_.get(), SOL_SOCKET, SO_MEMINFO, memory, &size) != 0) die("SO_MEMINFO");
    if (memory[SK_MEMINFO_DROPS] != 0) {
      throw std::runtime_error(std::to_string(memory[SK_MEMINFO_DROPS]) +
                               " answers came and found no room, because this process was not run: "
                               "nothing can be said about what was lost");
    }
    std::int64_t gap = 0, gap_at = 0, last_ok = sent_.empty() ? 0 : sent_.front().at_us;
    std::uint64_t lost = 0;
    for (const auto& s : sent_) {
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
    if (!sent_.empty() && ended_us_ - last_ok > gap) {  // still silent at the end
      gap = ended_us_ - last_ok;
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
      else if (ended_us_ - s.last_us > 1'000'000)
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
  static constexpr int kBuffer = 8 << 20;  // bytes: ten thousand answers
  static constexpr std::int64_t kSettleUs = 2'000'000;

  // Sends nothing more. What is answered late is not lost: answers come in the order of the
  // questions, so that all have come, or will not, when the last one has.
  void settle() {
    ended_us_ = now_us();
    while (!sent_.empty() && !sent_.back().answered) {
      const std::int64_t left_us = ended_us_ + kSettleUs - now_us();
      if (left_us <= 0) return;
      pollfd p{udp_.get(), POLLIN, 0};
      if (poll(&p, 1, static_cast<int>(left_us / 1000) + 1) == 1) receive();
    }
  }

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
  std::int64_t ended_us_ = 0;
  std::vector<Stream> streams_;
  struct Run {  // answers in a row that name the same source
    std::string source;
    std::uint64_t answers = 0;
    std::int64_t first_us = 0;
  };
  std::vector<Run> order_;
};

}  // namespace

void run_client(const ClientOptions& options) {
  Client client(options);
  client.run();
  client.report();
}

}  // namespace egw::probe
