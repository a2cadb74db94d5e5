// egw-rates: what network layouts carry, all of them in one run. A layout is a pair of network
// namespaces, a client's and a server's; a meter makes its sockets there and measures in bursts.
// Sender and forwarding (with veth the whole way) run on CPU 0. Used by the files of this folder;
// the program is called by tests/bench/*.py.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>

namespace egw::rates {

using Clock = std::chrono::steady_clock;

struct Layout {
  std::string name, client_ns, server_ns;
  sockaddr_storage address{};  // the server's, port included
  socklen_t address_length = 0;

  [[nodiscard]] const sockaddr* server() const {
    return reinterpret_cast<const sockaddr*>(&address);
  }
};

// "name,client-netns,server-netns,server-address"; throws std::invalid_argument. Layouts may share
// a server, so each has a port of its own.
Layout parse_layout(const std::string& spec, std::uint16_t port);

// Throws std::system_error with errno.
[[noreturn]] void die(const std::string& what);

void pin(int cpu);

// While it lives, the calling thread makes its sockets in the named network namespace.
class InNamespace {
 public:
  explicit InNamespace(const std::string& name);
  ~InNamespace();
  InNamespace(const InNamespace&) = delete;
  InNamespace& operator=(const InNamespace&) = delete;

 private:
  int own_;
};

// What send(), recv(), connect() and accept() wait at most: a packet that is lost must not stop a
// run.
void limit_waiting(int fd);

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  operator int() const { return fd_; }  // NOLINT(google-explicit-constructor): it is one

 private:
  int fd_;
};

// A socket in the client's namespace connected to the server (over TCP: it must listen already),
// one in the server's bound to its address.
int client_socket(const Layout& layout, int type);
int server_socket(const Layout& layout, int type);

// A pair of UDP sockets over which one datagram has gone there and back: the flow is known to
// conntrack in both directions.
struct DatagramPair {
  explicit DatagramPair(const Layout& layout);
  // Waits for a datagram of the client's and answers it; false when none came.
  bool answer() const;

  std::string name;
  Socket server, client;
};

// Takes what arrives at a socket, on CPU 1, and counts it: packets of a UDP socket, bytes of a TCP
// one. Once it has been given a socket it never sleeps, so that no wake-up disturbs CPU 0.
class Receiver {
 public:
  Receiver() : thread_([this] { run(); }) {}
  ~Receiver();
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  void watch(int fd, bool stream);
  [[nodiscard]] std::uint64_t count() const { return count_; }

 private:
  void run();

  std::atomic<bool> done_{false}, stream_{false};
  std::atomic<int> fd_{-1};
  std::atomic<std::uint64_t> count_{0};
  std::thread thread_;
};

// Measures one layout. The figures of a round come from all its bursts together.
class Meter {
 public:
  virtual ~Meter() = default;
  virtual void burst(Clock::duration length) = 0;
  // The figures since the last call, by name.
  virtual std::map<std::string, double> take() = 0;
};

std::unique_ptr<Meter> packets(const Layout& layout, Receiver& receiver);  // pps
std::unique_ptr<Meter> latency(const Layout& layout, Receiver& receiver);  // p50_us, p99_us
std::unique_ptr<Meter> flows(const Layout& layout, Receiver& receiver);    // per_second
std::unique_ptr<Meter> stream(const Layout& layout, Receiver& receiver);   // gbit_per_second

inline double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace egw::rates
