// egw-rates: packets per second, round trips, new flows per second or a TCP stream's throughput of
// several network layouts in one run (rates.hpp). A round gives every layout BURST_MS in slices, in
// turn, forwards and backwards, so that a drift of the machine's speed meets all of them alike.
//
// usage: egw-rates packets|latency|flows|stream ROUNDS BURST_MS LAYOUT...
// LAYOUT: name,client-netns,server-netns,server-address
// Prints JSON: {"name": {"pps": [per round]}, ...}. Called by tests/bench/*.py.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <vector>

#include "rates.hpp"

namespace {

namespace rates = egw::rates;
using Make = std::unique_ptr<rates::Meter> (*)(const rates::Layout&, rates::Receiver&);

constexpr std::chrono::milliseconds kSlice(20);
constexpr int kWarmUp = 2;  // slices
constexpr int kFirstPort = 7100;
const std::map<std::string, Make> kMeters{{"packets", rates::packets},
                                          {"latency", rates::latency},
                                          {"flows", rates::flows},
                                          {"stream", rates::stream}};

}  // namespace

int main(int argc, char** argv) try {
  const auto make = argc < 5 ? kMeters.end() : kMeters.find(argv[1]);
  if (make == kMeters.end()) {
    throw std::invalid_argument(
        "usage: egw-rates packets|latency|flows|stream ROUNDS BURST_MS LAYOUT...");
  }
  const int rounds = std::stoi(argv[2]);
  const int slices = std::max(1, std::stoi(argv[3]) / static_cast<int>(kSlice.count()));
  rates::Receiver receiver;
  rates::pin(0);
  std::vector<std::pair<std::string, std::unique_ptr<rates::Meter>>> meters;
  for (int i = 4; i < argc; ++i) {
    const auto layout = rates::parse_layout(argv[i], static_cast<std::uint16_t>(kFirstPort + i));
    meters.emplace_back(layout.name, make->second(layout, receiver));
  }
  nlohmann::json out;
  for (int round = -1; round < rounds; ++round) {
    for (int slice = 0; slice < (round < 0 ? kWarmUp : slices); ++slice) {
      for (const auto& [name, meter] : meters) meter->burst(kSlice);
      std::reverse(meters.begin(), meters.end());
    }
    for (const auto& [name, meter] : meters) {
      for (const auto& [figure, value] : meter->take()) {
        if (round >= 0) out[name][figure].push_back(value);
      }
    }
  }
  std::puts(out.dump().c_str());
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "egw-rates: %s\n", e.what());
  return 1;
}
