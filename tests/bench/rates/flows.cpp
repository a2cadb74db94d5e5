// New flows per second: TCP connections, one after the other, made, accepted and reset at once.
// Each is new to everything on the way, and four packets cross it. Client and server are the same
// thread.
#include <unistd.h>

#include "rates.hpp"

namespace egw::rates {
namespace {

class Flows : public Meter {
 public:
  explicit Flows(const Layout& layout)
      : layout_(layout), listener_(server_socket(layout, SOCK_STREAM)) {}

  void burst(Clock::duration length) override {
    const InNamespace inside(layout_.client_ns);
    const auto begin = Clock::now();
    while (Clock::now() < begin + length) {
      one();
      ++made_;
    }
    seconds_ += seconds(Clock::now() - begin);
  }

  std::map<std::string, double> take() override {
    const double rate = static_cast<double>(made_) / seconds_;
    made_ = 0;
    seconds_ = 0;
    return {{"per_second", rate}};
  }

 private:
  void one() const {
    const Socket client(socket(layout_.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const linger reset{1, 0};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    limit_waiting(client);
    if (connect(client, layout_.server(), layout_.address_length) != 0)
      die(layout_.name + ": connect");
    const Socket server(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
    if (server < 0) die(layout_.name + ": accept");
    setsockopt(server, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  }

  Layout layout_;
  Socket listener_;
  std::uint64_t made_ = 0;
  double seconds_ = 0;
};

}  // namespace

std::unique_ptr<Meter> flows(const Layout& layout, Receiver& /*receiver*/) {
  return std::make_unique<Flows>(layout);
}

}  // namespace egw::rates
