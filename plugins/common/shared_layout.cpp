#include "shared_layout.hpp"

#include <cerrno>
#include <cstdio>
#include <fstream>

namespace egw::common {
namespace {

constexpr std::size_t kMostPeers = 100'000;

std::string line_of(const sdk::Mac& mac, std::uint32_t number) {
  char text[32];
  std::snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
                mac[4], mac[5]);
  return std::string(text) + " " + std::to_string(number) + "\n";
}

// A reader sees the old text or the new one. why: what follows from a failure.
sdk::Status replace(const std::string& file, const std::string& text, std::string_view why) {
  const std::string fresh = file + ".new";
  std::ofstream out(fresh, std::ios::trunc);
  out << text;
  out.close();
  if (out && std::rename(fresh.c_str(), file.c_str()) == 0) return sdk::ok();
  return sdk::fail(sdk::Code::kUnavailable, "cannot be written: " + std::string(why), file, errno);
}

}  // namespace

PeerNumbers::PeerNumbers(std::string_view layout_dir) {
  if (layout_dir.empty()) return;
  file_ = std::string(layout_dir) + "/peers";
  std::ifstream in(file_);
  for (std::string line; kept_.size() < kMostPeers && std::getline(in, line);) {
    sdk::Mac mac{};
    unsigned number = 0;
    if (std::sscanf(line.c_str(), "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx %u", &mac[0], &mac[1],
                    &mac[2], &mac[3], &mac[4], &mac[5], &number) == 7 &&
        number != 0) {
      kept_.emplace(mac, number);
    }
  }
}

sdk::Status PeerNumbers::keep(const std::map<sdk::Mac, std::uint32_t>& numbers) {
  if (file_.empty() || numbers == kept_) return sdk::ok();
  std::string text;
  for (const auto& [mac, number] : numbers) text += line_of(mac, number);
  sdk::Status s = replace(file_, text,
                          "with another datapath, answers to running connections might go to the "
                          "wrong node");
  if (s.ok()) kept_ = numbers;
  return s;
}

}  // namespace egw::common
