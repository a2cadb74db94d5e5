// New flows per second: TCP connections, one after the other, made, accepted and reset at once.
// Each is new to everything on the way, and four packets cross it. Client and server are the same
// thread.
//
// It is the client that resets. After a reset by the server conntrack keeps an entry for 10 s, lets
// a connection of the same ports pass by it without renewing it, and when it runs out between SYN
// and SYN/ACK nobody can translate the answer: the client has to ask again after a second. After
// the client's own reset, a SYN makes a new entry.
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "rates.hpp"

namespace egw::rates {
namespace {

constexpr std::chrono::milliseconds kLate(200);
constexpr std::chrono::milliseconds kPatience(4000);  // a SYN goes out at 0, 1 and 3 s

bool ready(int fd, short what, Clock::time_point end) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
  pollfd wait{fd, what, 0};
  return poll(&wait, 1, static_cast<int>(std::max<std::int64_t>(0, left))) == 1;
}

bool repeated(int fd) {
  tcp_info info{};
  socklen_t length = sizeof info;
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_total_retrans != 0;
}

class Flows : public Meter {
 public:
  explicit Flows(const Layout& layout)
      : layout_(layout), listener_(server_socket(layout, SOCK_STREAM)) {}

  void burst(Clock::duration length) override {
    const InNamespace inside(layout_.client_ns);
    const auto end = Clock::now() + length;
    for (auto begin = Clock::now(); begin < end;) {
      const bool in_time = one(begin);
      const auto now = Clock::now();
      if (in_time) {
        ++made_;
        spent_ += now - begin;
      }
      begin = now;
    }
  }

  // lost: a packet had to be sent again, or no answer came at all; late: an answer to the first
  // packet that took longer than kLate, as when the machine stands still. Neither is in the rate.
  std::map<std::string, double> take() override {
    std::map<std::string, double> out{
        {"per_second", made_ == 0 ? 0 : made_ / seconds(spent_)}, {"lost", lost_}, {"late", late_}};
    made_ = lost_ = late_ = 0;
    spent_ = {};
    return out;
  }

 private:
  // Whether the connection stood in time; if not, it is counted.
  bool one(Clock::time_point begin) {
    std::optional<Socket> server;  // closed after the client's
    const Socket client(
        socket(layout_.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const linger reset{1, 0};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (connect(client, layout_.server(), layout_.address_length) != 0 && errno != EINPROGRESS)
      die(layout_.name + ": connect");
    const auto end = begin + kPatience;
    const bool answered = ready(client, POLLOUT, end);
    socklen_t length = sizeof errno;
    getsockopt(client, SOL_SOCKET, SO_ERROR, &errno, &length);
    if (errno != 0) die(layout_.name + ": connect");
    if (!answered || !ready(listener_, POLLIN, end)) {
      ++lost_;
      return false;
    }
    const bool in_time = Clock::now() - begin <= kLate;
    server.emplace(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
    if (*server < 0) die(layout_.name + ": accept");
    const bool again = repeated(client) || repeated(*server);
    if (again) {
      ++lost_;
    } else if (!in_time) {
      ++late_;
    }
    return in_time && !again;
  }

  Layout layout_;
  Socket listener_;
  double made_ = 0, lost_ = 0, late_ = 0;
  Clock::duration spent_{};
};

}  // namespace

std::unique_ptr<Meter> flows(const Layout& layout, Receiver& /*receiver*/) {
  return std::make_unique<Flows>(layout);
}

}  // namespace egw::rates
