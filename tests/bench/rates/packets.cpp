// Packets per second: small datagrams of one flow as fast as they go; what arrives counts.
#include <array>

#include "rates.hpp"

namespace egw::rates {
namespace {

constexpr std::size_t kBatch = 32;
constexpr std::size_t kPayload = 18;

class Packets : public Meter {
 public:
  Packets(const Layout& layout, Receiver& receiver) : pair_(layout), receiver_(receiver) {
    for (auto& m : batch_) {
      m.msg_hdr.msg_iov = &iov_;
      m.msg_hdr.msg_iovlen = 1;
    }
  }

  void burst(Clock::duration length) override {
    receiver_.watch(pair_.server, false);
    const auto begin = Clock::now();
    while (Clock::now() < begin + length) (void)sendmmsg(pair_.client, batch_.data(), kBatch, 0);
    seconds_ += seconds(Clock::now() - begin);
    // The queue at the receiver drains.
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    arrived_ += receiver_.count();
  }

  std::map<std::string, double> take() override {
    const double pps = static_cast<double>(arrived_) / seconds_;
    arrived_ = 0;
    seconds_ = 0;
    return {{"pps", pps}};
  }

 private:
  DatagramPair pair_;
  Receiver& receiver_;
  std::array<char, kPayload> payload_{};
  iovec iov_{payload_.data(), payload_.size()};
  std::array<mmsghdr, kBatch> batch_{};
  std::uint64_t arrived_ = 0;
  double seconds_ = 0;
};

}  // namespace

std::unique_ptr<Meter> packets(const Layout& layout, Receiver& receiver) {
  return std::make_unique<Packets>(layout, receiver);
}

}  // namespace egw::rates
