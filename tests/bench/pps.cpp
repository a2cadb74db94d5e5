// egw-pps: packets per second of several network layouts in one run. Every layout is a pair of
// network namespaces; in each round every layout gets one burst, in turn, so that a drift of the
// machine's speed meets all of them alike. The sender (and with veth all forwarding) runs on CPU 0,
// the receiver polls on CPU 1 and answers the first datagram of a layout once, so that its flow is
// ESTABLISHED.
//
// usage: egw-pps ROUNDS BURST_MS LAYOUT...     LAYOUT:
// name,client-netns,server-netns,server-address Prints JSON: {"name": {"pps": [per round]}, ...}.
// Called by tests/bench/*.py.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace {

constexpr int kPort = 7100;
constexpr std::size_t kBatch = 32;
constexpr std::size_t kPayload = 18;

[[noreturn]] void die(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0) die("pin to a CPU");
}

// A UDP socket that lives in the named namespace; the calling thread returns to its own.
int socket_in(const std::string& ns, int family) {
  const int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  const int target = open(("/run/netns/" + ns).c_str(), O_RDONLY | O_CLOEXEC);
  if (own < 0 || target < 0 || setns(target, CLONE_NEWNET) != 0) die("enter namespace " + ns);
  const int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || setns(own, CLONE_NEWNET) != 0) die("socket in " + ns);
  close(own);
  close(target);
  return fd;
}

struct Layout {
  std::string name;
  int client = -1, server = -1;
  std::vector<double> pps;
};

Layout make_layout(const std::string& spec) {
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
  Layout l;
  l.name = part[0];
  sockaddr_in6 v6{};
  sockaddr_in v4{};
  const bool is_v6 = inet_pton(AF_INET6, part[3].c_str(), &v6.sin6_addr) == 1;
  if (!is_v6 && inet_pton(AF_INET, part[3].c_str(), &v4.sin_addr) != 1) {
    throw std::invalid_argument(part[3] + ": not an address");
  }
  v6.sin6_family = AF_INET6;
  v4.sin_family = AF_INET;
  v6.sin6_port = v4.sin_port = htons(kPort);
  const auto* to =
      is_v6 ? reinterpret_cast<const sockaddr*>(&v6) : reinterpret_cast<const sockaddr*>(&v4);
  const socklen_t len = is_v6 ? sizeof v6 : sizeof v4;
  l.client = socket_in(part[1], to->sa_family);
  l.server = socket_in(part[2], to->sa_family);
  const int big = 4 << 20;
  setsockopt(l.server, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
  if (bind(l.server, to, len) != 0) die("bind in " + part[2]);
  if (connect(l.client, to, len) != 0) die("connect in " + part[1]);
  return l;
}

// One datagram there and back: the flow is known to conntrack in both directions afterwards.
void establish(const Layout& l) {
  const timeval wait{0, 200000};
  setsockopt(l.client, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  setsockopt(l.server, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  for (int i = 0; i < 50; ++i) {
    char buf[64] = {};
    (void)send(l.client, buf, kPayload, 0);
    sockaddr_storage from{};
    socklen_t len = sizeof from;
    if (recvfrom(l.server, buf, sizeof buf, 0, reinterpret_cast<sockaddr*>(&from), &len) <= 0)
      continue;
    (void)sendto(l.server, buf, kPayload, 0, reinterpret_cast<sockaddr*>(&from), len);
    if (recv(l.client, buf, sizeof buf, 0) > 0) return;
  }
  throw std::runtime_error(l.name + ": no datagram goes there and back");
}

std::uint64_t burst(int fd, std::chrono::milliseconds length) {
  std::array<char, kPayload> payload{};
  iovec iov{payload.data(), payload.size()};
  std::array<mmsghdr, kBatch> batch{};
  for (auto& m : batch) {
    m.msg_hdr.msg_iov = &iov;
    m.msg_hdr.msg_iovlen = 1;
  }
  std::uint64_t sent = 0;
  const auto end = std::chrono::steady_clock::now() + length;
  while (std::chrono::steady_clock::now() < end) {
    const int n = sendmmsg(fd, batch.data(), kBatch, 0);
    if (n > 0) sent += static_cast<std::uint64_t>(n);
  }
  return sent;
}

// Counts what arrives at `fd` until told to stop; never sleeps, so that no wake-up disturbs CPU 0.
class Receiver {
 public:
  Receiver() : thread_([this] { run(); }) {}
  ~Receiver() {
    done_ = true;
    thread_.join();
  }
  void watch(int fd) {
    count_ = 0;
    fd_ = fd;
  }
  [[nodiscard]] std::uint64_t count() const { return count_; }

 private:
  void run() {
    pin(1);
    std::array<std::array<char, 64>, kBatch> buffers{};
    std::array<iovec, kBatch> iov{};
    std::array<mmsghdr, kBatch> batch{};
    for (std::size_t i = 0; i < kBatch; ++i) {
      iov[i] = {buffers[i].data(), buffers[i].size()};
      batch[i].msg_hdr.msg_iov = &iov[i];
      batch[i].msg_hdr.msg_iovlen = 1;
    }
    while (!done_) {
      const int fd = fd_;
      if (fd < 0) continue;
      const int n = recvmmsg(fd, batch.data(), kBatch, MSG_DONTWAIT, nullptr);
      if (n > 0) count_ += static_cast<std::uint64_t>(n);
    }
  }
  std::atomic<bool> done_{false};
  std::atomic<int> fd_{-1};
  std::atomic<std::uint64_t> count_{0};
  std::thread thread_;
};

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4) throw std::invalid_argument("usage: egw-pps ROUNDS BURST_MS LAYOUT...");
  const int rounds = std::stoi(argv[1]);
  const std::chrono::milliseconds length(std::stoi(argv[2]));
  std::vector<Layout> layouts;
  for (int i = 3; i < argc; ++i) layouts.push_back(make_layout(argv[i]));
  for (const auto& l : layouts) establish(l);
  pin(0);
  Receiver receiver;
  for (int round = -1; round < rounds; ++round) {  // the first is a warm-up
    for (auto& l : layouts) {
      receiver.watch(l.server);
      const auto begin = std::chrono::steady_clock::now();
      (void)burst(l.client, length);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      std::this_thread::sleep_for(
          std::chrono::milliseconds(2));  // the queue at the receiver drains
      if (round >= 0) l.pps.push_back(static_cast<double>(receiver.count()) / took.count());
    }
  }
  nlohmann::json out;
  for (const auto& l : layouts) out[l.name]["pps"] = l.pps;
  std::puts(out.dump().c_str());
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "egw-pps: %s\n", e.what());
  return 1;
}
