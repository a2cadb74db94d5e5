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

struct Kind {
  Make make;
  std::chrono::milliseconds slice;
};

constexpr std::chrono::milliseconds kShort(20);
constexpr std::chrono::milliseconds kLong(100);  // TCP begins each slice slowly
constexpr int kFirstPort = 7100;
const std::map<std::string, Kind> kKinds{{"packets", {rates::packets, kShort}},
                                         {"latency", {rates::latency, kShort}},
                                         {"flows", {rates::flows, kShort}},
                                         {"stream", {rates::stream, kLong}}};

}  // namespace

int main(int argc, char** argv) try {
  const auto kind = argc < 5 ? kKinds.end() : kKinds.find(argv[1]);
  if (kind == kKinds.end()) {
    throw std::invalid_argument(
        "usage: egw-rates packets|latency|flows|stream ROUNDS BURST_MS LAYOUT...");
  }
  const int rounds = std::stoi(argv[2]);
  const auto [make, length] = kind->second;
  const int slices = std::max(1, std::stoi(argv[3]) / static_cast<int>(length.count()));
  rates::Receiver receiver;
  rates::pin(0);
  std::vector<std::pair<std::string, std::unique_ptr<rates::Meter>>> meters;
  for (int i = 4; i < argc; ++i) {
    const auto layout = rates::parse_layout(argv[i], static_cast<std::uint16_t>(kFirstPort + i));
    meters.emplace_back(layout.name, make(layout, receiver));
  }
  nlohmann::json out;
  for (int round = -1; round < rounds; ++round) {  // the first is a warm-up
    for (int slice = 0; slice < (round < 0 ? 1 : slices); ++slice) {
      for (const auto& [name, meter] : meters) meter->burst(length);
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
