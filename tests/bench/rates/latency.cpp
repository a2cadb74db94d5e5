// Round trips of one small datagram of a running flow. Client and server are the same thread: what
// it measures is what the kernel does on the way, without anybody being woken up.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "rates.hpp"

namespace egw::rates {
namespace {

class Latency : public Meter {
 public:
  explicit Latency(const Layout& layout) : pair_(layout) {}

  void burst(Clock::duration length) override {
    const auto end = Clock::now() + length;
    for (auto begin = Clock::now(); begin < end;) {
      char byte = 0;
      if (send(pair_.client, &byte, 1, 0) != 1 || !pair_.answer() ||
          recv(pair_.client, &byte, 1, 0) != 1) {
        throw std::runtime_error(pair_.name + ": a datagram or its answer was lost");
      }
      const auto now = Clock::now();
      trips_.push_back(seconds(now - begin) * 1e6);
      begin = now;
    }
  }

  std::map<std::string, double> take() override {
    std::sort(trips_.begin(), trips_.end());
    const auto at = [this](std::size_t percent) { return trips_[trips_.size() * percent / 100]; };
    std::map<std::string, double> out{{"p50_us", at(50)}, {"p99_us", at(99)}};
    trips_.clear();
    return out;
  }

 private:
  DatagramPair pair_;
  std::vector<double> trips_;
};

}  // namespace

std::unique_ptr<Meter> latency(const Layout& layout, Receiver& /*receiver*/) {
  return std::make_unique<Latency>(layout);
}

}  // namespace egw::rates
