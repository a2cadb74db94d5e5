// Throughput of one TCP connection, with the segments that the kernel joins on the way (GSO, GRO)
// as on any host.
#include <sched.h>

#include <stdexcept>
#include <vector>

#include "rates.hpp"

namespace egw::rates {
namespace {

class Stream : public Meter {
 public:
  Stream(const Layout& layout, Receiver& receiver)
      : name_(layout.name),
        receiver_(receiver),
        listener_(server_socket(layout, SOCK_STREAM)),
        client_(client_socket(layout, SOCK_STREAM)),
        server_(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) {
    if (server_ < 0) die(name_ + ": accept");
    // Many times what fits on the way, but not so much that a slow layout takes long to drain.
    const int buffer = 256 << 10;
    setsockopt(client_, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  }

  // Time counts until the last byte has been read.
  void burst(Clock::duration length) override {
    receiver_.watch(server_, true);
    const auto begin = Clock::now();
    std::uint64_t sent = 0;
    while (Clock::now() < begin + length) {
      const auto n = send(client_, data_.data(), data_.size(), MSG_NOSIGNAL);
      if (n < 0) die(name_ + ": send");
      sent += static_cast<std::uint64_t>(n);
    }
    while (receiver_.count() < sent) {
      if (Clock::now() > begin + length + std::chrono::seconds(2)) {
        throw std::runtime_error(name_ + ": the stream stands still");
      }
      sched_yield();
    }
    seconds_ += seconds(Clock::now() - begin);
    bytes_ += sent;
  }

  std::map<std::string, double> take() override {
    const double rate = static_cast<double>(bytes_) * 8e-9 / seconds_;
    bytes_ = 0;
    seconds_ = 0;
    return {{"gbit_per_second", rate}};
  }

 private:
  std::string name_;
  Receiver& receiver_;
  Socket listener_, client_, server_;
  std::vector<char> data_ = std::vector<char>(128 << 10);
  std::uint64_t bytes_ = 0;
  double seconds_ = 0;
};

}  // namespace

std::unique_ptr<Meter> stream(const Layout& layout, Receiver& receiver) {
  return std::make_unique<Stream>(layout, receiver);
}

}  // namespace egw::rates
